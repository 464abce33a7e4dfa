//! The same input, seed and parameters give the same index: at any number of threads, on any CPU
//! level, whatever order the rows come in, and from one run to the next.

use std::process::Command;

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Concat, Element, Metric, Part, RowSource, Rows, Values};
use foveal_index::stats::Job;
use foveal_index::{
    BuildInput, BuildParams, Io, Keys, PayloadSource, SearchParams, Segment, SegmentPayloads, build,
};

use crate::built::{
    Built, answers, embedded_rows_and_queries, floats, params, part, rows_and_queries, wide,
    write_rows,
};

const DIGESTS: &str = "FOVEAL_TEST_PRINTS_DIGESTS";

fn digest(element: Element, params: &BuildParams) -> String {
    let (rows, _) = match params.bits {
        // Codes of leading axes.
        Some(2) => embedded_rows_and_queries(600, 0, 300),
        _ => rows_and_queries(element, 600, 0, 43),
    };
    Built::new(&rows, params).report.manifest.digest
}

#[test]
fn threads_do_not_matter() {
    for (metric, element, bits) in [
        (Metric::L2, Element::F32, 4),
        (Metric::InnerProduct, Element::F16, 8),
        (Metric::Cosine, Element::I8, 5),
        (Metric::L2, Element::U8, 8),
        (Metric::Cosine, Element::F32, 2),
    ] {
        let at = |threads| digest(element, &BuildParams { threads, ..params(metric, bits) });
        let one = at(1);
        for threads in [2, 3, 8] {
            assert_eq!(one, at(threads), "{metric} {element}, {threads} threads");
        }
    }
}

#[test]
fn memory_limits_do_not_matter() {
    let plain = params(Metric::L2, 4);
    let limited = BuildParams { memory: Some(1 << 30), ..plain.clone() };
    assert_eq!(digest(Element::F32, &plain), digest(Element::F32, &limited));
}

/// The digest of the index of `rows` in the order of `order`, each with its key and payload.
fn digest_in_order(
    rows: &Rows,
    order: &[usize],
    params: &BuildParams,
    learn: Option<&Rows>,
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let keys: Vec<u64> = order.iter().map(|row| 7 * *row as u64 + 3).collect();
    let payload: Vec<String> = keys.iter().map(|key| format!("{{\"key\":{key}}}")).collect();
    let base = rows.read_each(order).unwrap();
    let input = BuildInput {
        keys: Keys::List(&keys),
        payload: Some(&payload),
        learn: learn.map(|learn| learn as &dyn RowSource),
        ..BuildInput::of(&base)
    };
    build(&input, &dir.path().join("index"), params, Job::default()).unwrap().manifest.digest
}

#[test]
fn the_order_of_rows_does_not_matter() {
    let dim = 24;
    let mut random = Seeded::new(4);
    // A third are copies, enough to tie at every rank, and three rows lie far out.
    let (clustered, _) = rows_and_queries(Element::F32, 900, 0, dim);
    let mut numbers: Vec<f32> = clustered.iter().flat_map(wide).collect();
    for (i, row) in numbers.chunks_exact_mut(dim).enumerate() {
        match i {
            0..300 => row.fill(0.25),
            300..303 => row.iter_mut().for_each(|x| *x = 1e6 * random.gaussian()),
            _ => {}
        }
    }
    let rows = floats(dim, numbers);
    let states = floats(dim, (0..400 * dim).map(|_| random.gaussian()).collect());
    let in_order: Vec<usize> = (0..rows.len()).collect();
    let mut shuffled = in_order.clone();
    random.shuffle(&mut shuffled);
    let reversed: Vec<usize> = in_order.iter().rev().copied().collect();
    for (metric, bits, learn) in [
        (Metric::L2, 4, None),
        (Metric::Cosine, 5, None),
        (Metric::InnerProduct, 4, None),
        (Metric::InnerProduct, 4, Some(&states)),
        (Metric::L2, 2, None),
        (Metric::L2, 32, None),
    ] {
        let digest = |order: &[usize]| digest_in_order(&rows, order, &params(metric, bits), learn);
        let wanted = digest(&in_order);
        for order in [&shuffled, &reversed] {
            assert_eq!(digest(order), wanted, "{metric}, {bits} bits, {}", learn.is_some());
        }
    }
    // Codes of leading axes, which are learned from a sample: a file sorted by class.
    let (embedded, _) = embedded_rows_and_queries(900, 0, 300);
    let mut by_class = in_order.clone();
    by_class.sort_by_key(|row| row % 15);
    let digest = |order: &[usize]| digest_in_order(&embedded, order, &params(Metric::L2, 2), None);
    assert_eq!(digest(&by_class), digest(&shuffled));
    let bytes = Rows::new(1, Values::U8((0..200).map(|i| (i / 3) as u8).collect())).unwrap();
    let digest = |order: &[usize]| digest_in_order(&bytes, order, &params(Metric::L2, 8), None);
    let reversed: Vec<usize> = (0..200).rev().collect();
    assert_eq!(digest(&(0..200).collect::<Vec<usize>>()), digest(&reversed));
}

