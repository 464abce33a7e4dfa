//! Arguments as a shell reads them, for commands that are shown to be tried.

use std::path::Path;

use foveal_datasets::harmless::harmless;

/// A path that can be pasted into a command line: quoted where it needs to be. What would drive a
/// terminal is spelled out.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", harmless(&text).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_has_them() {
        let words =
            ["a/b-c.d", "my index", "it's", "", "\u{1b}c"].map(|text| quoted(Path::new(text)));
        assert_eq!(words, ["a/b-c.d", "'my index'", r"'it'\''s'", "''", r"'\u{1b}c'"]);
    }
}
