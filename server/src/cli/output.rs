//! Where results go: stdout, in a form for people or for scripts.

use std::io::{self, Write};

use anyhow::Context;
use clap::ValueEnum;
use foveal_datasets::harmless::is_harmful;
use serde::Serialize;

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    Table,
    /// One JSON object on one line.
    Json,
}

/// Standard output that goes quiet when its reader leaves (`foveal ... | head`), as a program
/// ended by SIGPIPE would; the exit code still tells what was found.
pub(crate) struct Output<W> {
    to: W,
    reader_left: bool,
}

impl Output<io::Stdout> {
    /// This process's standard output.
    pub(crate) fn stdout() -> Output<io::Stdout> {
        Output::new(io::stdout())
    }
}

impl<W: Write> Output<W> {
    fn new(to: W) -> Output<W> {
        Output { to, reader_left: false }
    }

    /// Writes `text` and flushes it, so that it is seen before what takes long.
    ///
    /// # Errors
    /// The system refused to write, for any reason but a reader that left.
    pub(crate) fn print(&mut self, text: &str) -> anyhow::Result<()> {
        if self.reader_left {
            return Ok(());
        }
        match self.to.write_all(text.as_bytes()).and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.reader_left = true,
            other => other.context("standard output")?,
        }
        Ok(())
    }

    /// Writes `value` as one line of JSON.
    ///
    /// # Errors
    /// As [`Output::print`].
    pub(crate) fn print_json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let mut text = plain_json(&serde_json::to_string(value).context("standard output")?);
        text.push('\n');
        self.print(&text)
    }
}

/// The same JSON on one line, with what could drive a terminal as escapes of JSON. That stands in
/// strings alone, but for the white space between tokens, which JSON given by users may have.
fn plain_json(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, '\t' | '\n' | '\r') {
            // Never in a string: there it must be an escape.
            text.push(' ');
        } else if is_harmful(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    /// Fails every write in one way.
    struct Refuses(io::ErrorKind);

    impl Write for Refuses {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_error_and_a_full_disk_is() {
        let mut output = Output::new(Refuses(io::ErrorKind::BrokenPipe));
        assert!(output.print("a").is_ok());
        assert!(output.print("b").is_ok());
        let mut output = Output::new(Refuses(io::ErrorKind::StorageFull));
        assert!(output.print("a").is_err());
    }

    /// White space between the tokens of a payload stays white space.
    #[test]
    fn payloads_stay_json() {
        let raw = RawValue::from_string("{\"a\":\t1,\r\n\"b\": \"\\t\"}".into()).unwrap();
        let mut output = Output::new(Vec::new());
        output.print_json(&raw).unwrap();
        assert_eq!(output.to, b"{\"a\": 1,  \"b\": \"\\t\"}\n");
    }

    #[test]
    fn json_is_one_line() {
        let mut output = Output::new(Vec::new());
        output.print_json(&serde_json::json!({"a": "x\ny"})).unwrap();
        assert_eq!(output.to, b"{\"a\":\"x\\ny\"}\n");
        let mut output = Output::new(Vec::new());
        let value = serde_json::json!({"a": "\u{1b}\u{9b}\u{202e}\u{e0041}é"});
        output.print_json(&value).unwrap();
        let wanted = r#"{"a":"\u001b\u009b\u202e\udb40\udc41é"}"#;
        assert_eq!(String::from_utf8(output.to.clone()).unwrap(), format!("{wanted}\n"));
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.to).unwrap(), value);
    }
}
