//! Rows of a dataset, read by range through the HDF5 library.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use half::f16;
use hdf5_metno::types::{FixedAscii, FixedUnicode};
use hdf5_metno::types::{FloatSize, IntSize, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5_metno::{Attribute, Dataset, Datatype, File, H5Type};

use super::{Place, Shape, convention};
use crate::error::FileError;
use crate::input_file::InputFile;
use crate::metric::Metric;
use crate::rows::{Element, MAX_DIM};

/// Unpacked chunks that a file keeps, so that neighboring reads unpack each once.
const CACHE_BYTES: usize = 64 << 20;
/// Slots of that cache: a prime, well above the number of chunks that fit.
const CACHE_SLOTS: usize = 12_421;
/// Bytes read at a time, as the library hands out copies.
const BLOCK_BYTES: usize = 8 << 20;
/// No byte that deflate wrote unpacks to more (1032, rounded up).
const MOST_UNPACKED: u64 = 1100;
/// Longer words are no metric.
const WORD_BYTES: usize = 64;

const MAGIC: &[u8; 8] = b"\x89HDF\r\n\x1a\n";

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stored {
    /// As one of ours.
    As(Element),
    /// As f64; each must be an f32 exactly.
    Wide,
    /// As signed or unsigned integers; each must be an f32 exactly.
    Whole,
}

/// A dataset of two axes.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    file: File,
    dataset: Dataset,
    stored: Stored,
    len: usize,
    dim: usize,
}

impl Table {
    /// Opens the file and the dataset, and compares its shape with the bytes that are there.
    pub(crate) fn open(place: &Place<'_>) -> Result<Table, FileError> {
        let file = open_file(place.path, place.file)?;
        Table::within(&file, place.path, place.rows())
    }

    /// The dataset `name` of an open file. Messages call it `path`.
    pub(super) fn within(file: &File, path: &Path, name: &str) -> Result<Table, FileError> {
        let refused = |found: String, wanted: &str| content(path, found, wanted);
        let dataset = file
            .dataset(name)
            .map_err(|_| refused(format!("no dataset {name}"), "one of that name"))?;
        let shape = dataset.shape();
        let [len, dim] = shape[..] else {
            let found = format!("{} axes in dataset {name}", shape.len());
            return Err(refused(found, "2 axes: rows and numbers in a row"));
        };
        if dim == 0 || dim > MAX_DIM {
            let found = format!("dimension {dim} in dataset {name}");
            return Err(refused(found, &format!("1 to {MAX_DIM}")));
        }
        if len == 0 {
            return Err(FileError::Empty { path: path.into() });
        }
        let datatype = dataset.dtype().map_err(|error| damaged(path, error))?;
        let Some((stored, bytes)) = stored(&datatype) else {
            let found =
                format!("an element type of dataset {name} that is no number of 1 to 8 bytes");
            return Err(refused(found, "f32, f16, f64 or integers"));
        };
        let there = dataset.storage_size();
        let factor = if dataset.filters().is_empty() { 1 } else { MOST_UNPACKED };
        let wanted = (len as u64).checked_mul((dim * bytes) as u64);
        if there > file.size() || wanted.is_none_or(|wanted| wanted > there.saturating_mul(factor))
        {
            let found = format!("{there} bytes in dataset {name}");
            return Err(refused(found, &format!("enough for {len} rows of dimension {dim}")));
        }
        Ok(Table { path: path.into(), file: file.clone(), dataset, stored, len, dim })
    }

    pub(crate) fn shape(&self) -> Shape {
        let element = match self.stored {
            Stored::As(element) => element,
            Stored::Wide | Stored::Whole => Element::F32,
        };
        Shape { element, len: self.len, dim: self.dim }
    }

    pub(super) fn stored(&self) -> Stored {
        self.stored
    }

    /// What near means, as an attribute of the file says.
    pub(crate) fn metric(&self) -> Result<Metric, FileError> {
        metric(&self.file, &self.path)
    }

    /// Reads the rows from `first` on into `out`, a whole number of them.
    pub(crate) fn fill(&self, first: usize, out: &mut [u8]) -> Result<(), FileError> {
        let row_bytes = self.dim * self.shape().element.size();
        let block_rows = (BLOCK_BYTES / row_bytes).max(1);
        for (i, out) in out.chunks_mut(block_rows * row_bytes).enumerate() {
            let first = first + i * block_rows;
            let rows = first..first + out.len() / row_bytes;
            match self.stored {
                Stored::As(Element::F32) => self.copy::<f32>(rows, out)?,
                Stored::As(Element::F16) => self.copy::<f16>(rows, out)?,
                Stored::As(Element::Bf16) => unreachable!("HDF5 has no such type"),
                Stored::As(Element::U8) => self.copy::<u8>(rows, out)?,
                Stored::As(Element::I8) => self.copy::<i8>(rows, out)?,
                Stored::Wide => self.narrow(rows, out, |x: f64| {
                    let narrow = x as f32;
                    (f64::from(narrow) == x || x.is_nan()).then_some(narrow)
                })?,
                Stored::Whole => self.narrow(rows, out, |x: i64| {
                    let narrow = x as f32;
                    (narrow as i128 == i128::from(x)).then_some(narrow)
                })?,
            }
        }
        Ok(())
    }

