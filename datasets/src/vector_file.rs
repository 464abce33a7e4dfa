//! Rows of a file, read by range.
//!
//! The extension names the format, or the caller does, and the file is never changed. Everything
//! that a header promises is compared with the length of the file when it is opened, so a read
//! allocates no more than the file holds (than it can hold, where numbers are compressed).
//!
//! Numbers of a type that rows do not have, such as f64, become f32 if all of them do so exactly;
//! others are rounded where the caller says so.
//!
//! hdf5 is read if the crate has the feature `hdf5`: `a.hdf5` is the dataset `train` of a file in
//! the layout of ann-benchmarks, `a.hdf5/test` the dataset `test`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::FileError;
use crate::format::{Format, ReadAs, extension};
use crate::hdf5::{Place, Shape, Table};
use crate::input_file::InputFile;
use crate::layout::{self, Array, Axes, Layout};
use crate::metric::Metric;
use crate::row_source::{RowSource, check_finite, check_range};
use crate::rows::{Element, Rows, Values};
use crate::stored::{Inexact, Stored, Wide};
use crate::tensor_file::{self, Tensor};

/// Rows with a dimension before each are read in blocks of about this size and then closed up.
const BLOCK_BYTES: usize = 1 << 20;

/// Vectors in a file: `[len x dim]` numbers of one element type.
///
/// Reads are positional: any number of threads may share one `VectorFile`.
#[derive(Debug)]
pub struct VectorFile {
    path: PathBuf,
    input: Input,
    layout: Layout,
}

/// What the numbers are read from.
#[derive(Debug)]
enum Input {
    Bytes(InputFile),
    Hdf5(Table),
}

impl VectorFile {
    /// Opens a file in the format that its extension names.
    ///
    /// # Errors
    /// As [`open_as`](VectorFile::open_as).
    pub fn open(path: impl AsRef<Path>) -> Result<VectorFile, FileError> {
        VectorFile::open_as(path, &ReadAs::default())
    }

    /// Opens a file and compares its header with its length; reads no row.
    ///
    /// # Errors
    /// No regular file; unknown extension; header that makes no sense or contradicts the length; no
    /// rows; dimension of 0 or above [`MAX_DIM`](crate::rows::MAX_DIM); hdf5 without the feature,
    /// without the dataset, or with other numbers in it than Foveal can hold; no tensor of that
    /// name, one of another shape, or several to choose from.
    pub fn open_as(path: impl AsRef<Path>, how: &ReadAs) -> Result<VectorFile, FileError> {
        VectorFile::open_shaped(path.as_ref(), how, Axes::Rows)
    }

    /// Opens a list of numbers, as rows of one: in npy and safetensors an array of one axis, or of
    /// one that is longer than 1; in other formats rows of any dimension, one after the other.
    ///
    /// # Errors
    /// As [`open_as`](VectorFile::open_as).
    pub fn open_numbers(path: impl AsRef<Path>, how: &ReadAs) -> Result<VectorFile, FileError> {
        VectorFile::open_shaped(path.as_ref(), how, Axes::Numbers)
    }

