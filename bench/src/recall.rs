//! `foveal-bench recall`: how an index answers, over its effort, its media and its threads.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use foveal_bench::data::{Data, DataArgs};
use foveal_bench::line::{Cost, Dataset, Figures, Line, Origin, Recall, RecallAt, Sink};
use foveal_bench::machine;
use foveal_bench::progress::Bars;
use foveal_datasets::RowSource;
use foveal_datasets::recall::{recall, recall_ann_benchmarks};
use foveal_index::{Io, MAX_THREADS, OpenOptions, SearchParams, Segment};
use foveal_measure::{Measurement, Plan, Totals};

/// Sweep an index: one line for each combination of the values given.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RecallArgs {
    #[command(flatten)]
    data: DataArgs,
    /// The index of the data: a directory made by `foveal build` or `foveal-bench build --keep`
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// Results wanted of a query.
    #[arg(long, default_value_t = 10)]
    k: u32,
    /// Efforts: candidates kept while searching; those below k are left out.
    #[arg(long, value_name = "L,L,...", value_delimiter = ',')]
    #[arg(default_value = "10,16,24,32,40,48,64,96,128,192,256,512,1024")]
    list_size: Vec<u32>,
    /// The most candidates whose full vectors are read [default: the list size]
    #[arg(long, value_name = "N,N,...", value_delimiter = ',')]
    rerank_size: Vec<u32>,
    /// Recalls to aim at, instead of list sizes: the index knows what reaches them.
    #[arg(long, value_name = "X,X,...", value_delimiter = ',')]
    #[arg(conflicts_with_all = ["list_size", "rerank_size"])]
    target_recall: Vec<f64>,
    /// How full vectors are read.
    #[arg(long, value_name = "auto|memory|mapped|pread|uring,...", value_delimiter = ',')]
    #[arg(default_value = "auto")]
    io: Vec<Io>,
    /// Threads, each pinned to a core.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1")]
    threads: Vec<usize>,
    /// Queries that each thread has begun at a time.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1")]
    in_flight: Vec<usize>,
    /// Read past every cache, as if the full vectors were asked for the first time.
    #[arg(long)]
    cold: bool,
    /// Append lines to this file [default: standard output]
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  foveal-bench recall --data sets/sift-photos --metric l2 --index sift.index
  foveal-bench recall --data sets/sift-photos --metric l2 --index sift.index --cold \\
      --io uring --threads 1,2 --list-size 48,128 --out sift.jsonl

Timed: from the query in memory to the answer in memory. One untimed pass, then passes until
they took a second and are at least three; queries a second are those of the median pass.";

/// Opens the index once for each medium, sweeps it and writes a line a point.
///
/// # Errors
/// Data or index that cannot be used or do not belong together; parameters out of range; an output
/// that cannot be written.
pub fn run(args: &RecallArgs) -> anyhow::Result<()> {
    let mut sink = Sink::open(args.out.as_deref())?;
    let data = Data::open(&args.data)?;
    data.check_k(args.k)?;
    let bars = Bars::start();
    let mut done = 0;
    for io in &args.io {
        // After the data was loaded, so that the growth from here on is the index.
        let anonymous_before = foveal_measure::anonymous_bytes()?;
        let options = OpenOptions { io: *io, cold: args.cold, ..OpenOptions::default() };
        let index = Segment::open_with(&args.index, &options)?;
        check_same(&index, &data)?;
        let sweep = Sweep { args, data: &data, index: &index, anonymous_before };
        let points = points(args, &index)?;
        for point in &points {
            bars.tell("points", done, (points.len() * args.io.len()) as u64);
            sink.write(&sweep.measure(point)?)?;
            done += 1;
        }
    }
    bars.finish();
    Ok(())
}

/// One combination of values.
struct Point {
    params: SearchParams,
    /// The recall aimed at and the recall to expect.
    aim: Option<(f64, f64)>,
    threads: usize,
    in_flight: usize,
}

/// All combinations that make sense, each checked.
fn points(args: &RecallArgs, index: &Segment) -> anyhow::Result<Vec<Point>> {
    let efforts = efforts(args, index)?;
    let mut points = Vec::new();
    for &threads in &args.threads {
        for &in_flight in &args.in_flight {
            let range = 1..=MAX_THREADS;
            if !range.contains(&threads) || !range.contains(&in_flight) {
                bail!(
                    "threads {threads}, in flight {in_flight}; wanted 1 to {MAX_THREADS} of each"
                );
            }
            let point = |&(params, aim)| Point { params, aim, threads, in_flight };
            points.extend(efforts.iter().map(point));
        }
    }
    Ok(points)
}

/// Parameters to search with; where a recall is aimed at, it and the one to expect.
type Effort = (SearchParams, Option<(f64, f64)>);

