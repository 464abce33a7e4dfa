//! `foveal demo`: the whole engine in a few seconds, on data that the program brings along.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use foveal_datasets::output_file::check_new;
use foveal_datasets::recall::recall;
use foveal_datasets::{Metric, RowSource, Rows, VectorFile};
use foveal_index::{
    BuildInput, BuildParams, BuildReport, ExactRequest, Job, JsonLines, Neighbor, SearchParams,
    Searcher, Segment, exact,
};
use foveal_measure::Latency;

use super::build::build_with_progress;
use super::exit_code::Outcome;
use super::interrupt::Interrupt;
use super::neighbor_lists::{pairs_of, truth_of};
use super::output::Output;
use super::payload_line::PayloadLine;
use super::progress::Bars;
use super::table::{Table, distance, grouped, micros, seconds, three_digits};
use super::terminal::{Terminal, padded, shown};
use super::{sample, shell_words};

const METRIC: Metric = Metric::Cosine;
/// Packages that many know; those of them that the sample holds are shown.
const SHOWN: [&str; 8] =
    ["gimp", "nginx", "postgresql-15", "vim", "git", "blender", "wireshark", "vlc"];
const SHOWN_NEIGHBORS: usize = 3;
/// Neighbors whose recall is measured.
const K: usize = 10;
/// Rows that serve as queries when recall and time are measured.
const QUERIES: usize = 1000;
const NAME_WIDTH: usize = 24;

/// Index 5,000 Debian packages by what they do, search them, and measure: takes seconds.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Keep the index in this directory, which must not exist yet [default: keep nothing]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  foveal demo
  foveal demo --keep packages.index && foveal serve --index demo=packages.index";

/// Builds, shows, measures, and says what to try next.
///
/// # Errors
/// The kept index exists or cannot be written; no place for temporary files; ctrl-c. Nothing
/// temporary stays behind.
pub(crate) fn run(args: &DemoArgs, terminal: &Terminal) -> anyhow::Result<Outcome> {
    if let Some(keep) = &args.keep {
        check_new(keep)?;
    }
    // Caught from here on, so that the temporary directory is always removed.
    let interrupt = Interrupt::catch()?;
    let dir = tempfile::Builder::new().prefix("foveal-demo-").tempdir();
    let dir = dir.context("no place for temporary files")?;
    let files = sample::write_into(dir.path())?;
    let base = VectorFile::open(&files.vectors)?;
    let packages = sample::packages();
    let mut output = Output::stdout();

    output.print(&introduction(&base, terminal))?;
    let payload = JsonLines::open(&files.payload)?;
    let input = BuildInput { payload: Some(&payload), ..BuildInput::of(&base) };
    let out = args.keep.clone().unwrap_or_else(|| dir.path().join("index"));
    let built = build_with_progress(&input, &out, &BuildParams::new(METRIC), &interrupt, None)?;
    output.print(&built_in(&built))?;

    let index = Segment::open(&out)?;
    let mut searcher = index.searcher();
    for name in SHOWN {
        interrupt.check()?;
        if let Some(row) = packages.iter().position(|package| package.name == name) {
            let near = nearest(&mut searcher, &base, row)?;
            output.print(&package_shown(&packages, row, &near, terminal))?;
        }
    }
    let measured = measure(&mut searcher, &base, &interrupt)?;
    output.print(&measurements(&measured, &built, terminal))?;
    output.print(&what_next(args.keep.as_deref(), terminal))?;
    Ok(Outcome::Done)
}

fn introduction(base: &VectorFile, terminal: &Terminal) -> String {
    let (n, dim) = (grouped(base.len() as u64), base.dim());
    format!(
        "\n{} looks twice: a graph over compressed vectors in memory proposes,\n\
         the full vectors on disk decide. Here are {n} Debian packages, each a vector\n\
         of {dim} numbers that stand for what its description means.\n\n",
        terminal.bold("Foveal")
    )
}

fn built_in(built: &BuildReport) -> String {
    let (bits, degree) = (built.manifest.bits, built.manifest.max_degree);
    let taken = seconds(built.measured.build_seconds);
    format!("Indexed in {taken}: {bits} bits a number, up to {degree} neighbors a package.\n\n")
}

/// The nearest packages but the row itself, nearest first.
fn nearest(
    searcher: &mut Searcher,
    base: &VectorFile,
    row: usize,
) -> anyhow::Result<Vec<Neighbor>> {
    let query = base.read(row..row + 1)?;
    let params = SearchParams::new(SHOWN_NEIGHBORS as u32 + 1);
    let answer = searcher.search(query.row(0), &params)?;
    Ok(without_itself(answer.neighbors, row, SHOWN_NEIGHBORS))
}

/// The first `k` neighbors that are not `row`: a row that asks for itself finds itself.
fn without_itself(mut neighbors: Vec<Neighbor>, row: usize, k: usize) -> Vec<Neighbor> {
    neighbors.retain(|neighbor| neighbor.key != row as u64);
    neighbors.truncate(k);
    neighbors
}

