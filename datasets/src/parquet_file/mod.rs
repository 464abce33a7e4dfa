//! Vectors, keys and payloads in a Parquet file, copied into flat files that can be read by row.
//!
//! A column of lists holds the vectors; other columns may hold keys, and fields of payloads. One
//! pass over each column, a few megabytes at a time: the file may be larger than memory.

mod columns;
mod guard;
mod keys;
#[cfg(test)]
mod tests;
mod vectors;

use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use parquet::column::reader::ColumnReader;
use parquet::data_type::{DoubleType, FixedLenByteArrayType, FloatType, Int32Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::Type;

use crate::error::FileError;
use crate::input_file::InputFile;
use columns::{Numbers, Schema, VectorColumn, integer};
use guard::guarded;
pub use guard::is_reading_parquet;
use keys::Keys;
use vectors::{VectorSpool, byte, copy_f32, half, narrow};

/// Keys, or payloads, read at a time.
const CHUNK_ROWS: usize = 16 << 10;

/// What the columns of a file are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParquetColumns {
    /// The vectors; `None` where only one column holds lists of numbers.
    pub vector: Option<String>,
    /// The keys, if there are any.
    pub key: Option<String>,
    /// Fields of payloads; `*` stands for all columns but the vectors and the keys.
    pub payload: Vec<String>,
}

/// A Parquet file whose columns can be used.
pub struct ParquetFile {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    vector: VectorColumn,
    /// The number of the column of keys.
    key: Option<usize>,
    /// The columns of payloads as a schema of their own.
    payload: Option<Type>,
    rows: usize,
}

/// What was copied, and where to.
#[derive(Debug)]
pub struct Spooled {
    /// The vectors, in a format that `VectorFile` opens.
    pub vectors: PathBuf,
    /// The keys, in the order of rows.
    pub keys: Option<Vec<u64>>,
    /// The payloads, a JSON object a line.
    pub payload: Option<PathBuf>,
}

impl ParquetFile {
    /// Opens a file and finds its columns; reads no row. `cast` lets numbers of f64 be rounded to
    /// f32 where f32 does not hold them exactly.
    ///
    /// # Errors
    /// No regular file; no sound Parquet file, or one without rows; a column that is not there, is
    /// there twice, or holds something else; several columns that could be the vectors.
    pub fn open(
        path: &Path,
        columns: &ParquetColumns,
        cast: bool,
    ) -> Result<ParquetFile, FileError> {
        let file = InputFile::open(path)?.into_file();
        ParquetFile::of(path, file, columns, cast)
    }

    fn of(
        path: &Path,
        file: File,
        columns: &ParquetColumns,
        cast: bool,
    ) -> Result<ParquetFile, FileError> {
        let metadata = format_args!("metadata");
        let reader = guarded(path, metadata, || SerializedFileReader::try_from(file))?;
        let metadata = reader.metadata().file_metadata();
        let rows = usize::try_from(metadata.num_rows()).unwrap_or(0);
        if rows == 0 {
            return Err(FileError::Empty { path: path.into() });
        }
        let file = Schema { path, reader: &reader };
        let vector = file.vector_column(columns.vector.as_deref(), cast)?;
        let key = columns.key.as_deref().map(|name| file.key_column(name)).transpose()?;
        let payload = file.payload_schema(columns, &vector.name)?;
        Ok(ParquetFile { path: path.into(), vector, key, payload, rows, reader })
    }

