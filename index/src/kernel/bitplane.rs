//! Sums of a query's lanes over the set bits of a plane.
//!
//! A plane is `[w]` little-endian words of 32 bits; bit j of word i stands for lane `32 i + j`. The
//! lanes are `[32 w]` signed 16-bit numbers of which at most 65,535 are not 0, so that every sum
//! fits 32 bits: `65,535 * 32,767 < 2^31`.

use super::level::{Level, best_version};

/// Lanes that a word of a plane stands for.
pub(crate) const WORD: usize = 32;

/// `kernel(plane, lanes)`: the sum of the lanes whose bit is set. Panics unless there are eight
/// lanes a byte, and whole words.
pub(crate) type BitplaneKernel = fn(&[u8], &[i16]) -> i32;

/// The kernel of a level.
///
/// Panics if this CPU lacks the level.
pub(crate) fn kernel(level: Level) -> BitplaneKernel {
    best_version!(level, Avx512 => avx512, _ => portable)
}

fn check(plane: &[u8], lanes: &[i16]) {
    assert!(plane.len() * 8 == lanes.len() && lanes.len().is_multiple_of(WORD), "a lane a bit");
}

fn portable(plane: &[u8], lanes: &[i16]) -> i32 {
    check(plane, lanes);
    let mut sum = 0;
    for (byte, lanes) in plane.iter().zip(lanes.chunks_exact(8)) {
        for (j, lane) in lanes.iter().enumerate() {
            sum += i32::from(byte >> j & 1) * i32::from(*lane);
        }
    }
    sum
}

#[cfg(target_arch = "x86_64")]
fn avx512(plane: &[u8], lanes: &[i16]) -> i32 {
    check(plane, lanes);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, the lengths.
    unsafe { x86::avx512(plane, lanes) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::WORD;

    /// # Safety
    /// AVX-512 F and BW are there; there are eight lanes a byte of `plane`, and whole words.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn avx512(plane: &[u8], lanes: &[i16]) -> i32 {
        let ones = _mm512_set1_epi16(1);
        let mut sums = _mm512_setzero_si512();
        for (word, lanes) in plane.chunks_exact(4).zip(lanes.chunks_exact(WORD)) {
            let mask = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            // SAFETY: `lanes` holds the 32 lanes that are read.
            let set = unsafe { _mm512_maskz_loadu_epi16(mask, lanes.as_ptr()) };
            sums = _mm512_add_epi32(sums, _mm512_madd_epi16(set, ones));
        }
        _mm512_reduce_add_epi32(sums)
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    #[test]
    fn every_level_sums_the_lanes_whose_bit_is_set() {
        let mut random = Seeded::new(3);
        for words in [1, 2, 4, 12, 100] {
            let mut byte = || random.next_u64() as u8;
            let plane: Vec<u8> = (0..words * 4).map(|_| byte()).collect();
            let lane = || i16::from_le_bytes([byte(), byte()]).max(-i16::MAX);
            let lanes: Vec<i16> = std::iter::repeat_with(lane).take(words * WORD).collect();
            let is_set = |i: &usize| plane[i / 8] >> (i % 8) & 1 == 1;
            let wanted: i32 = (0..lanes.len()).filter(is_set).map(|i| i32::from(lanes[i])).sum();
            for level in Level::available() {
                assert_eq!(kernel(level)(&plane, &lanes), wanted, "{level:?}, {words} words");
            }
        }
    }

    #[test]
    fn the_largest_sum_fits() {
        let words = 65_535usize.div_ceil(WORD);
        let mut lanes = vec![-i16::MAX; words * WORD];
        lanes[65_535..].fill(0);
        for level in Level::available() {
            assert_eq!(kernel(level)(&vec![0xff; words * 4], &lanes), -65_535 * 32_767);
        }
    }
}
