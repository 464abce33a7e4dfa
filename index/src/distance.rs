//! "Smaller is closer": from a metric to the distance of two full vectors, and what a walk asks.
//!
//! | metric | distance shown | search space (squared L2 there) |
//! |---|---|---|
//! | `l2` | `sum (q - x)^2` | the rows |
//! | `cosine` | `1 - <q, x> / (abs(q) abs(x))` | rows divided by their norms |
//! | `ip` | `-<q, x>` | rows lifted by `sqrt(U^2 - abs(x)^2)`, queries by 0 |
//!
//! `U` is the largest norm. Pruning, stopping and estimates live in the search space, where the
//! order of distances is the metric's order; only exact distances are shown.

use foveal_datasets::{Element, Metric, Row, Rows, Values};
use simsimd::SpatialSimilarity;

use crate::kernel::{LINE, Level, byte_l2, float};

/// Distances from one query to rows that have an id, in the search space.
pub(crate) trait QueryDistance {
    /// Asks the memory for everything that `distances` will read of `id`.
    fn prefetch(&self, id: u32);
    /// The squared distance of each id, in order, into the first `ids.len()` places of `out`.
    fn distances(&self, ids: &[u32], out: &mut [f32]);
    /// One standard deviation of the error of an id's distance; 0 where distances are exact.
    fn error(&self, id: u32) -> f32;
}

/// Rows among which distances can be asked for: what a graph is grown over.
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
    /// The query as f32.
    wide: Vec<f32>,
    /// The query as bytes of the rows' type, where it holds such bytes.
    bytes: Option<Vec<u8>>,
    inverse_norm: f32,
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
            wide: Vec::new(),
            bytes: None,
            inverse_norm: 1.0,
            widened: Vec::new(),
            common: None,
        }
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
            self.inverse_norm = inverse_norm(Row::F32(&self.wide));
            if !PLAIN_INVERSE_NORMS.contains(&self.inverse_norm) {
                divide_by_largest(&mut self.wide);
                self.inverse_norm = inverse_norm(Row::F32(&self.wide));
            }
        }
    }

    /// The distance to a row. Linear in the dimension. Panics if the dimensions differ.
    pub(crate) fn distance(&mut self, row: Row<'_>) -> f32 {
        match self.metric {
            Metric::L2 => self.squared_l2(row),
            Metric::InnerProduct => -self.product(row),
            Metric::Cosine => self.cosine(row, inverse_norm(row)),
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

    /// The cosine distance to a row whose `inverse_norm` is known.
    pub(crate) fn cosine(&mut self, row: Row<'_>, inverse_norm: f32) -> f32 {
        if !PLAIN_INVERSE_NORMS.contains(&inverse_norm) {
            return self.cosine_of_extreme(row);
        }
        1.0 - self.product(row) * self.inverse_norm * inverse_norm
    }

    /// The same for a row whose norm f32 cannot square.
    #[cold]
    fn cosine_of_extreme(&mut self, row: Row<'_>) -> f32 {
        let mut scaled = vec![0.0; row.dim()];
        row.widen_into(&mut scaled);
        divide_by_largest(&mut scaled);
        let product = narrow(f32::dot(&self.wide, &scaled));
        1.0 - product * self.inverse_norm * inverse_norm(Row::F32(&scaled))
    }

    fn squared_l2(&mut self, row: Row<'_>) -> f32 {
        match (row, &self.bytes) {
            (Row::F32(x), _) => narrow(f32::sqeuclidean(&self.wide, x)),
            (Row::F16(x), _) => float::l2_f16(x, &self.wide),
            (Row::Bf16(x), _) => float::l2_bf16(bytemuck::cast_slice(x), &self.wide),
            (Row::U8(x), Some(q)) => float::l2_u8(x, q) as f32,
            (Row::I8(x), Some(q)) => squared_l2_i8(x, bytemuck::cast_slice(q)),
            (_, None) => {
                self.widened.resize(self.wide.len(), 0.0);
                row.widen_into(&mut self.widened);
                narrow(f32::sqeuclidean(&self.wide, &self.widened))
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
            (Row::F32(x), _) => narrow(f32::dot(&self.wide, x)),
            (Row::F16(x), _) => float::dot_f16(x, &self.wide),
            (Row::Bf16(x), _) => float::dot_bf16(bytemuck::cast_slice(x), &self.wide),
            (Row::U8(x), Some(q)) => float::dot_u8(x, q) as f32,
            (Row::I8(x), Some(q)) => narrow(i8::dot(bytemuck::cast_slice(q), x)),
            (_, None) => {
                self.widened.resize(self.wide.len(), 0.0);
                row.widen_into(&mut self.widened);
                narrow(f32::dot(&self.wide, &self.widened))
            }
        }
    }
}

/// Between these, squares and products of norms keep all their digits in f32.
const PLAIN_INVERSE_NORMS: std::ops::RangeInclusive<f32> = 1e-15..=1e15;

/// Keeps the direction; the largest number becomes 1 or -1. Zeros stay zeros.
fn divide_by_largest(vector: &mut [f32]) {
    let largest = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    if largest > 0.0 {
        vector.iter_mut().for_each(|x| *x /= largest);
    }
}

/// The largest squared norm of a row or query: what distances add up to stays within f32.
pub(crate) const MAX_SQUARE: f32 = f32::MAX / 16.0;

/// Whether the squared norm of a vector passes [`MAX_SQUARE`]; f32 alone can.
pub(crate) fn is_too_long(vector: Row<'_>) -> bool {
    matches!(vector, Row::F32(x) if float::dot(x, x) > MAX_SQUARE)
}

/// One over the norm of a row; outside of `PLAIN_INVERSE_NORMS` it may be wrong, even 0, but lies
/// outside as well. 0 for a row of zeros, which a build refuses under cosine.
pub(crate) fn inverse_norm(row: Row<'_>) -> f32 {
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
    if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }
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
    use foveal_datasets::synthetic::Seeded;
    use foveal_datasets::{Rows, Values};
    use half::{bf16, f16};

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
