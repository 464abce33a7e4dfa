//! What does the caller say about a row? An optional JSON object a row, kept on disk as text.

mod source;

pub use source::{JsonLines, PayloadError, PayloadSource};
pub(crate) use source::{check_count, check_each};

use std::ops::Range;
use std::path::Path;

use serde::de::IgnoredAny;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::disk::{
    ArrayKind, ArrayShape, ArrayWriter, FileEntry, Manifest, OpenArray, OpenError, Storage,
};
use crate::stats::Job;

/// Rows looked at between two looks at the clock, or the caller's wish to end.
const ROWS_AT_ONCE: u64 = 512;

/// The longest JSON text of a row, in bytes.
pub const MAX_TEXT: u64 = 64 << 10;

/// The xxh3 of a text with the number of its row; the sum over all rows is their digest, in
/// whatever order they are read.
fn digest_of(row: u64, text: &[u8]) -> u64 {
    xxh3_64_with_seed(text, row)
}

/// Writes texts into `dir` in the order of the index: id `i` gets the text of row `rows[i]`. Their
/// digest must be `checked`.
///
/// # Errors
/// The disk refuses; the source cannot be read again, or is not what was checked; an interrupt.
pub(crate) fn write_payloads(
    source: (&dyn PayloadSource, u64),
    (storage, dir): (&dyn Storage, &Path),
    rows: &[u32],
    job: Job<'_>,
) -> Result<[FileEntry; 4], PayloadError> {
    let ((source, checked), n) = (source, rows.len() as u64);
    let shape = ArrayShape { rows: n, stride: 0, data_bytes: source.bytes(), first: 0 };
    let mut texts = ArrayWriter::create(storage, dir, ArrayKind::Payload, shape)?;
    let shape = ArrayShape::packed(n + 1, 8);
    let mut offsets = ArrayWriter::create(storage, dir, ArrayKind::PayloadOffsets, shape)?;
    let (mut text, mut offset, mut digest) = (Vec::new(), 0u64, 0u64);
    let changed = || PayloadError::Changed { path: source.path().into() };
    for (done, &row) in (0..).zip(rows) {
        if done % ROWS_AT_ONCE == 0 {
            job.tell("writing payloads", done, n);
            if job.interrupted() {
                return Err(PayloadError::Interrupted);
            }
        }
        source.read(row, &mut text)?;
        digest = digest.wrapping_add(digest_of(u64::from(row), &text));
        offset += text.len() as u64;
        if offset > source.bytes() {
            return Err(changed());
        }
        offsets.append(&(offset - text.len() as u64).to_le_bytes())?;
        texts.append(&text)?;
    }
    if digest != checked {
        return Err(changed());
    }
    offsets.append(&offset.to_le_bytes())?;
    let ([texts, texts_crc], [offsets, offsets_crc]) = (texts.finish()?, offsets.finish()?);
    Ok([texts, texts_crc, offsets, offsets_crc])
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
    use std::os::unix::fs::FileExt;

    use foveal_datasets::ErrorKind;

    use super::*;
    use crate::disk::{Disk, sample};

    /// A source that was checked, and its digest.
    fn source(dir: &Path, text: &str, n: u64) -> Result<(JsonLines, u64), PayloadError> {
        let path = dir.join("source.jsonl");
        fs::write(&path, text).unwrap();
        let source = JsonLines::open(&path)?;
        let digest = source.check(n, Job::default())?;
        Ok((source, digest))
    }

    fn write(
        (source, digest): &(JsonLines, u64),
        dir: &Path,
        rows: &[u32],
    ) -> Result<[FileEntry; 4], PayloadError> {
        write_payloads((source, *digest), (&Disk, dir), rows, Job::default())
    }

    #[test]
    fn texts_come_back_in_the_order_of_ids() {
        let dir = tempfile::tempdir().unwrap();
        let text =
            |row: u32| format!("{{\"row\": {row}, \"é\": \"{}\"}}", "x".repeat(row as usize));
        let lines: Vec<String> = (0..300).map(|row| format!(" {}\r\n", text(row))).collect();
        let rows: Vec<u32> = (0..300).map(|id| id * 7 % 300).collect();
        let source = source(dir.path(), lines.concat().trim_end(), 300).unwrap();
        let files = write(&source, dir.path(), &rows).unwrap();
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
        let files = write(&source, dir.path(), &[1, 0]).unwrap();
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
        let copy = dir.path().join("copy.jsonl");
        fs::write(&copy, "{}\n[1]\n").unwrap();
        let copy = JsonLines::open(&copy).unwrap().copied_from(Path::new("table"));
        let error = copy.check(2, Job::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData);
        assert!(error.to_string().starts_with("table: row 1: starts with"), "{error}");
        let missing = JsonLines::open(&dir.path().join("gone")).err().unwrap();
        assert_eq!(missing.kind(), ErrorKind::NoInput);
    }

    #[test]
    fn texts_of_the_largest_size_pass() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_TEXT as usize - 8));
        assert_eq!(text.len() as u64, MAX_TEXT);
        let source = source(dir.path(), &format!("{text}\r\n"), 1).unwrap();
        let files = write(&source, dir.path(), &[0]).unwrap();
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
            let written = write(&source, out.path(), &[1, 0]);
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
        let files = write(&source, dir.path(), &rows).unwrap();
        let manifest = Manifest { n: 1_200, files: files.into(), ..sample::manifest() };
        let payload = Payload::open(dir.path(), &manifest).unwrap();
        assert_eq!(payload.unsound(1_200, Job::default()).unwrap(), None);
        // As an index would hold it whose source changed between its checks and its writing.
        let out = tempfile::tempdir().unwrap();
        let broken = sound.replacen("{\"row\": 1100}", "{\"row\": 110x}", 1);
        fs::write(dir.path().join("source.jsonl"), broken).unwrap();
        let written = fs::read_to_string(source.0.path()).unwrap();
        let digest = (0..).zip(written.lines());
        let digest = digest.map(|(row, line)| digest_of(row, line.as_bytes()));
        let digest = digest.fold(0, u64::wrapping_add);
        let source = (source.0, digest);
        let files = write(&source, out.path(), &rows).unwrap();
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
        let error = JsonLines::open(&path).err().unwrap();
        assert!(error.to_string().ends_with("pipe: is a pipe; wanted a regular file"), "{error}");
        assert_eq!(error.kind(), ErrorKind::NoInput);
    }
}
