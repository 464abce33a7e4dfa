//! A disk that can lose its power: what may be left of what was written, for tests.
//!
//! Calls are made on the file system and recorded. A crash after any of them leaves what was
//! synced; of later writes to a file any part, by pages or torn within a sector; of later changes
//! to a directory any subset. A rename within a directory is never half done.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use foveal_datasets::seeded::Seeded;

use super::storage::{Disk, Storage};

/// What a device writes as a whole.
const SECTOR: usize = 512;
/// What a file system keeps or loses as a whole.
const PAGE: usize = 4096;

/// A call that changed the disk, or synced it. Paths are below the root.
#[derive(Clone, Debug)]
enum Call {
    MakeDir(PathBuf),
    Create(PathBuf, u64),
    Append(u64, Vec<u8>),
    Truncate(u64, u64),
    SyncFile(u64),
    SyncDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Exchange(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// Records the calls of the storage below a directory.
pub(crate) struct SimulatedDisk {
    root: PathBuf,
    before: Nodes,
    calls: Mutex<Vec<Call>>,
    /// Syncs that are not done, as a program that forgets them would not.
    forgets: Forgets,
}

/// Which syncs are forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forgets {
    Nothing,
    Files,
    Directories,
}

impl SimulatedDisk {
    /// Everything below `root` is durable from before.
    pub(crate) fn over(root: &Path, forgets: Forgets) -> SimulatedDisk {
        let mut before = Nodes::default();
        before.insert(root, 0);
        SimulatedDisk { root: root.into(), before, calls: Mutex::default(), forgets }
    }

    /// How many calls there were.
    pub(crate) fn calls(&self) -> usize {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What may be left if the power is lost after the first `calls` calls: everything that can be
    /// lost, nothing, or what `random` decides.
    pub(crate) fn crash(&self, calls: usize, loss: Loss<'_>) -> Left {
        let mut nodes = self.before.clone();
        let all = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = HashMap::new();
        all[..calls].iter().for_each(|call| nodes.run(call, &mut files));
        let mut left = Left::default();
        nodes.lose(0, Path::new(""), loss, &mut left);
        left
    }

    fn record(&self, call: Call) {
        let forgotten = match call {
            Call::SyncFile(_) => self.forgets == Forgets::Files,
            Call::SyncDir(_) => self.forgets == Forgets::Directories,
            _ => false,
        };
        if !forgotten {
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        }
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).expect("a path below the root").into()
    }
}

impl Storage for SimulatedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)?;
        self.record(Call::MakeDir(self.below(path)));
        Ok(())
    }

    fn create_file(&self, path: &Path) -> io::Result<File> {
        let file = Disk.create_file(path)?;
        self.record(Call::Create(self.below(path), file.metadata()?.ino()));
        Ok(file)
    }

    fn open_to_append(&self, path: &Path) -> io::Result<File> {
        Disk.open_to_append(path)
    }

    fn write_all(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        Disk.write_all(file, bytes)?;
        self.record(Call::Append(file.metadata()?.ino(), bytes.into()));
        Ok(())
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        Disk.truncate(file, length)?;
        self.record(Call::Truncate(file.metadata()?.ino(), length));
        Ok(())
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.record(Call::SyncFile(file.metadata()?.ino()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.record(Call::SyncDir(self.below(path)));
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename_new(from, to)?;
        self.record(Call::Rename(self.below(from), self.below(to)));
        Ok(())
    }

    fn replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.replace(from, to)?;
        self.record(Call::Rename(self.below(from), self.below(to)));
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        Disk.exchange(one, other)?;
        self.record(Call::Exchange(self.below(one), self.below(other)));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)?;
        self.record(Call::Remove(self.below(path)));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(dir)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Disk.read(path)
    }
}

/// How much of what was not synced is lost.
pub(crate) enum Loss<'a> {
    Everything,
    Nothing,
    Some(&'a mut Seeded),
}

impl Loss<'_> {
    fn reborrow(&mut self) -> Loss<'_> {
        match self {
            Loss::Everything => Loss::Everything,
            Loss::Nothing => Loss::Nothing,
            Loss::Some(random) => Loss::Some(random),
        }
    }

    fn keeps(&mut self) -> bool {
        match self {
            Loss::Everything => false,
            Loss::Nothing => true,
            Loss::Some(random) => random.below(2) == 1,
        }
    }
}

/// Directories and files after a crash, by path below the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) dirs: Vec<PathBuf>,
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Left {
    /// Makes them in the empty directory `root`.
    pub(crate) fn restore(&self, root: &Path) {
        for dir in &self.dirs {
            fs::create_dir(root.join(dir)).unwrap();
        }
        for (path, bytes) in &self.files {
            fs::write(root.join(path), bytes).unwrap();
        }
    }
}

