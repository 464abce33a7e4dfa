//! What stands in for the reader where HDF5 is not compiled in: one error.

use super::{Place, Shape};
use crate::error::FileError;
use crate::metric::Metric;
use crate::truth_file::Truth;

/// Never made.
#[derive(Debug)]
pub(crate) enum Table {}

impl Table {
    pub(crate) fn open(place: &Place<'_>) -> Result<Table, FileError> {
        Err(missing(place))
    }

    pub(crate) fn shape(&self) -> Shape {
        match *self {}
    }

    pub(crate) fn metric(&self) -> Result<Metric, FileError> {
        match *self {}
    }

    pub(crate) fn fill(&self, _first: usize, _out: &mut [u8]) -> Result<(), FileError> {
        match *self {}
    }
}

pub(crate) fn read_truth(place: &Place<'_>) -> Result<Truth, FileError> {
    Err(missing(place))
}

fn missing(place: &Place<'_>) -> FileError {
    FileError::NotCompiled { path: place.path.into(), what: "HDF5", feature: "hdf5" }
}
