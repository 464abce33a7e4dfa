//! The manifest: which files make up an index, how it was built, and how to prove that nothing of
//! it changed. Beside it, outside its digest, what the build measured.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use foveal_datasets::rows::MAX_DIM;
use foveal_datasets::{Element, Metric};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::FORMAT_VERSION;
use super::array_header::ArrayKind;
use super::blob_file::META;
use super::error::{OpenError, WriteError};
use super::listed_file::{FileWriter, open_regular};
use super::storage::Storage;
use crate::code_width::CodeWidth;

/// The file that makes a directory an index.
pub const MANIFEST: &str = "manifest.json";
/// What the build measured.
pub const MEASURED: &str = "measured.json";

/// The largest manifest, in bytes.
const MAX_MANIFEST: u64 = 64 << 10;
/// Ids are below 2^31.
const MAX_ROWS: u64 = (1 << 31) - 1;
const MAX_MAX_DEGREE: u32 = 256;

/// A file of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the directory of the index.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The xxh3-128 of its bytes: 32 hexadecimal digits, as `xxh128sum` prints them.
    pub xxh3: String,
}

/// How an index was built and which files hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the format of every file.
    pub format_version: u32,
    /// How many rows there are.
    pub n: u64,
    /// Numbers in a row.
    pub dim: u32,
    /// What "near" means.
    pub metric: Metric,
    /// The type of the numbers of a full vector.
    pub element: Element,
    /// Bits a dimension in the codes.
    pub bits: u8,
    /// The most neighbors of a node.
    pub max_degree: u32,
    /// List size of the build.
    pub list_size: u32,
    /// Prune slack of the build.
    pub alpha: f32,
    /// Seed of every random choice of the build.
    pub seed: u64,
    /// Whether every row has a JSON object.
    pub payload: bool,
    /// Whether every row has a token code, to decode with.
    pub tokens: bool,
    /// Whether the last number of a row is the bias of its token.
    pub bias: bool,
    /// How many of the rows lie so far from all others that they have no code and no neighbors.
    pub extremes: u32,
    /// Every file but the manifest and `measured.json`, in the one order there is.
    pub files: Vec<FileEntry>,
    /// The xxh3-128 of the list of files: equal for equal indexes.
    pub digest: String,
    /// The xxh3-128 of the manifest itself, written with an empty checksum.
    pub checksum: String,
}

/// A text that ends with the checksum of itself.
pub(super) trait Checksummed: Clone + Serialize + DeserializeOwned {
    /// The last field.
    fn checksum(&mut self) -> &mut String;
}

impl Checksummed for Manifest {
    fn checksum(&mut self) -> &mut String {
        &mut self.checksum
    }
}

impl Manifest {
    /// Puts the files in order and fills in `digest` and `checksum`.
    ///
    /// # Errors
    /// What [`read`](Manifest::read) would object to, under the name of `manifest.json`.
    pub fn seal(mut self) -> Result<Manifest, OpenError> {
        let known = known_files();
        self.files.sort_by_key(|file| known.iter().position(|&name| name == file.name));
        self.digest = digest(&self.files);
        self.checksum = checksum_wanted(&self);
        self.check(Path::new(MANIFEST), &[])?;
        Ok(self)
    }

