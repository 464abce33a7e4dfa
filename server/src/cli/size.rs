//! Amounts of memory as people write them: `2GiB`, `500MB`, `1048576`.

/// Bytes out of a number and a unit: none or B, KB MB GB TB (powers of 1000), KiB MiB GiB TiB or
/// K M G T (powers of 1024); the case of letters does not matter.
///
/// # Errors
/// What was found and wanted, when the text is no such amount or is below 1 or above 2^63.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no amount of memory; wanted one such as 2GiB or 500MB");
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1_u64 << 40,
        _ => return Err(wrong()),
    };
    // Whole numbers stay exact; only fractions pass through floating point.
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor).ok_or_else(wrong)?,
        Err(_) => (number.parse::<f64>().map_err(|_| wrong())? * factor as f64) as u64,
    };
    if bytes == 0 || bytes > 1 << 63 { Err(wrong()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_what_their_letters_say() {
        for (text, bytes) in [
            ("1", 1),
            ("4096B", 4096),
            ("500MB", 500_000_000),
            ("500 mb", 500_000_000),
            ("2GiB", 2 << 30),
            ("2G", 2 << 30),
            ("1.5KiB", 1536),
            ("0.5GB", 500_000_000),
            ("3TiB", 3 << 40),
            ("18014398509481983", 18_014_398_509_481_983),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_was_found() {
        for text in [
            "",
            "GiB",
            "-1",
            "2XB",
            "1e9",
            "1.2.3",
            "0",
            "0.1B",
            "nan",
            "inf",
            "99999999999999TiB",
            "2GiB2",
            "99999999999999999999999",
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
