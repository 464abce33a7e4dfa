//! Figures for people: grouped digits, sizes, times, and two aligned columns.

use foveal_datasets::harmless::harmless;

use super::terminal::{Terminal, columns};

/// Labels and values, one pair a line, the values aligned.
#[derive(Default)]
pub(crate) struct Table {
    lines: Vec<(String, String)>,
}

impl Table {
    /// Adds a line. Nothing in it drives the terminal.
    pub(crate) fn line(&mut self, label: &str, value: impl AsRef<str>) {
        self.lines.push((harmless(label).into(), harmless(value.as_ref()).into()));
    }

    /// Adds a blank line.
    pub(crate) fn gap(&mut self) {
        self.lines.push((String::new(), String::new()));
    }

    /// The table as text; ends with a line break.
    pub(crate) fn render(&self, terminal: &Terminal) -> String {
        let width = self.lines.iter().map(|(label, _)| columns(label)).max().unwrap_or(0);
        let mut text = String::new();
        for (label, value) in &self.lines {
            if label.is_empty() && value.is_empty() {
                text.push('\n');
                continue;
            }
            let blanks = " ".repeat(width - columns(label) + 2);
            text.push_str(&format!("  {}{blanks}{value}\n", terminal.dim(label)));
        }
        text
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1` as `1 query`, `2,000` as `2,000 queries`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A number of bytes in the largest unit that leaves at least 1, three digits of it.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would be rounded to a fourth digit.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// Microseconds, in the unit that suits them.
pub(crate) fn micros(value: f64) -> String {
    if value < 1e3 {
        format!("{} us", three_digits(value))
    } else if value < 1e6 {
        format!("{} ms", three_digits(value / 1e3))
    } else {
        seconds(value / 1e6)
    }
}

/// Seconds, or minutes and hours where there are many.
pub(crate) fn seconds(value: f64) -> String {
    let whole = value.round() as u64;
    if whole >= 3600 {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    } else if whole >= 100 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} s", three_digits(value))
    }
}

/// At least three significant digits.
pub(crate) fn three_digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1e6 => grouped(value.round() as u64),
        v if v >= 99.95 => grouped_float(value),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A distance with four digits; what rounds to minus zero has no sign.
pub(crate) fn distance(value: f32) -> String {
    let text = format!("{value:.4}");
    if text == "-0.0000" { "0.0000".into() } else { text }
}

fn grouped_float(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}", grouped(value.abs().round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let texts = [0, 7, 999, 1000, 12_345, 123_456, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "12,345", "123,456", "1,234,567"]);
        assert_eq!(counted(1, "row", "rows"), "1 row");
        assert_eq!(counted(2000, "row", "rows"), "2,000 rows");
    }

    #[test]
    fn sizes_take_the_unit_that_suits_them() {
        let texts = [0, 1023, 1024, 1536, 1 << 20, 2_254_857_830, 1_048_000].map(bytes);
        let wanted = ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "1.00 MiB", "2.10 GiB", "1.00 MiB"];
        assert_eq!(texts, wanted);
        assert_eq!(bytes(u64::MAX), "16,384 PiB");
    }

    #[test]
    fn times_take_the_unit_that_suits_them() {
        let texts = [0.5, 61.23, 12_345.0, 2.5e6, 150e6, 7_260e6].map(micros);
        assert_eq!(texts, ["0.50 us", "61.2 us", "12.3 ms", "2.50 s", "2 min 30 s", "2 h 01 min"]);
    }

    #[test]
    fn a_distance_of_nothing_has_no_sign() {
        let texts = [-1e-7, 0.0, 0.12345, -3.5].map(distance);
        assert_eq!(texts, ["0.0000", "0.0000", "0.1235", "-3.5000"]);
    }

    #[test]
    fn values_start_in_one_column() {
        let mut table = Table::default();
        table.line("rows", "10");
        table.gap();
        table.line("dimension", "4");
        let text = table.render(&Terminal::plain());
        assert_eq!(text, "  rows       10\n\n  dimension  4\n");
    }
}
