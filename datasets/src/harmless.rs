//! Text from files and arguments, made fit for a terminal.

use std::borrow::Cow;

/// `text` with every character that could drive a terminal, or reorder what it shows, written as
/// `\u{1b}`: control characters, bidirectional controls, and invisible ones that could hide text.
///
/// Line breaks and tabs are among them: the text stays on its line.
pub fn harmless(text: &str) -> Cow<'_, str> {
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_harmful(c) {
            true => clean.extend(c.escape_unicode()),
            false => clean.push(c),
        }
    }
    Cow::Owned(clean)
}

/// Whether a character does something to a terminal beyond showing itself.
pub fn is_harmful(c: char) -> bool {
    // Joiners (U+200C, U+200D) stay: scripts and emoji need them.
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_spelled_out() {
        let spelled = [
            ("\u{1b}[2J", r"\u{1b}[2J"),
            ("a\nb\tc", r"a\u{a}b\u{9}c"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("abc\u{202e}fdp", r"abc\u{202e}fdp"),
            ("\u{2066}x\u{2069}", r"\u{2066}x\u{2069}"),
            ("a\u{7f}", r"a\u{7f}"),
            ("\u{feff}\u{200f}", r"\u{feff}\u{200f}"),
        ];
        for (text, wanted) in spelled {
            assert_eq!(harmless(text), wanted);
        }
        for text in ["plain", "日本語", "e\u{301}", "👩\u{200d}💻", "שלום", "می\u{200c}خواهم"]
        {
            assert!(matches!(harmless(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
