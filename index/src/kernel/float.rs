//! Loops over the lanes of full vectors, the same bits on every level: a build depends on them.

use half::f16;

use super::lanes::{LANES, by_halves, sum_by_halves};
use super::level::{Level, for_every_level};

/// The nearest whole number, ties to even, of a number below 2^22: adding and taking off 1.5 * 2^23
/// rounds, and unlike a call of the C library runs on lanes.
#[inline(always)]
pub(crate) fn whole(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND) - ROUND
}

/// The step with which the largest coordinate is `steps` steps away from 0; 1 for a zero vector.
pub(crate) fn step_of(vector: &[f32], steps: f32) -> f32 {
    let step = largest_size(vector) / steps;
    if (1.0 / step).is_finite() { step } else { 1.0 }
}

for_every_level! {
    /// The largest of the sizes of some numbers, 0 of none.
    largest_size, largest_size_text, (values: &[f32]) -> f32
}
for_every_level! {
    /// The inner product of two vectors. Panics if the lengths differ.
    dot, dot_text, (x: &[f32], y: &[f32]) -> f32
}
for_every_level! {
    /// The squared norm of a vector in f64.
    square, square_text, (x: &[f32]) -> f64
}
for_every_level! {
    /// Half the squared L2 distance of `x` times the first of `scales` and `y` times the second, in
    /// f64. Panics if the lengths differ.
    half_l2_scaled, half_l2_scaled_text, (x: &[f32], y: &[f32], scales: [f64; 2]) -> f64
}
for_every_level! {
    /// The squared L2 distance of two vectors. Panics if the lengths differ.
    l2, l2_text, (x: &[f32], y: &[f32]) -> f32
}
for_every_level! {
    /// The inner product of two vectors in f64: products are exact, their sum nearly. Panics if the
    /// lengths differ.
    dot_in_f64, dot_in_f64_text, (x: &[f32], y: &[f32]) -> f64
}
for_every_level! {
    /// The inner product of an f16 row and an f32 vector, in f32. Panics if the lengths differ.
    dot_f16, dot_f16_text, (x: &[f16], y: &[f32]) -> f32
}
for_every_level! {
    /// The squared L2 distance of an f16 row and an f32 vector, in f32. Panics if the lengths
    /// differ.
    l2_f16, l2_f16_text, (x: &[f16], y: &[f32]) -> f32
}
for_every_level! {
    /// The inner product of a row of bf16, as bits, and an f32 vector, in f32. Panics if the
    /// lengths differ.
    dot_bf16, dot_bf16_text, (x: &[u16], y: &[f32]) -> f32
}
for_every_level! {
    /// The squared L2 distance of a row of bf16, as bits, and an f32 vector, in f32. Panics if the
    /// lengths differ.
    l2_bf16, l2_bf16_text, (x: &[u16], y: &[f32]) -> f32
}
for_every_level! {
    /// The stages of a Hadamard transform that pair numbers `half` or more apart.
    hadamard_from, hadamard_from_text, (values: &mut [f32], half: usize)
}

/// The Hadamard transform in place, not scaled. Panics unless the length is a power of two.
pub(crate) fn hadamard(values: &mut [f32]) {
    assert!(values.len().is_power_of_two(), "a power of two");
    #[cfg(target_arch = "x86_64")]
    if Level::in_use() >= Level::Avx512 && values.len() >= LANES {
        // SAFETY: a level in use is never above the best one of this CPU.
        unsafe { hadamard_of_sixteens(values) };
        return hadamard_from(values, LANES);
    }
    hadamard_from(values, 1);
}

/// The stages that pair numbers less than 16 apart, of whole sixteens: on registers, where plain
/// loops over so short distances become gathers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn hadamard_of_sixteens(values: &mut [f32]) {
    use std::arch::x86_64::*;
    for block in values.as_chunks_mut::<LANES>().0 {
        // SAFETY: a block is 16 numbers.
        let mut x = unsafe { _mm512_loadu_ps(block.as_ptr()) };
        // A lane meets the one whose number differs in one bit; where its own bit is set, it is
        // taken from that.
        let other = _mm512_permute_ps::<0b10_11_00_01>(x);
        x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0xaaaa, other, x);
        let other = _mm512_permute_ps::<0b01_00_11_10>(x);
        x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0xcccc, other, x);
        let other = _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x);
        x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0xf0f0, other, x);
        let other = _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x);
        x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0xff00, other, x);
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(block.as_mut_ptr(), x) };
    }
}