fn efforts(args: &RecallArgs, index: &Segment) -> anyhow::Result<Vec<Effort>> {
    let aimed = |target: &f64| {
        let (params, expected) = index.frontier().choose(args.k, *target)?;
        Ok((params, Some((*target, expected))))
    };
    if !args.target_recall.is_empty() {
        return args.target_recall.iter().map(aimed).collect();
    }
    let mut efforts = Vec::new();
    for list_size in args.list_size.iter().filter(|list| **list >= args.k) {
        let whole = [*list_size];
        let sizes = if args.rerank_size.is_empty() { &whole } else { &args.rerank_size[..] };
        for rerank_size in sizes.iter().map(|size| (*size).min(*list_size)) {
            let params = SearchParams::with_list_size(args.k, *list_size);
            let params = SearchParams { rerank_size, ..params };
            params.check()?;
            efforts.push((params, None));
        }
    }
    if efforts.is_empty() {
        bail!("no list size of at least k = {}; wanted one", args.k);
    }
    Ok(efforts)
}

/// An index of other data answers as well, only not these queries.
fn check_same(index: &Segment, data: &Data) -> anyhow::Result<()> {
    let manifest = index.manifest();
    let found = (index.len(), manifest.dim, manifest.metric);
    let wanted = (data.base.len() as u64, data.base.dim() as u32, data.metric);
    if found != wanted {
        let (shown, name) = (index.path().display(), &data.name);
        bail!(
            "{shown}: holds {} x {} under {}; {name} is {} x {} under {}",
            found.0,
            found.1,
            found.2,
            wanted.0,
            wanted.1,
            wanted.2
        );
    }
    data.check_truth(index, "this index").with_context(|| index.path().display().to_string())
}

/// An index that is measured.
struct Sweep<'a> {
    args: &'a RecallArgs,
    data: &'a Data,
    index: &'a Segment,
    anonymous_before: u64,
}

impl Sweep<'_> {
    fn measure(&self, point: &Point) -> anyhow::Result<Line> {
        let bars = Bars::start();
        let plan = Plan {
            allowed: None,
            index: self.index,
            queries: &self.data.queries,
            params: point.params,
            threads: point.threads,
            in_flight: point.in_flight,
            job: bars.job(),
        };
        let measured = foveal_measure::run(&plan)?;
        bars.finish();
        let figures = Figures::Recall(Box::new(self.figures(point, &measured)?));
        let manifest = self.index.manifest();
        let (dataset, origin): (Dataset, Origin) =
            (self.data.dataset(), machine::origin(machine::commit()));
        let SearchParams { list_size, rerank_size, .. } = point.params;
        let rerank = match rerank_size {
            same if same == list_size => String::new(),
            other => format!(" rerank={other}"),
        };
        let aim = match point.aim {
            Some((target, expected)) => format!(" for recall {target}, expected {expected:.4}"),
            None => String::new(),
        };
        let system = format!("foveal {}-bit R={}", manifest.bits, manifest.max_degree);
        let params = format!("L={list_size}{rerank}{aim}");
        Ok(Line { system, dataset, params, figures, origin })
    }

    fn figures(&self, point: &Point, measured: &Measurement) -> anyhow::Result<Recall> {
        let (data, k) = (self.data, point.params.k as usize);
        let found: Vec<Vec<(u64, f32)>> = measured
            .found
            .iter()
            .map(|list| list.iter().map(|neighbor| (neighbor.key, neighbor.distance)).collect())
            .collect();
        let at = |k: usize| recall(&data.truth, &found, k, data.metric);
        let up_to = |cut: usize| (cut <= k).then(|| at(cut)).transpose();
        let n = self.index.len() as f64;
        let resident = measured.resident_bytes(self.index, self.anonymous_before);
        Ok(Recall {
            k: point.params.k,
            queries: data.queries.len() as u64,
            threads: point.threads as u32,
            in_flight: point.in_flight as u32,
            io: Some(self.index.io().to_string()),
            cold: self.args.cold,
            recall: at(k)?,
            recall_at: Some(RecallAt { one: at(1)?, ten: up_to(10)?, hundred: up_to(100)? }),
            recall_ann_benchmarks: recall_ann_benchmarks(&data.truth, &found, k, data.metric)?,
            qps: measured.qps,
            qps_spread: Some(measured.qps_spread),
            passes: Some(measured.passes as u32),
            latency_us: Some(measured.latency),
            cost: Some(cost(&measured.totals)),
            resident_bytes_per_vector: Some(resident as f64 / n),
            full_store_cached_bytes_per_vector: Some(
                self.index.full_store_cached_bytes()? as f64 / n,
            ),
        })
    }
}

fn cost(totals: &Totals) -> Cost {
    let mean = |sum: u64| sum as f64 / totals.queries.max(1) as f64;
    Cost {
        distances: mean(totals.stats.distances),
        hops: mean(totals.stats.hops),
        reads: mean(totals.stats.reads),
        device_reads: mean(totals.stats.device_reads),
        read_bytes: mean(totals.stats.read_bytes),
    }
}
