//! Whether a truth is that of given rows under a metric: every key must name a row, and distances
//! of a sample, computed again from the rows, must be those of the truth and in its order.

use std::collections::HashSet;

use crate::error::FileError;
use crate::metric::Metric;
use crate::row_source::RowSource;
use crate::rows::{Element, Row, Rows};
use crate::truth_file::Truth;
use crate::vector_file::VectorFile;

/// Queries looked at.
const QUERIES: usize = 64;
/// Neighbors of each of them whose distances are computed.
const NEIGHBORS: usize = 16;
/// Rows that no truth names, perhaps: none may be nearer than the true neighbors.
const OTHERS: usize = 256;
/// Share by which a distance that was rounded to single precision may be off.
const ROUNDED: f64 = 1e-3;

/// Rows that have keys.
pub trait KeyedRows {
    /// Why rows cannot be had.
    type Error;
    /// How many of `keys` name a row.
    ///
    /// # Errors
    /// Keys cannot be looked up.
    fn count_known(&self, keys: &[u64]) -> Result<usize, Self::Error>;
    /// The rows that `keys` name, in their order: `[keys x dim]`.
    ///
    /// # Errors
    /// A row cannot be read, or a key names none.
    fn rows(&self, keys: &[u64]) -> Result<Rows, Self::Error>;
    /// Keys of about `count` rows, spread over all of them.
    fn some_keys(&self, count: usize) -> Vec<u64>;
    /// What kind of numbers the rows hold.
    fn element(&self) -> Element;
}

/// Rows of a file, whose keys are their numbers.
impl KeyedRows for VectorFile {
    type Error = FileError;

    fn count_known(&self, keys: &[u64]) -> Result<usize, FileError> {
        Ok(keys.iter().filter(|key| **key < self.len() as u64).count())
    }

    fn rows(&self, keys: &[u64]) -> Result<Rows, FileError> {
        let row = |key: &u64| usize::try_from(*key).unwrap_or(usize::MAX - 1);
        self.read_each(&keys.iter().map(row).collect::<Vec<usize>>())
    }

    fn some_keys(&self, count: usize) -> Vec<u64> {
        spread(self.len(), count).map(|row| row as u64).collect()
    }

    fn element(&self) -> Element {
        RowSource::element(self)
    }
}

/// Why a truth is not that of some rows.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TruthMismatch {
    /// Keys that name no row.
    #[error(
        "{known} of {keys} keys of the truth are in {place}; wanted all of them: \
         is it of other rows, or of row numbers where rows have other keys?"
    )]
    Keys {
        /// How many name a row.
        known: usize,
        /// How many there are.
        keys: usize,
        /// Where the rows are: "this index".
        place: &'static str,
    },
    /// A row is named twice.
    #[error("query {query}: found neighbor {key} twice; wanted each row once")]
    Twice {
        /// The query.
        query: usize,
        /// The key.
        key: u64,
    },
    /// A distance is not that of the row.
    #[error(
        "query {query}: found distance {found} of neighbor {key}; under {metric} it is {wanted}: \
         a truth of another metric, of other rows or of other queries"
    )]
    Distance {
        /// The query.
        query: usize,
        /// The neighbor.
        key: u64,
        /// The truth's distance.
        found: f32,
        /// The distance computed from the row.
        wanted: f64,
        /// Under which metric.
        metric: Metric,
    },
    /// Neighbors are not in the order of their distances.
    #[error(
        "query {query}: found neighbor {key} at distance {distance} under {metric} behind one at \
         {before}; wanted nearest first: a truth of another metric, of other rows or of other \
         queries"
    )]
    Order {
        /// The query.
        query: usize,
        /// The neighbor.
        key: u64,
        /// Its distance computed from the row.
        distance: f64,
        /// That of the neighbor before it.
        before: f64,
        /// Under which metric.
        metric: Metric,
    },
    /// A row that the truth leaves out is nearer than its last neighbor.
    #[error(
        "query {query}: row {key}, at distance {distance} under {metric}, is none of its true \
         neighbors, which reach to {last}: a truth of another metric, of other rows or of other \
         queries"
    )]
    LeftOut {
        /// The query.
        query: usize,
        /// The row left out.
        key: u64,
        /// Its distance.
        distance: f64,
        /// The distance of the last true neighbor looked at.
        last: f64,
        /// Under which metric.
        metric: Metric,
    },
}

