//! What `search` and `decode` share: their ground truth, their output and their verdict.

use std::io::{self, Write};
use std::path::Path;

use foveal_datasets::format::TruthFormat;
use foveal_datasets::harmless::harmless;
use foveal_datasets::output_file::check_new;
use foveal_datasets::{KeyedRows, Rows, Truth, TruthCheck};
use foveal_index::{OpenError, OpenOptions, SearchError, Segment};
use foveal_measure::anonymous_bytes;

use super::exit_code::{Failure, Outcome};
use super::output::Format;

/// Whether results can be shown and written as requested.
///
/// # Errors
/// Text that is to be shown beside JSON; a file that exists or cannot be made.
pub(crate) fn check_output(
    show: usize,
    format: Format,
    ids_out: Option<&Path>,
) -> anyhow::Result<()> {
    if show > 0 && format == Format::Json {
        let message = "--show does not go with --format json, which prints one object";
        return Err(Failure::usage(message).into());
    }
    if let Some(path) = ids_out {
        TruthFormat::of_output(path)?;
        check_new(path)?;
    }
    Ok(())
}

/// Opens an index; says where full vectors take room in the page cache against a memory limit.
///
/// # Errors
/// As [`Segment::open_with`].
pub(crate) fn open_index(path: &Path, options: &OpenOptions) -> Result<Segment, OpenError> {
    let index = Segment::open_with(path, options)?;
    if let Some(reason) = index.page_cache_reason() {
        let told = "full vectors go through the page cache, which --memory does not bound";
        let reason = reason.to_string();
        let _ = writeln!(io::stderr(), "foveal: {told}: {}", harmless(&reason));
    }
    Ok(index)
}

/// The ground truth of `queries` queries, at least `k` neighbors of each.
///
/// # Errors
/// A file that cannot be read; one of other queries or of fewer neighbors.
pub(crate) fn truth_for(
    path: &Path,
    format: Option<TruthFormat>,
    queries: usize,
    k: u32,
) -> anyhow::Result<Truth> {
    let truth = Truth::read_as(path, format)?;
    let shown = path.display();
    if truth.queries() != queries {
        let found = truth.queries();
        let message = format!("{shown}: holds the truth of {found} queries; wanted {queries}");
        return Err(Failure::bad_data(message).into());
    }
    if truth.k() < k as usize {
        let found = truth.k();
        let message = format!("{shown}: holds {found} neighbors a query; wanted k = {k} of them");
        return Err(Failure::bad_data(message).into());
    }
    Ok(truth)
}

/// Refuses a truth that is not of the rows of an index under its metric: a few thousand distances
/// tell, before any search. Returns the bytes of memory that this process took
/// for it and keeps: they are no part of a search.
///
/// # Errors
/// What contradicts the truth; a row that cannot be read; memory that cannot be counted.
pub(crate) fn check_truth(
    path: &Path,
    (truth, k): (&Truth, u32),
    index: &Segment,
    rows: &impl KeyedRows<Error = SearchError>,
    queries: &Rows,
) -> anyhow::Result<u64> {
    let before = anonymous_bytes()?;
    // Where rows end with a bias, so do hidden states: with 1.
    let query_of = |q: usize| {
        let mut wide = vec![1.0; index.dim()];
        queries.row(q).widen_into(&mut wide[..queries.dim()]);
        wide
    };
    let (metric, place) = (index.manifest().metric, "this index");
    let check = TruthCheck { truth, k: k as usize, metric, rows, place };
    if let Some(mismatch) = check.run(queries.len(), &query_of)? {
        return Err(Failure::bad_data(format!("{}: {mismatch}", path.display())).into());
    }
    Ok(anonymous_bytes()?.saturating_sub(before))
}

/// As many threads as there are cores.
pub(crate) fn every_core() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Whether recall is as high as requested.
pub(crate) fn verdict(wanted: Option<f64>, found: Option<f64>) -> Outcome {
    let (Some(wanted), Some(found)) = (wanted, found) else {
        return Outcome::Done;
    };
    if found >= wanted {
        return Outcome::Done;
    }
    // The exit code says it as well, should nobody read stderr.
    let _ = writeln!(io::stderr(), "foveal: recall is {found:.4}; wanted at least {wanted}");
    Outcome::CheckFailed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_recall_below_the_wanted_one_fails() {
        assert_eq!(verdict(None, Some(0.1)), Outcome::Done);
        assert_eq!(verdict(Some(0.9), Some(0.9)), Outcome::Done);
        assert_eq!(verdict(Some(0.9), Some(0.89)), Outcome::CheckFailed);
    }
}
