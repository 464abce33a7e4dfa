//! Loops over the lanes of full vectors, the same bits on every level: a build depends on them.

use half::f16;

use super::Level;

const LANES: usize = 16;

/// Defines a function whose one text is compiled for every level.
macro_rules! for_every_level {
    ($(#[$doc:meta])* $name:ident, $text:ident, ($($arg:ident: $type:ty),*) $(-> $out:ty)?) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $type),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,f16c")]
                fn avx2($($arg: $type),*) $(-> $out)? {
                    $text($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,f16c")]
                fn avx512($($arg: $type),*) $(-> $out)? {
                    $text($($arg),*)
                }
                match Level::in_use() {
                    // SAFETY: a level in use is never above the best one of this CPU.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Portable => {}
                }
            }
            $text($($arg),*)
        }
    };
}

/// The nearest whole number, ties to even, of a number below 2^22: adding and taking off 1.5 * 2^23
/// rounds, and unlike a call of the C library runs on lanes.
#[inline(always)]
pub(crate) fn whole(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND) - ROUND
}

/// The step with which the largest coordinate is `steps` steps away from 0; 1 for a zero vector.
pub(crate) fn step_of(vector: &[f32], steps: f32) -> f32 {
    let largest = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let step = largest / steps;
    if (1.0 / step).is_finite() { step } else { 1.0 }
}

