//! A file of an index, written once more into the directory of another.

use std::ops::ControlFlow;
use std::path::Path;

use super::array_file::CHUNK;
use super::error::{OpenError, WriteError};
use super::listed_file::{FileWriter, ListedFile};
use super::manifest::{FileEntry, Manifest, known_files};
use super::storage::Storage;

/// Why a file was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The original is damaged or cannot be read, or the caller cancelled.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Copies the file `name` of the index in `from` into the directory `to` and compares its digest on
/// the way; `tell` hears how many bytes each chunk had. Returns once the copy is on the device.
///
/// # Errors
/// The file is damaged; a read or the disk refuses; `tell` broke off.
///
/// # Panics
/// If `name` is not one of the names that files of an index have.
pub fn copy_file(
    (from, manifest): (&Path, &Manifest),
    name: &str,
    (storage, to): (&dyn Storage, &Path),
    tell: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<FileEntry, CopyError> {
    let listed = ListedFile::open(from, manifest, name)?;
    let name = known_files().into_iter().find(|known| *known == name).expect("a known name");
    let mut copy = FileWriter::create(storage, to, name)?;
    let mut offset = 0;
    while offset < listed.length {
        let length = (listed.length - offset).min(CHUNK as u64);
        copy.buffer.resize(length as usize, 0);
        listed.read_at(&mut copy.buffer, offset)?;
        copy.flush()?;
        offset += length;
        if tell(length).is_break() {
            return Err(OpenError::Interrupted.into());
        }
    }
    let entry = copy.finish()?;
    listed.check_hex(&entry.xxh3)?;
    Ok(entry)
}
