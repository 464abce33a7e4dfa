//! The same input, seed and parameters give the same index: at any number of threads, on any CPU
//! level, and from one run to the next.

use std::process::Command;

use foveal_datasets::{Element, Metric, Rows};
use foveal_index::{BuildParams, SearchParams};

use crate::built::{Built, answers, embedded_rows_and_queries, params, rows_and_queries};

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
        BuildParams { shift: 0.5, ..plain.clone() },
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
            .args(["--exact", "sameness::cpu_levels_do_not_matter", "--nocapture"])
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
    let best = lines("avx512");
    assert_eq!(best.len(), 11);
    // A level that the CPU lacks falls back to its best one: then this compares less.
    for level in ["avx2", "portable"] {
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
            print_digest(&params(metric, bits), &rows_and_queries(element, 350, 10, 77));
        }
    }
    print_digest(&params(Metric::L2, 2), &embedded_rows_and_queries(350, 10, 300));
    println!("DIGEST {}", crate::decode::told());
}

fn print_digest(params: &BuildParams, (rows, queries): &(Rows, Rows)) {
    let built = Built::new(rows, params);
    let found = answers(&built.open(), queries, &SearchParams::with_list_size(5, 20));
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