for_every_level! {
    /// The inner product of two vectors. Panics if the lengths differ.
    dot, dot_text, (x: &[f32], y: &[f32]) -> f32
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
    /// The Hadamard transform in place, not scaled. Panics unless the length is a power of two.
    hadamard, hadamard_text, (values: &mut [f32])
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
for_every_level! {
    /// Adds `weights[i]` times row i of `rows` (`[len(weights) x 16]`) to `sums`, i in order.
    /// Panics if the lengths do not go together.
    weighted_rows, weighted_rows_text, (weights: &[f32], rows: &[f32], sums: &mut [f32; LANES])
}
for_every_level! {
    /// `out[i] = sums[i] * unit + (base + offsets[i])`, with `(base, unit)`. Panics if there are
    /// fewer sums or offsets than places.
    scale_sums, scale_sums_text,
    (sums: &[u32], offsets: &[f32], base_and_unit: (f32, f32), out: &mut [f32])
}
for_every_level! {
    /// The largest of each column of `values` (`[any x len(out)]`). Panics unless rows are whole.
    /// No value may be NaN.
    largest_of_columns, largest_of_columns_text, (values: &[f32], out: &mut [f32])
}
for_every_level! {
    /// `exp((x - shift) * scale)` of each value, and the sum of each 16 of them, the last ones
    /// perhaps fewer; relative errors are below 4e-7, and what is below 1e-37 becomes 0. Panics
    /// unless `out` has a place for each value and `sums` one for each 16.
    exp_of_each, exp_of_each_text,
    (values: &[f32], shift_and_scale: (f32, f32), out: &mut [f32], sums: &mut [f32])
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
fn sum_by_halves(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn dot_text(x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len(), "dimension mismatch");
    let ((x_blocks, x_tail), (y_blocks, y_tail)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    let mut lanes = [0.0f32; LANES];
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    for (i, (x, y)) in x_tail.iter().zip(y_tail).enumerate() {
        lanes[i] += x * y;
    }
    sum_by_halves(lanes)
}

/// Sums `term(x, y)` over a row of 16-bit numbers, as `widened` says, and an f32 vector.
#[inline(always)]
fn sum_widened<T: Copy>(
    x: &[T],
    y: &[f32],
    widened: impl Fn(T) -> f32,
    term: impl Fn(f32, f32) -> f32,
) -> f32 {
    assert_eq!(x.len(), y.len(), "dimension mismatch");
    // Four sums a lane: one after the other would wait for each addition.
    let (x_blocks, x_tail) = x.as_chunks::<{ 4 * LANES }>();
    let (y_blocks, y_tail) = y.as_chunks::<{ 4 * LANES }>();
    let mut lanes = [0.0f32; 4 * LANES];
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        for i in 0..4 * LANES {
            lanes[i] += term(widened(x[i]), y[i]);
        }
    }
    for (i, (x, y)) in x_tail.iter().zip(y_tail).enumerate() {
        lanes[i] += term(widened(*x), *y);
    }
    let [a, b, c, d] = [0, 1, 2, 3].map(|part| part * LANES);
    sum_by_halves(std::array::from_fn(|i| {
        (lanes[a + i] + lanes[b + i]) + (lanes[c + i] + lanes[d + i])
    }))
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
fn dot_f16_text(x: &[f16], y: &[f32]) -> f32 {
    sum_widened(x, y, widen_f16, |x, y| x * y)
}

#[inline(always)]
fn l2_f16_text(x: &[f16], y: &[f32]) -> f32 {
    sum_widened(x, y, widen_f16, |x, y| (x - y) * (x - y))
}

#[inline(always)]
fn dot_bf16_text(x: &[u16], y: &[f32]) -> f32 {
    sum_widened(x, y, widen_bf16, |x, y| x * y)
}

#[inline(always)]
fn l2_bf16_text(x: &[u16], y: &[f32]) -> f32 {
    sum_widened(x, y, widen_bf16, |x, y| (x - y) * (x - y))
}

#[inline(always)]
fn add_scaled_text(sums: &mut [f32], row: &[f32], scale: f32) {
    assert_eq!(sums.len(), row.len(), "dimension mismatch");
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += scale * x);
}

#[inline(always)]
fn weighted_rows_text(weights: &[f32], rows: &[f32], sums: &mut [f32; LANES]) {
    assert_eq!(weights.len() * LANES, rows.len(), "a weight a row");
    for (weight, row) in weights.iter().zip(rows.as_chunks::<LANES>().0) {
        for i in 0..LANES {
            sums[i] += weight * row[i];
        }
    }
}

#[inline(always)]
fn scale_sums_text(sums: &[u32], offsets: &[f32], (base, unit): (f32, f32), out: &mut [f32]) {
    assert!(sums.len() >= out.len() && offsets.len() >= out.len(), "one a place");
    for ((out, sum), offset) in out.iter_mut().zip(sums).zip(offsets) {
        // Sums are far below 2^31, and the signed conversion is one instruction everywhere.
        *out = *sum as i32 as f32 * unit + (base + offset);
    }
}

#[inline(always)]
fn largest_of_columns_text(values: &[f32], out: &mut [f32]) {
    assert!(out.is_empty() || values.len().is_multiple_of(out.len()), "whole rows");
    out.fill(f32::NEG_INFINITY);
    for row in values.chunks_exact(out.len().max(1)) {
        for (most, x) in out.iter_mut().zip(row) {
            *most = if *x > *most { *x } else { *most };
        }
    }
}

#[inline(always)]
fn exp_of_each_text(values: &[f32], (shift, scale): (f32, f32), out: &mut [f32], sums: &mut [f32]) {
    assert_eq!(out.len(), values.len(), "a place for each value");
    assert_eq!(sums.len(), values.len().div_ceil(LANES), "a sum for each sixteen");
    let (whole, rest) = values.as_chunks::<LANES>();
    let (places, last) = out.as_chunks_mut::<LANES>();
    for ((values, places), sum) in whole.iter().zip(places).zip(&mut *sums) {
        for i in 0..LANES {
            places[i] = exp((values[i] - shift) * scale);
        }
        *sum = sum_by_halves(*places);
    }
    if let Some(sum) = sums.get_mut(whole.len()) {
        last.iter_mut().zip(rest).for_each(|(out, x)| *out = exp((x - shift) * scale));
        *sum = last.iter().sum();
    }
}

/// `e^x` for x of at most 0, or little more: 2 to a whole power times a polynomial over the rest.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding and taking off 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: a product of the first with a small integer is exact.
    const LN_2: (f32, f32) = (0.693_145_75, 1.428_606_8e-6);
    // Of the Taylor series, as far as f32 sees on half of ln 2 to either side.
    const TERMS: [f32; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
    let held = if x > -86.0 { x } else { -86.0 };
    let held = if held < 80.0 { held } else { 80.0 };
    let whole = (held * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let rest = held - whole * LN_2.0 - whole * LN_2.1;
    let mut series = TERMS[0];
    for term in &TERMS[1..] {
        series = series * rest + term;
    }
    let power = f32::from_bits(((whole as i32 + 127) as u32) << 23);
    if x > -86.0 { (series * rest + 1.0) * power } else { 0.0 }
}

#[inline(always)]
fn hadamard_text(values: &mut [f32]) {
    assert!(values.len().is_power_of_two(), "a power of two");
    let mut half = 1;
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
    use foveal_datasets::synthetic::Seeded;

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
            // The level in use gives the bits of the plain text.
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
    fn exponentials_agree_with_f64() {
        let values: Vec<f32> = (0..4000).map(|i| 2.0 - i as f32 * 0.02).collect();
        for (shift, scale) in [(0.0, 1.0), (1.5, 0.7), (-3.0, 0.01)] {
            let (mut out, mut sums) = (vec![0.0; values.len()], vec![0.0; values.len() / LANES]);
            exp_of_each(&values, (shift, scale), &mut out, &mut sums);
            for (x, found) in values.iter().zip(&out) {
                let wanted = f64::from((x - shift) * scale).exp();
                assert!((f64::from(*found) / wanted - 1.0).abs() < 4e-7, "exp of {x}: {found}");
            }
            let wanted: f64 = out.iter().map(|x| f64::from(*x)).sum();
            let found: f64 = sums.iter().map(|x| f64::from(*x)).sum();
            assert!((found / wanted - 1.0).abs() < 1e-5);
            let mut twin = vec![0.0; values.len()];
            exp_of_each_text(&values, (shift, scale), &mut twin, &mut sums);
            assert_eq!(twin, out, "levels");
        }
        let mut out = [1.0; 3];
        exp_of_each(&[f32::NEG_INFINITY, -90.0, 0.0], (0.0, 1.0), &mut out, &mut [0.0]);
        assert_eq!(out, [0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_largest_of_each_column() {
        let mut random = Seeded::new(14);
        for (rows, columns) in [(1, 1), (16, 1), (3, 17), (16, 40), (0, 5)] {
            let values: Vec<f32> = (0..rows * columns).map(|_| random.gaussian()).collect();
            let mut found = vec![0.0; columns];
            largest_of_columns(&values, &mut found);
            let column = |j: usize| values.iter().skip(j).step_by(columns).copied();
            let wanted = (0..columns).map(|j| column(j).fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(found, wanted.collect::<Vec<_>>(), "{rows} x {columns}");
        }
    }

    #[test]
    fn weighted_sums_are_those_of_the_plain_loops() {
        let mut random = Seeded::new(15);
        for n in [0, 1, 3, 17] {
            let weights: Vec<f32> = (0..n).map(|_| random.gaussian()).collect();
            let rows: Vec<f32> = (0..n * LANES).map(|_| random.gaussian()).collect();
            let (mut found, mut wanted) = ([0.5; LANES], vec![0.5; LANES]);
            weighted_rows(&weights, &rows, &mut found);
            for (weight, row) in weights.iter().zip(rows.chunks(LANES)) {
                add_scaled(&mut wanted, row, *weight);
            }
            assert_eq!(found.to_vec(), wanted);
        }
        let mut out = [0.0; 2];
        scale_sums(&[3, 4, 9], &[0.5, -1.0], (10.0, 2.0), &mut out);
        assert_eq!(out, [16.5, 17.0]);
    }

    #[test]
    fn hadamard_twice_gives_the_vector_times_its_length() {
        let mut random = Seeded::new(12);
        for dim in [1usize, 2, 16, 128] {
            let vector: Vec<f32> = (0..dim).map(|_| random.gaussian()).collect();
            let mut twice = vector.clone();
            hadamard(&mut twice);
            hadamard(&mut twice);
            for (x, y) in vector.iter().zip(&twice) {
                assert!((x * dim as f32 - y).abs() < 1e-3, "dim {dim}");
            }
        }
    }
}
