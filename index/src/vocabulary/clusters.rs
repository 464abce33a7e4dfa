//! Which tokens are alike: k-means over all coordinates of y, and `<m, x>` beside them.

use foveal_datasets::Rows;
use foveal_datasets::synthetic::Seeded;
use rayon::prelude::*;

use crate::kernel::float;

/// Most clusters.
pub(super) const MOST: usize = 1024;
/// Tokens a cluster, on average.
const TOKENS: usize = 64;
/// Rounds of k-means (Lloyd's).
const ROUNDS: usize = 5;

/// How many clusters `tokens` tokens are parted in.
pub(super) fn count(tokens: usize) -> usize {
    (tokens / TOKENS).clamp(1, MOST)
}

/// `[n x (dim + 1)]`: y of each row of `sample` (`mapped`, `[n x dim]`), then `<m, x>`.
pub(super) fn points(sample: &Rows, mean: &[f32], mapped: &[f32]) -> Vec<f32> {
    let dim = mean.len();
    let mut points = Vec::with_capacity(sample.len() * (dim + 1));
    let mut wide = vec![0.0; dim];
    for (row, y) in sample.iter().zip(mapped.chunks_exact(dim)) {
        row.widen_into(&mut wide);
        points.extend_from_slice(y);
        points.push(float::dot(mean, &wide));
    }
    points
}

/// The means of `count` clusters of points (`[n x dim]`): `[count x dim]`.
pub(super) fn means(points: &[f32], dim: usize, count: usize, seed: u64) -> Vec<f32> {
    let n = points.len() / dim;
    let mut random = Seeded::new(seed);
    let mut rows: Vec<usize> = (0..n).collect();
    random.shuffle(&mut rows);
    let start = |i: usize| points[rows[i % n] * dim..][..dim].iter().copied();
    let mut means: Vec<f32> = (0..count).flat_map(start).collect();
    for _ in 0..ROUNDS {
        let squares = squares(&means, dim);
        let nearest: Vec<u32> =
            points.par_chunks_exact(dim).map(|y| nearest(y, &means, &squares)).collect();
        let mut sums = vec![0.0f64; count * dim];
        let mut counts = vec![0u32; count];
        for (y, cluster) in points.chunks_exact(dim).zip(nearest) {
            let cluster = cluster as usize;
            counts[cluster] += 1;
            let sums = &mut sums[cluster * dim..][..dim];
            sums.iter_mut().zip(y).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        // A mean that nothing is nearest to stays where it is.
        let means = means.chunks_exact_mut(dim).zip(sums.chunks_exact(dim)).zip(counts);
        for ((mean, sums), count) in means.filter(|(_, count)| *count > 0) {
            let share = 1.0 / f64::from(count);
            mean.iter_mut().zip(sums).for_each(|(x, sum)| *x = (sum * share) as f32);
        }
    }
    means
}

/// The squared norms of vectors (`[n x dim]`).
pub(super) fn squares(vectors: &[f32], dim: usize) -> Vec<f32> {
    vectors.chunks_exact(dim).map(|x| float::dot(x, x)).collect()
}

/// The cluster whose mean is nearest to a point, the first of equals; `squares` are the means'.
pub(super) fn nearest(point: &[f32], means: &[f32], squares: &[f32]) -> u32 {
    let mut best = (f32::INFINITY, 0);
    for (cluster, (mean, square)) in means.chunks_exact(point.len()).zip(squares).enumerate() {
        // The squared distance, but for that of the point to zero.
        let distance = square - 2.0 * float::dot(point, mean);
        if distance < best.0 {
            best = (distance, cluster as u32);
        }
    }
    best.1
}
