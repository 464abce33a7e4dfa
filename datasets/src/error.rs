//! What can be wrong with a file, and what kind of failure an error is.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::rows::MAX_DIM;
use crate::truth_file::TruthError;

/// The kinds of failure that callers tell apart: what a program turns into an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A parameter or its combination with others makes no sense.
    Usage,
    /// Bytes that contradict themselves, their header, or what was promised.
    BadData,
    /// A file or directory to be read is not there.
    NoInput,
    /// Something to be written is there already or cannot be made.
    CannotCreate,
    /// The operating system refused a read, a write or memory.
    Io,
    /// The caller cancelled.
    Interrupted,
}

/// Whether the operating system refused for want of descriptors, memory or space, or could not
/// reach the device: which says nothing about the file.
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let scarce = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOSPC, Errno::DQUOT, Errno::IO];
    Errno::from_io_error(error).is_some_and(|errno| scarce.contains(&errno))
}

/// What is wrong with a file of vectors or of ground truth; displayed as one clear line.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Nothing has this name.
    #[error("{path}: no such file")]
    NotFound {
        /// The file to be read.
        path: PathBuf,
    },
    /// The name belongs to something that is no regular file.
    #[error("{path}: is {found}; wanted a regular file")]
    NotAFile {
        /// The file to be read.
        path: PathBuf,
        /// What the name belongs to.
        found: &'static str,
    },
    /// The extension names no format.
    #[error("{path}: extension {found:?} is unknown; wanted {wanted}")]
    Extension {
        /// The file to be read or written.
        path: PathBuf,
        /// Its extension, empty if it has none.
        found: String,
        /// The known extensions.
        wanted: String,
    },
    /// A field is impossible, unsupported, or contradicts another.
    #[error("{path}: at byte {offset}: found {found}; wanted {wanted}")]
    Field {
        /// The file read.
        path: PathBuf,
        /// Where the field starts.
        offset: u64,
        /// What it says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// What a file holds makes no sense, at a place that has no offset.
    #[error("{path}: found {found}; wanted {wanted}")]
    Content {
        /// The file read.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        wanted: String,
    },
    /// The request does not go with the file.
    #[error("{path}: {found}; wanted {wanted}")]
    Request {
        /// The file to be read.
        path: PathBuf,
        /// What the file holds.
        found: String,
        /// The request that would do.
        wanted: String,
    },
    /// The format is known, but this program was built without it.
    #[error("{path}: {what} is not compiled in; wanted a program built with --features {feature}")]
    NotCompiled {
        /// The file to be read.
        path: PathBuf,
        /// The format.
        what: &'static str,
        /// The feature that brings it.
        feature: &'static str,
    },
    /// The file holds no rows.
    #[error("{path}: holds no rows; wanted at least 1")]
    Empty {
        /// The file read or written.
        path: PathBuf,
    },
    /// The file is shorter or longer than its header says.
    #[error(
        "{path}: found {found} bytes, {} {}; wanted {wanted} bytes for {shape}",
        found.abs_diff(*wanted),
        if found < wanted { "too few" } else { "too many" }
    )]
    Length {
        /// The file read.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length in bytes that its header asks for.
        wanted: u64,
        /// What its header promises.
        shape: String,
    },
    /// What the header promises is more than any file can hold.
    #[error("{path}: found a header for {shape}; wanted a length below 2^63 bytes")]
    Overflow {
        /// The file read.
        path: PathBuf,
        /// What its header promises.
        shape: String,
    },
    /// The file became shorter while it was read.
    #[error("{path}: found the end of the file at byte {offset} or later; wanted {wanted} bytes")]
    Shrunk {
        /// The file read.
        path: PathBuf,
        /// Where the read that failed started.
        offset: u64,
        /// How many bytes it requested.
        wanted: usize,
    },
    /// A number is NaN or infinite.
    #[error("{path}: row {row}, column {column}: found {value}; wanted a finite number")]
    NotFinite {
        /// The file read or written.
        path: PathBuf,
        /// The row, counted from 0.
        row: usize,
        /// The position in the row, counted from 0.
        column: usize,
        /// The number.
        value: f32,
    },
    /// A number of a type that rows do not have does not become f32.
    #[error("{path}: row {row}, column {column}: found {found}, of type {stored}; wanted {wanted}")]
    NotExact {
        /// The file read.
        path: PathBuf,
        /// The row, counted from 0.
        row: usize,
        /// The position in the row, counted from 0.
        column: usize,
        /// The number.
        found: String,
        /// Its type in the file.
        stored: &'static str,
        /// What would do.
        wanted: &'static str,
    },
    /// The numbers of a file are no ground truth.
    #[error("{path}: {source}")]
    Truth {
        /// The file read.
        path: PathBuf,
        /// What is wrong with them.
        source: TruthError,
    },
    /// Rows were requested that the file does not have.
    #[error(
        "{path}: rows {}..{} were asked for; wanted rows below {rows}",
        requested.start,
        requested.end
    )]
    NoSuchRows {
        /// The file read.
        path: PathBuf,
        /// What was requested.
        requested: Range<usize>,
        /// How many rows there are.
        rows: usize,
    },
    /// What is to be written does not fit the file.
    #[error("{path}: cannot hold {found}; wanted {wanted}")]
    Unfit {
        /// The file to be written.
        path: PathBuf,
        /// What was given.
        found: String,
        /// What the file can hold.
        wanted: String,
    },
    /// The file to be written is there already.
    #[error("{path}: exists already; wanted a new name")]
    Exists {
        /// The file to be written.
        path: PathBuf,
    },
    /// The directory that would hold the file to be written is missing.
    #[error("{folder}: no such directory; it would hold the output")]
    NoFolder {
        /// The missing directory.
        folder: PathBuf,
    },
    /// The file to be written cannot be made.
    #[error("{path}: cannot be created: {source}")]
    Create {
        /// The file to be written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refused to open or read a file.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file read.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What stands behind a source of rows, such as an index, cannot be read.
    #[error("{source}")]
    Source {
        /// What kind of failure that is.
        kind: ErrorKind,
        /// Why, with the place.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system refused to write a file.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// The file to be written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl FileError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            FileError::NotFound { .. } | FileError::NotAFile { .. } => ErrorKind::NoInput,
            FileError::Extension { .. }
            | FileError::Request { .. }
            | FileError::NotCompiled { .. }
            | FileError::NoSuchRows { .. }
            | FileError::Unfit { .. } => ErrorKind::Usage,
            FileError::Field { .. }
            | FileError::Content { .. }
            | FileError::Empty { .. }
            | FileError::Length { .. }
            | FileError::Overflow { .. }
            | FileError::Shrunk { .. }
            | FileError::NotFinite { .. }
            | FileError::NotExact { .. }
            | FileError::Truth { .. } => ErrorKind::BadData,
            FileError::Create { source, .. } if is_shortage(source) => ErrorKind::Io,
            FileError::Exists { .. } | FileError::NoFolder { .. } | FileError::Create { .. } => {
                ErrorKind::CannotCreate
            }
            FileError::Read { .. } | FileError::Write { .. } => ErrorKind::Io,
            FileError::Source { kind, .. } => *kind,
        }
    }

    /// A dimension at `offset` that is 0 or above [`MAX_DIM`].
    pub(crate) fn dim(path: &Path, offset: u64, found: impl std::fmt::Display) -> FileError {
        FileError::Field {
            path: path.into(),
            offset,
            found: format!("dimension {found}"),
            wanted: format!("1 to {MAX_DIM}"),
        }
    }
}
