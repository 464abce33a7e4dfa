//! What the reader's terminal can show: colour, width, and text that cannot harm it.

use std::ffi::OsString;
use std::io::IsTerminal;

use clap::ValueEnum;
use foveal_datasets::harmless::is_harmful;
use unicode_width::UnicodeWidthChar;

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always, even into a pipe.
    Always,
    /// Never.
    Never,
}

/// Columns assumed where there is no terminal to ask.
const DEFAULT_WIDTH: usize = 80;
/// Longer lines are hard to read, however wide the terminal.
const MAX_WIDTH: usize = 100;
const MIN_WIDTH: usize = 40;

/// What standard output can show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    colored: bool,
    width: usize,
}

impl Terminal {
    /// Asks standard output.
    pub(crate) fn of_stdout(choice: ColorChoice) -> Terminal {
        let stdout = std::io::stdout();
        let colored = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => stdout.is_terminal() && !no_color(),
        };
        let columns = rustix::termios::tcgetwinsize(&stdout).map_or(0, |size| size.ws_col);
        Terminal { colored, width: usable_width(usize::from(columns)) }
    }

    /// A reader without colour, 80 columns wide.
    #[cfg(test)]
    pub(crate) fn plain() -> Terminal {
        Terminal { colored: false, width: DEFAULT_WIDTH }
    }

    /// Columns a line may take.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// `text`, bold where there is colour.
    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// `text`, receding where there is colour.
    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// `text`, in the colour of names.
    pub(crate) fn name(&self, text: &str) -> String {
        self.paint("36", text)
    }

    /// `text`, in the colour of what went well.
    pub(crate) fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    /// `text`, in the colour of what did not.
    pub(crate) fn bad(&self, text: &str) -> String {
        self.paint("31", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colored && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_string()
        }
    }
}

fn usable_width(columns: usize) -> usize {
    if columns == 0 { DEFAULT_WIDTH } else { columns.clamp(MIN_WIDTH, MAX_WIDTH) }
}

/// Whether the environment asks for no colour (<https://no-color.org>) or cannot show it.
pub(crate) fn no_color() -> bool {
    let set = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    set || std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The colour of help and usage errors, which are printed before arguments are understood.
pub(crate) fn help_color(arguments: &[OsString]) -> clap::ColorChoice {
    let given = arguments.iter().enumerate().find_map(|(i, argument)| {
        let argument = argument.to_str()?;
        match argument.strip_prefix("--color") {
            Some("") => arguments.get(i + 1)?.to_str(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        }
    });
    match given {
        Some("always") => clap::ColorChoice::Always,
        Some("never") => clap::ColorChoice::Never,
        _ => clap::ColorChoice::Auto,
    }
}

/// Columns that `text` takes. Linear in `text`.
pub(crate) fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// `text` in at most `width` columns: what could drive the terminal, or reorder what it shows,
/// becomes a blank, runs of blanks become one, and what is too long ends in `…`.
pub(crate) fn shown(text: &str, width: usize) -> String {
    let blank = |c: char| c.is_whitespace() || is_harmful(c);
    let clean = text.split(blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if columns(&clean) <= width {
        return clean;
    }
    let mut cut = String::new();
    let mut taken = 0;
    for c in clean.chars() {
        taken += c.width().unwrap_or(0);
        if taken >= width {
            break;
        }
        cut.push(c);
    }
    cut.truncate(cut.trim_end().len());
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// `text` followed by blanks up to `width` columns.
pub(crate) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_never_exceeds_its_width_nor_drives_the_terminal() {
        let samples = [
            "",
            "plain",
            "a\u{1b}[2Jb\nc\td",
            "a\u{202e}b\u{9b}c",
            "日本語の文",
            "e\u{301}e\u{301}",
        ];
        for text in samples {
            for width in 0..12 {
                let cut = shown(text, width);
                assert!(columns(&cut) <= width, "{cut:?} is wider than {width}");
                assert!(!cut.contains(is_harmful), "{cut:?}");
            }
        }
        assert_eq!(shown("a\u{1b}[2Jb\nc", 80), "a [2Jb c");
        assert_eq!(shown("GNU Image Manipulation Program", 12), "GNU Image M…");
    }

    #[test]
    fn colour_is_written_only_when_wanted() {
        let plain = Terminal::plain();
        assert_eq!(plain.bold("x"), "x");
        let colored = Terminal { colored: true, ..plain };
        assert_eq!(colored.bold("x"), "\u{1b}[1mx\u{1b}[0m");
        assert_eq!(colored.dim(""), "");
    }

    #[test]
    fn help_obeys_the_color_flag() {
        let color =
            |line: &[&str]| help_color(&line.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(color(&["foveal", "--color", "never"]), clap::ColorChoice::Never);
        assert_eq!(color(&["foveal", "build", "--color=always"]), clap::ColorChoice::Always);
        assert_eq!(color(&["foveal", "--color"]), clap::ColorChoice::Auto);
        assert_eq!(color(&["foveal"]), clap::ColorChoice::Auto);
    }

    #[test]
    fn width_has_sane_bounds() {
        assert_eq!([0, 10, 80, 300].map(usable_width), [80, 40, 80, 100]);
    }
}
