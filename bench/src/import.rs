//! `foveal-bench import`: lines of other programs, turned into ours.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use foveal_bench::data::{Data, DataArgs, digest, find};
use foveal_bench::line::{Build, Dataset, Figures, Line, Origin, Recall, Sink};
use foveal_bench::machine;
use foveal_datasets::{Metric, RowSource, VectorFile};
use serde::Deserialize;

/// Turn points that other programs measured into lines.
///
/// A point is one JSON object a line, its index built anew for each peer or kept from an earlier
/// run: {"dataset","k","peer","params","recall","qps","build_s","rss_mb"}, rss_mb being the growth
/// of memory over the loaded vectors in MiB. One thread searched, unless the name of the peer ends
/// with ", N thread(s)". Points of other data sets are left out.
#[derive(Args)]
pub struct ImportArgs {
    /// Files of points
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Data set the points are of: DIR/NAME, where DIR holds NAME.base.EXT and NAME.query.EXT
    #[arg(long, value_name = "DIR/NAME")]
    data: PathBuf,
    /// What near means [default: left out]
    #[arg(long, value_name = "l2|ip|cosine")]
    metric: Option<Metric>,
    /// Queries a point was measured with [default: all]
    #[arg(long, value_name = "N")]
    queries: Option<u64>,
    /// Threads that built the indexes
    #[arg(long, value_name = "N", default_value_t = 2)]
    build_threads: u32,
    /// Append the lines to this file [default: standard output]
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

/// A line of another program.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Point {
    dataset: String,
    k: u32,
    peer: String,
    params: String,
    recall: f64,
    qps: f64,
    build_s: f64,
    rss_mb: f64,
}

/// Writes one line an index and one a point, or nothing if a file is malformed.
///
/// # Errors
/// Data or a file that cannot be read; a line that is no point, named with its number; a file
/// without points of the data set.
pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let base = VectorFile::open(find(&args.data, "base")?)?;
    check_metric(args)?;
    let name = args.data.file_name().context("--data has no name")?;
    let dataset = Dataset {
        name: name.to_string_lossy().into_owned(),
        n: Some(base.len() as u64),
        dim: Some(base.dim() as u32),
        metric: args.metric,
        digest: Some(digest(base.path())?),
    };
    let queries = match args.queries {
        Some(queries) => queries,
        None => VectorFile::open(find(&args.data, "query")?)?.len() as u64,
    };
    let mut lines = Vec::new();
    for file in &args.files {
        let shown = || file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(shown)?;
        let points = points(&text, &dataset.name).with_context(shown)?;
        let told = Told { dataset: &dataset, queries, build_threads: args.build_threads };
        lines.extend(told.lines(&points, &origin(file)));
    }
    let mut sink = Sink::open(args.out.as_deref())?;
    lines.iter().try_for_each(|line| sink.write(line))
}

/// Whether the metric named is that of the truth beside the data, if there is one: the recalls that
/// points tell were counted by it.
fn check_metric(args: &ImportArgs) -> anyhow::Result<()> {
    let Some(metric) = args.metric else { return Ok(()) };
    let mut truth = args.data.clone().into_os_string();
    truth.push(".gt.ibin");
    if Path::new(&truth).exists() {
        let data = DataArgs { data: args.data.clone(), metric: Some(metric), queries: None };
        Data::open(&data)?;
    }
    Ok(())
}

/// Where points come from, as far as a file tells: nothing but when it was last written to.
fn origin(file: &Path) -> Origin {
    let written = std::fs::metadata(file).and_then(|file| file.modified()).ok();
    let date = written.and_then(|time| jiff::Timestamp::try_from(time).ok());
    let date = date.and_then(|date| date.round(jiff::Unit::Second).ok());
    Origin {
        machine: None,
        version: "unknown".into(),
        date: date.map(|date| date.to_string()).unwrap_or_default(),
        command: machine::origin(String::new()).command,
    }
}

/// The points of `dataset` in a file.
fn points(text: &str, dataset: &str) -> anyhow::Result<Vec<Point>> {
    let mut points = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let point = point(line).with_context(|| format!("line {}", number + 1))?;
        if point.dataset == dataset {
            points.push(point);
        }
    }
    if points.is_empty() {
        bail!("no point of {dataset}");
    }
    Ok(points)
}

fn point(line: &str) -> anyhow::Result<Point> {
    let point: Point = serde_json::from_str(line).map_err(|error| {
        // The parser met one line only: its number means nothing.
        let (text, column) = (error.to_string(), error.column());
        let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
        anyhow!("column {column}: {text}")
    })?;
    let checks = [
        ("k", point.k > 0, "at least 1"),
        ("recall", (0.0..=1.0).contains(&point.recall), "0 to 1"),
        ("qps", point.qps > 0.0, "more than 0"),
        ("build_s", point.build_s >= 0.0, "0 or more"),
        ("rss_mb", point.rss_mb >= 0.0, "0 or more"),
        ("peer", !point.peer.is_empty(), "a name"),
    ];
    match checks.into_iter().find(|(_, good, _)| !good) {
        Some((field, _, wanted)) => bail!("{field}: wanted {wanted}"),
        None => Ok(point),
    }
}

/// What the points themselves leave out.
struct Told<'a> {
    dataset: &'a Dataset,
    queries: u64,
    build_threads: u32,
}

