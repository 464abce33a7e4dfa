//! `foveal-bench build`: what an index takes to build and to hold.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use foveal_bench::data::{Data, DataArgs};
use foveal_bench::line::{Build, Figures, Line, Sink};
use foveal_bench::machine;
use foveal_bench::progress::Bars;
use foveal_datasets::{Metric, RowSource, VectorFile};
use foveal_index::{BuildInput, BuildParams, build};

/// Build an index and measure time, memory and bytes: one line for each combination of values.
#[derive(Args)]
pub struct BuildArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Keep the index in this directory, which must not exist yet; for one combination only
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Sample queries that the builds calibrate with.
    #[arg(long, value_name = "FILE")]
    learn: Option<PathBuf>,
    /// Bits a dimension in the codes [default: the engine's]
    #[arg(long, value_name = "B,B,...", value_delimiter = ',')]
    bits: Vec<u8>,
    /// The most neighbors a node may have [default: the engine's]
    #[arg(long, value_name = "R,R,...", value_delimiter = ',')]
    max_degree: Vec<u32>,
    /// Candidates kept while the graph grows [default: the engine's, at least R]
    #[arg(long, value_name = "L,L,...", value_delimiter = ',')]
    list_size: Vec<u32>,
    /// Prune slack [default: the engine's]
    #[arg(long, value_name = "A,A,...", value_delimiter = ',')]
    alpha: Vec<f32>,
    /// Threads; 0 is every core.
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "0")]
    threads: Vec<usize>,
    /// Append lines to this file [default: standard output]
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

/// Builds an index for each combination and writes a line for it.
///
/// # Errors
/// Data that cannot be used; parameters out of range, before anything is built; an index that
/// exists or cannot be written.
pub fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let mut sink = Sink::open(args.out.as_deref())?;
    let data = Data::open(&args.data)?;
    let combinations = combinations(args, data.metric)?;
    if args.keep.is_some() && combinations.len() > 1 {
        bail!("--keep takes one index; these values make {}", combinations.len());
    }
    let learn = args.learn.as_ref().map(VectorFile::open).transpose()?;
    for params in combinations {
        let scratch = tempfile::Builder::new().prefix("foveal-bench-").tempdir()?;
        let out = args.keep.clone().unwrap_or_else(|| scratch.path().join("index"));
        sink.write(&measure(
            &data,
            learn.as_ref().map(|file| file as &dyn RowSource),
            &out,
            &params,
        )?)?;
    }
    Ok(())
}

/// Every combination of the values given, each checked.
fn combinations(args: &BuildArgs, metric: Metric) -> anyhow::Result<Vec<BuildParams>> {
    let base = BuildParams::new(metric);
    let mut all = vec![base.clone()];
    fn each<T: Copy>(all: &mut Vec<BuildParams>, values: &[T], set: impl Fn(&mut BuildParams, T)) {
        if !values.is_empty() {
            let with = |params: &BuildParams, value: &T| {
                let mut params = params.clone();
                set(&mut params, *value);
                params
            };
            *all = all.iter().flat_map(|p| values.iter().map(move |v| with(p, v))).collect();
        }
    }
    each(&mut all, &args.bits, |params, bits| params.bits = Some(bits));
    each(&mut all, &args.max_degree, |params, degree| {
        params.max_degree = degree;
        params.list_size = params.list_size.max(degree);
    });
    each(&mut all, &args.list_size, |params, size| params.list_size = size);
    each(&mut all, &args.alpha, |params, alpha| params.alpha = alpha);
    each(&mut all, &args.threads, |params, threads| params.threads = threads);
    all.iter().try_for_each(BuildParams::check)?;
    Ok(all)
}

/// Builds once.
fn measure(
    data: &Data,
    learn: Option<&dyn RowSource>,
    out: &Path,
    params: &BuildParams,
) -> anyhow::Result<Line> {
    let bars = Bars::start();
    let input = BuildInput { learn, ..BuildInput::of(&data.base) };
    let built = build(&input, out, params, bars.job())?;
    bars.finish();
    let threads = if params.threads == 0 { machine::cores() } else { params.threads as u32 };
    let n = data.base.len() as f64;
    Ok(Line {
        system: format!("foveal {}-bit R={}", built.manifest.bits, params.max_degree),
        dataset: data.dataset(),
        params: format!("L={} alpha={}", params.list_size, params.alpha),
        figures: Figures::Build(Build {
            threads,
            build_seconds: built.measured.build_seconds,
            peak_rss_bytes: Some(built.measured.peak_rss_bytes),
            resident_bytes_per_vector: Some(built.resident_bytes as f64 / n),
            disk_bytes: Some(built.disk_bytes),
            digest: Some(built.manifest.digest.clone()),
        }),
        origin: machine::origin(machine::commit()),
    })
}
