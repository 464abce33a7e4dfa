//! A vector -> its code, and a query -> distances to codes.
//!
//! | kind | what a record holds | used for |
//! |---|---|---|
//! | packed4 | 4 bits a dimension of the rotated residual, two f16 factors | preview, 4 to 6 bits |
//! | packed2 | 2 bits a leading dimension of the residual, two f16 factors | preview at 2 bits |
//! | planar | 8 bits a dimension (of bytes: the row), two f32 factors | preview at 8 bits, builds |
//! | bytes | the bytes of the row | preview and builds over byte rows under l2 |
//! | float | the numbers of the row as f32 | preview and builds where shorter codes will not do |
//!
//! The residual r of a row is what is left of it (of the unit row under cosine) when the mean is
//! taken off. With u the code's grid point, a query's residual p and the factors
//! `a = |r|^2 / <u, r>` and `b = |r|^2`,
//!
//! ```text
//! |q - x|^2 = |p - r|^2 = |p|^2 + b - 2 <p, r>,   <p, r> estimated by a <p, u>
//! ```
//!
//! which is unbiased over rotations (RaBitQ, arXiv:2405.12497 and 2409.09913). Under ip the search
//! space gives `|q - x'|^2 = U^2 + |q|^2 - 2 <q, x>` for the lifted row x', and `<q, x>` is
//! `<q, mean>` plus the same estimate; the query is scaled to the length U, which changes no order.
//! Distances to a query leave out what is the same for every row (`|p|^2`, or
//! `U^2 + |q|^2 - 2 <q, mean>`): f32 would lose small differences beside a large common term.
//! Records are whole cache lines; `kernel` draws their bytes. A fifth and sixth bit lie apart: see
//! `extra_bits`.

mod axes;
mod centre;
mod encode;
mod extra_bits;
mod grid;
mod query;
mod record;
mod rotation;
mod space;
mod trial;

pub(crate) use axes::learning_bytes;
pub(crate) use centre::{FAR_TIMES, Limits};
use encode::ErrorShares;
pub(crate) use encode::{Encoder, RowFacts};
pub(crate) use extra_bits::extra_bytes;
use query::Kernels;
pub(crate) use query::{CodeDistance, PreparedQuery};
pub(crate) use record::Record;
pub(crate) use space::CodeSpace;
pub(crate) use trial::{ENOUGH, TRIED_QUERIES, Trial};

use foveal_datasets::{Element, Metric, Row, Rows};

use crate::code_width::CodeWidth;
use crate::kernel::byte_matrix::ByteMatrix;
use crate::kernel::{LINE, float};
use rotation::Rotation;

/// Dimensions that give up a bit where the factors have no bytes of their own.
const BORROWED_DIMS: usize = 32;
/// A planar code is stored with this added, so that it is unsigned.
const OFFSET: i32 = 128;

/// What a quantizer learned, as plain fields: what `meta.rkyv` keeps.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct QuantizerSpec {
    /// Bits a dimension; see `width`.
    pub(crate) bits: u8,
    /// Seed of the rotation.
    pub(crate) seed: u64,
    /// `[dim]`: the mean of most rows (of the unit rows under cosine), see `centre`; zeros where
    /// codes are exact.
    pub(crate) mean: Vec<f32>,
    /// U^2, the largest squared norm of a row: the lift under ip.
    pub(crate) largest_square: f32,
    /// Unit of the factor `a` of codes of fewer than 8 bits.
    pub(crate) scale_unit: f32,
    /// Unit of the factor `b` of codes of fewer than 8 bits.
    pub(crate) add_unit: f32,
    /// The share of `|r|^2` that the squared error of codes is, the mean over the sample:
    /// `|a u - r|^2 / |r|^2`.
    pub(crate) error_share: f32,
    /// The same with the extra bits; 0 without.
    pub(crate) extra_error_share: f32,
    /// The largest `|a u - r|` of a row, with all bits: what hard bounds allow for.
    pub(crate) largest_error: f32,
    /// The largest `|r|` of a row.
    pub(crate) largest_residual: f32,
    /// `[axes x dim]`: what the residual is projected on, in units of `axes_unit`; empty where all
    /// of it is rotated.
    pub(crate) axes: Vec<i8>,
    /// What 1 stands for in `axes`.
    pub(crate) axes_unit: f32,
    /// The share of `|r|^2` that lies outside of the axes, the mean over the sample; 0 without.
    pub(crate) outside_axes: f32,
    /// How much longer than its coordinates a sum of axes can be, squared; 1 without.
    pub(crate) axes_scale: f32,
}

impl QuantizerSpec {
    /// Whether the axes are such as a build learns: none, or fewer than dimensions, of 2-bit codes.
    pub(crate) fn has_sound_axes(&self) -> bool {
        let (dim, len) = (self.mean.len(), self.axes.len());
        let few = len == 0
            || self.width() == CodeWidth::Two && len.is_multiple_of(dim) && len < dim * dim;
        let lengths = self.axes_unit > 0.0 && self.axes_unit.is_finite();
        let axes_scale = self.axes_scale >= 1.0 && self.axes_scale.is_finite();
        few && lengths && axes_scale && (0.0..=1.0).contains(&self.outside_axes)
    }

    /// The width of the codes.
    pub(crate) fn width(&self) -> CodeWidth {
        CodeWidth::of_bits(self.bits).expect("the bits of a width: checked when it was read")
    }

    /// Numbers that a code stands for.
    fn code_dims(&self) -> usize {
        if self.axes.is_empty() { self.mean.len() } else { self.axes.len() / self.mean.len() }
    }
}

