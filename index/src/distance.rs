//! "Smaller is closer": from a metric to the distance of two full vectors, and what a walk needs.
//!
//! | metric | distance shown | search space (squared L2 there) |
//! |---|---|---|
//! | `l2` | `sum (q - x)^2` | the rows |
//! | `cosine` | `1 - <q, x> / (abs(q) abs(x))` | rows divided by their norms |
//! | `ip` | `-<q, x>` | rows lifted by `sqrt(U^2 - abs(x)^2)`, queries by 0 |
//!
//! `U` is the largest norm. Pruning, stopping and estimates live in the search space, where the
//! order of distances is the metric's order; only exact distances are shown.

use foveal_datasets::metric::NEAR_COSINE;
use foveal_datasets::{Element, Metric, Row, Rows, Values};
use half::bf16;
use simsimd::SpatialSimilarity;

use crate::kernel::{LINE, Level, byte_l2, float};

/// Distances from one query to rows that have an id, in the search space.
pub(crate) trait QueryDistance {
    /// Asks the memory for everything that `distances` will read of `id`.
    fn prefetch(&self, id: u32);
    /// The squared distance of each id, in order, into the first `ids.len()` elements of `out`.
    fn distances(&self, ids: &[u32], out: &mut [f32]);
    /// One standard deviation of the error of an id's distance; 0 where distances are exact.
    fn error(&self, id: u32) -> f32;
}

/// Rows between which distances can be computed: what a graph is grown over.
pub(crate) trait Space: Sync {
    /// What a query from a row needs, reused from row to row.
    type Scratch: Default + Send;
    /// Distances from one row.
    type From<'a>: QueryDistance
    where
        Self: 'a;

    /// How many rows there are.
    fn len(&self) -> u32;
    /// Distances from row `id` to the others.
    fn distances_from<'a>(&'a self, id: u32, scratch: &'a mut Self::Scratch) -> Self::From<'a>;

    /// The same as a walk sees them: perhaps estimates, of fewer cache lines.
    fn estimates_from<'a>(&'a self, id: u32, scratch: &'a mut Self::Scratch) -> Self::From<'a> {
        self.distances_from(id, scratch)
    }
}

/// A query, ready for exact distances to full vectors of one element type; reused from query to
/// query.
#[derive(Clone, Debug)]
pub(crate) struct ExactQuery {
    metric: Metric,
    element: Element,
    /// Whether sums are the same on every CPU, as builds need them.
    fixed_order: bool,
    /// The query as f32.
    wide: Vec<f32>,
    /// The query as bytes of the rows' type, where it holds such bytes.
    bytes: Option<Vec<u8>>,
    inverse_norm: f32,
    /// The same in double precision.
    exact_inverse_norm: f64,
    widened: Vec<f32>,
    /// What is taken off products, which are then summed in f64; `None` where f32 will do.
    common: Option<f64>,
}

impl ExactQuery {
    /// For rows of `element`; holds no query yet.
    pub(crate) fn new(metric: Metric, element: Element) -> ExactQuery {
        ExactQuery {
            metric,
            element,
            fixed_order: false,
            wide: Vec::new(),
            bytes: None,
            inverse_norm: 1.0,
            exact_inverse_norm: 1.0,
            widened: Vec::new(),
            common: None,
        }
    }

    /// The same, with sums that do not depend on the CPU: what a build decides by.
    pub(crate) fn in_fixed_order(metric: Metric, element: Element) -> ExactQuery {
        ExactQuery { fixed_order: true, ..ExactQuery::new(metric, element) }
    }

    /// For the query taken last, under ip: takes `common` off every product and sums in f64, so
    /// that what large products differ by keeps its digits.
    pub(crate) fn take_off(&mut self, common: f64) {
        self.common = Some(common);
    }

