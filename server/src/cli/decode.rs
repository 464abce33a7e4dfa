//! `foveal decode`: hidden states in, their most likely tokens and measurements out.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use foveal_datasets::recall::recall;
use foveal_datasets::{KeyedRows, Metric, Rows, Truth};
use foveal_index::{
    DecodeMode, DecodeParams, DecodeRequest, Decoded, Io, Job, LogZMode, Manifest, Neighbor,
    OpenError, OpenOptions, Segment, Token,
};
use foveal_measure::{DecodePlan, MeasureError};

use super::allowed_keys::{AllowArgs, AllowedKeys, ListedKeys};
use super::choices::{self, count, share};
use super::decode_report::{DecodeReport, Precision};
use super::exit_code::{Failure, Outcome};
use super::inputs::{CastArgs, HiddenArgs, NextArgs, TruthArgs};
use super::interrupt::Interrupt;
use super::measured::{check_output, check_truth, every_core, open_index, truth_for, verdict};
use super::neighbor_lists::{self, pairs_of, truth_of};
use super::output::{Format, Output};
use super::payload_line::PayloadLine;
use super::progress::Bars;
use super::terminal::{Terminal, shown};
use super::{query_file, size};

/// Columns of a token's name.
const MAX_NAME: usize = 40;

/// Hidden states whose log Z is also computed exactly where there is a ground truth.
const CHECKED_STATES: usize = 1000;

/// Find the most likely tokens of a softmax head for hidden states.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DecodeArgs {
    /// The head: an index with metric ip made by `foveal build`, a row a token.
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    #[arg(long, value_name = "FILE", help = choices::rows_help("Hidden states"))]
    hidden: PathBuf,
    /// Tokens to find for each hidden state.
    #[arg(long)]
    k: u32,
    /// What logits are divided by before they become probabilities.
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Cut the tokens to the fewest whose probabilities sum to this.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    #[command(flatten)]
    allow_args: AllowArgs,
    /// The token that really came next, a row a hidden state: tells perplexity.
    #[arg(long, value_name = "FILE.ibin")]
    next: Option<PathBuf>,
    /// What probabilities are normalised by: the tokens found, an interval, or all tokens.
    #[arg(long, default_value = "interval", value_parser = choices::log_z())]
    log_z: LogZMode,
    /// How candidates are found.
    #[arg(long, default_value = "auto", value_parser = choices::decode_mode())]
    mode: DecodeMode,
    /// The share of the true k best that is wanted, below 1 [default: 0.9995 for k 1, 0.995 for 10]
    #[arg(long, value_name = "X", value_parser = share, conflicts_with = "rerank_size")]
    target_recall: Option<f64>,
    /// The candidates whose logits are computed exactly [default: what the target takes]
    #[arg(long, value_name = "N")]
    rerank_size: Option<u32>,
    /// Effort of the walk in mode graph [default: 2 k, at least 64]
    #[arg(long, value_name = "L")]
    list_size: Option<u32>,
    /// Ground truth to compute the share of right tokens from: .ibin or .ivecs.
    #[arg(long, value_name = "FILE.ibin")]
    truth: Option<PathBuf>,
    /// Exit with 1 when the share of the true k best is below this (0 to 1).
    #[arg(long, value_name = "X", requires = "truth", value_parser = share)]
    min_recall: Option<f64>,
    /// Threads, each pinned to a core [default: every core]
    #[arg(long, value_name = "N", value_parser = count)]
    threads: Option<usize>,
    /// Memory the index may use, such as 2GiB [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// How full vectors are read; auto loads them if --memory allows.
    #[arg(long, default_value = "auto", value_parser = choices::io())]
    io: Io,
    /// Write the keys and minus the logits found: big-ann ibin, padded with -1 and +inf.
    #[arg(long, value_name = "FILE.ibin")]
    ids_out: Option<PathBuf>,
    /// Print the tokens of the first N hidden states.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    show: usize,
    /// The form of the result.
    #[arg(long, value_enum, default_value = "table", value_name = "table|json")]
    #[arg(hide_possible_values = true)]
    format: Format,
    #[command(flatten)]
    hidden_args: HiddenArgs,
    #[command(flatten)]
    truth_args: TruthArgs,
    #[command(flatten)]
    next_args: NextArgs,
    #[command(flatten)]
    cast: CastArgs,
}