/// The trained map from vectors to codes.
#[derive(Clone, Debug)]
pub(crate) struct Quantizer {
    metric: Metric,
    element: Element,
    dim: usize,
    record: Record,
    /// Bytes of a record: whole cache lines.
    stride: usize,
    kernels: Kernels,
    spec: QuantizerSpec,
    transform: Transform,
}

/// The transform of a residual before it becomes a code.
#[derive(Clone, Debug)]
enum Transform {
    /// Codes hold the bytes of the rows.
    Identity,
    Rotate(Rotation),
    /// The code is of the coordinates along some axes.
    Project(ByteMatrix),
}

impl Quantizer {
    /// A quantizer of 8 or 32 bits for rows like `sample` (`[n x dim]`), to grow a graph over.
    /// Linear in the sample.
    pub(crate) fn train(metric: Metric, width: CodeWidth, sample: &Rows, seed: u64) -> Quantizer {
        let dim = sample.dim();
        let exact = match width {
            CodeWidth::Eight => is_byte(sample.element()),
            // A difference of f32 numbers needs no centre; taking one off would round small ones.
            _ => !metric.is_product(),
        };
        let mean = if exact { vec![0.0; dim] } else { centre::of(metric, sample) };
        let spec = QuantizerSpec {
            bits: width.bits(),
            seed,
            mean,
            largest_square: 0.0,
            scale_unit: 1.0,
            add_unit: 1.0,
            error_share: 0.0,
            extra_error_share: 0.0,
            largest_error: 0.0,
            largest_residual: 0.0,
            axes: Vec::new(),
            axes_unit: 1.0,
            outside_axes: 0.0,
            axes_scale: 1.0,
        };
        Quantizer::from_spec(metric, sample.element(), spec)
    }

    /// The quantizer that a spec describes. Panics if the mean is empty.
    pub(crate) fn from_spec(metric: Metric, element: Element, spec: QuantizerSpec) -> Quantizer {
        let dim = spec.mean.len();
        let width = spec.width();
        let exact = width == CodeWidth::Eight && is_byte(element);
        let record = Record::of(width, (metric, element), dim);
        let transform = match (exact || record == Record::Float, spec.axes.is_empty()) {
            (true, _) => Transform::Identity,
            (false, true) => Transform::Rotate(Rotation::new(dim, spec.seed)),
            (false, false) => Transform::Project(axes::of(&spec)),
        };
        let stride = record.stride(spec.code_dims());
        let kernels = Kernels::in_use();
        Quantizer { metric, element, dim, record, stride, kernels, spec, transform }
    }

    /// The quantizer that serves queries at `width`, once `facts` of every row that gets a code are
    /// known: their largest values set the units of the f16 factors and the lift. `sample_queries`
    /// are sample queries, if there are any.
    pub(crate) fn serving(
        &self,
        width: CodeWidth,
        facts: &RowFacts,
        (sample, sample_queries): (&Rows, Option<&Rows>),
    ) -> Quantizer {
        let mut spec = self.spec.clone();
        spec.bits = width.bits();
        spec.largest_square = facts.square;
        if width < CodeWidth::Eight {
            if is_byte(self.element) {
                spec.mean = centre::of(self.metric, sample);
            }
            // f16 holds 6e-5 to 65,504: the largest factor is put near 2^13, so that rows of a
            // ten-thousandth of the largest norm keep all their digits.
            let mut norm = facts.residual_square.sqrt();
            if self.is_exact() {
                // The facts were measured from zero.
                norm += float::dot(&spec.mean, &spec.mean).sqrt();
            }
            let top = 8192.0;
            spec.scale_unit = (norm / top).max(f32::MIN_POSITIVE);
            spec.add_unit = (norm * norm / top).max(f32::MIN_POSITIVE);
        }
        let mut serving = match width {
            CodeWidth::Two => self.two_bits(spec, (sample, sample_queries)),
            _ => Quantizer::from_spec(self.metric, self.element, spec),
        };
        let shares = Encoder::new(&serving).error_shares(sample);
        let ErrorShares { code, extra, outside } = shares;
        (serving.spec.error_share, serving.spec.extra_error_share, serving.spec.outside_axes) =
            (code, extra, outside);
        serving
    }

    /// Notes the facts of every row as this quantizer encoded it.
    pub(crate) fn note(&mut self, facts: &RowFacts) {
        self.spec.largest_error = facts.error_square.sqrt();
        self.spec.largest_residual = facts.residual_square.sqrt();
    }

    /// What it learned.
    pub(crate) fn spec(&self) -> &QuantizerSpec {
        &self.spec
    }

    /// Numbers in a vector.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Bytes of a record: whole cache lines.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Whether a record holds the bytes of its row, at the record's start.
    pub(crate) fn is_exact(&self) -> bool {
        self.record != Record::Float && matches!(self.transform, Transform::Identity)
    }

    /// The row that an exact record holds; `flipped` (`[dim]`) is where signed bytes are restored.
    pub(crate) fn exact_row<'a>(&self, record: &'a [u8], flipped: &'a mut [u8]) -> Row<'a> {
        if self.element == Element::U8 {
            return Row::U8(&record[..self.dim]);
        }
        flipped.iter_mut().zip(record).for_each(|(to, from)| *to = from ^ 0x80);
        Row::I8(bytemuck::cast_slice(flipped))
    }
}

fn is_byte(element: Element) -> bool {
    matches!(element, Element::U8 | Element::I8)
}

/// Bytes of the last line of a record that hold dimensions, `fields` a byte.
fn last_line_bytes(dim: usize, fields: usize) -> usize {
    let rest = dim - (dim - 1) / (fields * LINE) * (fields * LINE);
    rest.div_ceil(fields)
}

#[cfg(test)]
mod tests;