for_every_level! {
    /// The squared L2 distance of two byte rows, exact. Panics if the lengths differ.
    l2_u8, l2_u8_text, (x: &[u8], y: &[u8]) -> u64
}
for_every_level! {
    /// The inner product of two byte rows, exact. Panics if the lengths differ.
    dot_u8, dot_u8_text, (x: &[u8], y: &[u8]) -> u64
}

for_every_level! {
    /// Adds `scale` times `row` to `sums`. Panics if the lengths differ.
    add_scaled, add_scaled_text, (sums: &mut [f32], row: &[f32], scale: f32)
}
/// Bytes whose products fit a signed 32-bit sum.
const BYTE_BLOCK: usize = 16_384;

#[inline(always)]
fn sum_bytes(x: &[u8], y: &[u8], term: impl Fn(i16, i16) -> i32) -> u64 {
    assert_eq!(x.len(), y.len(), "dimension mismatch");
    let blocks = x.chunks(BYTE_BLOCK).zip(y.chunks(BYTE_BLOCK));
    let sum_block = |(x, y): (&[u8], &[u8])| -> i32 {
        x.iter().zip(y).map(|(x, y)| term(i16::from(*x), i16::from(*y))).sum()
    };
    blocks.map(|block| sum_block(block) as u64).sum()
}

#[inline(always)]
fn l2_u8_text(x: &[u8], y: &[u8]) -> u64 {
    sum_bytes(x, y, |x, y| i32::from(x - y) * i32::from(x - y))
}

#[inline(always)]
fn dot_u8_text(x: &[u8], y: &[u8]) -> u64 {
    sum_bytes(x, y, |x, y| i32::from(x) * i32::from(y))
}

#[inline(always)]
fn largest_size_text(values: &[f32]) -> f32 {
    let larger = |x: f32, y: f32| if y.abs() > x { y.abs() } else { x };
    let (blocks, tail) = values.as_chunks::<LANES>();
    let largest = |most: [f32; LANES], block: &[f32; LANES]| {
        std::array::from_fn(|i| larger(most[i], block[i]))
    };
    let most = by_halves(blocks.iter().fold([0.0f32; LANES], largest), larger);
    tail.iter().fold(most, |most, x| larger(most, *x))
}

#[inline(always)]
fn dot_text(x: &[f32], y: &[f32]) -> f32 {
    sum(x, y, |x| x, |x, y| x * y)
}

