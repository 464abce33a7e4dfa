//! What an index expects of a list size, against what queries find with it.

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Element, Metric};
use foveal_index::stats::Job;
use foveal_index::{
    BuildInput, ExactRequest, Frontier, FrontierPoint, Keys, SearchParams, Segment, build, exact,
};

use crate::built::{Built, answers, floats, params, recall_of, rows_and_queries, write_rows};

/// The recall that 300 new queries of the same clusters find with the parameters of a target,
/// beside the recall expected.
fn achieved(
    index: &Segment,
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
            // 574 rows were queries then and 300 are now: their means differ by chance.
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
    let input = BuildInput { learn: Some(&learn), ..BuildInput::of(&plain.base) };
    build(&input, &taught, &params(Metric::InnerProduct, 4), Job::default()).unwrap();
    let taught = Segment::open(&taught).unwrap();
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

/// Of the points of a frontier learned from `learned` queries, how many lie no higher than what
/// `others` queries of the same law find with the same effort, and how many there are.
fn bounds_held(seed: u64, (n, learned, others): (usize, usize, usize)) -> (usize, usize) {
    let mut random = Seeded::new(seed);
    let dim = [8, 12, 16, 24, 32][seed as usize % 5];
    let metric = Metric::ALL[seed as usize % 3];
    let spread = [0.3, 0.6, 1.0, 2.0][seed as usize % 4];
    let centres: Vec<f32> = (0..20 * dim).map(|_| random.gaussian()).collect();
    let mut draw = |count: usize, spread: f32| {
        let mut numbers = Vec::with_capacity(count * dim);
        for _ in 0..count {
            let centre = (random.next_u64() % 20) as usize * dim;
            let row = &centres[centre..centre + dim];
            numbers.extend(row.iter().map(|x| x + spread * random.gaussian()));
        }
        floats(dim, numbers)
    };
    // Queries are unlike the rows in every other data set.
    let wider = if seed.is_multiple_of(2) { spread } else { 1.5 * spread };
    let (rows, learn, fresh) = (draw(n, spread), draw(learned, wider), draw(others, wider));
    let dir = tempfile::tempdir().unwrap();
    let [base, learn] =
        [("base", &rows), ("learn", &learn)].map(|(name, rows)| write_rows(dir.path(), name, rows));
    let (keys, out) = (Keys::From(0), dir.path().join("index"));
    let input = BuildInput { keys, learn: Some(&learn), ..BuildInput::of(&base) };
    let bits = if seed % 4 == 3 { 8 } else { 4 };
    build(&input, &out, &params(metric, bits), Job::default()).unwrap();
    let index = Segment::open(&out).unwrap();
    let request = ExactRequest { metric, k: 100, threads: 0 };
    let exact = exact::search(&base, &fresh, &request, Job::default()).unwrap();
    let points = index.frontier().points.iter().filter(|point| point.list_size <= 100);
    let held = |point: &FrontierPoint| {
        let params = SearchParams::with_list_size(point.k, point.list_size);
        let found = recall_of(&answers(&index, &fresh, &params), &exact, point.k as usize, metric);
        found >= point.lower
    };
    let held: Vec<bool> = points.map(held).collect();
    (held.iter().filter(|held| **held).count(), held.len())
}

#[test]
fn other_queries_find_what_the_bounds_promise() {
    let all = [1, 2].map(|seed| bounds_held(seed, (1200, 300, 400)));
    let (held, points) = all.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(points > 60 && held as f64 >= 0.95 * points as f64, "{all:?}");
}

#[test]
#[ignore = "takes minutes: twenty data sets, a thousand queries to learn from, two thousand others"]
fn other_queries_find_what_the_bounds_promise_on_many_data_sets() {
    let all: Vec<(usize, usize)> =
        (0..24).map(|seed| bounds_held(seed, (3000, 1000, 2000))).collect();
    let poor = all.iter().filter(|(held, points)| (*held as f64) < 0.95 * *points as f64).count();
    let (held, points) = all.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    println!("{all:?}: {held} of {points} hold, {poor} data sets below 95 %");
    assert!(poor <= 1 && held as f64 >= 0.97 * points as f64, "{all:?}");
}

#[test]
fn one_query_promises_nothing_and_copies_are_one() {
    let (rows, queries) = rows_and_queries(Element::F32, 1500, 40, 12);
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows);
    let mut first = vec![0.0; 12];
    queries.row(0).widen_into(&mut first);
    let copies = floats(12, first.repeat(200));
    for (name, learn, most) in
        [("one", floats(12, first), 0.0), ("copies", copies, 0.0), ("forty", queries, 0.95)]
    {
        let learn = write_rows(dir.path(), name, &learn);
        let (keys, out) = (Keys::From(0), dir.path().join(format!("{name}.index")));
        let input = BuildInput { keys, learn: Some(&learn), ..BuildInput::of(&base) };
        build(&input, &out, &params(Metric::L2, 4), Job::default()).unwrap();
        let frontier = Segment::open(&out).unwrap().frontier().clone();
        let lower = frontier.points.iter().map(|point| point.lower).fold(0.0, f64::max);
        assert!(lower <= most && (most == 0.0 || lower > 0.5), "{name}: {lower}");
    }
}
