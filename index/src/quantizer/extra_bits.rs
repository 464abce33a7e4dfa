//! The extra bits of a code, beyond its fourth: a walk does without them, candidates are ranked by
//! them.
//!
//! A 4-bit level is the middle of a cell; x more bits cut the cell into 2^x. With s_i the width of
//! the cell of dimension i (1; 2 where the factors borrow a bit) and e_i what the bits say, the
//! extra point is
//!
//! ```text
//! u'_i = u_i + s_i ((e_i + 1/2) / 2^x - 1/2)      <p, r> estimated by a' <p, u'>,  a' = a (1 + g)
//! ```
//!
//! A record holds x planes, the most valued first, each `[dim / 32, rounded up]` words of 32 bits,
//! and g as an f16. The estimate of a walk becomes the better one by adding sums of the query's
//! lanes over the planes.

use half::f16;

use super::{BORROWED_DIMS, PreparedQuery, Quantizer, Record};
use crate::kernel::bitplane::WORD;
use crate::kernel::float::{step_of, whole};
use crate::kernel::{float, packed};

/// One standard deviation of what a number loses, of itself, as an f16.
const ROUNDED: f64 = 2.4e-4;
/// Lanes of a query hold -32,767 to 32,767.
const LANES: f32 = 32_767.0;

/// Bytes of the extra bits of a row with `bits` of them a dimension.
pub(crate) fn extra_bytes(dim: usize, bits: u8) -> usize {
    match usize::from(bits) {
        0 => 0,
        planes => planes * dim.div_ceil(WORD) * (WORD / 8) + size_of::<f16>(),
    }
}

/// The width of the cell of dimension `i`.
fn width(i: usize, borrowed: bool) -> f32 {
    if borrowed && i < BORROWED_DIMS { 2.0 } else { 1.0 }
}

/// An extra point, and what it makes of its record.
pub(super) struct ExtraPoint {
    /// `[dim]`: u'.
    pub(super) point: Vec<f32>,
    /// `[dim]`: e.
    parts: Vec<u8>,
}

impl ExtraPoint {
    pub(super) fn new(dim: usize) -> ExtraPoint {
        ExtraPoint { point: vec![0.0; dim], parts: vec![0; dim] }
    }

    /// The extra point of `residual`, whose 4-bit point is `point`; returns `<u', r>`. Any point
    /// will do for a residual of 0, whose factor a is 0.
    pub(super) fn fit(
        &mut self,
        residual: &[f32],
        point: &[f32],
        (bits, borrowed): (u8, bool),
    ) -> f32 {
        let cells = f32::from(1u8 << bits);
        self.point.copy_from_slice(point);
        // The first pass scales the residual to fit the coarse point, the second the extra point.
        for _ in 0..2 {
            let product = float::dot(&self.point, residual);
            let scale = float::dot(&self.point, &self.point) / product;
            let scale = if scale.is_finite() { scale } else { 0.0 };
            for i in 0..point.len() {
                let width = width(i, borrowed);
                let within = ((residual[i] * scale - point[i]) / width + 0.5) * cells;
                let part = within.floor().clamp(0.0, cells - 1.0);
                self.parts[i] = part as u8;
                self.point[i] = point[i] + width * ((part + 0.5) / cells - 0.5);
            }
        }
        float::dot(&self.point, residual)
    }

    /// Writes the record of the last fit.
    pub(super) fn write(&self, (bits, growth): (u8, f16), record: &mut [u8]) {
        record.fill(0);
        let (planes, tail) = record.split_at_mut(record.len() - 2);
        let bytes = planes.len() / usize::from(bits);
        for (plane, bit) in planes.chunks_exact_mut(bytes).zip((0..bits).rev()) {
            for (i, part) in self.parts.iter().enumerate() {
                plane[i / 8] |= (part >> bit & 1) << (i % 8);
            }
        }
        tail.copy_from_slice(&growth.to_le_bytes());
    }
}

/// A query against the planes.
#[derive(Clone, Debug, Default)]
pub(super) struct ExtraQuery {
    /// `[dim, rounded up to whole words]`: the rotated query times the cells' widths, in steps.
    lanes: Vec<i16>,
    /// What a step is worth.
    step: f32,
    /// The sum of the lanes.
    sum: i32,
}

impl ExtraQuery {
    pub(super) fn fill(&mut self, residual: &[f32], borrowed: bool) {
        self.lanes.clear();
        self.lanes.resize(residual.len().next_multiple_of(WORD), 0);
        // No width is above 2.
        self.step = 2.0 * step_of(residual, LANES);
        let per_step = 1.0 / self.step;
        self.sum = 0;
        for (i, (lane, x)) in self.lanes.iter_mut().zip(residual).enumerate() {
            *lane = whole(x * width(i, borrowed) * per_step).clamp(-LANES, LANES) as i16;
            self.sum += i32::from(*lane);
        }
    }
}

impl Quantizer {
    /// Extra bits a dimension.
    pub(super) fn extra_bits(&self) -> u8 {
        self.spec.width().extra_bits()
    }

    /// Bytes of the extra bits of a row; 0 where codes have no more than 4 bits, or 8.
    pub(crate) fn extra_stride(&self) -> usize {
        extra_bytes(self.dim, self.extra_bits())
    }

    /// The estimate by all bits, in the search space, of the row with the code record `code` and
    /// `extra` bits, which a walk put at `estimate`; and one standard deviation of its error.
    pub(crate) fn extra_estimate(
        &self,
        query: &PreparedQuery,
        (code, extra): (&[u8], &[u8]),
        estimate: f32,
    ) -> (f32, f32) {
        let Record::Packed4 { borrowed } = self.record else { return (estimate, 0.0) };
        let (a, b) = packed::factors(code, borrowed);
        let (planes, tail) = extra.split_at(extra.len() - 2);
        let growth = f16::from_le_bytes([tail[0], tail[1]]).to_f32();
        let bits = self.extra_bits();
        // 2^x times the sum of p_i s_i e_i / 2^x, and what the halves of cells add.
        let mut parts = 0i64;
        for plane in planes.chunks_exact(planes.len() / usize::from(bits)) {
            parts = 2 * parts + i64::from((self.kernels.bitplane)(plane, &query.extra.lanes));
        }
        let cells = f32::from(1u8 << bits);
        let halves = (1.0 - cells) * 0.5 * query.extra.sum as f32;
        let product = (parts as f32 + halves) / cells * query.extra.step;
        let start = query.packed.base + b.to_f32() * query.packed.add_unit;
        let shift = (estimate - start) - 2.0 * a.to_f32() * self.spec.scale_unit * product;
        let shift = (1.0 + growth) * shift;
        let square = b.to_f32() * self.spec.add_unit;
        let variance = self.variance_of(query, square, self.spec.extra_error_share);
        // With so many bits the rounding of the factors shows, in many dimensions.
        let rounded = [shift, start - query.packed.base].map(|x| ROUNDED * f64::from(x));
        let error = (variance + rounded[0] * rounded[0] + rounded[1] * rounded[1]).sqrt();
        (start + shift, error as f32)
    }
}
