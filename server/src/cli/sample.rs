//! The data that the program brings along: Debian packages and vectors of what they do.
//!
//! Source and licence: `datasets/samples/README.md`.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::payload_line::PayloadLine;

const VECTORS: &[u8] = include_bytes!("../../../datasets/samples/debian-packages-5k.f16bin");
const PAYLOAD: &str = include_str!("../../../datasets/samples/debian-packages-5k.payload.jsonl");

/// The files of the sample, written where the engine can read them.
pub(crate) struct SampleFiles {
    /// f16 vectors, one a package.
    pub(crate) vectors: PathBuf,
    /// A JSON object a package, in the same order.
    pub(crate) payload: PathBuf,
}

/// Writes the sample into `dir`.
///
/// # Errors
/// The directory cannot be written.
pub(crate) fn write_into(dir: &Path) -> anyhow::Result<SampleFiles> {
    let vectors = dir.join("debian-packages-5k.f16bin");
    let payload = dir.join("debian-packages-5k.payload.jsonl");
    for (path, bytes) in [(&vectors, VECTORS), (&payload, PAYLOAD.as_bytes())] {
        let refused = || format!("{}: cannot be written", path.display());
        std::fs::write(path, bytes).with_context(refused)?;
    }
    Ok(SampleFiles { vectors, payload })
}

/// Name and description of every package, in row order.
pub(crate) fn packages() -> Vec<PayloadLine> {
    PAYLOAD.lines().map(PayloadLine::of).collect()
}

#[cfg(test)]
mod tests {
    use foveal_datasets::{RowSource, VectorFile};

    use super::*;

    #[test]
    fn vectors_and_packages_go_together() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_into(dir.path()).unwrap();
        let packages = packages();
        assert_eq!(VectorFile::open(&files.vectors).unwrap().len(), packages.len());
        assert!(packages.iter().all(|package| !package.name.is_empty()));
    }
}