/// A change of a directory.
#[derive(Clone)]
enum Change {
    Add(OsString, usize),
    Remove(OsString),
    Rename(OsString, OsString),
    Exchange(OsString, OsString),
}

type Entries = BTreeMap<OsString, usize>;

#[derive(Clone)]
enum Node {
    /// `bytes` as they are now, `durable` as they were synced.
    File {
        bytes: Vec<u8>,
        durable: Vec<u8>,
    },
    Dir {
        entries: Entries,
        durable: Entries,
        changes: Vec<Change>,
    },
}

#[derive(Clone)]
struct Nodes(Vec<Node>);

impl Default for Nodes {
    /// An empty root.
    fn default() -> Nodes {
        Nodes(vec![Node::empty_dir()])
    }
}

impl Node {
    fn empty_dir() -> Node {
        Node::Dir { entries: Entries::new(), durable: Entries::new(), changes: Vec::new() }
    }
}

impl Nodes {
    fn push(&mut self, node: Node) -> usize {
        self.0.push(node);
        self.0.len() - 1
    }

    /// Takes what lies in `path` as durable entries of the directory `dir`.
    fn insert(&mut self, path: &Path, dir: usize) {
        for path in Disk.list(path).unwrap() {
            let node = match path.is_dir() {
                true => self.push(Node::empty_dir()),
                false => {
                    let bytes = fs::read(&path).unwrap();
                    self.push(Node::File { durable: bytes.clone(), bytes })
                }
            };
            if path.is_dir() {
                self.insert(&path, node);
            }
            let (entries, durable, _) = self.dir(dir);
            let name = path.file_name().unwrap();
            entries.insert(name.into(), node);
            durable.insert(name.into(), node);
        }
    }

    fn dir(&mut self, node: usize) -> (&mut Entries, &mut Entries, &mut Vec<Change>) {
        match &mut self.0[node] {
            Node::Dir { entries, durable, changes } => (entries, durable, changes),
            Node::File { .. } => panic!("a file is no directory"),
        }
    }

    fn find(&mut self, path: &Path) -> usize {
        path.iter().fold(0, |dir, name| self.dir(dir).0[name])
    }

    fn change(&mut self, path: &Path, change: Change) {
        let parent = self.find(path.parent().unwrap());
        let (entries, _, changes) = self.dir(parent);
        apply(&change, entries);
        changes.push(change);
    }

    fn run(&mut self, call: &Call, files: &mut HashMap<u64, usize>) {
        let name = |path: &Path| path.file_name().unwrap().to_os_string();
        match call {
            Call::MakeDir(path) => {
                let node = self.push(Node::empty_dir());
                self.change(path, Change::Add(name(path), node));
            }
            Call::Create(path, inode) => {
                let node = self.push(Node::File { bytes: Vec::new(), durable: Vec::new() });
                files.insert(*inode, node);
                self.change(path, Change::Add(name(path), node));
            }
            Call::Append(inode, more) => self.file(files[inode]).0.extend_from_slice(more),
            Call::Truncate(inode, length) => {
                self.file(files[inode]).0.truncate(*length as usize);
            }
            Call::SyncFile(inode) => {
                let (bytes, durable) = self.file(files[inode]);
                durable.clone_from(bytes);
            }
            Call::SyncDir(path) => {
                let node = self.find(path);
                let (entries, durable, changes) = self.dir(node);
                durable.clone_from(entries);
                changes.clear();
            }
            Call::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "within a directory");
                self.change(from, Change::Rename(name(from), name(to)));
            }
            Call::Exchange(one, other) => {
                assert_eq!(one.parent(), other.parent(), "within a directory");
                self.change(one, Change::Exchange(name(one), name(other)));
            }
            Call::Remove(path) => {
                let node = self.find(path);
                if let Node::Dir { entries, .. } = &self.0[node] {
                    for name in entries.keys().cloned().collect::<Vec<_>>() {
                        self.run(&Call::Remove(path.join(name)), files);
                    }
                }
                self.change(path, Change::Remove(name(path)));
            }
        }
    }

    fn file(&mut self, node: usize) -> (&mut Vec<u8>, &mut Vec<u8>) {
        match &mut self.0[node] {
            Node::File { bytes, durable } => (bytes, durable),
            Node::Dir { .. } => panic!("a directory is no file"),
        }
    }

    /// What is left of a directory and all that it holds.
    fn lose(&self, node: usize, path: &Path, mut loss: Loss<'_>, left: &mut Left) {
        match &self.0[node] {
            Node::File { bytes, durable } => {
                left.files.insert(path.into(), left_of(bytes, durable, loss));
            }
            Node::Dir { durable, changes, .. } => {
                if node > 0 {
                    left.dirs.push(path.into());
                }
                let mut entries = durable.clone();
                for change in changes.iter().filter(|_| loss.keeps()) {
                    apply(change, &mut entries);
                }
                for (name, node) in entries {
                    self.lose(node, &path.join(name), loss.reborrow(), left);
                }
            }
        }
    }
}

