//! `foveal search`: queries in, neighbors and measurements out.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use foveal_datasets::Truth;
use foveal_datasets::recall::recall;
use foveal_index::{Io, Job, Manifest, Neighbor, OpenOptions, SearchParams, Segment};
use foveal_measure::{MeasureError, Plan};

use super::allowed_keys::{AllowArgs, AllowedKeys};
use super::choices::{self, count, share};
use super::exit_code::{Failure, Outcome};
use super::inputs::{CastArgs, QueriesArgs, TruthArgs};
use super::interrupt::Interrupt;
use super::measured::{check_output, check_truth, every_core, open_index, truth_for, verdict};
use super::neighbor_lists::{self, pairs_of, truth_of};
use super::output::{Format, Output};
use super::payload_line::PayloadLine;
use super::progress::Bars;
use super::search_report::SearchReport;
use super::table::distance;
use super::terminal::{Terminal, columns, padded, shown};
use super::{query_file, size};

/// Search an index and measure recall, speed, reads and memory.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SearchArgs {
    /// The index: a directory made by `foveal build`.
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    #[arg(long, value_name = "FILE", help = choices::rows_help("Queries"))]
    queries: PathBuf,
    /// Neighbors to find for each query.
    #[arg(long)]
    k: u32,
    /// Effort: candidates kept while searching [default: 2 k, at least 64]
    #[arg(long, value_name = "L")]
    list_size: Option<u32>,
    /// Effort by its result: the recall wanted, below 1; the index knows what reaches it.
    #[arg(long, value_name = "X", value_parser = share)]
    #[arg(conflicts_with_all = ["list_size", "rerank_size"])]
    target_recall: Option<f64>,
    /// The most candidates whose full vectors are read, beside those that share their blocks
    /// [default: the list size]
    #[arg(long, value_name = "N")]
    rerank_size: Option<u32>,
    /// The most 4 KiB blocks a query may read; answers cut by it count as partial.
    #[arg(long, value_name = "N")]
    max_reads: Option<u32>,
    /// Ground truth to compute recall from: .ibin or .ivecs (see `foveal truth`).
    #[arg(long, value_name = "FILE.ibin")]
    truth: Option<PathBuf>,
    /// Exit with 1 when recall is below this (0 to 1).
    #[arg(long, value_name = "X", requires = "truth", value_parser = share)]
    min_recall: Option<f64>,
    #[command(flatten)]
    allow_args: AllowArgs,
    /// Threads, each pinned to a core [default: every core]
    #[arg(long, value_name = "N", value_parser = count)]
    threads: Option<usize>,
    /// Queries that each thread has begun at a time: 8 to 64 where rows come by io_uring, for
    /// more throughput and longer latency.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count)]
    in_flight: usize,
    /// Memory the index may use, such as 2GiB [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// How full vectors are read.
    #[arg(long, default_value = "auto", value_parser = choices::io())]
    io: Io,
    /// Read past every cache, as if the full vectors were asked for the first time.
    #[arg(long)]
    cold: bool,
    /// Write the keys and distances found: big-ann ibin, padded with -1 and +inf.
    #[arg(long, value_name = "FILE.ibin")]
    ids_out: Option<PathBuf>,
    /// Print the neighbors of the first N queries.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    show: usize,
    /// The form of the result.
    #[arg(long, value_enum, default_value = "table", value_name = "table|json")]
    #[arg(hide_possible_values = true)]
    format: Format,
    #[command(flatten)]
    queries_args: QueriesArgs,
    #[command(flatten)]
    truth_args: TruthArgs,
    #[command(flatten)]
    cast: CastArgs,
}

const EXAMPLES: &str = "\
Examples:
  foveal search --index sift.index --queries sift_query.fvecs --k 10 --show 3
  foveal search --index sift.index --queries sift_query.fvecs --k 10 --list-size 128 \\
      --truth truth.ibin --min-recall 0.95 --format json
  foveal search --index texts.index --queries asked.npy --k 10 --allow section.npy

