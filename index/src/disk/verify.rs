//! Is every byte the one that was written? All damage of a directory, not only the first.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::BLOCK;
use super::array_file::{CHUNK, read_crcs, verify_block};
use super::array_header::ArrayKind;
use super::blob_file::read_meta;
use super::error::OpenError;
use super::listed_file::ListedFile;
use super::manifest::{FileEntry, MANIFEST, MEASURED, Manifest, Measured};

/// A file that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedFile {
    /// Its name in the directory of the index.
    pub name: String,
    /// Its length, as the manifest has it.
    pub bytes: u64,
    /// How many of its 4 KiB blocks were compared with a checksum.
    pub blocks: u64,
}

/// What was looked at and what was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Every file of the manifest.
    pub files: Vec<CheckedFile>,
    /// One line a damage: file, offset, found, wanted.
    pub damage: Vec<String>,
}

/// Told after each read how many bytes of how many are done; `Break` ends the work.
pub type Tell<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Looks at every file of the index in `dir`, whose manifest was read without complaint.
///
/// As a search would by the time it has opened the index: lengths, headers, checksum files, the
/// blob, and every block of codes and their extra bits, graph, keys and token codes. `deep` adds
/// every block of full vectors and payloads and the digest of every file.
///
/// # Errors
/// `tell` broke off; the operating system refuses to open or read a file, which says nothing about
/// the file.
pub fn verify_files(
    dir: &Path,
    manifest: &Manifest,
    deep: bool,
    tell: Tell<'_>,
) -> Result<Verified, OpenError> {
    let total = manifest.files.iter().map(|file| file.bytes).sum();
    let mut scan =
        Scan { dir, manifest, deep, tell, done: 0, total, verified: Verified::default() };
    scan.run()?;
    Ok(scan.verified)
}

struct Scan<'a> {
    dir: &'a Path,
    manifest: &'a Manifest,
    deep: bool,
    tell: Tell<'a>,
    done: u64,
    total: u64,
    verified: Verified,
}

impl Scan<'_> {
    fn run(&mut self) -> Result<(), OpenError> {
        for entry in &self.manifest.files {
            let kind = ArrayKind::ALL.into_iter().find(|kind| kind.name() == entry.name);
            let blocks = match kind {
                Some(kind) => self.array(kind)?,
                None => self.whole(entry)?,
            };
            let FileEntry { name, bytes, .. } = entry.clone();
            self.verified.files.push(CheckedFile { name, bytes, blocks });
        }
        if let Err(error) = Measured::read(self.dir) {
            self.report(error)?;
        }
        self.strangers()
    }

    /// Records damage; returns every other error.
    fn report(&mut self, error: OpenError) -> Result<(), OpenError> {
        if !error.is_damage() {
            return Err(error);
        }
        self.verified.damage.push(error.to_string());
        Ok(())
    }

    fn advance(&mut self, bytes: u64) -> Result<(), OpenError> {
        self.done += bytes;
        match (self.tell)(self.done, self.total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(OpenError::Interrupted),
        }
    }

    /// A file that is read whole: the blob. Checksum files are read with their array.
    fn whole(&mut self, entry: &FileEntry) -> Result<u64, OpenError> {
        self.advance(entry.bytes)?;
        if !entry.name.ends_with(".crc")
            && let Err(error) = read_meta(self.dir, self.manifest)
        {
            self.report(error)?;
        }
        Ok(entry.bytes.div_ceil(BLOCK as u64))
    }

    /// Each part of an array is judged without the others: a bad header hides no bad block.
    fn array(&mut self, kind: ArrayKind) -> Result<u64, OpenError> {
        let listed = match ListedFile::open(self.dir, self.manifest, kind.name()) {
            Ok(listed) => listed,
            Err(error) => {
                self.report(error)?;
                // Its checksums are still worth a look.
                let length = self.manifest.files.iter().find(|file| file.name == kind.name());
                let length = length.map_or(0, |file| file.bytes);
                let crcs = read_crcs(self.dir, self.manifest, kind, length);
                crcs.err().map_or(Ok(()), |error| self.report(error))?;
                return Ok(0);
            }
        };
        if let Err(error) = listed.header(kind.wanted(self.manifest)) {
            self.report(error)?;
        }
        let crcs = match read_crcs(self.dir, self.manifest, kind, listed.length) {
            Ok(crcs) => Some(crcs),
            Err(error) => {
                self.report(error)?;
                None
            }
        };
        let left =
            matches!(kind, ArrayKind::Vectors | ArrayKind::Payload | ArrayKind::PayloadOffsets);
        if left && !self.deep {
            self.advance(listed.length)?;
            return Ok(0);
        }
        self.blocks(&listed, crcs.as_deref())?;
        Ok(crcs.map_or(0, |crcs| crcs.len() as u64))
    }

    /// Compares every block with its checksum, as far as there are any, and when deep the file
    /// with its digest.
    fn blocks(&mut self, listed: &ListedFile, crcs: Option<&[u32]>) -> Result<(), OpenError> {
        let mut digest = Xxh3::new();
        let mut buffer = vec![0; CHUNK];
        let mut offset = 0;
        while offset < listed.length {
            let length = (listed.length - offset).min(CHUNK as u64) as usize;
            let chunk = &mut buffer[..length];
            if let Err(error) = listed.read_at(chunk, offset) {
                return self.report(error);
            }
            let first = offset / BLOCK as u64;
            for (index, block) in (first..).zip(chunk.chunks(BLOCK)) {
                let found = crcs.map(|crcs| verify_block(&listed.path, crcs, index, block));
                if let Some(Err(error)) = found {
                    self.report(error)?;
                }
            }
            if self.deep {
                digest.update(chunk);
            }
            offset += length as u64;
            self.advance(length as u64)?;
        }
        if self.deep
            && let Err(error) = listed.check_digest(digest.digest128())
        {
            self.report(error)?;
        }
        Ok(())
    }

    /// Entries of the directory that no part of the index names.
    fn strangers(&mut self) -> Result<(), OpenError> {
        for path in strangers(self.dir, self.manifest)? {
            self.report(OpenError::damaged(&path, 0, "not a file of this index"))?;
        }
        Ok(())
    }
}

