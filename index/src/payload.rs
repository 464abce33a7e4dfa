//! What does the caller say about a row? An optional JSON object a row, kept on disk as text.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foveal_datasets::ErrorKind;
use foveal_datasets::regular_file::{self, NotOpened};
use rustix::fs::OFlags;
use serde::de::IgnoredAny;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::disk::{
    ArrayKind, ArrayShape, ArrayWriter, FileEntry, Manifest, OpenArray, OpenError, Storage,
    WriteError,
};
use crate::stats::Job;

/// Rows looked at between two looks at the clock, or the caller's wish to end.
const ROWS_AT_ONCE: u64 = 512;

/// The longest JSON text of a row, in bytes.
pub const MAX_TEXT: u64 = 64 << 10;

/// Why payloads cannot be taken from a file.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The operating system refused.
    #[error("{}: cannot {op}: {source}", path.display())]
    Io {
        /// The source.
        path: PathBuf,
        /// What was tried, as a verb.
        op: &'static str,
        /// The refusal.
        source: io::Error,
    },
    /// The source is no regular file; it is read twice.
    #[error("{}: is {found}; wanted a regular file", path.display())]
    NotAFile {
        /// The source.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// The source was written to while it was read.
    #[error("{}: changed while it was read", path.display())]
    Changed {
        /// The source.
        path: PathBuf,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A line is no JSON object.
    #[error("{}: line {line}: {what}; wanted a JSON object", path.display())]
    Line {
        /// The source.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What was found.
        what: String,
    },
    /// There are not as many lines as rows.
    #[error("{}: {found} lines; wanted {wanted}, one a row", path.display())]
    Count {
        /// The source.
        path: PathBuf,
        /// Its lines.
        found: u64,
        /// The rows.
        wanted: u64,
    },
    /// The index cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl PayloadError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            PayloadError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NoInput
            }
            PayloadError::Io { .. } => ErrorKind::Io,
            PayloadError::NotAFile { .. } => ErrorKind::NoInput,
            PayloadError::Line { .. }
            | PayloadError::Count { .. }
            | PayloadError::Changed { .. } => ErrorKind::BadData,
            PayloadError::Interrupted => ErrorKind::Interrupted,
            PayloadError::Write(error) => error.kind(),
        }
    }

    fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> PayloadError {
        move |source| PayloadError::Io { path: path.into(), op, source }
    }
}

/// A file with one JSON object a line. Remembers where each line is: 12 bytes a row.
pub struct PayloadSource {
    path: PathBuf,
    file: File,
    starts: Vec<u64>,
    lengths: Vec<u32>,
    /// The sum of what [`digest_of`] makes of each line: the order of lines does not matter.
    digest: u64,
}

/// Bytes of memory that a [`PayloadSource`] takes a row.
pub(crate) const SOURCE_BYTES: u64 = 12;

/// The xxh3 of a line with its number.
fn digest_of(row: u64, text: &[u8]) -> u64 {
    xxh3_64_with_seed(text, row)
}

impl PayloadSource {
    /// Opens the file, and reads nothing of it yet.
    ///
    /// # Errors
    /// No regular file; the operating system refuses.
    pub fn open(path: &Path) -> Result<PayloadSource, PayloadError> {
        let file = regular_file::open(path, OFlags::empty()).map_err(|refused| match refused {
            NotOpened::NotRegular(found) => PayloadError::NotAFile { path: path.into(), found },
            NotOpened::Refused(error) => PayloadError::io(path, "open")(error),
        })?;
        let (starts, lengths) = (Vec::new(), Vec::new());
        Ok(PayloadSource { path: path.into(), file, starts, lengths, digest: 0 })
    }

    /// Reads the file once, line by line: `n` lines, a JSON object of at most 64 KiB in each.
    ///
    /// # Errors
    /// The first line that is no JSON object; another number of lines; a read is refused; an
    /// interrupt.
    pub fn scan(&mut self, n: u64, job: Job<'_>) -> Result<(), PayloadError> {
        let path = &self.path;
        let mut lines = BufReader::with_capacity(1 << 20, &self.file);
        let (mut line, mut start, mut found) = (Vec::new(), 0, 0);
        loop {
            if found % ROWS_AT_ONCE == 0 {
                job.tell("checking payloads", found.min(n), n);
                if job.interrupted() {
                    return Err(PayloadError::Interrupted);
                }
            }
            line.clear();
            // Space for the line break; a longer line is refused before it is read.
            let read = lines
                .by_ref()
                .take(MAX_TEXT + 2)
                .read_until(b'\n', &mut line)
                .map_err(PayloadError::io(path, "read"))?;
            if read == 0 {
                break;
            }
            let text = line.trim_ascii();
            let cut = line.len() as u64 > MAX_TEXT && !line.ends_with(b"\n");
            let checked = if cut { Err(too_long()) } else { check_object(text) };
            let wrong = |what| PayloadError::Line { path: path.into(), line: found + 1, what };
            checked.map_err(wrong)?;
            let indent = line.len() - line.trim_ascii_start().len();
            self.starts.push(start + indent as u64);
            self.lengths.push(text.len() as u32);
            self.digest = self.digest.wrapping_add(digest_of(found, text));
            found += 1;
            start += read as u64;
        }
        if found != n {
            return Err(PayloadError::Count { path: path.into(), found, wanted: n });
        }
        Ok(())
    }