const EXAMPLES: &str = "\
Examples:
  foveal build --base head.fbin --metric ip --learn states.fbin --out head.index
  foveal decode --index head.index --hidden asked.fbin --k 10 --show 3
  foveal decode --index head.index --hidden asked.fbin --k 50 --log-z off \\
      --truth truth.ibin --format json

Without sample hidden states at the build (--learn) decoding costs several times more.";

/// Decodes, measures, reports.
///
/// # Errors
/// Parameters out of range; files that cannot be read, make no sense or do not go together; an
/// index that is no head; an output that exists or cannot be written; ctrl-c.
pub(crate) fn run(args: &DecodeArgs, terminal: &Terminal) -> anyhow::Result<Outcome> {
    let params = params_of(args);
    params.check()?;
    check_output(args.show, args.format, args.ids_out.as_deref())?;
    // Loaded before the first reading of memory, so that they are not counted as the index.
    let manifest = Manifest::read(&args.index)?;
    let files = Files::read(args)?;
    let hidden_dim = manifest.dim as usize - usize::from(manifest.bias);
    query_file::check(&args.hidden, &files.hidden, hidden_dim, Metric::InnerProduct)?;
    let mut anonymous_before = foveal_measure::anonymous_bytes().map_err(MeasureError::Memory)?;
    let options = OpenOptions { io: args.io, memory: args.memory, ..OpenOptions::default() };
    let index = open_loaded(&args.index, &options)?;
    let allowed = AllowedKeys::of(&index, files.listed.as_ref())?;
    let id_set = allowed.id_set()?;
    anonymous_before += files.check(args, &index, &allowed)?;

    let interrupt = Interrupt::catch()?;
    let bars = Bars::start();
    let show = |progress| bars.show(progress);
    let plan = DecodePlan {
        index: &index,
        hidden: &files.hidden,
        params,
        allowed: id_set.as_ref(),
        next: &files.next,
        threads: args.threads.unwrap_or_else(every_core),
        job: Job { progress: Some(&show), interrupt: Some(interrupt.flag()) },
    };
    let measured = foveal_measure::run_decodes(&plan)?;
    let mut report = DecodeReport::of(&plan, &measured, anonymous_before)?;
    if let Some(truth) = &files.truth {
        report.precision = match truth_is_allowed(truth, params.k, &allowed, args.min_recall)? {
            true => Some(precision(truth, &measured.found, params.k)?),
            false => None,
        };
        report.log_z.covered = covered(&plan, &measured.found)?;
    }
    bars.finish();

    if let Some(path) = &args.ids_out {
        let lists: Vec<Vec<Neighbor>> = measured.found.iter().map(neighbors_of).collect();
        truth_of(&lists, params.k as usize)?.write(path)?;
    }
    let mut output = Output::stdout();
    for (state, decoded) in measured.found.iter().enumerate().take(args.show) {
        output.print(&tokens_shown(&index, state, decoded, terminal)?)?;
    }
    match args.format {
        Format::Json => output.print_json(&report)?,
        Format::Table => output.print(&report.table(terminal))?,
    }
    Ok(verdict(args.min_recall, report.precision.map(|precision| precision.at_k)))
}

fn params_of(args: &DecodeArgs) -> DecodeParams {
    let defaults = DecodeParams::new(args.k);
    DecodeParams {
        k: args.k,
        mode: args.mode,
        precision: args.target_recall.unwrap_or(defaults.precision),
        rerank_size: args.rerank_size,
        list_size: args.list_size.unwrap_or(defaults.list_size),
        temperature: args.temperature,
        top_p: args.top_p,
        log_z: args.log_z,
    }
}

/// What the files hold that a decode is asked with.
struct Files {
    hidden: Rows,
    truth: Option<Truth>,
    next: Vec<u64>,
    /// The tokens allowed, or denied.
    listed: Option<ListedKeys>,
}

