//! The calls by which a build changes the disk: few, so that tests can make each one fail.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// What a build asks of the disk. [`Disk`] does it; tests refuse the n-th call.
pub trait Storage: Sync {
    /// Creates a directory that is not there yet.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a file that is not there yet, to be written.
    fn create_file(&self, path: &Path) -> io::Result<File>;
    /// Appends all of `bytes`.
    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Returns once the file's bytes are on the device.
    fn sync_file(&self, file: &File) -> io::Result<()>;
    /// Returns once the directory's entries are on the device.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a directory; an entry called `to` is an error of kind `AlreadyExists`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exchanges the names of two directories in one step.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file, or a directory with all it holds.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The file system.
pub struct Disk;

impl Storage for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<File> {
        File::create_new(path)
    }

    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Some network file systems lack the flag. A plain rename of a directory still never
            // replaces anything but an empty directory.
            Err(Errno::INVAL | Errno::NOSYS) if fs::symlink_metadata(to).is_err() => {
                fs::rename(from, to)
            }
            done => Ok(done?),
        }
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            return fs::remove_dir_all(path);
        }
        fs::remove_file(path)
    }
}

/// A disk whose n-th call fails.
#[cfg(test)]
pub(crate) struct Faulty {
    fails_at: u32,
    /// Every later call that needs space fails as well: all but renaming and removing.
    stays_full: bool,
    calls: std::sync::atomic::AtomicU32,
}

#[cfg(test)]
impl Faulty {
    /// Call `fails_at` (from 0) fails with EIO, all others pass.
    pub(crate) fn once(fails_at: u32) -> Faulty {
        Faulty { fails_at, stays_full: false, calls: 0.into() }
    }

    /// From call `fails_at` (from 0) on there is no space left.
    pub(crate) fn full(fails_at: u32) -> Faulty {
        Faulty { fails_at, stays_full: true, calls: 0.into() }
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn call(&self) -> io::Result<()> {
        let call = self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match self.stays_full {
            true if call >= self.fails_at => Err(Errno::NOSPC.into()),
            false if call == self.fails_at => Err(Errno::IO.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
impl Storage for Faulty {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        Disk.create_dir(path)
    }

    fn create_file(&self, path: &Path) -> io::Result<File> {
        self.call()?;
        Disk.create_file(path)
    }

    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        if let Err(refused) = self.call() {
            // A refused write may have written a part.
            Disk.write_all(file, &bytes[..bytes.len() / 2])?;
            return Err(refused);
        }
        Disk.write_all(file, bytes)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.call()?;
        Disk.sync_file(file)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.call()?;
        Disk.sync_dir(path)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.stays_full {
            self.call()?;
        }
        Disk.rename_new(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        if !self.stays_full {
            self.call()?;
        }
        Disk.exchange(one, other)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.stays_full {
            self.call()?;
        }
        Disk.remove(path)
    }
}
