//! The full store as a mapping of its file.

use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::Mmap;

use super::layout::Layout;
use crate::disk::{BLOCK, OpenArray, OpenError};

/// All units, through the page cache. A unit is verified the first time it is touched.
///
/// The file must not shrink while it is mapped: a touch behind its end kills the process. Index
/// files never change once published; who cannot trust that reads with `pread` or `uring`.
#[derive(Debug)]
pub(super) struct MappedUnits {
    array: OpenArray,
    layout: Layout,
    map: Mmap,
    /// One bit a unit: verified since the index was opened.
    verified: Box<[AtomicU64]>,
}

impl MappedUnits {
    /// Maps the file of an array whose length was compared with header and manifest.
    pub(super) fn new(array: OpenArray, layout: Layout) -> Result<MappedUnits, OpenError> {
        let map = map(&array)?;
        let units = (map.len() - BLOCK) / layout.unit_bytes();
        let verified = (0..units.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(MappedUnits { array, layout, map, verified })
    }

    /// The bytes of a unit, verified.
    #[inline]
    pub(super) fn unit(&self, unit: u32) -> Result<&[u8], OpenError> {
        let bytes = self.unverified(unit);
        let bit = 1u64 << (unit % 64);
        // Relaxed: the bit guards no other memory; at worst two threads verify the same unit.
        if self.verified[unit as usize / 64].load(Ordering::Relaxed) & bit == 0 {
            self.verify(unit, bytes)?;
        }
        Ok(bytes)
    }

    /// The bytes of a unit as the page cache has them.
    #[inline]
    pub(super) fn unverified(&self, unit: u32) -> &[u8] {
        let start = BLOCK + self.layout.unit_start(unit) as usize;
        &self.map[start..start + self.layout.unit_bytes()]
    }

    #[cold]
    fn verify(&self, unit: u32, bytes: &[u8]) -> Result<(), OpenError> {
        for (block, bytes) in self.layout.file_blocks(unit).zip(bytes.chunks_exact(BLOCK)) {
            self.array.verify_block(block, bytes)?;
        }
        self.verified[unit as usize / 64].fetch_or(1 << (unit % 64), Ordering::Relaxed);
        Ok(())
    }

    /// Bytes of the file that are in the page cache.
    pub(super) fn cached_bytes(&self) -> Result<u64, OpenError> {
        resident_bytes(&self.array, &self.map)
    }
}

/// Bytes of the file that are in the page cache.
pub(super) fn cached_bytes(array: &OpenArray) -> Result<u64, OpenError> {
    resident_bytes(array, &map(array)?)
}

fn map(array: &OpenArray) -> Result<Mmap, OpenError> {
    let failed = OpenError::io(array.path(), "map");
    // SAFETY: files of a published index are written once and never changed or cut, and
    // `OpenArray` has compared the length with the manifest; the type's doc tells the rest.
    let map = unsafe { memmap2::MmapOptions::new().len(array.length() as usize).map(array.file()) };
    map.map_err(failed)
}

fn resident_bytes(array: &OpenArray, map: &Mmap) -> Result<u64, OpenError> {
    let page = rustix::param::page_size();
    let mut pages = vec![0u8; map.len().div_ceil(page)];
    // SAFETY: `map` is a whole mapping, so its start lies on a page boundary; `pages` has one byte
    // for each page of its length.
    let refused = unsafe { libc::mincore(map.as_ptr() as *mut _, map.len(), pages.as_mut_ptr()) };
    if refused != 0 {
        let error = std::io::Error::last_os_error();
        return Err(OpenError::io(array.path(), "count cached pages")(error));
    }
    // Only the lowest bit is defined.
    let resident = pages.iter().filter(|&&flags| flags & 1 == 1).count() * page;
    Ok(resident.min(map.len()) as u64)
}
