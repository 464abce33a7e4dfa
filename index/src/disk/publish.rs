//! Nothing or all of it: an index is built aside and appears under its name in one step.
//!
//! A build works in `.NAME.building` beside its output `NAME` and holds an exclusive lock on that
//! directory. Publishing syncs, then renames. Whatever ends a build earlier removes the directory;
//! a killed one leaves it, without a lock, and the next build into the same output empties it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::error::PublishError;
use super::storage::Storage;

/// A directory on its way to becoming an index. Dropped without [`commit`](Publication::commit),
/// it removes all that was written.
pub struct Publication<'a> {
    storage: &'a dyn Storage,
    out: PathBuf,
    parent: PathBuf,
    building: PathBuf,
    /// Keeps other builds out for as long as it is open.
    lock: File,
    /// A descriptor to remove files with, should there be no other by then.
    spare: Option<File>,
    /// The index `out` whose place the directory takes, if there is one.
    replaced: Option<File>,
    done: bool,
}

impl<'a> Publication<'a> {
    /// Makes and locks the empty directory in which the index `out` is to be built.
    ///
    /// # Errors
    /// `out` exists, or its parent does not; another build into `out` is running; the disk refuses.
    pub fn begin(storage: &'a dyn Storage, out: &Path) -> Result<Publication<'a>, PublishError> {
        Publication::prepare(storage, out, None)
    }

    /// As [`begin`](Publication::begin), for a directory that takes the place of the index `out`.
    ///
    /// # Errors
    /// A build into `out` is running; the disk refuses.
    pub fn begin_replacing(
        storage: &'a dyn Storage,
        out: &Path,
    ) -> Result<Publication<'a>, PublishError> {
        let replaced = File::open(out).map_err(PublishError::io(out, "open"))?;
        Publication::prepare(storage, out, Some(replaced))
    }

    /// Removes what a replacement of `out` that was killed left beside it.
    pub fn clear_after_replacing(storage: &'a dyn Storage, out: &Path) {
        let building = out.file_name().map(|name| building_dir(out, name));
        if building.is_some_and(|building| building.exists()) {
            // Whoever works in it holds its lock: then it stays.
            drop(Publication::begin_replacing(storage, out));
        }
    }

    fn prepare(
        storage: &'a dyn Storage,
        out: &Path,
        replaced: Option<File>,
    ) -> Result<Publication<'a>, PublishError> {
        let Some(name) = out.file_name() else {
            return Err(PublishError::NoName { path: out.into() });
        };
        let parent = parent_of(out);
        if replaced.is_none() {
            refuse_existing(out)?;
        }
        if !parent.is_dir() {
            return Err(PublishError::NoParent { path: parent });
        }
        let building = building_dir(out, name);
        let spare = File::open(&parent).map_err(PublishError::io(&parent, "open"))?;
        let lock = lock_dir(storage, &building, out)?;
        let (out, spare) = (out.to_path_buf(), Some(spare));
        let done = false;
        let publication =
            Publication { storage, out, parent, building, lock, spare, replaced, done };
        if publication.replaced.is_none() {
            // Again, now that no other build can publish: one may have done so in between.
            refuse_existing(&publication.out)?;
        }
        publication.empty()?;
        Ok(publication)
    }

    /// Where the files of the index go.
    pub fn dir(&self) -> &Path {
        &self.building
    }

    /// Makes the directory appear as `out`, and what it replaces disappear; returns once that is on
    /// the device. The files in it were synced by those who wrote them.
    ///
    /// # Errors
    /// `out` appeared or was replaced meanwhile, or the disk refuses. Nothing stays behind then.
    pub fn commit(mut self) -> Result<(), PublishError> {
        let building = &self.building.clone();
        self.storage.sync_dir(building).map_err(PublishError::io(building, "sync"))?;
        match self.rename(building, &self.out) {
            Err(e) if self.replaced.is_none() && e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(PublishError::Exists { path: self.out.clone() });
            }
            renamed => renamed.map_err(PublishError::io(building, "rename"))?,
        }
        let is_another = |replaced: &File| !holds(replaced, building);
        if self.replaced.as_ref().is_some_and(is_another) {
            // What came meanwhile gets its name back.
            self.take_back();
            return Err(PublishError::Replaced { path: self.out.clone() });
        }
        if let Err(refused) = self.storage.sync_dir(&self.parent) {
            // Not known to last: taken back, so that the caller's error means "not there".
            self.take_back();
            return Err(PublishError::io(&self.parent, "sync")(refused));
        }
        self.done = true;
        if self.replaced.is_some() {
            // What it replaced. The next upgrade of `out` removes what cannot be removed now.
            let _ = self.storage.remove(&self.building);
        }
        Ok(())
    }

    /// Undoes the rename. What may still be `out` after a loss of power is not removed.
    fn take_back(&mut self) {
        let taken_back = self.rename(&self.out, &self.building).is_ok();
        let lasts = self.replaced.is_none() || self.storage.sync_dir(&self.parent).is_ok();
        self.done = !(taken_back && lasts);
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.replaced {
            Some(_) => self.storage.exchange(from, to),
            None => self.storage.rename_new(from, to),
        }
    }

    fn empty(&self) -> Result<(), PublishError> {
        let dir = &self.building;
        for path in self.storage.list(dir).map_err(PublishError::io(dir, "list"))? {
            self.storage.remove(&path).map_err(PublishError::io(&path, "remove"))?;
        }
        Ok(())
    }
}

