//! The engine: build, open, search. No network, no async, no wire types; usable on its own.
//!
//! ```no_run
//! use foveal_index::{Index, SearchParams};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let index = Index::open("photos.index")?;
//! let query = vec![0.0; index.dim()];
//! let answer = index.searcher().search(&query, &SearchParams::new(10))?;
//! for neighbor in &answer.neighbors {
//!     println!("{} at {}", neighbor.key, neighbor.distance);
//! }
//! # Ok(())
//! # }
//! ```

pub mod bulk_build;
mod calibrate;
mod check;
pub mod decode;
pub mod disk;
mod distance;
pub mod exact;
pub mod free_memory;
pub mod full_store;
mod fullview;
mod graph;
#[doc(hidden)]
pub mod kernel;
pub mod key_table;
pub mod measure;
pub mod neighbor;
mod open;
pub mod params;
pub mod payload;
mod preview;
mod quantizer;
pub mod search;
mod softmax;
pub mod stats;
mod vocabulary;

pub use bulk_build::{BuildError, BuildInput, BuildReport, Keys, build};
pub use calibrate::{Frontier, FrontierPoint, Reach};
pub use check::{CheckReport, check, inspect};
pub use decode::{DecodeAsk, Decoded, Decoder, Token, TokenSet, Tokens};
pub use disk::{FileEntry, IndexMemory, Manifest, Measured, OpenError};
pub use exact::{ExactAsk, ExactError};
pub use free_memory::{FreeMemory, free_memory};
pub use full_store::{Io, OpenOptions};
pub use neighbor::Neighbor;
pub use params::{
    BuildParams, DecodeMode, DecodeParams, LogZMode, MAX_BUILD_LIST_SIZE, MAX_K, MAX_LIST_SIZE,
    MAX_MAX_DEGREE, MAX_ROWS, ParamsError, SearchParams,
};
pub use search::{Answer, Index, Query, SearchError, Searcher};
pub use softmax::LogZ;
pub use stats::{Job, Progress, QueryStats, Stop, Stopped};
