//! Arithmetic: the loops over lanes, and the only place that detects what the CPU can do.
//!
//! | file | what it computes |
//! |---|---|
//! | `packed` | distances of codes of 4 or 2 bits to a signed 8-bit query |
//! | `planar` | distances of 8-bit codes to a query of one or two signed 8-bit planes |
//! | `bitplane` | sums of a query's lanes over the set bits of a plane |
//! | `byte_matrix` | products of a matrix of 8-bit numbers and vectors |
//! | `byte_l2` | exact squared L2 between byte rows |
//! | `fresh` | ids of a list that a walk has not seen yet |
//! | `lookup` | sums of table entries, for product codes |
//! | `ordered` | insertion into a sorted array of keys |
//! | `logits` | tables of product codes, logits of blocks, exponentials |
//! | `float` | Hadamard butterflies, sums, f16 rows |
//! | `level` | which CPU levels there are, and which version of a kernel runs on which |
//! | `lanes` | what several of these do with the lanes of registers and arrays |
//! | `bench` | the same for a benchmark to call |
//!
//! Every kernel takes a whole batch, so that the call through a function pointer costs nothing, and
//! has a portable twin with the same integer sums; the floating-point steps around them are written
//! in one fixed order without fused multiply-add, so that every level returns the same bits.

pub mod bench;
pub(crate) mod bitplane;
pub(crate) mod byte_l2;
pub(crate) mod byte_matrix;
pub(crate) mod float;
pub(crate) mod fresh;
mod lanes;
mod level;
pub(crate) mod logits;
pub(crate) mod lookup;
pub(crate) mod ordered;
pub(crate) mod packed;
pub(crate) mod planar;

pub(crate) use level::Level;
pub use level::check_variable;

/// Bytes of a cache line: codes are whole lines, so that a code never costs one line more.
pub(crate) const LINE: usize = 64;

/// Asks for the cache line that holds byte `offset` of `bytes`; does nothing past its end.
#[inline(always)]
pub(crate) fn prefetch(bytes: &[u8], offset: usize) {
    #[cfg(target_arch = "x86_64")]
    if offset < bytes.len() {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: `offset` lies inside `bytes`, as the line above checked; a prefetch reads
        // nothing.
        unsafe { _mm_prefetch(bytes.as_ptr().add(offset).cast(), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, offset);
}

/// Panics unless every id names a record of `stride` bytes inside `codes`.
#[inline(always)]
fn check_ids(codes: &[u8], stride: usize, ids: &[u32], out: &[f32]) {
    assert!(out.len() >= ids.len(), "one place an id");
    let largest = ids.iter().copied().max().unwrap_or(0) as usize;
    assert!(ids.is_empty() || (largest + 1) * stride <= codes.len(), "id {largest} has no code");
}