    /// Takes a query. Byte rows meet it in integers where it holds such bytes; otherwise they are
    /// widened to f32.
    pub(crate) fn set(&mut self, query: Row<'_>) {
        self.common = None;
        self.wide.resize(query.dim(), 0.0);
        query.widen_into(&mut self.wide);
        let mut bytes = self.bytes.take().unwrap_or_default();
        bytes.clear();
        let wide = self.wide.iter();
        self.bytes = match self.element {
            Element::U8 if wide.clone().all(|x| f32::from(*x as u8) == *x) => {
                bytes.extend(wide.map(|x| *x as u8));
                Some(bytes)
            }
            Element::I8 if wide.clone().all(|x| f32::from(*x as i8) == *x) => {
                bytes.extend(wide.map(|x| *x as i8 as u8));
                Some(bytes)
            }
            _ => None,
        };
        if self.metric == Metric::Cosine {
            self.exact_inverse_norm = exact_inverse_norm(&self.wide);
            self.inverse_norm = plain_or_nan(self.exact_inverse_norm as f32);
        }
    }

    /// The distance to a row. Linear in the dimension. Panics if the dimensions differ.
    pub(crate) fn distance(&mut self, row: Row<'_>) -> f32 {
        match self.metric {
            Metric::L2 => self.squared_l2(row),
            Metric::InnerProduct => -self.product(row),
            Metric::Cosine => match self.rounded_cosine(row, self.inverse_norm(row)) {
                rounded if needs_double(rounded, f32::INFINITY) => self.cosine_in_double(row),
                rounded => rounded,
            },
        }
    }

    /// The distances to the rows numbered `ids`, in their order. Panics as `distance` does, and if
    /// there is no such row or `out` is too short.
    pub(crate) fn distances(&mut self, rows: &Rows, ids: &[u32], out: &mut [f32]) {
        match (self.metric, rows.values(), &self.bytes) {
            (Metric::L2, Values::U8(all), Some(query))
                if rows.dim() == query.len() && query.len().is_multiple_of(LINE) =>
            {
                byte_l2::kernel(Level::in_use())(all, query, ids, out);
            }
            _ => {
                for (id, out) in ids.iter().zip(out) {
                    *out = self.distance(rows.row(*id as usize));
                }
            }
        }
    }

    /// The cosine distances, from 0 to 2, to the rows `ids`, whose inverse norms are known. What is
    /// not below `limit` may be a rounded value that is not below it either.
    pub(crate) fn cosines(
        &mut self,
        (rows, inverse_norms): (&Rows, &[f32]),
        ids: &[u32],
        limit: f32,
        out: &mut [f32],
    ) {
        // No branch waits for a product: the CPU works on several at once.
        for (id, out) in ids.iter().zip(&mut *out) {
            *out = self.rounded_cosine(rows.row(*id as usize), inverse_norms[*id as usize]);
        }
        for (id, out) in ids.iter().zip(out) {
            if needs_double(*out, limit) {
                *out = self.cosine_in_double(rows.row(*id as usize));
            }
        }
    }

    /// NaN if an inverse norm is.
    #[inline(always)]
    fn rounded_cosine(&mut self, row: Row<'_>, inverse_norm: f32) -> f32 {
        let rounded = 1.0 - self.product(row) * self.inverse_norm * inverse_norm;
        if rounded > 2.0 { 2.0 } else { rounded }
    }

    /// The same for a near-copy, whose distance one minus a cosine rounds away, or where f32 cannot
    /// square a norm: half the squared distance of the unit vectors, in double precision.
    fn cosine_in_double(&mut self, row: Row<'_>) -> f32 {
        let ExactQuery { wide, widened, .. } = self;
        let row = match row {
            Row::F32(row) => row,
            _ => {
                widened.resize(wide.len(), 0.0);
                row.widen_into(widened);
                widened
            }
        };
        let scales = [self.exact_inverse_norm, exact_inverse_norm(row)];
        float::half_l2_scaled(wide, row, scales).min(2.0) as f32
    }

    fn squared_l2(&mut self, row: Row<'_>) -> f32 {
        match (row, &self.bytes) {
            (Row::F32(x), _) if self.fixed_order => float::l2(&self.wide, x),
            (Row::F32(x), _) => narrow(f32::sqeuclidean(&self.wide, x)),
            (Row::F16(x), _) => float::l2_f16(x, &self.wide),
            (Row::Bf16(x), _) => float::l2_bf16(bytemuck::cast_slice(x), &self.wide),
            (Row::U8(x), Some(q)) => float::l2_u8(x, q) as f32,
            (Row::I8(x), Some(q)) => squared_l2_i8(x, bytemuck::cast_slice(q)),
            (_, None) => {
                self.widened.resize(self.wide.len(), 0.0);
                row.widen_into(&mut self.widened);
                match self.fixed_order {
                    true => float::l2(&self.wide, &self.widened),
                    false => narrow(f32::sqeuclidean(&self.wide, &self.widened)),
                }
            }
        }
    }