    /// Writes the texts into `dir` in the order of the index: id `i` gets line `rows[i]` (from 0).
    ///
    /// # Errors
    /// The disk refuses; the source cannot be read again, or is not what was scanned; an interrupt.
    ///
    /// # Panics
    /// If `rows` is no permutation of the lines.
    pub fn write(
        &self,
        storage: &dyn Storage,
        dir: &Path,
        rows: &[u32],
        job: Job<'_>,
    ) -> Result<[FileEntry; 4], PayloadError> {
        assert_eq!(rows.len(), self.lengths.len(), "as many rows as lines");
        let n = rows.len() as u64;
        let data_bytes = self.lengths.iter().map(|&length| u64::from(length)).sum();
        let shape = ArrayShape { rows: n, stride: 0, data_bytes, first: 0 };
        let mut texts = ArrayWriter::create(storage, dir, ArrayKind::Payload, shape)?;
        let shape = ArrayShape::packed(n + 1, 8);
        let mut offsets = ArrayWriter::create(storage, dir, ArrayKind::PayloadOffsets, shape)?;
        let (mut text, mut offset, mut digest) = (Vec::new(), 0u64, 0u64);
        let changed = || PayloadError::Changed { path: self.path.clone() };
        for (done, &row) in (0..).zip(rows) {
            if done % ROWS_AT_ONCE == 0 {
                job.tell("writing payloads", done, n);
                if job.interrupted() {
                    return Err(PayloadError::Interrupted);
                }
            }
            text.resize(self.lengths[row as usize] as usize, 0);
            let read = self.file.read_exact_at(&mut text, self.starts[row as usize]);
            read.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => changed(),
                _ => PayloadError::io(&self.path, "read")(error),
            })?;
            digest = digest.wrapping_add(digest_of(u64::from(row), &text));
            offsets.append(&offset.to_le_bytes())?;
            texts.append(&text)?;
            offset += text.len() as u64;
        }
        if digest != self.digest {
            return Err(changed());
        }
        offsets.append(&offset.to_le_bytes())?;
        let ([texts, texts_crc], [offsets, offsets_crc]) = (texts.finish()?, offsets.finish()?);
        Ok([texts, texts_crc, offsets, offsets_crc])
    }
}

fn too_long() -> String {
    format!("more than {MAX_TEXT} bytes")
}

/// What is wrong with a line, if it is no JSON object.
fn check_object(text: &[u8]) -> Result<(), String> {
    if text.len() as u64 > MAX_TEXT {
        return Err(too_long());
    }
    let text = std::str::from_utf8(text).map_err(|error| error.to_string())?;
    if !text.starts_with('{') {
        let start: String = text.chars().take(20).collect();
        return Err(format!("starts with {start:?}"));
    }
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|error| error.to_string())
}

/// The texts of an index, on disk; their checksums are in memory.
#[derive(Debug)]
pub struct Payload {
    texts: OpenArray,
    offsets: OpenArray,
}

impl Payload {
    /// Opens the payloads of the index in `dir`, whose manifest says that it has them.
    ///
    /// # Errors
    /// Lengths, headers or checksums contradict each other or the manifest.
    pub fn open(dir: &Path, manifest: &Manifest) -> Result<Payload, OpenError> {
        let texts = OpenArray::open(dir, manifest, ArrayKind::Payload)?;
        let offsets = OpenArray::open(dir, manifest, ArrayKind::PayloadOffsets)?;
        let stride = offsets.header().shape.stride;
        if stride != 8 {
            let what = format!("offsets of {stride} bytes; wanted 8");
            return Err(OpenError::damaged(offsets.path(), 0, what));
        }
        Ok(Payload { texts, offsets })
    }

