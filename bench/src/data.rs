//! The data of a benchmark: rows, queries, and the truth about them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use foveal_datasets::{Metric, Row, Rows, Truth, VectorFile};
use xxhash_rust::xxh3::Xxh3;

use crate::line::Dataset;

/// Extensions of vector files, as a set of files is looked for.
const EXTENSIONS: &[&str] = &["u8bin", "i8bin", "f16bin", "fbin", "bvecs", "fvecs", "npy"];

/// Queries whose true distances are computed again.
const CHECKED_QUERIES: usize = 16;
/// How far they may be off, as a share: truths come in single precision.
const CHECK_SLACK: f64 = 1e-3;

/// Which data.
#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    /// Data set: DIR/NAME, where DIR holds NAME.base.EXT, NAME.query.EXT and NAME.gt.ibin
    #[arg(long, value_name = "DIR/NAME")]
    pub data: PathBuf,
    /// What near means.
    #[arg(long, value_name = "l2|ip|cosine")]
    pub metric: Metric,
    /// Ask only the first N queries.
    #[arg(long, value_name = "N")]
    pub queries: Option<usize>,
}

/// Rows, queries, truth.
pub struct Data {
    /// What lines call it.
    pub name: String,
    /// What near means.
    pub metric: Metric,
    /// The rows, `[n x dim]`.
    pub base: VectorFile,
    /// The queries, `[queries x dim]`.
    pub queries: Rows,
    /// The true neighbors of the queries, and perhaps of more after them.
    pub truth: Truth,
    digest: String,
}

impl Data {
    /// Opens the files and checks that they belong together.
    ///
    /// # Errors
    /// A file is missing or damaged; dimensions, numbers of queries or keys do not fit; the truth
    /// is not that of these rows and queries.
    pub fn open(args: &DataArgs) -> anyhow::Result<Data> {
        let base = VectorFile::open(find(&args.data, "base")?)?;
        let query_path = find(&args.data, "query")?;
        let query_file = VectorFile::open(&query_path)?;
        if query_file.dim() != base.dim() {
            let (found, wanted) = (query_file.dim(), base.dim());
            bail!("{}: dimension {found}; the base has {wanted}", query_path.display());
        }
        let asked = args.queries.unwrap_or(usize::MAX).min(query_file.len());
        let queries = query_file.read(0..asked)?;
        let truth_path = with_suffix(&args.data, ".gt.ibin");
        let truth = Truth::read(&truth_path)?;
        if truth.queries() != query_file.len() {
            let (found, wanted) = (truth.queries(), query_file.len());
            bail!("{}: truth of {found} queries; there are {wanted}", truth_path.display());
        }
        let name = args.data.file_name().context("--data has no name")?;
        let digest = digest(base.path())?;
        let (name, metric) = (name.to_string_lossy().into_owned(), args.metric);
        let data = Data { name, metric, base, queries, truth, digest };
        data.check_truth().with_context(|| truth_path.display().to_string())?;
        Ok(data)
    }

    /// Results wanted of a query: what was asked for, if the truth knows as many.
    ///
    /// # Errors
    /// It does not.
    pub fn check_k(&self, k: u32) -> anyhow::Result<()> {
        let known = self.truth.k();
        if k == 0 || known < k as usize {
            bail!("k is {k}; wanted 1 to {known}, as many neighbors as the truth holds");
        }
        Ok(())
    }

    /// How lines name it.
    pub fn dataset(&self) -> Dataset {
        Dataset {
            name: self.name.clone(),
            n: Some(self.base.len() as u64),
            dim: Some(self.base.dim() as u32),
            metric: Some(self.metric),
            digest: Some(self.digest.clone()),
        }
    }

    /// Computes a few true distances again: a truth of other data, or of another metric, shows.
    fn check_truth(&self) -> anyhow::Result<()> {
        let n = self.base.len();
        let step = self.queries.len().div_ceil(CHECKED_QUERIES).max(1);
        for q in (0..self.queries.len()).step_by(step) {
            let keys = self.truth.keys(q);
            if let Some(key) = keys.iter().find(|key| **key >= n as i64) {
                bail!("query {q} has the neighbor {key}; there are {n} rows: truth of other data");
            }
            let Some(distances) = self.truth.distances(q) else { continue };
            let ends = [0, keys.len().saturating_sub(1)];
            for rank in ends.into_iter().filter(|rank| keys.get(*rank).is_some_and(|k| *k >= 0)) {
                let row = keys[rank] as usize;
                let rows = self.base.read(row..row + 1)?;
                let wanted = distance(self.metric, self.queries.row(q), rows.row(0));
                let found = f64::from(distances[rank]);
                if (found - wanted).abs() > CHECK_SLACK * wanted.abs().max(1.0) {
                    bail!(
                        "query {q}: distance {found} of neighbor {row}; under {} it is {wanted}: \
                         truth of other data or of another metric",
                        self.metric
                    );
                }
            }
        }
        Ok(())
    }
}

/// The distance of a query and a row by its plain definition, in double precision: smaller is
/// closer.
pub fn distance(metric: Metric, q: Row<'_>, x: Row<'_>) -> f64 {
    let wide = |row: Row<'_>| {
        let mut wide = vec![0.0; row.dim()];
        row.widen_into(&mut wide);
        wide.into_iter().map(f64::from).collect::<Vec<f64>>()
    };
    let (q, x) = (wide(q), wide(x));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    match metric {
        Metric::L2 => q.iter().zip(&x).map(|(a, b)| (a - b) * (a - b)).sum(),
        Metric::InnerProduct => -dot(&q, &x),
        Metric::Cosine => 1.0 - dot(&q, &x) / (dot(&q, &q) * dot(&x, &x)).sqrt(),
    }
}

/// `DIR/NAME.PART.EXT`, whichever extension there is.
///
/// # Errors
/// There is no such file.
pub fn find(data: &Path, part: &str) -> anyhow::Result<PathBuf> {
    let mut paths = EXTENSIONS.iter().map(|ext| with_suffix(data, &format!(".{part}.{ext}")));
    paths.find(|path| path.exists()).with_context(|| {
        let known = EXTENSIONS.join(", ");
        format!("{}.{part}.EXT: no such file; looked for EXT = {known}", data.display())
    })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// xxh3-128 of all bytes of a file, in hexadecimal.
///
/// # Errors
/// The file cannot be read.
pub fn digest(path: &Path) -> anyhow::Result<String> {
    let shown = || path.display().to_string();
    let mut file = std::fs::File::open(path).with_context(shown)?;
    let (mut hash, mut buffer) = (Xxh3::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).with_context(shown)? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    Ok(format!("{:032x}", hash.digest128()))
}
