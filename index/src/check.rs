//! Is an index what it says it is? Damage named place by place, reachability proved.

use std::ops::ControlFlow;
use std::path::Path;

use crate::disk::verify::{CheckedFile, verify_files};
use crate::disk::{ArrayKind, Manifest, Measured, OpenError};
use crate::graph::reach::count_reached;
use crate::open;
use crate::preview::Preview;
use crate::stats::Job;

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
/// of full vectors and payloads, the digest of every file, that no key stands for two rows, and
/// that every node can be reached.
///
/// # Errors
/// No index there, one of another format version, or no way to read it; an interrupt.
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
    });
    let verified = verified.ok_or(OpenError::Interrupted)?;
    let mut report = CheckReport {
        n: manifest.n,
        files: verified.files,
        reachable: None,
        damage: verified.damage,
    };
    if report.damage.is_empty() {
        // A search may still walk a graph that opening leaves where it is.
        let opened = open::open(path).and_then(|opened| {
            opened.preview.graph.load()?;
            Ok(opened)
        });
        match opened {
            Ok(opened) if deep => {
                let Preview { graph, entry_points, .. } = &opened.preview;
                let reached = count_reached(graph.lists(), *entry_points);
                // Every query meets the extreme rows, which are in no graph.
                let extreme = opened.preview.extremes.ids().len();
                report.reachable = Some((reached + extreme) as u64);
                if let Some(key) = opened.keys.first_twice() {
                    let file = path.join(ArrayKind::Keys.name());
                    let line = format!("{}: key {key} stands for two rows", file.display());
                    report.damage.push(line);
                }
                let nodes = graph.lists().len();
                if reached < nodes {
                    report.damage.push(format!(
                        "{}: {reached} nodes can be reached from the entry points; wanted {nodes}",
                        path.display(),
                    ));
                }
            }
            Ok(_) => {}
            Err(error) => report.damage.push(error.to_string()),
        }
    }
    Ok(report)
}

/// What an index says of itself: its manifest, and what its build measured where that is told.
///
/// # Errors
/// No index there, or a manifest that is damaged.
pub fn inspect(path: &Path) -> Result<(Manifest, Option<Measured>), OpenError> {
    Ok((Manifest::read(path)?, Measured::read(path)?))
}
