//! Ugly data: a default search finds the nearest rows, or the build said that it would not.
//!
//! Every build is of random rows of one kind, and is compared with a scan in f64. The environment
//! variable `FOVEAL_TEST_UGLY_BUILDS` sets how many there are, `FOVEAL_TEST_UGLY_FIRST` where they
//! start.

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Element, Metric, Rows};
use foveal_index::stats::Job;
use foveal_index::{BuildInput, BuildParams, SearchParams, Segment, build};

use crate::built::{Built, answers, floats, params, part, wide, write_rows};

const COUNT: &str = "FOVEAL_TEST_UGLY_BUILDS";
/// The variable with the seed of the first one; 0 if it is not set.
const FIRST: &str = "FOVEAL_TEST_UGLY_FIRST";
/// The default of builds.
const BUILDS: u64 = 60;
const QUERIES: usize = 25;
const K: usize = 10;
/// The recall that a default search must reach unless the build warned.
const WANTED: f64 = 0.95;

/// At most one build in so many finds less than 0.9 with a width of its own choice, and says so.
const LOW_PART: u64 = 500;
/// At most one in so many finds less than it should and says nothing: 25 queries are not the rows
/// that the build tried, and some are unlike all rows.
const SILENT_PART: u64 = 1000;

/// What is ugly about the rows.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Scaled,
    ExtremeRows,
    ExtremeNumber,
    ManyExtremeRows,
    Islands,
    Timestamps,
    OrdersOfLength,
    Offset,
    Copies,
    Sorted,
    Axes,
    LongQueries,
}

const KINDS: [Kind; 13] = [
    Kind::Plain,
    Kind::Scaled,
    Kind::ExtremeRows,
    Kind::ExtremeNumber,
    Kind::ManyExtremeRows,
    Kind::Islands,
    Kind::Timestamps,
    Kind::OrdersOfLength,
    Kind::Offset,
    Kind::Copies,
    Kind::Sorted,
    Kind::Axes,
    Kind::LongQueries,
];

/// Numbers of `n` rows and some queries of the same kind, queries last.
fn numbers(kind: Kind, (n, dim): (usize, usize), random: &mut Seeded) -> Vec<f32> {
    let all = n + QUERIES;
    let power = |random: &mut Seeded, low: i32, high: i32| {
        10.0f32.powi(low + random.below((high - low + 1) as u64) as i32)
    };
    let groups = 2 + random.below(30) as usize;
    let centres: Vec<f32> = (0..groups * dim).map(|_| 2.0 * random.gaussian()).collect();
    let mut rows: Vec<f32> = Vec::with_capacity(all * dim);
    for i in 0..all {
        let group = match kind {
            Kind::Sorted if i < n => i * groups / n,
            _ => random.below(groups as u64) as usize,
        };
        rows.extend((0..dim).map(|j| centres[group * dim + j] + random.gaussian()));
    }
    let copied = rows[..dim].to_vec();
    let mut each = |scale: &mut dyn FnMut(usize, usize, f32) -> f32| {
        for (i, row) in rows.chunks_exact_mut(dim).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, x)| *x = scale(i, j, *x));
        }
    };
    match kind {
        Kind::Plain | Kind::Sorted => {}
        Kind::Scaled => {
            let scale = power(random, -12, 12);
            each(&mut |_, _, x| x * scale);
        }
        Kind::ExtremeRows => {
            let (factor, count) = (power(random, 3, 9), 1 + random.below(3) as usize);
            each(&mut |i, _, x| if i < count { x * factor } else { x });
        }
        Kind::ExtremeNumber => each(&mut |i, j, x| if i == 5 && j == 0 { 1e10 } else { x }),
        Kind::ManyExtremeRows => {
            let factor = power(random, 3, 9);
            each(&mut |i, _, x| if i % 50 == 3 { x * factor } else { x });
        }
        Kind::Islands => {
            let (far, islands) = (power(random, 2, 5), 2 + random.below(4));
            let places: Vec<f32> =
                (0..islands as usize * dim).map(|_| far * random.gaussian()).collect();
            let island: Vec<usize> = (0..all).map(|_| random.below(islands) as usize).collect();
            each(&mut |i, j, x| x + places[island[i] * dim + j]);
        }
        Kind::Timestamps => {
            let now: Vec<f32> = (0..all).map(|_| 1.7e9 + random.below(30_000_000) as f32).collect();
            each(&mut |i, j, x| if j == 0 { now[i] } else { x });
        }
        Kind::OrdersOfLength => {
            let lengths: Vec<f32> = (0..all).map(|_| power(random, -6, 6)).collect();
            each(&mut |i, _, x| x * lengths[i]);
        }
        Kind::Offset => {
            let offset = power(random, 1, 6);
            each(&mut |_, _, x| x + offset);
        }
        Kind::Copies => {
            let is_copy: Vec<bool> = (0..all).map(|_| random.below(10) < 8).collect();
            each(&mut |i, j, x| if is_copy[i] { copied[j] } else { x });
        }
        Kind::Axes => each(&mut |i, j, x| if j == i % dim { 10.0 * x } else { 0.001 * x }),
        Kind::LongQueries => {
            let factor = power(random, -9, 9);
            each(&mut |i, _, x| if i >= n { x * factor } else { x });
        }
    }
    rows
}

