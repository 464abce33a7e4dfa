//! What can end a build.

use std::path::PathBuf;

use foveal_datasets::{ErrorKind, FileError};

use crate::disk::{MemoryError, OpenError, PublishError, WriteError};
use crate::distance::TOO_SMALL;
use crate::exact::ExactError;
use crate::free_memory::FreeMemory;
use crate::graph::grow::GrowError;
use crate::params::ParamsError;
use crate::payload::PayloadError;
use crate::segment::SearchError;

/// Why an index was not built. Nothing of it is left behind.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A parameter cannot be used.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The base file cannot be read, or holds what no vector may hold.
    #[error(transparent)]
    File(#[from] FileError),
    /// A row that cannot be indexed, or learned from.
    #[error("{}: row {row} {what}", path.display())]
    Row {
        /// The base file, or the one of samples.
        path: PathBuf,
        /// The row.
        row: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Values so small that distances pass under the range of f32.
    #[error("{}: typical squared distances are about {square:.1e}, {TOO_SMALL}", path.display())]
    TooSmall {
        /// The base file.
        path: PathBuf,
        /// The typical squared distance.
        square: f64,
    },
    /// Hidden states and tokens, each within range, that cannot be learned from together.
    #[error(
        "{}: hidden states and tokens are so long that their products pass the range of f32",
        path.display()
    )]
    Learn {
        /// The file of hidden states.
        path: PathBuf,
    },
    /// Sample queries of another dimension than the rows.
    #[error(
        "{}: holds rows of dimension {found}; wanted {wanted}, that of the base",
        path.display()
    )]
    LearnDim {
        /// The file of samples.
        path: PathBuf,
        /// Its dimension.
        found: usize,
        /// That of the rows.
        wanted: usize,
    },
    /// A file was written to while it was read.
    #[error("{}: changed while the index was built from it", path.display())]
    Changed {
        /// The base file, or the one of samples.
        path: PathBuf,
    },
    /// Keys that do not name the rows.
    #[error("keys: {what}")]
    Keys {
        /// What was found and wanted.
        what: String,
    },
    /// The payload file cannot be used.
    #[error(transparent)]
    Payload(PayloadError),
    /// The build would need more memory than it may use.
    #[error("the build needs about {needed} bytes of memory; memory is limited to {allowed}")]
    MemoryLimit {
        /// Predicted peak.
        needed: u64,
        /// The limit given.
        allowed: u64,
    },
    /// The build would need more memory than is free, and no limit was set.
    #[error(
        "the build needs about {needed} bytes of memory; {} has {} free; \
         a limit that is given (--memory) takes precedence",
        free.of, free.bytes
    )]
    FreeMemory {
        /// Predicted peak.
        needed: u64,
        /// What is free, and why not more.
        free: FreeMemory,
    },
    /// The operating system refused memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Threads could not be had.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// A file of the index cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The output cannot become an index.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// What was written does not pass as an index.
    #[error("the index just written is refused: {0}")]
    Sealed(#[from] OpenError),
    /// The recall of list sizes could not be measured.
    #[error("calibrating: {0}")]
    Calibrate(#[source] ExactError),
    /// Hidden states that were held out could not be decoded with the index just written.
    #[error("trying decodes: {0}")]
    Trial(#[source] SearchError),
    /// The caller cancelled.
    #[error("interrupted")]
    Interrupted,
}

impl BuildError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            BuildError::Params(_) | BuildError::MemoryLimit { .. } => ErrorKind::Usage,
            BuildError::File(error) => error.kind(),
            BuildError::Row { .. }
            | BuildError::TooSmall { .. }
            | BuildError::Learn { .. }
            | BuildError::LearnDim { .. }
            | BuildError::Keys { .. }
            | BuildError::Changed { .. } => ErrorKind::BadData,
            BuildError::Payload(error) => error.kind(),
            BuildError::FreeMemory { .. } | BuildError::Memory(_) | BuildError::Threads(_) => {
                ErrorKind::Io
            }
            BuildError::Write(error) => error.kind(),
            BuildError::Publish(error) => error.kind(),
            BuildError::Sealed(error) => error.kind(),
            BuildError::Calibrate(error) => error.kind(),
            BuildError::Trial(error) => error.kind(),
            BuildError::Interrupted => ErrorKind::Interrupted,
        }
    }
}

impl From<PayloadError> for BuildError {
    fn from(error: PayloadError) -> BuildError {
        match error {
            PayloadError::Interrupted => BuildError::Interrupted,
            error => BuildError::Payload(error),
        }
    }
}

impl From<ExactError> for BuildError {
    fn from(error: ExactError) -> BuildError {
        match error {
            ExactError::Interrupted => BuildError::Interrupted,
            error => BuildError::Calibrate(error),
        }
    }
}

impl From<GrowError> for BuildError {
    fn from(error: GrowError) -> BuildError {
        match error {
            GrowError::Memory(error) => BuildError::Memory(error),
            GrowError::Interrupted => BuildError::Interrupted,
        }
    }
}
