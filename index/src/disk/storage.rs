//! The calls by which the engine changes the disk: few, so that tests can make each one fail, and
//! can lose the power after each.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// What the engine does to the disk. [`Disk`] does it; tests refuse the n-th call, or record all.
pub trait Storage: Sync {
    /// Creates a directory that is not there yet.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a file that is not there yet, to be written.
    fn create_file(&self, path: &Path) -> io::Result<File>;
    /// Opens a file that is there, to append to it.
    fn open_to_append(&self, path: &Path) -> io::Result<File>;
    /// Appends all of `bytes`.
    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file, opened to append to it, to `length` bytes.
    fn truncate(&self, file: &File, length: u64) -> io::Result<()>;
    /// Returns once the file's bytes are on the device.
    fn sync_file(&self, file: &File) -> io::Result<()>;
    /// Returns once the directory's entries are on the device.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Renames a directory; an entry called `to` is an error of kind `AlreadyExists`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames a file in one step; it takes the place of a file called `to`.
    fn replace(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Exchanges the names of two directories in one step.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Removes a file, or a directory with all it holds.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// What a directory holds, in the order of names.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;
    /// All bytes of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
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

    fn open_to_append(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).open(path)
    }

    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
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

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
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

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(dir)?.map(|entry| Ok(entry?.path()));
        let mut paths = entries.collect::<io::Result<Vec<PathBuf>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
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

    /// Whether there is no space left from some call on.
    pub(crate) fn is_full(&self) -> bool {
        self.stays_full
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

    fn open_to_append(&self, path: &Path) -> io::Result<File> {
        self.call()?;
        Disk.open_to_append(path)
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.call()?;
        Disk.truncate(file, length)
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

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.stays_full {
            self.call()?;
        }
        Disk.replace(from, to)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        self.call()?;
        Disk.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.call()?;
        Disk.read(path)
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