/// What a truth is compared with.
#[derive(Clone, Copy)]
pub struct TruthCheck<'a, R> {
    /// The truth.
    pub truth: &'a Truth,
    /// How many neighbors of each query will be used; at most as many as the truth holds.
    pub k: usize,
    /// What near means.
    pub metric: Metric,
    /// The rows.
    pub rows: &'a R,
    /// Where they are, for messages: "this index".
    pub place: &'static str,
}

impl<R: KeyedRows> TruthCheck<'_, R> {
    /// What contradicts that the truth is the truth of these rows for `queries` queries, the
    /// first ones of it; `query_of(q)` is query `q` in f32. Linear in the keys, and some thousand
    /// distances.
    ///
    /// # Errors
    /// A row cannot be read.
    pub fn run(
        &self,
        queries: usize,
        query_of: &dyn Fn(usize) -> Vec<f32>,
    ) -> Result<Option<TruthMismatch>, R::Error> {
        let queries = queries.min(self.truth.queries());
        let keys: Vec<u64> = (0..queries).flat_map(|query| self.keys(query)).collect();
        let known = self.rows.count_known(&keys)?;
        if known < keys.len() {
            let (keys, place) = (keys.len(), self.place);
            return Ok(Some(TruthMismatch::Keys { known, keys, place }));
        }
        drop(keys);
        let sample: Vec<usize> = spread(queries, QUERIES).collect();
        let looked_at = |query: usize| {
            let count = self.keys(query).count();
            spread(count, NEIGHBORS).map(move |rank| (query, rank))
        };
        let places: Vec<(usize, usize)> = sample.iter().flat_map(|q| looked_at(*q)).collect();
        let key_at = |(query, rank): &(usize, usize)| self.truth.keys(*query)[*rank] as u64;
        let named: Vec<u64> = places.iter().map(key_at).collect();
        let others = self.rows.some_keys(OTHERS);
        let wanted: Vec<u64> = named.iter().chain(&others).copied().collect();
        let rows = self.rows.rows(&wanted)?;
        let (mut first, mut strange) = (0, Strange::default());
        for query in sample {
            let count = places[first..].iter().take_while(|(of, _)| *of == query).count();
            let vector = query_of(query);
            let one = OneQuery { check: self, query, vector: Row::F32(&vector) };
            let near = (&places[first..first + count], first);
            if let Some(mismatch) = one.mismatch(near, (&others, named.len()), &rows, &mut strange)
            {
                return Ok(Some(mismatch));
            }
            first += count;
        }
        Ok(strange.verdict())
    }

    /// The keys of the neighbors of a query that exist.
    fn keys(&self, query: usize) -> impl Iterator<Item = u64> {
        let keys = &self.truth.keys(query)[..self.k.min(self.truth.k())];
        keys.iter().filter_map(|key| u64::try_from(*key).ok())
    }
}

/// Distances that are within the rounding of their terms, yet off by more than their own.
#[derive(Default)]
struct Strange {
    first: Option<TruthMismatch>,
    count: usize,
    of: usize,
}

impl Strange {
    /// A few may be: other programs subtract large terms. Where most are, they are of another rule.
    fn verdict(self) -> Option<TruthMismatch> {
        self.first.filter(|_| 4 * self.count > self.of)
    }
}

/// One query of the sample.
struct OneQuery<'a, R> {
    check: &'a TruthCheck<'a, R>,
    query: usize,
    vector: Row<'a>,
}

