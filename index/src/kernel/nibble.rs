//! Distances of 4-bit codes to a query of signed 8-bit lanes.
//!
//! A record is a whole number of cache lines. A line of `m <= 128` dimensions keeps dimension `i`
//! in the low half of byte `i` for `i < h` and dimension `h + i` in the high half of byte `i`,
//! where `h = ceil(m / 2)` (64 in every full line). Two f16 factors `a`, `b` follow: in the last
//! four bytes of the record where they are free, else in the lowest bit of the low half of the
//! record's first 32 bytes ("stolen": those 32 dimensions keep three bits).
//!
//! ```text
//! dot      = sum over dimensions of code * query        (exact integer)
//! distance = (b * add_unit + base) + a * (slope * (2 * dot - offset))
//! ```
//!
//! Query lanes are laid out as the record is: for each line 64 lanes for the low halves and 64 for
//! the high halves; lanes of bytes that hold no dimension are 0, so that factors in the last line
//! never reach a sum.

use half::f16;

use super::{LINE, Level, check_ids};

/// A query against 4-bit codes.
#[derive(Clone, Debug, Default)]
pub(crate) struct NibbleQuery {
    /// `[lines x 128]` signed lanes, as the file's comment draws them.
    pub(crate) lanes: Vec<i8>,
    /// Whether the factors hide in the first 32 bytes.
    pub(crate) stolen: bool,
    /// What every distance starts from.
    pub(crate) base: f32,
    /// Unit of the second factor.
    pub(crate) add_unit: f32,
    /// What an integer step of the dot product is worth, with its sign.
    pub(crate) slope: f32,
    /// 15 times the sum of the lanes: the codes' middle is 7.5.
    pub(crate) offset: i32,
}

/// `kernel(codes, query, ids, out)`: the distance of each id's record, in the order of `ids`.
/// Panics if an id has no record in `codes` or `out` is shorter than `ids`.
pub(crate) type NibbleKernel = fn(&[u8], &NibbleQuery, &[u32], &mut [f32]);

/// The kernel of a level.
///
/// Panics if this CPU lacks the level.
pub(crate) fn kernel(level: Level) -> NibbleKernel {
    assert!(level <= Level::best(), "the CPU lacks {level:?}");
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2,
        _ => portable,
    }
}

/// The bit masks of the low halves of line `line`'s two 32-byte parts.
fn low_masks(query: &NibbleQuery, line: usize) -> [u8; 2] {
    if query.stolen && line == 0 { [0x0e, 0x0f] } else { [0x0f, 0x0f] }
}

