//! Rows into a new file, in the formats that `vector_file` reads.

use std::path::Path;

use crate::error::FileError;
use crate::format::Format;
use crate::npy;
use crate::output_file::OutputFile;
use crate::rows::{Element, MAX_DIM, Rows};

/// Writes rows into a file that appears, complete, when [`VectorWriter::finish`] is called.
///
/// Until then the rows are in a hidden file beside it, which is removed when the writer is dropped.
#[derive(Debug)]
pub struct VectorWriter {
    output: OutputFile,
    format: Format,
    element: Element,
    dim: usize,
    rows: u64,
}

impl VectorWriter {
    /// Starts a file in the format that its extension names.
    ///
    /// # Errors
    /// A path that exists or cannot be made; an unknown extension; an element type that the format
    /// does not hold; a dimension of 0 or above [`MAX_DIM`].
    pub fn create(
        path: impl AsRef<Path>,
        element: Element,
        dim: usize,
    ) -> Result<VectorWriter, FileError> {
        let path = path.as_ref();
        let format = Format::of(path)?;
        if let Some(wanted) = format.element()
            && element != wanted
        {
            return Err(unfit(path, element.to_string(), wanted.to_string()));
        }
        if dim == 0 || dim > MAX_DIM {
            return Err(unfit(path, format!("dimension {dim}"), format!("1 to {MAX_DIM}")));
        }
        let mut output = OutputFile::create(path)?;
        output.write(&header(format, element, 0, dim))?;
        Ok(VectorWriter { output, format, element, dim, rows: 0 })
    }

    /// Appends rows, in order.
    ///
    /// # Errors
    /// Another element type or dimension than the file's; NaN or infinity; a failed write. The file
    /// cannot be finished in a useful way after a failed write.
    pub fn append(&mut self, rows: &Rows) -> Result<(), FileError> {
        let path = self.output.path();
        if (rows.element(), rows.dim()) != (self.element, self.dim) {
            let found = format!("rows of dimension {} of {}", rows.dim(), rows.element());
            return Err(unfit(path, found, format!("dimension {} of {}", self.dim, self.element)));
        }
        if let Some((row, column, value)) = rows.first_not_finite() {
            let row = self.rows as usize + row;
            return Err(FileError::NotFinite { path: path.into(), row, column, value });
        }
        let total = self.rows + rows.len() as u64;
        if matches!(self.format, Format::Bin(_)) && u32::try_from(total).is_err() {
            return Err(unfit(path, format!("{total} rows"), format!("at most {}", u32::MAX)));
        }
        match self.format {
            Format::Vecs(_) => {
                for row in rows.values().bytes().chunks_exact(rows.row_bytes()) {
                    self.output.write(&(self.dim as u32).to_le_bytes())?;
                    self.output.write(row)?;
                }
            }
            Format::Bin(_) | Format::Npy => self.output.write(rows.values().bytes())?,
        }
        self.rows = total;
        Ok(())
    }

    /// Syncs the file and gives it its name, which nothing may have taken meanwhile.
    ///
    /// # Errors
    /// No rows were appended; the path exists; a failed write. Nothing stays behind then.
    pub fn finish(self) -> Result<(), FileError> {
        if self.rows == 0 {
            return Err(FileError::Empty { path: self.output.path().into() });
        }
        let header = header(self.format, self.element, self.rows, self.dim);
        self.output.publish_with_head(&header)
    }
}

/// The bytes before the first row.
fn header(format: Format, element: Element, rows: u64, dim: usize) -> Vec<u8> {
    match format {
        Format::Vecs(_) => Vec::new(),
        Format::Bin(_) => [(rows as u32).to_le_bytes(), (dim as u32).to_le_bytes()].concat(),
        Format::Npy => npy::header_of(element, rows, dim).to_vec(),
    }
}

fn unfit(path: &Path, found: String, wanted: String) -> FileError {
    FileError::Unfit { path: path.into(), found, wanted }
}