    fn open_shaped(path: &Path, how: &ReadAs, axes: Axes) -> Result<VectorFile, FileError> {
        if let Some(place) = Place::of(path).filter(|_| how.format.is_none()) {
            refuse_tensor(path, how)?;
            let table = Table::open(&place)?;
            let Shape { element, len, dim } = table.shape();
            let layout = Layout { element, wide: None, len, dim, data_offset: 0, row_prefix: 0 };
            return Ok(VectorFile::new(path, Input::Hdf5(table), layout));
        }
        let mut input = InputFile::open(path)?;
        let format = how.format.map_or_else(|| Format::of(path), Ok)?;
        if format != Format::Safetensors {
            refuse_tensor(path, how)?;
        }
        let layout = match format {
            Format::Vecs(element) => layout::vecs(&input, element)?,
            Format::Bin(element) => layout::bin(&input, element, axes)?,
            Format::Npy => layout::npy(&input, how.cast, axes)?,
            Format::Parquet => {
                return Err(FileError::Request {
                    path: path.into(),
                    found: "a Parquet file, whose rows cannot be read in any order".into(),
                    wanted: "a flat file of its vectors; `foveal build` reads Parquet".into(),
                });
            }
            Format::Safetensors => {
                let name = how.tensor.as_deref();
                if extension(path) == "json" {
                    input = InputFile::open(&tensor_file::shard(&input, name)?)?;
                }
                let Tensor { stored, shape, data_offset } = tensor_file::find(&input, name)?;
                let array = Array { stored, shape, data_offset, dim_offset: 8 };
                array.layout(&input, how.cast, axes)?
            }
        };
        let path = input.path().to_path_buf();
        Ok(VectorFile::new(&path, Input::Bytes(input), layout))
    }

    fn new(path: &Path, input: Input, layout: Layout) -> VectorFile {
        VectorFile { path: path.into(), input, layout }
    }

    /// The same file under another name in messages about its rows, for a copy that nobody knows by
    /// its own.
    #[must_use]
    pub fn shown_as(self, path: &Path) -> VectorFile {
        VectorFile { path: path.into(), ..self }
    }

    /// What near means, if the file says so. Only hdf5 does.
    ///
    /// # Errors
    /// An hdf5 file that does not say so, or names a metric that Foveal does not have.
    pub fn metric(&self) -> Result<Option<Metric>, FileError> {
        match &self.input {
            Input::Bytes(_) => Ok(None),
            Input::Hdf5(table) => table.metric().map(Some),
        }
    }

    /// Reads the rows from `first` on into `out`, a whole number of them, without their prefixes.
    fn fill(&self, first: usize, out: &mut [u8]) -> Result<(), FileError> {
        let input = match &self.input {
            Input::Bytes(input) => input,
            Input::Hdf5(table) => return table.fill(first, out),
        };
        let Layout { data_offset, row_prefix, dim, element, wide, .. } = self.layout;
        if let Some((wide, cast)) = wide {
            return self.fill_narrow((input, wide, cast), first, out);
        }
        let row_bytes = dim * element.size();
        let stride = row_prefix + row_bytes;
        let offset_of = |row: usize| data_offset + row as u64 * stride as u64;
        if row_prefix == 0 {
            return input.read_at(offset_of(first), out);
        }
        let block_rows = (BLOCK_BYTES / stride).max(1).min(out.len() / row_bytes);
        let mut block = vec![0; block_rows * stride];
        let mut row = first;
        for out in out.chunks_mut((block_rows * row_bytes).max(1)) {
            let block = &mut block[..out.len() / row_bytes * stride];
            input.read_at(offset_of(row), block)?;
            for (from, to) in block.chunks_exact(stride).zip(out.chunks_exact_mut(row_bytes)) {
                let (prefix, numbers) = from.split_at(row_prefix);
                if prefix != (dim as u32).to_le_bytes() {
                    return Err(self.other_dim(row, offset_of(row), prefix));
                }
                to.copy_from_slice(numbers);
                row += 1;
            }
        }
        Ok(())
    }

    /// As [`fill`](VectorFile::fill), for numbers that become f32.
    fn fill_narrow(
        &self,
        (input, wide, cast): (&InputFile, Wide, bool),
        first: usize,
        out: &mut [u8],
    ) -> Result<(), FileError> {
        let (dim, size) = (self.layout.dim, Stored::Wide(wide).size());
        let mut at = first as u64 * dim as u64;
        let mut block = vec![0; out.len().div_ceil(4).min(BLOCK_BYTES / size) * size];
        for out in out.chunks_mut((block.len() / size).max(1) * 4) {
            let block = &mut block[..out.len() / 4 * size];
            input.read_at(self.layout.data_offset + at * size as u64, block)?;
            wide.narrow(block, out, cast).map_err(|Inexact { at: within, found, rounds }| {
                let place = at as usize + within;
                FileError::NotExact {
                    path: self.path().into(),
                    row: place / dim,
                    column: place % dim,
                    found,
                    stored: Stored::Wide(wide).name(),
                    wanted: match rounds {
                        true => "a number that f32 holds exactly, or rounding (--cast)",
                        false => "a number within the range of f32",
                    },
                }
            })?;
            at += (out.len() / 4) as u64;
        }
        Ok(())
    }