    fn product(&mut self, row: Row<'_>) -> f32 {
        if let Some(common) = self.common {
            self.widened.resize(self.wide.len(), 0.0);
            row.widen_into(&mut self.widened);
            return (float::dot_in_f64(&self.wide, &self.widened) - common) as f32;
        }
        match (row, &self.bytes) {
            (Row::F32(x), _) if self.fixed_order => float::dot(&self.wide, x),
            (Row::F32(x), _) => narrow(f32::dot(&self.wide, x)),
            (Row::F16(x), _) => float::dot_f16(x, &self.wide),
            (Row::Bf16(x), _) => float::dot_bf16(bytemuck::cast_slice(x), &self.wide),
            (Row::U8(x), Some(q)) => float::dot_u8(x, q) as f32,
            (Row::I8(x), Some(q)) => narrow(i8::dot(bytemuck::cast_slice(q), x)),
            (_, None) => {
                self.widened.resize(self.wide.len(), 0.0);
                row.widen_into(&mut self.widened);
                match self.fixed_order {
                    true => float::dot(&self.wide, &self.widened),
                    false => narrow(f32::dot(&self.wide, &self.widened)),
                }
            }
        }
    }

    /// [`inverse_norm`], summed as this query's distances are.
    pub(crate) fn inverse_norm(&self, row: Row<'_>) -> f32 {
        match row {
            Row::F32(x) if self.fixed_order => inverse_of(float::dot(x, x)),
            _ => inverse_norm(row),
        }
    }
}

/// Between these, squares and products of norms keep all their digits in f32. A norm beyond is NaN
/// to whoever computes in f32, so that a distance is.
const PLAIN_INVERSE_NORMS: std::ops::RangeInclusive<f32> = 1e-15..=1e15;
/// Cosine distances below this are computed in double precision.
const NEAR: f32 = NEAR_COSINE as f32;
/// More than f32 rounds a cosine by.
const ROUNDED: f32 = NEAR / 16.0;

/// One over the norm of a vector; 0 for zeros, which have no direction.
fn exact_inverse_norm(vector: &[f32]) -> f64 {
    let square = float::square(vector);
    if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }
}

/// The largest squared norm of a row or query: what distances add up to stays within f32.
pub(crate) const MAX_SQUARE: f32 = f32::MAX / 16.0;

/// Whether the squared norm of a vector passes [`MAX_SQUARE`]; only f32 and bf16 can.
pub(crate) fn is_too_long(vector: Row<'_>) -> bool {
    match vector {
        Row::F32(x) => float::dot(x, x) > MAX_SQUARE,
        Row::Bf16(x) => {
            let square = |x: &bf16| f64::from(x.to_f32()) * f64::from(x.to_f32());
            x.iter().map(square).sum::<f64>() > f64::from(MAX_SQUARE)
        }
        Row::U8(_) | Row::I8(_) | Row::F16(_) => false,
    }
}

/// The smallest typical squared distance, or product: below it those of near neighbors, some orders
/// smaller, pass under the range of f32 and are 0.
pub(crate) const MIN_SQUARE: f64 = 1.0 / (1u128 << 120) as f64;

/// The typical squared distance of a sample of rows, or under ip their typical squared norm, if it
/// is below [`MIN_SQUARE`]; f32 and bf16 alone can be so small. Copies and zeros do not count, and
/// any number of rows may lie so close if not most do.
pub(crate) fn vanishing(rows: &Rows, metric: Metric) -> Option<f64> {
    if metric == Metric::Cosine || !matches!(rows.element(), Element::F32 | Element::Bf16) {
        return None;
    }
    typical_square(rows, metric).filter(|square| *square < MIN_SQUARE)
}

