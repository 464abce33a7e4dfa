//! Where the numbers of a file lie: what its header says, compared with its length.

use crate::error::FileError;
use crate::input_file::InputFile;
use crate::npy;
use crate::rows::{Element, MAX_DIM};
use crate::stored::{Stored, Wide};

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axes {
    /// Rows of one dimension.
    Rows,
    /// A list of numbers, which are rows of one.
    Numbers,
}

/// Where the numbers of a file lie; in hdf5 the library knows.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The type that they are read as.
    pub(crate) element: Element,
    /// The type in the file, where rows do not have it; and whether numbers may be rounded.
    pub(crate) wide: Option<(Wide, bool)>,
    pub(crate) len: usize,
    pub(crate) dim: usize,
    /// Bytes before the first row.
    pub(crate) data_offset: u64,
    /// Bytes before the numbers of each row: its dimension as i32, or nothing.
    pub(crate) row_prefix: usize,
}

/// fvecs and bvecs: the first row's dimension must divide the file into whole rows.
pub(crate) fn vecs(input: &InputFile, element: Element) -> Result<Layout, FileError> {
    if input.len() == 0 {
        return Err(FileError::Empty { path: input.path().into() });
    }
    let written = i32::from_le_bytes(input.head()?);
    let dim = usize::try_from(written)
        .ok()
        .filter(|dim| (1..=MAX_DIM).contains(dim))
        .ok_or_else(|| FileError::dim(input.path(), 0, written))?;
    let stride = (4 + dim * element.size()) as u64;
    let len = input.len().div_ceil(stride);
    let shape = format!("{len} rows of dimension {dim} of {element}, as row 0 says");
    input.check_len(len.checked_mul(stride), shape)?;
    let len = len as usize;
    Ok(Layout { element, wide: None, len, dim, data_offset: 0, row_prefix: 4 })
}

/// fbin, u8bin, i8bin, f16bin and bf16bin: two u32, rows and dimension.
pub(crate) fn bin(input: &InputFile, element: Element, axes: Axes) -> Result<Layout, FileError> {
    let [n0, n1, n2, n3, d0, d1, d2, d3] = input.head()?;
    let len = u64::from(u32::from_le_bytes([n0, n1, n2, n3]));
    let dim = u64::from(u32::from_le_bytes([d0, d1, d2, d3]));
    let shape = match axes {
        Axes::Rows => vec![len, dim],
        Axes::Numbers => vec![len * dim],
    };
    let array = Array { stored: Stored::As(element), shape, data_offset: 8, dim_offset: 4 };
    let layout = array.layout(input, false, axes)?;
    array.check_len(input)?;
    Ok(layout)
}

pub(crate) fn npy(input: &InputFile, cast: bool, axes: Axes) -> Result<Layout, FileError> {
    let npy::Header { stored, shape, data_offset } = npy::read_header(input)?;
    // The shape stands in the dict, at an offset that helps nobody: name the dict's.
    let array = Array { stored, shape, data_offset, dim_offset: 10 };
    let layout = array.layout(input, cast, axes)?;
    array.check_len(input)?;
    Ok(layout)
}

/// An array as a header states it.
pub(crate) struct Array {
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<u64>,
    pub(crate) data_offset: u64,
    /// Where the header says so.
    pub(crate) dim_offset: u64,
}

impl Array {
    /// The layout, if the shape is what the file is opened for.
    pub(crate) fn layout(
        &self,
        input: &InputFile,
        cast: bool,
        axes: Axes,
    ) -> Result<Layout, FileError> {
        let wrong = |found: String, wanted: &str| FileError::Field {
            path: input.path().into(),
            offset: self.dim_offset,
            found,
            wanted: wanted.into(),
        };
        let (len, dim) = match (axes, &self.shape[..]) {
            (Axes::Rows, [len, dim]) => (*len, *dim),
            (Axes::Rows, other) => {
                let found = format!("{} axes", other.len());
                return Err(wrong(found, "2 axes: rows and dimension"));
            }
            (Axes::Numbers, shape) => {
                let count = one_axis(shape);
                let found = || wrong(format!("shape {shape:?}"), "one axis of numbers");
                (count.ok_or_else(found)?, 1)
            }
        };
        if dim == 0 || dim > MAX_DIM as u64 {
            return Err(FileError::dim(input.path(), self.dim_offset, dim));
        }
        if len == 0 {
            return Err(FileError::Empty { path: input.path().into() });
        }
        let wide = match self.stored {
            Stored::As(_) => None,
            Stored::Wide(wide) => Some((wide, cast)),
        };
        Ok(Layout {
            element: self.stored.element(),
            wide,
            len: len as usize,
            dim: dim as usize,
            data_offset: self.data_offset,
            row_prefix: 0,
        })
    }

    /// Compares the length of the file with the shape.
    fn check_len(&self, input: &InputFile) -> Result<(), FileError> {
        let bytes = self
            .shape
            .iter()
            .try_fold(self.stored.size() as u64, |bytes, axis| bytes.checked_mul(*axis));
        let (shape, kind) = (&self.shape, self.stored.name());
        let words = match shape[..] {
            [len, dim] => format!("{len} rows of dimension {dim} of {kind}"),
            _ => format!("{} numbers of {kind}", shape.iter().product::<u64>()),
        };
        input.check_len(bytes.and_then(|bytes| bytes.checked_add(self.data_offset)), words)
    }
}

/// How many numbers there are, where at most one axis is longer than 1.
pub(crate) fn one_axis(shape: &[u64]) -> Option<u64> {
    match shape.iter().filter(|length| **length != 1).collect::<Vec<_>>()[..] {
        [] if !shape.is_empty() => Some(1),
        [count] => Some(*count),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::one_axis;

    #[test]
    fn a_list_may_be_a_column_or_a_row() {
        let counts = [&[][..], &[1], &[5], &[1, 5], &[5, 1], &[0], &[2, 5]].map(one_axis);
        assert_eq!(counts, [None, Some(1), Some(5), Some(5), Some(5), Some(0), None]);
    }
}
