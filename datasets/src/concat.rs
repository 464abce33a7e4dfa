//! Several sources of rows as one, with rows left out.

use std::ops::Range;
use std::path::Path;

use crate::error::FileError;
use crate::row_source::{RowSource, check_range};
use crate::rows::{Element, Rows, Values};

/// Rows of several sources, one source after the other, some rows left out: what a merge reads.
#[derive(Debug)]
pub struct Concat<'a> {
    parts: Vec<Part<'a>>,
    /// The number of the first row of each part, and behind them the number of all rows.
    starts: Vec<usize>,
}

/// A source and the rows of it that are kept.
#[derive(Debug)]
pub struct Part<'a> {
    rows: &'a dyn RowSource,
    /// Ascending; none where all are kept.
    kept: Option<Vec<u32>>,
}

impl<'a> Part<'a> {
    /// All rows of a source.
    pub fn whole(rows: &'a dyn RowSource) -> Part<'a> {
        Part { rows, kept: None }
    }

    /// The rows of a source that are not `left_out`: ascending row numbers.
    ///
    /// # Errors
    /// Rows that the source does not have, or that are not ascending.
    pub fn without(rows: &'a dyn RowSource, left_out: &[u32]) -> Result<Part<'a>, FileError> {
        if let Some(last) = left_out.last().filter(|last| **last as usize >= rows.len()) {
            let requested = *last as usize..*last as usize + 1;
            return Err(FileError::NoSuchRows {
                path: rows.path().into(),
                requested,
                rows: rows.len(),
            });
        }
        if !left_out.is_sorted_by(|a, b| a < b) {
            let found = "rows to leave out in no order".to_owned();
            let wanted = "ascending row numbers".to_owned();
            return Err(FileError::Request { path: rows.path().into(), found, wanted });
        }
        let mut left_out = left_out.iter().peekable();
        let is_kept = |row: &u32| left_out.next_if_eq(&row).is_none();
        Ok(Part { rows, kept: Some((0..rows.len() as u32).filter(is_kept).collect()) })
    }

    fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.rows.len(), Vec::len)
    }

    fn read(&self, rows: Range<usize>) -> Result<Rows, FileError> {
        match &self.kept {
            None => self.rows.read(rows),
            Some(kept) => {
                let rows: Vec<usize> = kept[rows].iter().map(|row| *row as usize).collect();
                self.rows.read_each(&rows)
            }
        }
    }
}

impl<'a> Concat<'a> {
    /// The rows of all parts, in their order.
    ///
    /// # Errors
    /// Parts of different dimensions or element types.
    ///
    /// # Panics
    /// If there are no parts.
    pub fn new(parts: Vec<Part<'a>>) -> Result<Concat<'a>, FileError> {
        let first = parts.first().expect("rows of at least one source").rows;
        let shape = |rows: &dyn RowSource| (rows.dim(), rows.element());
        if let Some(other) = parts.iter().find(|part| shape(part.rows) != shape(first)) {
            let of =
                |rows: &dyn RowSource| format!("{} of dimension {}", rows.element(), rows.dim());
            let (found, wanted) = (of(other.rows), of(first));
            return Err(FileError::Content { path: other.rows.path().into(), found, wanted });
        }
        let mut starts = vec![0];
        starts.extend(parts.iter().scan(0, |end, part| {
            *end += part.len();
            Some(*end)
        }));
        Ok(Concat { parts, starts })
    }

    /// The part that holds a row.
    fn part_of(&self, row: usize) -> usize {
        self.starts.partition_point(|start| *start <= row) - 1
    }
}

impl RowSource for Concat<'_> {
    fn path(&self) -> &Path {
        match &self.parts[..] {
            [part] => part.rows.path(),
            _ => Path::new("rows of several sources"),
        }
    }

    fn len(&self) -> usize {
        self.starts[self.parts.len()]
    }

    fn dim(&self) -> usize {
        self.parts[0].rows.dim()
    }

    fn element(&self) -> Element {
        self.parts[0].rows.element()
    }

