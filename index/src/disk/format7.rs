//! Manifests of format version 7, to be rewritten.
//!
//! An index of that version has no `key_order.bin`, no header in `meta.rkyv`, and a `shift` in its
//! manifest; all its other files are as they are now.

use std::path::Path;

use foveal_datasets::{Element, Metric};
use serde::{Deserialize, Serialize};

use super::FORMAT_VERSION;
use super::array_header::ArrayKind;
use super::error::OpenError;
use super::manifest::{Checksummed, FileEntry, MANIFEST, Manifest, read_checked, read_text};

/// The version these manifests have.
pub const VERSION: u32 = 7;

/// The fields of the manifest, in their order.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest7 {
    format_version: u32,
    n: u64,
    dim: u32,
    metric: Metric,
    element: Element,
    bits: u8,
    max_degree: u32,
    list_size: u32,
    alpha: f32,
    shift: f32,
    seed: u64,
    payload: bool,
    tokens: bool,
    bias: bool,
    extremes: u32,
    files: Vec<FileEntry>,
    digest: String,
    checksum: String,
}

impl Checksummed for Manifest7 {
    fn checksum(&mut self) -> &mut String {
        &mut self.checksum
    }
}

/// Reads the manifest of the index of version 7 in `dir`. It becomes one of this version when the
/// files that are new or different are put in their places and it is sealed.
///
/// # Errors
/// Any byte that differs from what was written; a read is refused.
pub fn read_manifest(dir: &Path) -> Result<Manifest, OpenError> {
    let path = dir.join(MANIFEST);
    let Some(text) = read_text(&path)? else {
        return Err(OpenError::NotAnIndex { path: dir.into() });
    };
    let old: Manifest7 = read_checked(&path, &text)?;
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        n: old.n,
        dim: old.dim,
        metric: old.metric,
        element: old.element,
        bits: old.bits,
        max_degree: old.max_degree,
        list_size: old.list_size,
        alpha: old.alpha,
        seed: old.seed,
        payload: old.payload,
        tokens: old.tokens,
        bias: old.bias,
        extremes: old.extremes,
        files: old.files,
        digest: old.digest,
        checksum: String::new(),
    };
    let new = ArrayKind::KeyOrder;
    manifest.check(&path, &[new.name(), new.crc_name()])?;
    Ok(manifest)
}

/// Changes the text of a manifest, and its checksums to those of the changed one.
#[cfg(test)]
pub(crate) fn forge(dir: &Path, from: &str, to: &str) {
    let path = dir.join(MANIFEST);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from}");
    let mut forged: Manifest7 = serde_json::from_str(&text.replacen(from, to, 1)).unwrap();
    forged.digest = super::manifest::digest(&forged.files);
    forged.checksum = super::manifest::checksum_wanted(&forged);
    std::fs::write(&path, super::manifest::canonical(&forged)).unwrap();
}