/// What a merge gives: the rows of two indexes, some left out, are as good as a file of the rest.
#[test]
fn the_rows_of_indexes_build_what_their_file_builds() {
    for (metric, element, bits) in [
        (Metric::L2, Element::U8, 8),
        (Metric::L2, Element::U8, 4),
        (Metric::Cosine, Element::F32, 4),
        (Metric::InnerProduct, Element::F16, 5),
        (Metric::L2, Element::Bf16, 32),
    ] {
        let (rows, _) = rows_and_queries(element, 700, 0, 30);
        let params = params(metric, bits);
        let half = |from: usize, to: usize| {
            let texts: Vec<String> = (from..to).map(|key| format!("{{\"key\":{key}}}\n")).collect();
            let rows = part(&rows, from..to);
            Built::with(&rows, &params, Keys::From(from as u64), Some(&texts.concat()))
        };
        let (first, second) = (half(0, 400), half(400, 700));
        let (first, second) = (first.open_io(Io::Pread), second.open());
        let left_out: Vec<u32> = (0..400).filter(|id| id % 7 == 0).collect();
        let (a, b) = (first.all_rows(), second.all_rows());
        let parts = vec![Part::without(&a, &left_out).unwrap(), Part::whole(&b)];
        let base = Concat::new(parts).unwrap();
        let kept = first.keys().zip(0..).filter(|(_, id)| left_out.binary_search(id).is_err());
        let keys: Vec<u64> = kept.map(|(key, _)| key).chain(second.keys()).collect();
        let dir = tempfile::tempdir().unwrap();
        let build_of = |base: &dyn RowSource, keys: &[u64], payload: &dyn PayloadSource| {
            let (keys, payload) = (Keys::List(keys), Some(payload));
            let input = BuildInput { keys, payload, ..BuildInput::of(base) };
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("index");
            build(&input, &out, &params, Job::default()).unwrap().manifest.digest
        };
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        let places: Vec<usize> = sorted.iter().map(|key| *key as usize).collect();
        let flat = write_rows(dir.path(), "flat", &rows.read_each(&places).unwrap());
        let texts: Vec<String> = sorted.iter().map(|key| format!("{{\"key\":{key}}}")).collect();
        let wanted = build_of(&flat, &sorted, &texts);
        let kept: [(Segment, &[u32]); 2] = [(first.clone(), &left_out), (second.clone(), &[])];
        let payloads = SegmentPayloads::new(kept.into()).unwrap();
        assert_eq!(build_of(&base, &keys, &payloads), wanted, "{metric} {element} {bits}");
    }
}

#[test]
fn seeds_and_parameters_matter() {
    let plain = params(Metric::L2, 4);
    let all = [
        plain.clone(),
        BuildParams { seed: 43, ..plain.clone() },
        BuildParams { bits: Some(8), ..plain.clone() },
        BuildParams { max_degree: 20, ..plain.clone() },
        BuildParams { list_size: 33, ..plain.clone() },
        BuildParams { alpha: 1.2, ..plain.clone() },
        BuildParams { metric: Metric::Cosine, ..plain },
    ];
    let mut digests: Vec<String> = all.iter().map(|params| digest(Element::F32, params)).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), all.len());
}

/// A process picks its CPU level once, so this test runs itself again for each level.
#[test]
fn cpu_levels_do_not_matter() {
    if std::env::var_os(DIGESTS).is_some() {
        return print_digests();
    }
    let lines = |level: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "determinism::cpu_levels_do_not_matter", "--nocapture"])
            .env("FOVEAL_CPU", level)
            .env(DIGESTS, "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{level}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let start = text.find("DIGEST").unwrap();
        let lines = text[start..].lines().filter(|line| line.starts_with("DIGEST"));
        lines.map(str::to_owned).collect::<Vec<String>>()
    };
    let best = lines("avx512vbmi");
    assert_eq!(best.len(), 11);
    // A level that the CPU lacks falls back to its best one: then this compares less.
    for level in ["avx512", "avx2", "portable"] {
        assert_eq!(lines(level), best, "{level}");
    }
}

/// One line an index: its digest, and what a search in it returns and costs.
fn print_digests() {
    println!();
    for element in Element::ALL {
        for bits in [4, 5, 8] {
            // The paths of f16 and bf16 are those of f32 once their rows are widened.
            let half = matches!(element, Element::F16 | Element::Bf16);
            if half && bits != 4 || element == Element::I8 && bits != 8 {
                continue;
            }
            let metric = Metric::ALL[(element.size() + usize::from(bits) / 4) % 3];
            print_digest(&params(metric, bits), &rows_and_queries(element, 600, 10, 77));
        }
    }
    print_digest(&params(Metric::L2, 2), &embedded_rows_and_queries(600, 10, 300));
    println!("DIGEST {}", crate::decode::told());
}

fn print_digest(params: &BuildParams, (rows, queries): &(Rows, Rows)) {
    let built = Built::new(rows, params);
    let found = answers(&built.open(), queries, &SearchParams::with_list_size(5, 20));
    assert!(found.iter().all(|answer| answer.stats.hops > 0), "walks are compared");
    let found: Vec<_> = found
        .iter()
        .map(|answer| {
            let keys: Vec<u64> = answer.neighbors.iter().map(|n| n.key).collect();
            (keys, answer.stats.distances, answer.stats.hops, answer.stats.reranked)
        })
        .collect();
    let BuildParams { metric, bits, .. } = params;
    let (element, digest) = (rows.element(), built.report.manifest.digest);
    println!("DIGEST {metric} {element} {bits:?} {digest} {found:?}");
}
