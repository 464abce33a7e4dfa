//! Calls into the Parquet library, which panics at some files.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::errors::ParquetError;
use rustix::io::Errno;

use crate::error::FileError;

thread_local! {
    static READING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is within the Parquet library: a panic then becomes an error and is not
/// printed.
pub fn is_reading_parquet() -> bool {
    READING.get()
}

/// Calls the Parquet library, and nothing else: a panic of our own code is a bug and stays one.
/// `place` is what it reads, for the message.
pub(super) fn guarded<T>(
    path: &Path,
    place: fmt::Arguments<'_>,
    call: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, FileError> {
    READING.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    READING.set(false);
    match outcome {
        Ok(result) => result.map_err(|error| refusal(path, place, error)),
        Err(panic) => Err(unreadable(path, place, &text_of(&*panic))),
    }
}

/// What an error of the library says of a file.
fn refusal(path: &Path, place: fmt::Arguments<'_>, error: ParquetError) -> FileError {
    let error = match error {
        ParquetError::NYI(text) => return unreadable(path, place, &text),
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) if is_of_system(&source) => {
                return FileError::Read { path: path.into(), source: *source };
            }
            Ok(source) => ParquetError::External(source),
            Err(source) => ParquetError::External(source),
        },
        error => error,
    };
    FileError::Content {
        path: path.into(),
        found: format!("no sound Parquet file ({place}: {error})"),
        wanted: "one that can be read".into(),
    }
}

/// Whether the operating system refused. Decoders of compressed pages speak of damage by errors of
/// the same type, without a number; a place that no file has is damage, too.
fn is_of_system(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| errno != Errno::INVAL)
}

/// The library gave up: over damage, or over a type that it does not know.
fn unreadable(path: &Path, place: fmt::Arguments<'_>, text: &str) -> FileError {
    FileError::Content {
        path: path.into(),
        found: format!("what the Parquet reader cannot read in {place} ({text})"),
        wanted: "types and pages that it can read".into(),
    }
}

/// What a panic says, on one line.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text.as_str(),
        (None, None) => "a panic without a text",
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
