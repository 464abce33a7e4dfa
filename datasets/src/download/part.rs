//! The part of a file that is here, and what it is a part of.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::FileError;

/// What tells one file of a server from the next one under the same address.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Of {
    /// What the server calls this very file: a strong ETag, else a date; empty if it says neither.
    pub(super) validator: String,
    /// Bytes of what is wanted of it, if known.
    pub(super) total: Option<u64>,
}

impl Of {
    /// The text of `NAME.part.of`: bytes, then the validator.
    fn text(&self) -> String {
        let total = self.total.map_or("?".into(), |total| total.to_string());
        format!("{total}\n{}\n", self.validator)
    }

    fn parse(text: &str) -> Option<Of> {
        let mut lines = text.lines();
        let total = lines.next()?.parse().ok();
        Some(Of { validator: lines.next()?.into(), total })
    }
}

/// `NAME.part`, locked by this process.
#[derive(Debug)]
pub(super) struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    of: Option<Of>,
}

impl Part {
    /// Opens or makes the part of `to`.
    pub(super) fn open(to: &Path) -> Result<Part, FileError> {
        let path = with_suffix(to, ".part");
        let cannot_create = |source| FileError::Create { path: path.clone(), source };
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(cannot_create)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                cannot_create(io::Error::other("another process is fetching it"))
            }
            TryLockError::Error(source) => cannot_create(source),
        })?;
        let len = file.metadata().map_err(cannot_create)?.len();
        // Without its description nobody knows what the bytes are.
        let of = fs::read_to_string(with_suffix(&path, ".of")).ok();
        let of = of.and_then(|text| Of::parse(&text)).filter(|_| len > 0);
        Ok(Part { path, file, len, of })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What the bytes are a part of, if they can be gone on with.
    pub(super) fn of(&self) -> Option<&Of> {
        self.of.as_ref().filter(|of| of.total.is_none_or(|total| self.len <= total))
    }

    /// Whether nothing is missing, only the last steps.
    pub(super) fn is_whole(&self) -> bool {
        self.of.as_ref().is_some_and(|of| of.total == Some(self.len))
    }

    /// Forgets the bytes: what comes now is a part of `of`.
    pub(super) fn restart(&mut self, of: &Of) -> Result<(), FileError> {
        if self.len > 0 {
            self.file.set_len(0).map_err(|source| self.cannot_write(source))?;
            self.len = 0;
        }
        self.describe(of)
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = self.file.write_all_at(bytes, self.len);
        written.map_err(|source| self.cannot_write(source))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Notes that nothing is missing.
    pub(super) fn now_whole(&mut self, of: &Of) -> Result<(), FileError> {
        self.describe(of)
    }

    fn describe(&mut self, of: &Of) -> Result<(), FileError> {
        let written = fs::write(with_suffix(&self.path, ".of"), of.text());
        written.map_err(|source| self.cannot_write(source))?;
        self.of = Some(of.clone());
        Ok(())
    }

    /// Syncs the file and gives it its name, unless that is taken.
    pub(super) fn publish(self, to: &Path) -> Result<(), FileError> {
        self.file.sync_all().map_err(|source| self.cannot_write(source))?;
        // A second name, unlike a rename, never replaces what has it.
        fs::hard_link(&self.path, to).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => FileError::Exists { path: to.into() },
            _ => FileError::Create { path: to.into(), source },
        })?;
        self.remove()?;
        let folder = match to.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| FileError::Write { path: to.into(), source })
    }

    /// Removes the part and its description.
    pub(super) fn remove(&self) -> Result<(), FileError> {
        // Without the description the part counts for nothing: it goes first.
        for path in [with_suffix(&self.path, ".of"), self.path.clone()] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::Write { path, source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn cannot_write(&self, source: io::Error) -> FileError {
        FileError::Write { path: self.path.clone(), source }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
