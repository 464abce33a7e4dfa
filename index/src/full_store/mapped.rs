//! The full store as a mapping of its file.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use memmap2::Mmap;

use super::fault::Guard;
use super::layout::Layout;
use crate::disk::{BLOCK, OpenArray, OpenError};

/// All units, through the page cache. A unit is verified the first time it is touched.
///
/// Index files never change once published. One that does anyway is an error: a touch behind the
/// end of a file that was cut is caught, and at most once a millisecond, between queries, the time
/// of its last change is compared with the one it was opened with.
#[derive(Debug)]
pub(super) struct MappedUnits {
    array: OpenArray,
    layout: Layout,
    /// Before `map`, which it must not outlive.
    guard: Guard,
    map: Mmap,
    /// One bit a unit: verified since the index was opened.
    verified: Box<[AtomicU64]>,
    opened: Instant,
    /// When the file last changed, as of then.
    version: Version,
    /// The millisecond since `opened` in which that was last looked at.
    looked: AtomicU64,
    is_changed: AtomicBool,
}

/// Seconds and nanoseconds of a file's last change, and its length.
type Version = (i64, i64, u64);

impl MappedUnits {
    /// Maps the file of an array whose length was compared with header and manifest.
    pub(super) fn new(array: OpenArray, layout: Layout) -> Result<MappedUnits, OpenError> {
        let version = version_of(&array)?;
        let map = map(&array)?;
        let start = map.as_ptr().addr();
        let guard = Guard::new(start..start + map.len());
        let guard = guard.map_err(OpenError::io(array.path(), "guard the mapping of"))?;
        let units = (map.len() - BLOCK) / layout.unit_bytes();
        let verified = (0..units.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(MappedUnits {
            array,
            layout,
            guard,
            map,
            verified,
            opened: Instant::now(),
            version,
            looked: AtomicU64::new(0),
            is_changed: AtomicBool::new(false),
        })
    }

    /// Looks whether the file was written to since it was opened, unless that was looked at within
    /// this millisecond; `intact` tells. Costs a clock reading.
    #[inline]
    pub(super) fn look(&self) {
        let now = self.opened.elapsed().as_millis() as u64;
        if self.looked.load(Ordering::Relaxed) != now {
            self.looked.store(now, Ordering::Relaxed);
            self.look_now();
        }
    }

    /// Looks at once.
    #[cold]
    pub(super) fn look_now(&self) {
        if version_of(&self.array).ok() != Some(self.version) {
            self.is_changed.store(true, Ordering::Relaxed);
        }
    }

    /// Whether what was read so far is what was published.
    ///
    /// # Errors
    /// The file was cut or written to since it was opened, or a page of it cannot be read.
    #[inline]
    pub(super) fn intact(&self) -> Result<(), OpenError> {
        if self.guard.is_lost() || self.is_changed.load(Ordering::Relaxed) {
            return Err(self.fault());
        }
        Ok(())
    }

    #[cold]
    fn fault(&self) -> OpenError {
        let (path, wanted) = (self.array.path(), self.version.2);
        match version_of(&self.array) {
            Err(error) => error,
            Ok((.., length)) if length != wanted => {
                let what = format!("file has {length} bytes by now; wanted {wanted}");
                OpenError::damaged(path, length.min(wanted), what)
            }
            Ok(version) if version != self.version || !self.guard.is_lost() => {
                let what = "file was written to since it was opened; published files never change";
                OpenError::damaged(path, 0, what)
            }
            Ok(_) => {
                let lost = io::Error::from_raw_os_error(libc::EIO);
                OpenError::io(path, "read the mapping of")(lost)
            }
        }
    }

    /// The bytes of a unit, verified.
    #[inline]
    pub(super) fn unit(&self, unit: u32) -> Result<&[u8], OpenError> {
        let bytes = self.unverified(unit);
        let bit = 1u64 << (unit % 64);
        // Relaxed: the bit guards no other memory; at worst two threads verify the same unit.
        if self.verified[unit as usize / 64].load(Ordering::Relaxed) & bit == 0 {
            self.verify(unit, bytes).or_else(|error| self.intact().and(Err(error)))?;
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

fn version_of(array: &OpenArray) -> Result<Version, OpenError> {
    let known = array.file().metadata().map_err(OpenError::io(array.path(), "stat"))?;
    Ok((known.mtime(), known.mtime_nsec(), known.len()))
}

/// Bytes of the file that are in the page cache.
pub(super) fn cached_bytes(array: &OpenArray) -> Result<u64, OpenError> {
    resident_bytes(array, &map(array)?)
}

fn map(array: &OpenArray) -> Result<Mmap, OpenError> {
    let failed = OpenError::io(array.path(), "map");
    // SAFETY: `OpenArray` has compared the length with the manifest. Files of a published index are
    // written once and never changed; where one is, readers see bytes that differ, never memory
    // that is not theirs, and where one is cut, `Guard` catches the touch.
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