    /// Writes a sealed manifest into `dir`; returns once it is on the device.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, storage: &dyn Storage, dir: &Path) -> Result<(), WriteError> {
        write_text(storage, dir, MANIFEST, &canonical(self))
    }

    /// Reads and checks the manifest of the index in `dir`.
    ///
    /// # Errors
    /// No such directory; no manifest in it; another format version; any byte that differs from
    /// what was written; values that no build gives.
    pub fn read(dir: &Path) -> Result<Manifest, OpenError> {
        use io::ErrorKind::{NotADirectory, NotFound};

        let path = dir.join(MANIFEST);
        match fs::metadata(dir) {
            Ok(found) if found.is_dir() => {}
            Err(error) if !matches!(error.kind(), NotFound | NotADirectory) => {
                return Err(OpenError::io(dir, "stat")(error));
            }
            _ => return Err(OpenError::NotFound { path: dir.into() }),
        }
        let Some(text) = read_text(&path)? else {
            return Err(OpenError::NotAnIndex { path: dir.into() });
        };
        // Another version may have other fields: it is judged before they are.
        let VersionOnly { format_version: found } = parse(&path, &text)?;
        if found != FORMAT_VERSION {
            return Err(OpenError::Version { path, found, wanted: FORMAT_VERSION });
        }
        let manifest: Manifest = read_checked(&path, &text)?;
        manifest.check(&path, &[])?;
        Ok(manifest)
    }

    /// What the values mean, once they are known to be the ones written.
    pub(super) fn check(&self, path: &Path, without: &[&str]) -> Result<(), OpenError> {
        let wrong = |what: String| Err(OpenError::damaged(path, 0, what));
        if !(1..=MAX_ROWS).contains(&self.n) {
            return wrong(format!("n is {}; wanted 1 to {MAX_ROWS}", self.n));
        }
        if u64::from(self.extremes) >= self.n {
            return wrong(format!(
                "extremes is {}; wanted fewer than {} rows",
                self.extremes, self.n
            ));
        }
        if !(1..=MAX_DIM as u32).contains(&self.dim) {
            return wrong(format!("dim is {}; wanted 1 to {MAX_DIM}", self.dim));
        }
        if CodeWidth::of_bits(self.bits).is_none() {
            return wrong(format!("bits is {}; wanted {}", self.bits, CodeWidth::in_words()));
        }
        if !(1..=MAX_MAX_DEGREE).contains(&self.max_degree) {
            return wrong(format!("max_degree is {}; wanted 1 to 256", self.max_degree));
        }
        if !(self.alpha >= 1.0 && self.alpha.is_finite()) {
            return wrong(format!("alpha is {}; wanted at least 1", self.alpha));
        }
        self.check_files(path, without)
    }

    fn check_files(&self, path: &Path, without: &[&str]) -> Result<(), OpenError> {
        let wrong = |what: String| Err(OpenError::damaged(path, 0, what));
        let mut seen = BTreeSet::new();
        for FileEntry { name, bytes, xxh3 } in &self.files {
            if !known_files().contains(&name.as_str()) {
                return wrong(format!("file {name:?} is unknown to format {FORMAT_VERSION}"));
            }
            if !seen.insert(name.as_str()) {
                return wrong(format!("file {name:?} is listed twice"));
            }
            if xxh3.len() != 32 || xxh3.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return wrong(format!("xxh3 of {name:?} is {xxh3:?}; wanted 32 hex digits"));
            }
            if *bytes > i64::MAX as u64 {
                return wrong(format!("file {name:?} has {bytes} bytes; wanted below 2^63"));
            }
        }
        for name in self.wanted_files().filter(|name| !without.contains(name)) {
            if !seen.remove(name) {
                return wrong(format!("file {name:?} is not listed"));
            }
        }
        if let Some(name) = seen.first() {
            return wrong(format!("file {name:?} is listed, but nothing calls for it"));
        }
        let wanted = digest(&self.files);
        if self.digest != wanted {
            return wrong(format!("digest is {}; wanted {wanted}", self.digest));
        }
        Ok(())
    }

    /// The files an index of this kind has.
    fn wanted_files(&self) -> impl Iterator<Item = &'static str> {
        let arrays = ArrayKind::ALL
            .into_iter()
            .filter(|kind| match kind {
                ArrayKind::Payload | ArrayKind::PayloadOffsets => self.payload,
                ArrayKind::Tokens => self.tokens,
                ArrayKind::Extra => {
                    CodeWidth::of_bits(self.bits).is_some_and(|width| width.extra_bits() > 0)
                }
                _ => true,
            })
            .flat_map(|kind| [kind.name(), kind.crc_name()]);
        std::iter::once(META).chain(arrays)
    }
}

/// What the build of an index took. Outside the digest: it differs from run to run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Wall clock of the whole build.
    pub build_seconds: f64,
    /// Most memory the build was expected to use.
    pub predicted_peak_bytes: u64,
    /// Most memory the process used.
    pub peak_rss_bytes: u64,
    /// How it decodes; `None` where it has no token codes.
    pub decodes: Option<DecodeQuality>,
}

/// How an index decodes sample hidden states that were held out, with the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeQuality {
    /// How many there were.
    pub states: u32,
    /// The share of the ten best tokens that is found.
    pub precision: f64,
    /// The share of the intervals that hold the true log Z.
    pub covered: f64,
    /// The width of half of the intervals is no more, in nats.
    pub width_p50: f64,
    /// The share of the decodes that took more than planned.
    pub widened: f64,
}

