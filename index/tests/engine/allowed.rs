//! Searches among some of the rows, against a scan of those in double precision.

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Element, Metric, Rows};
use foveal_index::stats::Stop;
use foveal_index::{Answer, IdSet, Query, SearchParams, Segment};

use crate::built::{self, Built, floats, params, part, rows_and_queries};

const K: usize = 10;

/// The answers to all queries among the rows that are allowed.
fn answers(index: &Segment, queries: &Rows, allowed: &IdSet, list_size: u32) -> Vec<Answer> {
    let params = SearchParams::with_list_size(K as u32, list_size);
    let mut searcher = index.searcher();
    let query = |row| Query { row, params, allowed: Some(allowed), stop: Stop::default() };
    queries.iter().map(|row| searcher.search_one(query(row)).unwrap()).collect()
}

/// The share of the true nearest allowed rows that are found; as many as there are must be given,
/// and none that is not allowed.
fn recall(built: &Built, rows: &Rows, queries: &Rows, keys: &[u64], list_size: u32) -> f64 {
    let index = built.open();
    let allowed = index.id_set(keys).unwrap();
    assert_eq!(allowed.len() as usize, keys.len());
    let metric = built.report.manifest.metric;
    let k = K.min(keys.len());
    let mut found = 0;
    for (query, answer) in queries.iter().zip(answers(&index, queries, &allowed, list_size)) {
        let exact = |key: u64| metric.plain_distance(query, rows.row(key as usize));
        let mut sorted: Vec<f64> = keys.iter().map(|key| exact(*key)).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        // Sums of f32 are rounded.
        let limit = sorted.get(k.wrapping_sub(1)).map_or(0.0, |last| last + 1e-5 * last.abs());
        assert_eq!(answer.neighbors.len(), k, "{} allowed", keys.len());
        assert_eq!(answer.exhausted, keys.len() < K);
        for neighbor in &answer.neighbors {
            assert!(keys.binary_search(&neighbor.key).is_ok(), "key {}", neighbor.key);
            found += usize::from(exact(neighbor.key) <= limit);
        }
    }
    found as f64 / (k.max(1) * queries.len()) as f64
}

#[test]
fn as_many_as_are_allowed_are_found_whatever_their_share() {
    let n = 12_000;
    let mut random = Seeded::new(3);
    for (metric, element, bits) in [
        (Metric::L2, Element::F32, 4),
        (Metric::Cosine, Element::F32, 5),
        (Metric::InnerProduct, Element::F16, 8),
        (Metric::L2, Element::U8, 8),
    ] {
        let (rows, queries) = rows_and_queries(element, n, 20, 24);
        let built = Built::new(&rows, &params(metric, bits));
        for share in [0.9, 0.5, 0.3, 0.1, 0.01, 0.001, 0.0002] {
            let keys: Vec<u64> =
                (0..n as u64).filter(|_| random.next_f32() < share as f32).collect();
            let found = recall(&built, &rows, &queries, &keys, 64);
            assert!(found >= 0.98, "{metric} {element} {bits}, {share}: recall {found}");
        }
        assert_eq!(recall(&built, &rows, &queries, &[5], 64), 1.0);
        recall(&built, &rows, &queries, &[], 64);
    }
}

/// Rows of one cluster alone, and all but those of the clusters nearby: what is allowed lies near
/// the queries, or far from them.
#[test]
fn allowed_rows_near_and_far_are_found() {
    let (n, centres) = (12_000, 200);
    let (rows, queries) = rows_and_queries(Element::F32, n, 12, 24);
    let built = Built::new(&rows, &params(Metric::L2, 4));
    for query in 0..12 {
        // Row i lies around centre i mod 200; the queries come after all rows.
        let own = ((n + query) % centres) as u64;
        let queries = part(&queries, query..query + 1);
        let near: Vec<u64> = (0..n as u64).filter(|key| key % centres as u64 == own).collect();
        let distance =
            |key: &u64| Metric::L2.plain_distance(queries.row(0), rows.row(*key as usize));
        let mut far: Vec<u64> = (0..n as u64).collect();
        far.sort_by(|a, b| distance(a).total_cmp(&distance(b)));
        far.drain(..n / 2);
        far.sort_unstable();
        for keys in [near, far] {
            let found = recall(&built, &rows, &queries, &keys, 40);
            assert!(found >= 0.9, "{} allowed: recall {found}", keys.len());
        }
    }
}

#[test]
fn all_rows_allowed_find_what_a_plain_search_finds() {
    let (rows, queries) = rows_and_queries(Element::F32, 6_000, 20, 24);
    let built = Built::new(&rows, &params(Metric::L2, 4));
    let keys: Vec<u64> = (0..6_000).collect();
    assert!(recall(&built, &rows, &queries, &keys, 64) >= 0.99);
}

#[test]
fn a_scan_ends_when_nobody_waits() {
    let (rows, queries) = rows_and_queries(Element::F32, 3_000, 1, 24);
    let built = Built::new(&rows, &params(Metric::L2, 4));
    let index = built.open();
    let allowed = index.id_set(&(0..2_000).collect::<Vec<u64>>()).unwrap();
    let cancelled = std::sync::atomic::AtomicBool::new(true);
    let stop = Stop { deadline: None, cancelled: Some(&cancelled) };
    let (row, params) = (queries.row(0), SearchParams::new(10));
    let query = Query { row, params, allowed: Some(&allowed), stop };
    assert!(index.searcher().search_one(query).is_err());
}

/// Four bits tell rows of two groups far apart from each other, and those of one group hardly.
#[test]
fn a_search_of_few_rows_finds_them_all() {
    for n in [1, 100, 512] {
        let mut random = Seeded::new(n);
        let far = |row: usize| if row.is_multiple_of(2) { 1e4 } else { -1e4 };
        let numbers = (0..(n as usize + 20) * 16).map(|i| far(i / 16) + random.gaussian());
        let all = floats(16, numbers.collect());
        let (rows, queries) = (part(&all, 0..n as usize), part(&all, n as usize..all.len()));
        let built = Built::new(&rows, &params(Metric::L2, 4));
        let exact = built.exact(&queries, 10);
        for (answer, exact) in
            built::answers(&built.open(), &queries, &SearchParams::new(10)).iter().zip(exact)
        {
            assert_eq!(answer.neighbors, exact, "{n} rows");
            assert_eq!((answer.stats.scanned, answer.stats.hops), (n, 0));
        }
    }
}