impl Told<'_> {
    /// A line for each index before its first point, and one for each point.
    fn lines(&self, points: &[Point], origin: &Origin) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        for point in points {
            let (system, threads) = system(&point.peer);
            let line = |params: &str, figures| Line {
                system: system.into(),
                dataset: self.dataset.clone(),
                params: params.into(),
                figures,
                origin: origin.clone(),
            };
            let build = line("", Figures::Build(self.build(point)));
            if !lines.contains(&build) {
                lines.push(build);
            }
            lines.push(line(&point.params, self.recall(point, threads)));
        }
        lines
    }

    fn bytes_per_vector(&self, point: &Point) -> Option<f64> {
        self.dataset.n.map(|n| point.rss_mb * (1 << 20) as f64 / n as f64)
    }

    fn build(&self, point: &Point) -> Build {
        Build {
            threads: self.build_threads,
            build_seconds: point.build_s,
            peak_rss_bytes: None,
            resident_bytes_per_vector: self.bytes_per_vector(point),
            disk_bytes: None,
            digest: None,
        }
    }

    fn recall(&self, point: &Point, threads: u32) -> Figures {
        Figures::Recall(Box::new(Recall {
            k: point.k,
            queries: self.queries,
            threads,
            in_flight: 1,
            io: None,
            cold: false,
            recall: point.recall,
            recall_at: None,
            recall_ann_benchmarks: None,
            qps: point.qps,
            qps_spread: None,
            passes: None,
            latency_us: None,
            cost: None,
            resident_bytes_per_vector: self.bytes_per_vector(point),
            full_store_cached_bytes_per_vector: None,
        }))
    }
}

/// Name and search threads of a peer: `diskann disk, 2 thread(s)`.
fn system(peer: &str) -> (&str, u32) {
    let named = peer.rsplit_once(", ").and_then(|(name, rest)| {
        let threads = rest.strip_suffix(" thread(s)")?.parse().ok()?;
        Some((name, threads))
    });
    named.unwrap_or((peer, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"dataset":"lattice","k":10,"peer":"tree","params":"ef=10","recall":0.5,
"qps":1000,"build_s":2.5,"rss_mb":1}"#;

    fn text(changes: &[(&str, &str)]) -> String {
        let good = GOOD.replace('\n', "");
        changes.iter().fold(good, |text, (old, new)| text.replace(old, new))
    }

    fn lines(text: &str) -> Vec<Line> {
        let name = "lattice".to_string();
        let dataset = Dataset { name, n: Some(1 << 10), dim: Some(8), metric: None, digest: None };
        let origin = Origin {
            machine: None,
            version: "unknown".into(),
            date: String::new(),
            command: String::new(),
        };
        let told = Told { dataset: &dataset, queries: 100, build_threads: 2 };
        told.lines(&points(text, "lattice").unwrap(), &origin)
    }

    #[test]
    fn an_index_is_told_once_before_its_points() {
        let second = text(&[("ef=10", "ef=20"), ("0.5", "0.75")]);
        let other = text(&[("tree", "list"), ("2.5", "3")]);
        let found = lines(&[text(&[]), second, String::new(), other].join("\n"));
        let shown: Vec<_> = found.iter().map(|l| (l.system.as_str(), l.params.as_str())).collect();
        let wanted = [("tree", ""), ("tree", "ef=10"), ("tree", "ef=20"), ("list", "")];
        assert_eq!(shown, [&wanted[..], &[("list", "ef=10")]].concat());
        let Figures::Build(build) = &found[0].figures else { panic!("{:?}", found[0]) };
        assert_eq!((build.threads, build.build_seconds), (2, 2.5));
        assert_eq!(build.resident_bytes_per_vector, Some(1024.0));
        let Figures::Recall(point) = &found[2].figures else { panic!("{:?}", found[2]) };
        assert_eq!((point.k, point.queries, point.threads), (10, 100, 1));
        assert_eq!((point.recall, point.qps), (0.75, 1000.0));
        assert_eq!(point.resident_bytes_per_vector, Some(1024.0));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for line in lines(&text(&[])) {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }

    #[test]
    fn a_second_build_is_told_too() {
        let again = text(&[("2.5", "2.75")]);
        assert_eq!(lines(&[text(&[]), again].join("\n")).len(), 4);
    }

    #[test]
    fn threads_are_part_of_some_names() {
        assert_eq!(system("disk, 2 thread(s)"), ("disk", 2));
        assert_eq!(system("IVF64,PQ8x4fs, many thread(s)"), ("IVF64,PQ8x4fs, many thread(s)", 1));
        assert_eq!(system("IVF64,Flat"), ("IVF64,Flat", 1));
    }

    #[test]
    fn a_malformed_line_is_named() {
        let said = |bad: &str| {
            let text = [text(&[]).as_str(), "", bad].join("\n");
            format!("{:#}", points(&text, "lattice").unwrap_err())
        };
        assert!(said("{").starts_with("line 3: column 1: EOF"), "{}", said("{"));
        assert!(said("[1]").starts_with("line 3: "));
        assert!(said(&text(&[("\"k\":10,", "")])).ends_with(": missing field `k`"));
        assert!(said(&text(&[("0.5", "NaN")])).starts_with("line 3: "));
        assert_eq!(said(&text(&[("0.5", "1.5")])), "line 3: recall: wanted 0 to 1");
        assert_eq!(said(&text(&[("1000", "0")])), "line 3: qps: wanted more than 0");
        assert_eq!(said(&text(&[("\"k\":10", "\"k\":0")])), "line 3: k: wanted at least 1");
    }

    #[test]
    fn points_of_other_data_are_left_out() {
        let other = text(&[("lattice", "photos")]);
        assert_eq!(lines(&[text(&[]), other.clone()].join("\n")).len(), 2);
        for text in [other.as_str(), ""] {
            let said = points(text, "lattice").unwrap_err().to_string();
            assert_eq!(said, "no point of lattice");
        }
    }
}
