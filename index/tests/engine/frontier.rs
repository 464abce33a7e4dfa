//! What an index expects of a list size, against what queries find with it.

use foveal_datasets::{Element, Metric};
use foveal_index::stats::Job;
use foveal_index::{BuildInput, Frontier, Index, Keys, SearchParams, build};

use crate::built::{Built, answers, floats, params, recall_of, rows_and_queries, write_rows};

/// The recall that 300 new queries of the same clusters find with the parameters of a target,
/// beside the recall expected.
fn achieved(
    index: &Index,
    built: &Built,
    queries: &foveal_datasets::Rows,
    target: f64,
) -> (f64, f64) {
    let (params, expected) = index.frontier().choose(10, target).unwrap();
    let answers = answers(index, queries, &params);
    let found = recall_of(&answers, &built.exact(queries, 10), 10, built.report.manifest.metric);
    (found, expected)
}

#[test]
fn new_queries_find_what_was_expected() {
    for (metric, element) in [
        (Metric::L2, Element::U8),
        (Metric::Cosine, Element::F32),
        (Metric::InnerProduct, Element::F16),
    ] {
        let (rows, queries) = rows_and_queries(element, 6000, 300, 32);
        let built = Built::new(&rows, &params(metric, 4));
        let index = built.open();
        let frontier = index.frontier();
        assert_eq!((frontier.queries, frontier.learned), (574, false), "a tenth of the rows");
        for target in [0.9, 0.95, 0.99] {
            let (found, expected) = achieved(&index, &built, &queries, target);
            // 574 rows were asked then and 300 are now: their means differ by chance.
            assert!((found - expected).abs() < 0.03, "{metric} {target}: {found} not {expected}");
            assert!(expected >= target, "{metric} {target}: expected {expected}");
        }
    }
}

#[test]
fn larger_lists_cost_and_find_more() {
    let (rows, _) = rows_and_queries(Element::F32, 3000, 1, 24);
    let index = Built::new(&rows, &params(Metric::L2, 4)).open();
    let Frontier { points, .. } = index.frontier();
    for pair in points.windows(2).filter(|pair| pair[0].k == pair[1].k) {
        assert!(pair[0].list_size < pair[1].list_size);
        assert!(pair[0].distances <= pair[1].distances, "{pair:?}");
        assert!(pair[0].recall <= pair[1].recall + 0.01, "{pair:?}");
    }
    assert!(points.iter().all(|point| point.lower <= point.recall && point.k <= point.list_size));
    for k in [1, 7, 10, 100] {
        let (chosen, expected) = index.frontier().choose(k, 0.9).unwrap();
        assert!(chosen.k == k && chosen.list_size >= k && expected >= 0.9, "{k}: {chosen:?}");
        assert_eq!(chosen, SearchParams::with_list_size(k, chosen.list_size));
    }
}

/// Queries far from every row are another matter, and the index knows when it was told.
#[test]
fn sample_queries_teach_what_rows_cannot() {
    let dim = 16;
    let (rows, _) = rows_and_queries(Element::F32, 4000, 1, dim);
    // Far outside, in few directions: every row is about as near.
    let far = |count: usize, phase: f32| {
        let number = |i: usize| 40.0 * ((i / dim) as f32 * 0.37 + (i % dim) as f32 + phase).sin();
        floats(dim, (0..count * dim).map(number).collect())
    };
    let dir = tempfile::tempdir().unwrap();
    let learn = write_rows(dir.path(), "learn", &far(400, 0.0));
    let plain = Built::new(&rows, &params(Metric::InnerProduct, 4));
    let taught = dir.path().join("taught");
    let input = BuildInput {
        base: &plain.base,
        keys: Keys::From(0),
        payload: None,
        learn: Some(&learn),
        bias: false,
    };
    build(&input, &taught, &params(Metric::InnerProduct, 4), Job::default()).unwrap();
    let taught = Index::open(&taught).unwrap();
    assert_eq!((taught.frontier().queries, taught.frontier().learned), (400, true));
    let (found, expected) = achieved(&taught, &plain, &far(200, 0.011), 0.9);
    assert!((found - expected).abs() < 0.03, "{found} found, {expected} expected");
}

#[test]
fn few_rows_are_all_found() {
    for n in [1, 9, 260] {
        let (rows, _) = rows_and_queries(Element::F32, n, 1, 8);
        let built = Built::new(&rows, &params(Metric::L2, 4));
        let index = built.open();
        assert_eq!(index.frontier().queries, 0);
        let (params, expected) = index.frontier().choose(5, 0.99).unwrap();
        assert_eq!(expected, 1.0);
        let answers = answers(&index, &rows, &params);
        let k = n.min(5);
        assert_eq!(recall_of(&answers, &built.exact(&rows, k), k, Metric::L2), 1.0, "{n} rows");
    }
}

#[test]
fn what_cannot_be_aimed_at_is_refused() {
    let (rows, _) = rows_and_queries(Element::F32, 300, 1, 8);
    let index = Built::new(&rows, &params(Metric::L2, 4)).open();
    let refused = |k, target| index.frontier().choose(k, target).unwrap_err().to_string();
    assert_eq!(refused(10, 1.0), "target_recall is 1; wanted 0 to below 1");
    assert_eq!(refused(10, f64::NAN), "target_recall is NaN; wanted 0 to below 1");
    assert_eq!(refused(101, 0.9), "k is 101; wanted 1 to 100 with a target recall");
    assert_eq!(refused(0, 0.9), "k is 0; wanted 1 to 100 with a target recall");
}
