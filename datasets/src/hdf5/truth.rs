//! Ground truth of a file: `neighbors` and `distances`, compared with `train` and `test`.

use super::table::{Stored, Table, content, metric, open_file};
use super::{Place, ROWS, convention};
use crate::error::FileError;
use crate::rows::Element;
use crate::truth_file::Truth;

/// Reads `neighbors` and `distances`, and turns the distances into ours.
pub(crate) fn read_truth(place: &Place<'_>) -> Result<Truth, FileError> {
    let path = place.path;
    if let Some(dataset) = place.dataset {
        let found = format!("the name of a dataset, {dataset}");
        return Err(content(path, found, "the file alone: neighbors and distances are its truth"));
    }
    let file = open_file(path, place.file)?;
    let metric = metric(&file, path)?;
    let [train, test] = [ROWS, "test"].map(|name| Table::within(&file, path, name));
    let (train, test) = (train?.shape(), test?.shape());
    let neighbors = Table::within(&file, path, "neighbors")?;
    let distances = Table::within(&file, path, "distances")?;
    let (queries, k) = (neighbors.shape().len, neighbors.shape().dim);
    let found =
        |name: &str, table: &Table| format!("{} x {} {name}", table.shape().len, table.shape().dim);
    if queries != test.len {
        let wanted = format!("one row for each of {} queries", test.len);
        return Err(content(path, found("neighbors", &neighbors), &wanted));
    }
    if (distances.shape().len, distances.shape().dim) != (queries, k) {
        let wanted = format!("{queries} x {k}, as there are neighbors");
        return Err(content(path, found("distances", &distances), &wanted));
    }
    if !matches!(neighbors.stored(), Stored::Whole | Stored::As(Element::U8 | Element::I8)) {
        return Err(content(path, "neighbors that are no integers".into(), "row numbers"));
    }
    let keys = neighbors.numbers::<i64>(0..queries)?;
    if let Some(at) = keys.iter().position(|key| *key >= train.len as i64) {
        let found = format!("query {}, neighbor {}: row {}", at / k, at % k, keys[at]);
        return Err(content(path, found, &format!("rows below {}", train.len)));
    }
    let distances = convention::to_ours(metric, k, &distances.numbers::<f64>(0..queries)?);
    Truth::new(queries, k, keys, Some(distances))
        .map_err(|source| FileError::Truth { path: path.into(), source })
}
