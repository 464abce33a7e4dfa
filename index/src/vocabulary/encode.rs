//! Rows -> records: four bits a group, two groups a byte, then `<m, x>` as f32 and the cluster as
//! u16. Clusters -> records: four bits a group, then an f32.

use foveal_datasets::Rows;
use rayon::prelude::*;

use super::groups::{CENTROIDS, nearest};
use super::mapping::{AT_ONCE, transform, widen};
use super::{Learned, VocabularySpec};
use crate::kernel::float;

/// Bytes of an offset, and of what follows the code of a token.
pub(super) const OFFSET: usize = 4;
pub(super) const TAIL: usize = OFFSET + 2;

impl Learned {
    /// y of the rows from `first` on, as many as fit in `y` (`[any x dim]`), by way of `wide` of
    /// the same size; returns `<m, x>` of each.
    pub(super) fn map<'a>(
        &'a self,
        (rows, first): (&Rows, usize),
        wide: &'a mut [f32],
        y: &mut [f32],
    ) -> impl Iterator<Item = f32> + 'a {
        widen(rows, first, wide);
        transform(&self.to_row, wide, y);
        wide.chunks_exact(rows.dim()).map(|x| float::dot(&self.spec.mean, x))
    }
}

/// Writes the records of rows in order (`[n x stride]`), each in cluster 0 for now.
pub(crate) fn encode_rows(learned: &Learned, rows: &Rows, records: &mut [u8]) {
    let (spec, dim) = (&learned.spec, rows.dim());
    let scratch = || (vec![0.0f32; AT_ONCE * dim], vec![0.0f32; AT_ONCE * dim]);
    let some = records.par_chunks_mut(AT_ONCE * spec.stride()).enumerate();
    some.for_each_init(scratch, |(wide, y), (i, records)| {
        let records = records.chunks_exact_mut(spec.stride());
        let count = records.len() * dim;
        let (wide, y) = (&mut wide[..count], &mut y[..count]);
        let offsets = learned.map((rows, i * AT_ONCE), wide, y);
        for ((record, offset), y) in records.zip(offsets).zip(y.chunks_exact(dim)) {
            let (code, tail) = record.split_at_mut(record.len() - TAIL);
            encode(&spec.sizes, &spec.centroids, y, code);
            tail[..OFFSET].copy_from_slice(&offset.to_le_bytes());
            tail[OFFSET..].fill(0);
        }
    });
}

/// Writes the cluster of each record, of `[n x stride]` and in the same order.
pub(crate) fn put_clusters(spec: &VocabularySpec, records: &mut [u8], clusters: &[u16]) {
    for (record, cluster) in records.chunks_exact_mut(spec.stride()).zip(clusters) {
        let at = record.len() - TAIL + OFFSET;
        record[at..].copy_from_slice(&cluster.to_le_bytes());
    }
}

/// Writes the code of y: half a byte for each of the groups of `sizes` coordinates, whose centroids
/// are `[dim x 16]`.
pub(super) fn encode(sizes: &[u16], centroids: &[f32], y: &[f32], codes: &mut [u8]) {
    codes.fill(0);
    let mut start = 0;
    for (part, size) in sizes.iter().enumerate() {
        let end = start + usize::from(*size);
        let centroids = &centroids[start * CENTROIDS..end * CENTROIDS];
        let code = nearest(&y[start..end], centroids) as u8;
        codes[part / 2] |= code << (4 * (part % 2));
        start = end;
    }
}

/// The code of a group in a record.
#[inline]
pub(super) fn part_of(record: &[u8], part: usize) -> u8 {
    record[part / 2] >> (4 * (part % 2)) & 15
}

/// `<m, x>` in the record of a token.
pub(super) fn offset_of(record: &[u8]) -> f32 {
    cluster_offset(&record[..record.len() - 2])
}

/// The number at the end of the record of a cluster.
pub(super) fn cluster_offset(record: &[u8]) -> f32 {
    let tail = record.last_chunk::<OFFSET>().expect("a record ends with its offset");
    f32::from_le_bytes(*tail)
}

/// The cluster in the record of a token.
pub(super) fn cluster_of(record: &[u8]) -> u16 {
    let tail = record.last_chunk::<2>().expect("a record ends with its cluster");
    u16::from_le_bytes(*tail)
}