    /// How many rows it says that it holds.
    #[expect(clippy::len_without_is_empty, reason = "a file without rows is refused")]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Copies vectors and payloads into files in the directory `dir`, and the keys into memory.
    /// `tell` hears how many of how many values are done, and may end it.
    ///
    /// # Errors
    /// Vectors of different lengths, of 0 numbers or of more than
    /// [`MAX_DIM`](crate::rows::MAX_DIM); a null, NaN or infinity in a vector, with row and column;
    /// a key that is null or negative; a file that is damaged, or holds another number of rows than
    /// it says; a disk that refuses; what `tell` returns.
    pub fn spool<E: From<FileError>>(
        &self,
        dir: &Path,
        tell: &mut dyn FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<Spooled, E> {
        let parts = 1 + u64::from(self.key.is_some()) + u64::from(self.payload.is_some());
        let rows = self.rows as u64;
        let mut part = 0;
        let mut tell_part = |part: u64, done: usize| tell(part * rows + done as u64, parts * rows);
        let vectors = self.spool_vectors(dir, &mut |done| tell_part(0, done))?;
        let mut keys = None;
        if let Some(column) = self.key {
            part += 1;
            keys = Some(self.read_keys(column, &mut |done| tell_part(part, done))?);
        }
        let mut payload = None;
        if let Some(schema) = &self.payload {
            part += 1;
            payload = Some(self.spool_payload(schema, dir, &mut |done| tell_part(part, done))?);
        }
        Ok(Spooled { vectors, keys, payload })
    }

    fn spool_vectors<E: From<FileError>>(
        &self,
        dir: &Path,
        tell: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let numbers = self.vector.numbers;
        let path = dir.join("vectors").with_extension(numbers.extension());
        let mut out = VectorSpool::new(self, &path);
        for group in 0..self.reader.num_row_groups() {
            match numbers {
                Numbers::F32 => out.read::<FloatType, E>(group, &copy_f32, tell)?,
                Numbers::F64 { cast } => {
                    out.read::<DoubleType, E>(group, &|x, to| narrow(*x, cast, to), tell)?;
                }
                Numbers::F16 => {
                    out.read::<FixedLenByteArrayType, E>(group, &|x, to| half(x.data(), to), tell)?;
                }
                Numbers::U8 => out.read::<Int32Type, E>(group, &byte::<u8>, tell)?,
                Numbers::I8 => out.read::<Int32Type, E>(group, &byte::<i8>, tell)?,
            }
        }
        let rows = out.rows;
        out.finish()?;
        self.check_count(format_args!("column {:?}", self.vector.name), rows)?;
        Ok(path)
    }

    fn read_keys<E: From<FileError>>(
        &self,
        leaf: usize,
        tell: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<u64>, E> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let column = schema.column(leaf);
        let is_unsigned = matches!(integer(&column), Some((_, false)));
        let mut keys = Keys { file: self, name: column.name().into(), keys: Vec::new() };
        for group in 0..self.reader.num_row_groups() {
            let levels = column.max_def_level();
            match self.column(group, leaf)? {
                ColumnReader::Int32ColumnReader(reader) => {
                    let key = |x: &i32| match is_unsigned {
                        true => Some((*x as u32).into()),
                        false => u64::try_from(*x).ok(),
                    };
                    keys.read(reader, levels, &key, tell)?;
                }
                ColumnReader::Int64ColumnReader(reader) => {
                    let key = |x: &i64| match is_unsigned {
                        true => Some(*x as u64),
                        false => u64::try_from(*x).ok(),
                    };
                    keys.read(reader, levels, &key, tell)?;
                }
                _ => unreachable!("a column of keys holds integers: found when it was opened"),
            }
        }
        self.check_count(format_args!("column {:?}", column.name()), keys.keys.len())?;
        Ok(keys.keys)
    }

    fn spool_payload<E: From<FileError>>(
        &self,
        schema: &Type,
        dir: &Path,
        tell: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let path = dir.join("payload.jsonl");
        let created = File::create_new(&path);
        let created = created.map_err(|source| FileError::Create { path: path.clone(), source })?;
        let refused = |source| FileError::Write { path: path.clone(), source };
        let mut out = BufWriter::new(created);
        let mut done = 0;
        for group in 0..self.reader.num_row_groups() {
            let place = format_args!("row group {group}, columns of payloads");
            let group = guarded(&self.path, place, || self.reader.get_row_group(group))?;
            let columns = Some(schema.clone());
            let mut rows = guarded(&self.path, place, || group.get_row_iter(columns))?;
            let mut next_text = |row: usize| {
                guarded(&self.path, format_args!("row {row}, columns of payloads"), || {
                    rows.next().map(|row| Ok(row?.to_json_value().to_string())).transpose()
                })
            };
            while let Some(text) = next_text(done)? {
                self.check_room(format_args!("the columns of payloads"), done + 1)?;
                writeln!(out, "{text}").map_err(refused)?;
                done += 1;
                if done % CHUNK_ROWS == 0 {
                    tell(done)?;
                }
            }
        }
        out.flush().map_err(refused)?;
        self.check_count(format_args!("the columns of payloads"), done)?;
        Ok(path)
    }

    fn column(&self, group: usize, leaf: usize) -> Result<ColumnReader, FileError> {
        let place = format_args!("row group {group}");
        let read = || self.reader.get_row_group(group)?.get_column_reader(leaf);
        guarded(&self.path, place, read)
    }

    /// Stops at the first row too many: a damaged file may hold any number of them.
    fn check_room(&self, place: fmt::Arguments<'_>, found: usize) -> Result<(), FileError> {
        if found <= self.rows {
            return Ok(());
        }
        let found = format!("more than {} rows in {place}", self.rows);
        Err(self.wrong(found, "as many as its metadata says".into()))
    }

    fn check_count(&self, place: fmt::Arguments<'_>, found: usize) -> Result<(), FileError> {
        if found == self.rows {
            return Ok(());
        }
        let found = format!("{found} rows in {place}");
        Err(self.wrong(found, format!("{} as its metadata says", self.rows)))
    }

    fn wrong(&self, found: String, wanted: String) -> FileError {
        FileError::Content { path: self.path.clone(), found, wanted }
    }
}
