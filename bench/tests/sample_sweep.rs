//! The program on the sample: what a sweep finds there is the same on every machine.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use foveal_bench::line::{self, Figures, Line, Recall};
use foveal_datasets::{Element, Metric, RowSource, Truth, VectorFile, VectorWriter};
use foveal_index::{ExactRequest, Job, exact};

const K: usize = 10;
const QUERIES: usize = 500;
/// Recall at least, distances a query at most, at list sizes 16, 64 and 256.
const FLOORS: [(f64, f64); 3] = [(0.99, 660.0), (0.997, 1600.0), (0.998, 5200.0)];

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_foveal-bench")).args(arguments).output().unwrap()
}

fn done(arguments: &[&str]) {
    let output = bench(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
}

fn error_of(arguments: &[&str]) -> String {
    let output = bench(arguments);
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// 5,000 Debian packages; every tenth of them is a query with known neighbors.
fn sample(dir: &Path) -> PathBuf {
    let sample =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/samples/debian-packages-5k.f16bin");
    let prefix = dir.join("packages");
    std::fs::copy(&sample, dir.join("packages.base.f16bin")).unwrap();
    let base = VectorFile::open(&sample).unwrap();
    let mut writer =
        VectorWriter::create(dir.join("packages.query.f16bin"), Element::F16, base.dim()).unwrap();
    for row in 0..QUERIES {
        writer.append(&base.read(row * 10..row * 10 + 1).unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let queries = VectorFile::open(dir.join("packages.query.f16bin")).unwrap();
    let queries = queries.read(0..QUERIES).unwrap();
    let request = ExactRequest { metric: Metric::Cosine, k: K, threads: 2 };
    let found = exact::search(&base, &queries, &request, Job::default()).unwrap();
    let keys = found.iter().flatten().map(|neighbor| neighbor.key as i64).collect();
    let distances = found.iter().flatten().map(|neighbor| neighbor.distance).collect();
    let truth = Truth::new(QUERIES, K, keys, Some(distances)).unwrap();
    truth.write(dir.join("packages.gt.ibin")).unwrap();
    prefix
}

fn recall_of(line: &Line) -> &Recall {
    match &line.figures {
        Figures::Recall(recall) => recall,
        other => panic!("wanted a point of a curve, found {other:?}"),
    }
}

#[test]
fn a_sweep_of_the_sample_reaches_its_recall_at_its_cost() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = sample(dir.path());
    let [data, index, out] = [&prefix, &dir.path().join("index"), &dir.path().join("lines.jsonl")]
        .map(|path| path.to_str().unwrap().to_owned());
    let of = ["--data", &data, "--metric", "cosine", "--out", &out];
    done(&[&["build", "--keep", &index][..], &of].concat());
    let sweep = ["recall", "--index", &index, "--list-size", "5,16,64,256"];
    done(&[&sweep[..], &of].concat());

    let lines = line::read(Path::new(&out)).unwrap();
    let Figures::Build(built) = &lines[0].figures else { panic!("{:?}", lines[0]) };
    assert!(built.disk_bytes.unwrap() > 5000 * 384 * 2, "full vectors are in there");
    assert!(lines.iter().all(|line| line.dataset == lines[0].dataset));
    let points: Vec<&Recall> = lines[1..].iter().map(recall_of).collect();
    // A list of 5 holds no 10 results: left out. The others: recall at least, distances at most.
    // Both are the same on every machine, so a change of either is a change of the engine.
    for (point, (recall, distances)) in points.iter().zip(FLOORS) {
        let cost = point.cost.unwrap();
        let (found, taken) = (point.recall, cost.distances);
        assert!(found >= recall && taken <= distances, "recall {found} at {taken} distances");
        let at = point.recall_at.unwrap();
        assert_eq!((at.ten, at.hundred), (Some(point.recall), None));
        assert!(point.recall_ann_benchmarks.unwrap() >= point.recall - 1e-9, "looser");
    }
    assert_eq!(points.len(), 3);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = sample(dir.path());
    let data = prefix.to_str().unwrap();
    let of = |metric| ["build", "--data", data, "--metric", metric];
    let other = error_of(&of("l2"));
    assert!(other.contains("packages.gt.ibin: query ") && other.contains("under l2"), "{other}");
    assert!(other.contains("of another metric"), "{other}");
    let absent = error_of(&["build", "--data", "no/such", "--metric", "l2"]);
    assert!(absent.contains("no/such.base.EXT: no such file; looked for"), "{absent}");
    // A full disk, which every Linux machine has.
    let full = [&of("cosine")[..], &["--out", "/dev/full"]].concat();
    assert!(error_of(&full).contains("/dev/full: No space left"), "said where");
    let truth = dir.path().join("packages.gt.ibin");
    std::fs::remove_file(&truth).unwrap();
    Truth::new(3, 1, vec![0, 1, 2], Some(vec![0.0; 3])).unwrap().write(&truth).unwrap();
    let short = error_of(&of("cosine"));
    assert!(short.contains("truth of 3 queries; there are 500"), "{short}");
}
