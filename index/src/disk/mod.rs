//! How an index lies on disk: what every file shares, and how a directory becomes an index.
//!
//! ```text
//! DIR/manifest.json            what makes DIR an index; names every file below with its digest
//!     meta.rkyv                a blob: 64-byte header, then an archive; read whole
//!     NAME.bin                 an array: 64-byte header, then raw little-endian bytes
//!     NAME.bin.crc             its block checksums: one crc32 per 4 KiB block of NAME.bin
//!     measured.json            seconds and memory of the build; outside the digest
//! ```
//!
//! | file | its duty |
//! |---|---|
//! | `array_header` | the arrays there are and what their first 64 bytes say |
//! | `array_file` | writing an array, reading it in order into memory |
//! | `listed_file` | digests while writing, lengths before reading |
//! | `blob_file` | files read whole |
//! | `copy` | files carried over to another index |
//! | `manifest` | the list of files and what they must agree with |
//! | `format7` | manifests of the version before, to be rewritten |
//! | `late_array` | arrays read into memory when they are first needed |
//! | `residency` | how much memory the files take once an index is open |
//! | `publish` | nothing or all of it: lock, build aside, rename |
//! | `verify` | every damage of a directory, not only the first |
//! | `ram_array` | memory that is counted, never evicted, in large pages |
//! | `storage` | the calls that write, so that tests can make them fail |
//! | `simulated` | what is left of them when the power is lost; for tests |
//! | `error` | what can go wrong, with file, offset, found and wanted |
//!
//! Every byte is described in `FORMAT.md`. Nothing here knows what the bytes mean.

pub mod array_file;
pub mod array_header;
pub mod blob_file;
pub mod copy;
pub mod error;
pub mod format7;
mod late_array;
mod listed_file;
pub mod manifest;
pub mod publish;
pub mod ram_array;
mod residency;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
#[path = "tests/simulated.rs"]
pub(crate) mod simulated;
pub mod storage;
pub mod verify;

pub use array_file::{ArrayWriter, OpenArray, read_array};
pub use array_header::{ArrayHeader, ArrayKind, ArrayShape};
pub use blob_file::{read_bare_meta, read_meta, write_meta};
pub use copy::copy_file;
pub use error::{OpenError, PublishError, WriteError};
pub(crate) use late_array::LateArray;
pub use manifest::{DecodeQuality, FileEntry, Manifest, Measured};
pub use publish::Publication;
pub use ram_array::{MemoryError, RamArray};
pub use residency::{Residency, SegmentMemory};
pub use storage::{Disk, Storage};
pub use verify::{CheckedFile, Verified, strangers, verify_files};

/// Bytes of a block: what a checksum covers and what a read costs.
pub const BLOCK: usize = 4096;

/// The version of the format that this program writes, and the only one it reads; it rewrites
/// indexes of version 7.
pub const FORMAT_VERSION: u32 = 8;

#[cfg(target_endian = "big")]
compile_error!("arrays are read in place: the format is little-endian");
