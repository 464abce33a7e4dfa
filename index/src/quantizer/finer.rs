//! The bits of a code beyond its fourth: a walk does without them, candidates are ranked by them.
//!
//! A 4-bit level is the middle of a cell; x more bits cut the cell into 2^x. With s_i the width of
//! the cell of dimension i (1; 2 where a bit was stolen) and e_i what the bits say, the finer point
//! is
//!
//! ```text
//! u'_i = u_i + s_i ((e_i + 1/2) / 2^x - 1/2)      <p, r> estimated by a' <p, u'>,  a' = a (1 + g)
//! ```
//!
//! A record holds x planes, the most valued first, each `[dim / 32, rounded up]` words of 32 bits,
//! and g as an f16. The estimate that a walk made is turned into the finer one: all it lacks are
//! sums of the query's lanes over the planes.

use half::f16;

use super::{PreparedQuery, Quantizer, Record, STOLEN_DIMS};
use crate::kernel::bitplane::WORD;
use crate::kernel::float::{step_of, whole};
use crate::kernel::{float, packed};

/// One standard deviation of what a number loses, of itself, as an f16.
const ROUNDED: f64 = 2.4e-4;
/// Lanes of a query hold -32,767 to 32,767.
const LANES: f32 = 32_767.0;

/// Bytes of what a row of `bits` a dimension beyond the fourth has of them.
pub(crate) fn finer_bytes(dim: usize, bits: u8) -> usize {
    match usize::from(bits) {
        0 => 0,
        planes => planes * dim.div_ceil(WORD) * (WORD / 8) + size_of::<f16>(),
    }
}

/// The width of the cell of dimension `i`.
fn width(i: usize, stolen: bool) -> f32 {
    if stolen && i < STOLEN_DIMS { 2.0 } else { 1.0 }
}

/// A finer point, and what it makes of its record.
pub(super) struct Finer {
    /// `[dim]`: u'.
    pub(super) point: Vec<f32>,
    /// `[dim]`: e.
    parts: Vec<u8>,
}

impl Finer {
    pub(super) fn new(dim: usize) -> Finer {
        Finer { point: vec![0.0; dim], parts: vec![0; dim] }
    }

    /// The finer point of `residual`, whose 4-bit point is `point`; returns `<u', r>`. Any point
    /// will do for a residual of 0, whose factor a is 0.
    pub(super) fn fit(
        &mut self,
        residual: &[f32],
        point: &[f32],
        (bits, stolen): (u8, bool),
    ) -> f32 {
        let cells = f32::from(1u8 << bits);
        self.point.copy_from_slice(point);
        // The first pass scales the residual to fit the coarse point, the second the finer one.
        for _ in 0..2 {
            let product = float::dot(&self.point, residual);
            let scale = float::dot(&self.point, &self.point) / product;
            let scale = if scale.is_finite() { scale } else { 0.0 };
            for i in 0..point.len() {
                let width = width(i, stolen);
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
pub(super) struct FinerQuery {
    /// `[dim, rounded up to whole words]`: the rotated query times the cells' widths, in steps.
    lanes: Vec<i16>,
    /// What a step is worth.
    step: f32,
    /// The sum of the lanes.
    sum: i32,
}

impl FinerQuery {
    pub(super) fn fill(&mut self, residual: &[f32], stolen: bool) {
        self.lanes.clear();
        self.lanes.resize(residual.len().next_multiple_of(WORD), 0);
        // No width is above 2.
        self.step = 2.0 * step_of(residual, LANES);
        let per_step = 1.0 / self.step;
        self.sum = 0;
        for (i, (lane, x)) in self.lanes.iter_mut().zip(residual).enumerate() {
            *lane = whole(x * width(i, stolen) * per_step).clamp(-LANES, LANES) as i16;
            self.sum += i32::from(*lane);
        }
    }
}

impl Quantizer {
    /// Bits a dimension beyond the fourth.
    pub(super) fn finer_bits(&self) -> u8 {
        self.spec.width().extra_bits()
    }

    /// Bytes of what a row has beyond its code; 0 where codes have no more than 4 bits, or 8.
    pub(crate) fn finer_stride(&self) -> usize {
        finer_bytes(self.dim, self.finer_bits())
    }

    /// The finer estimate, in the search space, of the row with the code record `code` and `finer`
    /// beyond it, which a walk put at `estimate`; and one standard deviation of its error.
    pub(crate) fn finer_estimate(
        &self,
        query: &PreparedQuery,
        (code, finer): (&[u8], &[u8]),
        estimate: f32,
    ) -> (f32, f32) {
        let Record::Nibble { stolen } = self.record else { return (estimate, 0.0) };
        let (a, b) = packed::factors(code, stolen);
        let (planes, tail) = finer.split_at(finer.len() - 2);
        let growth = f16::from_le_bytes([tail[0], tail[1]]).to_f32();
        let bits = self.finer_bits();
        // 2^x times the sum of p_i s_i e_i / 2^x, and what the halves of cells add.
        let mut parts = 0i64;
        for plane in planes.chunks_exact(planes.len() / usize::from(bits)) {
            parts = 2 * parts + i64::from((self.kernels.bitplane)(plane, &query.finer.lanes));
        }
        let cells = f32::from(1u8 << bits);
        let halves = (1.0 - cells) * 0.5 * query.finer.sum as f32;
        let product = (parts as f32 + halves) / cells * query.finer.step;
        let start = query.packed.base + b.to_f32() * query.packed.add_unit;
        let turned = (estimate - start) - 2.0 * a.to_f32() * self.spec.scale_unit * product;
        let turned = (1.0 + growth) * turned;
        let square = b.to_f32() * self.spec.add_unit;
        let missed = self.variance_of(query, square, self.spec.finer_missed);
        // With so many bits the rounding of the factors shows, in many dimensions.
        let rounded = [turned, start - query.packed.base].map(|x| ROUNDED * f64::from(x));
        let error = (missed + rounded[0] * rounded[0] + rounded[1] * rounded[1]).sqrt();
        (start + turned, error as f32)
    }
}
