//! Rows -> records.

use foveal_datasets::{Metric, Row, Rows};
use half::f16;

use super::axes::{along, wide};
use super::extra_bits::ExtraPoint;
use super::grid::{Factors, Grid};
use super::{BORROWED_DIMS, OFFSET, Quantizer, Record, Transform, last_line_bytes};
use crate::kernel::{LINE, float};

/// What a build must know of rows beside their codes: the largest values over them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct RowFacts {
    /// The largest squared norm (1 under cosine).
    pub(crate) square: f32,
    /// The largest squared norm of a residual.
    pub(crate) residual_square: f32,
    /// The largest squared distance of a residual r to what its code stands for, `|a u - r|^2`.
    pub(crate) error_square: f32,
}

impl RowFacts {
    /// The facts of both sets of rows.
    pub(crate) fn and(self, other: RowFacts) -> RowFacts {
        RowFacts {
            square: self.square.max(other.square),
            residual_square: self.residual_square.max(other.residual_square),
            error_square: self.error_square.max(other.error_square),
        }
    }
}

/// Divides by the norm under cosine; returns the squared norm of what came.
pub(super) fn to_search_space(metric: Metric, vector: &mut [f32]) -> f32 {
    let square = float::dot(vector, vector);
    if metric.needs_direction() {
        // Twice: a norm near the ends of f32's range loses digits in its square, or all of it.
        let largest = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        if largest > 0.0 {
            vector.iter_mut().for_each(|x| *x /= largest);
            let norm = float::dot(vector, vector).sqrt();
            vector.iter_mut().for_each(|x| *x /= norm);
        }
    }
    square
}

/// Turns rows into records; one a thread, owns its scratch.
pub(crate) struct Encoder<'a> {
    quantizer: &'a Quantizer,
    grid: Option<Grid>,
    extra: Option<ExtraPoint>,
    residual: Vec<f32>,
    /// `[axes x dim]`, where a code is of the coordinates along axes.
    axes: Vec<f32>,
    /// What a code is made of: the residual, transformed.
    transformed: Vec<f32>,
}

/// The mean shares of a residual's squared norm that the error of a code is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorShares {
    /// By its code.
    pub(super) code: f32,
    /// By its extra point.
    pub(super) extra: f32,
    /// Because it lies outside of the axes; part of `code`.
    pub(super) outside: f32,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(quantizer: &'a Quantizer) -> Encoder<'a> {
        let dim = quantizer.dim;
        let code_dims = quantizer.spec.code_dims();
        let grid = match quantizer.record {
            Record::Packed4 { borrowed } => {
                Some(Grid::packed4(dim, if borrowed { BORROWED_DIMS } else { 0 }))
            }
            Record::Packed2 => Some(Grid::packed2(code_dims)),
            Record::Planar if !quantizer.is_exact() => Some(Grid::bytes(dim)),
            Record::Planar | Record::Bytes | Record::Float => None,
        };
        let extra = (quantizer.extra_bits() > 0).then(|| ExtraPoint::new(dim));
        let axes = wide(&quantizer.spec);
        let (residual, transformed) = (vec![0.0; dim], vec![0.0; code_dims]);
        Encoder { quantizer, grid, extra, residual, axes, transformed }
    }

    /// Writes the record of `row` (`[stride]` bytes) and its extra bits (`[extra_stride]`), both
    /// whole, and returns its facts; allocates nothing. The squared norm returned is infinite where
    /// f32 cannot hold it: such a row has no code.
    pub(crate) fn encode(
        &mut self,
        row: Row<'_>,
        (record, extra_record): (&mut [u8], &mut [u8]),
    ) -> RowFacts {
        let quantizer = self.quantizer;
        let norm_square = self.transform(row);
        let square = if quantizer.metric.needs_direction() { 1.0 } else { norm_square };
        record.fill(0);
        let Some(grid) = &mut self.grid else {
            let residual_square = if quantizer.record == Record::Float {
                let numbers = record.chunks_exact_mut(size_of::<f32>());
                numbers
                    .zip(&self.residual)
                    .for_each(|(to, x)| to.copy_from_slice(&x.to_le_bytes()));
                float::dot(&self.residual, &self.residual)
            } else {
                write_bytes(quantizer, row, norm_square, record);
                square
            };
            return RowFacts { square, residual_square, error_square: 0.0 };
        };
        let (point, mut factors) = grid.fit(&self.transformed);
        let product = factors.square / factors.scale;
        if !self.axes.is_empty() {
            factors = whole_factors(factors, float::dot(&self.residual, &self.residual));
        }
        match quantizer.record {
            Record::Packed4 { borrowed } => {
                write_packed4(quantizer, point, factors, borrowed, record)
            }
            Record::Packed2 => write_packed2(quantizer, point, factors, record),
            _ => {
                for (byte, value) in record.iter_mut().zip(point) {
                    *byte = (*value as i32 + OFFSET) as u8;
                }
                write_planar_factors(record, factors);
            }
        }
        let stored = stored_scale(quantizer, factors.scale);
        let axes_scale = quantizer.spec.axes_scale;
        let mut error = error_square(point, (stored, product), (factors, axes_scale));
        if let (Some(extra), Record::Packed4 { borrowed }) = (&mut self.extra, quantizer.record) {
            let bits = quantizer.extra_bits();
            let extra_product = extra.fit(&self.transformed, point, (bits, borrowed));
            let growth = f16::from_f32(growth_of(product, extra_product));
            extra.write((bits, growth), extra_record);
            let stored = stored * (1.0 + growth.to_f32());
            error = error_square(&extra.point, (stored, extra_product), (factors, 1.0));
        }
        RowFacts { square, residual_square: factors.square, error_square: error }
    }
}

