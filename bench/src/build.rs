//! `foveal-bench build`: what an index takes to build and to hold.

use std::path::PathBuf;

use clap::Args;
use foveal_bench::data::{Data, DataArgs};
use foveal_bench::line::{Build, Figures, Line, Sink};
use foveal_bench::machine;
use foveal_index::{BuildInput, BuildParams, Keys, build};

use crate::progress::Bars;

/// Build an index and measure time, memory and bytes.
#[derive(Args)]
pub struct BuildArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Keep the index in this directory, which must not exist yet [default: keep nothing]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Bits a dimension in the codes that preview walks.
    #[arg(long, default_value_t = 4)]
    bits: u8,
    /// The most neighbors a node may have.
    #[arg(long, value_name = "R")]
    max_degree: Option<u32>,
    /// Candidates kept while the graph grows.
    #[arg(long, value_name = "L")]
    list_size: Option<u32>,
    /// Prune slack.
    #[arg(long, value_name = "A")]
    alpha: Option<f32>,
    /// Threads [default: every core]
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Append the line to this file [default: standard output]
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

/// Builds once and writes one line.
///
/// # Errors
/// Data that cannot be used; an index that exists or cannot be written.
pub fn run(args: &BuildArgs) -> anyhow::Result<()> {
    let mut sink = Sink::open(args.out.as_deref())?;
    let data = Data::open(&args.data)?;
    let defaults = BuildParams::new(data.metric);
    let params = BuildParams {
        bits: args.bits,
        max_degree: args.max_degree.unwrap_or(defaults.max_degree),
        list_size: args.list_size.unwrap_or(defaults.list_size),
        alpha: args.alpha.unwrap_or(defaults.alpha),
        threads: args.threads,
        ..defaults
    };
    let scratch = tempfile::Builder::new().prefix("foveal-bench-").tempdir()?;
    let out = args.keep.clone().unwrap_or_else(|| scratch.path().join("index"));
    let bars = Bars::start();
    let input = BuildInput { base: &data.base, keys: Keys::From(0), payload: None, learn: None };
    let built = build(&input, &out, &params, bars.job())?;
    bars.finish();
    let threads = if args.threads == 0 { machine::cores() } else { args.threads as u32 };
    let n = data.base.len() as f64;
    sink.write(&Line {
        system: format!("foveal {}-bit", params.bits),
        dataset: data.dataset(),
        params: format!("R={} L={} alpha={}", params.max_degree, params.list_size, params.alpha),
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
