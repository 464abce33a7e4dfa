//! A seeded random rotation: spreads every direction of the data evenly over the code's dimensions.
//!
//! Rounds of random signs and a fast Hadamard transform. Where the dimension is no power of two the
//! transform covers its largest power of two, in turn from the front and from the back, and pairs
//! of dimensions half the length apart are mixed in between. `O(d log d)`, no matrix.

use foveal_datasets::seeded::Seeded;

use crate::kernel::float;

const ROUNDS: usize = 4;

#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    dim: usize,
    /// `[ROUNDS x dim]` of +1 and -1, the transform's scale included.
    signs: Vec<f32>,
}

impl Rotation {
    /// The rotation of `dim` dimensions that a seed stands for.
    pub(crate) fn new(dim: usize, seed: u64) -> Rotation {
        let mut random = Seeded::new(seed);
        let block = block_of(dim);
        let scale = 1.0 / (block as f32).sqrt();
        let mut signs = Vec::with_capacity(ROUNDS * dim);
        for round in 0..ROUNDS {
            let covered = covered(dim, block, round);
            for i in 0..dim {
                let sign = if random.next_u64() >> 63 == 0 { 1.0 } else { -1.0 };
                signs.push(if covered.contains(&i) { sign * scale } else { sign });
            }
        }
        Rotation { dim, signs }
    }

    /// Rotates a vector in place; its norm stays, but for rounding. Panics if the length differs.
    pub(crate) fn apply(&self, vector: &mut [f32]) {
        assert_eq!(vector.len(), self.dim, "dimension mismatch");
        let block = block_of(self.dim);
        for (round, signs) in self.signs.chunks_exact(self.dim).enumerate() {
            vector.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
            float::hadamard(&mut vector[covered(self.dim, block, round)]);
            if block < self.dim {
                mix_halves(vector);
            }
        }
    }
}

/// The largest power of two that a Hadamard transform can cover.
fn block_of(dim: usize) -> usize {
    1 << dim.ilog2()
}

fn covered(dim: usize, block: usize, round: usize) -> std::ops::Range<usize> {
    if round.is_multiple_of(2) { 0..block } else { dim - block..dim }
}

/// Turns each pair of dimensions half the length apart by 45 degrees.
fn mix_halves(vector: &mut [f32]) {
    let half = vector.len() / 2;
    let (front, back) = vector.split_at_mut(half);
    for (x, y) in front.iter_mut().zip(back) {
        let scale = std::f32::consts::FRAC_1_SQRT_2;
        (*x, *y) = ((*x + *y) * scale, (*x - *y) * scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_survive_a_rotation() {
        let mut random = Seeded::new(5);
        for dim in [1, 2, 3, 5, 8, 31, 100, 128, 384, 960] {
            let rotation = Rotation::new(dim, 9);
            let mut pair: [Vec<f32>; 2] =
                std::array::from_fn(|_| (0..dim).map(|_| random.gaussian()).collect());
            let before = float::dot(&pair[0], &pair[1]);
            pair.iter_mut().for_each(|vector| rotation.apply(vector));
            let after = float::dot(&pair[0], &pair[1]);
            assert!((before - after).abs() < 1e-4 * dim as f32, "dim {dim}: {before} {after}");
        }
    }

    /// One hot dimension must not stay hot, or the code wastes its levels.
    #[test]
    fn a_single_dimension_is_spread() {
        for dim in [64, 100, 128, 384, 1000] {
            for hot in [0, dim / 2, dim - 1] {
                let mut vector = vec![0.0; dim];
                vector[hot] = 1.0;
                Rotation::new(dim, 1).apply(&mut vector);
                let largest = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                assert!(largest < 6.0 / (dim as f32).sqrt(), "dim {dim} hot {hot}: {largest}");
            }
        }
    }
}