/// The two factors of a record.
pub(crate) fn factors(record: &[u8], stolen: bool) -> (f16, f16) {
    let word = if stolen {
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

fn finish(query: &NibbleQuery, dot: i32, a: f16, b: f16) -> f32 {
    let steps = (2 * dot - query.offset) as f32;
    (b.to_f32() * query.add_unit + query.base) + a.to_f32() * (query.slope * steps)
}

fn portable(codes: &[u8], query: &NibbleQuery, ids: &[u32], out: &mut [f32]) {
    let stride = query.lanes.len() / 2;
    check_ids(codes, stride, ids, out);
    for (id, distance) in ids.iter().zip(out) {
        let record = &codes[*id as usize * stride..][..stride];
        let mut dot = 0i32;
        for (line, bytes) in record.chunks_exact(LINE).enumerate() {
            let masks = low_masks(query, line);
            let (low, high) = query.lanes[line * 2 * LINE..][..2 * LINE].split_at(LINE);
            for i in 0..LINE {
                dot += i32::from(bytes[i] & masks[i / 32]) * i32::from(low[i]);
                dot += i32::from(bytes[i] >> 4) * i32::from(high[i]);
            }
        }
        let (a, b) = factors(record, query.stolen);
        *distance = finish(query, dot, a, b);
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2(codes: &[u8], query: &NibbleQuery, ids: &[u32], out: &mut [f32]) {
    check_ids(codes, query.lanes.len() / 2, ids, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, every id.
    unsafe { x86::avx2(codes, query, ids, out) }
}

#[cfg(target_arch = "x86_64")]
fn avx512(codes: &[u8], query: &NibbleQuery, ids: &[u32], out: &mut [f32]) {
    check_ids(codes, query.lanes.len() / 2, ids, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, every id.
    unsafe {
        match query.lanes.len() / (2 * LINE) {
            1 => x86::avx512::<1>(codes, query, ids, out),
            2 => x86::avx512::<2>(codes, query, ids, out),
            3 => x86::avx512::<3>(codes, query, ids, out),
            4 => x86::avx512::<4>(codes, query, ids, out),
            _ => x86::avx512::<0>(codes, query, ids, out),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::LINE;
    use super::super::ordered::x86::sum_lanes_of_four;
    use super::{NibbleQuery, factors, finish, low_masks};

    /// # Safety
    /// AVX2 is there; every id has a record of `query.lanes.len() / 2` bytes in `codes`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(codes: &[u8], query: &NibbleQuery, ids: &[u32], out: &mut [f32]) {
        let stride = query.lanes.len() / 2;
        let nibble = _mm256_set1_epi8(0x0f);
        let ones = _mm256_set1_epi16(1);
        for (id, distance) in ids.iter().zip(out) {
            let record = &codes[*id as usize * stride..][..stride];
            let mut sums = _mm256_setzero_si256();
            for line in 0..stride / LINE {
                for (part, mask) in low_masks(query, line).into_iter().enumerate() {
                    let at = line * LINE + part * 32;
                    let lane = line * 2 * LINE + part * 32;
                    // SAFETY: `at + 32 <= stride` and `lane + LINE + 32 <= lanes.len()`.
                    let (bytes, low, high) = unsafe {
                        (
                            _mm256_loadu_si256(record.as_ptr().add(at).cast()),
                            _mm256_loadu_si256(query.lanes.as_ptr().add(lane).cast()),
                            _mm256_loadu_si256(query.lanes.as_ptr().add(lane + LINE).cast()),
                        )
                    };
                    let low_codes = _mm256_and_si256(bytes, _mm256_set1_epi8(mask as i8));
                    let high_codes = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
                    // 15 * 128 * 4 < 32,767: four products fit a 16-bit lane.
                    let pairs = _mm256_add_epi16(
                        _mm256_maddubs_epi16(low_codes, low),
                        _mm256_maddubs_epi16(high_codes, high),
                    );
                    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
                }
            }
            let halves =
                _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
            let quarters = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b01_00_11_10>(halves));
            let whole = _mm_add_epi32(quarters, _mm_shuffle_epi32::<0b10_11_00_01>(quarters));
            let (a, b) = factors(record, query.stolen);
            *distance = finish(query, _mm_cvtsi128_si32(whole), a, b);
        }
    }

    /// Records scored together: their sums end up in the lanes of one register.
    const BLOCK: usize = 16;

    /// `LINES` is the number of lines of a record, 0 for any.
    ///
    /// # Safety
    /// The AVX-512 level is there; every id has a record of `query.lanes.len() / 2` bytes in
    /// `codes`; `out` is as long as `ids`.
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,popcnt,bmi1,bmi2"
    )]
    pub(super) unsafe fn avx512<const LINES: usize>(
        codes: &[u8],
        query: &NibbleQuery,
        ids: &[u32],
        out: &mut [f32],
    ) {
        let stride = if LINES == 0 { query.lanes.len() / 2 } else { LINES * LINE };
        for (ids, out) in ids.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
            // A group of fewer than four repeats an id; what comes of it is dropped.
            let mut at = [ids[0] as usize * stride; BLOCK];
            at.iter_mut().zip(ids).for_each(|(at, id)| *at = *id as usize * stride);
            let (mut dots, mut words) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            for (group, at) in at.as_chunks::<4>().0.iter().enumerate() {
                if group * 4 >= ids.len() {
                    break;
                }
                // SAFETY: every place in `at` is that of a record.
                let (dot, word) = unsafe { four::<LINES>(codes, query, at) };
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

    /// The dot products and the factors of the records at four places.
    ///
    /// # Safety
    /// As for `avx512`; each place is the start of a record in `codes`.
    #[target_feature(
        enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c,popcnt,bmi1,bmi2"
    )]
    #[inline]
    unsafe fn four<const LINES: usize>(
        codes: &[u8],
        query: &NibbleQuery,
        at: &[usize; 4],
    ) -> (__m128i, __m128i) {
        let lines = if LINES == 0 { query.lanes.len() / (2 * LINE) } else { LINES };
        let nibble = _mm512_set1_epi8(0x0f);
        let first_mask = if query.stolen {
            _mm512_inserti64x4::<0>(nibble, _mm256_set1_epi8(0x0e))
        } else {
            nibble
        };
        let mut sums = [_mm512_setzero_si512(); 4];
        let mut words = [0i32; 4];
        for line in 0..lines {
            let lane = line * 2 * LINE;
            // SAFETY: `lane + 128 <= lanes.len()`.
            let (low, high) = unsafe {
                (
                    _mm512_loadu_si512(query.lanes.as_ptr().add(lane).cast()),
                    _mm512_loadu_si512(query.lanes.as_ptr().add(lane + LINE).cast()),
                )
            };
            let mask = if line == 0 { first_mask } else { nibble };
            for i in 0..4 {
                // SAFETY: the record of each place lies inside `codes`.
                let bytes =
                    unsafe { _mm512_loadu_si512(codes.as_ptr().add(at[i] + line * LINE).cast()) };
                let high_codes = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble);
                sums[i] = _mm512_dpbusd_epi32(sums[i], _mm512_and_si512(bytes, mask), low);
                sums[i] = _mm512_dpbusd_epi32(sums[i], high_codes, high);
                if line == 0 && query.stolen {
                    words[i] = lowest_bits(_mm512_castsi512_si256(bytes));
                }
            }
        }
        if !query.stolen {
            for i in 0..4 {
                // SAFETY: the last four bytes of the record at each place.
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
    use foveal_datasets::synthetic::Seeded;

    use super::*;

    fn query(lines: usize, stolen: bool, random: &mut Seeded) -> NibbleQuery {
        let lanes: Vec<i8> = (0..lines * 128).map(|_| random.next_u64() as i8).collect();
        let offset = 15 * lanes.iter().map(|lane| i32::from(*lane)).sum::<i32>();
        NibbleQuery { lanes, stolen, base: 3.5, add_unit: 0.25, slope: -0.001, offset }
    }

    #[test]
    fn levels_agree_with_the_portable_twin() {
        let mut random = Seeded::new(7);
        for lines in [1, 2, 3, 4, 5, 9] {
            for stolen in [false, true] {
                let query = query(lines, stolen, &mut random);
                let n = 23;
                let mut codes: Vec<u8> =
                    (0..n * lines * LINE).map(|_| random.next_u64() as u8).collect();
                if !stolen {
                    // Factors that are finite numbers.
                    for record in codes.chunks_exact_mut(lines * LINE) {
                        let end = record.len();
                        record[end - 4..].copy_from_slice(&[1, 60, 2, 60]);
                    }
                }
                for count in [0, 1, 3, 4, 5, 8, 23] {
                    let ids: Vec<u32> = (0..count).map(|i| (i * 7 % n) as u32).collect();
                    let mut wanted = vec![0.0; count];
                    portable(&codes, &query, &ids, &mut wanted);
                    for level in Level::available() {
                        let mut found = vec![0.0; count];
                        kernel(level)(&codes, &query, &ids, &mut found);
                        let bits = |values: &[f32]| -> Vec<u32> {
                            // NaN from random stolen factors may differ in its payload.
                            let plain = |x: &f32| if x.is_nan() { 0 } else { x.to_bits() };
                            values.iter().map(plain).collect()
                        };
                        assert_eq!(bits(&found), bits(&wanted), "{level:?} {lines} {stolen}");
                    }
                }
            }
        }
    }
}
