//! Where most rows lie, and which rows lie so far from there that codes must not count with them.
//!
//! A code keeps the direction and length of a residual, the row less a centre. One row a million
//! times as long as all others would take a mean along, and the units of factors with it: all other
//! rows would have one residual, and factors of 0. So the centre is the mean of the rows that are
//! not extreme, and a row is extreme that is `FAR` times as far from the median as nine tenths of
//! the rows are. Where lengths span many orders of magnitude even that mean is decided by a few
//! rows; the coordinate-wise median is the centre then.

use foveal_datasets::{Element, Metric, Rows};
use rayon::prelude::*;

use super::encode::to_search_space;
use super::{Quantizer, RowFacts};
use crate::kernel::float;

/// A row is extreme beyond so many times the distance of nine tenths of the rows.
pub(crate) const FAR_TIMES: f32 = 32.0;
const FAR: f32 = FAR_TIMES * FAR_TIMES;
/// Rows that the median and the distances are taken of, at most.
const MEDIAN_ROWS: usize = 4096;
/// How much closer to the rows, in powers of two of the squared distance, the median must be than
/// the mean to be the centre in its place.
const MUCH_CLOSER: i64 = 2;
/// Bits of an f32 below its exponent.
const MANTISSA_BITS: u32 = 23;

/// Squared lengths beyond which a row is extreme.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    residual_square: f32,
    /// Of the row itself, under ip: the longest row lifts all others.
    square: f32,
}

impl Limits {
    /// No row is extreme.
    pub(crate) const NONE: Limits =
        Limits { residual_square: f32::INFINITY, square: f32::INFINITY };

    /// How many times the limits a row with these facts lies away, squared: extreme above 1.
    pub(crate) fn excess(&self, facts: &RowFacts) -> f32 {
        let residual = facts.residual_square / self.residual_square;
        residual.max(facts.square / self.square)
    }

    /// Facts with no length beyond the limits.
    pub(crate) fn clamp(&self, facts: RowFacts) -> RowFacts {
        RowFacts {
            square: facts.square.min(self.square),
            residual_square: facts.residual_square.min(self.residual_square),
            ..facts
        }
    }
}

impl Quantizer {
    /// Which rows are extreme among rows like `sample`. None where codes hold rows of bytes, whose
    /// lengths cannot differ so much, or unit rows.
    pub(crate) fn limits(&self, sample: &Rows) -> Limits {
        if is_bounded(self.metric, sample.element()) {
            return Limits::NONE;
        }
        let rows = widened(sample);
        let zeros = vec![0.0; self.dim];
        let limit = |centre: &[f32]| match FAR * typical_square(&rows, centre) {
            limit if limit > 0.0 => limit,
            _ => f32::INFINITY,
        };
        let square = if self.metric.is_product() { limit(&zeros) } else { f32::INFINITY };
        Limits { residual_square: limit(&self.spec.mean), square }
    }
}

impl Quantizer {
    /// The numbers of the rows that are not extreme.
    pub(crate) fn near_rows(&self, limits: &Limits, rows: &Rows) -> Vec<usize> {
        let mut wide = vec![0.0; self.dim];
        let is_near = |i: &usize| {
            rows.row(*i).widen_into(&mut wide);
            let facts = RowFacts {
                square: float::dot(&wide, &wide),
                residual_square: float::l2(&wide, &self.spec.mean),
                error_square: 0.0,
            };
            limits.excess(&facts) <= 1.0
        };
        (0..rows.len()).filter(is_near).collect()
    }
}

/// The centre of rows like `sample` (of unit rows under cosine). `[dim]`.
pub(super) fn of(metric: Metric, sample: &Rows) -> Vec<f32> {
    if is_bounded(metric, sample.element()) {
        return mean(metric, sample, |_| true);
    }
    let rows = widened(sample);
    let median = median(&rows, sample.dim());
    let limit = FAR * typical_square(&rows, &median);
    let mean = mean(metric, sample, |row| squared_distance(row, &median) <= limit);
    if closeness(&rows, &mean) - closeness(&rows, &median) > MUCH_CLOSER << MANTISSA_BITS {
        return median;
    }
    mean
}

/// Whether no row can be far from all others.
fn is_bounded(metric: Metric, element: Element) -> bool {
    metric.needs_direction() || matches!(element, Element::U8 | Element::I8)
}

/// The first rows of a sample, whose order is random, as f32: `[rows x dim]`.
fn widened(sample: &Rows) -> Vec<f32> {
    let rows = sample.len().min(MEDIAN_ROWS);
    let mut wide = vec![0.0; rows * sample.dim()];
    let targets = wide.chunks_exact_mut(sample.dim()).zip(sample.iter());
    targets.for_each(|(target, row)| row.widen_into(target));
    wide
}

/// The median of each coordinate.
fn median(rows: &[f32], dim: usize) -> Vec<f32> {
    let median = |i: usize| {
        let mut column: Vec<f32> = rows.iter().skip(i).step_by(dim).copied().collect();
        let middle = column.len() / 2;
        *column.select_nth_unstable_by(middle, f32::total_cmp).1
    };
    (0..dim).into_par_iter().map(median).collect()
}