/// Sums `term(x, y)` over two vectors in f64.
#[inline(always)]
fn sum_in_double(x: &[f32], y: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    assert_eq!(x.len(), y.len(), "dimension mismatch");
    let ((x_blocks, x_tail), (y_blocks, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut lanes = [0.0f64; LANES];
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for i in 0..LANES {
            lanes[i] += term(f64::from(x[i]), f64::from(y[i]));
        }
    }
    for (i, (x, y)) in x_tail.iter().zip(y_tail).enumerate() {
        lanes[i] += term(f64::from(*x), f64::from(*y));
    }
    lanes.iter().sum()
}

#[inline(always)]
fn dot_in_f64_text(x: &[f32], y: &[f32]) -> f64 {
    sum_in_double(x, y, |x, y| x * y)
}

#[inline(always)]
fn square_text(x: &[f32]) -> f64 {
    sum_in_double(x, x, |x, _| x * x)
}

#[inline(always)]
fn half_l2_scaled_text(x: &[f32], y: &[f32], [one, other]: [f64; 2]) -> f64 {
    0.5 * sum_in_double(x, y, |x, y| {
        let apart = x * one - y * other;
        apart * apart
    })
}

/// Sums `term(x, y)` over a row, whose numbers are `widened`, and an f32 vector.
#[inline(always)]
fn sum<T: Copy>(
    x: &[T],
    y: &[f32],
    widened: impl Fn(T) -> f32,
    term: impl Fn(f32, f32) -> f32,
) -> f32 {
    assert_eq!(x.len(), y.len(), "dimension mismatch");
    // Four sums a lane: one after the other would wait for each addition.
    let (x_blocks, x_rest) = x.as_chunks::<{ 4 * LANES }>();
    let (y_blocks, y_rest) = y.as_chunks::<{ 4 * LANES }>();
    let mut sums = [[0.0f32; LANES]; 4];
    let add = |sum: &mut [f32; LANES], x: &[T; LANES], y: &[f32; LANES]| {
        for i in 0..LANES {
            sum[i] += term(widened(x[i]), y[i]);
        }
    };
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        let (x, y) = (x.as_chunks::<LANES>().0, y.as_chunks::<LANES>().0);
        for part in 0..4 {
            add(&mut sums[part], &x[part], &y[part]);
        }
    }
    let (x_parts, x_tail) = x_rest.as_chunks::<LANES>();
    let (y_parts, y_tail) = y_rest.as_chunks::<LANES>();
    // Sums stay in registers where their numbers are constants.
    for part in 0..3 {
        if part < x_parts.len() {
            add(&mut sums[part], &x_parts[part], &y_parts[part]);
        }
    }
    let mut tail = [0.0f32; 4];
    let (x_fours, x_last) = x_tail.as_chunks::<4>();
    let (y_fours, y_last) = y_tail.as_chunks::<4>();
    for (x, y) in x_fours.iter().zip(y_fours) {
        for i in 0..4 {
            tail[i] += term(widened(x[i]), y[i]);
        }
    }
    let mut last = 0.0;
    for (x, y) in x_last.iter().zip(y_last) {
        last += term(widened(*x), *y);
    }
    let [mut all, b, c, d] = sums;
    for i in 0..LANES {
        all[i] = (all[i] + b[i]) + (c[i] + d[i]);
    }
    let [p, q, r, s] = tail;
    sum_by_halves(all) + (((p + r) + (q + s)) + last)
}

/// A finite f16 in f32, exactly: on lanes, unlike a call. Its exponent, read as that of an f32, is
/// 112 too small.
#[inline(always)]
fn widen_f16(x: f16) -> f32 {
    const POWER_112: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(x.to_bits());
    let size = f32::from_bits((bits & 0x7fff) << 13) * POWER_112;
    f32::from_bits(size.to_bits() | (bits & 0x8000) << 16)
}

#[inline(always)]
fn widen_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

#[inline(always)]
fn l2_text(x: &[f32], y: &[f32]) -> f32 {
    sum(x, y, |x| x, |x, y| (x - y) * (x - y))
}

#[inline(always)]
fn dot_f16_text(x: &[f16], y: &[f32]) -> f32 {
    sum(x, y, widen_f16, |x, y| x * y)
}

#[inline(always)]
fn l2_f16_text(x: &[f16], y: &[f32]) -> f32 {
    sum(x, y, widen_f16, |x, y| (x - y) * (x - y))
}

#[inline(always)]
fn dot_bf16_text(x: &[u16], y: &[f32]) -> f32 {
    sum(x, y, widen_bf16, |x, y| x * y)
}

#[inline(always)]
fn l2_bf16_text(x: &[u16], y: &[f32]) -> f32 {
    sum(x, y, widen_bf16, |x, y| (x - y) * (x - y))
}

#[inline(always)]
fn add_scaled_text(sums: &mut [f32], row: &[f32], scale: f32) {
    assert_eq!(sums.len(), row.len(), "dimension mismatch");
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += scale * x);
}

