//! What does the caller say about a row? An optional JSON object a row, kept on disk as text.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foveal_datasets::ErrorKind;
use serde::de::IgnoredAny;

use crate::disk::{
    ArrayKind, ArrayShape, ArrayWriter, FileEntry, Manifest, OpenArray, OpenError, Storage,
    WriteError,
};

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
            PayloadError::Line { .. } | PayloadError::Count { .. } => ErrorKind::BadData,
            PayloadError::Write(error) => error.kind(),
        }
    }

    fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> PayloadError {
        move |source| PayloadError::Io { path: path.into(), op, source }
    }
}

/// A file with one JSON object a line, found to be well formed. Remembers where each line is:
/// 12 bytes a row.
pub struct PayloadSource {
    path: PathBuf,
    file: File,
    starts: Vec<u64>,
    lengths: Vec<u32>,
}

impl PayloadSource {
    /// Reads the file once, line by line: `n` lines, a JSON object of at most 64 KiB in each.
    ///
    /// # Errors
    /// The first line that is no JSON object; another number of lines; a read is refused.
    pub fn open(path: &Path, n: u64) -> Result<PayloadSource, PayloadError> {
        let file = File::open(path).map_err(PayloadError::io(path, "open"))?;
        let mut source =
            PayloadSource { path: path.into(), file, starts: Vec::new(), lengths: Vec::new() };
        let file = source.file.try_clone().map_err(PayloadError::io(path, "open"))?;
        let mut lines = BufReader::with_capacity(1 << 20, file);
        let (mut line, mut start, mut found) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            // Room for the line break; a longer line is refused before it is read.
            let read = lines
                .by_ref()
                .take(MAX_TEXT + 2)
                .read_until(b'\n', &mut line)
                .map_err(PayloadError::io(path, "read"))?;
            if read == 0 {
                break;
            }
            found += 1;
            let text = line.trim_ascii();
            let cut = line.len() as u64 > MAX_TEXT && !line.ends_with(b"\n");
            let checked = if cut { Err(too_long()) } else { check_object(text) };
            checked.map_err(|what| PayloadError::Line { path: path.into(), line: found, what })?;
            let indent = line.len() - line.trim_ascii_start().len();
            source.starts.push(start + indent as u64);
            source.lengths.push(text.len() as u32);
            start += read as u64;
        }
        if found != n {
            return Err(PayloadError::Count { path: path.into(), found, wanted: n });
        }
        Ok(source)
    }

    /// Writes the texts into `dir` in the order of the index: id `i` gets line `rows[i]` (from 0).
    ///
    /// # Errors
    /// The disk refuses; the source cannot be read again.
    ///
    /// # Panics
    /// If `rows` is no permutation of the lines.
    pub fn write(
        &self,
        storage: &dyn Storage,
        dir: &Path,
        rows: &[u32],
    ) -> Result<[FileEntry; 4], PayloadError> {
        assert_eq!(rows.len(), self.lengths.len(), "as many rows as lines");
        let n = rows.len() as u64;
        let data_bytes = self.lengths.iter().map(|&length| u64::from(length)).sum();
        let shape = ArrayShape { rows: n, stride: 0, data_bytes, first: 0 };
        let mut texts = ArrayWriter::create(storage, dir, ArrayKind::Payload, shape)?;
        let shape = ArrayShape::packed(n + 1, 8);
        let mut offsets = ArrayWriter::create(storage, dir, ArrayKind::PayloadOffsets, shape)?;
        let (mut text, mut offset) = (Vec::new(), 0u64);
        for &row in rows {
            text.resize(self.lengths[row as usize] as usize, 0);
            self.file
                .read_exact_at(&mut text, self.starts[row as usize])
                .map_err(PayloadError::io(&self.path, "read"))?;
            offsets.append(&offset.to_le_bytes())?;
            texts.append(&text)?;
            offset += text.len() as u64;
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
        let at = u64::from(id) * 8;
        let pair = self.offsets.read_range(at..at + 16)?;
        let pair: [u64; 2] = bytemuck::pod_read_unaligned(&pair);
        let [start, end] = pair;
        let held = self.texts.header().shape.data_bytes;
        if start > end || end > held || end - start > MAX_TEXT {
            let what = format!("text from {start} to {end}; wanted at most 64 KiB within {held}");
            let offset = at + u64::from(self.offsets.header().data_offset);
            return Err(OpenError::damaged(self.offsets.path(), offset, what));
        }
        let reads = self.offsets.blocks_of(&(at..at + 16)) + self.texts.blocks_of(&(start..end));
        String::from_utf8(self.texts.read_range(start..end)?)
            .map(|text| (text, reads as u32))
            .map_err(|error| OpenError::damaged(self.texts.path(), start, error.to_string()))
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
        PayloadSource::open(&path, n)
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
            .write(&Disk, dir.path(), &rows)
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
        let files = source.write(&Disk, dir.path(), &[1, 0]).unwrap();
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
        let missing = PayloadSource::open(&dir.path().join("gone"), 1).err().unwrap();
        assert_eq!(missing.kind(), ErrorKind::NoInput);
    }

    #[test]
    fn texts_of_the_largest_size_pass() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_TEXT as usize - 8));
        assert_eq!(text.len() as u64, MAX_TEXT);
        let files = source(dir.path(), &format!("{text}\r\n"), 1)
            .unwrap()
            .write(&Disk, dir.path(), &[0])
            .unwrap();
        let manifest = Manifest { n: 1, files: files.into(), ..sample::manifest() };
        let (found, reads) = Payload::open(dir.path(), &manifest).unwrap().get(0).unwrap();
        // The text starts behind the header: it lies on 17 blocks. Its offsets lie on one.
        assert_eq!((found, reads), (text, 18));
    }
}