One untimed pass comes first, then passes over all queries until they took a second
and are at least three; queries a second are those of the median pass. `certified` is the
share of the neighbors proven to precede every other candidate of their walk; rows that the
walk did not meet are not in it, so it is no recall. `partial` is the share of the answers cut
by --max-reads.";

/// Searches, measures, reports.
///
/// # Errors
/// Parameters out of range; files that cannot be read, make no sense or do not go together; an
/// output that exists or cannot be written; ctrl-c.
pub(crate) fn run(args: &SearchArgs, terminal: &Terminal) -> anyhow::Result<Outcome> {
    params_of(args).check()?;
    check_combination(args)?;
    // Loaded before the first reading of memory, so that they are not counted as the index.
    let manifest = Manifest::read(&args.index)?;
    let queries = query_file::read(&args.queries, &args.queries_args.read_as(args.cast))?;
    query_file::check(&args.queries, &queries, manifest.dim as usize, manifest.metric)?;
    let truth = match &args.truth {
        Some(path) => Some(truth_for(path, args.truth_args.format, queries.len(), args.k)?),
        None => None,
    };
    let listed = args.allow_args.read()?;
    let mut anonymous_before = foveal_measure::anonymous_bytes().map_err(MeasureError::Memory)?;
    let options = OpenOptions { io: args.io, memory: args.memory, cold: args.cold, cache: None };
    let index = open_index(&args.index, &options)?;
    let (params, expected) = chosen(args, &index)?;
    let allowed = AllowedKeys::of(&index, listed.as_ref())?;
    if args.ids_out.is_some() {
        neighbor_lists::check_keys(&index)?;
    }
    if let (Some(path), Some(truth)) = (&args.truth, &truth) {
        anonymous_before += check_truth(path, (truth, args.k), &index, &allowed, &queries)?;
        check_allowed(path, (truth, args.k), &allowed)?;
    }
    let id_set = allowed.id_set()?;

    let interrupt = Interrupt::catch()?;
    let bars = Bars::start();
    let show = |progress| bars.show(progress);
    let plan = Plan {
        index: &index,
        queries: &queries,
        params,
        allowed: id_set.as_ref(),
        threads: args.threads.unwrap_or_else(every_core),
        in_flight: args.in_flight,
        job: Job { progress: Some(&show), interrupt: Some(interrupt.flag()) },
    };
    let measured = foveal_measure::run(&plan)?;
    bars.finish();

    let mut report = SearchReport::of(&plan, &measured, args.cold, anonymous_before)?;
    (report.target_recall, report.expected_recall) = (args.target_recall, expected);
    if let Some(truth) = &truth {
        let found: Vec<_> = measured.found.iter().map(|list| pairs_of(list)).collect();
        report.recall = Some(recall(truth, &found, args.k as usize, index.manifest().metric)?);
    }
    if let Some(path) = &args.ids_out {
        truth_of(&measured.found, args.k as usize)?.write(path)?;
    }
    let mut output = Output::stdout();
    for (query, neighbors) in measured.found.iter().enumerate().take(args.show) {
        output.print(&neighbors_shown(&index, query, neighbors, terminal)?)?;
    }
    match args.format {
        Format::Json => output.print_json(&report)?,
        Format::Table => output.print(&report.table(terminal))?,
    }
    Ok(verdict(args.min_recall, report.recall))
}

/// Refuses a truth that holds rows which do not count.
fn check_allowed(
    path: &Path,
    (truth, k): (&Truth, u32),
    allowed: &AllowedKeys<'_>,
) -> Result<(), Failure> {
    let Some(key) = allowed.first_excluded(truth, k) else { return Ok(()) };
    let message = format!(
        "{}: holds key {key}, which is not allowed; wanted a truth of the allowed rows, as \
         `foveal truth` writes it with the same --allow or --deny",
        path.display()
    );
    Err(Failure::bad_data(message))
}

fn params_of(args: &SearchArgs) -> SearchParams {
    let defaults = SearchParams::new(args.k);
    let list_size = args.list_size.unwrap_or(defaults.list_size);
    let rerank_size = args.rerank_size.unwrap_or(list_size);
    SearchParams { k: args.k, list_size, rerank_size, max_reads: args.max_reads }
}

