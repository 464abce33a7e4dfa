//! A column of lists becomes a flat file of vectors.

use std::path::Path;
use std::sync::Arc;

use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::DataType;
use parquet::file::reader::FileReader;
use parquet::schema::types::ColumnDescriptor;

use super::ParquetFile;
use super::guard::guarded;
use crate::error::FileError;
use crate::rows::{MAX_DIM, Rows, Values};
use crate::vector_writer::VectorWriter;

/// Numbers read at a time, in bytes.
const CHUNK_BYTES: usize = 4 << 20;

/// Writes a number; what is wrong with it, if it cannot be one of a vector.
type Push<'a, T> = &'a dyn Fn(&T, &mut Vec<u8>) -> Result<(), String>;

pub(super) fn copy_f32(x: &f32, to: &mut Vec<u8>) -> Result<(), String> {
    if !x.is_finite() {
        return Err(x.to_string());
    }
    to.extend_from_slice(&x.to_le_bytes());
    Ok(())
}

pub(super) fn narrow(x: f64, cast: bool, to: &mut Vec<u8>) -> Result<(), String> {
    let narrow = x as f32;
    if !narrow.is_finite() || (!cast && f64::from(narrow) != x) {
        let rounds = if x.is_finite() && narrow.is_finite() { ", which --cast rounds" } else { "" };
        return Err(format!("{x} of f64{rounds}"));
    }
    to.extend_from_slice(&narrow.to_le_bytes());
    Ok(())
}

pub(super) fn half(x: &[u8], to: &mut Vec<u8>) -> Result<(), String> {
    match <[u8; 2]>::try_from(x).map(half::f16::from_le_bytes) {
        Ok(number) if number.is_finite() => {
            to.extend_from_slice(x);
            Ok(())
        }
        Ok(number) => Err(number.to_string()),
        Err(_) => Err(format!("{} bytes", x.len())),
    }
}

pub(super) fn byte<T: TryFrom<i32> + bytemuck::NoUninit>(
    x: &i32,
    to: &mut Vec<u8>,
) -> Result<(), String> {
    let number = T::try_from(*x).map_err(|_| x.to_string())?;
    to.extend_from_slice(bytemuck::bytes_of(&number));
    Ok(())
}

/// Vectors that are written to a flat file.
pub(super) struct VectorSpool<'a> {
    file: &'a ParquetFile,
    path: &'a Path,
    writer: Option<VectorWriter>,
    /// Numbers of a vector; 0 before the first.
    dim: usize,
    /// The rows that are not written yet.
    bytes: Vec<u8>,
    /// Rows read so far.
    pub(super) rows: usize,
}