impl Encoder<'_> {
    /// The residual of a row, and its transform; returns the squared norm of the row as it came.
    fn transform(&mut self, row: Row<'_>) -> f32 {
        row.widen_into(&mut self.residual);
        let norm_square = to_search_space(self.quantizer.metric, &mut self.residual);
        if !self.quantizer.is_exact() {
            let mean = &self.quantizer.spec.mean;
            self.residual.iter_mut().zip(mean).for_each(|(x, mean)| *x -= mean);
        }
        match &self.quantizer.transform {
            Transform::Identity => {}
            Transform::Rotate(rotation) => {
                self.transformed.copy_from_slice(&self.residual);
                rotation.apply(&mut self.transformed);
            }
            Transform::Project(_) => along(&self.axes, &self.residual, &mut self.transformed),
        }
        norm_square
    }

    /// The mean error shares over `rows`, in order.
    pub(super) fn error_shares(&mut self, rows: &Rows) -> ErrorShares {
        let (mut sum, mut extra_sum, mut outside) = (0.0f64, 0.0f64, 0.0f64);
        for row in rows.iter() {
            self.transform(row);
            let Some(grid) = &mut self.grid else { return ErrorShares::default() };
            let (point, mut factors) = grid.fit(&self.transformed);
            if !self.axes.is_empty() {
                let along = factors.square;
                factors = whole_factors(factors, float::dot(&self.residual, &self.residual));
                if factors.square > 0.0 {
                    outside += f64::from((1.0 - along / factors.square).clamp(0.0, 1.0));
                }
            }
            if factors.scale == 0.0 {
                continue;
            }
            sum += error_share(point, factors.scale, factors.square);
            if let (Some(extra), Record::Packed4 { borrowed }) =
                (&mut self.extra, self.quantizer.record)
            {
                let bits = self.quantizer.extra_bits();
                let product = extra.fit(&self.transformed, point, (bits, borrowed));
                let scale = factors.square / product;
                extra_sum += error_share(&extra.point, scale, factors.square);
            }
        }
        let count = rows.len().max(1) as f64;
        let [code, extra, outside] = [sum, extra_sum, outside].map(|sum| (sum / count) as f32);
        ErrorShares { code, extra, outside }
    }
}

/// The largest error share that is counted: such a code says nothing.
const MAX_ERROR_SHARE: f64 = 1e6;

/// `|a u - r|^2 / |r|^2` of a point with the factor `scale`.
fn error_share(point: &[f32], scale: f32, square: f32) -> f64 {
    let [point, scale, square] = [float::dot(point, point), scale, square].map(f64::from);
    (point * scale * scale / square - 1.0).clamp(0.0, MAX_ERROR_SHARE)
}

/// By what share the factor of the extra point is larger than that of the point, from `<u, r>` and
/// `<u', r>`.
fn growth_of(product: f32, extra_product: f32) -> f32 {
    let growth = product / extra_product - 1.0;
    if growth.is_finite() { growth } else { 0.0 }
}

/// The factor a as a record keeps it.
fn stored_scale(quantizer: &Quantizer, scale: f32) -> f32 {
    match quantizer.record {
        Record::Packed4 { .. } | Record::Packed2 => {
            let unit = quantizer.spec.scale_unit;
            stored_half(scale / unit).to_f32() * unit
        }
        _ => scale,
    }
}

/// The factors of a residual of squared norm `square`, from those of its coordinates along axes.
fn whole_factors(along: Factors, square: f32) -> Factors {
    let scale = along.scale * (square / along.square);
    Factors { scale: if scale.is_finite() { scale } else { 0.0 }, square }
}