#[inline(always)]
fn hadamard_from_text(values: &mut [f32], mut half: usize) {
    while half < values.len() {
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (x, y) in low.iter_mut().zip(high) {
                (*x, *y) = (*x + *y, *x - *y);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    #[test]
    fn every_finite_f16_is_widened_exactly() {
        let all = (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite());
        all.for_each(|x| assert_eq!(widen_f16(x).to_bits(), x.to_f32().to_bits(), "{x:?}"));
    }

    #[test]
    fn products_agree_with_f64() {
        let mut random = Seeded::new(11);
        for dim in [0, 1, 15, 16, 17, 63, 64, 65, 768] {
            let x: Vec<f16> = (0..dim).map(|_| f16::from_f32(random.gaussian())).collect();
            let wide: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
            let y: Vec<f32> = (0..dim).map(|_| random.gaussian()).collect();
            let pairs = || wide.iter().zip(&y).map(|(x, y)| (f64::from(*x), f64::from(*y)));
            let product: f64 = pairs().map(|(x, y)| x * y).sum();
            let squares: f64 = pairs().map(|(x, y)| (x - y) * (x - y)).sum();
            assert!((f64::from(dot(&wide, &y)) - product).abs() < 1e-3, "dim {dim}");
            assert!((f64::from(dot_f16(&x, &y)) - product).abs() < 1e-3, "dim {dim}");
            assert!((f64::from(l2_f16(&x, &y)) - squares).abs() < 2e-3, "dim {dim}");
            assert_eq!(l2(&wide, &y).to_bits(), l2_f16(&x, &y).to_bits());
            assert_eq!(l2(&wide, &y).to_bits(), l2_text(&wide, &y).to_bits());
            let half = half_l2_scaled(&wide, &y, [1.0, 1.0]);
            assert!((2.0 * half - squares).abs() < 1e-9 && square(&y) >= 0.0, "dim {dim}");
            // The level in use gives the bits of the plain text.
            let scales = [0.3, 0.7];
            let plain = half_l2_scaled_text(&wide, &y, scales);
            assert_eq!(half_l2_scaled(&wide, &y, scales).to_bits(), plain.to_bits());
            assert_eq!(square(&y).to_bits(), square_text(&y).to_bits());
            assert_eq!(dot(&wide, &y).to_bits(), dot_text(&wide, &y).to_bits());
            assert_eq!(dot_f16(&x, &y).to_bits(), dot_f16_text(&x, &y).to_bits());
            let brief: Vec<u16> = wide.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
            let wide: Vec<f32> =
                brief.iter().map(|x| f32::from_bits(u32::from(*x) << 16)).collect();
            let pairs = || wide.iter().zip(&y).map(|(x, y)| (f64::from(*x), f64::from(*y)));
            let product: f64 = pairs().map(|(x, y)| x * y).sum();
            let squares: f64 = pairs().map(|(x, y)| (x - y) * (x - y)).sum();
            assert!((f64::from(dot_bf16(&brief, &y)) - product).abs() < 1e-3, "dim {dim}");
            assert!((f64::from(l2_bf16(&brief, &y)) - squares).abs() < 2e-3, "dim {dim}");
            assert_eq!(dot_bf16(&brief, &y).to_bits(), dot_bf16_text(&brief, &y).to_bits());
        }
    }

    #[test]
    fn byte_sums_are_exact() {
        let mut random = Seeded::new(13);
        for dim in [0, 1, 31, 32, 33, 128, 960, 16_384, 40_000] {
            let x: Vec<u8> = (0..dim).map(|_| random.next_u64() as u8).collect();
            let y: Vec<u8> = (0..dim).map(|_| random.next_u64() as u8 | 0xc0).collect();
            let pairs = || x.iter().zip(&y).map(|(x, y)| (i64::from(*x), i64::from(*y)));
            let squares: i64 = pairs().map(|(x, y)| (x - y) * (x - y)).sum();
            let product: i64 = pairs().map(|(x, y)| x * y).sum();
            assert_eq!((l2_u8(&x, &y), dot_u8(&x, &y)), (squares as u64, product as u64));
            assert_eq!((l2_u8_text(&x, &y), dot_u8_text(&x, &y)), (squares as u64, product as u64));
        }
    }

    #[test]
    fn hadamard_twice_gives_the_vector_times_its_length() {
        let mut random = Seeded::new(12);
        for dim in [1usize, 2, 8, 16, 128] {
            let vector: Vec<f32> = (0..dim).map(|_| random.gaussian()).collect();
            let (mut twice, mut twin) = (vector.clone(), vector.clone());
            hadamard(&mut twice);
            hadamard_from_text(&mut twin, 1);
            assert_eq!(twice, twin, "levels");
            hadamard(&mut twice);
            for (x, y) in vector.iter().zip(&twice) {
                assert!((x * dim as f32 - y).abs() < 1e-3, "dim {dim}");
            }
        }
    }
}
