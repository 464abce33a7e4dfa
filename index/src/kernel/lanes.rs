//! What kernels of several files do with the lanes of registers and of arrays.

/// Lanes of f32 in a line of cache.
pub(super) const LANES: usize = 16;

/// The lanes joined pair by pair, those `LANES / 2` apart first: an order that every level keeps.
#[inline(always)]
pub(super) fn by_halves(mut lanes: [f32; LANES], joined: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = joined(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of the lanes, in the order of [`by_halves`].
#[inline(always)]
pub(super) fn sum_by_halves(lanes: [f32; LANES]) -> f32 {
    by_halves(lanes, |x, y| x + y)
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    /// The sum of the eight lanes of a vector.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in super::super) fn sum_lanes(sums: __m256i) -> i32 {
        let halves =
            _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        let quarters = _mm_add_epi32(halves, _mm_shuffle_epi32::<0b01_00_11_10>(halves));
        let whole = _mm_add_epi32(quarters, _mm_shuffle_epi32::<0b10_11_00_01>(quarters));
        _mm_cvtsi128_si32(whole)
    }

    /// The sums of the 16 lanes of each of four vectors, in order.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt,bmi1,bmi2")]
    #[inline]
    pub(in super::super) fn sum_lanes_of_four(sums: [__m512i; 4]) -> __m128i {
        let eighths = sums.map(|sum| {
            let half =
                _mm256_add_epi32(_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum));
            _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
        });
        let pair = |x: __m128i, y: __m128i| {
            _mm_add_epi32(_mm_unpacklo_epi32(x, y), _mm_unpackhi_epi32(x, y))
        };
        let (first, second) = (pair(eighths[0], eighths[1]), pair(eighths[2], eighths[3]));
        _mm_add_epi32(_mm_unpacklo_epi64(first, second), _mm_unpackhi_epi64(first, second))
    }
}
