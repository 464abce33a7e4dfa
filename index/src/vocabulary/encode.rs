//! Rows -> records: four bits a group, two groups a byte, then `<m, x>` as f32 and the cluster as
//! u16.

use foveal_datasets::Rows;
use rayon::prelude::*;

use super::clusters::{self, squares};
use super::groups::{CENTROIDS, nearest};
use super::mapping::turn;
use super::{Learned, VocabularySpec};
use crate::kernel::float;

/// Bytes of a record after its code.
pub(super) const TAIL: usize = 6;

/// Writes the records of rows in order (`[n x stride]`).
pub(crate) fn encode_rows(learned: &Learned, rows: &Rows, records: &mut [u8]) {
    let Learned { spec, to_row, means } = learned;
    let dim = rows.dim();
    let squares = squares(means, dim + 1);
    let scratch = || (vec![0.0f32; dim], vec![0.0f32; dim + 1]);
    let records = records.par_chunks_exact_mut(spec.stride()).enumerate();
    records.for_each_init(scratch, |(wide, y), (i, record)| {
        rows.row(i).widen_into(wide);
        turn(to_row, wide, &mut y[..dim]);
        y[dim] = float::dot(&spec.mean, wide);
        let cluster = clusters::nearest(y, means, &squares);
        encode(spec, y, cluster as u16, record);
    });
}

/// The records of points (`[n x (dim + 1)]`, `<m, x>` last), each its own cluster.
pub(super) fn encode_means(spec: &VocabularySpec, points: &[f32]) -> Vec<u8> {
    let (dim, stride) = (spec.dim(), spec.stride());
    let mut records = vec![0; points.len() / (dim + 1) * stride];
    let places = records.chunks_exact_mut(stride).zip(points.chunks_exact(dim + 1));
    for (i, (record, point)) in places.enumerate() {
        encode(spec, point, i as u16, record);
    }
    records
}

fn encode(spec: &VocabularySpec, point: &[f32], cluster: u16, record: &mut [u8]) {
    let (codes, tail) = record.split_at_mut(record.len() - TAIL);
    codes.fill(0);
    let mut start = 0;
    for (part, size) in spec.sizes.iter().enumerate() {
        let end = start + usize::from(*size);
        let centroids = &spec.centroids[start * CENTROIDS..end * CENTROIDS];
        let code = nearest(&point[start..end], centroids) as u8;
        codes[part / 2] |= code << (4 * (part % 2));
        start = end;
    }
    tail[..4].copy_from_slice(&point[spec.dim()].to_le_bytes());
    tail[4..].copy_from_slice(&cluster.to_le_bytes());
}

/// The code of a group in a record.
#[inline]
pub(super) fn part_of(record: &[u8], part: usize) -> u8 {
    record[part / 2] >> (4 * (part % 2)) & 15
}

/// `<m, x>` in a record.
pub(super) fn offset_of(record: &[u8]) -> f32 {
    let tail = record.last_chunk::<TAIL>().expect("a record ends with its tail");
    f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]])
}

/// The cluster in a record.
pub(super) fn cluster_of(record: &[u8]) -> u16 {
    let tail = record.last_chunk::<2>().expect("a record ends with its cluster");
    u16::from_le_bytes(*tail)
}
