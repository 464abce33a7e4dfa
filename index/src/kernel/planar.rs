//! Distances of 8-bit codes to a query of one or two planes of signed 8-bit lanes.
//!
//! A record is a whole number of cache lines: one unsigned byte a dimension, zeros, and in its last
//! eight bytes the f32 factors `a` and `b`. Two planes carry a query of 15 bits; one plane carries
//! another code, for distances between codes.
//!
//! ```text
//! dot[p]   = sum over dimensions of code * lanes[p]       (exact integers)
//! steps    = (dot[0] - offset[0]) * high_weight + (dot[1] - offset[1])
//! distance = (b * add_unit + base) + a * (slope * steps)
//! ```
//!
//! Lanes of bytes that hold no dimension are 0. A sum fits 32 bits for every dimension allowed:
//! 255 * 128 * 65,535 < 2^31.

use super::check_ids;
use super::float::{step_of, whole};
use super::level::{Level, best_version};

/// A plane holds -127 to 127; two of them, 128 times the first plus the second.
const PLANE: f32 = 127.0;

/// A query against 8-bit codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct PlanarQuery {
    /// Bytes of a record.
    pub(crate) stride: usize,
    /// `[planes x stride]` signed lanes; one or two planes, the coarse one first.
    pub(crate) lanes: Vec<i8>,
    /// What a step of the first plane is worth in steps of the second; 1 with one plane.
    pub(crate) high_weight: f32,
    /// What to take off each plane's sum for codes that are stored with an offset.
    pub(crate) offset: [i32; 2],
    /// What every distance starts from.
    pub(crate) base: f32,
    /// Unit of the second factor.
    pub(crate) add_unit: f32,
    /// What a step is worth, with its sign.
    pub(crate) slope: f32,
}

impl PlanarQuery {
    /// Fills the plane, or both, with a vector that meets records of `stride` bytes stored with
    /// `offset`; returns what a step of the last plane's lanes is worth.
    pub(crate) fn fill<const PLANES: usize>(
        &mut self,
        vector: &[f32],
        (stride, offset): (usize, i32),
    ) -> f32 {
        self.stride = stride;
        self.lanes.clear();
        self.lanes.resize(PLANES * stride, 0);
        self.high_weight = if PLANES == 2 { PLANE + 1.0 } else { 1.0 };
        let step = step_of(vector, PLANE * self.high_weight);
        let per_step = 1.0 / step;
        let (highs, lows) = self.lanes.split_at_mut(stride);
        if PLANES == 1 {
            let lanes = highs.iter_mut().zip(vector);
            lanes.for_each(|(lane, x)| *lane = whole(x * per_step) as i32 as i8);
        } else {
            for ((high, low), x) in highs.iter_mut().zip(&mut *lows).zip(vector) {
                let steps = whole(x * per_step) as i32;
                *high = ((steps + 64) >> 7) as i8;
                *low = (steps - (i32::from(*high) << 7)) as i8;
            }
        }
        self.offset = [highs, lows].map(|lanes| sum_of(lanes) * offset);
        step
    }
}

/// The sum of lanes.
pub(crate) fn sum_of(lanes: &[i8]) -> i32 {
    lanes.iter().map(|lane| i32::from(*lane)).sum()
}

/// `kernel(codes, query, ids, out)`: the distance of each id's record, in the order of `ids`.
/// Panics if an id has no record in `codes` or `out` is shorter than `ids`.
pub(crate) type PlanarKernel = fn(&[u8], &PlanarQuery, &[u32], &mut [f32]);

/// The kernel of a level for queries of `planes` planes.
///
/// Panics if this CPU lacks the level.
pub(crate) fn kernel(level: Level, planes: usize) -> PlanarKernel {
    fn of_planes<const PLANES: usize>(level: Level) -> PlanarKernel {
        best_version!(
            level,
            Avx512 => avx512::<PLANES>,
            Avx2 => avx2::<PLANES>,
            _ => portable::<PLANES>,
        )
    }
    if planes == 1 { of_planes::<1>(level) } else { of_planes::<2>(level) }
}

/// The two factors of a record.
pub(crate) fn factors(record: &[u8]) -> (f32, f32) {
    let tail = &record[record.len() - 8..];
    let word = |at: usize| f32::from_le_bytes([tail[at], tail[at + 1], tail[at + 2], tail[at + 3]]);
    (word(0), word(4))
}

fn finish(query: &PlanarQuery, dot: [i32; 2], record: &[u8]) -> f32 {
    let (a, b) = factors(record);
    let high = (dot[0] - query.offset[0]) as f32;
    let low = (dot[1] - query.offset[1]) as f32;
    (b * query.add_unit + query.base) + a * (query.slope * (high * query.high_weight + low))
}

fn check<const PLANES: usize>(codes: &[u8], query: &PlanarQuery, ids: &[u32], out: &[f32]) {
    assert_eq!(query.lanes.len(), PLANES * query.stride, "a lane a byte");
    check_ids(codes, query.stride, ids, out);
}

