//! The program `foveal-bench`: one verb a file.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use foveal_bench::load;
use foveal_datasets::harmless::harmless;
use foveal_index::kernel::check_variable;

#[cfg(feature = "faiss")]
mod baseline;
mod build;
mod compare;
mod coverage;
mod fetch;
mod import;
mod look_ups;
mod recall;
mod report;

/// Claims with numbers: recall curves, builds, load, other systems, one page that shows them.
#[derive(Parser)]
#[command(name = "foveal-bench", version, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Build(build::BuildArgs),
    Recall(recall::RecallArgs),
    Load(load::LoadArgs),
    Report(report::ReportArgs),
    Fetch(fetch::FetchArgs),
    Compare(compare::CompareArgs),
    Coverage(coverage::CoverageArgs),
    LookUps(look_ups::LookUpsArgs),
    Import(import::ImportArgs),
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb;
    let ready = check_variable().map_err(anyhow::Error::msg);
    let done = ready.and_then(|()| match verb {
        Verb::Build(args) => build::run(&args),
        Verb::Recall(args) => recall::run(&args),
        Verb::Load(args) => load::run(&args),
        Verb::Report(args) => report::run(&args),
        Verb::Fetch(args) => fetch::run(&args),
        Verb::Compare(args) => compare::run(&args),
        Verb::Coverage(args) => coverage::run(&args),
        Verb::LookUps(args) => look_ups::run(&args),
        Verb::Import(args) => import::run(&args),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told when stderr is closed as well.
            let line = format!("{error:#}");
            let _ = writeln!(std::io::stderr(), "foveal-bench: error: {}", harmless(&line));
            ExitCode::FAILURE
        }
    }
}