    /// Bytes of checksums in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.texts.crc_bytes() + self.offsets.crc_bytes()
    }

    /// The JSON text of a row, and how many 4 KiB blocks were read for it. Two reads, each block
    /// verified.
    ///
    /// # Errors
    /// A block contradicts its checksum; offsets or text make no sense; a read is refused.
    ///
    /// # Panics
    /// If the id is not below the number of rows.
    pub fn get(&self, id: u32) -> Result<(String, u32), OpenError> {
        let offsets = self.offsets_of(u64::from(id)..u64::from(id) + 1)?;
        let (start, end) = (offsets[0], offsets[1]);
        self.check_span(u64::from(id), start..end)?;
        let at = u64::from(id) * 8;
        let reads = self.offsets.blocks_of(&(at..at + 16)) + self.texts.blocks_of(&(start..end));
        String::from_utf8(self.texts.read_range(start..end)?)
            .map(|text| (text, reads as u32))
            .map_err(|error| OpenError::damaged(self.texts.path(), start, error.to_string()))
    }

    /// Where the texts of some rows start, and where the last one ends.
    fn offsets_of(&self, ids: Range<u64>) -> Result<Vec<u64>, OpenError> {
        let bytes = self.offsets.read_range(ids.start * 8..(ids.end + 1) * 8)?;
        Ok(bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect())
    }

    /// Whether a text may lie where the offsets of row `id` say.
    fn check_span(&self, id: u64, span: Range<u64>) -> Result<(), OpenError> {
        let (Range { start, end }, held) = (span, self.texts.header().shape.data_bytes);
        if start <= end && end <= held && end - start <= MAX_TEXT {
            return Ok(());
        }
        let what = format!("text from {start} to {end}; wanted at most 64 KiB within {held}");
        let offset = id * 8 + u64::from(self.offsets.header().data_offset);
        Err(OpenError::damaged(self.offsets.path(), offset, what))
    }

    /// The first text of `n` that is no JSON object, in words; `None` if all are sound. Reads all.
    ///
    /// # Errors
    /// A read is refused; an interrupt.
    pub(crate) fn unsound(&self, n: u64, job: Job<'_>) -> Result<Option<String>, OpenError> {
        for first in (0..n).step_by(ROWS_AT_ONCE as usize) {
            job.tell("checking payloads", first, n);
            if job.interrupted() {
                return Err(OpenError::Interrupted);
            }
            match self.check_texts(first..n.min(first + ROWS_AT_ONCE)) {
                Err(error) if error.is_damage() => return Ok(Some(error.to_string())),
                checked => checked?,
            }
        }
        Ok(None)
    }

    fn check_texts(&self, ids: Range<u64>) -> Result<(), OpenError> {
        let offsets = self.offsets_of(ids.clone())?;
        for (id, pair) in ids.clone().zip(offsets.windows(2)) {
            self.check_span(id, pair[0]..pair[1])?;
        }
        let first = offsets[0];
        let texts = self.texts.read_range(first..offsets[offsets.len() - 1])?;
        for (id, pair) in ids.zip(offsets.windows(2)) {
            let text = &texts[(pair[0] - first) as usize..(pair[1] - first) as usize];
            check_object(text).map_err(|what| {
                let at = pair[0] + u64::from(self.texts.header().data_offset);
                let what = format!("text of row {id} {what}; wanted a JSON object");
                OpenError::damaged(self.texts.path(), at, what)
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::disk::{Disk, sample};

    fn source(dir: &Path, text: &str, n: u64) -> Result<PayloadSource, PayloadError> {
        let path = dir.join("source.jsonl");
        fs::write(&path, text).unwrap();
        let mut source = PayloadSource::open(&path)?;
        source.scan(n, Job::default())?;
        Ok(source)
    }

    #[test]
    fn texts_come_back_in_the_order_of_ids() {
        let dir = tempfile::tempdir().unwrap();
        let text =
            |row: u32| format!("{{\"row\": {row}, \"é\": \"{}\"}}", "x".repeat(row as usize));
        let lines: Vec<String> = (0..300).map(|row| format!(" {}\r\n", text(row))).collect();
        let rows: Vec<u32> = (0..300).map(|id| id * 7 % 300).collect();
        let files = source(dir.path(), lines.concat().trim_end(), 300)
            .unwrap()
            .write(&Disk, dir.path(), &rows, Job::default())
            .unwrap();
        let manifest = Manifest { n: 300, files: files.into(), ..sample::manifest() };
        let payload = Payload::open(dir.path(), &manifest).unwrap();
        for (id, &row) in rows.iter().enumerate() {
            assert_eq!(payload.get(id as u32).unwrap().0, text(row));
        }
    }

    #[test]
    fn damage_is_found_by_the_row_it_touches() {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("{{\"pad\":\"{}\"}}\n", "x".repeat(5000));
        let source = source(dir.path(), &line.repeat(2), 2).unwrap();
        let files = source.write(&Disk, dir.path(), &[1, 0], Job::default()).unwrap();
        let manifest = Manifest { n: 2, files: files.into(), ..sample::manifest() };
        let file = fs::OpenOptions::new().write(true).open(dir.path().join("payload.bin")).unwrap();
        file.write_all_at(b"y", 9000).unwrap();
        let payload = Payload::open(dir.path(), &manifest).unwrap();
        payload.get(0).unwrap();
        let error = payload.get(1).unwrap_err().to_string();
        assert!(error.contains("payload.bin: damaged at byte 8192"), "{error}");
    }

    #[test]
    fn lines_that_are_no_object_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |text: &str| source(dir.path(), text, 2).err().unwrap().to_string();
        assert!(refused("{}\n[1]\n").contains("line 2: starts with \"[1]\""));
        assert!(refused("{}\n\n").contains("line 2: starts with \"\""));
        assert!(refused("{\"a\":}\n{}\n").contains("line 1: expected value"));
        assert!(refused("{}\n{} {}\n").contains("line 2: trailing characters"));
        assert!(refused("{}\n").contains("1 lines; wanted 2"));
        assert!(refused("{}\n{}\n{}\n").contains("3 lines; wanted 2"));
        let long = format!("{{}}\n{{\"a\":\"{}\"}}\n", "x".repeat(70_000));
        assert!(refused(&long).contains("line 2: more than 65536 bytes"));
        let padded = format!("{{}}{}\n", " ".repeat(70_000));
        assert!(refused(&padded).contains("line 1: more than 65536 bytes"));
        let missing = PayloadSource::open(&dir.path().join("gone")).err().unwrap();
        assert_eq!(missing.kind(), ErrorKind::NoInput);
    }

    #[test]
    fn texts_of_the_largest_size_pass() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_TEXT as usize - 8));
        assert_eq!(text.len() as u64, MAX_TEXT);
        let files = source(dir.path(), &format!("{text}\r\n"), 1)
            .unwrap()
            .write(&Disk, dir.path(), &[0], Job::default())
            .unwrap();
        let manifest = Manifest { n: 1, files: files.into(), ..sample::manifest() };
        let (found, reads) = Payload::open(dir.path(), &manifest).unwrap().get(0).unwrap();
        // The text starts behind the header: it lies on 17 blocks. Its offsets lie on one.
        assert_eq!((found, reads), (text, 18));
    }

    #[test]
    fn a_source_that_changes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source.jsonl");
        let lines = "{\"a\": 1}\n{\"a\": 2}\n";
        for (changed, is_refused) in [
            (lines, false),
            // Of the same length: JSON, no JSON, and the lines swapped.
            ("{\"a\": 1}\n{\"a\": 3}\n", true),
            ("{\"a\": 1}\nxxxxxxxx\n", true),
            ("{\"a\": 2}\n{\"a\": 1}\n", true),
            ("{\"a\": 1}\n", true),
        ] {
            let source = source(dir.path(), lines, 2).unwrap();
            fs::write(&path, changed).unwrap();
            let out = tempfile::tempdir().unwrap();
            let written = source.write(&Disk, out.path(), &[1, 0], Job::default());
            assert_eq!(written.is_err(), is_refused, "{changed:?}");
            if let Err(error) = written {
                assert_eq!(error.kind(), ErrorKind::BadData);
                assert!(error.to_string().ends_with("source.jsonl: changed while it was read"));
            }
        }
    }

    #[test]
    fn texts_that_are_no_objects_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let sound: String = (0..1_200).map(|row| format!("{{\"row\": {row}}}\n")).collect();
        let rows: Vec<u32> = (0..1_200).collect();
        let source = source(dir.path(), &sound, 1_200).unwrap();
        let files = source.write(&Disk, dir.path(), &rows, Job::default()).unwrap();
        let manifest = Manifest { n: 1_200, files: files.into(), ..sample::manifest() };
        let payload = Payload::open(dir.path(), &manifest).unwrap();
        assert_eq!(payload.unsound(1_200, Job::default()).unwrap(), None);
        // As an index would hold it whose source changed between its checks and its writing.
        let out = tempfile::tempdir().unwrap();
        let broken = sound.replacen("{\"row\": 1100}", "{\"row\": 110x}", 1);
        fs::write(dir.path().join("source.jsonl"), broken).unwrap();
        let written = fs::read_to_string(&source.path).unwrap();
        let digest = (0..).zip(written.lines());
        let digest = digest.map(|(row, line)| digest_of(row, line.as_bytes()));
        let digest = digest.fold(0, u64::wrapping_add);
        let source = PayloadSource { digest, ..source };
        let files = source.write(&Disk, out.path(), &rows, Job::default()).unwrap();
        let manifest = Manifest { files: files.into(), ..manifest };
        let payload = Payload::open(out.path(), &manifest).unwrap();
        let found = payload.unsound(1_200, Job::default()).unwrap().unwrap();
        assert!(found.contains("text of row 1100") && found.contains("a JSON object"), "{found}");
    }

    #[test]
    fn a_pipe_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        let error = PayloadSource::open(&path).err().unwrap();
        assert!(error.to_string().ends_with("pipe: is a pipe; wanted a regular file"), "{error}");
        assert_eq!(error.kind(), ErrorKind::NoInput);
    }
}
