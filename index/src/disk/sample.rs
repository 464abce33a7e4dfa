//! A small directory with every kind of file, for the tests of those who read them.

use std::path::Path;

use foveal_datasets::{Element, Metric};

use super::*;

/// Rows of the sample. Its graph has three blocks, the last one short.
pub(crate) const N: u64 = 90;
/// The arrays of the sample.
pub(crate) const KINDS: [ArrayKind; 5] =
    [ArrayKind::Codes, ArrayKind::Graph, ArrayKind::Keys, ArrayKind::Vectors, ArrayKind::KeyOrder];
/// Neighbors of each row.
pub(crate) const DEGREE: u32 = 24;

/// A manifest without files.
pub(crate) fn manifest() -> Manifest {
    Manifest {
        format_version: FORMAT_VERSION,
        n: N,
        dim: 16,
        metric: Metric::L2,
        element: Element::U8,
        bits: 4,
        max_degree: DEGREE,
        list_size: 48,
        alpha: 1.2,
        seed: u64::MAX,
        payload: false,
        tokens: false,
        bias: false,
        extremes: 0,
        files: vec![],
        digest: String::new(),
        checksum: String::new(),
    }
}

/// The bytes of the rows of an array: nothing repeats within a block.
pub(crate) fn data(kind: ArrayKind) -> Vec<u8> {
    let stride = stride(kind) as usize;
    let count = if kind == ArrayKind::Vectors { BLOCK } else { N as usize * stride };
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn stride(kind: ArrayKind) -> u32 {
    match kind {
        ArrayKind::Codes => 16,
        ArrayKind::Graph => DEGREE * 4,
        ArrayKind::Keys | ArrayKind::KeyOrder => 4,
        ArrayKind::Vectors => 16,
        ArrayKind::Payload | ArrayKind::PayloadOffsets | ArrayKind::Tokens | ArrayKind::Extra => 8,
    }
}

/// Writes every file into `dir`.
pub(crate) fn write(storage: &dyn Storage, dir: &Path) -> Result<Manifest, WriteError> {
    let mut files = vec![write_meta(storage, dir, &[7; 300])?];
    for kind in KINDS {
        let data = data(kind);
        let shape =
            ArrayShape { data_bytes: data.len() as u64, ..ArrayShape::packed(N, stride(kind)) };
        let mut writer = ArrayWriter::create(storage, dir, kind, shape)?;
        for part in data.chunks(1000) {
            writer.append(part)?;
        }
        files.extend(writer.finish()?);
    }
    let manifest = Manifest { files, ..manifest() }.seal().expect("the sample is consistent");
    manifest.write(storage, dir)?;
    measured().write(storage, dir)?;
    Ok(manifest)
}

/// Numbers that a binary fraction only approximates.
pub(crate) fn measured() -> Measured {
    let decodes = DecodeQuality {
        states: 200,
        precision: 0.1 + 0.2,
        covered: 0.99,
        width_p50: 0.01,
        widened: 0.0,
    };
    Measured {
        build_seconds: 0.1 + 0.2,
        predicted_peak_bytes: 1 << 40,
        peak_rss_bytes: 7,
        decodes: Some(decodes),
    }
}
