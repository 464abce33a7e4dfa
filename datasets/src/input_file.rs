//! A regular file that is read at chosen places, and whose length is known.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::error::FileError;
use crate::regular_file::{self, NotOpened};

/// An open file and its length; every read names the file when it fails.
#[derive(Debug)]
pub(crate) struct InputFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl InputFile {
    /// Opens a regular file; anything else is refused.
    pub(crate) fn open(path: &Path) -> Result<InputFile, FileError> {
        let opened = regular_file::open(path, OFlags::empty());
        let file = opened.map_err(|refused| match refused {
            NotOpened::NotRegular(found) => FileError::NotAFile { path: path.into(), found },
            NotOpened::Refused(source) => cannot_open(path, source),
        })?;
        let len = file.metadata().map_err(|source| cannot_open(path, source))?.len();
        Ok(InputFile { path: path.into(), file, len })
    }

    /// The open file, for a library that reads it.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The length in bytes when the file was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `bytes` from `offset` on; any thread may do so at any time.
    pub(crate) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FileError> {
        self.file.read_exact_at(bytes, offset).map_err(|source| {
            let path = self.path.clone();
            if source.kind() == io::ErrorKind::UnexpectedEof {
                FileError::Shrunk { path, offset, wanted: bytes.len() }
            } else {
                FileError::Read { path, source }
            }
        })
    }

    /// The first `N` bytes of a file that must have as many.
    pub(crate) fn head<const N: usize>(&self) -> Result<[u8; N], FileError> {
        if self.len < N as u64 {
            return Err(FileError::Field {
                path: self.path.clone(),
                offset: 0,
                found: format!("a file of {} bytes", self.len),
                wanted: format!("a header of {N} bytes"),
            });
        }
        let mut bytes = [0; N];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Refuses a file whose length is not `wanted`; `None` is a length beyond 64 bits.
    pub(crate) fn check_len(&self, wanted: Option<u64>, shape: String) -> Result<(), FileError> {
        let path = self.path.clone();
        match wanted.filter(|bytes| i64::try_from(*bytes).is_ok()) {
            None => Err(FileError::Overflow { path, shape }),
            Some(wanted) if wanted != self.len => {
                Err(FileError::Length { path, found: self.len, wanted, shape })
            }
            Some(_) => Ok(()),
        }
    }
}

fn cannot_open(path: &Path, source: io::Error) -> FileError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::NotFound { path },
        _ => FileError::Read { path, source },
    }
}