/// `measured.json` as it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeasuredFile {
    build_seconds: f64,
    predicted_peak_bytes: u64,
    peak_rss_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    decodes: Option<DecodeQuality>,
    checksum: String,
}

impl Checksummed for MeasuredFile {
    fn checksum(&mut self) -> &mut String {
        &mut self.checksum
    }
}

impl MeasuredFile {
    fn new(measured: &Measured) -> MeasuredFile {
        let Measured { build_seconds, predicted_peak_bytes, peak_rss_bytes, decodes } = *measured;
        let mut file = MeasuredFile {
            build_seconds,
            predicted_peak_bytes,
            peak_rss_bytes,
            decodes,
            checksum: String::new(),
        };
        file.checksum = checksum_wanted(&file);
        file
    }
}

impl Measured {
    /// Writes `measured.json` into `dir`; returns once it is on the device.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, storage: &dyn Storage, dir: &Path) -> Result<(), WriteError> {
        write_text(storage, dir, MEASURED, &canonical(&MeasuredFile::new(self)))
    }

    /// Reads `measured.json` of `dir`; `None` if there is none.
    ///
    /// # Errors
    /// Any byte that differs from what was written; a read is refused.
    pub fn read(dir: &Path) -> Result<Option<Measured>, OpenError> {
        let path = dir.join(MEASURED);
        let Some(text) = read_text(&path)? else {
            return Ok(None);
        };
        let MeasuredFile { build_seconds, predicted_peak_bytes, peak_rss_bytes, decodes, .. } =
            read_checked(&path, &text)?;
        Ok(Some(Measured { build_seconds, predicted_peak_bytes, peak_rss_bytes, decodes }))
    }
}

/// Every file an index may have besides the manifest and `measured.json`, in order.
pub fn known_files() -> Vec<&'static str> {
    let arrays = ArrayKind::ALL.into_iter().flat_map(|kind| [kind.name(), kind.crc_name()]);
    std::iter::once(META).chain(arrays).collect()
}

/// The xxh3-128 of the lines `NAME BYTES XXH3`, one a file.
pub(super) fn digest(files: &[FileEntry]) -> String {
    let lines: String =
        files.iter().map(|file| format!("{} {} {}\n", file.name, file.bytes, file.xxh3)).collect();
    hex(xxh3_128(lines.as_bytes()))
}

/// 32 hexadecimal digits.
pub(super) fn hex(digest: u128) -> String {
    format!("{digest:032x}")
}

/// Only the field that says how to read the others.
#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

/// The one way a value is written: so that a changed byte cannot hide.
pub(super) fn canonical(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain fields always serialise");
    text.push('\n');
    text
}

fn write_text(
    storage: &dyn Storage,
    dir: &Path,
    name: &'static str,
    text: &str,
) -> Result<(), WriteError> {
    let mut file = FileWriter::create(storage, dir, name)?;
    file.buffer.extend_from_slice(text.as_bytes());
    file.finish().map(drop)
}