/// The mean of the rows that are kept, summed in order in f64.
fn mean(metric: Metric, rows: &Rows, keeps: impl Fn(&[f32]) -> bool) -> Vec<f32> {
    let mut sums = vec![0.0f64; rows.dim()];
    let mut wide = vec![0.0f32; rows.dim()];
    let mut count = 0usize;
    for row in rows.iter() {
        row.widen_into(&mut wide);
        to_search_space(metric, &mut wide);
        if keeps(&wide) {
            sums.iter_mut().zip(&wide).for_each(|(sum, x)| *sum += f64::from(*x));
            count += 1;
        }
    }
    sums.into_iter().map(|sum| (sum / count.max(1) as f64) as f32).collect()
}

/// The squared distance from the centre that nine tenths of the rows do not pass.
fn typical_square(rows: &[f32], centre: &[f32]) -> f32 {
    let rows = rows.par_chunks_exact(centre.len());
    let mut squares: Vec<f32> = rows.map(|row| squared_distance(row, centre)).collect();
    let at = (squares.len() - 1) * 9 / 10;
    *squares.select_nth_unstable_by(at, f32::total_cmp).1
}

/// The mean over rows of the logarithm of the squared distance from the centre, in units of
/// `2^-23` and nearly: what the bits of an f32 are, the same on every machine.
fn closeness(rows: &[f32], centre: &[f32]) -> i64 {
    let squares = rows.chunks_exact(centre.len()).map(|row| squared_distance(row, centre));
    let sum: i64 = squares.map(|square| i64::from(square.to_bits())).sum();
    sum / (rows.len() / centre.len()) as i64
}

fn squared_distance(row: &[f32], centre: &[f32]) -> f32 {
    float::l2(row, centre)
}

#[cfg(test)]
mod tests {
    use foveal_datasets::Values;
    use foveal_datasets::seeded::Seeded;

    use super::*;
    use crate::code_width::CodeWidth;

    fn gaussian(n: usize, dim: usize, scale: impl Fn(usize) -> f32) -> Vec<f32> {
        let mut random = Seeded::new(4);
        (0..n * dim).map(|i| (random.gaussian() + 3.0) * scale(i / dim)).collect()
    }

    fn rows(dim: usize, numbers: Vec<f32>) -> Rows {
        Rows::new(dim, Values::F32(numbers)).unwrap()
    }

    #[test]
    fn ordinary_rows_have_their_mean_and_no_extreme_one() {
        let sample = rows(8, gaussian(500, 8, |_| 1.0));
        let plain = mean(Metric::L2, &sample, |_| true);
        assert_eq!(of(Metric::L2, &sample), plain);
        let quantizer = Quantizer::train(Metric::InnerProduct, CodeWidth::Eight, &sample, 1);
        let limits = quantizer.limits(&sample);
        for row in sample.iter() {
            let mut wide = vec![0.0; 8];
            row.widen_into(&mut wide);
            let facts = RowFacts {
                square: float::dot(&wide, &wide),
                residual_square: float::l2(&wide, &plain),
                error_square: 0.0,
            };
            assert!(limits.excess(&facts) < 0.1, "{facts:?}");
        }
    }

    #[test]
    fn extreme_rows_do_not_move_the_centre() {
        for factor in [1e3, 1e6, 1e15] {
            let sample = rows(8, gaussian(500, 8, |i| if i % 100 == 7 { factor } else { 1.0 }));
            let centre = of(Metric::L2, &sample);
            assert!(centre.iter().all(|x| (x - 3.0).abs() < 0.3), "{factor}: {centre:?}");
            let limits = Quantizer::train(Metric::L2, CodeWidth::Eight, &sample, 1).limits(&sample);
            let facts = |square: f32| RowFacts { residual_square: square, ..RowFacts::default() };
            assert!(limits.excess(&facts(8.0 * 9.0 * factor * factor)) > 1.0, "{factor}");
            assert!(limits.excess(&facts(8.0 * 9.0)) < 0.1, "{factor}");
        }
    }

    #[test]
    fn lengths_of_many_orders_have_their_median() {
        let scale = |i: usize| 10.0f32.powi(i as i32 % 13 - 6);
        let mut random = Seeded::new(4);
        let numbers = (0..1300 * 8).map(|i| random.gaussian() * scale(i / 8)).collect();
        let centre = of(Metric::L2, &rows(8, numbers));
        assert!(centre.iter().all(|x| x.abs() < 1e-3), "{centre:?}");
    }

    #[test]
    fn few_or_equal_rows_have_a_centre() {
        for (n, what) in [(1, "one"), (3, "three"), (50, "equal")] {
            let sample = rows(4, vec![2.5; n * 4]);
            assert_eq!(of(Metric::L2, &sample), [2.5; 4], "{what}");
            let limits = Quantizer::train(Metric::L2, CodeWidth::Eight, &sample, 1).limits(&sample);
            assert_eq!(limits, Limits::NONE, "{what}");
        }
    }
}
