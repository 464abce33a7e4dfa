//! The axes along which rows differ most, and how many of them a 2-bit code keeps.
//!
//! A line of cache holds 240 dimensions of 2 bits beside a code's factors. Rows of many dimensions
//! mostly differ along fewer: the code keeps the residual's coordinates along the leading axes of
//! the sample's covariance, rotated at random among themselves so that all weigh the same. What
//! lies beyond the axes is lost; the factor a, `|r|^2 / <u, r>` with all of r, expects it to be
//! like the rest.
//!
//! The axes are the rows of an 8-bit matrix, nearly of length 1 and nearly at right angles: rows
//! and queries see the same matrix, so what it lacks costs no accuracy.

use std::ops::Range;

use foveal_datasets::Rows;
use foveal_datasets::seeded::Seeded;
use rayon::prelude::*;

use super::rotation::Rotation;
use super::trial::{ENOUGH, Trial};
use super::{Quantizer, QuantizerSpec};
use crate::kernel::byte_matrix::ByteMatrix;
use crate::kernel::float::{step_of, whole};
use crate::kernel::{LINE, float};

/// Dimensions that a line of 2-bit codes holds.
const DIMS_A_LINE: usize = 4 * LINE;
/// Places that the factors take from the last line.
const FACTOR_DIMS: usize = 16;
/// Rows that axes are learned from, at most.
const LEARNED_FROM: usize = 4096;
/// Times that the axes are multiplied by the covariance: more only tell apart axes of nearly the
/// same weight.
const ROUNDS: usize = 6;
/// What a sample must find by codes of the leading axes, for those to do.
const TRIAL: Trial = Trial { rows: 8000, within: 40 };

/// With more dimensions than these no axes are learned: their covariance would take too much.
const MOST_DIMS: usize = 4096;
/// Codes of more lines than these are of all dimensions.
const MOST_LINES: usize = 3;

/// The lengths of codes, in lines, that are tried before one of all of `dim` dimensions.
fn lines_tried(dim: usize) -> Range<usize> {
    let most = if dim > MOST_DIMS { 1 } else { lines_of(dim).min(MOST_LINES + 1) };
    1..most
}

/// The most bytes that learning axes takes.
pub(crate) fn learning_bytes(dim: usize) -> usize {
    let numbers = dim * dim + 2 * LEARNED_FROM * dim + 4 * dims_in(MOST_LINES) * dim;
    if lines_tried(dim).is_empty() { 0 } else { numbers * size_of::<f32>() }
}

/// Dimensions that 2-bit codes of `lines` lines hold.
pub(super) fn dims_in(lines: usize) -> usize {
    lines * DIMS_A_LINE - FACTOR_DIMS
}

/// Lines of 2-bit codes of `dims` dimensions.
pub(crate) fn lines_of(dims: usize) -> usize {
    (dims + FACTOR_DIMS).div_ceil(DIMS_A_LINE)
}

/// The axes of a spec.
pub(super) fn of(spec: &QuantizerSpec) -> ByteMatrix {
    let dim = spec.mean.len();
    let mut matrix = ByteMatrix::new(dim);
    for axis in spec.axes.chunks_exact(dim) {
        matrix.push(axis.iter().copied(), spec.axes_unit);
    }
    matrix
}

/// The same, `[axes x dim]`.
pub(super) fn wide(spec: &QuantizerSpec) -> Vec<f32> {
    spec.axes.iter().map(|x| f32::from(*x) * spec.axes_unit).collect()
}

/// The coordinates of `vector` along the rows of `matrix`.
pub(super) fn along(matrix: &[f32], vector: &[f32], out: &mut [f32]) {
    let axes = matrix.chunks_exact(vector.len());
    out.iter_mut().zip(axes).for_each(|(out, axis)| *out = float::dot(axis, vector));
}

impl Quantizer {
    /// A 2-bit quantizer of as few lines as will do for the sample: `spec` says the rest. Queries
    /// like `sample_queries` are to be answered; without them, queries like the rows.
    pub(super) fn two_bits(
        &self,
        spec: QuantizerSpec,
        (sample, sample_queries): (&Rows, Option<&Rows>),
    ) -> Quantizer {
        let of = |spec| Quantizer::from_spec(self.metric, self.element, spec);
        let all = of(spec.clone());
        let tried = lines_tried(self.dim);
        if tried.is_empty() {
            return all;
        }
        let covariance = covariance(all.residuals(sample), self.dim);
        for lines in tried {
            let mut spec = spec.clone();
            learn(&covariance, self.dim, dims_in(lines), &mut spec);
            let quantizer = of(spec);
            if quantizer.share_found(&TRIAL, (sample, sample_queries)) >= ENOUGH {
                return quantizer;
            }
        }
        all
    }

