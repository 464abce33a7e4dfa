//! Where payloads come from: a file of JSON lines, memory, an index, several of these.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use foveal_datasets::ErrorKind;
use foveal_datasets::regular_file::{self, NotOpened};
use rustix::fs::OFlags;

use super::{MAX_TEXT, ROWS_AT_ONCE, check_object, digest_of, too_long};
use crate::disk::{OpenError, WriteError};
use crate::stats::Job;

/// JSON objects, one for each row of a build, read by row number.
pub trait PayloadSource: Debug + Send + Sync {
    /// What messages call them: the path of a file.
    fn path(&self) -> &Path;

    /// How many rows there are, and whether each has a JSON object of at most [`MAX_TEXT`] bytes.
    /// Called once before any text is read; the digest of all texts.
    ///
    /// # Errors
    /// Another number of rows than `n`; the first text that is no JSON object; a read is refused;
    /// an interrupt.
    fn check(&self, n: u64, job: Job<'_>) -> Result<u64, PayloadError>;

    /// Bytes of all texts, once they were checked.
    fn bytes(&self) -> u64;

    /// Reads the text of a row into `text`, and nothing else.
    ///
    /// # Errors
    /// A read is refused; a source that changed.
    fn read(&self, row: u32, text: &mut Vec<u8>) -> Result<(), PayloadError>;

    /// Bytes of memory a row that it takes once it was checked.
    fn memory_per_row(&self) -> u64 {
        0
    }
}

/// Why payloads cannot be taken from a source.
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
    /// The caller cancelled.
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
    /// The text of a row is no JSON object.
    #[error("{}: row {row}: {what}; wanted a JSON object", path.display())]
    Row {
        /// The source.
        path: PathBuf,
        /// The row, from 0.
        row: u64,
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
    /// An index that should have payloads has none.
    #[error("{}: has no payloads; wanted one for each row", path.display())]
    None {
        /// The index.
        path: PathBuf,
    },
    /// The payloads of an index cannot be read.
    #[error(transparent)]
    Open(#[from] OpenError),
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
            | PayloadError::Row { .. }
            | PayloadError::Count { .. }
            | PayloadError::Changed { .. } => ErrorKind::BadData,
            PayloadError::Interrupted => ErrorKind::Interrupted,
            PayloadError::Open(error) => error.kind(),
            PayloadError::None { .. } => ErrorKind::BadData,
            PayloadError::Write(error) => error.kind(),
        }
    }

    fn io(path: &Path, op: &'static str) -> impl FnOnce(io::Error) -> PayloadError {
        move |source| PayloadError::Io { path: path.into(), op, source }
    }
}

/// A file with one JSON object a line.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: File,
    /// Whether `path` is a file of rows that the lines were copied from.
    is_copy: bool,
    /// Where each line is, once they were checked: 12 bytes a row.
    lines: RwLock<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    starts: Vec<u64>,
    lengths: Vec<u32>,
    bytes: u64,
}

impl JsonLines {
    /// Opens the file, and reads nothing of it yet.
    ///
    /// # Errors
    /// No regular file; the operating system refuses.
    pub fn open(path: &Path) -> Result<JsonLines, PayloadError> {
        let file = regular_file::open(path, OFlags::empty()).map_err(|refused| match refused {
            NotOpened::NotRegular(found) => PayloadError::NotAFile { path: path.into(), found },
            NotOpened::Refused(error) => PayloadError::io(path, "open")(error),
        })?;
        Ok(JsonLines { path: path.into(), file, is_copy: false, lines: RwLock::default() })
    }

    /// The same lines, as a copy of rows of the file `path`: messages name that, and its rows.
    #[must_use]
    pub fn copied_from(self, path: &Path) -> JsonLines {
        JsonLines { path: path.into(), is_copy: true, ..self }
    }

    /// Goes over the file, line by line; where the lines are, and their digest.
    fn scan(&self, n: u64, job: Job<'_>) -> Result<(Lines, u64), PayloadError> {
        let (path, mut file) = (&self.path, &self.file);
        io::Seek::rewind(&mut file).map_err(PayloadError::io(path, "read"))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let (mut lines, mut digest) = (Lines::default(), 0u64);
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
            let read = reader
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
            let wrong = |what| match self.is_copy {
                true => PayloadError::Row { path: path.into(), row: found, what },
                false => PayloadError::Line { path: path.into(), line: found + 1, what },
            };
            checked.map_err(wrong)?;
            let indent = line.len() - line.trim_ascii_start().len();
            lines.starts.push(start + indent as u64);
            lines.lengths.push(text.len() as u32);
            lines.bytes += text.len() as u64;
            digest = digest.wrapping_add(digest_of(found, text));
            found += 1;
            start += read as u64;
        }
        check_count(self, found, n)?;
        Ok((lines, digest))
    }
}

impl PayloadSource for JsonLines {
    fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self, n: u64, job: Job<'_>) -> Result<u64, PayloadError> {
        let (lines, digest) = self.scan(n, job)?;
        *self.lines.write().unwrap_or_else(PoisonError::into_inner) = lines;
        Ok(digest)
    }

    fn bytes(&self) -> u64 {
        self.lines.read().unwrap_or_else(PoisonError::into_inner).bytes
    }

    fn read(&self, row: u32, text: &mut Vec<u8>) -> Result<(), PayloadError> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        text.resize(lines.lengths[row as usize] as usize, 0);
        let read = self.file.read_exact_at(text, lines.starts[row as usize]);
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => PayloadError::Changed { path: self.path.clone() },
            _ => PayloadError::io(&self.path, "read")(error),
        })
    }

    fn memory_per_row(&self) -> u64 {
        12
    }
}

/// Texts in memory.
impl<T: AsRef<str> + Debug + Send + Sync> PayloadSource for Vec<T> {
    fn path(&self) -> &Path {
        Path::new("payloads in memory")
    }

    fn check(&self, n: u64, job: Job<'_>) -> Result<u64, PayloadError> {
        check_count(self, self.len() as u64, n)?;
        Ok(check_each(self, n, job)?.0)
    }

    fn bytes(&self) -> u64 {
        self.iter().map(|text| text.as_ref().len() as u64).sum()
    }

    fn read(&self, row: u32, text: &mut Vec<u8>) -> Result<(), PayloadError> {
        text.clear();
        text.extend_from_slice(self[row as usize].as_ref().as_bytes());
        Ok(())
    }
}

/// What `check` has to find of a source that has `found` rows.
pub(crate) fn check_count(
    source: &dyn PayloadSource,
    found: u64,
    wanted: u64,
) -> Result<(), PayloadError> {
    match found == wanted {
        true => Ok(()),
        false => Err(PayloadError::Count { path: source.path().into(), found, wanted }),
    }
}

/// Reads the texts of all `n` rows: their digest and their bytes.
///
/// # Errors
/// As [`PayloadSource::check`].
pub(crate) fn check_each(
    source: &dyn PayloadSource,
    n: u64,
    job: Job<'_>,
) -> Result<(u64, u64), PayloadError> {
    let (mut text, mut digest, mut bytes) = (Vec::new(), 0u64, 0);
    for row in 0..n {
        if row % ROWS_AT_ONCE == 0 {
            job.tell("checking payloads", row, n);
            if job.interrupted() {
                return Err(PayloadError::Interrupted);
            }
        }
        source.read(row as u32, &mut text)?;
        check_object(&text).map_err(|what| PayloadError::Line {
            path: source.path().into(),
            line: row + 1,
            what,
        })?;
        digest = digest.wrapping_add(digest_of(row, &text));
        bytes += text.len() as u64;
    }
    Ok((digest, bytes))
}
