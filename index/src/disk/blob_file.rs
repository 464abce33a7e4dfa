//! Small files read whole and verified by their digest: `meta.rkyv`.

use std::path::Path;

use rkyv::util::AlignedVec;

use super::error::{OpenError, WriteError};
use super::listed_file::{FileWriter, ListedFile};
use super::manifest::{FileEntry, Manifest};
use super::storage::Storage;

/// The blob every index has: quantizer, entry points, frontier, and how hidden states are turned:
/// two bytes for each pair of dimensions.
pub const META: &str = "meta.rkyv";

/// The largest blob, in bytes: that of an output layer of more than 20,000 dimensions.
pub const MAX_BLOB: u64 = 1 << 30;

/// Writes `bytes` as `meta.rkyv` in `dir`; returns once they are on the device.
///
/// # Errors
/// More than [`MAX_BLOB`] bytes; the disk refuses.
pub fn write_meta(
    storage: &dyn Storage,
    dir: &Path,
    bytes: &[u8],
) -> Result<FileEntry, WriteError> {
    if bytes.len() as u64 > MAX_BLOB {
        let what = format!("{} bytes; wanted at most {MAX_BLOB}", bytes.len());
        return Err(WriteError::Limit { path: dir.join(META), what });
    }
    let mut file = FileWriter::create(storage, dir, META)?;
    file.buffer.extend_from_slice(bytes);
    file.finish()
}

/// Reads `meta.rkyv` of `dir` whole, into memory aligned for rkyv.
///
/// # Errors
/// Length or digest differ from the manifest's; a read is refused.
pub fn read_meta(dir: &Path, manifest: &Manifest) -> Result<AlignedVec, OpenError> {
    let listed = ListedFile::open(dir, manifest, META)?;
    if listed.length > MAX_BLOB {
        let what = format!("file has {} bytes; wanted at most {MAX_BLOB}", listed.length);
        return Err(OpenError::damaged(&listed.path, MAX_BLOB, what));
    }
    let mut bytes = AlignedVec::new();
    bytes.resize(listed.length as usize, 0);
    listed.read_whole(&mut bytes)?;
    Ok(bytes)
}