/// The most that `|a u - r|^2` can be with the stored factor a and `<u, r>`, where u is a sum of
/// axes at most `axes_scale` times as long, squared, as its coordinates.
fn error_square(
    point: &[f32],
    (stored, product): (f32, f32),
    (factors, axes_scale): (Factors, f32),
) -> f32 {
    let (a, b) = (f64::from(stored), f64::from(factors.square));
    if factors.scale == 0.0 {
        return factors.square;
    }
    let square = f64::from(axes_scale) * f64::from(float::dot(point, point));
    let error = a * a * square - 2.0 * a * f64::from(product) + b;
    // Sums of f32 are off by less than this share of what they add up.
    (error + 1e-5 * b).clamp(0.0, f64::from(f32::MAX)) as f32
}

fn write_bytes(quantizer: &Quantizer, row: Row<'_>, norm_square: f32, record: &mut [u8]) {
    match row {
        Row::U8(values) => record[..values.len()].copy_from_slice(values),
        Row::I8(values) => {
            record.iter_mut().zip(values).for_each(|(byte, x)| *byte = *x as u8 ^ 0x80);
        }
        _ => unreachable!("codes are exact for byte rows alone"),
    }
    if quantizer.record == Record::Planar {
        let factors = match quantizer.metric.needs_direction() {
            true => Factors { scale: 1.0 / norm_square.sqrt(), square: 1.0 },
            false => Factors { scale: 1.0, square: norm_square },
        };
        write_planar_factors(record, factors);
    }
}

fn write_planar_factors(record: &mut [u8], factors: Factors) {
    let end = record.len();
    record[end - 8..end - 4].copy_from_slice(&factors.scale.to_le_bytes());
    record[end - 4..].copy_from_slice(&factors.square.to_le_bytes());
}

fn write_packed4(
    quantizer: &Quantizer,
    point: &[f32],
    factors: Factors,
    borrowed: bool,
    record: &mut [u8],
) {
    let coarse = if borrowed { BORROWED_DIMS } else { 0 };
    for (i, (value, at)) in point.iter().zip(field_positions(point.len(), 2)).enumerate() {
        let level = if i < coarse { value + 7.0 } else { value + 7.5 } as u8;
        record[at.byte] |= level << at.shift;
    }
    let word = factor_word(quantizer, factors);
    if borrowed {
        (0..32).for_each(|i| record[i] |= (word >> i & 1) as u8);
    } else {
        let end = record.len();
        record[end - 4..].copy_from_slice(&word.to_le_bytes());
    }
}

fn write_packed2(quantizer: &Quantizer, point: &[f32], factors: Factors, record: &mut [u8]) {
    for (value, at) in point.iter().zip(field_positions(point.len(), 4)) {
        record[at.byte] |= ((value + 1.5) as u8) << at.shift;
    }
    let end = record.len();
    record[end - 4..].copy_from_slice(&factor_word(quantizer, factors).to_le_bytes());
}

/// A factor as a record keeps it: never infinite, which would make no number of a distance.
fn stored_half(x: f32) -> f16 {
    f16::from_f32(x.min(f16::MAX.to_f32()))
}

/// Both factors as two f16, a in the low half.
fn factor_word(quantizer: &Quantizer, factors: Factors) -> u32 {
    let scale = stored_half(factors.scale / quantizer.spec.scale_unit);
    let square = stored_half(factors.square / quantizer.spec.add_unit);
    u32::from(scale.to_bits()) | u32::from(square.to_bits()) << 16
}

/// Where a dimension lies in a record of fewer than 8 bits.
pub(super) struct FieldPosition {
    pub(super) byte: usize,
    pub(super) shift: usize,
}

/// The positions of dimensions `0..dim` of a record with `fields` of them a byte, in order.
pub(super) fn field_positions(dim: usize, fields: usize) -> impl Iterator<Item = FieldPosition> {
    let in_line = fields * LINE;
    let full_lines = (dim - 1) / in_line;
    (0..dim).map(move |i| {
        let (line, position) = (i / in_line, i % in_line);
        let bytes = if line < full_lines { LINE } else { last_line_bytes(dim, fields) };
        let (field, byte) = (position / bytes, position % bytes);
        FieldPosition { byte: line * LINE + byte, shift: field * 8 / fields }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_beyond_a_half_are_stored_as_its_largest() {
        for (x, wanted) in
            [(1.5, 1.5), (65_504.0, 65_504.0), (1e9, 65_504.0), (f32::INFINITY, 65_504.0)]
        {
            assert_eq!(stored_half(x).to_f32(), wanted, "{x}");
        }
    }
}
