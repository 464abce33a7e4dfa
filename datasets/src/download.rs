//! Fetching a file over http: goes on where it stopped, and appears only when it is whole.
//!
//! While it is fetched, `NAME` is called `NAME.part`; beside it, `NAME.part.of` says what it is a
//! part of. If the server's file is another one when the fetch goes on, it starts anew.

mod part;
mod response;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::StatusCode;

use crate::error::FileError;
use part::{Of, Part};
use response::Answer;

/// How long a server may stay silent.
const PATIENCE: Duration = Duration::from_secs(60);
const BUFFER_BYTES: usize = 256 << 10;

/// What to fetch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted<'a> {
    /// Where it is: http or https.
    pub url: &'a str,
    /// SHA-256 of the whole file, in hexadecimal, where known.
    pub sha256: Option<&'a str>,
    /// Only the beginning of the file.
    pub first: Option<FirstRows>,
}

/// The beginning of a big-ann file: its header and its first rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FirstRows {
    /// How many rows; the header that is written says so.
    pub rows: u32,
    /// Bytes of the header and these rows.
    pub bytes: u64,
}

/// What was fetched.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// The length in bytes.
    pub bytes: u64,
    /// SHA-256 of the file as it is now, in hexadecimal.
    pub sha256: String,
}

/// Why a file was not fetched; displayed as one clear line.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The server cannot be reached, or does not answer.
    #[error("{url}: cannot be fetched: {reason}")]
    Unreachable {
        /// The file.
        url: String,
        /// What went wrong.
        reason: Box<ureq::Error>,
    },
    /// The address is of a kind that is not fetched here.
    #[error("{url}: found an address of another kind; wanted http or https")]
    Scheme {
        /// The file.
        url: String,
    },
    /// The server refuses.
    #[error("{url}: the server answers {status}; wanted the file")]
    Status {
        /// The file.
        url: String,
        /// The status, in number and words.
        status: StatusCode,
    },
    /// The server sent something other than what was requested.
    #[error("{url}: found {found}; wanted {wanted}")]
    Answer {
        /// The file.
        url: String,
        /// What it sent.
        found: String,
        /// What it should have sent.
        wanted: String,
    },
    /// The connection broke. What came so far is kept.
    #[error("{url}: the connection ended after {found} bytes; wanted {wanted}; fetch again")]
    Short {
        /// The file.
        url: String,
        /// How many bytes there are now.
        found: u64,
        /// How many there should be, if the server said.
        wanted: String,
    },
    /// The file is whole, and another one. It was removed.
    #[error("{url}: found SHA-256 {found}; wanted {wanted}; nothing was kept")]
    Checksum {
        /// The file.
        url: String,
        /// What was computed.
        found: String,
        /// What is known.
        wanted: String,
    },
    /// Something is wrong with the file that is written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Fetches a file to `to`, which must not exist yet. `tell` hears how many bytes there are, and of
/// how many if the server says so. Two fetches of one name do not meet.
///
/// # Errors
/// The server cannot be reached, refuses, or breaks off; the checksum differs; `to` exists or
/// cannot be written, as on a full disk; another process fetches it. A part that can be gone on
/// with stays, and nothing else does.
pub fn fetch(
    wanted: &Wanted<'_>,
    to: &Path,
    tell: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Fetched, DownloadError> {
    if !["http://", "https://"].iter().any(|scheme| wanted.url.starts_with(scheme)) {
        return Err(DownloadError::Scheme { url: wanted.url.into() });
    }
    if std::fs::symlink_metadata(to).is_ok() {
        return Err(FileError::Exists { path: to.into() }.into());
    }
    let mut part = Part::open(to)?;
    if !part.is_whole() {
        let received = receive(wanted, &mut part, tell);
        if received.is_err() && part.len() == 0 {
            part.remove()?;
        }
        received?;
    }
    if let Some(first) = wanted.first {
        let written = part.file().write_all_at(&first.rows.to_le_bytes(), 0);
        written.map_err(|source| part.cannot_write(source))?;
    }
    let sha256 = sha256(part.file(), part.path())?;
    if let Some(known) = wanted.sha256
        && !known.eq_ignore_ascii_case(&sha256)
    {
        part.remove()?;
        let (url, wanted) = (wanted.url.into(), known.into());
        return Err(DownloadError::Checksum { url, found: sha256, wanted });
    }
    let bytes = part.len();
    part.publish(to)?;
    Ok(Fetched { bytes, sha256 })
}

/// Asks for what is missing and writes it until the part is whole.
fn receive(
    wanted: &Wanted<'_>,
    part: &mut Part,
    tell: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), DownloadError> {
    let url = wanted.url;
    let most = wanted.first.map_or(u64::MAX, |first| first.bytes);
    let mut answer = Answer::to(&agent(), wanted, part)?;
    if answer.from == 0 {
        part.restart(&answer.of)?;
    }
    let total = answer.of.total;
    tell(part.len(), total);
    let left = total.map_or(most, |total| total.min(most)).saturating_sub(part.len());
    let mut body = answer.body.as_reader().take(left);
    let mut buffer = vec![0; BUFFER_BYTES];
    let short = |found: u64| DownloadError::Short {
        url: url.into(),
        found,
        wanted: total.map_or("more".into(), |total| total.to_string()),
    };
    loop {
        match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => part.append(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(short(part.len())),
        }
        tell(part.len(), total);
    }
    let whole = total.unwrap_or(wanted.first.map_or(part.len(), |first| first.bytes));
    if part.len() != whole {
        return Err(short(part.len()));
    }
    part.now_whole(&Of { total: Some(whole), ..answer.of })?;
    Ok(())
}

fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("foveal/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE));
    config.build().new_agent()
}

/// SHA-256 of a file from its first byte, in hexadecimal.
fn sha256(file: &File, path: &Path) -> Result<String, FileError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = 0;
    loop {
        let count = file
            .read_at(&mut buffer, offset)
            .map_err(|source| FileError::Read { path: path.into(), source })?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        offset += count as u64;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
