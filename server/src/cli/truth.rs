//! `foveal truth`: the true nearest neighbors, by scanning everything.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use foveal_datasets::format::TruthFormat;
use foveal_datasets::output_file::check_new;
use foveal_datasets::{Metric, VectorFile};
use foveal_index::params::check_threads;
use foveal_index::{ExactAsk, Job, MAX_K, exact};

use super::exit_code::Outcome;
use super::inputs::{BaseArgs, CastArgs, QueriesArgs};
use super::interrupt::Interrupt;
use super::neighbor_lists::truth_of;
use super::output::Output;
use super::progress::Bars;
use super::table::{counted, grouped, seconds};
use super::{choices, query_file, shell_words};

/// Compute ground truth: the exact nearest neighbors of every query.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TruthArgs {
    /// Vectors to search among: .fvecs .bvecs .fbin .u8bin .i8bin .f16bin .bf16bin .npy
    /// .safetensors; .hdf5 if compiled in.
    #[arg(long, value_name = "FILE")]
    base: PathBuf,
    /// Queries, in one of the same formats.
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,
    /// What "near" means: squared Euclidean distance, inner product, or angle.
    #[arg(long, value_parser = choices::metric())]
    metric: Metric,
    /// Neighbors to find for each query.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_K)))]
    k: u32,
    /// The file to write: .ibin (row numbers and distances) or .ivecs (row numbers).
    #[arg(long, value_name = "FILE.ibin")]
    out: PathBuf,
    /// Worker threads [default: every core]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    threads: usize,
    #[command(flatten)]
    base_args: BaseArgs,
    #[command(flatten)]
    queries_args: QueriesArgs,
    #[command(flatten)]
    cast: CastArgs,
}

const EXAMPLES: &str = "\
Example:
  foveal truth --base sift.fvecs --queries sift_query.fvecs --metric l2 --k 100 \\
      --out truth.ibin";

/// Scans the base file for every query and writes what is nearest.
///
/// # Errors
/// Files that cannot be read, make no sense or do not go together; an output that exists or
/// cannot be written; ctrl-c. Nothing stays behind then.
pub(crate) fn run(args: &TruthArgs) -> anyhow::Result<Outcome> {
    check_threads(args.threads)?;
    TruthFormat::of_output(&args.out)?;
    check_new(&args.out)?;
    let base = VectorFile::open_as(&args.base, &args.base_args.read_as(args.cast))?;
    let queries = query_file::read(&args.queries, &args.queries_args.read_as(args.cast))?;
    query_file::check(&args.queries, &queries, base.dim(), args.metric)?;

    let started = Instant::now();
    let interrupt = Interrupt::catch()?;
    let bars = Bars::start();
    let show = |progress| bars.show(progress);
    let job = Job { progress: Some(&show), interrupt: Some(interrupt.flag()) };
    let k = args.k as usize;
    let ask = ExactAsk { metric: args.metric, k, threads: args.threads };
    let found = exact::search(&base, &queries, &ask, job)?;
    bars.finish();
    truth_of(&found, k)?.write(&args.out)?;

    let asked = counted(queries.len() as u64, "query", "queries");
    let rows = grouped(base.len() as u64);
    let (out, taken) = (shell_words::quoted(&args.out), seconds(started.elapsed().as_secs_f64()));
    Output::stdout()
        .print(&format!("{out}: the {k} nearest of {rows} rows for {asked}, {taken}\n"))?;
    Ok(Outcome::Done)
}
