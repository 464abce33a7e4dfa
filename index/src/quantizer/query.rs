//! A query -> lanes and factors, and the distances of codes to it.

use foveal_datasets::{Element, Row};

use super::encode::to_search_space;
use super::extra_bits::ExtraQuery;
use super::{BORROWED_DIMS, OFFSET, Quantizer, QuantizerSpec, Record, Transform};
use crate::distance::QueryDistance;
use crate::kernel::bitplane::{self, BitplaneKernel};
use crate::kernel::byte_l2::{self, ByteL2Kernel};
use crate::kernel::float::{step_of, whole};
use crate::kernel::packed::{self, PackedKernel, PackedQuery};
use crate::kernel::planar::{self, PlanarKernel, PlanarQuery, sum_of};
use crate::kernel::{LINE, Level, float, prefetch};

/// A plane holds -127 to 127; two of them, 128 times the first plus the second.
const PLANE: f32 = 127.0;

/// A query in the form that one kind of code needs; made anew in place, query after query.
#[derive(Clone, Debug, Default)]
pub(crate) struct PreparedQuery {
    pub(super) packed: PackedQuery,
    pub(super) extra: ExtraQuery,
    planar: PlanarQuery,
    bytes: Vec<u8>,
    /// The query less the mean (under ip, the query); rotated where codes are of all of it.
    pub(super) residual: Vec<f32>,
    /// Its coordinates along the axes, where codes are of those.
    along: Vec<f32>,
    /// The squared norm of those, and what a step of the lanes that met the axes is worth.
    along_square: f32,
    axes_step: f32,
    /// Squared norm of the rotated query; for byte codes, of what the query's bytes leave of it.
    square: f32,
    /// What squared distances in the search space have on top of those of codes: the same for every
    /// row.
    common: f64,
    /// What turns a distance of codes into the one shown: times the first, plus the second.
    shown: (f32, f32),
    /// Whether 32-bit codes meet the query in an inner product.
    is_product: bool,
    /// What a step of the lanes is worth.
    pub(super) step: f32,
}

/// Distances of the codes in `codes` to one query.
#[derive(Clone, Copy)]
pub(crate) struct CodeDistance<'a> {
    quantizer: &'a Quantizer,
    codes: &'a [u8],
    query: &'a PreparedQuery,
    stride: usize,
    kernel: Kernel,
}

#[derive(Clone, Copy)]
enum Kernel {
    Packed(PackedKernel),
    Planar(PlanarKernel),
    Bytes(ByteL2Kernel),
    Float,
}

/// The kernels of the CPU level in use, looked up once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    packed4: PackedKernel,
    packed2: PackedKernel,
    planar: [PlanarKernel; 2],
    bytes: ByteL2Kernel,
    pub(super) bitplane: BitplaneKernel,
}

impl Kernels {
    pub(super) fn in_use() -> Kernels {
        let level = Level::in_use();
        Kernels {
            packed4: packed::kernel::<2>(level),
            packed2: packed::kernel::<4>(level),
            planar: [planar::kernel(level, 1), planar::kernel(level, 2)],
            bytes: byte_l2::kernel(level),
            bitplane: bitplane::kernel(level),
        }
    }
}

impl PreparedQuery {
    /// Readies a query of the quantizer's dimension. `O(d log d)`; allocates the first time only.
    pub(crate) fn prepare(&mut self, quantizer: &Quantizer, query: Row<'_>) {
        self.residual.resize(quantizer.dim, 0.0);
        query.widen_into(&mut self.residual);
        if quantizer.record == Record::Bytes {
            return self.prepare_bytes(quantizer);
        }
        to_search_space(quantizer.metric, &mut self.residual);
        self.take_off_common(quantizer);
        match &quantizer.transform {
            Transform::Identity => {}
            Transform::Rotate(rotation) => rotation.apply(&mut self.residual),
            Transform::Project(axes) => {
                let PreparedQuery { planar, residual, along, .. } = self;
                along.resize(axes.rows(), 0.0);
                let kernel = quantizer.kernels.planar[0];
                self.axes_step = axes.times::<1>(kernel, planar, residual, along);
                self.along_square = float::dot(&self.along, &self.along);
            }
        }
        // Under ip the squared norm of a row is part of its lift, and so of no distance.
        let add = if self.is_product { 0.0 } else { 1.0 };
        match quantizer.record {
            Record::Packed4 { borrowed } => self.fill_packed::<2>(quantizer, borrowed, 0.0, add),
            Record::Packed2 => self.fill_packed::<4>(quantizer, false, 0.0, add),
            Record::Float => self.step = 0.0,
            Record::Planar | Record::Bytes => {
                let shape = (quantizer.stride, quantizer.planar_offset());
                self.step = self.planar.fill::<2>(&self.residual, shape);
                (self.planar.base, self.planar.add_unit) = (0.0, add);
                self.planar.slope = -2.0 * self.step;
            }
        }
    }