impl Drop for Publication<'_> {
    fn drop(&mut self) {
        self.spare = None;
        if !self.done && holds(&self.lock, &self.building) {
            // The error that led here is the one to report; the next build removes the rest.
            let _ = self.storage.remove(&self.building);
        }
    }
}

fn parent_of(out: &Path) -> PathBuf {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Where the index `out`, whose last part is `name`, is built.
fn building_dir(out: &Path, name: &OsStr) -> PathBuf {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".building");
    parent_of(out).join(hidden)
}

fn refuse_existing(out: &Path) -> Result<(), PublishError> {
    match fs::symlink_metadata(out) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(PublishError::Exists { path: out.into() }),
        Err(e) => Err(PublishError::io(out, "stat")(e)),
    }
}

/// Makes `dir` if need be and locks it.
fn lock_dir(storage: &dyn Storage, dir: &Path, out: &Path) -> Result<File, PublishError> {
    loop {
        let made = match storage.create_dir(dir) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) => return Err(PublishError::io(dir, "create")(e)),
        };
        let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits();
        let lock = match OpenOptions::new().read(true).custom_flags(flags as i32).open(dir) {
            // Its build ended since the line above.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                if made {
                    // Empty, and nobody else's: a build that found it here would hold it open.
                    let _ = fs::remove_dir(dir);
                }
                return Err(PublishError::io(dir, "open")(e));
            }
            Ok(lock) => lock,
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(PublishError::Busy { path: out.into() }),
            locked => locked.map_err(|e| PublishError::io(dir, "lock")(e.into()))?,
        }
        // The owner before us may have published or removed it between our open and our lock: then
        // this lock is on a directory that has another name or none.
        if holds(&lock, dir) {
            return Ok(lock);
        }
    }
}

/// Whether `path` still names the directory that `lock` has open.
fn holds(lock: &File, path: &Path) -> bool {
    let (Ok(locked), Ok(named)) = (lock.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (locked.dev(), locked.ino()) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::storage::Faulty;
    use crate::disk::{Disk, Manifest, sample};

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// A whole build: `None` once published, else the error.
    fn build(storage: &dyn Storage, out: &Path) -> Option<String> {
        let publication = match Publication::begin(storage, out) {
            Ok(publication) => publication,
            Err(error) => return Some(error.to_string()),
        };
        if let Err(error) = sample::write(storage, publication.dir()) {
            return Some(error.to_string());
        }
        publication.commit().err().map(|error| error.to_string())
    }

    #[test]
    fn appears_whole() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("index");
        assert_eq!(build(&Disk, &out), None);
        assert_eq!(names(dir.path()), ["index"]);
        Manifest::read(&out).unwrap();
    }

    #[test]
    fn dropped_it_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("index");
        let publication = Publication::begin(&Disk, &out).unwrap();
        sample::write(&Disk, publication.dir()).unwrap();
        drop(publication);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn any_failing_call_leaves_nothing() {
        for make in [Faulty::once, Faulty::full] {
            for call in 0.. {
                let dir = tempfile::tempdir().unwrap();
                let storage = make(call);
                let error = build(&storage, &dir.path().join("index"));
                if storage.calls() <= call {
                    assert_eq!(error, None);
                    assert!(call > 20, "only {call} calls");
                    break;
                }
                assert!(error.is_some(), "call {call}");
                assert!(names(dir.path()).is_empty(), "call {call}: {:?}", names(dir.path()));
            }
        }
    }

    #[test]
    fn a_second_build_meets_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("index");
        let first = Publication::begin(&Disk, &out).unwrap();
        let error = build(&Disk, &out).unwrap();
        assert!(error.contains("another build into") && error.contains("is running"), "{error}");
        sample::write(&Disk, first.dir()).unwrap();
        first.commit().unwrap();
        let error = build(&Disk, &out).unwrap();
        assert!(error.contains("exists already"), "{error}");
    }

    #[test]
    fn of_many_builds_at_once_one_publishes() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("index");
        let published = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        if build(&Disk, &out).is_none() {
                            published.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(published.into_inner(), 1);
        assert_eq!(names(dir.path()), ["index"]);
        Manifest::read(&out).unwrap();
    }

    #[test]
    fn a_killed_build_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let stale = dir.path().join(".index.building");
        fs::create_dir_all(stale.join("nested")).unwrap();
        fs::write(stale.join("codes.bin"), "half").unwrap();
        assert_eq!(build(&Disk, &dir.path().join("index")), None);
        assert_eq!(names(dir.path()), ["index"]);
        assert!(!dir.path().join("index/nested").exists());
    }

    #[test]
    fn an_output_that_appears_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("index");
        let publication = Publication::begin(&Disk, &out).unwrap();
        fs::create_dir(&out).unwrap();
        let error = publication.commit().unwrap_err();
        assert!(matches!(error, PublishError::Exists { .. }), "{error}");
        assert_eq!(names(dir.path()), ["index"]);
        assert!(names(&out).is_empty());
    }

    #[test]
    fn outputs_that_cannot_be_made_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |out: &Path| Publication::begin(&Disk, out).err().unwrap();
        let missing = begin(&dir.path().join("a/b"));
        assert!(matches!(missing, PublishError::NoParent { .. }), "{missing}");
        assert!(matches!(begin(&dir.path().join("..")), PublishError::NoName { .. }));
        fs::write(dir.path().join("file"), "").unwrap();
        let exists = begin(&dir.path().join("file"));
        assert!(matches!(exists, PublishError::Exists { .. }), "{exists}");
        let dangling = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
        assert!(matches!(begin(&dangling), PublishError::Exists { .. }));
    }
}