/// Changes the entries, where they are as the change needs them: an earlier one may be lost.
fn apply(change: &Change, entries: &mut Entries) {
    match change {
        Change::Add(name, node) => {
            entries.insert(name.clone(), *node);
        }
        Change::Remove(name) => {
            entries.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(node) = entries.remove(from) {
                entries.insert(to.clone(), node);
            }
        }
        Change::Exchange(one, other) => {
            if let (Some(a), Some(b)) = (entries.get(one).copied(), entries.get(other).copied()) {
                entries.insert(one.clone(), b);
                entries.insert(other.clone(), a);
            }
        }
    }
}

/// What is left of a file: pages as they are now or as they were synced, and the last one perhaps
/// torn within; or only the new length, and zeros.
fn left_of(bytes: &[u8], durable: &[u8], mut loss: Loss<'_>) -> Vec<u8> {
    if bytes == durable {
        return durable.to_vec();
    }
    let random = match &mut loss {
        Loss::Everything => return durable.to_vec(),
        Loss::Nothing => return bytes.to_vec(),
        Loss::Some(random) => random,
    };
    let longest = bytes.len().max(durable.len());
    let mut left = match random.below(4) {
        0 => durable.to_vec(),
        1 => bytes.to_vec(),
        // Cut where some sector ends, or somewhere within one.
        2 => {
            let cut = random.below(longest as u64 + 1) as usize;
            let cut = if random.below(2) == 0 { cut / SECTOR * SECTOR } else { cut };
            let mut left = durable.to_vec();
            left.resize(longest, 0);
            left[..cut.min(bytes.len())].copy_from_slice(&bytes[..cut.min(bytes.len())]);
            left
        }
        _ => {
            let mut left = durable.to_vec();
            left.resize(longest, 0);
            for (page, now) in left.chunks_mut(PAGE).zip(bytes.chunks(PAGE)) {
                if random.below(2) == 1 {
                    page[..now.len()].copy_from_slice(now);
                }
            }
            left
        }
    };
    if random.below(2) == 1 {
        left.truncate(bytes.len());
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_stays_and_the_rest_may_go() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("old"), "old").unwrap();
        let disk = SimulatedDisk::over(root.path(), Forgets::Nothing);
        let mut log = disk.create_file(&at("log")).unwrap();
        disk.write_all(&mut log, b"one").unwrap();
        disk.sync_file(&log).unwrap();
        disk.sync_dir(root.path()).unwrap();
        disk.write_all(&mut log, b"two").unwrap();
        let left = |calls, loss| disk.crash(calls, loss).files;
        let of = |files: &[(&str, &str)]| {
            files
                .iter()
                .map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()))
                .collect()
        };
        assert_eq!(left(0, Loss::Nothing), of(&[("old", "old")]));
        // A file whose directory was not synced may be gone.
        assert_eq!(left(3, Loss::Everything), of(&[("old", "old")]));
        assert_eq!(left(5, Loss::Everything), of(&[("old", "old"), ("log", "one")]));
        assert_eq!(left(5, Loss::Nothing), of(&[("old", "old"), ("log", "onetwo")]));
        // Replaced in one step, or not.
        disk.replace(&at("log"), &at("old")).unwrap();
        assert_eq!(left(6, Loss::Everything), of(&[("old", "old"), ("log", "one")]));
        assert_eq!(left(6, Loss::Nothing), of(&[("old", "onetwo")]));
        let file = disk.open_to_append(&at("old")).unwrap();
        disk.truncate(&file, 2).unwrap();
        disk.sync_file(&file).unwrap();
        disk.sync_dir(root.path()).unwrap();
        assert_eq!(left(9, Loss::Everything), of(&[("old", "on")]));
        assert_eq!(disk.read(&at("old")).unwrap(), b"on");
        assert_eq!(disk.list(root.path()).unwrap(), [at("old")]);
        assert_eq!(disk.calls(), 9);
    }

    #[test]
    fn some_of_what_was_not_synced_is_lost_in_many_ways() {
        let root = tempfile::tempdir().unwrap();
        let disk = SimulatedDisk::over(root.path(), Forgets::Nothing);
        let mut file = disk.create_file(&root.path().join("file")).unwrap();
        disk.sync_dir(root.path()).unwrap();
        disk.write_all(&mut file, &[7; 3 * PAGE]).unwrap();
        let mut random = Seeded::new(1);
        let mut lengths = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let left = &disk.crash(3, Loss::Some(&mut random)).files[Path::new("file")];
            assert!(left.iter().all(|byte| [0, 7].contains(byte)));
            lengths.insert(left.iter().filter(|byte| **byte == 7).count());
        }
        assert!(lengths.contains(&0) && lengths.contains(&(3 * PAGE)) && lengths.len() > 20);
    }
}
