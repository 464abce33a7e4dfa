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
        let format = Format::of_output(path)?;
        if let Some(wanted) = format.element()
            && element != wanted
        {
            return Err(unfit(path, element.to_string(), wanted.to_string()));
        }
        if format == Format::Npy && element == Element::Bf16 {
            return Err(unfit(path, element.to_string(), "f32, f16, u8 or i8".into()));
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
            Format::Bin(_) | Format::Npy | Format::Safetensors | Format::Parquet => {
                self.output.write(rows.values().bytes())?;
            }
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
        Format::Safetensors | Format::Parquet => unreachable!("read only: a writer is refused"),
    }
}

fn unfit(path: &Path, found: String, wanted: String) -> FileError {
    FileError::Unfit { path: path.into(), found, wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::row_source::RowSource;
    use crate::rows::Values;
    use crate::vector_file::VectorFile;
    use half::f16;
    use std::fs;

    fn some(element: Element) -> Rows {
        let values = match element {
            Element::F32 => Values::F32(vec![0.1, -2.0, 3e30, 4.0, 5.0, -0.0]),
            Element::F16 => Values::F16([0.1, -2.0, 3e4, 4.0, 5.0, 6.0].map(f16::from_f32).into()),
            Element::Bf16 => {
                Values::Bf16([0.1, -2.0, 3e34, 4.0, 5.0, 6.0].map(half::bf16::from_f32).into())
            }
            Element::U8 => Values::U8(vec![0, 255, 3, 4, 5, 6]),
            Element::I8 => Values::I8(vec![-128, 127, 3, 4, 5, 6]),
        };
        Rows::new(3, values).unwrap()
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn every_format_gives_back_what_was_written() {
        use Element::{F16, F32, I8, U8};
        for (name, element) in [
            ("a.fvecs", F32),
            ("a.bvecs", U8),
            ("a.fbin", F32),
            ("a.u8bin", U8),
            ("a.i8bin", I8),
            ("a.f16bin", F16),
            ("a.npy", F32),
            ("a.npy", F16),
            ("a.npy", U8),
            ("a.npy", I8),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            let rows = some(element);
            let mut writer = VectorWriter::create(&path, element, 3).unwrap();
            writer.append(&rows).unwrap();
            writer.append(&rows).unwrap();
            assert!(!path.exists());
            writer.finish().unwrap();
            let file = VectorFile::open(&path).unwrap();
            assert_eq!((file.len(), file.dim(), file.element()), (4, 3, element), "{name}");
            for first in [0, 2] {
                assert_eq!(file.read(first..first + 2).unwrap(), rows, "{name} {element}");
            }
            assert_eq!(names(folder.path()), [name]);
        }
    }

    #[test]
    fn an_existing_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.u8bin");
        let mut writer = VectorWriter::create(&path, Element::U8, 3).unwrap();
        writer.append(&some(Element::U8)).unwrap();
        fs::write(&path, "mine").unwrap();
        for error in
            [writer.finish().unwrap_err(), VectorWriter::create(&path, Element::U8, 3).unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::CannotCreate);
            let wanted = format!("{}: exists already; wanted a new name", path.display());
            assert_eq!(error.to_string(), wanted);
        }
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(names(folder.path()), ["a.u8bin"]);
    }

    #[test]
    fn an_unfinished_file_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.fbin");
        let mut writer = VectorWriter::create(&path, Element::F32, 3).unwrap();
        writer.append(&some(Element::F32)).unwrap();
        let [hidden] = &names(folder.path())[..] else { panic!("one file is being written") };
        assert!(hidden.starts_with(".a.fbin."), "{hidden}");
        drop(writer);
        let empty = VectorWriter::create(&path, Element::F32, 3).unwrap();
        let error = empty.finish().unwrap_err();
        assert!(error.to_string().ends_with("holds no rows; wanted at least 1"), "{error}");
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn two_writers_of_one_name_do_not_meet_and_the_first_to_finish_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.i8bin");
        let mut writers = [3, 3].map(|dim| VectorWriter::create(&path, Element::I8, dim).unwrap());
        writers.iter_mut().for_each(|writer| writer.append(&some(Element::I8)).unwrap());
        let [first, second] = writers;
        second.finish().unwrap();
        assert_eq!(first.finish().unwrap_err().kind(), ErrorKind::CannotCreate);
        assert_eq!(VectorFile::open(&path).unwrap().read(0..2).unwrap(), some(Element::I8));
        assert_eq!(names(folder.path()), ["a.i8bin"]);
    }

    #[test]
    fn what_does_not_fit_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let create = |name: &str, element, dim| {
            let error = VectorWriter::create(folder.path().join(name), element, dim).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            error.to_string()
        };
        assert!(create("a.fbin", Element::U8, 3).ends_with("cannot hold u8; wanted f32"));
        assert!(create("a.npy", Element::U8, 0).ends_with("dimension 0; wanted 1 to 65535"));
        assert!(create("a.txt", Element::U8, 3).contains("extension \"txt\" is unknown"));
        let path = folder.path().join("no/such/folder.fbin");
        let error = VectorWriter::create(&path, Element::F32, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CannotCreate);
        assert!(error.to_string().contains("folder.fbin: cannot be created: "), "{error}");

        let path = folder.path().join("a.fbin");
        let mut writer = VectorWriter::create(&path, Element::F32, 3).unwrap();
        let error = writer.append(&some(Element::U8)).unwrap_err();
        let wanted = "cannot hold rows of dimension 3 of u8; wanted dimension 3 of f32";
        assert!(error.to_string().ends_with(wanted), "{error}");
        writer.append(&some(Element::F32)).unwrap();
        let infinite = Rows::new(3, Values::F32(vec![0.0, f32::INFINITY, 0.0])).unwrap();
        let error = writer.append(&infinite).unwrap_err();
        assert!(error.to_string().contains("row 2, column 1: found inf"), "{error}");
        writer.finish().unwrap();
        assert_eq!(VectorFile::open(&path).unwrap().len(), 2);
    }
}