/// The median squared distance of some rows and the ones after them, or under ip the median squared
/// norm, zeros left out.
pub(crate) fn typical_square(rows: &Rows, metric: Metric) -> Option<f64> {
    let square = |i: usize| match metric {
        Metric::L2 => metric.plain_distance(rows.row(i), rows.row((i + 1) % rows.len())),
        _ => -Metric::InnerProduct.plain_distance(rows.row(i), rows.row(i)),
    };
    let mut squares: Vec<f64> =
        (0..rows.len().min(VANISHING_ROWS)).map(square).filter(|square| *square > 0.0).collect();
    let middle = squares.len() / 2;
    let is_empty = squares.is_empty();
    (!is_empty).then(|| *squares.select_nth_unstable_by(middle, f64::total_cmp).1)
}

/// Rows that tell how large distances are.
pub(crate) const VANISHING_ROWS: usize = 1000;

/// The end of the error for such data.
pub(crate) const TOO_SMALL: &str = "where f32 has no digits left; wanted values so large that \
    squared distances are above 1e-36: multiply rows and queries by a number, which changes no \
    order";

/// One over the norm of a row; NaN outside of [`PLAIN_INVERSE_NORMS`].
fn inverse_norm(row: Row<'_>) -> f32 {
    let square = match row {
        Row::F32(x) => narrow(f32::dot(x, x)),
        Row::U8(x) => float::dot_u8(x, x) as f32,
        Row::I8(x) => narrow(i8::dot(x, x)),
        Row::F16(_) | Row::Bf16(_) => {
            let mut wide = vec![0.0; row.dim()];
            row.widen_into(&mut wide);
            float::dot(&wide, &wide)
        }
    };
    inverse_of(square)
}

fn inverse_of(square: f32) -> f32 {
    plain_or_nan(1.0 / square.sqrt())
}

fn plain_or_nan(inverse_norm: f32) -> f32 {
    if PLAIN_INVERSE_NORMS.contains(&inverse_norm) { inverse_norm } else { f32::NAN }
}

/// Whether a rounded cosine distance has too few digits, and may be below `limit`.
#[inline(always)]
fn needs_double(rounded: f32, limit: f32) -> bool {
    let is_fine = rounded >= NEAR || rounded >= limit + ROUNDED;
    !is_fine
}

/// Numbers whose squared differences fit the signed 32-bit sum of the kernel.
const SIGNED_BLOCK: usize = 16_384;

fn squared_l2_i8(x: &[i8], y: &[i8]) -> f32 {
    let blocks = x.chunks(SIGNED_BLOCK).zip(y.chunks(SIGNED_BLOCK));
    let sums = blocks.map(|(x, y)| i8::sqeuclidean(x, y).expect("blocks of one length"));
    assert_eq!(x.len(), y.len(), "dimension mismatch");
    sums.sum::<f64>() as f32
}

