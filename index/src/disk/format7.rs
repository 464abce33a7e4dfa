//! Manifests of format version 7, to be rewritten.
//!
//! An index of that version has no `key_order.bin`, no header in `meta.rkyv`, and a `shift` in its
//! manifest; all its other files are as they are now.

use std::path::Path;

use foveal_datasets::{Element, Metric};
use serde::{Deserialize, Serialize};

use super::FORMAT_VERSION;
use super::error::OpenError;
use super::manifest::{
    Checksummed, FileEntry, MANIFEST, Manifest, digest, read_checked, read_text,
};

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
    let (found, wanted) = (old.digest, digest(&old.files));
    if found != wanted {
        return Err(OpenError::damaged(&path, 0, format!("digest is {found}; wanted {wanted}")));
    }
    Ok(Manifest {
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
        digest: String::new(),
        checksum: String::new(),
    })
}