impl Files {
    fn read(args: &DecodeArgs) -> anyhow::Result<Files> {
        let hidden = query_file::read(&args.hidden, &args.hidden_args.read_as(args.cast))?;
        let truth = match &args.truth {
            Some(path) => Some(truth_for(path, args.truth_args.format, hidden.len(), args.k)?),
            None => None,
        };
        let next = match &args.next {
            Some(path) => next_tokens(path, args.next_args, hidden.len())?,
            None => Vec::new(),
        };
        Ok(Files { hidden, truth, next, listed: args.allow_args.read()? })
    }

    /// Whether the files speak of the tokens of this index; the bytes of memory that finding out
    /// keeps.
    ///
    /// # Errors
    /// A truth of other rows, hidden states or another metric; next tokens that the index does not
    /// hold or that are excluded; keys that `--ids-out` cannot hold.
    fn check(
        &self,
        args: &DecodeArgs,
        index: &Segment,
        allowed: &AllowedKeys<'_>,
    ) -> anyhow::Result<u64> {
        if args.ids_out.is_some() {
            neighbor_lists::check_keys(index)?;
        }
        if let Some(path) = &args.next {
            let known = index.count_known(&self.next)?;
            if known < self.next.len() {
                let (shown, wanted) = (path.display(), self.next.len());
                let message = format!(
                    "{shown}: {known} of {wanted} next tokens are in this index; wanted all of them"
                );
                return Err(Failure::bad_data(message).into());
            }
            if let Some(state) = self.next.iter().position(|key| !allowed.allows(*key)) {
                let (shown, key) = (path.display(), self.next[state]);
                let message = format!(
                    "{shown}: row {state}: next token {key} is excluded by --allow or --deny: \
                     its probability is 0; wanted tokens that are allowed"
                );
                return Err(Failure::bad_data(message).into());
            }
        }
        match (&args.truth, &self.truth) {
            (Some(path), Some(truth)) => {
                check_truth(path, (truth, args.k), index, allowed, &self.hidden)
            }
            _ => Ok(0),
        }
    }
}

/// Whether the true best tokens are all allowed, so that their share can be told.
///
/// # Errors
/// They are not, although --min-recall is set.
fn truth_is_allowed(
    truth: &Truth,
    k: u32,
    allowed: &AllowedKeys<'_>,
    min_recall: Option<f64>,
) -> Result<bool, Failure> {
    let Some(key) = allowed.first_excluded(truth, k) else { return Ok(true) };
    let message =
        format!("the truth holds token {key}, which is not allowed: no share of right tokens");
    if min_recall.is_some() {
        return Err(Failure::bad_data(format!("{message}, which --min-recall asks for")));
    }
    let _ = writeln!(io::stderr(), "foveal: {message}");
    Ok(false)
}

/// The first key of each row.
fn next_tokens(path: &Path, how: NextArgs, states: usize) -> anyhow::Result<Vec<u64>> {
    let shown = path.display();
    let rows = Truth::read_as(path, how.format)?;
    if rows.queries() != states {
        let found = rows.queries();
        let message = format!("{shown}: holds {found} rows; wanted {states}, one a hidden state");
        return Err(Failure::bad_data(message).into());
    }
    let first = |state: usize| {
        let key = rows.keys(state).first().copied().unwrap_or(-1);
        u64::try_from(key).with_context(|| format!("{shown}: row {state} names no token"))
    };
    (0..states).map(first).collect()
}

fn neighbors_of(decoded: &Decoded) -> Vec<Neighbor> {
    let neighbor = |token: &Token| Neighbor { key: token.key, distance: 0.0 - token.logit };
    decoded.tokens.iter().map(neighbor).collect()
}

/// The shares of the true best tokens that were found.
fn precision(truth: &Truth, found: &[Decoded], k: u32) -> anyhow::Result<Precision> {
    let lists: Vec<Vec<Neighbor>> = found.iter().map(neighbors_of).collect();
    let share_of_best = |best: usize| -> anyhow::Result<f64> {
        let lists: Vec<_> =
            lists.iter().map(|list| pairs_of(&list[..list.len().min(best)])).collect();
        Ok(recall(truth, &lists, best, Metric::InnerProduct)?)
    };
    let k = k as usize;
    let at_10 = if k >= 10 { Some(share_of_best(10)?) } else { None };
    Ok(Precision { at_1: share_of_best(1)?, at_10, at_k: share_of_best(k)? })
}

