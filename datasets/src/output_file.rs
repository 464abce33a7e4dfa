//! A new file that is all there or not there: written aside, then given its name.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::Access;

use crate::error::FileError;

const BUFFER_BYTES: usize = 1 << 20;

/// Whether a new file or directory can be made at `path`, as far as that shows without making it:
/// for callers that work long before they write.
///
/// # Errors
/// The name is taken; there is no directory to hold it, or one that may not be written to.
pub fn check_new(path: &Path) -> Result<(), FileError> {
    // A dangling link exists as well: `symlink_metadata` does not follow it.
    if fs::symlink_metadata(path).is_ok() {
        return Err(FileError::Exists { path: path.into() });
    }
    let cannot_create = |source| FileError::Create { path: path.into(), source };
    if path.file_name().is_none() {
        return Err(cannot_create(io::ErrorKind::InvalidFilename.into()));
    }
    let folder = folder_of(path);
    match fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(cannot_create(io::ErrorKind::NotADirectory.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FileError::NoFolder { folder: folder.into() });
        }
        Err(error) => return Err(cannot_create(error)),
    }
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| cannot_create(errno.into()))
}

/// The directory that holds `path`.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// A file that is being written as a hidden sibling of its later name.
///
/// `publish` gives it the name; dropped before, it is removed.
#[derive(Debug)]
pub(crate) struct OutputFile {
    path: PathBuf,
    hidden: PathBuf,
    file: BufWriter<File>,
}

impl OutputFile {
    /// Makes the hidden sibling. A name that is taken is refused here, and again by `publish`.
    pub(crate) fn create(path: &Path) -> Result<OutputFile, FileError> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(FileError::Exists { path: path.into() });
        }
        let cannot_create = |source| FileError::Create { path: path.into(), source };
        let Some(name) = path.file_name() else {
            return Err(cannot_create(io::Error::from(io::ErrorKind::InvalidFilename)));
        };
        // A file left behind by a killed process, or another writer in this one, takes a number.
        for attempt in 0u32.. {
            let mut hidden_name = OsString::from(".");
            hidden_name.push(name);
            hidden_name.push(format!(".writing-{}-{attempt}", process::id()));
            let hidden = path.with_file_name(hidden_name);
            match File::create_new(&hidden) {
                Ok(file) => {
                    let file = BufWriter::with_capacity(BUFFER_BYTES, file);
                    return Ok(OutputFile { path: path.into(), hidden, file });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cannot_create(error)),
            }
        }
        Err(cannot_create(io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    /// The later name.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(|source| cannot_write(&self.path, source))
    }

    /// Replaces the first bytes, which must have been written, and publishes.
    pub(crate) fn publish_with_head(mut self, head: &[u8]) -> Result<(), FileError> {
        let flushed = self.file.flush().and_then(|()| self.file.get_ref().write_all_at(head, 0));
        flushed.map_err(|source| cannot_write(&self.path, source))?;
        self.publish()
    }

    /// Syncs the file, gives it its name unless that is taken, and syncs the directory.
    pub(crate) fn publish(mut self) -> Result<(), FileError> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(|source| cannot_write(&self.path, source))?;
        // Opened first: what fails later must leave nothing.
        let folder = File::open(folder_of(&self.path));
        let folder = folder.map_err(|source| cannot_write(&self.path, source))?;
        // A second name for the file, unlike a rename, never replaces what has it; dropping `self`
        // takes the first name away.
        fs::hard_link(&self.hidden, &self.path).map_err(|source| {
            let path = self.path.clone();
            match source.kind() {
                io::ErrorKind::AlreadyExists => FileError::Exists { path },
                _ => FileError::Create { path, source },
            }
        })?;
        folder.sync_all().map_err(|source| {
            // Not known to last: taken back, so that an error means "not there".
            let _ = fs::remove_file(&self.path);
            cannot_write(&self.path, source)
        })
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        // Nothing can be done about a failure; the name says that the file is unfinished.
        let _ = fs::remove_file(&self.hidden);
    }
}

fn cannot_write(path: &Path, source: io::Error) -> FileError {
    FileError::Write { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_cannot_be_made_is_told_without_making_anything() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        check_new(&at("new")).unwrap();
        fs::write(at("taken"), "").unwrap();
        symlink("nowhere", at("link")).unwrap();
        let wrong = [
            ("taken", "exists already"),
            ("link", "exists already"),
            ("no/such/new", "no such directory"),
            ("taken/new", "not a directory"),
            ("..", "exists already"),
        ];
        for (name, wanted) in wrong {
            let error = check_new(&at(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::CannotCreate, "{name}");
            assert!(error.to_string().contains(wanted), "{name}: {error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(check_new(Path::new("new-beside-the-tests")).is_ok());
    }
}