impl<R: KeyedRows> OneQuery<'_, R> {
    /// Looks at the neighbors at `places`, whose rows start with row `first`, and at rows of other
    /// keys, which start with row `beyond`.
    fn mismatch(
        &self,
        (places, first): (&[(usize, usize)], usize),
        (others, beyond): (&[u64], usize),
        rows: &Rows,
        strange: &mut Strange,
    ) -> Option<TruthMismatch> {
        let OneQuery { check: &TruthCheck { truth, metric, .. }, query, vector } = *self;
        let precision = precision_of(self.check.rows.element());
        let keys: Vec<u64> = self.check.keys(query).collect();
        let mut seen = HashSet::new();
        if let Some(key) = keys.iter().find(|key| !seen.insert(**key)) {
            return Some(TruthMismatch::Twice { query, key: *key });
        }
        let mut before = (f64::NEG_INFINITY, 0.0);
        for (i, (_, rank)) in places.iter().enumerate() {
            let (key, row) = (truth.keys(query)[*rank] as u64, rows.row(first + i));
            let distance = metric.plain_distance(vector, row);
            let slack = slack(metric, distance, (vector, row), precision);
            if let Some(found) = truth.distances(query).map(|distances| distances[*rank]) {
                let off = (f64::from(found) - distance).abs();
                let wrong =
                    || TruthMismatch::Distance { query, key, found, wanted: distance, metric };
                // NaN is no agreement either.
                if off.is_nan() || off > slack {
                    return Some(wrong());
                }
                strange.of += 1;
                if precision == PRECISE && off > ROUNDED * distance.abs() {
                    strange.count += 1;
                    strange.first.get_or_insert_with(wrong);
                }
            }
            if distance + slack < before.0 - before.1 {
                return Some(TruthMismatch::Order {
                    query,
                    key,
                    distance,
                    before: before.0,
                    metric,
                });
            }
            before = (distance, slack);
        }
        let (last, last_slack) = before;
        for (i, key) in others.iter().enumerate().filter(|(_, key)| !seen.contains(*key)) {
            let row = rows.row(beyond + i);
            let distance = metric.plain_distance(vector, row);
            let slack = slack(metric, distance, (vector, row), precision);
            // The last place looked at is the last there is.
            if distance + slack < last - last_slack {
                return Some(TruthMismatch::LeftOut { query, key: *key, distance, last, metric });
            }
        }
        None
    }
}

/// Whether `found` may be the distance of two vectors as another program computes it in single
/// precision, or from rows that were rounded to `element`.
pub fn is_distance(
    metric: Metric,
    found: f32,
    (query, row): (Row<'_>, Row<'_>),
    element: Element,
) -> bool {
    let distance = metric.plain_distance(query, row);
    let off = (f64::from(found) - distance).abs();
    off <= slack(metric, distance, (query, row), precision_of(element))
}

/// What single precision rounds the terms of a distance by, with some to spare.
const PRECISE: f64 = 1e-6;

/// What the terms of a distance may be off by, as a share: rows of 16 bits may be rounded ones,
/// their truth that of the rows before.
fn precision_of(element: Element) -> f64 {
    match element {
        Element::F32 | Element::U8 | Element::I8 => PRECISE,
        Element::F16 => 1.0 / 1024.0,
        Element::Bf16 => 1.0 / 128.0,
    }
}

/// How far a reported distance may be from the true one: by its own rounding and that of its terms.
fn slack(metric: Metric, distance: f64, (query, row): (Row<'_>, Row<'_>), precision: f64) -> f64 {
    let square = |row: Row<'_>| -Metric::InnerProduct.plain_distance(row, row);
    ROUNDED * distance.abs() + precision * metric.terms(square(query), square(row))
}