    /// Makes the residual of a query in the search space, and notes what is common to its distances
    /// from all rows. Under ip the query gets the length of the longest row: that changes no order,
    /// and the distances of a short query would drown in the squared length of the rows.
    fn take_off_common(&mut self, quantizer: &Quantizer) {
        let QuantizerSpec { mean, largest_square, .. } = &quantizer.spec;
        self.is_product = quantizer.metric.is_product();
        if self.is_product {
            let length = if *largest_square > 0.0 { largest_square.sqrt() } else { 1.0 };
            let scale = scale_to(&mut self.residual, length);
            self.square = float::dot(&self.residual, &self.residual);
            let product = f64::from(float::dot(&self.residual, mean));
            self.common = f64::from(*largest_square) + f64::from(self.square) - 2.0 * product;
            self.shown = ((0.5 / scale) as f32, (-product / scale) as f32);
            return;
        }
        // 32-bit codes keep rows whole: their mean is 0, and distances are sums of differences.
        self.residual.iter_mut().zip(mean).for_each(|(x, mean)| *x -= mean);
        self.square = float::dot(&self.residual, &self.residual);
        let common = if quantizer.record == Record::Float { 0.0 } else { self.square };
        self.common = f64::from(common);
        let scale = if quantizer.metric.needs_direction() { 0.5 } else { 1.0 };
        self.shown = (scale, scale * common);
    }

    /// Readies the row that a record of an 8-bit code holds, for distances between rows: squared L2
    /// between rows, or unit rows; the difference of lifts is the caller's to add under ip.
    pub(super) fn prepare_record(&mut self, quantizer: &Quantizer, record: &[u8]) {
        if quantizer.record == Record::Bytes {
            self.bytes.clear();
            self.bytes.extend_from_slice(record);
            return;
        }
        if quantizer.record == Record::Float {
            self.is_product = false;
            self.residual.clear();
            self.residual.extend_from_slice(numbers_of(record, quantizer.dim));
            return;
        }
        let (scale, square) = planar::factors(record);
        let offset = quantizer.planar_offset();
        let query = &mut self.planar;
        query.stride = record.len();
        query.lanes.clear();
        query.offset = [0, 0];
        if offset == 0 {
            // Unsigned bytes need a bit more than a plane has.
            query.lanes.resize(2 * record.len(), 0);
            let (high, low) = query.lanes.split_at_mut(record.len());
            for (i, byte) in record[..quantizer.dim].iter().enumerate() {
                (high[i], low[i]) = ((byte >> 1) as i8, (byte & 1) as i8);
            }
            query.high_weight = 2.0;
        } else {
            query.lanes.resize(record.len(), 0);
            let mut sum = 0;
            for (lane, byte) in query.lanes.iter_mut().zip(&record[..quantizer.dim]) {
                *lane = (byte ^ 0x80) as i8;
                sum += i32::from(*lane);
            }
            query.offset[0] = offset * sum;
            query.high_weight = 1.0;
        }
        query.base = square;
        query.add_unit = 1.0;
        query.slope = -2.0 * scale;
    }

