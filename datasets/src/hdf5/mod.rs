//! HDF5 files in the layout of ann-benchmarks, which VIBE shares.
//!
//! ```text
//! train       [n x dim]        the rows
//! test        [queries x dim]  the queries
//! neighbors   [queries x k]    row numbers of the nearest, nearest first
//! distances   [queries x k]    how far they are; Euclidean distances are not squared
//! distance    an attribute of the file: what near means
//! ```
//! `a.hdf5` stands for the rows in a file, `a.hdf5/test` for the dataset `test` in it.
//!
//! Damage that the HDF5 library notices is an error; it does not notice all, and may hang on a file
//! that was made to harm. Read files of known origin.

#[cfg(not(feature = "hdf5"))]
mod absent;
#[cfg(feature = "hdf5")]
mod convention;
#[cfg(feature = "hdf5")]
mod table;
#[cfg(test)]
#[cfg(feature = "hdf5")]
mod tests;
#[cfg(feature = "hdf5")]
mod truth;

use std::path::Path;

use crate::format::extension;
use crate::rows::Element;

#[cfg(not(feature = "hdf5"))]
pub(crate) use absent::{Table, read_truth};
#[cfg(feature = "hdf5")]
pub(crate) use table::Table;
#[cfg(feature = "hdf5")]
pub(crate) use truth::read_truth;

/// The dataset that a file's own name stands for.
const ROWS: &str = "train";

/// The extensions of HDF5 files.
pub(crate) const EXTENSIONS: [&str; 2] = ["hdf5", "h5"];

/// A dataset in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place<'a> {
    /// The path as it was given.
    pub(crate) path: &'a Path,
    /// The part of it that names the file.
    pub(crate) file: &'a Path,
    /// The part that names a dataset in the file, if any.
    pub(crate) dataset: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// What `path` names, if that is an HDF5 file or something in one. A directory may be called
    /// `a.hdf5`, too.
    pub(crate) fn of(path: &'a Path) -> Option<Place<'a>> {
        let file = path.ancestors().find(|part| EXTENSIONS.contains(&extension(part)))?;
        let rest = path.strip_prefix(file).ok()?;
        if rest == Path::new("") {
            return Some(Place { path, file, dataset: None });
        }
        let dataset = Some(rest.to_str()?);
        (!file.is_dir()).then_some(Place { path, file, dataset })
    }

    /// The dataset that holds the rows.
    #[cfg_attr(not(feature = "hdf5"), expect(dead_code, reason = "asked by the reader alone"))]
    pub(crate) fn rows(&self) -> &'a str {
        self.dataset.unwrap_or(ROWS)
    }
}

/// Rows that a dataset holds: `[len x dim]` of what they are read as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) element: Element,
    pub(crate) len: usize,
    pub(crate) dim: usize,
}