/// The entries of `dir` that its manifest does not name, in order.
///
/// # Errors
/// The directory cannot be listed.
pub fn strangers(dir: &Path, manifest: &Manifest) -> Result<Vec<PathBuf>, OpenError> {
    let files = manifest.files.iter().map(|file| file.name.as_str());
    let known: BTreeSet<&str> = files.chain([MANIFEST, MEASURED]).collect();
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(OpenError::io(dir, "list"))?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let is_known = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| known.contains(name))
    };
    let mut strangers: Vec<PathBuf> = paths.filter(|path| !is_known(path)).collect();
    strangers.sort();
    Ok(strangers)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::disk::{Disk, sample};

    fn verify(dir: &Path, deep: bool) -> Verified {
        let manifest = Manifest::read(dir).unwrap();
        verify_files(dir, &manifest, deep, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    fn flip(dir: &Path, name: &str, offset: u64) {
        let file = fs::OpenOptions::new().read(true).write(true).open(dir.join(name)).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
    }

    #[test]
    fn a_good_index_has_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = sample::write(&Disk, dir.path()).unwrap();
        let deep = verify(dir.path(), true);
        assert_eq!(deep.damage, [""; 0]);
        let of = |file: &FileEntry| (file.name.clone(), file.bytes, file.bytes.div_ceil(4096));
        let found: Vec<_> =
            deep.files.iter().map(|file| (file.name.clone(), file.bytes, file.blocks)).collect();
        assert_eq!(found, manifest.files.iter().map(of).collect::<Vec<_>>());
        let shallow = verify(dir.path(), false);
        assert_eq!(shallow.damage, [""; 0]);
        let vectors = shallow.files.iter().find(|file| file.name == "vectors.bin").unwrap();
        assert_eq!(vectors.blocks, 0);
    }

    #[test]
    fn all_damage_is_told() {
        let dir = tempfile::tempdir().unwrap();
        sample::write(&Disk, dir.path()).unwrap();
        flip(dir.path(), "graph.bin", 3);
        flip(dir.path(), "graph.bin", 8500);
        flip(dir.path(), "vectors.bin", 5000);
        flip(dir.path(), "codes.bin.crc", 64);
        flip(dir.path(), "measured.json", 30);
        fs::remove_file(dir.path().join("meta.rkyv")).unwrap();
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        let wanted = [
            ("meta.rkyv: not there", false),
            ("codes.bin.crc: damaged at byte 0: xxh3", false),
            ("graph.bin: damaged at byte 0: starts with", false),
            ("graph.bin: damaged at byte 0: crc32", false),
            ("graph.bin: damaged at byte 8192: crc32", false),
            ("graph.bin: damaged at byte 0: xxh3", true),
            ("vectors.bin: damaged at byte 4096: crc32", true),
            ("vectors.bin: damaged at byte 0: xxh3", true),
            ("measured.json: damaged", false),
            ("notes.txt: damaged at byte 0: not a file of this index", false),
        ];
        for deep in [false, true] {
            let damage = verify(dir.path(), deep).damage;
            let wanted: Vec<_> =
                wanted.iter().filter(|(_, only_deep)| deep || !only_deep).collect();
            assert_eq!(damage.len(), wanted.len(), "{damage:#?}");
            for (found, (wanted, _)) in damage.iter().zip(wanted) {
                assert!(found.contains(wanted), "{found}; wanted {wanted}");
            }
        }
    }

    #[test]
    fn any_flipped_byte_is_found_when_deep() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = sample::write(&Disk, dir.path()).unwrap();
        for file in &manifest.files {
            for offset in (0..file.bytes).step_by(61).chain([file.bytes - 1]) {
                flip(dir.path(), &file.name, offset);
                let damage = verify(dir.path(), true).damage;
                assert!(damage.iter().all(|line| line.contains(&file.name)), "{damage:?}");
                assert!(!damage.is_empty(), "{} at {offset}", file.name);
                flip(dir.path(), &file.name, offset);
            }
        }
    }

    #[test]
    fn it_ends_when_told_to() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = sample::write(&Disk, dir.path()).unwrap();
        let mut told = 0;
        let mut tell = |done, total| {
            told += 1;
            assert!(done <= total);
            if told == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let ended = verify_files(dir.path(), &manifest, true, &mut tell);
        assert!(matches!(ended, Err(OpenError::Interrupted)), "{ended:?}");
        assert_eq!(told, 3);
    }
}
