//! Figures as people read them, and texts cut to the room there is.

/// Separates thousands; as many decimals as a reader can use.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        v if v >= 100.0 || v == v.round() => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, digits) = whole.split_at(usize::from(whole.starts_with('-')));
    let mut grouped = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() { grouped } else { format!("{grouped}.{rest}") }
}

/// A value of an axis, short: `20k`, `1.5M`.
pub fn short(value: f64) -> String {
    scaled(value, &[(1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")])
}

/// Microseconds in the unit that suits.
pub fn micros(value: f64) -> String {
    scaled(value, &[(1e6, " s"), (1e3, " ms"), (1.0, " µs")])
}

/// Seconds in the unit that suits.
pub fn seconds(value: f64) -> String {
    scaled(value, &[(3600.0, " h"), (60.0, " min"), (1.0, " s")])
}

/// Bytes, by powers of 1000.
pub fn bytes(value: f64) -> String {
    scaled(value, &[(1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")])
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let fits = units.iter().find(|(size, _)| value >= *size).or(units.last());
    let (size, unit) = fits.copied().unwrap_or((1.0, ""));
    let value = value / size;
    let decimals = match value {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let trimmed = if decimals == 0 { &text } else { text.trim_end_matches('0') };
    format!("{}{unit}", trimmed.trim_end_matches('.'))
}

/// Recall without needless zeros: `0.95`.
pub fn recall(value: f64) -> String {
    let text = format!("{value:.10}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The plural of a count: `1 thread`, `2 threads`.
pub fn count(count: u64, word: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {word}{plural}", number(count as f64))
}

/// What XML can hold: control characters become visible.
pub fn printable(text: &str) -> String {
    let bad = |c: char| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect()
}

/// Pixels that `text` takes at most, whatever sans-serif font draws it.
pub fn width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if c < '\u{2000}' { 0.58 } else { 1.0 }).sum::<f64>() * size
}

/// `text` cut to `room` pixels, with an ellipsis where something is missing.
pub fn fitted(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if width(&kept, size) + 2.0 * size > room {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

/// Parts joined by ` · `, broken into lines of at most `room` pixels.
pub fn broken(parts: &[String], size: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let part = fitted(part, size, room);
        match lines.last_mut() {
            Some(line) if width(line, size) + width(" · ", size) + width(&part, size) <= room => {
                line.push_str(" · ");
                line.push_str(&part);
            }
            _ => lines.push(part),
        }
    }
    lines
}

/// A name for a file: lower-case letters, digits and hyphens.
pub fn slug(text: &str) -> String {
    let mut slug = String::new();
    for c in text.chars().take(60) {
        if c.is_ascii_alphanumeric() {
            slug.push(c.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "data".into() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let seen: Vec<String> = [0.0, 7.0, 0.1234, 12.34, 999.6, 24_103.4, 1e6, -1234.0]
            .into_iter()
            .map(number)
            .collect();
        let wanted = ["0", "7", "0.123", "12.3", "1,000", "24,103", "1,000,000", "-1,234"];
        assert_eq!(seen, wanted);
        assert_eq!([short(20_000.0), short(0.5), short(100.0)], ["20k", "0.5", "100"]);
        assert_eq!([micros(50.0), micros(1_500.0)], ["50 µs", "1.5 ms"]);
        assert_eq!([bytes(445_718_528.0), seconds(113.8)], ["446 MB", "1.9 min"]);
        assert_eq!([recall(1.0), recall(1.0 - 5e-4)], ["1", "0.9995"]);
        assert_eq!([count(1, "thread"), count(2, "thread")], ["1 thread", "2 threads"]);
    }

    #[test]
    fn texts_fit() {
        assert_eq!(fitted("abc", 10.0, 100.0), "abc");
        let cut = fitted(&"abcdefghij".repeat(9), 10.0, 100.0);
        assert!(cut.ends_with('…') && width(&cut, 10.0) <= 100.0, "{cut}");
        let parts: Vec<String> = ["one", "two", "three"].map(String::from).into();
        assert_eq!(broken(&parts, 10.0, 60.0), ["one · two", "three"]);
    }

    #[test]
    fn file_names_hold_nothing_strange() {
        assert_eq!(slug("../../Etc Passwd<script>"), "etc-passwd-script");
        assert_eq!(slug("///"), "data");
        assert_eq!(printable("a\u{1b}b\n"), "a\u{fffd}b\u{fffd}");
    }
}
