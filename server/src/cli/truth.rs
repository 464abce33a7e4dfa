//! `foveal truth`: the true nearest neighbors, by scanning everything.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use foveal_datasets::format::TruthFormat;
use foveal_datasets::output_file::check_new;
use foveal_datasets::{Concat, Metric, Part, RowSource, VectorFile};
use foveal_index::params::check_threads;
use foveal_index::{ExactRequest, Job, MAX_K, Neighbor, exact};

use super::allowed_keys::{AllowArgs, ListedKeys};
use super::exit_code::{Failure, Outcome};
use super::inputs::{BaseArgs, CastArgs, QueriesArgs};
use super::interrupt::Interrupt;
use super::neighbor_lists::{check_key, truth_of};
use super::output::Output;
use super::progress::Bars;
use super::table::{counted, grouped, seconds};
use super::{choices, key_file, query_file, shell_words};

/// Compute ground truth: the exact nearest neighbors of every query.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TruthArgs {
    #[arg(long, value_name = "FILE", help = choices::rows_help("Vectors to search among"))]
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
    /// Keys to write instead of row numbers, as `foveal build --keys` takes them: a
    /// one-dimensional .npy of u64 or i64, a key below 2^31 a row.
    #[arg(long, value_name = "FILE.npy", conflicts_with = "first_key")]
    keys: Option<PathBuf>,
    /// Key of the first row; each next row gets the next key.
    #[arg(long, value_name = "N", default_value_t = 0)]
    first_key: u64,
    /// The file to write: .ibin (keys and distances) or .ivecs (keys).
    #[arg(long, value_name = "FILE.ibin")]
    out: PathBuf,
    #[command(flatten)]
    allow_args: AllowArgs,
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
      --out truth.ibin

An index built with --keys or --first-key needs a truth written with the same flag.";

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
    let keys = RowKeys::of(args, base.len())?;
    let listed = args.allow_args.read()?;
    let queries = query_file::read(&args.queries, &args.queries_args.read_as(args.cast))?;
    query_file::check(&args.queries, &queries, base.dim(), args.metric)?;

    let started = Instant::now();
    let interrupt = Interrupt::catch()?;
    let bars = Bars::start();
    let show = |progress| bars.show(progress);
    let job = Job { progress: Some(&show), interrupt: Some(interrupt.flag()) };
    let k = args.k as usize;
    let request = ExactRequest { metric: args.metric, k, threads: args.threads };
    let mut found = match &listed {
        None => exact::search(&base, &queries, &request, job)?,
        Some(listed) => {
            let left_out = keys.left_out(listed, base.len())?;
            let counted = Concat::new(vec![Part::without(&base, &left_out)?])?;
            let mut found = exact::search(&counted, &queries, &request, job)?;
            for neighbor in found.iter_mut().flatten() {
                neighbor.key = row_of(neighbor.key, &left_out);
            }
            found
        }
    };
    bars.finish();
    found.iter_mut().for_each(|list| keys.put(list));
    truth_of(&found, k)?.write(&args.out)?;

    let queries_text = counted(queries.len() as u64, "query", "queries");
    let rows = grouped(base.len() as u64);
    let (out, taken) = (shell_words::quoted(&args.out), seconds(started.elapsed().as_secs_f64()));
    Output::stdout()
        .print(&format!("{out}: the {k} nearest of {rows} rows for {queries_text}, {taken}\n"))?;
    Ok(Outcome::Done)
}

/// The row of the base file that is number `i` of those that are not left out; `left_out` ascends.
fn row_of(i: u64, left_out: &[u32]) -> u64 {
    // Before row `left_out[j]` lie as many others as its number less j.
    let (mut low, mut high) = (0, left_out.len());
    while low < high {
        let middle = (low + high) / 2;
        match u64::from(left_out[middle]) - middle as u64 <= i {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    i + low as u64
}

/// What the rows of the base file are called.
enum RowKeys {
    From(u64),
    List(Vec<u64>),
}

impl RowKeys {
    /// The keys that the flags give to `rows` rows.
    ///
    /// # Errors
    /// A file that holds no keys, or not one a row; a key that two rows have, or that no truth file
    /// holds.
    fn of(args: &TruthArgs, rows: usize) -> anyhow::Result<RowKeys> {
        let Some(path) = &args.keys else {
            let last = args.first_key.saturating_add(rows as u64 - 1);
            check_key(last)?;
            return Ok(RowKeys::From(args.first_key));
        };
        let keys = key_file::read(path, rows)?;
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            let message =
                format!("{}: {} stands for two rows; wanted one", path.display(), pair[0]);
            return Err(Failure::bad_data(message).into());
        }
        sorted.last().map_or(Ok(()), |last| check_key(*last))?;
        Ok(RowKeys::List(keys))
    }

    fn of_row(&self, row: u64) -> u64 {
        match self {
            RowKeys::From(first) => first + row,
            RowKeys::List(keys) => keys[row as usize],
        }
    }

    /// The rows that do not count, ascending.
    ///
    /// # Errors
    /// A key that names no row; no row counts.
    fn left_out(&self, listed: &ListedKeys, rows: usize) -> anyhow::Result<Vec<u32>> {
        let mut unmet: HashSet<u64> = listed.keys.iter().copied().collect();
        let all = unmet.len();
        let mut is_left_out =
            |row: &u32| unmet.remove(&self.of_row((*row).into())) != listed.is_allowed;
        let left_out: Vec<u32> = (0..rows as u32).filter(&mut is_left_out).collect();
        let shown = listed.path.display();
        if !unmet.is_empty() {
            let known = all - unmet.len();
            let message =
                format!("{shown}: {known} of {all} keys are among the rows; wanted all of them");
            return Err(Failure::bad_data(message).into());
        }
        if left_out.len() == rows {
            let message = format!("{shown}: leaves no row that counts; wanted at least one");
            return Err(Failure::bad_data(message).into());
        }
        Ok(left_out)
    }

    /// Puts keys in the place of row numbers; equal distances smaller key first.
    fn put(&self, list: &mut [Neighbor]) {
        for neighbor in list.iter_mut() {
            neighbor.key = self.of_row(neighbor.key);
        }
        list.sort_by(Neighbor::order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_count_keep_their_numbers() {
        for left_out in [&[][..], &[0], &[0, 1, 2], &[3, 4, 9], &[1, 3, 5, 7]] {
            let kept = (0..20u64).filter(|row| !left_out.contains(&(*row as u32)));
            for (i, row) in kept.enumerate() {
                assert_eq!(row_of(i as u64, left_out), row, "{left_out:?}");
            }
        }
    }

    #[test]
    fn keys_take_the_place_of_row_numbers_in_order() {
        let list = |keys: [u64; 3]| {
            let distances = [0.5, 0.5, 2.0];
            keys.into_iter()
                .zip(distances)
                .map(|(key, distance)| Neighbor { key, distance })
                .collect::<Vec<_>>()
        };
        let mut named = list([0, 1, 2]);
        RowKeys::List(vec![30, 20, 10]).put(&mut named);
        assert_eq!(named, list([20, 30, 10]));
        let mut counted = list([0, 1, 2]);
        RowKeys::From(100).put(&mut counted);
        assert_eq!(counted, list([100, 101, 102]));
    }
}
