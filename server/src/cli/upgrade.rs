//! `foveal upgrade`: an index of an earlier format version, rewritten.

use std::path::PathBuf;

use clap::Args;
use foveal_datasets::harmless::harmless;
use foveal_index::disk::FORMAT_VERSION;
use foveal_index::{Job, inspect, upgrade};
use serde::Serialize;

use super::exit_code::Outcome;
use super::interrupt::Interrupt;
use super::output::{Format, Output};
use super::progress::Bars;
use super::terminal::Terminal;

/// Rewrite an index that an earlier version of this program built, so that this one opens it.
#[derive(Args)]
#[command(after_help = NOTES)]
pub(crate) struct UpgradeArgs {
    /// The index: a directory made by `foveal build`.
    #[arg(value_name = "DIR")]
    index: PathBuf,
    /// Write the new index into this directory, which does not exist yet, and leave the old one
    /// [default: it takes the place of the old one].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The form of the result.
    #[arg(long, value_enum, default_value = "table", value_name = "table|json")]
    #[arg(hide_possible_values = true)]
    format: Format,
}

const NOTES: &str = "\
The new index is written beside the old one, checked, and takes its place in one step. That takes
as much free disk as the index has, and as much memory as its codes, graph and keys. An index of
this program's format version is left as it is.";

/// What `upgrade --format json` prints, fields in this order.
#[derive(Serialize)]
struct UpgradeJson {
    /// The format version that the index had.
    from: u32,
    format_version: u32,
    digest: String,
}

/// Rewrites the index if it has an earlier version.
///
/// # Errors
/// No index there; a version that cannot be rewritten; damage; the disk refuses; ctrl-c. The old
/// index is as it was.
pub(crate) fn run(args: &UpgradeArgs, terminal: &Terminal) -> anyhow::Result<Outcome> {
    let interrupt = Interrupt::catch()?;
    let bars = Bars::start();
    let show = |progress| bars.show(progress);
    let job = Job { progress: Some(&show), interrupt: Some(interrupt.flag()) };
    let upgraded = upgrade(&args.index, args.out.as_deref(), job)?;
    bars.finish();
    let (from, digest) = match upgraded {
        Some(upgraded) => (upgraded.from, upgraded.manifest.digest),
        None => (FORMAT_VERSION, inspect(&args.index)?.0.digest),
    };
    let mut output = Output::stdout();
    if args.format == Format::Json {
        output.print_json(&UpgradeJson { from, format_version: FORMAT_VERSION, digest })?;
        return Ok(Outcome::Done);
    }
    let index = args.out.as_ref().unwrap_or(&args.index).display().to_string();
    let text = match from {
        FORMAT_VERSION => format!("format version {from} already: nothing was done"),
        _ => format!("format version {from} -> {FORMAT_VERSION}, digest {digest}"),
    };
    output.print(&format!("{}: {}: {text}\n", terminal.good("ok"), harmless(&index)))?;
    Ok(Outcome::Done)
}