/// At most 64 KiB of text; `None` if there is no such file.
pub(super) fn read_text(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    let Some(file) = open_regular(path, OFlags::empty())? else { return Ok(None) };
    let mut text = Vec::new();
    file.take(MAX_MANIFEST + 1).read_to_end(&mut text).map_err(OpenError::io(path, "read"))?;
    if text.len() as u64 > MAX_MANIFEST {
        let what = format!("more than {MAX_MANIFEST} bytes");
        return Err(OpenError::damaged(path, MAX_MANIFEST, what));
    }
    Ok(Some(text))
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, OpenError> {
    serde_json::from_slice(text).map_err(|error| {
        let before = text.split_inclusive(|&b| b == b'\n').take(error.line().saturating_sub(1));
        let offset = before.map(<[u8]>::len).sum::<usize>() + error.column().saturating_sub(1);
        OpenError::damaged(path, offset as u64, error.to_string())
    })
}

/// The bytes read are the bytes that a writer would write.
fn check_text(path: &Path, found: &[u8], wanted: &str) -> Result<(), OpenError> {
    if found == wanted.as_bytes() {
        return Ok(());
    }
    let differ = found.iter().zip(wanted.as_bytes()).position(|(a, b)| a != b);
    let offset = differ.unwrap_or(found.len().min(wanted.len()));
    Err(OpenError::damaged(path, offset as u64, "not written the way Foveal writes it"))
}

/// The xxh3-128 of a text as it is with an empty checksum.
pub(super) fn checksum_wanted(of: &impl Checksummed) -> String {
    let mut blank = of.clone();
    blank.checksum().clear();
    hex(xxh3_128(canonical(&blank).as_bytes()))
}

/// What a text says, once its every byte is known to be the one that was written.
pub(super) fn read_checked<T: Checksummed>(path: &Path, text: &[u8]) -> Result<T, OpenError> {
    let mut value: T = parse(path, text)?;
    check_text(path, text, &canonical(&value))?;
    let wanted = checksum_wanted(&value);
    let found = value.checksum();
    if *found != wanted {
        return Err(OpenError::damaged(path, 0, format!("checksum is {found}; wanted {wanted}")));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use foveal_datasets::ErrorKind;

    use super::*;
    use crate::disk::{Disk, sample};
    use crate::params;

    #[test]
    fn comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let written = sample::write(&Disk, dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), written);
        assert_eq!(Measured::read(dir.path()).unwrap(), Some(sample::measured()));
        fs::remove_file(dir.path().join(MEASURED)).unwrap();
        assert_eq!(Measured::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn limits_are_those_of_the_parameters() {
        assert_eq!(MAX_ROWS, params::MAX_ROWS);
        assert_eq!(MAX_MAX_DEGREE, params::MAX_MAX_DEGREE);
    }

    #[test]
    fn digest_tells_files_apart_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sample::write(&Disk, dir.path()).unwrap();
        let reseal = |change: &dyn Fn(&mut Manifest)| {
            let mut other = sealed.clone();
            change(&mut other);
            other.seal().unwrap()
        };
        assert_eq!(reseal(&|m| m.files.reverse()), sealed);
        assert_eq!(reseal(&|m| m.seed = 1).digest, sealed.digest);
        assert_ne!(reseal(&|m| m.seed = 1).checksum, sealed.checksum);
        assert_ne!(reseal(&|m| m.files[3].bytes += 1).digest, sealed.digest);
    }

    #[test]
    fn another_version_is_told_before_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), r#"{"format_version": 9, "warp": []}"#).unwrap();
        let error = Manifest::read(dir.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Version { found: 9, wanted: FORMAT_VERSION, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_directory_without_manifest_is_no_index() {
        let dir = tempfile::tempdir().unwrap();
        let error = Manifest::read(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("no manifest.json: not a Foveal index"), "{error}");
        let error = Manifest::read(&dir.path().join("gone")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoInput);
    }

    #[test]
    fn values_no_build_gives_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = sample::write(&Disk, dir.path()).unwrap();
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut other = sealed.clone();
            change(&mut other);
            other.seal().unwrap_err().to_string()
        };
        assert!(refused(&|m| m.n = 0).contains("n is 0; wanted 1 to 2147483647"));
        assert!(refused(&|m| m.n = 1 << 31).contains("n is 2147483648"));
        assert!(refused(&|m| m.dim = 0).contains("dim is 0"));
        assert!(refused(&|m| m.dim = 65_536).contains("dim is 65536"));
        assert!(refused(&|m| m.bits = 3).contains("bits is 3"));
        assert!(refused(&|m| m.max_degree = 257).contains("max_degree is 257"));
        assert!(refused(&|m| m.alpha = 0.5).contains("alpha is 0.5"));
        assert!(refused(&|m| m.payload = true).contains("\"payload.bin\" is not listed"));
        assert!(refused(&|m| drop(m.files.pop())).contains("is not listed"));
        assert!(refused(&|m| m.files[0].name = "../meta.rkyv".into()).contains("unknown"));
        assert!(refused(&|m| m.files[0].xxh3 = "A".repeat(32)).contains("32 hex digits"));
        let twice = |m: &mut Manifest| m.files.push(m.files[0].clone());
        assert!(refused(&twice).contains("listed twice"));
    }

    #[test]
    fn oversized_and_unreadable_texts_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MANIFEST);
        for text in ["", "{", "[1]", "\u{0}", &" ".repeat(70_000)] {
            fs::write(&path, text).unwrap();
            let error = Manifest::read(dir.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
        }
    }
}
