//! What can go wrong with an index on disk: which file, where, what was found and wanted.

use std::io;
use std::path::{Path, PathBuf};

use foveal_datasets::ErrorKind;
use foveal_datasets::error::is_shortage;

use super::ram_array::MemoryError;

/// Why an index, or a part of it, cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is not there.
    #[error("{}: no such directory", path.display())]
    NotFound {
        /// The requested directory.
        path: PathBuf,
    },
    /// The directory has no manifest.
    #[error("{}: no manifest.json: not a Foveal index", path.display())]
    NotAnIndex {
        /// The requested directory.
        path: PathBuf,
    },
    /// A file that the manifest lists is not there.
    #[error("{}: not there, but listed in manifest.json", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The index was written by another version of the format.
    #[error("{}: format version {found}; wanted {wanted}{}", path.display(), remedy(*found))]
    Version {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version this program reads.
        wanted: u32,
    },
    /// Bytes contradict their checksum, their header or the manifest.
    #[error("{}: damaged at byte {offset}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first byte in question.
        offset: u64,
        /// What was found and what was wanted.
        what: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {op}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried, as a verb.
        op: &'static str,
        /// The refusal.
        source: io::Error,
    },
    /// There is not enough memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The options contradict each other.
    #[error("{what}")]
    Usage {
        /// What was requested and what would do.
        what: String,
    },
    /// The caller cancelled.
    #[error("interrupted")]
    Interrupted,
}

/// What helps an index of another version.
fn remedy(found: u32) -> &'static str {
    if found == super::format7::VERSION { "; `foveal upgrade` rewrites it" } else { "" }
}

impl OpenError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            OpenError::NotFound { .. } => ErrorKind::NoInput,
            OpenError::NotAnIndex { .. }
            | OpenError::Missing { .. }
            | OpenError::Version { .. }
            | OpenError::Damaged { .. } => ErrorKind::BadData,
            OpenError::Io { .. } | OpenError::Memory(_) => ErrorKind::Io,
            OpenError::Usage { .. } => ErrorKind::Usage,
            OpenError::Interrupted => ErrorKind::Interrupted,
        }
    }

    /// Whether the index is at fault. Otherwise the machine is, or the request.
    pub(crate) fn is_damage(&self) -> bool {
        self.kind() == ErrorKind::BadData
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> OpenError {
        OpenError::Damaged { path: path.into(), offset, what: what.into() }
    }

    pub(crate) fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> OpenError {
        move |source| OpenError::Io { path: path.into(), op, source }
    }
}

/// Why a file of an index cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operating system refused.
    #[error("{}: cannot {op}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb.
        op: &'static str,
        /// The refusal.
        source: io::Error,
    },
    /// A value does not fit the format.
    #[error("{}: {what}", path.display())]
    Limit {
        /// The file.
        path: PathBuf,
        /// What was found and what was wanted.
        what: String,
    },
}

impl WriteError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            WriteError::Io { .. } => ErrorKind::Io,
            WriteError::Limit { .. } => ErrorKind::BadData,
        }
    }

    pub(crate) fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> WriteError {
        move |source| WriteError::Io { path: path.into(), op, source }
    }
}

/// Why a directory cannot become an index.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The output is there already.
    #[error("{}: exists already; wanted a new directory", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// The index to be replaced is another one by now.
    #[error("{}: was replaced by another index meanwhile; that one stays", path.display())]
    Replaced {
        /// Where it was.
        path: PathBuf,
    },
    /// The directory that would hold the output is missing.
    #[error("{}: no such directory; it would hold the output", path.display())]
    NoParent {
        /// The missing directory.
        path: PathBuf,
    },
    /// The output has no name of its own.
    #[error("{}: no name for a new directory", path.display())]
    NoName {
        /// The output.
        path: PathBuf,
    },
    /// Somebody else is at it.
    #[error("another build into {} is running", path.display())]
    Busy {
        /// The output.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: cannot {op}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb.
        op: &'static str,
        /// The refusal.
        source: io::Error,
    },
}

impl PublishError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PublishError::Io { op: "create", source, .. } if !is_shortage(source) => {
                ErrorKind::CannotCreate
            }
            PublishError::Io { .. } => ErrorKind::Io,
            PublishError::NoName { .. } => ErrorKind::Usage,
            _ => ErrorKind::CannotCreate,
        }
    }

    pub(crate) fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> PublishError {
        move |source| PublishError::Io { path: path.into(), op, source }
    }
}
