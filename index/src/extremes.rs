//! Rows so far from all others that no code of the index can stand for them: their ids come last,
//! they are in no graph, their full vectors are in memory, and every query meets them.

use std::ops::Range;

use foveal_datasets::{Metric, Row};

use crate::kernel::float;

/// Most extreme rows of an index, and the share of all rows that they may be.
const MOST: usize = 4096;
const MOST_BYTES: usize = 16 << 20;
/// How many there may be in any case, if they are not more than a tenth of the rows.
const FEW: usize = 64;

/// The extreme rows of an index.
#[derive(Clone, Debug)]
pub(crate) struct Extremes {
    metric: Metric,
    /// The id of the first one; the others follow.
    first: u32,
    dim: usize,
    /// `[count x dim]`.
    numbers: Vec<f32>,
    /// The squared length of the longest one.
    largest_square: f64,
}

impl Extremes {
    /// The last rows of `n`, whose numbers are `[count x dim]`. Panics unless they are whole rows,
    /// and fewer than `n`.
    pub(crate) fn new(metric: Metric, (n, dim): (u32, usize), numbers: Vec<f32>) -> Extremes {
        assert!(numbers.len().is_multiple_of(dim), "whole rows");
        let first = n - (numbers.len() / dim) as u32;
        assert!(first > 0, "not all rows are extreme");
        let squares = numbers.chunks_exact(dim).map(|row| float::dot_in_f64(row, row));
        let largest_square = squares.fold(0.0, f64::max);
        Extremes { metric, first, dim, numbers, largest_square }
    }

    /// How many of `n` rows may be extreme.
    pub(crate) fn most(n: usize, dim: usize) -> usize {
        let fits = MOST_BYTES / (dim * size_of::<f32>());
        (n / 1000).max(FEW).min(n / 10).min(MOST).min(fits.max(1))
    }

    /// Their numbers, `[count x dim]`.
    pub(crate) fn into_numbers(self) -> Vec<f32> {
        self.numbers
    }

    /// The id of the first one: all ids below it are in the graph.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// Whether there are no extreme rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> Range<u32> {
        self.first..self.first + (self.numbers.len() / self.dim) as u32
    }

    /// The squared length of the longest one; 0 without extreme rows.
    pub(crate) fn largest_square(&self) -> f64 {
        self.largest_square
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> u64 {
        size_of_val(self.numbers.as_slice()) as u64
    }

    /// The shown distance of the extreme row `id`, and one deviation of its rounding. Panics if the
    /// row is not extreme.
    pub(crate) fn distance(&self, query: &[f32], id: u32) -> (f32, f32) {
        let row = &self.numbers[(id - self.first) as usize * self.dim..][..self.dim];
        if self.metric.is_product() {
            let lengths = float::dot(query, query).sqrt() * float::dot(row, row).sqrt();
            return (-float::dot(query, row), 1e-6 * lengths);
        }
        let distance = float::l2(query, row);
        (distance, 1e-6 * distance)
    }

    /// The numbers of a query, where there are extreme rows to meet it.
    pub(crate) fn widen(&self, query: Row<'_>, wide: &mut Vec<f32>) {
        wide.clear();
        if !self.is_empty() {
            wide.resize(self.dim, 0.0);
            query.widen_into(wide);
        }
    }
}
