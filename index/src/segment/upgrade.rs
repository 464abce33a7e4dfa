//! An index of an earlier format version -> one that this program reads.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use foveal_datasets::ErrorKind;

use crate::disk::blob_file::META;
use crate::disk::copy::CopyError;
use crate::disk::{
    Disk, FORMAT_VERSION, Manifest, Measured, OpenError, Publication, PublishError, Storage,
    WriteError, copy_file, format7, read_bare_meta, strangers, write_meta,
};
use crate::key_table::{KeyTable, write_order};
use crate::stats::Job;

use super::open;

/// Why an index was not upgraded. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The index has this program's format version already, or one that it cannot rewrite; is
    /// damaged; or cannot be read.
    #[error(transparent)]
    Open(OpenError),
    /// A file of the new index cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The index has this program's format version already, and another directory was wanted.
    #[error(
        "{}: has format version {FORMAT_VERSION} already; nothing to write to another directory",
        path.display()
    )]
    Current {
        /// The index.
        path: PathBuf,
    },
    /// The directory holds something that is no part of the index, and would be removed with it.
    #[error(
        "{}: not a file of this index, and an upgrade in place would remove it; wanted none, or \
         another directory for the new index (--out)",
        path.display()
    )]
    Stranger {
        /// The first such entry.
        path: PathBuf,
    },
    /// The new index cannot take its place.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The caller cancelled.
    #[error("interrupted")]
    Interrupted,
}

impl UpgradeError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            UpgradeError::Open(error) => error.kind(),
            UpgradeError::Write(error) => error.kind(),
            UpgradeError::Publish(error) => error.kind(),
            UpgradeError::Current { .. } => ErrorKind::Usage,
            UpgradeError::Stranger { .. } => ErrorKind::CannotCreate,
            UpgradeError::Interrupted => ErrorKind::Interrupted,
        }
    }
}

impl From<OpenError> for UpgradeError {
    fn from(error: OpenError) -> UpgradeError {
        match error {
            OpenError::Interrupted => UpgradeError::Interrupted,
            error => UpgradeError::Open(error),
        }
    }
}

impl From<CopyError> for UpgradeError {
    fn from(error: CopyError) -> UpgradeError {
        match error {
            CopyError::Open(error) => error.into(),
            CopyError::Write(error) => error.into(),
        }
    }
}

/// What an upgrade did.
#[derive(Clone, Debug, PartialEq)]
pub struct Upgraded {
    /// The format version that the index had.
    pub from: u32,
    /// Its manifest now.
    pub manifest: Manifest,
}

/// Rewrites the index in `dir` in the format of this program: as the new directory `out`, or in
/// place of the old one. The new index is the one that a build of the same rows would give, unless
/// the old one was built with a shift, which no build has any more. It is opened, and on the
/// device, before it appears in one step. Takes as much disk as the index has until it is done.
/// `None` where the index has this program's format version already: nothing is done then but to
/// remove what a killed upgrade left beside it.
///
/// # Errors
/// No index there; a version that cannot be rewritten, or needs not be but `out` is given; the
/// first damage found; something in `dir` that is no part of the index, and would go with it; the
/// disk refuses; an interrupt. The old index is as it was.
pub fn upgrade(
    dir: &Path,
    out: Option<&Path>,
    job: Job<'_>,
) -> Result<Option<Upgraded>, UpgradeError> {
    upgrade_on(&Disk, dir, out, job)
}

/// As [`upgrade`], writing to another storage.
pub(crate) fn upgrade_on(
    storage: &dyn Storage,
    dir: &Path,
    out: Option<&Path>,
    job: Job<'_>,
) -> Result<Option<Upgraded>, UpgradeError> {
    match (Manifest::read(dir), out) {
        (Ok(_), Some(_)) => return Err(UpgradeError::Current { path: dir.into() }),
        (Ok(_), None) => {
            Publication::clear_after_replacing(storage, &resolved(dir)?);
            return Ok(None);
        }
        (Err(OpenError::Version { found: format7::VERSION, .. }), _) => {}
        (Err(error), _) => return Err(error.into()),
    }
    let publication = match out {
        Some(out) => Publication::begin(storage, out)?,
        None => Publication::begin_replacing(storage, &resolved(dir)?)?,
    };
    let old = format7::read_manifest(dir)?;
    if out.is_none()
        && let Some(path) = strangers(dir, &old)?.into_iter().next()
    {
        return Err(UpgradeError::Stranger { path });
    }
    let to = (storage, publication.dir());
    let total = old.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.bytes));
    let mut done = 0;
    let mut tell = |bytes| {
        done += bytes;
        job.tell("upgrading", done, total);
        if job.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut files = vec![write_meta(storage, publication.dir(), &read_bare_meta(dir, &old)?)?];
    for file in old.files.iter().filter(|file| file.name != META) {
        files.push(copy_file((dir, &old), &file.name, to, &mut tell)?);
    }
    files.extend(write_order(storage, publication.dir(), &KeyTable::sorted_ids(dir, &old)?)?);
    let manifest = Manifest { files, ..old.clone() }.seal()?;
    manifest.write(storage, publication.dir())?;
    if let Some(measured) = Measured::read(dir)? {
        measured.write(storage, publication.dir())?;
    }
    let opened = open::open(publication.dir())?;
    opened.preview.graph.load()?;
    opened.keys.order()?;
    drop(opened);
    publication.commit()?;
    Ok(Some(Upgraded { from: format7::VERSION, manifest }))
}

/// The directory itself, where `dir` is a link to it.
fn resolved(dir: &Path) -> Result<PathBuf, OpenError> {
    fs::canonicalize(dir).map_err(OpenError::io(dir, "resolve"))
}

#[cfg(test)]
mod tests;
