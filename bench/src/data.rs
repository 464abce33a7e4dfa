//! The data of a benchmark: rows, queries, and the truth about them.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use foveal_datasets::format::Format;
use foveal_datasets::truth_check::is_distance;
use foveal_datasets::{Element, KeyedRows, Metric, RowSource, Rows, Truth, TruthCheck, VectorFile};
use xxhash_rust::xxh3::Xxh3;

use crate::line::Dataset;

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
        let requested = args.queries.unwrap_or(usize::MAX).min(query_file.len());
        let queries = query_file.read(0..requested)?;
        let truth = Truth::read(&truth_path)?;
        if truth.queries() != query_file.len() {
            let (found, wanted) = (truth.queries(), query_file.len());
            bail!("{}: truth of {found} queries; there are {wanted}", truth_path.display());
        }
        let name = if is_hdf5(&args.data) { args.data.file_stem() } else { args.data.file_name() };
        let name = name.context("--data has no name")?.to_string_lossy().into_owned();
        let digest = digest(base.path())?;
        let data = Data { name, metric, base, queries, truth, digest };
        data.check_truth(&data.base, "the data")
            .with_context(|| truth_path.display().to_string())?;
        Ok(data)
    }

    /// Results wanted of a query: the requested number, if the truth knows as many.
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

    /// Whether the truth is that of `rows`, which have keys, for these queries.
    ///
    /// # Errors
    /// What contradicts it; a row that cannot be read.
    pub fn check_truth<R>(&self, rows: &R, place: &'static str) -> anyhow::Result<()>
    where
        R: KeyedRows<Error: std::error::Error + Send + Sync + 'static>,
    {
        let query_of = |q: usize| {
            let mut wide = vec![0.0; self.queries.dim()];
            self.queries.row(q).widen_into(&mut wide);
            wide
        };
        let (truth, metric) = (&self.truth, self.metric);
        let check = TruthCheck { truth, k: truth.k(), metric, rows, place };
        match check.run(self.queries.len(), &query_of)? {
            Some(mismatch) => Err(mismatch.into()),
            None => Ok(()),
        }
    }

    /// Whether an answer to query `q`, keys and distances, can be one from an index of these rows.
    ///
    /// # Errors
    /// A key that is no row; a distance that is not that of the row; a row that cannot be read.
    pub fn check_answer(&self, q: usize, answer: &[(u64, f32)]) -> anyhow::Result<()> {
        let n = self.base.len() as u64;
        let keys: Vec<u64> = answer.iter().map(|(key, _)| *key).collect();
        let known = self.base.count_known(&keys)?;
        if known < keys.len() {
            let found = format!("{known} of {} keys of an answer are row numbers", keys.len());
            bail!("{found} below {n}; wanted an index of these rows, with the keys 0 to {}", n - 1);
        }
        let (rows, query) = (self.base.rows(&keys)?, self.queries.row(q));
        for (i, (key, distance)) in answer.iter().enumerate() {
            let pair = (query, rows.row(i));
            // The index may hold rows rounded to 16 bits.
            if !is_distance(self.metric, *distance, pair, Element::Bf16) {
                let wanted = self.metric.plain_distance(pair.0, pair.1);
                bail!(
                    "query {q}: an answer has row {key} at distance {distance}; in the data it is \
                     at {wanted} under {}: an index of other rows",
                    self.metric
                );
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

/// The metric that was requested or that the file names; both, if they agree.
fn agreed(args: &DataArgs, of_file: Option<Metric>) -> anyhow::Result<Metric> {
    let shown = args.data.display();
    match (args.metric, of_file) {
        (Some(requested), Some(said)) if requested != said => {
            bail!("--metric is {requested}; {shown} says {said}")
        }
        (None, None) => bail!("--metric is missing: {shown} does not say what near means"),
        (requested, said) => Ok(requested.or(said).expect("one of them is there")),
    }
}

/// The extensions of files that hold rows and nothing else.
fn extensions() -> impl Iterator<Item = &'static str> {
    Format::names().into_iter().filter(|name| *name != "safetensors")
}

/// `DIR/NAME.PART.EXT`, whichever extension there is.
///
/// # Errors
/// There is no such file.
pub fn find(data: &Path, part: &str) -> anyhow::Result<PathBuf> {
    let mut paths = extensions().map(|ext| with_suffix(data, &format!(".{part}.{ext}")));
    paths.find(|path| path.exists()).with_context(|| {
        let known = extensions().collect::<Vec<_>>().join(", ");
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
        let data = Data::open(&args).unwrap();
        assert_eq!(data.name, "two");
        assert!(data.check_answer(0, &[(0, 0.0), (1, 5.0)]).is_ok());
        let refused = |answer: &[(u64, f32)]| data.check_answer(0, answer).unwrap_err().to_string();
        assert!(
            refused(&[(7, 0.0)]).starts_with("0 of 1 keys of an answer are row numbers below 2")
        );
        assert!(refused(&[(1, 2.0)]).contains("is at 5 under l2"), "{}", refused(&[(1, 2.0)]));
    }

    #[test]
    fn every_format_of_vectors_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for (i, extension) in extensions().enumerate() {
            let data = folder.path().join(i.to_string());
            let path = with_suffix(&data, &format!(".base.{extension}"));
            std::fs::write(&path, "").unwrap();
            assert_eq!(find(&data, "base").unwrap(), path);
        }
        assert!(extensions().any(|extension| extension == "bf16bin"));
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
