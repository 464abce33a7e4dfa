//! Where hidden states point: the axes in which logits differ, and their scales.

use foveal_datasets::Rows;
use nalgebra::DMatrix;
use rayon::prelude::*;

use crate::kernel::float;

/// Of the mean variance of an axis, added to each: axes along which the sample hardly varies are
/// not trusted to be flat.
const SHRINK: f64 = 0.1;
/// The mean is taken to be at most so many times that in which an axis counts as much as rows vary
/// along it: states that reach far where rows hardly differ must not drown all others.
const MOST_WEIGHT: f64 = 4.0;
/// Rows transformed at once, and columns of the matrix that stay in the cache with theirs.
pub(super) const AT_ONCE: usize = 16;
const COLUMNS: usize = 256;
/// Rows of the covariance summed at once, and so many columns of them.
const SUMS_AT_ONCE: usize = 8;
const SUM_COLUMNS: usize = 512;

/// How rows and hidden states are transformed; see the module.
pub(super) struct Mapping {
    /// `[dim]`.
    pub(super) mean: Vec<f32>,
    /// `[dim x dim]`: row i is what coordinate i of `h - m` adds to q.
    pub(super) to_query: Vec<f32>,
    /// `[dim x dim]`: row i is what coordinate i of x adds to y.
    pub(super) to_row: Vec<f32>,
}

impl Mapping {
    /// The axes of hidden states, scaled by how far they reach along each, for rows like `sample`.
    pub(super) fn of_states(hidden: &Rows, sample: &Rows) -> Mapping {
        let (mean, covariance) = moments(hidden);
        let (mut variances, axes) = eigen(hidden.dim(), covariance);
        let average = variances.iter().sum::<f64>() / variances.len() as f64;
        let average = average.min(MOST_WEIGHT * weighted(&variances, &axes, sample));
        // In units of the average: bf16 has the range. A sample that does not vary at all says
        // nothing: every axis counts the same.
        let unit = if average > f64::MIN_POSITIVE { 1.0 / average } else { 0.0 };
        let held = |variance: f64| (variance * unit).max(0.0) + SHRINK;
        variances.iter_mut().for_each(|variance| *variance = held(*variance));
        let scales: Vec<f64> = variances.iter().map(|variance| variance.sqrt()).collect();
        Mapping::new(mean, &axes, &scales)
    }

    /// `axes[i]`: one axis, of length 1.
    fn new(mean: Vec<f32>, axes: &[Vec<f64>], scales: &[f64]) -> Mapping {
        let dim = mean.len();
        let mut to_query = vec![0.0; dim * dim];
        let mut to_row = vec![0.0; dim * dim];
        for (column, (axis, scale)) in axes.iter().zip(scales).enumerate() {
            for (row, x) in axis.iter().enumerate() {
                to_query[row * dim + column] = (x / scale) as f32;
                to_row[row * dim + column] = (x * scale) as f32;
            }
        }
        Mapping { mean, to_query, to_row }
    }

    /// The same with the coordinates of q and y in another order.
    pub(super) fn in_order(self, order: &[usize]) -> Mapping {
        let dim = self.mean.len();
        let sorted = |matrix: &[f32]| super::groups::columns(matrix, dim, order);
        let (to_query, to_row) = (sorted(&self.to_query), sorted(&self.to_row));
        Mapping { mean: self.mean, to_query, to_row }
    }

    /// y of every row, `[n x dim]`.
    pub(super) fn rows(&self, rows: &Rows) -> Vec<f32> {
        let dim = rows.dim();
        let mut mapped = vec![0.0; rows.len() * dim];
        mapped.par_chunks_mut(AT_ONCE * dim).enumerate().for_each(|(i, y)| {
            let mut wide = vec![0.0; y.len()];
            widen(rows, i * AT_ONCE, &mut wide);
            transform(&self.to_row, &wide, y);
        });
        mapped
    }
}

/// Each row of `to` becomes the same row of `x` times `matrix` (`[dim x dim]`): rows of that, times
/// `x[i]`, summed in the order of i. [`AT_ONCE`] rows share what is read of the matrix.
pub(super) fn transform(matrix: &[f32], x: &[f32], to: &mut [f32]) {
    let dim = matrix.len().isqrt();
    assert_eq!(x.len(), to.len(), "rows of one matrix");
    to.fill(0.0);
    for (x, to) in x.chunks(AT_ONCE * dim).zip(to.chunks_mut(AT_ONCE * dim)) {
        for first in (0..dim).step_by(COLUMNS) {
            let columns = first..dim.min(first + COLUMNS);
            for (i, row) in matrix.chunks_exact(dim).enumerate() {
                for (x, to) in x.chunks_exact(dim).zip(to.chunks_exact_mut(dim)) {
                    float::add_scaled(&mut to[columns.clone()], &row[columns.clone()], x[i]);
                }
            }
        }
    }
}

