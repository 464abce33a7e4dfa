//! What can be wrong with a query.

use foveal_datasets::{ErrorKind, Metric};

use crate::disk::OpenError;
use crate::full_store::ReadError;
use crate::params::ParamsError;
use crate::stats::Stopped;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// A parameter cannot be used.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// Segments of different metrics, searched together.
    #[error("segments of metrics {wanted} and {found}; wanted one metric")]
    Metrics {
        /// One segment's.
        found: Metric,
        /// That of those before it.
        wanted: Metric,
    },
    /// The query has another dimension than the index.
    #[error("the query has dimension {found}; the index has {wanted}")]
    Dim {
        /// The query's.
        found: usize,
        /// The index's.
        wanted: usize,
    },
    /// The query holds NaN or infinity.
    #[error("the query holds {found} at position {position}; wanted finite numbers")]
    NotFinite {
        /// Where.
        position: usize,
        /// What.
        found: f32,
    },
    /// The query's distances would pass the range of f32.
    #[error("the query is too long: its squared norm passes the range of f32")]
    TooLong,
    /// The query's products with all rows would pass under the range of f32.
    #[error(
        "the query is too short: its products with the rows pass under the range of f32; multiply \
         it by a number, which changes no order"
    )]
    TooShort,
    /// A query of zeros has no direction.
    #[error("the query is all zeros, which has no cosine")]
    ZeroQuery,
    /// Distances of this metric are no logits.
    #[error("the index has metric {found}; wanted ip, whose distances are logits")]
    NoHead {
        /// The index's.
        found: Metric,
    },
    /// None of the tokens allowed is one of the index.
    #[error("no token is allowed: the list leaves none of the index's")]
    NoToken,
    /// A key that names no row.
    #[error("no row has the key {key}")]
    UnknownKey {
        /// The key.
        key: u64,
    },
    /// The deadline passed, or the caller cancelled.
    #[error("the query was stopped: {}", match .0 {
        Stopped::Deadline => "its deadline passed",
        Stopped::Cancelled => "it was cancelled",
    })]
    Stopped(Stopped),
    /// A full vector, a payload or a graph that waited for its first walk cannot be read.
    #[error(transparent)]
    Read(#[from] OpenError),
}

impl From<ReadError> for SearchError {
    fn from(error: ReadError) -> SearchError {
        match error {
            ReadError::Failed(error) => SearchError::Read(error),
            ReadError::Stopped(why) => SearchError::Stopped(why),
        }
    }
}

impl SearchError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SearchError::Params(_) | SearchError::NoHead { .. } | SearchError::Metrics { .. } => {
                ErrorKind::Usage
            }
            SearchError::Dim { .. }
            | SearchError::NotFinite { .. }
            | SearchError::TooLong
            | SearchError::TooShort
            | SearchError::NoToken
            | SearchError::UnknownKey { .. }
            | SearchError::ZeroQuery => ErrorKind::BadData,
            SearchError::Stopped(_) => ErrorKind::Interrupted,
            SearchError::Read(error) => error.kind(),
        }
    }
}
