//! The engine: build, open, search. No network, no async, no wire types; usable on its own.
//!
//! ```
//! use foveal_datasets::{Metric, Rows, Values};
//! use foveal_index::{BuildInput, BuildParams, Segment, Job, SearchParams, build};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let out = dir.path().join("photos.index");
//! # let numbers: Vec<f32> = (0..8_000).map(|i| (i * 7_919 % 1_009) as f32).collect();
//! let rows = Rows::new(8, Values::F32(numbers))?;
//! build(&BuildInput::of(&rows), &out, &BuildParams::new(Metric::L2), Job::default())?;
//! let index = Segment::open(&out)?;
//! let answer = index.searcher().search(rows.row(7), &SearchParams::new(10))?;
//! assert_eq!(answer.neighbors[0].key, 7);
//! # Ok(())
//! # }
//! ```
//!
//! Rows come from memory, from a file, or from anywhere else that implements [`RowSource`]:
//!
//! ```
//! use foveal_datasets::{Element, Metric, RowSource, VectorFile, VectorWriter};
//! use foveal_index::{BuildInput, BuildParams, Segment, Job, Keys, SearchParams, build};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let (photos, out) = (dir.path().join("photos.fbin"), dir.path().join("photos.index"));
//! # let numbers = (0..8_000).map(|i| 1.0 + (i * 7_919 % 1_009) as f32).collect();
//! # let mut writer = VectorWriter::create(&photos, Element::F32, 8)?;
//! # writer.append(&foveal_datasets::Rows::new(8, foveal_datasets::Values::F32(numbers))?)?;
//! # writer.finish()?;
//! // A file of 1,000 rows of 8 numbers, whose keys start at 100.
//! let base = VectorFile::open(&photos)?;
//! let input = BuildInput { keys: Keys::From(100), ..BuildInput::of(&base) };
//! build(&input, &out, &BuildParams::new(Metric::Cosine), Job::default())?;
//!
//! let query = base.read(7..8)?;
//! let answer = Segment::open(&out)?.searcher().search(query.row(0), &SearchParams::new(10))?;
//! for neighbor in &answer.neighbors {
//!     println!("{} at {}", neighbor.key, neighbor.distance);
//! }
//! assert_eq!(answer.neighbors[0].key, 107);
//! # Ok(())
//! # }
//! ```
//!
//! [`RowSource`]: foveal_datasets::RowSource

pub mod bulk_build;
mod calibrate;
mod code_width;
pub mod decode;
pub mod disk;
mod distance;
pub mod exact;
mod extremes;
pub mod free_memory;
pub mod full_store;
mod fullview;
mod graph;
mod id_set;
#[doc(hidden)]
pub mod kernel;
pub mod key_table;
pub mod neighbor;
pub mod params;
pub mod payload;
mod plan;
mod preview;
mod quantizer;
pub mod search;
pub mod segment;
mod softmax;
pub mod stats;
mod vocabulary;

pub use bulk_build::{BuildError, BuildInput, BuildReport, Keys, build, predicted_peak_bytes};
pub use calibrate::{Frontier, FrontierPoint, StopRadius};
pub use code_width::CodeWidth;
pub use decode::{DecodeRequest, Decoded, Decoder, Token};
pub use disk::{DecodeQuality, FileEntry, Manifest, Measured, OpenError, SegmentMemory};
pub use exact::{ExactError, ExactRequest};
pub use free_memory::{FreeMemory, free_memory};
pub use full_store::{Io, OpenOptions};
pub use id_set::IdSet;
pub use neighbor::Neighbor;
pub use params::{
    BuildParams, DecodeMode, DecodeParams, LogZMode, MAX_BUILD_LIST_SIZE, MAX_K, MAX_LIST_SIZE,
    MAX_MAX_DEGREE, MAX_ROWS, MAX_THREADS, ParamsError, SearchParams, check_rows,
};
pub use payload::{JsonLines, PayloadError, PayloadSource};
pub use search::{Answer, Query, Searcher, search_segments};
pub use segment::{
    CheckReport, SearchError, Segment, SegmentPayloads, SegmentRows, UpgradeError, Upgraded, check,
    inspect, upgrade,
};
pub use softmax::LogZ;
pub use stats::{Job, Progress, QueryStats, Stop, Stopped};
