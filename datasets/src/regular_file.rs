//! Opening a file that must be a regular one, without ever waiting for it.

use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_setfl};

/// Why a file was not opened.
#[derive(Debug)]
pub enum NotOpened {
    /// The name belongs to something else, such as "a pipe".
    NotRegular(&'static str),
    /// The operating system refused.
    Refused(io::Error),
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> NotOpened {
        NotOpened::Refused(error)
    }
}

/// Opens the regular file `path` for reading, with `flags` beside.
///
/// Anything else is refused before it is opened: opening a device may change it, and opening a pipe
/// waits for its other end. A pipe that takes the place of a file meanwhile is not waited for.
///
/// # Errors
/// The name belongs to no regular file; the operating system refuses.
pub fn open(path: &Path, flags: OFlags) -> Result<File, NotOpened> {
    check(fs::metadata(path)?.file_type())?;
    let waiting_not = (flags | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(waiting_not).open(path)?;
    check(file.metadata()?.file_type())?;
    // io_uring would give up a read of such a file where it has to wait for the device.
    fcntl_setfl(&file, flags).map_err(io::Error::from)?;
    Ok(file)
}

fn check(kind: FileType) -> Result<(), NotOpened> {
    if kind.is_file() {
        return Ok(());
    }
    Err(NotOpened::NotRegular(match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        let refused = |path: &Path| match open(path, OFlags::empty()) {
            Err(NotOpened::NotRegular(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&path), "a pipe");
        assert_eq!(refused(dir.path()), "a directory");
        assert_eq!(refused(Path::new("/dev/null")), "a device");
        let gone = open(&dir.path().join("gone"), OFlags::empty()).unwrap_err();
        assert!(matches!(gone, NotOpened::Refused(e) if e.kind() == io::ErrorKind::NotFound));
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        let file = open(&path, OFlags::empty()).unwrap();
        assert!(!rustix::fs::fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
        assert_eq!(io::read_to_string(file).unwrap(), "abc");
    }
}
