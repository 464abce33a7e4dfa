//! Loops over the lanes of full vectors, the same bits on every level: a build depends on them.

use half::f16;
use half::slice::HalfFloatSliceExt;

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

/// Sums `term(x, y)` over an f16 row and an f32 vector, a block of widened numbers at a time.
#[inline(always)]
fn sum_widened(x: &[f16], y: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    assert_eq!(x.len(), y.len(), "dimension mismatch");
    let mut lanes = [0.0f32; LANES];
    for (x, y) in x.chunks(LANES * 4).zip(y.chunks(LANES * 4)) {
        let mut wide = [0.0f32; LANES * 4];
        x.convert_to_f32_slice(&mut wide[..x.len()]);
        for (x, y) in wide[..x.len()].chunks(LANES).zip(y.chunks(LANES)) {
            for (lane, (x, y)) in lanes.iter_mut().zip(x.iter().zip(y)) {
                *lane += term(*x, *y);
            }
        }
    }
    sum_by_halves(lanes)
}

#[inline(always)]
fn dot_f16_text(x: &[f16], y: &[f32]) -> f32 {
    sum_widened(x, y, |x, y| x * y)
}

#[inline(always)]
fn l2_f16_text(x: &[f16], y: &[f32]) -> f32 {
    sum_widened(x, y, |x, y| (x - y) * (x - y))
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