/// About `count` of the numbers `0..all`, evenly spread, the last one among them.
fn spread(all: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(all);
    (1..=count).map(move |i| i * all / count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Values;
    use crate::seeded::Seeded;

    /// Rows in memory whose keys are 7 times their number.
    struct Keyed(Rows);

    impl KeyedRows for Keyed {
        type Error = ();

        fn count_known(&self, keys: &[u64]) -> Result<usize, ()> {
            let is_known = |key: &&u64| key.is_multiple_of(7) && **key < 7 * self.0.len() as u64;
            Ok(keys.iter().filter(is_known).count())
        }

        fn rows(&self, keys: &[u64]) -> Result<Rows, ()> {
            let mut all = Vec::new();
            for key in keys {
                let mut row = vec![0.0; self.0.dim()];
                self.0.row(*key as usize / 7).widen_into(&mut row);
                all.extend(row);
            }
            Rows::new(self.0.dim(), Values::F32(all)).map_err(|_| ())
        }

        fn some_keys(&self, count: usize) -> Vec<u64> {
            spread(self.0.len(), count).map(|row| 7 * row as u64).collect()
        }

        fn element(&self) -> Element {
            self.0.element()
        }
    }

    fn rows(count: usize, seed: u64, unit: bool, scale: f32) -> Rows {
        let mut random = Seeded::new(seed);
        let mut values: Vec<f32> = Vec::new();
        for _ in 0..count {
            let row: Vec<f32> = (0..8).map(|_| random.gaussian()).collect();
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            values.extend(row.iter().map(|x| x * scale / if unit { norm } else { 1.0 }));
        }
        Rows::new(8, Values::F32(values)).unwrap()
    }

    fn truth(rows: &Rows, queries: &Rows, metric: Metric, k: usize) -> Truth {
        let (mut keys, mut distances) = (Vec::new(), Vec::new());
        for query in queries.iter() {
            let mut near: Vec<(f64, usize)> =
                (0..rows.len()).map(|i| (metric.plain_distance(query, rows.row(i)), i)).collect();
            near.sort_by(|a, b| a.0.total_cmp(&b.0));
            keys.extend(near[..k].iter().map(|(_, i)| 7 * *i as i64));
            distances.extend(near[..k].iter().map(|(distance, _)| *distance as f32));
        }
        Truth::new(queries.len(), k, keys, Some(distances)).unwrap()
    }

    fn without_distances(truth: &Truth) -> Truth {
        let keys = (0..truth.queries()).flat_map(|q| truth.keys(q).to_vec()).collect();
        Truth::new(truth.queries(), truth.k(), keys, None).unwrap()
    }

    fn said(truth: &Truth, rows: &Rows, queries: &Rows, metric: Metric) -> Option<String> {
        let keyed = Keyed(rows.clone());
        let check = TruthCheck { truth, k: truth.k(), metric, rows: &keyed, place: "this index" };
        let query_of = |q: usize| {
            let mut wide = vec![0.0; queries.dim()];
            queries.row(q).widen_into(&mut wide);
            wide
        };
        let mismatch = check.run(queries.len(), &query_of).unwrap();
        mismatch.map(|mismatch| mismatch.to_string())
    }

    #[test]
    fn a_truth_of_these_rows_passes_at_any_scale() {
        for (metric, scale) in
            Metric::ALL.into_iter().flat_map(|metric| [1e-12, 1.0, 1e12].map(|s| (metric, s)))
        {
            let (rows, queries) = (rows(300, 1, false, scale), rows(30, 2, false, scale));
            let truth = truth(&rows, &queries, metric, 20);
            assert_eq!(said(&truth, &rows, &queries, metric), None, "{metric} {scale}");
            let bare = without_distances(&truth);
            assert_eq!(said(&bare, &rows, &queries, metric), None, "{metric} {scale}");
        }
    }

    #[test]
    fn a_truth_of_another_metric_is_told_by_distances_or_order() {
        for scale in [1e-12, 1.0, 1e12] {
            let (rows, queries) = (rows(300, 1, true, scale), rows(30, 2, true, scale));
            let l2 = truth(&rows, &queries, Metric::L2, 10);
            // The same order, twice the distances.
            let wrong = said(&l2, &rows, &queries, Metric::Cosine).unwrap();
            assert!(wrong.contains("under cosine it is"), "{wrong}");
            assert_eq!(said(&without_distances(&l2), &rows, &queries, Metric::Cosine), None);
        }
        let (rows, queries) = (rows(300, 1, false, 1e-6), rows(30, 2, false, 1e-6));
        for (is, claimed) in [
            (Metric::L2, Metric::InnerProduct),
            (Metric::L2, Metric::Cosine),
            (Metric::Cosine, Metric::L2),
            (Metric::InnerProduct, Metric::L2),
        ] {
            let of_one = truth(&rows, &queries, is, 10);
            assert!(said(&of_one, &rows, &queries, claimed).unwrap().contains("it is"));
            let bare = without_distances(&of_one);
            let wrong = said(&bare, &rows, &queries, claimed).unwrap();
            assert!(wrong.contains("nearest first") || wrong.contains("none of its"), "{wrong}");
        }
    }

    #[test]
    fn a_truth_of_near_copies_under_another_metric_is_told() {
        // Unit rows so near to each other that the rounding of their terms hides every distance.
        let mut values = Vec::new();
        for i in 0..300 {
            let mut row = [0.0f32; 8];
            (row[0], row[1 + i % 7]) = (1.0, 1e-4 * (i as f32 + 1.0) / 300.0);
            values.extend(row);
        }
        let rows = Rows::new(8, Values::F32(values)).unwrap();
        let l2 = truth(&rows, &rows, Metric::L2, 10);
        assert_eq!(said(&l2, &rows, &rows, Metric::L2), None);
        assert!(said(&l2, &rows, &rows, Metric::Cosine).unwrap().contains("under cosine"));
    }

    #[test]
    fn keys_and_rows_of_others_are_told() {
        let (rows, queries) = (rows(300, 1, false, 1.0), rows(30, 2, false, 1.0));
        let good = truth(&rows, &queries, Metric::L2, 1);
        let numbers = (0..30).map(|q| good.keys(q)[0] * 7 + 1).collect();
        let numbers = Truth::new(30, 1, numbers, None).unwrap();
        let wrong = said(&numbers, &rows, &queries, Metric::L2).unwrap();
        assert!(wrong.starts_with("0 of 30 keys of the truth are in this index"), "{wrong}");
        // One neighbor has no order: that others are nearer tells.
        let others = (0..30).map(|q| 7 * (q * 9 + 5)).collect();
        let others = Truth::new(30, 1, others, None).unwrap();
        let wrong = said(&others, &rows, &queries, Metric::L2).unwrap();
        assert!(wrong.contains("is none of its true neighbors"), "{wrong}");
        let twice = Truth::new(1, 2, vec![7, 7], None).unwrap();
        assert!(said(&twice, &rows, &queries, Metric::L2).unwrap().contains("twice"));
        // Missing neighbors are no keys.
        let few = Truth::new(1, 3, vec![good.keys(0)[0], -1, -1], None).unwrap();
        assert_eq!(said(&few, &rows, &queries, Metric::L2), None);
    }

    #[test]
    fn rounded_rows_may_have_the_truth_of_the_rows_before() {
        let (rows, queries) = (rows(300, 1, false, 1.0), rows(30, 2, false, 1.0));
        for metric in Metric::ALL {
            let truth = truth(&rows, &queries, metric, 10);
            for element in [Element::F16, Element::Bf16] {
                let rounded = rows.convert(element).unwrap();
                assert_eq!(said(&truth, &rounded, &queries, metric), None, "{metric} {element}");
            }
        }
    }

    #[test]
    fn numbers_are_spread_to_the_last() {
        assert_eq!(spread(10, 3).collect::<Vec<_>>(), [2, 5, 9]);
        assert_eq!(spread(2, 5).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(spread(0, 5).count(), 0);
    }
}
