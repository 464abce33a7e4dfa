//! Rows of a file, read by range: fvecs, bvecs, fbin, u8bin, i8bin, f16bin, npy.
//!
//! The extension names the format and the file is never changed. Everything that a header promises
//! is compared with the length of the file when it is opened, so a read allocates no more than the
//! file holds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use crate::error::FileError;
use crate::format::Format;
use crate::input_file::InputFile;
use crate::npy;
use crate::rows::{Element, MAX_DIM, Rows, Values};
use crate::synthetic::Seeded;

/// Rows with a dimension before each are read in blocks of about this size and then closed up.
const BLOCK_BYTES: usize = 1 << 20;

/// Vectors in a file: `[len x dim]` numbers of one element type.
///
/// Reads are positional: any number of threads may share one `VectorFile`.
#[derive(Debug)]
pub struct VectorFile {
    input: InputFile,
    layout: Layout,
}

/// Where the numbers of a file lie.
#[derive(Debug)]
struct Layout {
    element: Element,
    len: usize,
    dim: usize,
    /// Bytes before the first row.
    data_offset: u64,
    /// Bytes before the numbers of each row: its dimension as i32, or nothing.
    row_prefix: usize,
}

impl VectorFile {
    /// Opens a file and compares its header with its length; reads no row.
    ///
    /// # Errors
    /// No regular file; unknown extension; header that makes no sense or contradicts the length; no
    /// rows; dimension of 0 or above [`MAX_DIM`].
    pub fn open(path: impl AsRef<Path>) -> Result<VectorFile, FileError> {
        let path = path.as_ref();
        let input = InputFile::open(path)?;
        let layout = match Format::of(path)? {
            Format::Vecs(element) => vecs_layout(&input, element)?,
            Format::Bin(element) => bin_layout(&input, element)?,
            Format::Npy => npy_layout(&input)?,
        };
        Ok(VectorFile { input, layout })
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        self.input.path()
    }

    /// How many rows there are; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a file without rows cannot be opened")]
    pub fn len(&self) -> usize {
        self.layout.len
    }

    /// Numbers in a row; 1 to [`MAX_DIM`].
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// The type of the numbers.
    pub fn element(&self) -> Element {
        self.layout.element
    }

    /// Reads `rows` in order, in their element type.
    ///
    /// # Errors
    /// Rows that the file does not have; NaN or infinity; a row that names another dimension; a
    /// file that became shorter; a failed read.
    pub fn read(&self, rows: Range<usize>) -> Result<Rows, FileError> {
        if rows.start > rows.end || rows.end > self.len() {
            let (path, len) = (self.path().into(), self.len());
            return Err(FileError::NoSuchRows { path, asked: rows, rows: len });
        }
        let mut values = Values::zeroed(self.element(), rows.len() * self.dim());
        self.fill(rows.start, values.bytes_mut())?;
        self.checked(values, |i| rows.start + i)
    }

