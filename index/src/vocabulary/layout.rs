//! Records -> memory that is scanned: a block a cluster, and blocks of the clusters
//! themselves.

use half::bf16;

use super::VocabularySpec;
use super::encode::{cluster_of, cluster_offset, offset_of, part_of};
use super::groups;
use crate::disk::{MemoryError, RamArray};
use crate::kernel::byte_matrix::ByteMatrix;
use crate::kernel::float::{step_of, whole};
use crate::kernel::lookup::{self, BLOCK_ROWS, LINE_PARTS, LookupKernel, code_position};
use crate::kernel::planar::{self, PlanarKernel};
use crate::kernel::{LINE, Level};

/// What stands in the place of an id where a block has a row too many.
pub(super) const NO_TOKEN: u32 = u32::MAX;

/// Codes of rows in blocks, as the look-up kernel wants them.
pub(super) struct Blocks {
    /// `[blocks x lines]`.
    pub(super) codes: RamArray<u8>,
    /// `[blocks x 16]`: what is added to a row's sum; minus infinity where there is no row.
    pub(super) offsets: RamArray<f32>,
}

/// The codes of all tokens, and what they mean.
pub(crate) struct Vocabulary {
    /// Without what lies arranged beside it: `to_query` and `clusters`.
    pub(crate) spec: VocabularySpec,
    /// A block is a cluster.
    pub(super) tokens: Blocks,
    /// `[blocks x 16]`: their ids.
    pub(super) ids: RamArray<u32>,
    /// Rows are clusters.
    pub(super) clusters: Blocks,
    /// Coordinates of each of a cluster's groups.
    pub(super) cluster_sizes: Vec<u16>,
    /// `[n]`: `<m, x>` by id.
    offsets: RamArray<f32>,
    /// `[dim x dim]`: row i is what the coordinates of `h - m` add to coordinate i of q.
    pub(super) to_query: ByteMatrix,
    pub(super) planar: PlanarKernel,
    pub(super) kernel: LookupKernel,
}

impl Vocabulary {
    /// Arranges records (`[n x stride]`, in id order). Linear in their bytes.
    ///
    /// # Errors
    /// Memory refused.
    ///
    /// # Panics
    /// If one of them is unsound.
    pub(crate) fn arrange(spec: VocabularySpec, records: &[u8]) -> Result<Vocabulary, MemoryError> {
        let stride = spec.stride();
        let count = spec.cluster_count();
        let mut tokens = Blocks::empty(count, spec.sizes.len())?;
        let mut ids = RamArray::zeroed(count * BLOCK_ROWS)?;
        ids.fill(NO_TOKEN);
        let mut offsets = RamArray::zeroed(records.len() / stride)?;
        let mut held = vec![0; count];
        for (id, record) in records.chunks_exact(stride).enumerate() {
            let cluster = usize::from(cluster_of(record));
            assert!(held[cluster] < BLOCK_ROWS, "a cluster is a block");
            let row = cluster * BLOCK_ROWS + held[cluster];
            held[cluster] += 1;
            tokens.put(row, record, offset_of(record));
            ids[row] = id as u32;
            offsets[id] = offset_of(record);
        }
        let cluster_sizes = groups::pairs_of(&spec.sizes);
        let mut clusters = Blocks::empty(count.div_ceil(BLOCK_ROWS), cluster_sizes.len())?;
        for (row, record) in spec.clusters.chunks_exact(spec.cluster_stride()).enumerate() {
            clusters.put(row, record, cluster_offset(record));
        }
        let to_query = by_columns(&spec);
        let spec = VocabularySpec { to_query: Vec::new(), clusters: Vec::new(), ..spec };
        let kernel = lookup::kernel(Level::in_use());
        let planar = planar::kernel(Level::in_use(), 1);
        Ok(Vocabulary {
            spec,
            tokens,
            ids,
            clusters,
            cluster_sizes,
            offsets,
            to_query,
            planar,
            kernel,
        })
    }

    /// `<m, x>` of a token.
    pub(crate) fn offset(&self, id: u32) -> f32 {
        self.offsets[id as usize]
    }

    /// `offset` of every token, by id.
    pub(crate) fn offsets(&self) -> &[f32] {
        &self.offsets
    }

    /// The row of every token in the blocks, by id.
    pub(crate) fn rows(&self) -> Vec<u32> {
        let mut rows = vec![0; self.offsets.len()];
        let positions = (0..).zip(self.ids.iter()).filter(|(_, id)| **id != NO_TOKEN);
        positions.for_each(|(row, id)| rows[*id as usize] = row);
        rows
    }

    /// Clusters: blocks of tokens.
    pub(super) fn count(&self) -> usize {
        self.tokens.offsets.len() / BLOCK_ROWS
    }

    /// Bytes that every scan reads, whatever its share of the tokens.
    pub(crate) fn map_bytes(&self) -> u64 {
        self.to_query.bytes() + self.clusters.bytes()
    }

    /// The first record that cannot be arranged, if there is one.
    pub(crate) fn first_unsound(spec: &VocabularySpec, records: &[u8]) -> Option<usize> {
        let mut held = vec![0; spec.cluster_count()];
        records.chunks_exact(spec.stride()).position(|record| {
            let Some(held) = held.get_mut(usize::from(cluster_of(record))) else { return true };
            *held += 1;
            *held > BLOCK_ROWS || !offset_of(record).is_finite()
        })
    }

    /// Bytes in RAM.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let centroids = self.spec.centroids.len() + self.spec.cluster_centroids.len();
        let ids = self.ids.bytes() + self.offsets.bytes();
        self.tokens.bytes() + self.map_bytes() + ids + 4 * centroids as u64
    }
}

impl Blocks {
    /// Blocks without rows, of codes of `parts` groups.
    fn empty(blocks: usize, parts: usize) -> Result<Blocks, MemoryError> {
        let codes = RamArray::zeroed(blocks * parts / LINE_PARTS * LINE)?;
        let mut offsets = RamArray::zeroed(blocks * BLOCK_ROWS)?;
        offsets.fill(f32::NEG_INFINITY);
        Ok(Blocks { codes, offsets })
    }

    fn bytes(&self) -> u64 {
        self.codes.bytes() + self.offsets.bytes()
    }

    /// Puts a record in an empty row.
    fn put(&mut self, row: usize, record: &[u8], offset: f32) {
        let block_bytes = self.codes.len() / (self.offsets.len() / BLOCK_ROWS);
        let block = &mut self.codes[row / BLOCK_ROWS * block_bytes..][..block_bytes];
        for part in 0..block_bytes / LINE * LINE_PARTS {
            let (byte, shift) = code_position(row % BLOCK_ROWS, part);
            block[byte] |= part_of(record, part) << shift;
        }
        self.offsets[row] = offset;
    }
}

/// The columns of `to_query`, each in 127 steps to either side.
fn by_columns(spec: &VocabularySpec) -> ByteMatrix {
    let dim = spec.dim();
    let mut matrix = ByteMatrix::new(dim);
    let mut column = vec![0.0; dim];
    for i in 0..dim {
        let rows = spec.to_query.chunks_exact(dim);
        column.iter_mut().zip(rows).for_each(|(x, row)| *x = bf16::from_bits(row[i]).to_f32());
        let unit = step_of(&column, 127.0);
        matrix.push(column.iter().map(|x| whole(x / unit) as i8), unit);
    }
    matrix
}