    /// Residuals of rows of the sample, not transformed: `[rows x dim]`.
    fn residuals(&self, sample: &Rows) -> Vec<f32> {
        let rows = sample.len().min(LEARNED_FROM);
        let mut residuals = vec![0.0; rows * self.dim];
        for (i, residual) in residuals.chunks_exact_mut(self.dim).enumerate() {
            sample.row(i).widen_into(residual);
            super::encode::to_search_space(self.metric, residual);
            residual.iter_mut().zip(&self.spec.mean).for_each(|(x, mean)| *x -= mean);
        }
        residuals
    }
}

/// `[dim x dim]`, of residuals `[rows x dim]`; not divided by their number. Each sum is one
/// product of two columns: the same on any number of threads.
fn covariance(residuals: Vec<f32>, dim: usize) -> Vec<f32> {
    let rows = residuals.len() / dim;
    let mut columns = vec![0.0; residuals.len()];
    for (row, residual) in residuals.chunks_exact(dim).enumerate() {
        residual.iter().enumerate().for_each(|(i, x)| columns[i * rows + row] = *x);
    }
    drop(residuals);
    // Of numbers of any size: products of them stay within f32.
    let unit = step_of(&columns, 1.0);
    columns.iter_mut().for_each(|x| *x /= unit);
    let mut covariance = vec![0.0; dim * dim];
    covariance.par_chunks_exact_mut(dim).enumerate().for_each(|(i, out)| {
        along(&columns, &columns[i * rows..][..rows], out);
    });
    covariance
}

/// Notes the `count` leading axes of a covariance in a spec: the subspace that multiplying by it
/// turns random vectors to.
fn learn(covariance: &[f32], dim: usize, count: usize, spec: &mut QuantizerSpec) {
    let mut random = Seeded::new(spec.seed);
    let mut axes: Vec<f32> = (0..count * dim).map(|_| random.gaussian()).collect();
    orthonormalise(&mut axes, dim);
    for _ in 0..ROUNDS {
        let mut next = vec![0.0; axes.len()];
        next.par_chunks_exact_mut(dim).zip(axes.par_chunks_exact(dim)).for_each(|(next, axis)| {
            along(covariance, axis, next);
        });
        axes = next;
        orthonormalise(&mut axes, dim);
    }
    let rotation = Rotation::new(count, spec.seed);
    let mut column = vec![0.0; count];
    for i in 0..dim {
        column.iter_mut().enumerate().for_each(|(axis, x)| *x = axes[axis * dim + i]);
        rotation.apply(&mut column);
        column.iter().enumerate().for_each(|(axis, x)| axes[axis * dim + i] = *x);
    }
    spec.axes_unit = step_of(&axes, 127.0);
    let unit = spec.axes_unit;
    spec.axes = axes.iter().map(|x| whole(x / unit) as i8).collect();
    spec.axes_scale = axes_scale_of(spec, dim);
}

/// Makes the rows of `axes` have length 1 and stand at right angles, in order, twice because of
/// rounding; one that lies within those before becomes 0.
fn orthonormalise(axes: &mut [f32], dim: usize) {
    for i in 0..axes.len() / dim {
        let (before, rest) = axes.split_at_mut(i * dim);
        let axis = &mut rest[..dim];
        let whole = float::dot(axis, axis).sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(dim) {
                let product = float::dot(other, axis);
                float::add_scaled(axis, other, -product);
            }
        }
        let length = float::dot(axis, axis).sqrt();
        let scale = if length > 1e-5 * whole { 1.0 / length } else { 0.0 };
        axis.iter_mut().for_each(|x| *x *= scale);
    }
}

/// How much longer than a vector its sum of axes can be, at most, squared: the largest eigenvalue
/// of `A A^T`. With `E = A A^T - 1` it is at most `1 + |E|`, and the norm of E at most the fourth
/// root of the Frobenius norm of its fourth power.
fn axes_scale_of(spec: &QuantizerSpec, dim: usize) -> f32 {
    let matrix = wide(spec);
    let count = matrix.len() / dim;
    let squared = |matrix: &[f32], width: usize| {
        let mut out = vec![0.0; count * count];
        out.par_chunks_exact_mut(count).enumerate().for_each(|(i, out)| {
            along(matrix, &matrix[i * width..][..width], out);
        });
        out
    };
    let mut error = squared(&matrix, dim);
    (0..count).for_each(|i| error[i * count + i] -= 1.0);
    let fourth = squared(&squared(&error, count), count);
    1.0 + 1.01 * float::dot(&fourth, &fourth).sqrt().sqrt().sqrt()
}