    /// All rows in order, at most `rows_per_chunk` at a time, each time with the number of the
    /// first. Nothing is read ahead.
    ///
    /// # Panics
    /// If `rows_per_chunk` is 0.
    pub fn chunks(
        &self,
        rows_per_chunk: usize,
    ) -> impl Iterator<Item = Result<(usize, Rows), FileError>> + '_ {
        assert!(rows_per_chunk > 0, "a chunk must have rows");
        (0..self.len()).step_by(rows_per_chunk).map(move |first| {
            let end = first.saturating_add(rows_per_chunk).min(self.len());
            Ok((first, self.read(first..end)?))
        })
    }

    /// `count` distinct rows, every set of them equally likely, and their ascending row numbers.
    /// The same seed gives the same rows. All rows if there are no more than `count`.
    ///
    /// One small read for each row.
    ///
    /// # Errors
    /// As [`VectorFile::read`].
    pub fn sample(&self, count: usize, seed: u64) -> Result<(Vec<usize>, Rows), FileError> {
        if count >= self.len() {
            return Ok(((0..self.len()).collect(), self.read(0..self.len())?));
        }
        let picked = distinct(self.len(), count, seed);
        let mut values = Values::zeroed(self.element(), count * self.dim());
        let row_bytes = self.dim() * self.element().size();
        for (&row, out) in picked.iter().zip(values.bytes_mut().chunks_exact_mut(row_bytes)) {
            self.fill(row, out)?;
        }
        let rows = self.checked(values, |i| picked[i])?;
        Ok((picked, rows))
    }

    /// Reads the rows from `first` on into `out`, a whole number of them, without their prefixes.
    fn fill(&self, first: usize, out: &mut [u8]) -> Result<(), FileError> {
        let Layout { data_offset, row_prefix, .. } = self.layout;
        let row_bytes = self.dim() * self.element().size();
        let stride = row_prefix + row_bytes;
        let offset_of = |row: usize| data_offset + row as u64 * stride as u64;
        if row_prefix == 0 {
            return self.input.read_at(offset_of(first), out);
        }
        let block_rows = (BLOCK_BYTES / stride).max(1).min(out.len() / row_bytes);
        let mut block = vec![0; block_rows * stride];
        let mut row = first;
        for out in out.chunks_mut((block_rows * row_bytes).max(1)) {
            let block = &mut block[..out.len() / row_bytes * stride];
            self.input.read_at(offset_of(row), block)?;
            for (from, to) in block.chunks_exact(stride).zip(out.chunks_exact_mut(row_bytes)) {
                let (prefix, numbers) = from.split_at(row_prefix);
                if prefix != (self.dim() as u32).to_le_bytes() {
                    return Err(self.other_dim(row, offset_of(row), prefix));
                }
                to.copy_from_slice(numbers);
                row += 1;
            }
        }
        Ok(())
    }

    fn other_dim(&self, row: usize, offset: u64, prefix: &[u8]) -> FileError {
        let found = prefix.try_into().map_or(0, i32::from_le_bytes);
        FileError::Field {
            path: self.path().into(),
            offset,
            found: format!("dimension {found} in row {row}"),
            wanted: format!("{}, as row 0 says", self.dim()),
        }
    }

    /// Values that were read, as rows, if all are finite. `row_of` gives the number of a row in the
    /// file.
    fn checked(&self, values: Values, row_of: impl Fn(usize) -> usize) -> Result<Rows, FileError> {
        let rows = Rows::new(self.dim(), values).expect("the layout gives whole rows");
        match rows.first_not_finite() {
            None => Ok(rows),
            Some((row, column, value)) => {
                let path = self.path().into();
                Err(FileError::NotFinite { path, row: row_of(row), column, value })
            }
        }
    }
}

/// `count` distinct numbers below `len`, ascending (Floyd's algorithm: no list of all numbers).
fn distinct(len: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut seeded = Seeded::new(seed);
    let mut picked = BTreeSet::new();
    for last in len - count..len {
        let pick = seeded.below(last as u64 + 1) as usize;
        if !picked.insert(pick) {
            picked.insert(last);
        }
    }
    picked.into_iter().collect()
}

/// fvecs and bvecs: the first row's dimension must divide the file into whole rows.
fn vecs_layout(input: &InputFile, element: Element) -> Result<Layout, FileError> {
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
    Ok(Layout { element, len: len as usize, dim, data_offset: 0, row_prefix: 4 })
}

/// fbin, u8bin, i8bin and f16bin: two u32, rows and dimension.
fn bin_layout(input: &InputFile, element: Element) -> Result<Layout, FileError> {
    let [n0, n1, n2, n3, d0, d1, d2, d3] = input.head()?;
    let len = u64::from(u32::from_le_bytes([n0, n1, n2, n3]));
    let dim = u64::from(u32::from_le_bytes([d0, d1, d2, d3]));
    counted_layout(input, element, (len, dim), (8, 4))
}

fn npy_layout(input: &InputFile) -> Result<Layout, FileError> {
    let npy::Header { element, rows, dim, data_offset } = npy::read_header(input)?;
    // The shape stands in the dict, at an offset that helps nobody: name the dict's.
    counted_layout(input, element, (rows, dim), (data_offset, 10))
}

/// The layout of a header that states `(rows, dim)`; with `(data_offset, dim_offset)`.
fn counted_layout(
    input: &InputFile,
    element: Element,
    (len, dim): (u64, u64),
    (data_offset, dim_offset): (u64, u64),
) -> Result<Layout, FileError> {
    if dim == 0 || dim > MAX_DIM as u64 {
        return Err(FileError::dim(input.path(), dim_offset, dim));
    }
    if len == 0 {
        return Err(FileError::Empty { path: input.path().into() });
    }
    let wanted = (dim * element.size() as u64)
        .checked_mul(len)
        .and_then(|bytes| bytes.checked_add(data_offset));
    input.check_len(wanted, format!("{len} rows of dimension {dim} of {element}"))?;
    Ok(Layout { element, len: len as usize, dim: dim as usize, data_offset, row_prefix: 0 })
}
