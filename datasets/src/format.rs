//! Which file formats there are, and how a name tells them apart.

use std::path::Path;

use crate::error::FileError;
use crate::rows::Element;

/// A file format for rows of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TexMex: before each row its dimension as i32; no header.
    Vecs(Element),
    /// big-ann: a header of two u32, rows and dimension; then the rows.
    Bin(Element),
    /// NumPy: a header in words, then the rows.
    Npy,
    /// Many tensors behind a header of JSON, or the JSON file that says which file holds which.
    /// Read only.
    Safetensors,
    /// Columns, of which one holds lists of numbers. Copied to another format before rows are read.
    Parquet,
}

/// Name, which is the extension as well, and format, in the order in which messages name them.
const FORMATS: [(&str, Format); 10] = [
    ("fvecs", Format::Vecs(Element::F32)),
    ("bvecs", Format::Vecs(Element::U8)),
    ("fbin", Format::Bin(Element::F32)),
    ("u8bin", Format::Bin(Element::U8)),
    ("i8bin", Format::Bin(Element::I8)),
    ("f16bin", Format::Bin(Element::F16)),
    ("bf16bin", Format::Bin(Element::Bf16)),
    ("npy", Format::Npy),
    ("safetensors", Format::Safetensors),
    ("parquet", Format::Parquet),
];

impl Format {
    /// The names of all formats.
    pub fn names() -> [&'static str; FORMATS.len()] {
        FORMATS.map(|(name, _)| name)
    }

    /// The names of the formats whose rows can be read in any order.
    pub fn names_by_row() -> impl Iterator<Item = &'static str> {
        FORMATS.into_iter().filter(|(_, format)| *format != Format::Parquet).map(|(name, _)| name)
    }

    /// The format of a name.
    pub fn named(name: &str) -> Option<Format> {
        FORMATS.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    /// The format that the extension of `path` names.
    ///
    /// # Errors
    /// It names none.
    pub fn of(path: &Path) -> Result<Format, FileError> {
        match extension(path) {
            // The index of a model in several files.
            "json" => Ok(Format::Safetensors),
            found => Format::named(found).ok_or_else(|| unnamed(path, &Format::names())),
        }
    }

    /// The format to write a new file `path` in.
    ///
    /// # Errors
    /// The extension names no format, or one that is read only.
    pub fn of_output(path: &Path) -> Result<Format, FileError> {
        let written = FORMATS.into_iter().filter(|(_, format)| format.is_written());
        let found = extension(path);
        match written.clone().find(|(name, _)| *name == found) {
            Some((_, format)) => Ok(format),
            None => {
                Err(unknown_extension(path, &written.map(|(name, _)| name).collect::<Vec<_>>()))
            }
        }
    }

    /// The only element type that the format holds; `None` if its header names the type.
    pub fn element(self) -> Option<Element> {
        match self {
            Format::Vecs(element) | Format::Bin(element) => Some(element),
            Format::Npy | Format::Safetensors | Format::Parquet => None,
        }
    }

    /// Whether files of the format are written.
    fn is_written(self) -> bool {
        !matches!(self, Format::Safetensors | Format::Parquet)
    }
}

/// A file format for ground truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruthFormat {
    /// big-ann: keys and distances.
    Ibin,
    /// TexMex: keys.
    Ivecs,
}

const TRUTH_FORMATS: [(&str, TruthFormat); 2] =
    [("ibin", TruthFormat::Ibin), ("ivecs", TruthFormat::Ivecs)];

impl TruthFormat {
    /// The names of all formats.
    pub fn names() -> [&'static str; TRUTH_FORMATS.len()] {
        TRUTH_FORMATS.map(|(name, _)| name)
    }

    /// The format of a name.
    pub fn named(name: &str) -> Option<TruthFormat> {
        TRUTH_FORMATS.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    /// The format that the extension of `path` names.
    ///
    /// # Errors
    /// It names none.
    pub fn of(path: &Path) -> Result<TruthFormat, FileError> {
        let found = TruthFormat::named(extension(path));
        found.ok_or_else(|| unnamed(path, &TruthFormat::names()))
    }

    /// The format to write a new file `path` in.
    ///
    /// # Errors
    /// The extension names none.
    pub fn of_output(path: &Path) -> Result<TruthFormat, FileError> {
        let found = TruthFormat::named(extension(path));
        found.ok_or_else(|| unknown_extension(path, &TruthFormat::names()))
    }
}

/// How a file of rows is read, where its name and its numbers leave a choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadAs {
    /// The format; `None` leaves it to the extension.
    pub format: Option<Format>,
    /// The tensor that holds the rows, in a safetensors file.
    pub tensor: Option<String>,
    /// Whether numbers of a type that rows do not have (f64, integers of more than a byte) become
    /// f32 by rounding. Without it they become f32 where f32 holds them exactly.
    pub cast: bool,
}

/// The extension of a path without its dot; empty if it has none or is not Unicode.
pub(crate) fn extension(path: &Path) -> &str {
    path.extension().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The error for an input whose extension is not in `known`.
fn unnamed(path: &Path, known: &[&str]) -> FileError {
    let known = [known, &["or the name of the format (such as --base-format fbin)"]].concat();
    unknown_extension(path, &known)
}

/// The error for a path whose extension is none of `known`.
fn unknown_extension(path: &Path, known: &[&str]) -> FileError {
    FileError::Extension {
        path: path.into(),
        found: extension(path).into(),
        wanted: known.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_its_format() {
        for name in Format::names() {
            let path = Path::new("a").with_extension(name);
            assert_eq!(Format::named(name), Some(Format::of(&path).unwrap()), "{name}");
            let is_written = !["safetensors", "parquet"].contains(&name);
            assert_eq!(Format::of_output(&path).is_ok(), is_written, "{name}");
        }
        for name in TruthFormat::names() {
            let path = Path::new("a").with_extension(name);
            assert_eq!(TruthFormat::named(name), Some(TruthFormat::of(&path).unwrap()), "{name}");
        }
        let index = Format::of(Path::new("model.safetensors.index.json"));
        assert_eq!(index.unwrap(), Format::Safetensors);
    }
}
