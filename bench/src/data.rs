//! The data of a benchmark: rows, queries, and the truth about them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use foveal_datasets::format::Format;
use foveal_datasets::{Metric, Rows, Truth, VectorFile};
use xxhash_rust::xxh3::Xxh3;

use crate::line::Dataset;

/// Queries whose true distances are computed again.
const CHECKED_QUERIES: usize = 16;
/// How far they may be off, as a share: truths come in single precision.
const CHECK_SLACK: f64 = 1e-3;

/// Which data.
#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    /// Data set: DIR/NAME, where DIR holds NAME.base.EXT, NAME.query.EXT and NAME.gt.ibin; or one
    /// file in the layout of ann-benchmarks, FILE.hdf5
    #[arg(long, value_name = "DIR/NAME")]
    pub data: PathBuf,
    /// What near means [default: what FILE.hdf5 says]
    #[arg(long, value_name = "l2|ip|cosine")]
    pub metric: Option<Metric>,
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
    /// A file is missing or damaged; dimensions, numbers of queries or keys do not fit; the metric
    /// is named nowhere, or not the one that the file names; the truth is not that of these rows
    /// and queries.
    pub fn open(args: &DataArgs) -> anyhow::Result<Data> {
        let [base_path, query_path, truth_path] = paths(&args.data)?;
        let base = VectorFile::open(base_path)?;
        let metric = agreed(args, base.metric()?)?;
        let query_file = VectorFile::open(&query_path)?;
        if query_file.dim() != base.dim() {
            let (found, wanted) = (query_file.dim(), base.dim());
            bail!("{}: dimension {found}; the base has {wanted}", query_path.display());
        }
        let asked = args.queries.unwrap_or(usize::MAX).min(query_file.len());
        let queries = query_file.read(0..asked)?;
        let truth = Truth::read(&truth_path)?;
        if truth.queries() != query_file.len() {
            let (found, wanted) = (truth.queries(), query_file.len());
            bail!("{}: truth of {found} queries; there are {wanted}", truth_path.display());
        }
        let name = if is_hdf5(&args.data) { args.data.file_stem() } else { args.data.file_name() };
        let name = name.context("--data has no name")?.to_string_lossy().into_owned();
        let digest = digest(base.path())?;
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
                let wanted = self.metric.plain_distance(self.queries.row(q), rows.row(0));
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

fn is_hdf5(data: &Path) -> bool {
    data.extension().is_some_and(|extension| ["hdf5", "h5"].iter().any(|known| extension == *known))
}

/// Where rows, queries and truth are.
fn paths(data: &Path) -> anyhow::Result<[PathBuf; 3]> {
    if is_hdf5(data) {
        return Ok([data.to_path_buf(), data.join("test"), data.to_path_buf()]);
    }
    Ok([find(data, "base")?, find(data, "query")?, with_suffix(data, ".gt.ibin")])
}

/// The metric that was asked for or that the file names; both, if they agree.
fn agreed(args: &DataArgs, of_file: Option<Metric>) -> anyhow::Result<Metric> {
    let shown = args.data.display();
    match (args.metric, of_file) {
        (Some(asked), Some(said)) if asked != said => {
            bail!("--metric is {asked}; {shown} says {said}")
        }
        (None, None) => bail!("--metric is missing: {shown} does not say what near means"),
        (asked, said) => Ok(asked.or(said).expect("one of them is there")),
    }
}

/// `DIR/NAME.PART.EXT`, whichever extension there is.
///
/// # Errors
/// There is no such file.
pub fn find(data: &Path, part: &str) -> anyhow::Result<PathBuf> {
    let extensions = Format::names().into_iter().filter(|name| *name != "safetensors");
    let mut paths = extensions.clone().map(|ext| with_suffix(data, &format!(".{part}.{ext}")));
    paths.find(|path| path.exists()).with_context(|| {
        let known = extensions.collect::<Vec<_>>().join(", ");
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

#[cfg(test)]
mod tests {
    use super::*;
    use foveal_datasets::{Element, Values, VectorWriter};

    fn refused(args: &DataArgs) -> String {
        format!("{:#}", Data::open(args).err().expect("refused"))
    }

    #[test]
    fn files_beside_each_other_need_a_metric() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("two");
        for part in ["base", "query"] {
            let path = with_suffix(&data, &format!(".{part}.fbin"));
            let mut writer = VectorWriter::create(path, Element::F32, 2).unwrap();
            writer.append(&Rows::new(2, Values::F32(vec![0.0, 1.0, 2.0, 2.0])).unwrap()).unwrap();
            writer.finish().unwrap();
        }
        let truth = Truth::new(2, 2, vec![0, 1, 1, 0], Some(vec![0.0, 5.0, 0.0, 5.0])).unwrap();
        truth.write(with_suffix(&data, ".gt.ibin")).unwrap();
        let mut args = DataArgs { data, metric: None, queries: None };
        assert!(refused(&args).starts_with("--metric is missing: "), "{}", refused(&args));
        args.metric = Some(Metric::InnerProduct);
        assert!(refused(&args).contains("under ip it is"), "{}", refused(&args));
        args.metric = Some(Metric::L2);
        assert_eq!(Data::open(&args).unwrap().name, "two");
    }

    fn of_sample(metric: Option<Metric>) -> DataArgs {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../datasets/samples");
        DataArgs { data: samples.join("lattice-6-euclidean.hdf5"), metric, queries: None }
    }

    #[cfg(feature = "hdf5")]
    #[test]
    fn one_hdf5_file_holds_everything() {
        for metric in [None, Some(Metric::L2)] {
            let data = Data::open(&of_sample(metric)).unwrap();
            assert_eq!((data.name.as_str(), data.metric), ("lattice-6-euclidean", Metric::L2));
            assert_eq!((data.base.len(), data.base.dim(), data.queries.len()), (100, 6, 10));
            assert_eq!((data.truth.queries(), data.truth.k()), (10, 20));
        }
        let said = refused(&of_sample(Some(Metric::Cosine)));
        assert!(said.starts_with("--metric is cosine; ") && said.ends_with("says l2"), "{said}");
    }

    #[cfg(not(feature = "hdf5"))]
    #[test]
    fn hdf5_names_the_feature_that_is_missing() {
        let said = refused(&of_sample(None));
        assert!(said.ends_with("wanted a program built with --features hdf5"), "{said}");
    }
}