/// The parameters to search with, and the recall to expect where one was requested.
fn chosen(args: &SearchArgs, index: &Segment) -> anyhow::Result<(SearchParams, Option<f64>)> {
    let Some(target) = args.target_recall else {
        return Ok((params_of(args), None));
    };
    let (params, expected) = index.frontier().choose(args.k, target)?;
    if expected < target {
        let _ = writeln!(
            io::stderr(),
            "foveal: no list size tried reaches {target}; the best one is expected to reach \
             {expected:.4}"
        );
    }
    Ok((SearchParams { max_reads: args.max_reads, ..params }, Some(expected)))
}

fn check_combination(args: &SearchArgs) -> anyhow::Result<()> {
    if args.cold && matches!(args.io, Io::Memory | Io::Mapped) {
        let message = format!("--cold does not go with --io {}; wanted uring or pread", args.io);
        return Err(Failure::usage(message).into());
    }
    check_output(args.show, args.format, args.ids_out.as_deref())
}

/// The neighbors of one query, one a line.
fn neighbors_shown(
    index: &Segment,
    query: usize,
    neighbors: &[Neighbor],
    terminal: &Terminal,
) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    for neighbor in neighbors {
        let payload = index.payload(neighbor.key)?;
        lines.push((neighbor, payload.map(|json| PayloadLine::of(&json)).unwrap_or_default()));
    }
    let key_width = neighbors.iter().map(|n| n.key.to_string().len()).max().unwrap_or(0);
    let names = lines.iter().map(|(_, line)| columns(&shown(&line.name, 24)));
    let name_width = names.max().unwrap_or(0);
    let mut text = format!("{}\n", terminal.bold(&format!("Query {query}")));
    for (rank, (neighbor, line)) in lines.iter().enumerate() {
        let (rank, key, distance) = (rank + 1, neighbor.key, distance(neighbor.distance));
        let head = format!("{rank:>5}  {key:>key_width$}  {distance:>10}");
        let name = padded(&shown(&line.name, 24), name_width);
        let left = terminal.width().saturating_sub(head.len() + name_width + 4);
        let description = terminal.dim(&shown(&line.description, left));
        let row = format!("{head}  {}  {description}", terminal.name(&name));
        text.push_str(row.trim_end());
        text.push('\n');
    }
    if neighbors.is_empty() {
        text.push_str("    no neighbors\n");
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::exit_code;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SearchArgs,
    }

    fn args(line: &str) -> Result<SearchArgs, clap::Error> {
        let fixed = "search --index i --queries q.fbin";
        let words = fixed.split(' ').chain(line.split_whitespace());
        Ok(Line::try_parse_from(words)?.args)
    }

    fn params(line: &str) -> SearchParams {
        params_of(&args(line).unwrap())
    }

    #[test]
    fn sizes_follow_k_and_each_other() {
        assert_eq!(params("--k 10"), SearchParams::new(10));
        assert_eq!(params("--k 10 --list-size 80").rerank_size, 80);
        let all = params("--k 10 --list-size 80 --rerank-size 20 --max-reads 5");
        let wanted = SearchParams { k: 10, list_size: 80, rerank_size: 20, max_reads: Some(5) };
        assert_eq!(all, wanted);
    }

    #[test]
    fn flags_that_contradict_each_other_are_usage_errors() {
        for line in ["--k 1 --cold --io mapped", "--k 1 --show 2 --format json"] {
            let error = check_combination(&args(line).unwrap()).expect_err(line);
            assert_eq!(exit_code::of(&error), 2, "{line}");
        }
        assert!(check_combination(&args("--k 1 --cold --io pread").unwrap()).is_ok());
        for line in ["--k 1 --threads 0", "--k 1 --in-flight 0", "--k 1 --min-recall 2 --truth t"] {
            assert_eq!(args(line).err().expect(line).exit_code(), 2, "{line}");
        }
    }
}