    fn other_dim(&self, row: usize, offset: u64, prefix: &[u8]) -> FileError {
        let found = prefix.try_into().map_or(0, i32::from_le_bytes);
        FileError::Field {
            path: self.path().into(),
            offset,
            found: format!("dimension {found} in row {row}"),
            wanted: format!("{}, as row 0 says", self.layout.dim),
        }
    }
}

/// There is at least one row.
impl RowSource for VectorFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> usize {
        self.layout.len
    }

    fn dim(&self) -> usize {
        self.layout.dim
    }

    fn element(&self) -> Element {
        self.layout.element
    }

    /// Fails as well for a row that names another dimension, and for a file that became shorter.
    fn read(&self, rows: Range<usize>) -> Result<Rows, FileError> {
        check_range(self, &rows)?;
        let mut values = Values::zeroed(self.element(), rows.len() * self.dim());
        self.fill(rows.start, values.bytes_mut())?;
        let read = Rows::new(self.dim(), values).expect("the layout gives whole rows");
        check_finite(&read, &self.path, |row| rows.start + row)?;
        Ok(read)
    }

    /// One small read for each row.
    fn read_each(&self, rows: &[usize]) -> Result<Rows, FileError> {
        let mut values = Values::zeroed(self.element(), rows.len() * self.dim());
        let row_bytes = self.dim() * self.element().size();
        for (&row, out) in rows.iter().zip(values.bytes_mut().chunks_exact_mut(row_bytes)) {
            check_range(self, &(row..row + 1))?;
            self.fill(row, out)?;
        }
        let read = Rows::new(self.dim(), values).expect("the layout gives whole rows");
        check_finite(&read, &self.path, |row| rows[row])?;
        Ok(read)
    }
}

