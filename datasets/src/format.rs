//! Which file formats hold vectors, and how a name tells them apart.

use std::path::Path;

use crate::error::FileError;
use crate::rows::Element;

/// A file format for rows of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// TexMex: before each row its dimension as i32; no header.
    Vecs(Element),
    /// big-ann: a header of two u32, rows and dimension; then the rows.
    Bin(Element),
    /// NumPy: a header in words, then the rows.
    Npy,
}

/// Extension and format, in the order in which messages name them.
const FORMATS: [(&str, Format); 8] = [
    ("fvecs", Format::Vecs(Element::F32)),
    ("bvecs", Format::Vecs(Element::U8)),
    ("fbin", Format::Bin(Element::F32)),
    ("u8bin", Format::Bin(Element::U8)),
    ("i8bin", Format::Bin(Element::I8)),
    ("f16bin", Format::Bin(Element::F16)),
    ("bf16bin", Format::Bin(Element::Bf16)),
    ("npy", Format::Npy),
];

/// The extensions of files that hold vectors, in the order in which messages name them.
pub fn vector_extensions() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|(name, _)| *name)
}

impl Format {
    /// The format that the extension of `path` names.
    pub(crate) fn of(path: &Path) -> Result<Format, FileError> {
        let found = extension(path);
        match FORMATS.into_iter().find(|(name, _)| *name == found) {
            Some((_, format)) => Ok(format),
            None => Err(unknown_extension(path, &FORMATS.map(|(name, _)| name))),
        }
    }

    /// The only element type that the format holds; `None` if its header names the type.
    pub(crate) fn element(self) -> Option<Element> {
        match self {
            Format::Vecs(element) | Format::Bin(element) => Some(element),
            Format::Npy => None,
        }
    }
}

/// The extension of a path without its dot; empty if it has none or is not Unicode.
pub(crate) fn extension(path: &Path) -> &str {
    path.extension().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The error for a path whose extension is none of `known`.
pub(crate) fn unknown_extension(path: &Path, known: &[&str]) -> FileError {
    FileError::Extension {
        path: path.into(),
        found: extension(path).into(),
        wanted: known.join(", "),
    }
}
