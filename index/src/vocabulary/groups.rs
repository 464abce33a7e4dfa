//! Which coordinates share a code, and the 16 centroids of each group.

use foveal_datasets::seeded::Seeded;
use rayon::prelude::*;

use crate::kernel::lookup::LINE_PARTS;

/// Centroids of a group: what four bits tell apart.
pub(super) const CENTROIDS: usize = 16;
/// Rounds of k-means (Lloyd's).
const ROUNDS: usize = 12;

/// Deals the coordinates of `mapped` (`[n x dim]`) out to groups: from the one that varies most to
/// the one that varies least, each to the group whose product of variances is the smallest so far.
/// Returns all coordinates in the order of the groups, and how many each group has.
pub(super) fn deal(mapped: &[f32], dim: usize, parts: usize) -> (Vec<usize>, Vec<u16>) {
    let variances = variances(mapped, dim);
    let mut by_variance: Vec<usize> = (0..dim).collect();
    by_variance.sort_by(|a, b| variances[*b].total_cmp(&variances[*a]).then(a.cmp(b)));
    let log = |i: usize| variances[i].max(f64::MIN_POSITIVE).ln();
    let least = log(by_variance[dim - 1]);
    let mut groups = vec![(0.0f64, Vec::new()); parts];
    for i in by_variance {
        let smallest = groups.iter_mut().min_by(|a, b| a.0.total_cmp(&b.0));
        let (product, members) = smallest.expect("at least one group");
        // Taken from the least variance on, so that each coordinate makes its group larger.
        *product += log(i) - least + 1e-3;
        members.push(i);
    }
    let sizes = groups.iter().map(|(_, members)| members.len() as u16).collect();
    (groups.into_iter().flat_map(|(_, members)| members).collect(), sizes)
}

/// Sizes of groups of twice the coordinates: each of two groups in a row. A whole number of lines
/// of them, the last ones perhaps empty.
pub(super) fn pairs_of(sizes: &[u16]) -> Vec<u16> {
    let mut pairs: Vec<u16> = sizes.chunks(2).map(|pair| pair.iter().sum()).collect();
    pairs.resize(pairs.len().next_multiple_of(LINE_PARTS), 0);
    pairs
}

fn variances(mapped: &[f32], dim: usize) -> Vec<f64> {
    let n = (mapped.len() / dim).max(1) as f64;
    let (mut sums, mut squares) = (vec![0.0f64; dim], vec![0.0f64; dim]);
    for row in mapped.chunks_exact(dim) {
        for (i, x) in row.iter().enumerate() {
            sums[i] += f64::from(*x);
            squares[i] += f64::from(*x) * f64::from(*x);
        }
    }
    let pairs = sums.into_iter().zip(squares);
    pairs.map(|(sum, square)| (square / n - (sum / n) * (sum / n)).max(0.0)).collect()
}

/// The columns of a matrix (`[any x dim]`) in another order.
pub(super) fn columns(matrix: &[f32], dim: usize, order: &[usize]) -> Vec<f32> {
    let mut sorted = Vec::with_capacity(matrix.len());
    for row in matrix.chunks_exact(dim) {
        sorted.extend(order.iter().map(|column| row[*column]));
    }
    sorted
}

/// The centroids of each group by k-means over `mapped` (`[n x dim]`, coordinates in the order of
/// the groups): `[dim x 16]`.
pub(super) fn centroids(mapped: &[f32], dim: usize, sizes: &[u16], seed: u64) -> Vec<f32> {
    let mut starts = Vec::with_capacity(sizes.len());
    let mut next = 0;
    for size in sizes {
        starts.push(next);
        next += usize::from(*size);
    }
    let groups: Vec<Vec<f32>> = starts
        .into_par_iter()
        .zip(sizes)
        .enumerate()
        .map(|(group, (start, size))| {
            let size = usize::from(*size);
            let points: Vec<f32> = mapped
                .chunks_exact(dim)
                .flat_map(|row| row[start..start + size].iter().copied())
                .collect();
            k_means(&points, size, seed ^ group as u64)
        })
        .collect();
    groups.concat()
}

/// `[size x 16]`: coordinate i of all centroids, of points (`[n x size]`).
fn k_means(points: &[f32], size: usize, seed: u64) -> Vec<f32> {
    if size == 0 {
        return Vec::new();
    }
    let n = points.len() / size;
    let mut random = Seeded::new(seed);
    let mut centroids = vec![0.0f32; size * CENTROIDS];
    for c in 0..CENTROIDS {
        let point = (random.next_u64() % n as u64) as usize;
        for i in 0..size {
            centroids[i * CENTROIDS + c] = points[point * size + i];
        }
    }
    for _ in 0..ROUNDS {
        let mut sums = vec![0.0f64; size * CENTROIDS];
        let mut counts = [0u32; CENTROIDS];
        for point in points.chunks_exact(size) {
            let c = nearest(point, &centroids);
            counts[c] += 1;
            for (i, x) in point.iter().enumerate() {
                sums[i * CENTROIDS + c] += f64::from(*x);
            }
        }
        for (at, (centroid, sum)) in centroids.iter_mut().zip(sums).enumerate() {
            // A centroid that nothing is nearest to stays where it is.
            if counts[at % CENTROIDS] > 0 {
                *centroid = (sum / f64::from(counts[at % CENTROIDS])) as f32;
            }
        }
    }
    centroids
}

/// The centroid nearest to a point, the first of equals. `centroids` is `[len(point) x 16]`.
#[inline]
pub(super) fn nearest(point: &[f32], centroids: &[f32]) -> usize {
    let mut distances = [0.0f32; CENTROIDS];
    for (x, coordinates) in point.iter().zip(centroids.as_chunks::<CENTROIDS>().0) {
        for (distance, y) in distances.iter_mut().zip(coordinates) {
            *distance += (x - y) * (x - y);
        }
    }
    let mut best = 0;
    for c in 1..CENTROIDS {
        if distances[c] < distances[best] {
            best = c;
        }
    }
    best
}
