//! A file that the manifest lists: written with its digest, opened against its length.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foveal_datasets::regular_file::{self, NotOpened};
use rustix::fs::OFlags;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::array_header::{ArrayHeader, HEADER, Wanted};
use super::error::{OpenError, WriteError};
use super::manifest::{FileEntry, Manifest, hex};
use super::storage::Storage;

/// A file being written, with the digest of what was written so far.
pub(super) struct FileWriter<'a> {
    pub(super) storage: &'a dyn Storage,
    name: &'static str,
    path: PathBuf,
    file: File,
    bytes: u64,
    digest: Box<Xxh3>,
    pub(super) buffer: Vec<u8>,
}

impl<'a> FileWriter<'a> {
    pub(super) fn create(
        storage: &'a dyn Storage,
        dir: &Path,
        name: &'static str,
    ) -> Result<FileWriter<'a>, WriteError> {
        let path = dir.join(name);
        let file = storage.create_file(&path).map_err(WriteError::io(&path, "create"))?;
        let digest = Box::new(Xxh3::new());
        Ok(FileWriter { storage, name, path, file, bytes: 0, digest, buffer: Vec::new() })
    }

    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        self.digest.update(&self.buffer);
        self.bytes += self.buffer.len() as u64;
        self.storage
            .write_all(&mut self.file, &self.buffer)
            .map_err(WriteError::io(&self.path, "write"))?;
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<FileEntry, WriteError> {
        self.flush()?;
        self.storage.sync_file(&self.file).map_err(WriteError::io(&self.path, "sync"))?;
        let xxh3 = hex(self.digest.digest128());
        Ok(FileEntry { name: self.name.into(), bytes: self.bytes, xxh3 })
    }
}

/// Opens a file of an index with `flags`; `None` if it is not there.
pub(crate) fn open_regular(path: &Path, flags: OFlags) -> Result<Option<File>, OpenError> {
    match regular_file::open(path, flags) {
        Ok(file) => Ok(Some(file)),
        Err(NotOpened::NotRegular(what)) => {
            Err(OpenError::damaged(path, 0, format!("is {what}; wanted a regular file")))
        }
        Err(NotOpened::Refused(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(NotOpened::Refused(error)) => Err(OpenError::io(path, "open")(error)),
    }
}

/// A file of the index, its length already found to be what the manifest says.
#[derive(Debug)]
pub(super) struct ListedFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) length: u64,
    xxh3: String,
}

impl ListedFile {
    pub(super) fn open(dir: &Path, manifest: &Manifest, name: &str) -> Result<Self, OpenError> {
        let path = dir.join(name);
        let Some(entry) = manifest.files.iter().find(|entry| entry.name == name) else {
            return Err(OpenError::damaged(&path, 0, "not listed in manifest.json"));
        };
        let Some(file) = open_regular(&path, OFlags::empty())? else {
            return Err(OpenError::Missing { path });
        };
        let metadata = file.metadata().map_err(OpenError::io(&path, "stat"))?;
        let (length, wanted) = (metadata.len(), entry.bytes);
        if length != wanted {
            let what = format!("file has {length} bytes; wanted {wanted}");
            return Err(OpenError::damaged(&path, length.min(wanted), what));
        }
        Ok(ListedFile { path, file, length, xxh3: entry.xxh3.clone() })
    }

    pub(super) fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<(), OpenError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                let what = format!("file ends before byte {}", offset + bytes.len() as u64);
                OpenError::damaged(&self.path, offset, what)
            }
            _ => OpenError::io(&self.path, "read")(error),
        })
    }

    /// Reads the whole file, which must match its digest. `into` is as long as the file.
    pub(super) fn read_whole(&self, into: &mut [u8]) -> Result<(), OpenError> {
        self.read_at(into, 0)?;
        self.check_digest(xxh3_128(into))
    }

    /// Whether `digest` is that of the bytes written.
    pub(super) fn check_digest(&self, digest: u128) -> Result<(), OpenError> {
        self.check_hex(&hex(digest))
    }

    /// As [`check_digest`](ListedFile::check_digest), of the digits of a digest.
    pub(super) fn check_hex(&self, found: &str) -> Result<(), OpenError> {
        let wanted = &self.xxh3;
        if found != *wanted {
            let what = format!("xxh3 of the file is {found}; wanted {wanted}");
            return Err(OpenError::damaged(&self.path, 0, what));
        }
        Ok(())
    }

    pub(super) fn header(&self, wanted: Wanted) -> Result<ArrayHeader, OpenError> {
        if self.length < HEADER as u64 {
            let what = format!("file has {} bytes; wanted a header of {HEADER}", self.length);
            return Err(OpenError::damaged(&self.path, self.length, what));
        }
        let mut bytes = [0; HEADER];
        self.read_at(&mut bytes, 0)?;
        ArrayHeader::from_bytes(&self.path, &bytes, wanted, self.length)
    }
}