    fn read(&self, rows: Range<usize>) -> Result<Rows, FileError> {
        check_range(self, &rows)?;
        let mut values = Values::zeroed(self.element(), rows.len() * self.dim());
        let mut out = values.bytes_mut();
        let starts = self.starts.iter().zip(&self.starts[1..]);
        for (part, (start, end)) in self.parts.iter().zip(starts) {
            let (from, to) = (rows.start.max(*start), rows.end.min(*end));
            if from >= to {
                continue;
            }
            let read = part.read(from - start..to - start)?;
            let (here, behind) = out.split_at_mut(read.values().bytes().len());
            here.copy_from_slice(read.values().bytes());
            out = behind;
        }
        Ok(Rows::new(self.dim(), values).expect("whole rows"))
    }

    fn read_each(&self, rows: &[usize]) -> Result<Rows, FileError> {
        let row_bytes = self.dim() * self.element().size();
        let mut values = Values::zeroed(self.element(), rows.len() * self.dim());
        let mut places: Vec<Vec<usize>> = vec![Vec::new(); self.parts.len()];
        for (place, row) in rows.iter().enumerate() {
            check_range(self, &(*row..*row + 1))?;
            places[self.part_of(*row)].push(place);
        }
        for ((part, start), places) in self.parts.iter().zip(&self.starts).zip(&places) {
            let rows = places.iter().map(|place| rows[*place] - start);
            let rows: Vec<usize> = match &part.kept {
                None => rows.collect(),
                Some(kept) => rows.map(|row| kept[row] as usize).collect(),
            };
            let read = part.rows.read_each(&rows)?;
            for (place, row) in places.iter().zip(read.values().bytes().chunks_exact(row_bytes)) {
                values.bytes_mut()[place * row_bytes..][..row_bytes].copy_from_slice(row);
            }
        }
        Ok(Rows::new(self.dim(), values).expect("whole rows"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Row;

    fn rows(numbers: Vec<f32>) -> Rows {
        Rows::new(2, Values::F32(numbers)).unwrap()
    }

    #[test]
    fn several_sources_are_read_as_one_without_what_is_left_out() {
        let (a, b) = (rows(vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5]), rows(vec![3.0, 3.5, 4.0, 4.5]));
        let empty = rows(vec![]);
        let parts = vec![
            Part::without(&a, &[0, 2]).unwrap(),
            Part::whole(&empty),
            Part::whole(&b),
            Part::without(&a, &[]).unwrap(),
            Part::without(&b, &[0, 1]).unwrap(),
        ];
        let all = Concat::new(parts).unwrap();
        assert_eq!((all.len(), all.dim(), all.element()), (6, 2, Element::F32));
        let firsts = |rows: Rows| rows.iter().map(|row| first_of(row)).collect::<Vec<f32>>();
        let wanted = [1.0, 3.0, 4.0, 0.0, 1.0, 2.0];
        assert_eq!(firsts(all.read(0..6).unwrap()), wanted);
        for start in 0..6 {
            for end in start..=6 {
                assert_eq!(firsts(all.read(start..end).unwrap()), wanted[start..end]);
            }
        }
        assert_eq!(firsts(all.read_each(&[5, 0, 1, 5, 3]).unwrap()), [2.0, 1.0, 3.0, 2.0, 0.0]);
        assert!(all.read(3..7).is_err() && all.read_each(&[6]).is_err());
        let said = Part::without(&a, &[1, 3]).unwrap_err().to_string();
        assert_eq!(said, "rows in memory: rows 3..4 were asked for; wanted rows below 3");
        let said = Part::without(&a, &[1, 1]).unwrap_err().to_string();
        assert!(said.ends_with("rows to leave out in no order; wanted ascending row numbers"));
        let other = Rows::new(3, Values::F32(vec![0.0; 3])).unwrap();
        let said = Concat::new(vec![Part::whole(&a), Part::whole(&other)]).unwrap_err();
        assert!(said.to_string().ends_with("found f32 of dimension 3; wanted f32 of dimension 2"));
    }

    fn first_of(row: Row<'_>) -> f32 {
        let mut wide = vec![0.0; row.dim()];
        row.widen_into(&mut wide);
        wide[0]
    }
}