/// Opens an index. Decodes read full vectors all over: where it is left to us they are loaded, if
/// they fit the memory allowed.
fn open_loaded(path: &Path, options: &OpenOptions) -> Result<Segment, OpenError> {
    if options.io == Io::Auto {
        match open_index(path, &OpenOptions { io: Io::Memory, ..*options }) {
            Err(OpenError::Usage { .. }) => {}
            opened => return opened,
        }
    }
    open_index(path, options)
}

/// The share of the first intervals that hold the true log Z.
fn covered(plan: &DecodePlan<'_>, found: &[Decoded]) -> anyhow::Result<Option<f64>> {
    if plan.params.log_z != LogZMode::Interval {
        return Ok(None);
    }
    let mut decoder = plan.index.decoder()?;
    let params = DecodeParams { k: 1, log_z: LogZMode::Exact, ..plan.params };
    let request = DecodeRequest { params, allowed: plan.allowed, ..DecodeRequest::new(1) };
    let states = found.len().min(CHECKED_STATES);
    let (mut held, mut told) = (0, 0);
    for (state, decoded) in found.iter().enumerate().take(states) {
        plan.job.tell("checking log Z", state as u64, states as u64);
        if plan.job.interrupted() {
            return Err(Failure::interrupted().into());
        }
        let truth = decoder.decode(plan.hidden.row(state), &request)?.log_z;
        if let (Some(interval), Some(truth)) = (decoded.log_z, truth) {
            // Where every logit is known the interval is a point: sums in another order.
            let slack = 1e-12 * truth.value.abs().max(1.0);
            let (low, high) = (interval.low - slack, interval.high + slack);
            held += u32::from((low..=high).contains(&truth.value));
            told += 1;
        }
    }
    Ok((told > 0).then(|| f64::from(held) / f64::from(told)))
}

/// The tokens of one hidden state, one a line.
fn tokens_shown(
    index: &Segment,
    state: usize,
    decoded: &Decoded,
    terminal: &Terminal,
) -> anyhow::Result<String> {
    let mut text = format!("{}\n", terminal.bold(&format!("Hidden state {state}")));
    let key_width = decoded.tokens.iter().map(|t| t.key.to_string().len()).max().unwrap_or(0);
    for (rank, token) in decoded.tokens.iter().enumerate() {
        let payload = index.payload(token.key)?;
        let name = payload.map(|json| PayloadLine::of(&json).name).unwrap_or_default();
        let (rank, key, logit) = (rank + 1, token.key, token.logit);
        let probability = 100.0 * token.log_prob.exp();
        let row = format!(
            "{rank:>5}  {key:>key_width$}  {logit:>10.4}  {probability:>7.3} %  {}",
            terminal.name(&shown(&name, MAX_NAME))
        );
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DecodeArgs,
    }

    fn args(line: &str) -> Result<DecodeArgs, clap::Error> {
        let fixed = "decode --index i --hidden h.fbin";
        let words = fixed.split(' ').chain(line.split_whitespace());
        Ok(Line::try_parse_from(words)?.args)
    }

    #[test]
    fn what_is_not_given_is_the_engines_default() {
        assert_eq!(params_of(&args("--k 10").unwrap()), DecodeParams::new(10));
        let given = params_of(&args("--k 5 --mode graph --list-size 99 --log-z off").unwrap());
        assert_eq!((given.mode, given.list_size), (DecodeMode::Graph, 99));
        assert_eq!(given.log_z, LogZMode::Off);
    }

    #[test]
    fn flags_that_contradict_each_other_are_usage_errors() {
        for line in
            ["--k 1 --allow a.npy --deny b.npy", "--k 1 --target-recall 0.9 --rerank-size 9"]
        {
            assert_eq!(args(line).err().expect(line).exit_code(), 2, "{line}");
        }
        assert!(params_of(&args("--k 1 --temperature 0").unwrap()).check().is_err());
    }
}
