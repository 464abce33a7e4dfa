//! Large arrays in memory of their own: counted, never evicted, in 2 MiB pages where possible.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Pod;
use memmap2::{Advice, MmapMut};

/// Bytes of a large page, and the alignment it needs.
const HUGE_PAGE: usize = 2 << 20;

/// The operating system refused memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot get {bytes} bytes of memory: {source}")]
pub struct MemoryError {
    /// How much was requested.
    pub bytes: u64,
    /// The refusal.
    pub source: io::Error,
}

/// `len` values in anonymous memory, zero until written.
///
/// Arrays of 2 MiB or more start at a 2 MiB boundary and ask for large pages: a random read then
/// costs one cache miss, not two. Smaller ones start at a page boundary. Memory that was never
/// touched costs nothing.
pub struct RamArray<T: Pod> {
    // Owns the bytes that `start` points into; dropped, and so unmapped, with the array.
    _map: MmapMut,
    start: NonNull<T>,
    len: usize,
    values: PhantomData<T>,
}

// SAFETY: the array owns its memory alone, hands it out by the usual borrow rules, and `Pod`
// values are plain numbers without ties to a thread.
unsafe impl<T: Pod + Send> Send for RamArray<T> {}
// SAFETY: as above; a shared array gives only shared slices.
unsafe impl<T: Pod + Sync> Sync for RamArray<T> {}

impl<T: Pod> RamArray<T> {
    /// `len` zeros.
    ///
    /// # Errors
    /// The operating system refuses the memory, or the size does not fit the address space.
    pub fn zeroed(len: usize) -> Result<RamArray<T>, MemoryError> {
        const { assert!(align_of::<T>() <= 4096) };
        let too_large = || MemoryError {
            bytes: (len as u64).saturating_mul(size_of::<T>() as u64),
            source: io::ErrorKind::OutOfMemory.into(),
        };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(too_large)?;
        if bytes < HUGE_PAGE {
            return Self::in_map(bytes.max(1), len, 1);
        }
        // One large page more than needed, so that a boundary lies inside; the surplus is
        // never touched.
        let pages = bytes.div_ceil(HUGE_PAGE) + 1;
        let mapped = pages.checked_mul(HUGE_PAGE).ok_or_else(too_large)?;
        Self::in_map(mapped, len, HUGE_PAGE)
    }

    /// An array inside a new mapping of `mapped` bytes, at its first multiple of `align`.
    fn in_map(mapped: usize, len: usize, align: usize) -> Result<RamArray<T>, MemoryError> {
        let mut map = MmapMut::map_anon(mapped)
            .map_err(|source| MemoryError { bytes: mapped as u64, source })?;
        let skipped = map.as_ptr().addr().next_multiple_of(align) - map.as_ptr().addr();
        if align == HUGE_PAGE {
            // A kernel without large pages serves small ones: slower, not wrong.
            let _ = map.advise_range(Advice::HugePage, skipped, mapped - HUGE_PAGE);
        }
        let inside = &mut map[skipped..];
        assert!(inside.len() / size_of::<T>().max(1) >= len, "the mapping holds every value");
        let start = NonNull::from(inside).cast::<T>();
        Ok(RamArray { _map: map, start, len, values: PhantomData })
    }

    /// Bytes of the values.
    pub fn bytes(&self) -> u64 {
        (self.len * size_of::<T>()) as u64
    }
}

impl<T: Pod> Deref for RamArray<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `in_map` asserted that `len` values fit behind `start`, which is aligned to a
        // page (T asks for no more); every bit pattern is a `Pod` value.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for RamArray<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the borrow the only one.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Pod> fmt::Debug for RamArray<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RamArray of {} values, {} bytes", self.len, self.bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_then_what_was_written() {
        for len in [0, 1, 1000, HUGE_PAGE / 4 - 1, HUGE_PAGE / 4, HUGE_PAGE / 4 + 1, HUGE_PAGE] {
            let mut array = RamArray::<u32>::zeroed(len).unwrap();
            assert_eq!(array.len(), len);
            assert!(array.iter().all(|&value| value == 0));
            array.iter_mut().enumerate().for_each(|(i, value)| *value = i as u32);
            assert!(array.iter().enumerate().all(|(i, &value)| value == i as u32));
        }
    }

    #[test]
    fn large_arrays_start_at_a_large_page() {
        for _ in 0..8 {
            let array = RamArray::<u8>::zeroed(3 * HUGE_PAGE + 1).unwrap();
            assert_eq!(array.as_ptr().addr() % HUGE_PAGE, 0);
            let small = RamArray::<u64>::zeroed(3).unwrap();
            assert_eq!(small.as_ptr().addr() % 4096, 0);
        }
    }

    #[test]
    fn refused_memory_names_the_bytes() {
        let refused = RamArray::<u64>::zeroed(1 << 56).unwrap_err();
        assert!(refused.to_string().contains("bytes of memory"), "{refused}");
        assert_eq!(RamArray::<u64>::zeroed(usize::MAX).unwrap_err().bytes, u64::MAX);
    }
}