fn narrow(result: Option<f64>) -> f32 {
    result.expect("both vectors have the index's dimension") as f32
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;
    use foveal_datasets::{Rows, Values};
    use half::f16;

    use super::*;

    /// Each full-vector kernel against f64, over every element type and the edges of lanes.
    #[test]
    fn exact_distances_agree_with_f64() {
        let mut random = Seeded::new(3);
        for dim in [1, 2, 15, 16, 17, 63, 64, 65, 100, 784] {
            let bytes: Vec<u8> = (0..2 * dim).map(|_| random.next_u64() as u8).collect();
            let signed: Vec<i8> = bytes.iter().map(|x| *x as i8).collect();
            let floats: Vec<f32> = (0..2 * dim).map(|_| random.gaussian()).collect();
            let halves: Vec<f16> = floats.iter().map(|x| f16::from_f32(*x)).collect();
            let brief: Vec<bf16> = floats.iter().map(|x| bf16::from_f32(*x)).collect();
            for values in [
                Values::U8(bytes),
                Values::I8(signed),
                Values::F32(floats),
                Values::F16(halves),
                Values::Bf16(brief),
            ] {
                let rows = Rows::new(dim, values).unwrap();
                check(&rows, 3e-6);
            }
        }
    }

    fn check(rows: &Rows, slack: f64) {
        let wide = |i| {
            let mut out = vec![0.0; rows.dim()];
            rows.row(i).widen_into(&mut out);
            out.into_iter().map(f64::from).collect::<Vec<f64>>()
        };
        let (q, x) = (wide(0), wide(1));
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        let l2: f64 = q.iter().zip(&x).map(|(x, y)| (x - y) * (x - y)).sum();
        let norms = (dot(&q, &q) * dot(&x, &x)).sqrt();
        for (metric, wanted, scale) in [
            (Metric::L2, l2, l2),
            (Metric::InnerProduct, -dot(&q, &x), norms),
            (Metric::Cosine, 1.0 - dot(&q, &x) / norms, 1.0),
        ] {
            let mut query = ExactQuery::new(metric, rows.element());
            query.set(rows.row(0));
            let mut together = [0.0; 5];
            query.distances(rows, &[1, 0, 1, 1, 0], &mut together);
            let alone = [1, 0, 1, 1, 0].map(|i| query.distance(rows.row(i)));
            assert_eq!(together, alone, "{metric} {} {}", rows.element(), rows.dim());
            let found = f64::from(alone[0]);
            assert!(
                (found - wanted).abs() <= slack * scale.max(1e-3),
                "{metric} {} {}: {found} {wanted}",
                rows.element(),
                rows.dim()
            );
        }
    }

    /// What exact search and rerank tell of near-copies is what the plain definition tells, in
    /// order, and a row is at distance 0 from itself.
    #[test]
    fn near_copies_order_rightly_under_cosine() {
        let mut random = Seeded::new(5);
        let dim = 48;
        for scale in [1e-30f32, 1.0, 1e-4, 1e30] {
            let first: Vec<f32> = (0..dim).map(|_| random.gaussian()).collect();
            // Rows at an angle of about 10^-1 to 10^-6 from the first, and one on the other side.
            let mut values: Vec<f32> = first.iter().map(|x| x * scale).collect();
            for step in 1..=6 {
                let moved = 0.1f32.powi(step);
                let row = first.iter().map(|x| (x + moved * random.gaussian()) * scale);
                values.extend(row.collect::<Vec<f32>>());
            }
            values.extend(first.iter().map(|x| -7.0 * x * scale));
            let rows = Rows::new(dim, Values::F32(values)).unwrap();
            let mut query = ExactQuery::new(Metric::Cosine, Element::F32);
            query.set(rows.row(0));
            let found: Vec<f32> = rows.iter().map(|row| query.distance(row)).collect();
            assert_eq!((found[0], found[7]), (0.0, 2.0), "{scale:e}");
            let norms: Vec<f32> = rows.iter().map(inverse_norm).collect();
            let (ids, mut limited) = ([0, 1, 2, 3, 4, 5, 6, 7], [0.0; 8]);
            query.cosines((&rows, &norms), &ids, 1e-9, &mut limited);
            for ((row, found), near) in rows.iter().zip(&found).zip(limited) {
                let plain = Metric::Cosine.plain_distance(rows.row(0), row);
                let off = (f64::from(*found) - plain).abs();
                assert!(off <= 1e-6 * plain, "{scale:e}: {found} {plain}");
                assert!(near == *found || near >= 1e-9, "{scale:e}: {near} {found}");
            }
            assert!(found[1..7].is_sorted_by(|a, b| a > b), "{found:?}");
        }
        for element in Element::ALL {
            let numbers: Vec<f32> = (0..dim).map(|_| (20.0 * random.gaussian()).round()).collect();
            let numbers = numbers.into_iter().map(|x| x.clamp(-100.0, 100.0));
            let numbers = match element {
                Element::U8 => numbers.map(f32::abs).collect(),
                _ => numbers.collect(),
            };
            let rows = Rows::new(dim, Values::F32(numbers)).unwrap().convert(element).unwrap();
            let mut query = ExactQuery::new(Metric::Cosine, element);
            query.set(rows.row(0));
            assert_eq!(query.distance(rows.row(0)), 0.0, "{element}");
        }
    }

    /// The kernels of a build have the same bits on every level, simsimd has not.
    #[test]
    fn what_a_build_decides_by_is_summed_in_a_fixed_order() {
        let mut random = Seeded::new(7);
        for dim in [5, 48, 100, 770] {
            let numbers: Vec<f32> = (0..2 * dim).map(|_| random.gaussian()).collect();
            let rows = Rows::new(dim, Values::F32(numbers.clone())).unwrap();
            let (x, y) = numbers.split_at(dim);
            let of = |metric| {
                let mut query = ExactQuery::in_fixed_order(metric, Element::F32);
                query.set(rows.row(0));
                query.distance(rows.row(1)).to_bits()
            };
            let norm = float::dot(y, y).sqrt();
            let cosine = float::dot(x, y) * (1.0 / float::square(x).sqrt()) as f32 * (1.0 / norm);
            assert_eq!(of(Metric::L2), float::l2(x, y).to_bits());
            assert_eq!(of(Metric::InnerProduct), (-float::dot(x, y)).to_bits());
            assert_eq!(of(Metric::Cosine), (1.0 - cosine).to_bits());
        }
    }

    #[test]
    fn what_is_too_long_is_seen_in_every_type_that_can_be() {
        let long = [1.9e19f32, 0.0];
        let longer = [1.2e18f32; 16];
        assert!(is_too_long(Row::F32(&long)) && is_too_long(Row::F32(&longer)));
        assert!(is_too_long(Row::Bf16(&long.map(bf16::from_f32))));
        assert!(is_too_long(Row::Bf16(&longer.map(bf16::from_f32))));
        assert!(!is_too_long(Row::Bf16(&[1e18f32, -1e18].map(bf16::from_f32))));
        assert!(!is_too_long(Row::F16(&[f16::MAX; 64])));
    }

    #[test]
    fn data_too_small_for_f32_is_seen_by_most_of_its_rows() {
        let mut random = Seeded::new(8);
        let mut of = |scale: f32, change: &dyn Fn(usize, &mut Vec<f32>)| {
            let mut all = Vec::new();
            for i in 0..50 {
                let mut row: Vec<f32> = (0..8).map(|_| scale * random.gaussian()).collect();
                change(i, &mut row);
                all.extend(row);
            }
            Rows::new(8, Values::F32(all)).unwrap()
        };
        let tiny = of(1e-24, &|_, _| {});
        assert!(vanishing(&tiny, Metric::L2).is_some_and(|square| square < 1e-45));
        assert!(vanishing(&tiny, Metric::InnerProduct).is_some());
        assert_eq!(vanishing(&tiny, Metric::Cosine), None);
        assert!(vanishing(&tiny.convert(Element::Bf16).unwrap(), Metric::L2).is_some());
        // A number that all rows share, or one large row, hides nothing.
        let shared = of(1e-24, &|_, row| row[0] = 1.0);
        assert!(vanishing(&shared, Metric::L2).is_some());
        let one_large = of(1e-24, &|i, row| row[0] = if i == 7 { 1e9 } else { row[0] });
        assert!(vanishing(&one_large, Metric::L2).is_some());
        let fine = of(1e-15, &|_, _| {});
        let zeros = of(1.0, &|i, row| row.fill(if i == 3 { 1.0 } else { 0.0 }));
        let few =
            of(1.0, &|i, row| row.iter_mut().for_each(|x| *x *= if i < 9 { 1e-30 } else { 1.0 }));
        for rows in [fine, zeros, few] {
            assert_eq!(vanishing(&rows, Metric::L2), None);
            assert_eq!(vanishing(&rows, Metric::InnerProduct), None);
        }
    }

    /// The longest rows, as far apart as bytes can be: sums of 65,535 squares of 255.
    #[test]
    fn the_longest_byte_rows_have_their_distance() {
        let dim = foveal_datasets::rows::MAX_DIM;
        let apart = |low: u8, high: u8| [vec![low; dim], vec![high; dim]].concat();
        check(&Rows::new(dim, Values::U8(apart(1, 255))).unwrap(), 2e-5);
        check(&Rows::new(dim, Values::U8(apart(255, 254))).unwrap(), 2e-5);
        let signed = |low, high| apart(low, high).into_iter().map(|x| x as i8).collect();
        check(&Rows::new(dim, Values::I8(signed(0x80, 0x7f))).unwrap(), 2e-5);
        check(&Rows::new(dim, Values::I8(signed(0x80, 0x80))).unwrap(), 2e-5);
    }
}