    /// Readies the row that the 8-bit `record` of `of` holds for 4-bit codes: squared L2 between
    /// rows as `prepare_record` has it.
    pub(super) fn prepare_row(&mut self, quantizer: &Quantizer, (of, record): (&Quantizer, &[u8])) {
        self.residual.resize(quantizer.dim, 0.0);
        if let Transform::Rotate(_) = of.transform {
            // The same rotation, of the same residual.
            let (scale, _) = planar::factors(record);
            let fields = self.residual.iter_mut().zip(record);
            fields.for_each(|(x, byte)| *x = scale * (i32::from(*byte) - OFFSET) as f32);
        } else {
            let mut flipped = std::mem::take(&mut self.bytes);
            flipped.resize(quantizer.dim, 0);
            of.exact_row(record, &mut flipped).widen_into(&mut self.residual);
            self.bytes = flipped;
            to_search_space(quantizer.metric, &mut self.residual);
            let mean = &quantizer.spec.mean;
            self.residual.iter_mut().zip(mean).for_each(|(x, mean)| *x -= mean);
            if let Transform::Rotate(rotation) = &quantizer.transform {
                rotation.apply(&mut self.residual);
            }
        }
        self.square = float::dot(&self.residual, &self.residual);
        let Record::Packed4 { borrowed } = quantizer.record else {
            unreachable!("codes of 4 bits")
        };
        self.fill_packed::<2>(quantizer, borrowed, self.square, 1.0);
    }

    fn prepare_bytes(&mut self, quantizer: &Quantizer) {
        let (low, high) = match quantizer.element {
            Element::I8 => (-128.0, 127.0),
            _ => (0.0, 255.0),
        };
        (self.common, self.shown) = (0.0, (1.0, 0.0));
        self.bytes.clear();
        self.bytes.resize(quantizer.stride, 0);
        self.square = 0.0;
        for (byte, x) in self.bytes.iter_mut().zip(&self.residual) {
            let nearest = x.round().clamp(low, high);
            *byte = (nearest - low) as u8;
            self.square += (x - nearest) * (x - nearest);
        }
    }

    fn fill_packed<const FIELDS: usize>(
        &mut self,
        quantizer: &Quantizer,
        borrowed: bool,
        base: f32,
        add: f32,
    ) {
        let transformed = match &quantizer.transform {
            Transform::Project(_) => &self.along,
            _ => &self.residual,
        };
        let query = &mut self.packed;
        query.lanes.clear();
        query.lanes.resize(FIELDS * quantizer.stride, 0);
        self.step = step_of(transformed, PLANE);
        let per_step = 1.0 / self.step;
        // A field of a line holds dimensions that follow each other.
        let lines =
            transformed.chunks(FIELDS * LINE).zip(query.lanes.chunks_exact_mut(FIELDS * LINE));
        for (line, lanes) in lines {
            let fields = line.chunks(line.len().div_ceil(FIELDS));
            for (field, lanes) in fields.zip(lanes.chunks_exact_mut(LINE)) {
                for (lane, x) in lanes.iter_mut().zip(field) {
                    *lane = whole(x * per_step).clamp(-PLANE, PLANE) as i32 as i8;
                }
            }
        }
        let sum = sum_of(&query.lanes);
        let coarse_sum = if borrowed { sum_of(&query.lanes[..BORROWED_DIMS]) } else { 0 };
        query.borrowed = borrowed;
        query.base = base;
        query.add_unit = add * quantizer.spec.add_unit;
        query.slope = -self.step * quantizer.spec.scale_unit;
        // Twice the middle: 7.5 of 16 levels, 7 of the 8 coarse ones, 1.5 of 4.
        let last = (1 << (8 / FIELDS)) - 1;
        query.offset = last * sum - coarse_sum;
        if quantizer.extra_bits() > 0 {
            self.extra.fill(&self.residual, borrowed);
        }
    }
}

/// Gives a vector a length; returns by what it was multiplied. A vector of zeros stays one.
fn scale_to(vector: &mut [f32], length: f32) -> f64 {
    let largest = float::largest_size(vector);
    if largest == 0.0 {
        return 1.0;
    }
    // In two steps: the square of a very short or long vector would not fit f32.
    vector.iter_mut().for_each(|x| *x /= largest);
    let scale = f64::from(length) / f64::from(float::dot(vector, vector)).sqrt();
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
    scale / f64::from(largest)
}

/// The numbers of a 32-bit record.
fn numbers_of(record: &[u8], dim: usize) -> &[f32] {
    &bytemuck::cast_slice(record)[..dim]
}