/// Refuses a tensor's name where there are no tensors.
fn refuse_tensor(path: &Path, how: &ReadAs) -> Result<(), FileError> {
    let Some(name) = &how.tensor else { return Ok(()) };
    let found = format!("holds no tensors, and {name:?} is asked for");
    Err(FileError::Request { path: path.into(), found, wanted: "a .safetensors file".into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::row_source::chunks;
    use crate::vector_writer::VectorWriter;
    use half::f16;
    use proptest::prelude::*;
    use std::fs;
    use std::path::PathBuf;
    use tempfile::TempDir;

    const EXTENSIONS: [&str; 8] =
        ["fvecs", "bvecs", "fbin", "u8bin", "i8bin", "f16bin", "bf16bin", "npy"];

    fn write(bytes: &[u8], name: &str) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    /// The error of opening `bytes` under a name, and what it says after the path.
    fn refused(bytes: &[u8], name: &str) -> (ErrorKind, String) {
        let (_folder, path) = write(bytes, name);
        said(VectorFile::open(&path).unwrap_err(), &path)
    }

    fn said(error: FileError, path: &Path) -> (ErrorKind, String) {
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        let rest = line.strip_prefix(&format!("{}: ", path.display())).unwrap().to_string();
        (error.kind(), rest)
    }

    fn bad(message: &str) -> (ErrorKind, String) {
        (ErrorKind::BadData, message.to_string())
    }

    fn bin(rows: u32, dim: u32, numbers: &[u8]) -> Vec<u8> {
        [&rows.to_le_bytes(), &dim.to_le_bytes(), numbers].concat()
    }

    fn f32_bytes(numbers: &[f32]) -> Vec<u8> {
        numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    fn fvecs(rows: &[&[f32]]) -> Vec<u8> {
        rows.iter()
            .flat_map(|row| [(row.len() as i32).to_le_bytes().to_vec(), f32_bytes(row)].concat())
            .collect()
    }

    #[test]
    fn each_format_is_read_as_its_definition_says() {
        let numbers = f32_bytes(&[1.0, 2.5, -3.0, 4.0, 5.0, 6.0]);
        let floats = Values::F32(vec![1.0, 2.5, -3.0, 4.0, 5.0, 6.0]);
        let halves = [0x3c00u16, 0xc000, 0x3800, 0].map(u16::to_le_bytes).concat();
        let cases = [
            ("a.fbin", bin(3, 2, &numbers), floats.clone()),
            ("a.fvecs", fvecs(&[&[1.0, 2.5], &[-3.0, 4.0], &[5.0, 6.0]]), floats),
            ("a.bvecs", vec![2, 0, 0, 0, 7, 255, 2, 0, 0, 0, 0, 1], Values::U8(vec![7, 255, 0, 1])),
            ("a.u8bin", bin(2, 2, &[7, 255, 0, 1]), Values::U8(vec![7, 255, 0, 1])),
            ("a.i8bin", bin(2, 2, &[7, 255, 0, 128]), Values::I8(vec![7, -1, 0, -128])),
            (
                "a.f16bin",
                bin(2, 2, &halves),
                Values::F16([1.0, -2.0, 0.5, 0.0].map(f16::from_f32).to_vec()),
            ),
        ];
        for (name, bytes, wanted) in cases {
            let (_folder, path) = write(&bytes, name);
            let file = VectorFile::open(&path).unwrap();
            assert_eq!((file.dim(), file.element()), (2, wanted.element()), "{name}");
            assert_eq!(file.path(), path);
            assert_eq!(*file.read(0..file.len()).unwrap().values(), wanted, "{name}");
        }
    }

    #[test]
    fn ranges_and_chunks_give_the_rows_of_the_whole() {
        // 70,001 rows of 36 bytes are more than two blocks of fvecs.
        let numbers: Vec<f32> = (0..70_001 * 8).map(|i| i as f32).collect();
        let all = Rows::new(8, Values::F32(numbers)).unwrap();
        for name in ["a.fbin", "a.fvecs", "a.npy"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            let mut writer = VectorWriter::create(&path, Element::F32, 8).unwrap();
            writer.append(&all).unwrap();
            writer.finish().unwrap();
            let file = VectorFile::open(&path).unwrap();
            assert_eq!(file.read(0..70_001).unwrap(), all, "{name}");
            assert!(file.read(5..5).unwrap().is_empty());
            assert_eq!(file.read(70_000..70_001).unwrap().row(0), all.row(70_000), "{name}");
            for size in [1_000, 29_127, 70_001, usize::MAX] {
                let mut next = 0;
                for chunk in chunks(&file, size) {
                    let (first, rows) = chunk.unwrap();
                    assert_eq!(first, next);
                    assert_eq!(rows.row(rows.len() - 1), all.row(first + rows.len() - 1));
                    next += rows.len();
                }
                assert_eq!(next, 70_001, "{name} by {size}");
            }
        }
    }

    #[test]
    fn rows_that_are_not_there_are_a_usage_error() {
        let (_folder, path) = write(&bin(2, 1, &[1, 2]), "a.u8bin");
        let file = VectorFile::open(&path).unwrap();
        let wanted = "rows 1..3 were asked for; wanted rows below 2".to_string();
        assert_eq!(said(file.read(1..3).unwrap_err(), &path), (ErrorKind::Usage, wanted));
        assert!(file.read(Range { start: 2, end: 1 }).is_err());
    }

    #[test]
    fn a_sample_is_distinct_ascending_and_the_same_for_the_same_seed() {
        let bytes: Vec<u8> = (0..1_000u32).flat_map(|i| (i as u16).to_le_bytes()).collect();
        let (_folder, path) = write(&bin(1_000, 2, &bytes), "a.u8bin");
        let file = VectorFile::open(&path).unwrap();
        let (picked, rows) = file.sample(100, 7).unwrap();
        assert_eq!((picked.len(), rows.len()), (100, 100));
        assert!(picked.is_sorted_by(|a, b| a < b));
        for (i, row) in picked.iter().enumerate() {
            assert_eq!(rows.row(i), file.read(*row..row + 1).unwrap().row(0));
        }
        assert_eq!(file.sample(100, 7).unwrap().0, picked);
        assert_ne!(file.sample(100, 8).unwrap().0, picked);
        for count in [1_000, 1_001, usize::MAX] {
            assert_eq!(file.sample(count, 7).unwrap().0, (0..1_000).collect::<Vec<_>>());
        }
        assert!(file.sample(0, 7).unwrap().1.is_empty());
    }

    #[test]
    fn short_and_long_files_say_how_many_bytes_are_wrong() {
        let file = bin(2, 2, &f32_bytes(&[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(
            refused(&file[..20], "a.fbin"),
            bad("found 20 bytes, 4 too few; wanted 24 bytes for 2 rows of dimension 2 of f32")
        );
        let long = [&file[..], &[0]].concat();
        assert_eq!(
            refused(&long, "a.fbin"),
            bad("found 25 bytes, 1 too many; wanted 24 bytes for 2 rows of dimension 2 of f32")
        );
        assert_eq!(
            refused(&file[..7], "a.fbin"),
            bad("at byte 0: found a file of 7 bytes; wanted a header of 8 bytes")
        );
        let rows = fvecs(&[&[1.0, 2.0], &[3.0, 4.0]]);
        assert_eq!(
            refused(&rows[..17], "a.fvecs"),
            bad("found 17 bytes, 7 too few; wanted 24 bytes for 2 rows of dimension 2 of f32, \
                 as row 0 says")
        );
        assert_eq!(
            refused(&rows[..3], "a.fvecs"),
            bad("at byte 0: found a file of 3 bytes; wanted a header of 4 bytes")
        );
    }

    #[test]
    fn counts_beyond_any_file_are_refused_before_memory_is_asked_for() {
        assert_eq!(
            refused(&bin(u32::MAX, 65_535, &[0; 8]), "a.fbin"),
            bad("found 16 bytes, 1125882726711292 too few; wanted 1125882726711308 bytes for \
                 4294967295 rows of dimension 65535 of f32")
        );
        let npy =
            npy_with("'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9)");
        let (kind, message) = refused(&npy, "a.npy");
        assert_eq!(kind, ErrorKind::BadData);
        assert!(message.contains("9223372036854775807 rows of dimension 9"), "{message}");
        assert!(message.contains("wanted a length below 2^63 bytes"), "{message}");
    }

    #[test]
    fn dimensions_out_of_range_name_their_place() {
        for (bytes, name, message) in [
            (bin(1, 0, &[]), "a.u8bin", "at byte 4: found dimension 0; wanted 1 to 65535"),
            (bin(1, 65_536, &[]), "a.i8bin", "at byte 4: found dimension 65536; wanted 1 to 65535"),
            (vec![0; 4], "a.fvecs", "at byte 0: found dimension 0; wanted 1 to 65535"),
            (vec![255; 8], "a.bvecs", "at byte 0: found dimension -1; wanted 1 to 65535"),
        ] {
            assert_eq!(refused(&bytes, name), bad(message));
        }
    }

    #[test]
    fn files_without_rows_are_refused() {
        for (bytes, name) in [(bin(0, 4, &[]), "a.fbin"), (vec![], "a.fvecs"), (vec![], "a.bvecs")]
        {
            assert_eq!(refused(&bytes, name), bad("holds no rows; wanted at least 1"));
        }
    }

    #[test]
    fn a_row_of_another_dimension_is_named() {
        let mut bytes = fvecs(&[&[1.0, 2.0], &[3.0, 4.0], &[5.0, 6.0]]);
        bytes[24] = 3;
        let (_folder, path) = write(&bytes, "a.fvecs");
        let file = VectorFile::open(&path).unwrap();
        assert_eq!(file.read(0..2).unwrap().len(), 2);
        let wanted = bad("at byte 24: found dimension 3 in row 2; wanted 2, as row 0 says");
        assert_eq!(said(file.read(0..3).unwrap_err(), &path), wanted);
        assert_eq!(said(chunks(&file, 1).last().unwrap().unwrap_err(), &path), wanted);
    }

    #[test]
    fn nan_and_infinity_are_named_by_row_and_column() {
        let mut numbers = [0.5f32; 12];
        numbers[10] = f32::NAN;
        let (_folder, path) = write(&bin(4, 3, &f32_bytes(&numbers)), "a.fbin");
        let file = VectorFile::open(&path).unwrap();
        let wanted = bad("row 3, column 1: found NaN; wanted a finite number");
        assert_eq!(said(file.read(2..4).unwrap_err(), &path), wanted);
        assert_eq!(said(file.sample(4, 1).unwrap_err(), &path), wanted);
        let mut found = (0..30).filter_map(|seed| file.sample(2, seed).err());
        assert_eq!(said(found.next().unwrap(), &path), wanted);
        assert!(file.read(0..3).is_ok());

        let infinite = f16::NEG_INFINITY.to_le_bytes();
        let (_folder, path) = write(&bin(1, 1, &infinite), "a.f16bin");
        let error = VectorFile::open(&path).unwrap().read(0..1).unwrap_err();
        let wanted = bad("row 0, column 0: found -inf; wanted a finite number");
        assert_eq!(said(error, &path), wanted);
    }

    #[test]
    fn a_file_cut_after_opening_is_bad_data() {
        let (_folder, path) = write(&bin(4, 1, &[1, 2, 3, 4]), "a.u8bin");
        let file = VectorFile::open(&path).unwrap();
        fs::write(&path, bin(4, 1, &[1])).unwrap();
        let (kind, message) = said(file.read(0..4).unwrap_err(), &path);
        assert_eq!(kind, ErrorKind::BadData);
        assert!(message.contains("end of the file"), "{message}");
    }

    #[test]
    fn names_that_cannot_be_opened_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.fbin");
        let (kind, message) = said(VectorFile::open(&path).unwrap_err(), &path);
        assert_eq!((kind, message.as_str()), (ErrorKind::NoInput, "no such file"));
        let (kind, message) = said(VectorFile::open(folder.path()).unwrap_err(), folder.path());
        let wanted = "is a directory; wanted a regular file";
        assert_eq!((kind, message.as_str()), (ErrorKind::NoInput, wanted));
        let wanted = "wanted fvecs, bvecs, fbin, u8bin, i8bin, f16bin, bf16bin, npy, safetensors, \
                      parquet, or the name of the format (such as --base-format fbin)";
        let (kind, message) = refused(b"x", "a.csv");
        assert_eq!(kind, ErrorKind::Usage);
        assert_eq!(message, format!("extension \"csv\" is unknown; {wanted}"));
    }

    fn npy_with(entries: &str) -> Vec<u8> {
        let dict = format!("{{{entries}, }}\n");
        let len = (dict.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00", &len[..], dict.as_bytes()].concat()
    }

    #[test]
    fn npy_is_read_in_its_four_types() {
        for (descr, numbers, wanted) in [
            ("<f4", f32_bytes(&[1.0, -2.0]), Values::F32(vec![1.0, -2.0])),
            ("<f2", vec![0, 0x3c, 0, 0xc0], Values::F16([1.0, -2.0].map(f16::from_f32).to_vec())),
            ("|u1", vec![7, 255], Values::U8(vec![7, 255])),
            ("|i1", vec![7, 255], Values::I8(vec![7, -1])),
        ] {
            let entries = format!("'descr': '{descr}', 'fortran_order': False, 'shape': (1, 2)");
            let (_folder, path) = write(&[npy_with(&entries), numbers].concat(), "a.npy");
            let file = VectorFile::open(&path).unwrap();
            assert_eq!((file.len(), file.dim()), (1, 2));
            assert_eq!(*file.read(0..1).unwrap().values(), wanted, "{descr}");
        }
    }

    #[test]
    fn npy_of_another_kind_says_what_is_wanted() {
        let types = "f2, f4, f8, or integers of 1 to 8 bytes, little-endian: save a.astype('<f4')";
        for (descr, order, shape, message) in [
            ("'<c8'", "False", "(1, 2)", format!("element type '<c8'; wanted {types}")),
            ("'>f4'", "False", "(1, 2)", format!("element type '>f4'; wanted {types}")),
            ("[('a', '<f4')]", "False", "(1, 2)", format!("[('a', '<f4')]'; wanted {types}")),
            ("'<f4'", "True", "(1, 2)", "Fortran order; wanted C order".into()),
            ("'<f4'", "False", "(2,)", "found 1 axes; wanted 2 axes: rows and dimension".into()),
            ("'<f4'", "False", "()", "found 0 axes; wanted 2 axes: rows and dimension".into()),
            ("'<f4'", "False", "(1, 2, 3)", "found 3 axes; wanted 2 axes".into()),
            ("'<f4'", "False", "(1, 0)", "found dimension 0; wanted 1 to 65535".into()),
            ("'<f4'", "False", "(0, 2)", "holds no rows; wanted at least 1".into()),
            ("'<f4'", "False", "(2, 2)", "found 70 bytes, 16 too few; wanted 86 bytes".into()),
            ("'<f4'", "False", "(-1, 2)", "found a header that cannot be read".into()),
        ] {
            let entries = format!("'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}");
            let (kind, found) = refused(&npy_with(&entries), "a.npy");
            assert_eq!(kind, ErrorKind::BadData);
            assert!(found.contains(&message), "{entries}: {found}");
        }
    }

    #[test]
    fn numbers_of_other_types_become_f32_where_that_is_exact() {
        let npy = |descr: &str, shape: &str, numbers: &[u8]| {
            let entries = format!("'descr': '{descr}', 'fortran_order': False, 'shape': {shape}");
            write(&[npy_with(&entries), numbers.to_vec()].concat(), "a.npy")
        };
        // More than one block of f64.
        let numbers: Vec<f64> = (0..300_000).map(f64::from).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (_folder, path) = npy("<f8", "(100000, 3)", &bytes);
        let file = VectorFile::open(&path).unwrap();
        assert_eq!((file.len(), file.dim(), file.element()), (100_000, 3, Element::F32));
        let wanted: Vec<f32> = (0..300_000).map(|x| x as f32).collect();
        assert_eq!(*file.read(0..100_000).unwrap().values(), Values::F32(wanted));
        let last = Values::F32(vec![299_997.0, 299_998.0, 299_999.0]);
        assert_eq!(*file.read(99_999..100_000).unwrap().values(), last);

        let bytes: Vec<u8> =
            [1.0, 2.0, 0.1, 4.0].iter().flat_map(|x: &f64| x.to_le_bytes()).collect();
        let (_folder, path) = npy("<f8", "(2, 2)", &bytes);
        let error = VectorFile::open(&path).unwrap().read(0..2).unwrap_err();
        let wanted = "row 1, column 0: found 0.1, of type f64; wanted a number that f32 holds \
                      exactly, or rounding (--cast)";
        assert_eq!(said(error, &path), bad(wanted));
        let how = ReadAs { cast: true, ..ReadAs::default() };
        let cast = VectorFile::open_as(&path, &how).unwrap().read(1..2).unwrap();
        assert_eq!(*cast.values(), Values::F32(vec![0.1, 4.0]));

        let (_folder, path) = npy("<i8", "(1, 2)", &[(-7_i64).to_le_bytes(), [1; 8]].concat());
        let error = VectorFile::open(&path).unwrap().read(0..1).unwrap_err().to_string();
        assert!(error.contains("row 0, column 1: found 72340172838076673, of type i64"), "{error}");
        let (_folder, path) = npy("|b1", "(1, 2)", &[0, 1]);
        let flags = VectorFile::open(&path).unwrap().read(0..1).unwrap();
        assert_eq!(*flags.values(), Values::U8(vec![0, 1]));
    }

    #[test]
    fn a_format_may_be_named() {
        let bytes = bin(2, 1, &f32_bytes(&[5.0, 6.0]));
        let (_folder, path) = write(&bytes, "base.fbin.crop_nb_2");
        assert_eq!(VectorFile::open(&path).unwrap_err().kind(), ErrorKind::Usage);
        let mut how = ReadAs { format: Some(Format::Bin(Element::F32)), ..ReadAs::default() };
        assert_eq!(VectorFile::open_as(&path, &how).unwrap().len(), 2);
        how.tensor = Some("a".into());
        let error = VectorFile::open_as(&path, &how).unwrap_err();
        let wanted = "holds no tensors, and \"a\" is asked for; wanted a .safetensors file";
        assert_eq!(said(error, &path), (ErrorKind::Usage, wanted.into()));
    }

    #[test]
    fn a_list_of_numbers_may_be_a_column_or_a_row() {
        let numbers = f32_bytes(&[1.0, 2.0, 3.0]);
        let npy = |shape: &str| {
            let entries = format!("'descr': '<f4', 'fortran_order': False, 'shape': {shape}");
            write(&[npy_with(&entries), numbers.clone()].concat(), "a.npy")
        };
        let open = |path: &Path| VectorFile::open_numbers(path, &ReadAs::default());
        for shape in ["(3,)", "(3, 1)", "(1, 3)"] {
            let (_folder, path) = npy(shape);
            let file = open(&path).unwrap();
            assert_eq!((file.len(), file.dim()), (3, 1), "{shape}");
            let values = Values::F32(vec![1.0, 2.0, 3.0]);
            assert_eq!(*file.read(0..3).unwrap().values(), values, "{shape}");
        }
        // Longer than a row may be.
        let (_folder, path) = write(&bin(1, 70_000, &[7; 70_000]), "a.u8bin");
        assert_eq!(open(&path).unwrap().len(), 70_000);
    }

    /// What an npy header consists of, in any order.
    const NPY_WORDS: &str =
        "('descr': |'<f4', |'fortran_order': |False, |'shape': |[(0-9), '\\[\\]é]){0,9}";

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_all(&bytes);
        }

        #[test]
        fn no_small_header_makes_reading_panic(
            rows in 0u32..6,
            dim in 0u32..6,
            rest in prop::collection::vec(0u8..6, 0..80),
        ) {
            read_all(&bin(rows, dim, &rest));
            read_all(&[&dim.to_le_bytes(), &rest[..]].concat());
        }

        #[test]
        fn no_npy_header_makes_reading_panic(
            entries in NPY_WORDS,
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            read_all(&[npy_with(&entries), rest].concat());
        }
    }

    /// Reads bytes in every format; what can be opened is never larger than the file.
    fn read_all(bytes: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        for extension in EXTENSIONS {
            let path = folder.path().join("a").with_extension(extension);
            fs::write(&path, bytes).unwrap();
            if let Ok(file) = VectorFile::open(&path) {
                let size = file.len() * file.dim() * file.element().size();
                assert!(size <= bytes.len(), "{extension}");
                let _ = file.read(0..file.len());
                let _ = file.sample(2, 1);
            }
        }
    }
}
