//! Small indexes to search, and the exact answers to compare with.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use foveal_datasets::recall::recall;
use foveal_datasets::synthetic::{byte_clusters, clusters};
use foveal_datasets::{Element, Metric, Row, Rows, Truth, Values, VectorFile, VectorWriter};
use foveal_index::stats::{Job, Stop};
use foveal_index::{
    Answer, BuildInput, BuildParams, BuildReport, ExactRequest, Io, Keys, Neighbor, OpenOptions,
    PayloadSource, Query, SearchParams, Segment, build, check, exact,
};
use half::f16;
use tempfile::TempDir;

/// An index in a directory of its own, beside the file it was built from.
pub struct Built {
    _dir: TempDir,
    pub base: VectorFile,
    pub path: PathBuf,
    pub report: BuildReport,
}

/// The defaults with a smaller graph and two threads: quick to build.
pub fn params(metric: Metric, bits: u8) -> BuildParams {
    BuildParams { bits: Some(bits), threads: 2, list_size: 64, ..BuildParams::new(metric) }
}

/// Writes rows into a new file in `dir`.
pub fn write_rows(dir: &Path, name: &str, rows: &Rows) -> VectorFile {
    let extension = match rows.element() {
        Element::F32 => "fbin",
        Element::F16 => "f16bin",
        Element::Bf16 => "bf16bin",
        Element::U8 => "u8bin",
        Element::I8 => "i8bin",
    };
    let path = dir.join(format!("{name}.{extension}"));
    let mut writer = VectorWriter::create(&path, rows.element(), rows.dim()).unwrap();
    writer.append(rows).unwrap();
    writer.finish().unwrap();
    VectorFile::open(&path).unwrap()
}

impl Built {
    pub fn new(rows: &Rows, params: &BuildParams) -> Built {
        Built::with(rows, params, Keys::From(0), None)
    }

    pub fn with(rows: &Rows, params: &BuildParams, keys: Keys<'_>, texts: Option<&str>) -> Built {
        let dir = tempfile::tempdir().unwrap();
        let base = write_rows(dir.path(), "base", rows);
        let lines: Option<Vec<&str>> = texts.map(|texts| texts.lines().collect());
        let path = dir.path().join("index");
        let payload = lines.as_ref().map(|lines| lines as &dyn PayloadSource);
        let input = BuildInput { base: &base, keys, payload, learn: None, bias: false };
        let report = build(&input, &path, params, Job::default()).unwrap();
        Built { _dir: dir, base, path, report }
    }

    pub fn open(&self) -> Segment {
        Segment::open(&self.path).unwrap()
    }

    pub fn open_io(&self, io: Io) -> Segment {
        Segment::open_with(&self.path, &OpenOptions { io, ..OpenOptions::default() }).unwrap()
    }

    /// The oracle's `k` nearest rows to each query.
    pub fn exact(&self, queries: &Rows, k: usize) -> Vec<Vec<Neighbor>> {
        let request = ExactRequest { metric: self.report.manifest.metric, k, threads: 2 };
        exact::search(&self.base, queries, &request, Job::default()).unwrap()
    }

    /// How many rows a deep check finds reachable, once it has found no damage.
    pub fn reachable(&self) -> u64 {
        let report = check(&self.path, true, Job::default()).unwrap();
        assert_eq!(report.damage, [""; 0]);
        report.reachable.unwrap()
    }
}

/// Answers to all queries, one after the other.
pub fn answers(index: &Segment, queries: &Rows, params: &SearchParams) -> Vec<Answer> {
    let mut searcher = index.searcher();
    queries.iter().map(|query| searcher.search(query, params).unwrap()).collect()
}

/// The queries of some rows, none with a deadline.
pub fn queries_of<'a>(
    queries: &'a Rows,
    rows: Range<usize>,
    params: &SearchParams,
) -> Vec<Query<'a>> {
    let stop = Stop::default();
    let query = |i| Query { row: queries.row(i), params: *params, allowed: None, stop };
    rows.map(query).collect()
}

/// Recall@k of answers against the oracle's.
pub fn recall_of(answers: &[Answer], exact: &[Vec<Neighbor>], k: usize, metric: Metric) -> f64 {
    let wanted = exact.iter().flat_map(|nearest| &nearest[..k]);
    let (keys, distances) = wanted.map(|n| (n.key as i64, n.distance)).unzip();
    let truth = Truth::new(exact.len(), k, keys, Some(distances)).unwrap();
    let found: Vec<Vec<(u64, f32)>> = answers
        .iter()
        .map(|answer| answer.neighbors.iter().map(|n| (n.key, n.distance)).collect())
        .collect();
    recall(&truth, &found, k, metric).unwrap()
}

/// `n` rows and `queries` more of the same clusters, of any element type.
pub fn rows_and_queries(element: Element, n: usize, queries: usize, dim: usize) -> (Rows, Rows) {
    let centres = (n / 60).max(1);
    let all = n + queries;
    let rows = match element {
        Element::F32 | Element::F16 | Element::Bf16 => {
            clusters(all, dim, centres, 7).convert(element).unwrap()
        }
        Element::U8 => byte_clusters(all, dim, centres, 7),
        Element::I8 => match byte_clusters(all, dim, centres, 7).values() {
            Values::U8(bytes) => {
                let signed = bytes.iter().map(|x| (*x ^ 0x80) as i8).collect();
                Rows::new(dim, Values::I8(signed)).unwrap()
            }
            _ => unreachable!("byte clusters are bytes"),
        },
    };
    (part(&rows, 0..n), part(&rows, n..all))
}

/// Rows of f32 that differ much along some directions and little along most, as embeddings do, and
/// queries.
pub fn embedded_rows_and_queries(n: usize, queries: usize, dim: usize) -> (Rows, Rows) {
    let flatten = |rows: Rows| {
        let Values::F32(mut numbers) = rows.values().clone() else { unreachable!("rows of f32") };
        for row in numbers.chunks_exact_mut(dim) {
            row.iter_mut().enumerate().for_each(|(i, x)| *x /= 1.0 + 0.05 * i as f32);
        }
        Rows::new(dim, Values::F32(numbers)).unwrap()
    };
    let (rows, queries) = rows_and_queries(Element::F32, n, queries, dim);
    (flatten(rows), flatten(queries))
}

/// Some rows of others.
pub fn part(rows: &Rows, range: std::ops::Range<usize>) -> Rows {
    let numbers = range.start * rows.dim()..range.end * rows.dim();
    let values = match rows.values() {
        Values::F32(x) => Values::F32(x[numbers].to_vec()),
        Values::F16(x) => Values::F16(x[numbers].to_vec()),
        Values::Bf16(x) => Values::Bf16(x[numbers].to_vec()),
        Values::U8(x) => Values::U8(x[numbers].to_vec()),
        Values::I8(x) => Values::I8(x[numbers].to_vec()),
    };
    Rows::new(rows.dim(), values).unwrap()
}

/// Rows of f32.
pub fn floats(dim: usize, numbers: Vec<f32>) -> Rows {
    Rows::new(dim, Values::F32(numbers)).unwrap()
}

/// The numbers of a row as f32.
pub fn wide(row: Row<'_>) -> Vec<f32> {
    let mut out = vec![0.0; row.dim()];
    row.widen_into(&mut out);
    out
}

/// Names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// The f16 nearest to a number.
pub fn half(x: f32) -> f16 {
    f16::from_f32(x)
}
