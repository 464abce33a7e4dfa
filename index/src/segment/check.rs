//! Is an index what it says it is? Damage named place by place, reachability proved.

use std::ops::ControlFlow;
use std::path::Path;

use crate::disk::verify::{CheckedFile, verify_files};
use crate::disk::{Manifest, Measured, OpenError};
use crate::graph::connectivity::count_reached;
use crate::payload::Payload;
use crate::preview::Preview;
use crate::stats::Job;

use super::open::{self, Opened};

/// What a check looked at and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Rows of the index; 0 where the manifest is damaged.
    pub n: u64,
    /// Every file of the manifest.
    pub files: Vec<CheckedFile>,
    /// Rows that a search can reach, from the entry points or as extreme rows; known after a deep
    /// check of a sound index.
    pub reachable: Option<u64>,
    /// One line a damage: file, offset, found, wanted. Empty: the index is sound.
    pub damage: Vec<String>,
}

/// Checks the index in `path`: everything a search reads when it opens it; `deep` adds every block
/// of full vectors and payloads, the digest of every file, that every payload is a JSON object,
/// and that every node can be reached.
///
/// # Errors
/// No index there, one of another format version; an interrupt; memory or descriptors that the
/// operating system refuses, and reads that fail: they say nothing about the index.
pub fn check(path: &Path, deep: bool, job: Job<'_>) -> Result<CheckReport, OpenError> {
    let manifest = match Manifest::read(path) {
        Ok(manifest) => manifest,
        Err(error @ OpenError::Damaged { .. }) => {
            let damage = vec![error.to_string()];
            return Ok(CheckReport { damage, ..CheckReport::default() });
        }
        Err(error) => return Err(error),
    };
    let verified = verify_files(path, &manifest, deep, &mut |done, total| {
        job.tell("checking", done, total);
        if job.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let mut report = CheckReport {
        n: manifest.n,
        files: verified.files,
        reachable: None,
        damage: verified.damage,
    };
    if !report.damage.is_empty() {
        return Ok(report);
    }
    // What opening leaves where it is: a graph that a search may walk, and the order of the keys.
    let opened = open::open(path).and_then(|opened| {
        opened.preview.graph.load()?;
        opened.keys.order()?;
        Ok(opened)
    });
    match opened {
        Ok(opened) if deep => check_meaning(&mut report, &opened, path, job)?,
        Ok(_) => {}
        Err(error) if error.is_damage() => report.damage.push(error.to_string()),
        Err(error) => return Err(error),
    }
    Ok(report)
}

/// What the bytes of a sound index mean: payloads and reachability.
fn check_meaning(
    report: &mut CheckReport,
    opened: &Opened,
    path: &Path,
    job: Job<'_>,
) -> Result<(), OpenError> {
    let Preview { graph, entry_points, .. } = &opened.preview;
    let reached = count_reached(graph.lists(), *entry_points);
    // Every query meets the extreme rows, which are in no graph.
    report.reachable = Some((reached + opened.preview.extremes.ids().len()) as u64);
    let nodes = graph.lists().len();
    if reached < nodes {
        report.damage.push(format!(
            "{}: {reached} nodes can be reached from the entry points; wanted {nodes}",
            path.display()
        ));
    }
    if opened.manifest.payload {
        report.damage.extend(Payload::open(path, &opened.manifest)?.unsound(report.n, job)?);
    }
    Ok(())
}

/// The description of an index: its manifest, and the measurements of its build, if they are known.
///
/// # Errors
/// No index there, or a manifest that is damaged.
pub fn inspect(path: &Path) -> Result<(Manifest, Option<Measured>), OpenError> {
    Ok((Manifest::read(path)?, Measured::read(path)?))
}
