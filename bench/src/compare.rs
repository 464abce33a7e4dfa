//! `foveal-bench compare`: faiss on the same data, each index in a process of its own.

use std::path::PathBuf;

use clap::Args;
use foveal_bench::data::DataArgs;

/// Build indexes of faiss and measure recall and speed on one thread.
#[derive(Args)]
pub struct CompareArgs {
    #[command(flatten)]
    pub data: DataArgs,
    /// Results wanted of a query.
    #[arg(long, default_value_t = 10)]
    pub k: u32,
    /// Measure this index only, written for faiss's index factory: HNSW32 [default: the baselines]
    #[arg(long, value_name = "FACTORY")]
    pub only: Option<String>,
    /// Candidates kept while an HNSW graph grows.
    #[arg(long, value_name = "EF", default_value_t = 200)]
    pub ef_construction: u32,
    /// Threads that build; one thread searches [default: every core]
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: u32,
    /// Append the lines to this file [default: standard output]
    #[arg(long, value_name = "FILE.jsonl")]
    pub out: Option<PathBuf>,
}

/// Says how to get faiss.
///
/// # Errors
/// Always: this program was built without it.
#[cfg(not(feature = "faiss"))]
pub fn run(_: &CompareArgs) -> anyhow::Result<()> {
    anyhow::bail!("built without the feature `faiss`; bench/faiss_build.sh builds it with")
}

/// Writes one line a build and one a setting. An index whose points are in the output already, from
/// a run that was cut off, is not measured again.
///
/// # Errors
/// A faiss compiled for any processor; data that cannot be used; an index that faiss does not know
/// or cannot build.
#[cfg(feature = "faiss")]
pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    use anyhow::{Context, bail};
    use foveal_bench::baselines;
    use foveal_bench::data::Data;
    use foveal_bench::line::{self, Figures, Line};

    baselines::check_version(&foveal_bench::native::version())?;
    if let Some(factory) = &args.only {
        return crate::baseline::measure(args, factory).with_context(|| format!("faiss {factory}"));
    }
    let data = Data::open(&args.data)?;
    let before = match &args.out {
        Some(path) if path.exists() => line::read(path)?,
        _ => Vec::new(),
    };
    for factory in baselines::standard(data.base.len(), data.base.dim()) {
        let system = format!("faiss {factory}");
        let point = |line: &&Line| {
            let same = line.system == system && line.dataset == data.dataset();
            same && matches!(line.figures, Figures::Recall(_))
        };
        if before.iter().filter(point).count() >= baselines::sweep(&factory, args.k).len() {
            eprintln!("{system} on {}: measured already", data.name);
            continue;
        }
        let mut child = std::process::Command::new(std::env::current_exe()?);
        child.args(std::env::args_os().skip(1)).arg("--only").arg(&factory);
        if !child.status()?.success() {
            bail!("faiss {factory} could not be measured");
        }
    }
    Ok(())
}
