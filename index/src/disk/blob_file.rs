//! Small files read whole and verified by their digest: `meta.rkyv`, a header and an archive.

use std::path::Path;

use rkyv::util::AlignedVec;

use super::array_header::{ArrayHeader, ArrayShape, Content, HEADER, Wanted};
use super::error::{OpenError, WriteError};
use super::listed_file::{FileWriter, ListedFile};
use super::manifest::{FileEntry, Manifest};
use super::storage::Storage;

/// The blob every index has: quantizer, entry points, frontier, and how hidden states are
/// transformed: two bytes for each pair of dimensions.
pub const META: &str = "meta.rkyv";

/// The largest blob, in bytes: that of an output layer of more than 20,000 dimensions.
pub const MAX_BLOB: u64 = 1 << 30;

const CONTENT: Content = Content { tag: *b"meta", version: 8 };

/// Writes `archive` as `meta.rkyv` in `dir`; returns once it is on the device.
///
/// # Errors
/// More than [`MAX_BLOB`] bytes; the disk refuses.
pub fn write_meta(
    storage: &dyn Storage,
    dir: &Path,
    archive: &[u8],
) -> Result<FileEntry, WriteError> {
    let bytes = archive.len() as u64;
    if bytes > MAX_BLOB {
        let what = format!("{bytes} bytes; wanted at most {MAX_BLOB}");
        return Err(WriteError::Limit { path: dir.join(META), what });
    }
    let mut file = FileWriter::create(storage, dir, META)?;
    let shape = ArrayShape { rows: 1, stride: 0, data_bytes: bytes, first: 0 };
    let header = ArrayHeader { content: CONTENT, data_offset: HEADER as u32, shape };
    file.buffer.extend_from_slice(&header.to_bytes());
    file.buffer.extend_from_slice(archive);
    file.finish()
}

/// The content of a blob, in memory aligned for rkyv.
#[derive(Debug)]
pub struct Blob(AlignedVec);

impl Blob {
    /// The archive.
    pub fn archive(&self) -> &[u8] {
        &self.0[HEADER..]
    }
}

/// Reads the archive of a `meta.rkyv` without header, as format version 7 has it.
///
/// # Errors
/// Length or digest differ from the manifest's; a read is refused.
pub fn read_bare_meta(dir: &Path, manifest: &Manifest) -> Result<Vec<u8>, OpenError> {
    let listed = open_meta(dir, manifest, MAX_BLOB)?;
    let mut archive = vec![0; listed.length as usize];
    listed.read_whole(&mut archive)?;
    Ok(archive)
}

/// Opens `meta.rkyv` of `dir`, which has at most `longest` bytes.
fn open_meta(dir: &Path, manifest: &Manifest, longest: u64) -> Result<ListedFile, OpenError> {
    let listed = ListedFile::open(dir, manifest, META)?;
    if listed.length > longest {
        let what = format!("file has {} bytes; wanted at most {longest}", listed.length);
        return Err(OpenError::damaged(&listed.path, longest, what));
    }
    Ok(listed)
}

/// Reads `meta.rkyv` of `dir` whole.
///
/// # Errors
/// Length, digest or header differ from what they must be; a read is refused.
pub fn read_meta(dir: &Path, manifest: &Manifest) -> Result<Blob, OpenError> {
    let listed = open_meta(dir, manifest, MAX_BLOB + HEADER as u64)?;
    listed.header(Wanted { content: CONTENT, data_offset: HEADER, rows: 1 })?;
    let mut bytes = AlignedVec::new();
    bytes.resize(listed.length as usize, 0);
    listed.read_whole(&mut bytes)?;
    Ok(Blob(bytes))
}