impl PreparedQuery {
    /// `(scale, add)` that turn a distance of codes into the one shown.
    pub(crate) fn shown(&self) -> (f32, f32) {
        self.shown
    }

    /// What squared distances in the search space have on top of those of codes.
    pub(crate) fn common(&self) -> f64 {
        self.common
    }
}

impl Quantizer {
    /// What the shown distance of a row is never below if its estimate is `estimate` or more.
    ///
    /// By the triangle inequality, with the code's point x' at `|x' - x| <= m` for every row:
    /// `|q - x| >= |q - x'| - m`, and `|q - x'|^2` is the estimate plus `|x' - x|^2`. Under ip the
    /// estimate is off by `2 |q| m` at most. The rounding of lanes, factors and sums comes off too.
    pub(crate) fn lower_bound(&self, query: &PreparedQuery, estimate: f32) -> f32 {
        let (scale, add) = (f64::from(query.shown.0), f64::from(query.shown.1));
        let searched = (f64::from(estimate) - add) / scale + query.common;
        let square = f64::from(query.square);
        let below = |searched: f64, error: f64| {
            let distance = (searched + error * error).max(0.0).sqrt() - error;
            distance.max(0.0) * distance.max(0.0)
        };
        let largest = f64::from(self.spec.largest_square);
        let bound = if self.record == Record::Float {
            let sums = if query.is_product { square + largest } else { searched };
            searched - 1e-5 * sums
        } else if self.record == Record::Bytes {
            // The estimate is the distance to the nearest bytes, `square` what they miss.
            let distance = (searched.max(0.0).sqrt() - square.sqrt()).max(0.0);
            distance * distance
        } else {
            let error = f64::from(self.spec.largest_error);
            let residual = f64::from(self.spec.largest_residual);
            let lanes = f64::from(query.step) * (self.dim as f64).sqrt() * (residual + error);
            // The lanes of extra bits have steps of less than a hundredth of those.
            let mut lanes = 1.02 * lanes;
            if let Transform::Project(_) = self.transform {
                let along = f64::from(query.axes_step) * (self.dim as f64).sqrt();
                lanes += along * f64::from(self.spec.axes_scale) * (residual + error);
            }
            // Factors of few bits have eleven digits, and so has the growth of one of them.
            let packed = matches!(self.record, Record::Packed4 { .. } | Record::Packed2);
            let factors = if packed { 3.5 * residual * residual / 2048.0 } else { 0.0 };
            let sums = 1e-5 * (square + residual * residual + largest + searched.abs());
            let searched = searched - lanes - factors - sums;
            match self.metric.is_product() {
                true => searched - 2.0 * square.sqrt() * error,
                false => below(searched, error),
            }
        };
        // A little less than what f32 distances are rounded by.
        let shown = (bound - query.common) * scale + add;
        let terms = shown.abs() + add.abs() + (query.common * scale).abs();
        (shown - 1e-6 * terms) as f32
    }

    /// One standard deviation of the error of an estimate for a residual of squared norm `square`.
    ///
    /// The squared error of a code is the share `error_share` of `|r|^2`; against a random rotation
    /// its product with the query has that times `|p|^2 / d` as variance. The lanes' rounding adds
    /// a twelfth of a squared step a dimension; where codes hold their rows that is all there is.
    pub(super) fn error_of(&self, query: &PreparedQuery, square: f32, error_share: f32) -> f32 {
        self.variance_of(query, square, error_share).sqrt() as f32
    }

    /// The square of that, which f32 may not hold. The error within the axes meets the query's
    /// coordinates along them, the error outside of them meets the rest of it.
    pub(super) fn variance_of(&self, query: &PreparedQuery, square: f32, error_share: f32) -> f64 {
        let error = match &self.transform {
            Transform::Project(axes) => {
                let (count, outside) = (axes.rows(), self.spec.outside_axes);
                let rest = (query.square - query.along_square).max(0.0);
                let within = query.along_square * (error_share - outside).max(0.0) / count as f32;
                within + rest * outside / (self.dim - count) as f32
            }
            _ => query.square * error_share / self.dim as f32,
        };
        let rounding = query.step * query.step / 12.0;
        4.0 * f64::from(square) * f64::from(error + rounding)
    }