/// What a build and its searches came to.
struct Outcome {
    recall: f64,
    warnings: Vec<String>,
    bits: u8,
}

/// Builds and searches; nothing where the build refuses the rows.
fn outcome(rows: &Rows, n: usize, params: &BuildParams) -> Result<Outcome, String> {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &part(rows, 0..n));
    let queries = part(rows, n..rows.len());
    let path = dir.path().join("index");
    let input = BuildInput::of(&base);
    let report = build(&input, &path, params, Job::default()).map_err(|error| error.to_string())?;
    let index = Segment::open(&path).unwrap();
    let mut searcher = index.searcher();
    let (mut found, mut queried) = (0, 0);
    for query in queries.iter() {
        // Numbers of 16 bits may all have been rounded to zero, which is refused.
        if params.metric == Metric::Cosine && query.is_zero() {
            continue;
        }
        queried += 1;
        let answer = searcher.search(query, &SearchParams::new(K as u32)).unwrap();
        let keys: Vec<u64> = answer.neighbors.iter().map(|neighbor| neighbor.key).collect();
        let exact: Vec<f64> =
            (0..n).map(|i| params.metric.plain_distance(query, rows.row(i))).collect();
        let mut sorted = exact.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        // Distances of f32 cannot tell apart what differs by their rounding alone.
        let limit = sorted[K - 1] + rounding(params.metric, query, sorted[K - 1], rows, n);
        found += keys.iter().filter(|key| exact[**key as usize] <= limit).count().min(K);
    }
    let recall = if queried == 0 { 1.0 } else { found as f64 / (K * queried) as f64 };
    Ok(Outcome { recall, warnings: report.warnings, bits: report.manifest.bits })
}

fn rounding(
    metric: Metric,
    query: foveal_datasets::Row<'_>,
    distance: f64,
    rows: &Rows,
    n: usize,
) -> f64 {
    let length = |row: foveal_datasets::Row<'_>| {
        wide(row).iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt()
    };
    match metric {
        Metric::L2 => 1e-5 * distance,
        Metric::Cosine => 1e-6,
        Metric::InnerProduct => {
            let mut lengths: Vec<f64> = (0..n).map(|i| length(rows.row(i))).collect();
            let middle = n / 2;
            1e-6 * length(query) * *lengths.select_nth_unstable_by(middle, f64::total_cmp).1
        }
    }
}

/// Why rows of a type may be refused: numbers of 16 bits may all have been rounded to zero.
fn refused(element: Element) -> &'static [&'static str] {
    match element {
        Element::F16 => &["too long", "too small", "all zeros"],
        _ => &["too long", "too small"],
    }
}

/// What is wrong with a build and its searches.
enum Fault {
    /// It finds too little and nothing says so, or it was refused for no reason.
    Silent(String),
    /// It says so, but the width that it chose itself should do for nearly all data.
    Low(String),
}

