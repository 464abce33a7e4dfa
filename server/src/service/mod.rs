//! The service: one method a call, each of them convert, submit, convert.
//!
//! | file | question it answers |
//! |---|---|
//! | `lifecycle` | how a server starts, says that it is ready, and drains |
//! | `transport` | what a connection may do, and which services it meets |
//! | `call` | what every call passes through: deadline, `ErrorInfo`, log |
//! | `catalog` | which collections are open, and how their full vectors are read |
//! | `search` `collection` `admin` | what a call of this service does |
//! | `search_job` `decode_job` | how a search or a decode becomes parts for the pool |

mod admin;
mod call;
mod catalog;
mod collection;
mod decode_job;
mod lifecycle;
mod search;
mod search_job;
mod transport;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::time::Instant;

use foveal_datasets::ErrorKind;
use foveal_index::OpenError;

pub use catalog::{Catalog, Collection};
pub use lifecycle::{run, serve};

use crate::config::{ConfigError, Limits};
use crate::search_pool::SearchPool;

/// What every call may reach.
pub struct Shared {
    /// The open collections.
    pub catalog: Catalog,
    /// The threads that search.
    pub pool: SearchPool,
    /// What a request may ask for.
    pub limits: Limits,
    /// When the server became ready.
    pub started: Instant,
}

/// Why a server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An index cannot be opened.
    #[error("collection {name}: {source}")]
    Open {
        /// The collection.
        name: String,
        /// Why not.
        source: OpenError,
    },
    /// The budget does not hold what must be in memory.
    #[error(
        "collection {name} takes {needed} bytes of memory and {left} are left of --memory; \
         wanted a larger budget or fewer collections"
    )]
    Memory {
        /// The collection.
        name: String,
        /// What it takes.
        needed: u64,
        /// What the collections before it left.
        left: u64,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Threads, signals or descriptors cannot be had.
    #[error("the operating system refused {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The transport failed.
    #[error("the server failed: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The server was told to stop before it was ready.
    #[error("interrupted before the server was ready")]
    Interrupted,
}

impl ServeError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ServeError::Config(error) => error.kind(),
            ServeError::Open { source, .. } => source.kind(),
            ServeError::Memory { .. } => ErrorKind::Usage,
            ServeError::Listen { .. } | ServeError::System { .. } | ServeError::Transport(_) => {
                ErrorKind::Io
            }
            ServeError::Interrupted => ErrorKind::Interrupted,
        }
    }
}