fn package_shown(
    packages: &[PayloadLine],
    row: usize,
    near: &[Neighbor],
    terminal: &Terminal,
) -> String {
    let name = shown(&packages[row].name, NAME_WIDTH);
    let left = terminal.width().saturating_sub(name.chars().count() + 2);
    let about = shown(&packages[row].description, left);
    let mut text = format!("{}  {}\n", terminal.bold(&name), terminal.dim(&about));
    for neighbor in near {
        // Keys are row numbers here, but an index could have been damaged.
        let Some(package) = packages.get(neighbor.key as usize) else {
            continue;
        };
        let distance = format!("{:>8}", distance(neighbor.distance));
        let name = padded(&shown(&package.name, NAME_WIDTH), NAME_WIDTH);
        let left = terminal.width().saturating_sub(distance.len() + NAME_WIDTH + 4);
        let about = shown(&package.description, left);
        text.push_str(&format!("{distance}  {}  {about}\n", terminal.name(&name)));
    }
    text.push('\n');
    text
}

/// What was measured with some rows as queries.
struct Measured {
    queries: usize,
    recall: f64,
    latency: Latency,
}

/// Asks some rows for their neighbors, twice: the second time is timed.
fn measure(
    searcher: &mut Searcher,
    base: &VectorFile,
    interrupt: &Interrupt,
) -> anyhow::Result<Measured> {
    let (rows, queries) = some_rows(base)?;
    let bars = Bars::start();
    let show = |progress| bars.show(progress);
    let job = Job { progress: Some(&show), interrupt: Some(interrupt.flag()) };
    // One more than is compared, since each row finds itself as well.
    let request = ExactRequest { metric: METRIC, k: K + 1, threads: 0 };
    let exact = exact::search(base, &queries, &request, job)?;
    bars.finish();
    let own: Vec<_> =
        exact.into_iter().zip(&rows).map(|(list, row)| without_itself(list, *row, K)).collect();
    let truth = truth_of(&own, K)?;

    let params = SearchParams::new(K as u32 + 1);
    let (mut nanos, mut found) = (Vec::new(), Vec::new());
    for timed in [false, true] {
        for (i, row) in rows.iter().enumerate() {
            interrupt.check()?;
            let answer = searcher.search(queries.row(i), &params)?;
            if timed {
                nanos.push(answer.nanos);
                found.push(pairs_of(&without_itself(answer.neighbors, *row, K)));
            }
        }
    }
    let recall = recall(&truth, &found, K, METRIC)?;
    Ok(Measured { queries: rows.len(), recall, latency: Latency::of_nanos(&mut nanos) })
}

/// At most [`QUERIES`] rows, seeded, and their numbers.
fn some_rows(base: &VectorFile) -> anyhow::Result<(Vec<usize>, Rows)> {
    Ok(base.sample(QUERIES, BuildParams::new(METRIC).seed)?)
}

fn measurements(measured: &Measured, built: &BuildReport, terminal: &Terminal) -> String {
    let manifest = &built.manifest;
    let per_vector = |bytes: u64| three_digits(bytes as f64 / manifest.n.max(1) as f64);
    let mut table = Table::default();
    let queries = grouped(measured.queries as u64);
    table.line(
        &format!("recall@{K}"),
        format!("{:.4}   against a scan of everything, {queries} queries", measured.recall),
    );
    table.line("median time", format!("{} a query, on one thread", micros(measured.latency.p50)));
    let full = u64::from(manifest.dim) * manifest.element.size() as u64;
    let resident = per_vector(built.resident_bytes);
    table.line("in memory", format!("{resident} B a vector, whose numbers take {full} B"));
    let disk = per_vector(built.disk_bytes);
    table.line("on disk", format!("{disk} B a vector, with its numbers and description"));
    format!("{}\n{}\n", terminal.bold("Measured here"), table.render(terminal))
}

fn what_next(kept: Option<&Path>, terminal: &Terminal) -> String {
    let mut text = format!("{}\n", terminal.bold("Next"));
    let mut command = |words: String| text.push_str(&format!("  {words}\n"));
    match kept.map(shell_words::quoted) {
        Some(dir) => {
            command(format!("foveal inspect {dir}"));
            command(format!("foveal check {dir} --deep"));
            command(format!("foveal serve --index demo={dir}"));
        }
        None => {
            command("foveal demo --keep packages.index".into());
            command("foveal inspect packages.index".into());
            command("foveal serve --index demo=packages.index".into());
        }
    }
    command("foveal build --help".into());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages() -> Vec<PayloadLine> {
        let long = "an editor with a description that goes on and on ".repeat(4);
        let line =
            |name: &str, about: &str| PayloadLine { name: name.into(), description: about.into() };
        vec![line("vim", &long), line(&"long-name-".repeat(5), &long), line("nano", "small")]
    }

    #[test]
    fn packages_fit_80_columns_without_colour_codes() {
        let near = [1, 2, 99].map(|key| Neighbor { key, distance: 0.25 });
        let text = package_shown(&packages(), 0, &near, &Terminal::plain());
        assert_eq!(text.lines().count(), 4, "title, two packages, a blank line:\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("  0.2500  nano"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_row_is_not_its_own_neighbor() {
        let list: Vec<_> = [7, 3, 9, 4].map(|key| Neighbor { key, distance: 0.0 }).into();
        let keys: Vec<u64> = without_itself(list.clone(), 3, 2).iter().map(|n| n.key).collect();
        assert_eq!(keys, [7, 9]);
        assert_eq!(without_itself(list, 5, 3).len(), 3);
    }

    #[test]
    fn commands_to_try_name_the_kept_index() {
        let text = what_next(Some(Path::new("my demo")), &Terminal::plain());
        assert!(text.contains("foveal serve --index demo='my demo'"), "{text}");
        assert!(what_next(None, &Terminal::plain()).contains("foveal demo --keep"));
    }
}
