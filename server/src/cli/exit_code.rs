//! Which number a run ends with, and the one line that says why.

use std::fmt;
use std::io;

use foveal_datasets::harmless::harmless;
use foveal_datasets::recall::RecallError;
use foveal_datasets::truth_file::TruthError;
use foveal_datasets::{ErrorKind, FileError, RowsError};
use foveal_index::exact::ExactError;
use foveal_index::{BuildError, OpenError, ParamsError, SearchError, UpgradeError};
use foveal_measure::MeasureError;
use foveal_server::service::ServeError;

/// How a verb that reached its end ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is well.
    Done,
    /// What was looked for was found wanting: damage, or a recall below the one asked for.
    CheckFailed,
}

impl Outcome {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::CheckFailed => 1,
        }
    }
}

/// A failure found by the command line itself, before or beside the engine.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    message: String,
}

impl Failure {
    /// An argument, or a combination of them, that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { kind: ErrorKind::Usage, message: message.into() }
    }

    /// Bytes that contradict what was promised.
    pub(crate) fn bad_data(message: impl Into<String>) -> Failure {
        Failure { kind: ErrorKind::BadData, message: message.into() }
    }

    /// The job was asked to stop.
    pub(crate) fn interrupted() -> Failure {
        Failure { kind: ErrorKind::Interrupted, message: "interrupted".into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code of a failure: that of the first error in the chain whose kind is known.
pub(crate) fn of(error: &anyhow::Error) -> u8 {
    let kind = error.chain().find_map(kind_of).unwrap_or(ErrorKind::Io);
    code_of_kind(kind)
}

fn code_of_kind(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::BadData => 65,
        ErrorKind::NoInput => 66,
        ErrorKind::CannotCreate => 73,
        ErrorKind::Io => 74,
        ErrorKind::Interrupted => 130,
    }
}

fn kind_of(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    let known = [
        error.downcast_ref().map(|e: &Failure| e.kind),
        error.downcast_ref().map(FileError::kind),
        error.downcast_ref().map(BuildError::kind),
        error.downcast_ref().map(OpenError::kind),
        error.downcast_ref().map(UpgradeError::kind),
        error.downcast_ref().map(SearchError::kind),
        error.downcast_ref().map(ExactError::kind),
        error.downcast_ref().map(MeasureError::kind),
        error.downcast_ref().map(ServeError::kind),
        error.downcast_ref().map(|_: &ParamsError| ErrorKind::Usage),
        error.downcast_ref().map(|_: &RecallError| ErrorKind::BadData),
        error.downcast_ref().map(|_: &RowsError| ErrorKind::BadData),
        error.downcast_ref().map(|_: &TruthError| ErrorKind::BadData),
        error.downcast_ref().map(kind_of_io),
    ];
    known.into_iter().flatten().next()
}

fn kind_of_io(error: &io::Error) -> ErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorKind::NoInput,
        io::ErrorKind::AlreadyExists => ErrorKind::CannotCreate,
        _ => ErrorKind::Io,
    }
}

/// The failure and its causes on one line, each said once; nothing in it drives a terminal.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        // Most of our errors already quote their cause.
        if line.contains(text.as_str()) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    let parts = line.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty());
    harmless(&parts.collect::<Vec<_>>().join(" ")).into_owned()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn kinds_have_the_documented_codes() {
        for (kind, code) in [
            (ErrorKind::Usage, 2),
            (ErrorKind::BadData, 65),
            (ErrorKind::NoInput, 66),
            (ErrorKind::CannotCreate, 73),
            (ErrorKind::Io, 74),
            (ErrorKind::Interrupted, 130),
        ] {
            let error = anyhow::Error::new(Failure { kind, message: "x".into() });
            assert_eq!(of(&error), code, "{kind:?}");
            assert_eq!(of(&error.context("while testing")), code, "{kind:?} below a context");
        }
    }

    #[test]
    fn parameters_out_of_range_are_usage() {
        let error = foveal_index::SearchParams::with_list_size(10, 5).check();
        assert_eq!(of(&anyhow::Error::new(error.expect_err("5 is below 10"))), 2);
    }

    #[test]
    fn files_that_are_not_there_are_no_input() {
        let missing = foveal_datasets::vector_file::VectorFile::open("/no/such/file.fvecs");
        let error = anyhow::Error::new(missing.expect_err("there is no such file"));
        assert_eq!(of(&error), 66);
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound));
        assert_eq!(of(&error.context("keys")), 66);
    }

    #[test]
    fn unknown_failures_are_input_output() {
        assert_eq!(of(&anyhow::anyhow!("something else")), 74);
    }

    #[test]
    fn an_error_is_one_line_that_says_each_cause_once() {
        let inner: anyhow::Result<()> = Err(Failure::bad_data("a.npy: short\nvery short").into());
        let error = inner.context("reading keys").expect_err("made from an error");
        assert_eq!(one_line(&error), "reading keys: a.npy: short very short");
        let error = error.context("reading keys: a.npy: short\nvery short, so no build");
        assert_eq!(one_line(&error), "reading keys: a.npy: short very short, so no build");
    }

    #[test]
    fn an_error_does_not_drive_the_terminal() {
        let error = anyhow::Error::new(Failure::bad_data("a\u{1b}[2J.npy: \u{202e}descr"));
        assert_eq!(one_line(&error), r"a\u{1b}[2J.npy: \u{202e}descr");
    }
}