    /// The numbers of some rows, as the library converts them.
    pub(super) fn numbers<T: H5Type>(&self, rows: Rows) -> Result<Vec<T>, FileError> {
        let wanted = rows.len() * self.dim;
        let read = self.dataset.read_slice_2d::<T, _>((rows, ..));
        let (numbers, _) =
            read.map_err(|error| damaged(&self.path, error))?.into_raw_vec_and_offset();
        if numbers.len() != wanted {
            let found = format!("{} numbers", numbers.len());
            return Err(content(&self.path, found, &wanted.to_string()));
        }
        Ok(numbers)
    }

    fn copy<T: H5Type + bytemuck::Pod>(&self, rows: Rows, out: &mut [u8]) -> Result<(), FileError> {
        out.copy_from_slice(bytemuck::cast_slice(&self.numbers::<T>(rows)?));
        Ok(())
    }

    fn narrow<T: H5Type + Copy + Display>(
        &self,
        rows: Rows,
        out: &mut [u8],
        exact: impl Fn(T) -> Option<f32>,
    ) -> Result<(), FileError> {
        let first = rows.start;
        let numbers = self.numbers::<T>(rows)?;
        for (i, (number, out)) in numbers.iter().zip(out.as_chunks_mut::<4>().0).enumerate() {
            let Some(narrow) = exact(*number) else {
                let (row, column) = (first + i / self.dim, i % self.dim);
                let found = format!("{number} in row {row}, column {column}");
                return Err(content(&self.path, found, "a number that f32 holds exactly"));
            };
            *out = narrow.to_le_bytes();
        }
        Ok(())
    }
}

type Rows = std::ops::Range<usize>;

/// Opens a regular file that is HDF5. Messages call it `path`.
pub(super) fn open_file(path: &Path, file: &Path) -> Result<File, FileError> {
    let is_hdf5 = InputFile::open(file)?.head::<8>().is_ok_and(|head| head == *MAGIC);
    let mut builder = hdf5_metno::FileBuilder::new();
    builder.with_fapl(|access| access.chunk_cache(CACHE_SLOTS, CACHE_BYTES, 1.0));
    builder.open(file).map_err(|error| {
        if is_hdf5 {
            damaged(path, error)
        } else {
            content(path, "no signature of HDF5".into(), "an HDF5 file")
        }
    })
}

/// The attribute `distance` of a file.
pub(super) fn metric(file: &File, path: &Path) -> Result<Metric, FileError> {
    let attribute = file.attr("distance").map_err(|_| {
        content(path, "no attribute distance".into(), "one that says what near means")
    })?;
    let wanted = || format!("one of {}", convention::known());
    let Some(word) = word(&attribute) else {
        return Err(content(path, "an attribute distance that is no word".into(), &wanted()));
    };
    convention::metric(&word).ok_or_else(|| content(path, format!("distance {word:?}"), &wanted()))
}

/// The text of an attribute, whichever of the four ways it is stored.
fn word(attribute: &Attribute) -> Option<String> {
    if attribute.size() != 1 {
        return None;
    }
    let text = match attribute.dtype().ok()?.to_descriptor().ok()? {
        TypeDescriptor::VarLenUnicode => attribute.read_raw::<VarLenUnicode>().ok()?[0].to_string(),
        TypeDescriptor::VarLenAscii => attribute.read_raw::<VarLenAscii>().ok()?[0].to_string(),
        TypeDescriptor::FixedUnicode(bytes) if bytes <= WORD_BYTES => {
            attribute.read_raw::<FixedUnicode<WORD_BYTES>>().ok()?[0].to_string()
        }
        TypeDescriptor::FixedAscii(bytes) if bytes <= WORD_BYTES => {
            attribute.read_raw::<FixedAscii<WORD_BYTES>>().ok()?[0].to_string()
        }
        _ => return None,
    };
    Some(text)
}

/// How numbers of a type are stored, and in how many bytes; `None` for what is no number.
fn stored(datatype: &Datatype) -> Option<(Stored, usize)> {
    use TypeDescriptor::{Float, Integer, Unsigned};
    let stored = match datatype.to_descriptor().ok()? {
        Float(FloatSize::U4) => Stored::As(Element::F32),
        Float(FloatSize::U8) => Stored::Wide,
        // There is another type of two bytes, bfloat16.
        Float(FloatSize::U2) if *datatype == Datatype::from_type::<f16>().ok()? => {
            Stored::As(Element::F16)
        }
        Unsigned(IntSize::U1) => Stored::As(Element::U8),
        Integer(IntSize::U1) => Stored::As(Element::I8),
        Unsigned(_) | Integer(_) => Stored::Whole,
        _ => return None,
    };
    Some((stored, datatype.size()))
}

pub(super) fn content(path: &Path, found: String, wanted: &str) -> FileError {
    FileError::Content { path: path.into(), found, wanted: wanted.into() }
}

/// What the library could not read.
pub(super) fn damaged(path: &Path, error: hdf5_metno::Error) -> FileError {
    let said = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    content(path, format!("damage: {said}"), "a whole HDF5 file")
}