fn portable<const PLANES: usize>(codes: &[u8], query: &PlanarQuery, ids: &[u32], out: &mut [f32]) {
    check::<PLANES>(codes, query, ids, out);
    for (id, distance) in ids.iter().zip(out) {
        let record = &codes[*id as usize * query.stride..][..query.stride];
        let mut dot = [0i32; 2];
        for (sum, lanes) in dot.iter_mut().zip(query.lanes.chunks_exact(query.stride)) {
            *sum = record.iter().zip(lanes).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum();
        }
        *distance = finish(query, dot, record);
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2<const PLANES: usize>(codes: &[u8], query: &PlanarQuery, ids: &[u32], out: &mut [f32]) {
    check::<PLANES>(codes, query, ids, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, ids and lanes.
    unsafe { x86::avx2::<PLANES>(codes, query, ids, out) }
}

#[cfg(target_arch = "x86_64")]
fn avx512<const PLANES: usize>(codes: &[u8], query: &PlanarQuery, ids: &[u32], out: &mut [f32]) {
    check::<PLANES>(codes, query, ids, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, ids and lanes.
    unsafe { x86::avx512::<PLANES>(codes, query, ids, out) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::LINE;
    use super::super::lanes::x86::{sum_lanes, sum_lanes_of_four};
    use super::{PlanarQuery, finish};

    /// # Safety
    /// AVX2 is there; every id has a record in `codes`; `lanes` is `[PLANES x stride]`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2<const PLANES: usize>(
        codes: &[u8],
        query: &PlanarQuery,
        ids: &[u32],
        out: &mut [f32],
    ) {
        let stride = query.stride;
        for (id, distance) in ids.iter().zip(out) {
            let record = &codes[*id as usize * stride..][..stride];
            let mut sums = [_mm256_setzero_si256(); 2];
            for at in (0..stride).step_by(16) {
                // Sums of 16-bit products would saturate in 8-bit form: widen first.
                // SAFETY: strides are multiples of 64, so 16 bytes from `at` lie inside.
                let code = unsafe { _mm_loadu_si128(record.as_ptr().add(at).cast()) };
                let code = _mm256_cvtepu8_epi16(code);
                for (plane, sum) in sums.iter_mut().enumerate().take(PLANES) {
                    // SAFETY: as above, in the plane's own `stride` lanes.
                    let lanes = unsafe {
                        _mm_loadu_si128(query.lanes.as_ptr().add(plane * stride + at).cast())
                    };
                    let products = _mm256_madd_epi16(code, _mm256_cvtepi8_epi16(lanes));
                    *sum = _mm256_add_epi32(*sum, products);
                }
            }
            *distance = finish(query, sums.map(|sum| sum_lanes(sum)), record);
        }
    }

    /// # Safety
    /// AVX-512 F, BW, DQ, VL, VNNI are there; every id has a record in `codes`; `lanes` is
    /// `[PLANES x stride]`; `out` is as long as `ids`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) unsafe fn avx512<const PLANES: usize>(
        codes: &[u8],
        query: &PlanarQuery,
        ids: &[u32],
        out: &mut [f32],
    ) {
        let stride = query.stride;
        for (ids, out) in ids.chunks(4).zip(out.chunks_mut(4)) {
            let mut sums = [[_mm512_setzero_si512(); 4]; 2];
            // A last group of fewer than four repeats its first id; its extra results are dropped.
            let at: [usize; 4] =
                std::array::from_fn(|i| *ids.get(i).unwrap_or(&ids[0]) as usize * stride);
            for line in (0..stride).step_by(LINE) {
                // SAFETY: `line + 64 <= stride`, inside each record and each plane.
                let (code, lanes): ([__m512i; 4], [__m512i; 2]) = unsafe {
                    (
                        std::array::from_fn(|i| {
                            _mm512_loadu_si512(codes.as_ptr().add(at[i] + line).cast())
                        }),
                        std::array::from_fn(|plane| {
                            let plane = plane.min(PLANES - 1);
                            _mm512_loadu_si512(
                                query.lanes.as_ptr().add(plane * stride + line).cast(),
                            )
                        }),
                    )
                };
                for plane in 0..PLANES {
                    for i in 0..4 {
                        sums[plane][i] = _mm512_dpbusd_epi32(sums[plane][i], code[i], lanes[plane]);
                    }
                }
            }
            let mut dots = [[0i32; 4]; 2];
            for plane in 0..PLANES {
                // SAFETY: `dots[plane]` is 16 bytes.
                unsafe {
                    _mm_storeu_si128(
                        dots[plane].as_mut_ptr().cast(),
                        sum_lanes_of_four(sums[plane]),
                    );
                }
            }
            for (i, distance) in out.iter_mut().enumerate().take(ids.len()) {
                let record = &codes[at[i]..at[i] + stride];
                *distance = finish(query, [dots[0][i], dots[1][i]], record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    #[test]
    fn levels_agree_with_the_portable_twin() {
        let mut random = Seeded::new(8);
        for stride in [64, 128, 192, 640] {
            for planes in [1, 2] {
                let query = PlanarQuery {
                    stride,
                    lanes: (0..planes * stride).map(|_| random.next_u64() as i8).collect(),
                    high_weight: if planes == 1 { 1.0 } else { 128.0 },
                    offset: if planes == 1 { [77, 0] } else { [77, -5] },
                    base: 1.5,
                    add_unit: 0.5,
                    slope: -0.01,
                };
                let n = 11;
                let mut codes: Vec<u8> = (0..n * stride).map(|_| random.next_u64() as u8).collect();
                for record in codes.chunks_exact_mut(stride) {
                    record[stride - 8..stride - 4].copy_from_slice(&0.3f32.to_le_bytes());
                    record[stride - 4..].copy_from_slice(&7.0f32.to_le_bytes());
                }
                for count in [0, 1, 3, 4, 5, 11] {
                    let ids: Vec<u32> = (0..count).map(|i| (i * 5 % n) as u32).collect();
                    let mut wanted = vec![0.0; count];
                    kernel(Level::Portable, planes)(&codes, &query, &ids, &mut wanted);
                    for level in Level::available() {
                        let mut found = vec![0.0; count];
                        kernel(level, planes)(&codes, &query, &ids, &mut found);
                        assert_eq!(found, wanted, "{level:?} {stride} {planes}");
                    }
                }
            }
        }
    }
}
