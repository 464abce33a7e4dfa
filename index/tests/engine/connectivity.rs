//! Every row can be reached, however the rows lie.

use foveal_datasets::seeded::Seeded;
use foveal_datasets::synthetic::clusters;
use foveal_datasets::{Element, Metric, Rows};
use foveal_index::stats::Job;
use foveal_index::{BuildError, BuildInput, Keys, SearchParams, build};

use crate::built::{Built, answers, floats, params, part, rows_and_queries};

fn check(rows: &Rows, metric: Metric, bits: u8, what: &str) -> Built {
    let built = Built::new(rows, &params(metric, bits));
    assert_eq!(built.reachable(), rows.len() as u64, "{what}");
    assert_eq!(built.open().len(), rows.len() as u64);
    built
}

/// Each row of `rows` so many times.
fn repeated(rows: &Rows, times: usize) -> Rows {
    let foveal_datasets::Values::F32(numbers) = rows.values() else { unreachable!("f32 rows") };
    floats(rows.dim(), numbers.repeat(times))
}

#[test]
fn numbers_of_rows_around_the_entry_points() {
    for n in [1, 2, 255, 256, 257] {
        for metric in Metric::ALL {
            let (rows, _) = rows_and_queries(Element::F32, n, 0, 12);
            check(&rows, metric, 4, &format!("{metric} n {n}"));
        }
    }
}

#[test]
fn duplicates_by_the_thousand() {
    let few = repeated(&clusters(20, 8, 5, 3), 100);
    for metric in Metric::ALL {
        check(&few, metric, 4, "20 rows, 100 times each");
    }
    // Many copies of one row among others.
    let mut numbers = vec![0.25; 2000 * 8];
    let foveal_datasets::Values::F32(others) = clusters(1000, 8, 20, 4).values().clone() else {
        unreachable!("f32 rows")
    };
    numbers.extend(others);
    let rows = floats(8, numbers);
    for bits in [4, 8] {
        let built = check(&rows, Metric::L2, bits, "one row 2000 times");
        let queries = part(&rows, 0..1);
        let found = answers(&built.open(), &queries, &SearchParams::new(100));
        assert!(found[0].neighbors.iter().all(|neighbor| neighbor.distance == 0.0));
    }
}

#[test]
fn rows_that_are_all_equal() {
    for n in [2, 257, 1200] {
        for (metric, bits) in [(Metric::L2, 4), (Metric::InnerProduct, 8), (Metric::Cosine, 4)] {
            check(&floats(5, [3.0, -1.0, 0.5, 0.0, 8.0].repeat(n)), metric, bits, "all equal");
        }
        check(&floats(3, vec![0.0; 3 * n]), Metric::L2, 4, "all zero");
        check(&floats(3, vec![0.0; 3 * n]), Metric::InnerProduct, 4, "all zero");
    }
}

#[test]
fn clusters_far_apart() {
    // Every cluster is a thousand times farther from the others than it is wide.
    for (centres, each) in [(2, 600), (40, 30), (600, 2)] {
        let mut random = Seeded::new(8);
        let mut numbers = Vec::new();
        for centre in 0..centres {
            for _ in 0..each {
                numbers.push(1e4 * centre as f32 + random.gaussian());
                numbers.extend((0..7).map(|_| random.gaussian()));
            }
        }
        let rows = floats(8, numbers);
        for bits in [4, 8] {
            let what = format!("{centres} clusters of {each}");
            let built = check(&rows, Metric::L2, bits, &what);
            // In clusters of no more rows than are reranked each row finds itself.
            if each <= 30 {
                let found = answers(&built.open(), &rows, &SearchParams::new(1));
                let keys = found.iter().map(|answer| answer.neighbors[0].key);
                assert!(keys.eq(0..rows.len() as u64), "{what}");
            }
        }
        check(&rows, Metric::InnerProduct, 4, "far apart");
    }
}

#[test]
fn collinear_rows() {
    let line: Vec<f32> = (0..1200).flat_map(|i| [i as f32, 2.0 * i as f32, -(i as f32)]).collect();
    check(&floats(3, line.clone()), Metric::L2, 4, "a line");
    check(&floats(3, line.clone()), Metric::InnerProduct, 4, "a line");
    // Under cosine all of them are one direction.
    check(&floats(3, line[3..].to_vec()), Metric::Cosine, 4, "a line");
    let exponential = (0..60).map(|i| 2.0f32.powi(i));
    check(&floats(1, exponential.collect()), Metric::L2, 8, "an exponential line");
}

#[test]
fn norms_from_denormal_to_huge() {
    let mut random = Seeded::new(9);
    let lengths = [1e15, 1.0, 1e-15, 1e-30, 1e-40, 0.0];
    let rows: Vec<f32> = (0..900)
        .flat_map(|i| {
            let direction: Vec<f32> = (0..10).map(|_| random.gaussian()).collect();
            direction.into_iter().map(move |x| x * lengths[i % lengths.len()])
        })
        .collect();
    let rows = floats(10, rows);
    for bits in [4, 8] {
        check(&rows, Metric::L2, bits, "mixed norms");
        check(&rows, Metric::InnerProduct, bits, "mixed norms");
    }
    let tiny = floats(4, (0..400).map(|i| i as f32 * 1e-42).collect());
    let dir = tempfile::tempdir().unwrap();
    let base = crate::built::write_rows(dir.path(), "tiny", &tiny);
    for (metric, bits) in [(Metric::L2, 4), (Metric::InnerProduct, 8)] {
        let (keys, out) = (Keys::From(0), dir.path().join("index"));
        let input = BuildInput { keys, ..BuildInput::of(&base) };
        let refused = build(&input, &out, &params(metric, bits), Job::default()).unwrap_err();
        assert!(matches!(refused, BuildError::TooSmall { .. }), "{refused}");
        assert!(!out.exists());
    }
}

/// Equal rows and few entry points: a walk must not end with room in its pool while rows are left.
#[test]
fn equal_rows_fill_any_k() {
    for (n, distinct) in [(100, 1), (256, 1), (600, 1), (1000, 1), (1000, 4)] {
        let numbers: Vec<f32> = (0..n).flat_map(|i| [(i % distinct) as f32, 1.0, -2.0]).collect();
        let built = Built::new(&floats(3, numbers.clone()), &params(Metric::L2, 4));
        let index = built.open();
        for k in [1, 10, n / 3, n - 1, n] {
            let queries = floats(3, numbers[..3].to_vec());
            let found = answers(&index, &queries, &SearchParams::new(k as u32)).remove(0);
            assert_eq!(found.stats.hops > 0, n >= 600, "{n} rows");
            let mut keys: Vec<u64> = found.neighbors.iter().map(|neighbor| neighbor.key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), k, "{n} rows, {distinct} distinct");
        }
    }
}
