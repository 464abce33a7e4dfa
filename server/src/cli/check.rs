//! `foveal check`: whether every byte of an index is what it was when it was built.

use std::path::PathBuf;

use clap::Args;
use foveal_datasets::harmless::harmless;
use foveal_index::{CheckReport, Job};
use serde::Serialize;

use super::exit_code::Outcome;
use super::interrupt;
use super::output::{Format, Output};
use super::progress::Bars;
use super::table::{Table, bytes, counted, grouped};
use super::terminal::Terminal;

/// Check an index for damage: exit 1 and name each place where there is any.
#[derive(Args)]
pub(crate) struct CheckArgs {
    /// The index: a directory made by `foveal build`.
    #[arg(value_name = "DIR")]
    index: PathBuf,
    /// Also read full vectors and payloads, and count what a walk of the graph can reach.
    #[arg(long)]
    deep: bool,
    /// The form of the result.
    #[arg(long, value_enum, default_value = "table", value_name = "table|json")]
    #[arg(hide_possible_values = true)]
    format: Format,
}

/// What `check --format json` prints, fields in this order.
#[derive(Serialize)]
struct CheckJson<'a> {
    ok: bool,
    n: u64,
    files: Vec<FileJson<'a>>,
    /// Null unless `--deep`.
    reachable: Option<u64>,
    damage: &'a [String],
}

#[derive(Serialize)]
struct FileJson<'a> {
    name: &'a str,
    bytes: u64,
    blocks: u64,
}

/// Reads and verifies everything.
///
/// # Errors
/// The directory is no index at all or cannot be read; ctrl-c. Damage is no error but an outcome.
pub(crate) fn run(args: &CheckArgs, terminal: &Terminal) -> anyhow::Result<Outcome> {
    // A check leaves nothing behind, and some of its steps are long.
    interrupt::end_at_once()?;
    let bars = Bars::start();
    let show = |progress| bars.show(progress);
    let job = Job { progress: Some(&show), interrupt: None };
    let report = foveal_index::check(&args.index, args.deep, job)?;
    bars.finish();
    let mut output = Output::stdout();
    match args.format {
        Format::Json => output.print_json(&json_of(&report))?,
        Format::Table => output.print(&table_of(&report, terminal))?,
    }
    Ok(if report.damage.is_empty() { Outcome::Done } else { Outcome::CheckFailed })
}

fn json_of(report: &CheckReport) -> CheckJson<'_> {
    let files = report.files.iter();
    CheckJson {
        ok: report.damage.is_empty(),
        n: report.n,
        files: files
            .map(|file| FileJson { name: &file.name, bytes: file.bytes, blocks: file.blocks })
            .collect(),
        reachable: report.reachable,
        damage: &report.damage,
    }
}

fn table_of(report: &CheckReport, terminal: &Terminal) -> String {
    let mut table = Table::default();
    for file in &report.files {
        let blocks = match file.blocks {
            0 => "length only, without --deep".to_string(),
            blocks => counted(blocks, "block", "blocks"),
        };
        table.line(&file.name, format!("{:>10}  {blocks}", bytes(file.bytes)));
    }
    if let Some(reachable) = report.reachable {
        let (reachable, n) = (grouped(reachable), grouped(report.n));
        table.line("reachable", format!("{reachable} of {n} vectors"));
    }
    let mut text = table.render(terminal);
    if report.damage.is_empty() {
        let vectors = counted(report.n, "vector", "vectors");
        text.push_str(&format!("{}: {vectors}, no damage found\n", terminal.good("ok")));
        return text;
    }
    let places = counted(report.damage.len() as u64, "place", "places");
    text.push_str(&format!("{} in {places}\n", terminal.bad("damaged")));
    for place in &report.damage {
        text.push_str(&format!("  {}\n", harmless(place)));
    }
    text
}

#[cfg(test)]
mod tests {
    use foveal_index::disk::CheckedFile;

    use super::*;

    fn report(damage: &[&str]) -> CheckReport {
        let file = CheckedFile { name: "codes".into(), bytes: 5000, blocks: 2 };
        let damage = damage.iter().map(|place| place.to_string()).collect();
        CheckReport { n: 100, files: vec![file], reachable: Some(99), damage }
    }

    #[test]
    fn json_has_its_fields_in_order() {
        let text = serde_json::to_string(&json_of(&report(&["codes: at 4096"]))).unwrap();
        let wanted = concat!(
            r#"{"ok":false,"n":100,"files":[{"name":"codes","bytes":5000,"blocks":2}],"#,
            r#""reachable":99,"damage":["codes: at 4096"]}"#
        );
        assert_eq!(text, wanted);
        assert!(json_of(&report(&[])).ok);
    }

    #[test]
    fn each_damaged_place_is_printed() {
        let text = table_of(&report(&["codes: at 0", "codes: at 4096"]), &Terminal::plain());
        assert!(text.ends_with("damaged in 2 places\n  codes: at 0\n  codes: at 4096\n"), "{text}");
        let text = table_of(&report(&[]), &Terminal::plain());
        assert!(text.ends_with("ok: 100 vectors, no damage found\n"), "{text}");
        assert!(text.contains("99 of 100 vectors"), "{text}");
    }
}
