//! A column of integers becomes keys.

use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::DataType;

use super::guard::guarded;
use super::{CHUNK_ROWS, ParquetFile};
use crate::error::FileError;

/// Keys that are read into memory.
pub(super) struct Keys<'a> {
    pub(super) file: &'a ParquetFile,
    pub(super) name: String,
    pub(super) keys: Vec<u64>,
}

impl Keys<'_> {
    pub(super) fn read<T: DataType, E: From<FileError>>(
        &mut self,
        mut reader: ColumnReaderImpl<T>,
        present: i16,
        key: &dyn Fn(&T::T) -> Option<u64>,
        tell: &mut dyn FnMut(usize) -> Result<(), E>,
    ) -> Result<(), E>
    where
        T::T: std::fmt::Display,
    {
        let (mut defined, mut values) = (Vec::new(), Vec::new());
        loop {
            defined.clear();
            values.clear();
            let place = format_args!("column {:?}, row {}", self.name, self.keys.len());
            let (records, ..) = guarded(&self.file.path, place, || {
                reader.read_records(CHUNK_ROWS, Some(&mut defined), None, &mut values)
            })?;
            if records == 0 {
                return Ok(());
            }
            let place = format_args!("column {:?}", self.name);
            self.file.check_room(place, self.keys.len() + records)?;
            // A column that cannot be null has no levels.
            if let Some(at) = defined.iter().position(|level| *level != present) {
                return Err(self.at(self.keys.len() + at, "null".into()).into());
            }
            for value in &values {
                let wrong = || self.at(self.keys.len(), value.to_string());
                let number = key(value).ok_or_else(wrong)?;
                self.keys.push(number);
            }
            tell(self.keys.len())?;
        }
    }

    fn at(&self, row: usize, found: String) -> FileError {
        let found = format!("{found} in column {:?}, row {row}", self.name);
        self.file.wrong(found, "keys: integers of at least 0".into())
    }
}
