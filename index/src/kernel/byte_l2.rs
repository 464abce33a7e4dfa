//! Exact squared L2 between rows of unsigned bytes (signed ones are stored with 128 added, which
//! keeps every difference).
//!
//! A record is a whole number of cache lines, zeros after the row; the query likewise. Sums are
//! exact: 255^2 * 65,535 < 2^32.

use super::check_ids;
use super::level::{Level, best_version};

/// `kernel(codes, query, ids, out)`: the squared L2 distance of `query` (`[stride]` bytes) to each
/// id's record, in the order of `ids`. Panics if an id has no record or `out` is too short.
pub(crate) type ByteL2Kernel = fn(&[u8], &[u8], &[u32], &mut [f32]);

/// The kernel of a level.
///
/// Panics if this CPU lacks the level.
pub(crate) fn kernel(level: Level) -> ByteL2Kernel {
    best_version!(level, Avx512 => avx512, Avx2 => avx2, _ => portable)
}

fn portable(codes: &[u8], query: &[u8], ids: &[u32], out: &mut [f32]) {
    check_ids(codes, query.len(), ids, out);
    distances(codes, query, ids, out);
}

#[inline(always)]
fn distances(codes: &[u8], query: &[u8], ids: &[u32], out: &mut [f32]) {
    for (id, distance) in ids.iter().zip(out) {
        let record = &codes[*id as usize * query.len()..][..query.len()];
        let sum = record.iter().zip(query).fold(0u32, |sum, (x, y)| {
            let difference = u32::from(x.abs_diff(*y));
            sum + difference * difference
        });
        *distance = sum as f32;
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2(codes: &[u8], query: &[u8], ids: &[u32], out: &mut [f32]) {
    #[target_feature(enable = "avx2")]
    fn shell(codes: &[u8], query: &[u8], ids: &[u32], out: &mut [f32]) {
        distances(codes, query, ids, out);
    }
    check_ids(codes, query.len(), ids, out);
    // SAFETY: `kernel`, the only way here, checked the level.
    unsafe { shell(codes, query, ids, out) }
}

#[cfg(target_arch = "x86_64")]
fn avx512(codes: &[u8], query: &[u8], ids: &[u32], out: &mut [f32]) {
    check_ids(codes, query.len(), ids, out);
    assert!(query.len().is_multiple_of(super::LINE), "records are whole lines");
    // SAFETY: `kernel`, the only way here, checked the level; the lines above, ids and lines.
    unsafe { x86::avx512(codes, query, ids, out) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::LINE;
    use super::super::lanes::x86::sum_lanes_of_four;

    /// # Safety
    /// AVX-512 F, BW, DQ, VL, VNNI are there; `query` is whole lines; every id has a record of
    /// `query.len()` bytes in `codes`; `out` is as long as `ids`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn avx512(codes: &[u8], query: &[u8], ids: &[u32], out: &mut [f32]) {
        let stride = query.len();
        let zero = _mm512_setzero_si512();
        for (ids, out) in ids.chunks(4).zip(out.chunks_mut(4)) {
            let mut sums = [zero; 4];
            // A last group of fewer than four repeats its first id; its extra results are dropped.
            let at: [usize; 4] =
                std::array::from_fn(|i| *ids.get(i).unwrap_or(&ids[0]) as usize * stride);
            for line in (0..stride).step_by(LINE) {
                // SAFETY: `line + 64 <= stride`.
                let wanted = unsafe { _mm512_loadu_si512(query.as_ptr().add(line).cast()) };
                for i in 0..4 {
                    // SAFETY: `line + 64 <= stride`, inside the record of each id.
                    let found =
                        unsafe { _mm512_loadu_si512(codes.as_ptr().add(at[i] + line).cast()) };
                    let difference = _mm512_sub_epi8(
                        _mm512_max_epu8(found, wanted),
                        _mm512_min_epu8(found, wanted),
                    );
                    let low = _mm512_unpacklo_epi8(difference, zero);
                    let high = _mm512_unpackhi_epi8(difference, zero);
                    sums[i] = _mm512_dpwssd_epi32(sums[i], low, low);
                    sums[i] = _mm512_dpwssd_epi32(sums[i], high, high);
                }
            }
            let mut squares = [0u32; 4];
            // SAFETY: `squares` is 16 bytes.
            unsafe { _mm_storeu_si128(squares.as_mut_ptr().cast(), sum_lanes_of_four(sums)) };
            out.iter_mut().zip(squares).for_each(|(to, square)| *to = square as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    #[test]
    fn levels_agree_with_the_portable_twin() {
        let mut random = Seeded::new(9);
        for stride in [64, 128, 192, 1024] {
            let query: Vec<u8> = (0..stride).map(|_| random.next_u64() as u8).collect();
            let n = 11;
            let codes: Vec<u8> = (0..n * stride).map(|_| random.next_u64() as u8).collect();
            for count in [0, 1, 3, 4, 5, 11] {
                let ids: Vec<u32> = (0..count).map(|i| (i * 3 % n) as u32).collect();
                let mut wanted = vec![0.0; count];
                portable(&codes, &query, &ids, &mut wanted);
                for level in Level::available() {
                    let mut found = vec![0.0; count];
                    kernel(level)(&codes, &query, &ids, &mut found);
                    assert_eq!(found, wanted, "{level:?} {stride}");
                }
            }
        }
    }

    #[test]
    fn the_largest_distance_is_exact_to_f32() {
        let (codes, query) = (vec![255u8; 65_536], vec![0u8; 65_536]);
        for level in Level::available() {
            let mut found = [0.0];
            kernel(level)(&codes, &query, &[0], &mut found);
            assert_eq!(found[0], (65_025u64 * 65_536) as f32, "{level:?}");
        }
    }
}
