//! Queries out of a file, checked against the index they search.

use std::path::Path;

use foveal_datasets::{FileError, Metric, ReadAs, RowSource, Rows, VectorFile};

use super::exit_code::Failure;

/// All rows of a file, in memory.
///
/// # Errors
/// The file cannot be read or holds no finite rows.
pub(crate) fn read(path: &Path, how: &ReadAs) -> Result<Rows, FileError> {
    let file = VectorFile::open_as(path, how)?;
    file.read(0..file.len())
}

/// Whether every query is valid for vectors of `dim` under `metric`. Linear in `queries`.
///
/// # Errors
/// Another dimension; under cosine a query of zeros, which has no direction.
pub(crate) fn check(
    path: &Path,
    queries: &Rows,
    dim: usize,
    metric: Metric,
) -> Result<(), Failure> {
    let shown = path.display();
    if queries.dim() != dim {
        let found = queries.dim();
        let message = format!("{shown}: holds queries of dimension {found}; wanted {dim}");
        return Err(Failure::bad_data(message));
    }
    if metric.needs_direction()
        && let Some(row) = queries.first_zero()
    {
        let message = format!("{shown}: row {row}: found only zeros; cosine wants a direction");
        return Err(Failure::bad_data(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use foveal_datasets::Values;

    use super::*;

    #[test]
    fn the_file_and_the_row_are_named() {
        let rows = Rows::new(2, Values::F32(vec![1.0, 0.0, 0.0, 0.0])).unwrap();
        let path = Path::new("q.fbin");
        let error = check(path, &rows, 3, Metric::L2).unwrap_err().to_string();
        assert_eq!(error, "q.fbin: holds queries of dimension 2; wanted 3");
        let error = check(path, &rows, 2, Metric::Cosine).unwrap_err().to_string();
        assert_eq!(error, "q.fbin: row 1: found only zeros; cosine wants a direction");
        assert!(check(path, &rows, 2, Metric::L2).is_ok());
    }
}