impl<'a> VectorSpool<'a> {
    pub(super) fn new(file: &'a ParquetFile, path: &'a Path) -> VectorSpool<'a> {
        VectorSpool { file, path, writer: None, dim: 0, bytes: Vec::new(), rows: 0 }
    }

    /// Reads the column of a row group.
    ///
    /// The library returns whole rows, of any length. So the first reads are of few rows: they find
    /// most rows of another length before many of those are in memory.
    pub(super) fn read<T: DataType, E: From<FileError>>(
        &mut self,
        group: usize,
        push: Push<'_, T::T>,
        tell: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E> {
        let shape = self.shape(group)?;
        let column = self.file.column(group, self.file.vector.leaf)?;
        let mut reader: ColumnReaderImpl<T> = get_typed_column_reader(column);
        let descriptor = self.descriptor();
        let present = descriptor.max_def_level();
        let repeated = present - i16::from(descriptor.self_type().is_optional());
        let (mut defined, mut repeats, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut most = 1;
        loop {
            defined.clear();
            repeats.clear();
            values.clear();
            let place = format_args!("column {:?}, row {}", self.file.vector.name, self.rows);
            let (records, _, levels) = guarded(&self.file.path, place, || {
                reader.read_records(most, Some(&mut defined), Some(&mut repeats), &mut values)
            })?;
            if records == 0 && levels == 0 {
                return Ok(shape.check(self)?);
            }
            let mut numbers = values.iter();
            let mut count = 0;
            for (i, (repeat, level)) in repeats.iter().zip(&defined).enumerate() {
                if i > 0 && *repeat == 0 {
                    self.end_row(count)?;
                    count = 0;
                }
                if *level < repeated {
                    return Err(self.at(None, "no numbers".into()).into());
                }
                let number = numbers.next().filter(|_| *level == present);
                let pushed = match number {
                    Some(number) => push(number, &mut self.bytes),
                    None => Err("null".into()),
                };
                pushed.map_err(|found| self.at(Some(count), found))?;
                count += 1;
            }
            self.end_row(count)?;
            self.write()?;
            tell(self.rows)?;
            most = match shape.is_of(self.dim) {
                true => (most * 2).min((CHUNK_BYTES / (self.dim * size_of::<T::T>())).max(1)),
                // Some row is of another length: row by row, until that is found and named.
                false => 1,
            };
        }
    }

    /// What the metadata says of a row group.
    fn shape(&self, group: usize) -> Result<GroupShape, FileError> {
        let metadata = self.file.reader.metadata().row_group(group);
        let column = metadata.columns().get(self.file.vector.leaf);
        let values = column.map_or(0, |column| column.num_values());
        let shape = GroupShape { group, rows: metadata.num_rows(), values };
        // Refused before it is read: a row may be as long as that.
        if shape.values > shape.rows.saturating_mul(MAX_DIM as i64) {
            let wanted = format!("at most {MAX_DIM} a row");
            return Err(self.file.wrong(shape.found(&self.file.vector.name), wanted));
        }
        Ok(shape)
    }

    fn descriptor(&self) -> Arc<ColumnDescriptor> {
        let schema = self.file.reader.metadata().file_metadata().schema_descr();
        schema.column(self.file.vector.leaf)
    }

    /// A row of `count` numbers was read.
    fn end_row(&mut self, count: usize) -> Result<(), FileError> {
        if self.dim == 0 {
            if count > MAX_DIM {
                let found = format!("a vector of {count} numbers in row {}", self.rows);
                return Err(self.file.wrong(found, format!("at most {MAX_DIM}")));
            }
            self.dim = count;
        }
        if count != self.dim {
            let found = format!("a vector of {count} numbers in row {}", self.rows);
            return Err(self.file.wrong(found, format!("{}, as in row 0", self.dim)));
        }
        let place = format_args!("column {:?}", self.file.vector.name);
        self.file.check_room(place, self.rows + 1)?;
        self.rows += 1;
        Ok(())
    }

    fn write(&mut self) -> Result<(), FileError> {
        let element = self.file.vector.numbers.element();
        let mut values = Values::zeroed(element, self.bytes.len() / element.size());
        values.bytes_mut().copy_from_slice(&self.bytes);
        self.bytes.clear();
        let rows = Rows::new(self.dim, values).expect("whole rows of a dimension in range");
        if self.writer.is_none() {
            self.writer = Some(VectorWriter::create(self.path, element, self.dim)?);
        }
        self.writer.as_mut().expect("a writer was made").append(&rows)
    }

    pub(super) fn finish(self) -> Result<(), FileError> {
        match self.writer {
            Some(writer) => writer.finish(),
            None => Err(FileError::Empty { path: self.file.path.clone() }),
        }
    }

    /// What is wrong in the row that is being read.
    fn at(&self, number: Option<usize>, found: String) -> FileError {
        let place = number.map_or(String::new(), |number| format!(", number {number}"));
        let (name, row) = (&self.file.vector.name, self.rows);
        let found = format!("{found} in column {name:?}, row {row}{place}");
        self.file.wrong(found, "finite numbers, as many in each row".into())
    }
}

/// What the metadata says of the column of vectors in a row group.
struct GroupShape {
    group: usize,
    rows: i64,
    /// Numbers and nulls; a list without numbers, or a null in its place, counts as one.
    values: i64,
}

impl GroupShape {
    /// Whether all rows may be of `dim` numbers.
    fn is_of(&self, dim: usize) -> bool {
        self.rows.checked_mul(dim as i64) == Some(self.values)
    }

    /// Refuses metadata that contradict rows which were read, and were all as they should be.
    fn check(&self, spool: &VectorSpool<'_>) -> Result<(), FileError> {
        if self.is_of(spool.dim) {
            return Ok(());
        }
        let found = self.found(&spool.file.vector.name);
        Err(spool.file.wrong(found, format!("{} in each row, as in row 0", spool.dim)))
    }

    fn found(&self, name: &str) -> String {
        let GroupShape { group, rows, values } = self;
        format!("{values} numbers for {rows} rows in column {name:?}, row group {group}")
    }
}