/// The mean of the variances of hidden states along axes, each as much as rows vary along it;
/// infinite where they do not vary at all. `O(n dim^2)`.
fn weighted(variances: &[f64], axes: &[Vec<f64>], sample: &Rows) -> f64 {
    let (_, covariance) = moments(sample);
    let dim = axes.len();
    let along = |axis: &Vec<f64>| -> f64 {
        let rows = covariance.chunks_exact(dim).zip(axis);
        rows.map(|(row, x)| x * row.iter().zip(axis).map(|(c, y)| c * y).sum::<f64>()).sum()
    };
    let spreads: Vec<f64> = axes.par_iter().map(|axis| along(axis).max(0.0)).collect();
    let products: f64 = spreads.iter().zip(variances).map(|(x, v)| x * v).sum();
    let sum: f64 = spreads.iter().sum();
    if sum > 0.0 { products / sum } else { f64::INFINITY }
}

/// Widens the rows from `first` on, as many as fit in `wide`.
pub(super) fn widen(rows: &Rows, first: usize, wide: &mut [f32]) {
    for (i, wide) in wide.chunks_exact_mut(rows.dim()).enumerate() {
        rows.row(first + i).widen_into(wide);
    }
}

/// Mean and covariance of rows, summed in f64 in the order of the rows.
fn moments(rows: &Rows) -> (Vec<f32>, Vec<f64>) {
    let (n, dim) = (rows.len().max(1) as f64, rows.dim());
    let mut centred = vec![0.0f32; rows.len() * dim];
    for (wide, row) in centred.chunks_exact_mut(dim).zip(rows.iter()) {
        row.widen_into(wide);
    }
    let mut sums = vec![0.0f64; dim];
    for row in centred.chunks_exact(dim) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let mean: Vec<f32> = sums.into_iter().map(|sum| (sum / n) as f32).collect();
    for row in centred.chunks_exact_mut(dim) {
        row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
    }
    let mut covariance = vec![0.0f64; dim * dim];
    // Each sum on one thread, in the order of the rows: the same on any number of threads.
    covariance.par_chunks_mut(SUMS_AT_ONCE * dim).enumerate().for_each(|(block, sums)| {
        let first = block * SUMS_AT_ONCE;
        let last = first + sums.len() / dim - 1;
        for start in (0..=last).step_by(SUM_COLUMNS) {
            for row in centred.chunks_exact(dim) {
                for (sums, i) in sums.chunks_exact_mut(dim).zip(first..) {
                    let columns = start..(i + 1).min(start + SUM_COLUMNS).max(start);
                    let x = f64::from(row[i]);
                    let products = sums[columns.clone()].iter_mut().zip(&row[columns]);
                    products.for_each(|(sum, y)| *sum += x * f64::from(*y));
                }
            }
        }
        sums.iter_mut().for_each(|sum| *sum /= n);
    });
    for i in 0..dim {
        for j in i + 1..dim {
            covariance[i * dim + j] = covariance[j * dim + i];
        }
    }
    (mean, covariance)
}

/// Eigenvalues, and the axis of length 1 that belongs to each. `O(dim^3)`.
fn eigen(dim: usize, symmetric: Vec<f64>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let solved = DMatrix::from_vec(dim, dim, symmetric).symmetric_eigen();
    let axes = solved.eigenvectors.column_iter().map(|axis| axis.iter().copied().collect());
    (solved.eigenvalues.iter().copied().collect(), axes.collect())
}

#[cfg(test)]
mod tests {
    use foveal_datasets::Values;
    use foveal_datasets::seeded::Seeded;

    use super::*;

    /// Sizes about the edges of tiles: the same bits as by the loops that say what is meant.
    #[test]
    fn tiles_change_nothing() {
        let mut random = Seeded::new(9);
        for dim in [1, 7, 255, 256, 257, 511, 513, 600] {
            let matrix: Vec<f32> = (0..dim * dim).map(|_| random.gaussian()).collect();
            for n in [1, 15, 16, 17, 40] {
                let x: Vec<f32> = (0..n * dim).map(|_| random.gaussian()).collect();
                let mut transformed = vec![1.0; n * dim];
                transform(&matrix, &x, &mut transformed);
                for (x, found) in x.chunks_exact(dim).zip(transformed.chunks_exact(dim)) {
                    for (column, found) in found.iter().enumerate() {
                        let terms = x.iter().enumerate();
                        let terms = terms.map(|(i, x)| x * matrix[i * dim + column]);
                        assert_eq!(*found, terms.fold(0.0, |sum, term| sum + term), "{dim} {n}");
                    }
                }
            }
            let rows: Vec<f32> = (0..9 * dim).map(|_| random.gaussian()).collect();
            let (mean, covariance) = moments(&Rows::new(dim, Values::F32(rows.clone())).unwrap());
            for i in [0, dim / 2, dim - 1] {
                for j in 0..dim {
                    let of = |row: &[f32], at: usize| f64::from(row[at] - mean[at]);
                    let products = rows.chunks_exact(dim).map(|row| of(row, i) * of(row, j));
                    let wanted = products.fold(0.0, |sum, x| sum + x) / 9.0;
                    assert_eq!(covariance[i * dim + j], wanted, "{dim}: {i}, {j}");
                }
            }
        }
    }
}