/// One random build; what went wrong.
fn case(seed: u64) -> Option<Fault> {
    let mut random = Seeded::new(seed);
    let mut one_of = |n: usize| random.below(n as u64) as usize;
    let kind = KINDS[one_of(KINDS.len())];
    let metric = Metric::ALL[one_of(3)];
    let element = match one_of(5) {
        0 => Element::F16,
        1 => Element::Bf16,
        _ => Element::F32,
    };
    let bits = [None, None, None, Some(2), Some(4), Some(5), Some(6), Some(8), Some(32)][one_of(9)];
    let shape = (150 + one_of(1200), 3 + one_of(70));
    let rows = floats(shape.1, numbers(kind, shape, &mut random));
    // A number may be too large for the type.
    let rows = rows.convert(element).ok()?;
    let params = BuildParams { bits, threads: 1, list_size: 64, ..BuildParams::new(metric) };
    let what = format!("seed {seed}: {kind:?} {metric} {element} {bits:?} {shape:?}");
    match outcome(&rows, shape.0, &params) {
        Ok(Outcome { recall, warnings, .. }) if recall < WANTED && warnings.is_empty() => {
            Some(Fault::Silent(format!("{what}: recall {recall} without a warning")))
        }
        Ok(Outcome { recall, bits: width, warnings }) if bits.is_none() && recall < 0.9 => {
            Some(Fault::Low(format!("{what}: recall {recall} with {width} bits: {warnings:?}")))
        }
        Ok(_) => None,
        Err(refusal) if refused(element).iter().any(|why| refusal.contains(why)) => None,
        Err(refusal) => Some(Fault::Silent(format!("{what}: {refusal}"))),
    }
}

#[test]
fn a_default_search_finds_the_nearest_or_the_build_warned() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, count) = (number(FIRST).unwrap_or(0), number(COUNT).unwrap_or(BUILDS));
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let faults: Vec<Fault> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|at| {
                let seeds = (first + at..first + count).step_by(threads as usize);
                scope.spawn(move || seeds.filter_map(case).collect::<Vec<Fault>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let (mut silent, mut low) = (Vec::new(), Vec::new());
    for fault in faults {
        match fault {
            Fault::Silent(text) => silent.push(text),
            Fault::Low(text) => low.push(text),
        }
    }
    // A run that passes prints its faults too, so that several runs can be counted together.
    println!(
        "{} silent, {} low of {count}\n{}",
        silent.len(),
        low.len(),
        [&silent[..], &low].concat().join("\n")
    );
    for (faults, part) in [(silent, SILENT_PART), (low, LOW_PART)] {
        let (found, allowed) = (faults.len(), count / part);
        assert!(found as u64 <= allowed, "{found} of {count}:\n{}", faults.join("\n"));
    }
}

/// Rows that two bits once could not be built of, or not be opened of, or not be found by.
#[test]
fn two_bits_hold_equal_rows_and_rows_along_axes() {
    let dim = 384;
    let row: Vec<f32> = (0..dim).map(|i| (i % 7) as f32 - 3.0).collect();
    for n in [1, 600] {
        let built = Built::new(&floats(dim, row.repeat(n)), &params(Metric::L2, 2));
        let found = answers(&built.open(), &floats(dim, row.clone()), &SearchParams::new(1));
        assert_eq!(found[0].neighbors[0].distance, 0.0, "{n} equal rows");
    }
    // Most rows lie in few directions, some in directions of their own.
    let mut random = Seeded::new(8);
    let (n, own) = (2000, 20);
    let mut numbers = vec![0.0; n * dim];
    for (i, row) in numbers.chunks_exact_mut(dim).enumerate() {
        row[..40].iter_mut().for_each(|x| *x = random.gaussian());
        if i < own {
            row.fill(0.0);
            row[300 + i] = 1.0;
        }
    }
    let rows = floats(dim, numbers);
    let built = Built::new(&rows, &params(Metric::L2, 2));
    let found = answers(&built.open(), &part(&rows, 0..own), &SearchParams::new(1));
    let itself = found.iter().zip(0..).filter(|(answer, i)| answer.neighbors[0].key == *i).count();
    assert_eq!(itself, own, "rows along axes of their own find themselves");
}
