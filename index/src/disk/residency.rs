//! How much memory the files of an index take once it is open: the one definition that plans and
//! reports share.

use super::array_header::{ArrayKind, HEADER};
use super::blob_file::META;
use super::manifest::Manifest;

/// Where the rows of an array are once an index is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// In memory.
    Memory,
    /// In memory from its first use on.
    MemoryOnFirstUse,
    /// Where `--io` says; their checksums are in memory unless they are themselves.
    FullStore,
    /// On disk; their checksums are in memory.
    Disk,
}

/// Bytes of memory that an index takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentMemory {
    /// Full vectors aside, once it is open.
    pub at_open: u64,
    /// Full vectors aside, once it has been walked and rows were looked up by key.
    pub at_most: u64,
    /// Full vectors, where they are loaded: without what pads them on disk.
    pub full_store: u64,
    /// Checksums of full vectors, where they are not loaded.
    pub full_store_checksums: u64,
}

impl ArrayKind {
    /// Where the rows of the array are once the index of `manifest` is open.
    pub fn residency(self, manifest: &Manifest) -> Residency {
        match self {
            ArrayKind::Codes | ArrayKind::Extra | ArrayKind::Keys | ArrayKind::Tokens => {
                Residency::Memory
            }
            // A head decodes by a scan of its token codes.
            ArrayKind::Graph if manifest.tokens => Residency::MemoryOnFirstUse,
            ArrayKind::Graph => Residency::Memory,
            // Searches return ids and keys; the first look-up by key reads the order.
            ArrayKind::KeyOrder => Residency::MemoryOnFirstUse,
            ArrayKind::Vectors => Residency::FullStore,
            ArrayKind::Payload | ArrayKind::PayloadOffsets => Residency::Disk,
        }
    }
}

impl Manifest {
    /// The memory that the index takes once it is open.
    pub fn memory(&self) -> SegmentMemory {
        let bytes = |name: &str, header: u64| {
            let entry = self.files.iter().find(|file| file.name == name);
            entry.map_or(0, |file| file.bytes.saturating_sub(header))
        };
        let mut memory =
            SegmentMemory { at_open: bytes(META, HEADER as u64), ..SegmentMemory::default() };
        for kind in ArrayKind::ALL {
            let rows = bytes(kind.name(), kind.data_offset() as u64);
            let checksums = bytes(kind.crc_name(), HEADER as u64);
            match kind.residency(self) {
                Residency::Memory => memory.at_open += rows,
                Residency::MemoryOnFirstUse => memory.at_most += rows,
                Residency::Disk => memory.at_open += checksums,
                Residency::FullStore if rows > 0 => {
                    memory.full_store = self.n * u64::from(self.dim) * self.element.size() as u64;
                    memory.full_store_checksums = checksums;
                }
                Residency::FullStore => {}
            }
        }
        memory.at_most += memory.at_open;
        memory
    }
}
