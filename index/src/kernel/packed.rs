//! Distances of codes of 4 or 2 bits a dimension to a query of signed 8-bit lanes.
//!
//! A record is a whole number of cache lines, a byte has `F` fields: two of 4 bits, or four of 2,
//! the first in its lowest bits. A line of `m <= 64 F` dimensions keeps dimension `f h + i` in
//! field f of byte `i < h`, where `h = m / F` rounded up (64 in every full line). Two f16 factors
//! `a`, `b` follow: in the last four bytes of the record where they are free, else (4 bits alone)
//! in the lowest bit of the first field of the record's first 32 bytes ("borrowed": those 32
//! dimensions keep three bits).
//!
//! ```text
//! dot      = sum over dimensions of code * query        (exact integer)
//! distance = (b * add_unit + base) + a * (slope * (2 * dot - offset))
//! ```
//!
//! Query lanes are laid out as the record is: for each line 64 lanes for each field in turn; lanes
//! of bytes that hold no dimension are 0, so that factors in the last line never reach a sum.

use half::f16;

use super::level::{Level, best_version};
use super::{LINE, check_ids};

/// A query against codes of a number of bits.
#[derive(Clone, Debug, Default)]
pub(crate) struct PackedQuery {
    /// `[lines x F x 64]` signed lanes, as the file's comment draws them.
    pub(crate) lanes: Vec<i8>,
    /// Whether the factors hide in the first 32 bytes.
    pub(crate) borrowed: bool,
    /// What every distance starts from.
    pub(crate) base: f32,
    /// Unit of the second factor.
    pub(crate) add_unit: f32,
    /// What an integer step of the dot product is worth, with its sign.
    pub(crate) slope: f32,
    /// Twice the codes' middle times the sum of the lanes: 15 times at 4 bits, 3 times at 2.
    pub(crate) offset: i32,
}

/// `kernel(codes, query, ids, out)`: the distance of each id's record, in the order of `ids`.
/// Panics if an id has no record in `codes` or `out` is shorter than `ids`.
pub(crate) type PackedKernel = fn(&[u8], &PackedQuery, &[u32], &mut [f32]);

/// The kernel of a level for codes of `FIELDS` dimensions a byte: 2 or 4.
///
/// Panics if this CPU lacks the level.
pub(crate) fn kernel<const FIELDS: usize>(level: Level) -> PackedKernel {
    const { assert!(FIELDS == 2 || FIELDS == 4, "4 bits or 2") };
    best_version!(
        level,
        Avx512 => avx512::<FIELDS>,
        Avx2 => avx2::<FIELDS>,
        _ => portable::<FIELDS>,
    )
}

/// The bits of a field, all set.
const fn field_mask(fields: usize) -> u8 {
    ((1 << (8 / fields)) - 1) as u8
}

/// The bit masks of the first fields of line `line`'s two 32-byte parts.
fn first_masks<const FIELDS: usize>(query: &PackedQuery, line: usize) -> [u8; 2] {
    let mask = field_mask(FIELDS);
    if query.borrowed && line == 0 { [mask & !1, mask] } else { [mask; 2] }
}

/// The two factors of a record.
pub(crate) fn factors(record: &[u8], borrowed: bool) -> (f16, f16) {
    let word = if borrowed {
        let eights = record[..32].chunks_exact(8).enumerate();
        eights.fold(0u32, |word, (i, bytes)| word | lowest_bits(bytes) << (8 * i))
    } else {
        let end = record.len();
        u32::from_le_bytes([record[end - 4], record[end - 3], record[end - 2], record[end - 1]])
    };
    (f16::from_bits(word as u16), f16::from_bits((word >> 16) as u16))
}

