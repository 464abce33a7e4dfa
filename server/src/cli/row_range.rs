//! A range of rows as people write it: `A..B`, `A..`, `..B`.

use std::ops::Range;
use std::str::FromStr;

/// Rows from `start` up to, not including, `end`; no end means the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowRange {
    start: usize,
    end: Option<usize>,
}

impl FromStr for RowRange {
    type Err = String;

    fn from_str(text: &str) -> Result<RowRange, String> {
        let wrong = || format!("{text:?} is no range of rows; wanted A..B, A.. or ..B with A < B");
        let number = |part: &str| part.trim().parse::<usize>().map_err(|_| wrong());
        let (start, end) = text.split_once("..").ok_or_else(wrong)?;
        let start = if start.trim().is_empty() { 0 } else { number(start)? };
        let end = if end.trim().is_empty() { None } else { Some(number(end)?) };
        if end.is_some_and(|end| end <= start) {
            return Err(wrong());
        }
        Ok(RowRange { start, end })
    }
}

impl RowRange {
    /// The range among `rows` rows.
    ///
    /// # Errors
    /// What was found and wanted, when the range reaches beyond the last row or starts there.
    pub(crate) fn within(self, rows: usize) -> Result<Range<usize>, String> {
        let end = self.end.unwrap_or(rows);
        if end > rows || self.start >= end {
            return Err(format!("rows {}..{end} were asked for; there are {rows}", self.start));
        }
        Ok(self.start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::RowRange;

    fn check(text: &str, rows: usize) -> Option<std::ops::Range<usize>> {
        text.parse::<RowRange>().ok()?.within(rows).ok()
    }

    #[test]
    fn open_ends_reach_the_file_s() {
        assert_eq!(check("2..5", 10), Some(2..5));
        assert_eq!(check("2..", 10), Some(2..10));
        assert_eq!(check("..5", 10), Some(0..5));
        assert_eq!(check("..", 10), Some(0..10));
        assert_eq!(check("0..10", 10), Some(0..10));
    }

    #[test]
    fn ranges_without_rows_or_beyond_the_end_are_refused() {
        for text in ["5..5", "6..5", "0..11", "10..", "a..b", "3", "-1..2", "1..2..3", ""] {
            assert_eq!(check(text, 10), None, "{text}");
        }
    }
}
