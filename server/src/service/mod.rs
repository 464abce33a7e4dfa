//! The service: one method a call, each of them convert, submit, convert.
//!
//! | file | question it answers |
//! |---|---|
//! | `lifecycle` | how a server starts, says that it is ready, and drains |
//! | `transport` | what a connection may do, and which services it meets |
//! | `accept` `connection` | which connections there are; when one ends |
//! | `descriptors` | how many file descriptors connections may take |
//! | `call` | what every call passes through: deadline, `ErrorInfo`, log |
//! | `catalog` | which collections are open, which cannot be, and how their full vectors are read |
//! | `search` `collection` `admin` | what a call of this service does |
//! | `search_job` `decode_job` | how a search or a decode becomes parts for the pool |

mod accept;
mod admin;
mod call;
mod catalog;
mod collection;
mod connection;
mod decode_job;
mod descriptors;
mod lifecycle;
mod search;
mod search_job;
mod transport;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use foveal_datasets::ErrorKind;
use foveal_index::OpenError;

pub use catalog::{Catalog, Collection};
pub use lifecycle::{Command, LoadConfig, Reload, run, serve};

use crate::config::{Config, ConfigError, Limits};
use crate::search_pool::SearchPool;

/// What every call may reach.
pub struct Shared {
    /// The collections; a reload puts others in their place.
    catalog: RwLock<Arc<Catalog>>,
    /// The threads that search.
    pub pool: SearchPool,
    /// The limits of a request.
    pub limits: Limits,
    /// When the server became ready.
    pub started: Instant,
}

impl Shared {
    /// What calls may reach from now on.
    pub fn new(catalog: Catalog, pool: SearchPool, limits: Limits) -> Shared {
        Shared { catalog: RwLock::new(Arc::new(catalog)), pool, limits, started: Instant::now() }
    }

    /// The collections as they are now.
    pub fn catalog(&self) -> Arc<Catalog> {
        // Nothing that can panic runs under the lock.
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Opens the collections of `config` that changed, and serves them from now on. Calls in flight
    /// go on with those they began with.
    ///
    /// # Errors
    /// A budget that does not hold codes, graphs and keys. Nothing was changed.
    pub fn reload(&self, config: &Config) -> Result<(), ServeError> {
        let catalog = Arc::new(self.catalog().reopen(config)?);
        let slots = catalog.slots();
        *self.catalog.write().unwrap_or_else(PoisonError::into_inner) = catalog;
        self.pool.keep(slots);
        Ok(())
    }
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
        /// What was requested.
        what: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// The server was stopped before it was ready.
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
            ServeError::Listen { .. } | ServeError::System { .. } => ErrorKind::Io,
            ServeError::Interrupted => ErrorKind::Interrupted,
        }
    }
}