/// The lowest bits of eight bytes, that of byte i at bit i.
fn lowest_bits(bytes: &[u8]) -> u32 {
    let eight = bytes.try_into().expect("eight bytes");
    let bits = u64::from_le_bytes(eight) & 0x0101_0101_0101_0101;
    // The factor's bit at 56 - 7 i takes that of byte i to 56 + i.
    (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

fn finish(query: &PackedQuery, dot: i32, a: f16, b: f16) -> f32 {
    let steps = (2 * dot - query.offset) as f32;
    (b.to_f32() * query.add_unit + query.base) + a.to_f32() * (query.slope * steps)
}

fn portable<const FIELDS: usize>(codes: &[u8], query: &PackedQuery, ids: &[u32], out: &mut [f32]) {
    let stride = query.lanes.len() / FIELDS;
    check_ids(codes, stride, ids, out);
    for (id, distance) in ids.iter().zip(out) {
        let record = &codes[*id as usize * stride..][..stride];
        let mut dot = 0i32;
        for (line, bytes) in record.chunks_exact(LINE).enumerate() {
            let masks = first_masks::<FIELDS>(query, line);
            let lanes = query.lanes[line * FIELDS * LINE..].chunks_exact(LINE);
            for (field, lanes) in lanes.take(FIELDS).enumerate() {
                for i in 0..LINE {
                    let mask = if field == 0 { masks[i / 32] } else { field_mask(FIELDS) };
                    let code = bytes[i] >> (field * 8 / FIELDS) & mask;
                    dot += i32::from(code) * i32::from(lanes[i]);
                }
            }
        }
        let (a, b) = factors(record, query.borrowed);
        *distance = finish(query, dot, a, b);
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2<const FIELDS: usize>(codes: &[u8], query: &PackedQuery, ids: &[u32], out: &mut [f32]) {
    check_ids(codes, query.lanes.len() / FIELDS, ids, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, every id.
    unsafe { x86::avx2::<FIELDS>(codes, query, ids, out) }
}

#[cfg(target_arch = "x86_64")]
fn avx512<const FIELDS: usize>(codes: &[u8], query: &PackedQuery, ids: &[u32], out: &mut [f32]) {
    check_ids(codes, query.lanes.len() / FIELDS, ids, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, every id.
    unsafe {
        match query.lanes.len() / (FIELDS * LINE) {
            1 => x86::avx512::<1, FIELDS>(codes, query, ids, out),
            2 => x86::avx512::<2, FIELDS>(codes, query, ids, out),
            3 => x86::avx512::<3, FIELDS>(codes, query, ids, out),
            4 => x86::avx512::<4, FIELDS>(codes, query, ids, out),
            _ => x86::avx512::<0, FIELDS>(codes, query, ids, out),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::LINE;
    use super::super::lanes::x86::{sum_lanes, sum_lanes_of_four};
    use super::{PackedQuery, factors, field_mask, finish, first_masks};

    /// # Safety
    /// AVX2 is there; every id has a record of `query.lanes.len() / FIELDS` bytes in `codes`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2<const FIELDS: usize>(
        codes: &[u8],
        query: &PackedQuery,
        ids: &[u32],
        out: &mut [f32],
    ) {
        let stride = query.lanes.len() / FIELDS;
        let whole = _mm256_set1_epi8(field_mask(FIELDS) as i8);
        let ones = _mm256_set1_epi16(1);
        for (id, distance) in ids.iter().zip(out) {
            let record = &codes[*id as usize * stride..][..stride];
            let mut sums = _mm256_setzero_si256();
            for line in 0..stride / LINE {
                for (part, mask) in first_masks::<FIELDS>(query, line).into_iter().enumerate() {
                    let lane = line * FIELDS * LINE + part * 32;
                    // SAFETY: `line * LINE + part * 32 + 32 <= stride`.
                    let bytes = unsafe {
                        _mm256_loadu_si256(record.as_ptr().add(line * LINE + part * 32).cast())
                    };
                    let mut pairs = _mm256_setzero_si256();
                    for field in 0..FIELDS {
                        let shift = _mm_cvtsi32_si128((field * 8 / FIELDS) as i32);
                        let mask = if field == 0 { _mm256_set1_epi8(mask as i8) } else { whole };
                        let code = _mm256_and_si256(_mm256_srl_epi16(bytes, shift), mask);
                        // SAFETY: `lane + field * LINE + 32 <= lanes.len()`.
                        let lanes = unsafe {
                            _mm256_loadu_si256(query.lanes.as_ptr().add(lane + field * LINE).cast())
                        };
                        // 15 * 128 * 4 < 32,767: four products fit a 16-bit lane.
                        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(code, lanes));
                    }
                    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
                }
            }
            let (a, b) = factors(record, query.borrowed);
            *distance = finish(query, sum_lanes(sums), a, b);
        }
    }

    /// Records scored together: their sums end up in the lanes of one register.
    const BLOCK: usize = 16;

    /// `LINES` is the number of lines of a record, 0 for any.
    ///
    /// # Safety
    /// The AVX-512 level is there; every id has a record of `query.lanes.len() / FIELDS` bytes in
    /// `codes`; `out` is as long as `ids`.
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,popcnt,bmi1,bmi2"
    )]
    pub(super) unsafe fn avx512<const LINES: usize, const FIELDS: usize>(
        codes: &[u8],
        query: &PackedQuery,
        ids: &[u32],
        out: &mut [f32],
    ) {
        let stride = if LINES == 0 { query.lanes.len() / FIELDS } else { LINES * LINE };
        for (ids, out) in ids.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
            // A group of fewer than four repeats an id; what comes of it is dropped.
            let mut at = [ids[0] as usize * stride; BLOCK];
            at.iter_mut().zip(ids).for_each(|(at, id)| *at = *id as usize * stride);
            let (mut dots, mut words) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            for (group, at) in at.as_chunks::<4>().0.iter().enumerate() {
                if group * 4 >= ids.len() {
                    break;
                }
                // SAFETY: every position in `at` is that of a record.
                let (dot, word) = unsafe { four::<LINES, FIELDS>(codes, query, at) };
                match group {
                    0 => {
                        (dots, words) = (
                            _mm512_inserti32x4::<0>(dots, dot),
                            _mm512_inserti32x4::<0>(words, word),
                        )
                    }
                    1 => {
                        (dots, words) = (
                            _mm512_inserti32x4::<1>(dots, dot),
                            _mm512_inserti32x4::<1>(words, word),
                        )
                    }
                    2 => {
                        (dots, words) = (
                            _mm512_inserti32x4::<2>(dots, dot),
                            _mm512_inserti32x4::<2>(words, word),
                        )
                    }
                    _ => {
                        (dots, words) = (
                            _mm512_inserti32x4::<3>(dots, dot),
                            _mm512_inserti32x4::<3>(words, word),
                        )
                    }
                }
            }
            let a = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
            let b = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(words)));
            let doubled =
                _mm512_sub_epi32(_mm512_add_epi32(dots, dots), _mm512_set1_epi32(query.offset));
            let steps = _mm512_cvtepi32_ps(doubled);
            let sloped = _mm512_mul_ps(a, _mm512_mul_ps(_mm512_set1_ps(query.slope), steps));
            let added = _mm512_add_ps(
                _mm512_mul_ps(b, _mm512_set1_ps(query.add_unit)),
                _mm512_set1_ps(query.base),
            );
            let lanes = ((1u32 << ids.len()) - 1) as u16;
            // SAFETY: only the `ids.len()` lanes of the mask are written, and `out` has as many.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), lanes, _mm512_add_ps(added, sloped)) };
        }
    }

    /// The dot products and the factors of the records at four positions.
    ///
    /// # Safety
    /// As for `avx512`; each position is the start of a record in `codes`.
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,popcnt,bmi1,bmi2"
    )]
    #[inline]
    unsafe fn four<const LINES: usize, const FIELDS: usize>(
        codes: &[u8],
        query: &PackedQuery,
        at: &[usize; 4],
    ) -> (__m128i, __m128i) {
        let lines = if LINES == 0 { query.lanes.len() / (FIELDS * LINE) } else { LINES };
        let whole = _mm512_set1_epi8(field_mask(FIELDS) as i8);
        let [first, _] = first_masks::<FIELDS>(query, 0);
        let first_mask = _mm512_inserti64x4::<0>(whole, _mm256_set1_epi8(first as i8));
        let mut sums = [_mm512_setzero_si512(); 4];
        let mut words = [0i32; 4];
        for line in 0..lines {
            let mut lanes = [whole; FIELDS];
            for (field, lanes) in lanes.iter_mut().enumerate() {
                let lane = (line * FIELDS + field) * LINE;
                // SAFETY: `lane + 64 <= lanes.len()`.
                *lanes = unsafe { _mm512_loadu_si512(query.lanes.as_ptr().add(lane).cast()) };
            }
            for i in 0..4 {
                // SAFETY: the record of each position lies inside `codes`.
                let bytes =
                    unsafe { _mm512_loadu_si512(codes.as_ptr().add(at[i] + line * LINE).cast()) };
                for (field, lanes) in lanes.into_iter().enumerate() {
                    let shift = _mm_cvtsi32_si128((field * 8 / FIELDS) as i32);
                    let mask = if field == 0 && line == 0 { first_mask } else { whole };
                    let code = _mm512_and_si512(_mm512_srl_epi16(bytes, shift), mask);
                    sums[i] = _mm512_dpbusd_epi32(sums[i], code, lanes);
                }
                if line == 0 && query.borrowed {
                    words[i] = lowest_bits(_mm512_castsi512_si256(bytes));
                }
            }
        }
        if !query.borrowed {
            for i in 0..4 {
                // SAFETY: the last four bytes of the record at each position.
                words[i] = unsafe {
                    codes.as_ptr().add(at[i] + lines * LINE - 4).cast::<i32>().read_unaligned()
                };
            }
        }
        let words = _mm_setr_epi32(words[0], words[1], words[2], words[3]);
        (sum_lanes_of_four(sums), words)
    }

    /// The lowest bit of each byte, the first byte's in the lowest place. In assembly, since the
    /// compiler would take the bits through memory, which stalls what loads them again.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn lowest_bits(bytes: __m256i) -> i32 {
        let bits;
        // SAFETY: AVX2 is there; registers alone are touched.
        unsafe {
            std::arch::asm!(
                "vpmovmskb {bits:e}, {bytes}",
                bits = out(reg) bits,
                bytes = in(ymm_reg) _mm256_slli_epi16::<7>(bytes),
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        bits
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    fn query(lines: usize, fields: usize, borrowed: bool, random: &mut Seeded) -> PackedQuery {
        let lanes = (0..lines * fields * LINE).map(|_| random.next_u64() as i8);
        let lanes: Vec<i8> = lanes.collect();
        let offset = 15 * lanes.iter().map(|lane| i32::from(*lane)).sum::<i32>();
        PackedQuery { lanes, borrowed, base: 3.5, add_unit: 0.25, slope: -0.001, offset }
    }

    #[test]
    fn levels_agree_with_the_portable_twin() {
        for lines in [1, 2, 3, 4, 5, 9] {
            levels_agree::<2>(lines, false);
            levels_agree::<2>(lines, true);
            levels_agree::<4>(lines, false);
        }
    }

    fn levels_agree<const FIELDS: usize>(lines: usize, borrowed: bool) {
        let mut random = Seeded::new(7);
        let query = query(lines, FIELDS, borrowed, &mut random);
        let n = 23;
        let mut codes: Vec<u8> = (0..n * lines * LINE).map(|_| random.next_u64() as u8).collect();
        if !borrowed {
            // Factors that are finite numbers.
            for record in codes.chunks_exact_mut(lines * LINE) {
                let end = record.len();
                record[end - 4..].copy_from_slice(&[1, 60, 2, 60]);
            }
        }
        for count in [0, 1, 3, 4, 5, 8, 23] {
            let ids: Vec<u32> = (0..count).map(|i| (i * 7 % n) as u32).collect();
            let mut wanted = vec![0.0; count];
            portable::<FIELDS>(&codes, &query, &ids, &mut wanted);
            for level in Level::available() {
                let mut found = vec![0.0; count];
                kernel::<FIELDS>(level)(&codes, &query, &ids, &mut found);
                let bits = |values: &[f32]| -> Vec<u32> {
                    // NaN from random borrowed factors may differ in its payload.
                    let plain = |x: &f32| if x.is_nan() { 0 } else { x.to_bits() };
                    values.iter().map(plain).collect()
                };
                assert_eq!(bits(&found), bits(&wanted), "{level:?} {FIELDS} {lines} {borrowed}");
            }
        }
    }
}
