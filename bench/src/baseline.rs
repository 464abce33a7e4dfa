//! One index of faiss, built and searched.

use std::time::Instant;

use anyhow::{Context, bail};
use faiss::index::autotune::ParameterSpace;
use faiss::index::{IndexImpl, SearchResult};
use faiss::{MetricType, Segment, index_factory};
use foveal_bench::baselines::{Passes, Setting, shown, sweep, timed, widened};
use foveal_bench::data::{Data, DataArgs};
use foveal_bench::line::{Build, Figures, Line, Recall, RecallAt, Sink};
use foveal_bench::progress::Bars;
use foveal_bench::{machine, native};
use foveal_datasets::recall::{recall, recall_ann_benchmarks};
use foveal_datasets::{Metric, Rows};
use foveal_measure::anonymous_bytes;

use crate::compare::CompareArgs;

/// Queries of an index without search parameters.
const FLAT_QUERIES: usize = 1000;
/// A sweep of a graph ends with the point that finds no more than this beyond the one before.
const LEAST_GAIN: f64 = 3e-4;
/// Processors that searching on one thread may seem to take.
const MAX_PROCESSORS: f64 = 1.2;

/// Builds the index that `factory` describes and searches it with every setting.
///
/// # Errors
/// Data that cannot be used; an index that faiss does not know or cannot build; a search that
/// takes more than one processor.
pub fn measure(args: &CompareArgs, factory: &str) -> anyhow::Result<()> {
    let mut sink = Sink::open(args.out.as_deref())?;
    let data = Data::open(&data_args(args, factory))?;
    data.check_k(args.k)?;
    let rows = data.base.read(0..data.base.len())?;
    let base = widened(&rows, data.metric)?;
    let queries = widened(&data.queries, data.metric).context("queries")?;
    let bars = Bars::start();
    let line = |params: String, figures: Figures| Line {
        system: format!("faiss {factory}"),
        dataset: data.dataset(),
        params,
        figures,
        origin: machine::origin(format!("faiss {}", native::version())),
    };
    bars.tell("building", 0, 1);
    let before = anonymous_bytes()?;
    let (mut index, mut build) = built(args, &data, factory, &base)?;
    let growth = anonymous_bytes()?.saturating_sub(before);
    build.resident_bytes_per_vector = Some(growth as f64 / rows.len() as f64);
    drop(base);
    let graph = factory.starts_with("HNSW");
    let params = if graph { format!("efConstruction={}", args.ef_construction) } else { "".into() };
    sink.write(&line(params, Figures::Build(build.clone())))?;

    let settings = sweep(factory, args.k);
    let mut reached = f64::NEG_INFINITY;
    for (done, setting) in settings.iter().enumerate() {
        bars.tell("searching", done as u64, settings.len() as u64);
        set(&index, setting)?;
        let (answers, passes) = search(&mut index, &queries, data.queries.len(), args.k)?;
        let found = found(&data, &rows, &answers, args.k);
        let mut point = figures(&data, &found, args.k, &passes)?;
        point.resident_bytes_per_vector = build.resident_bytes_per_vector;
        let gained = point.recall - reached;
        reached = point.recall;
        sink.write(&line(shown(setting), Figures::Recall(Box::new(point))))?;
        // Codes that are not refined end at their own accuracy: more effort finds nothing more.
        if graph && gained < LEAST_GAIN {
            break;
        }
    }
    bars.finish();
    Ok(())
}

fn built(
    args: &CompareArgs,
    data: &Data,
    factory: &str,
    base: &[f32],
) -> anyhow::Result<(IndexImpl, Build)> {
    let threads = if args.threads == 0 { machine::cores() } else { args.threads };
    native::set_threads(threads);
    let metric = match data.metric {
        Metric::L2 => MetricType::L2,
        Metric::InnerProduct | Metric::Cosine => MetricType::InnerProduct,
    };
    let start = Instant::now();
    let mut index = index_factory(data.base.dim() as u32, factory, metric)?;
    if factory.starts_with("HNSW") {
        set(&index, &vec![("efConstruction", args.ef_construction)])?;
    }
    index.train(base)?;
    index.add(base)?;
    let build = Build {
        threads,
        build_seconds: start.elapsed().as_secs_f64(),
        peak_rss_bytes: None,
        resident_bytes_per_vector: None,
        disk_bytes: None,
        digest: None,
    };
    Ok((index, build))
}

fn set(index: &IndexImpl, setting: &Setting) -> anyhow::Result<()> {
    let space = ParameterSpace::new()?;
    for (name, value) in setting {
        space
            .set_index_parameter(index, name, *value)
            .with_context(|| format!("{name}={value}"))?;
    }
    Ok(())
}

/// A scan of everything takes as long for each query: some tell what all would.
fn data_args(args: &CompareArgs, factory: &str) -> DataArgs {
    let most = if factory == "Flat" { FLAT_QUERIES } else { usize::MAX };
    let queries = args.data.queries.unwrap_or(usize::MAX).min(most);
    DataArgs { queries: Some(queries), ..args.data.clone() }
}

/// Answers to all queries, sent at once: faiss is at its fastest then.
fn search(
    index: &mut IndexImpl,
    queries: &[f32],
    count: usize,
    k: u32,
) -> anyhow::Result<(SearchResult, Passes)> {
    native::set_threads(1);
    let mut start = None;
    let (answers, passes) = timed(count, || {
        let answers = index.search(queries, k as usize)?;
        start.get_or_insert_with(machine::processor_seconds);
        Ok(answers)
    })?;
    // The clock started after the untimed pass.
    let taken = machine::processor_seconds() - start.unwrap_or_default();
    let processors = taken / passes.seconds;
    if processors > MAX_PROCESSORS {
        bail!(
            "searching on one thread took {processors:.1} processors: BLAS has threads of its \
             own; link one with OpenMP threads (package libopenblas-openmp-dev)"
        );
    }
    Ok((answers, passes))
}

/// The keys that faiss found, with the project's own distances.
fn found(data: &Data, rows: &Rows, answers: &SearchResult, k: u32) -> Vec<Vec<(u64, f32)>> {
    let of_query = |(q, labels): (usize, &[faiss::Idx])| {
        let keys = labels.iter().filter_map(|label| label.get());
        let query = data.queries.row(q);
        keys.map(|key| (key, data.metric.plain_distance(query, rows.row(key as usize)) as f32))
            .collect()
    };
    answers.labels.chunks_exact(k as usize).enumerate().map(of_query).collect()
}

fn figures(
    data: &Data,
    found: &[Vec<(u64, f32)>],
    k: u32,
    passes: &Passes,
) -> anyhow::Result<Recall> {
    let at = |k: usize| recall(&data.truth, found, k, data.metric);
    let up_to = |cut: usize| (cut <= k as usize).then(|| at(cut)).transpose();
    Ok(Recall {
        k,
        queries: data.queries.len() as u64,
        threads: 1,
        in_flight: 1,
        io: None,
        cold: false,
        recall: at(k as usize)?,
        recall_at: Some(RecallAt { one: at(1)?, ten: up_to(10)?, hundred: up_to(100)? }),
        recall_ann_benchmarks: recall_ann_benchmarks(&data.truth, found, k as usize, data.metric)?,
        qps: passes.qps,
        qps_spread: Some(passes.spread),
        passes: Some(passes.count),
        latency_us: None,
        cost: None,
        resident_bytes_per_vector: None,
        full_store_cached_bytes_per_vector: None,
    })
}