    /// What planar codes were stored with.
    fn planar_offset(&self) -> i32 {
        if self.is_exact() && self.element == Element::U8 { 0 } else { OFFSET }
    }

    /// Distances of `codes` (`[n x stride]`) to a query that was made ready for this quantizer.
    pub(crate) fn distance<'a>(
        &'a self,
        codes: &'a [u8],
        query: &'a PreparedQuery,
    ) -> CodeDistance<'a> {
        let kernel = match self.record {
            Record::Packed4 { .. } => Kernel::Packed(self.kernels.packed4),
            Record::Packed2 => Kernel::Packed(self.kernels.packed2),
            Record::Planar => {
                let one_plane = query.planar.lanes.len() == query.planar.stride;
                Kernel::Planar(self.kernels.planar[usize::from(!one_plane)])
            }
            Record::Bytes => Kernel::Bytes(self.kernels.bytes),
            Record::Float => Kernel::Float,
        };
        CodeDistance { quantizer: self, codes, query, stride: self.stride, kernel }
    }
}

impl QueryDistance for CodeDistance<'_> {
    #[inline(always)]
    fn prefetch(&self, id: u32) {
        let at = id as usize * self.stride;
        for line in 0..self.stride / LINE {
            prefetch(self.codes, at + line * LINE);
        }
    }

    #[inline(always)]
    fn distances(&self, ids: &[u32], out: &mut [f32]) {
        match self.kernel {
            Kernel::Packed(kernel) => kernel(self.codes, &self.query.packed, ids, out),
            Kernel::Planar(kernel) => kernel(self.codes, &self.query.planar, ids, out),
            Kernel::Bytes(kernel) => kernel(self.codes, &self.query.bytes, ids, out),
            Kernel::Float => self.float_distances(ids, out),
        }
    }

    fn error(&self, id: u32) -> f32 {
        match self.quantizer.record {
            Record::Bytes => return self.byte_error(id),
            Record::Float => return self.float_error(id),
            _ => {}
        }
        let record = &self.codes[id as usize * self.stride..][..self.stride];
        let packed =
            |borrowed| packed::factors(record, borrowed).1.to_f32() * self.quantizer.spec.add_unit;
        let square = match self.quantizer.record {
            Record::Packed4 { borrowed } => packed(borrowed),
            Record::Packed2 => packed(false),
            _ => planar::factors(record).1,
        };
        self.quantizer.error_of(self.query, square, self.quantizer.spec.error_share)
    }
}

impl CodeDistance<'_> {
    /// Distances of whole rows, as sums of differences or products. Kept out of line: the walk is
    /// made for short codes.
    #[inline(never)]
    fn float_distances(&self, ids: &[u32], out: &mut [f32]) {
        let query = &self.query.residual;
        for (id, out) in ids.iter().zip(out) {
            let record = &self.codes[*id as usize * self.stride..][..self.stride];
            let row = numbers_of(record, query.len());
            *out = match self.query.is_product {
                true => -2.0 * float::dot(query, row),
                false => float::l2(query, row),
            };
        }
    }

    /// What sums of f32 are rounded by.
    fn float_error(&self, id: u32) -> f32 {
        let PreparedQuery { square, is_product, .. } = self.query;
        if *is_product {
            return 1e-6 * square.sqrt() * self.quantizer.spec.largest_square.sqrt();
        }
        let mut distance = [0.0];
        self.distances(&[id], &mut distance);
        // Unit rows were rounded themselves.
        let rounded = if self.quantizer.metric.needs_direction() { 1e-7 } else { 0.0 };
        1e-6 * distance[0] + rounded * distance[0].sqrt()
    }

    /// The bytes of a row are exact, those of a query only where it holds such bytes: what is left
    /// of it meets the difference at a random angle.
    fn byte_error(&self, id: u32) -> f32 {
        if self.query.square == 0.0 {
            return 0.0;
        }
        let mut distance = [0.0];
        self.distances(&[id], &mut distance);
        2.0 * (distance[0] * self.query.square / self.quantizer.dim as f32).sqrt()
    }
}
