//! Records -> memory that is scanned in order: cluster by cluster, each in whole blocks.

use half::bf16;

use super::VocabularySpec;
use super::encode::{cluster_of, offset_of, part_of};
use crate::disk::{MemoryError, RamArray};
use crate::kernel::byte_matrix::ByteMatrix;
use crate::kernel::float::{step_of, whole};
use crate::kernel::lookup::{self, BLOCK_ROWS, LINE_PARTS, LookupKernel, place};
use crate::kernel::planar::{self, PlanarKernel};
use crate::kernel::{LINE, Level};

/// What stands in the place of an id where a block has a row too many.
pub(super) const NO_TOKEN: u32 = u32::MAX;

/// Codes of rows in blocks, as the look-up kernel wants them.
pub(super) struct Blocks {
    /// `[blocks x lines]`.
    pub(super) codes: RamArray<u8>,
    /// `[blocks x 16]`: `<m, x>`; minus infinity where there is no row.
    pub(super) offsets: RamArray<f32>,
    /// `[blocks x 16]`: ids.
    pub(super) ids: RamArray<u32>,
}

/// The codes of all tokens, and what they mean.
pub(crate) struct Vocabulary {
    pub(crate) spec: VocabularySpec,
    pub(super) tokens: Blocks,
    pub(super) clusters: Blocks,
    /// `[n]`: `<m, x>` by id.
    offsets: RamArray<f32>,
    /// `[clusters + 1]`: the block that the tokens of each start at.
    pub(super) starts: Vec<u32>,
    /// `[clusters]`: tokens of each.
    pub(super) counts: Vec<u32>,
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
    /// If a record names a cluster that there is none of.
    pub(crate) fn arrange(spec: VocabularySpec, records: &[u8]) -> Result<Vocabulary, MemoryError> {
        let stride = spec.stride();
        let mut counts = vec![0u32; spec.cluster_count()];
        for record in records.chunks_exact(stride) {
            counts[usize::from(cluster_of(record))] += 1;
        }
        let mut starts = vec![0u32];
        for count in &counts {
            starts.push(starts[starts.len() - 1] + count.div_ceil(BLOCK_ROWS as u32));
        }
        let mut next: Vec<usize> = starts.iter().map(|s| *s as usize * BLOCK_ROWS).collect();
        let places = records.chunks_exact(stride).map(|record| {
            let next = &mut next[usize::from(cluster_of(record))];
            *next += 1;
            *next - 1
        });
        let blocks = starts[starts.len() - 1] as usize;
        let tokens = Blocks::fill(&spec, blocks, places.zip(records.chunks_exact(stride)))?;
        let clusters = spec.clusters.chunks_exact(stride).enumerate();
        let blocks = counts.len().div_ceil(BLOCK_ROWS);
        let clusters = Blocks::fill(&spec, blocks, clusters)?;
        let to_query = by_columns(&spec);
        let mut offsets = RamArray::zeroed(records.len() / stride)?;
        let records = records.chunks_exact(stride);
        offsets.iter_mut().zip(records).for_each(|(to, record)| *to = offset_of(record));
        let kernel = lookup::kernel(Level::in_use());
        let planar = planar::kernel(Level::in_use(), 2);
        Ok(Vocabulary { spec, tokens, clusters, offsets, starts, counts, to_query, planar, kernel })
    }

    /// `<m, x>` of a token.
    pub(crate) fn offset(&self, id: u32) -> f32 {
        self.offsets[id as usize]
    }

    /// The first record that cannot be arranged, if there is one.
    pub(crate) fn first_unsound(spec: &VocabularySpec, records: &[u8]) -> Option<usize> {
        records.chunks_exact(spec.stride()).position(|record| {
            let known = usize::from(cluster_of(record)) < spec.cluster_count();
            !known || !offset_of(record).is_finite()
        })
    }

    /// Bytes in RAM.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let blocks =
            |blocks: &Blocks| blocks.codes.bytes() + blocks.offsets.bytes() + blocks.ids.bytes();
        let spec = 2 * self.spec.to_query.len() + 4 * self.spec.centroids.len();
        let rest = self.to_query.bytes() + self.offsets.bytes() + spec as u64;
        blocks(&self.tokens) + blocks(&self.clusters) + rest
    }
}

impl Blocks {
    /// Blocks with the given records at the given rows, the i-th of them with id i.
    fn fill<'a>(
        spec: &VocabularySpec,
        blocks: usize,
        records: impl Iterator<Item = (usize, &'a [u8])>,
    ) -> Result<Blocks, MemoryError> {
        let parts = spec.sizes.len();
        let block_bytes = parts / LINE_PARTS * LINE;
        let mut codes = RamArray::zeroed(blocks * block_bytes)?;
        let mut offsets = RamArray::zeroed(blocks * BLOCK_ROWS)?;
        let mut ids = RamArray::zeroed(blocks * BLOCK_ROWS)?;
        offsets.fill(f32::NEG_INFINITY);
        ids.fill(NO_TOKEN);
        for (id, (row, record)) in records.enumerate() {
            let block = &mut codes[row / BLOCK_ROWS * block_bytes..][..block_bytes];
            for part in 0..parts {
                let (byte, shift) = place(row % BLOCK_ROWS, part);
                block[byte] |= part_of(record, part) << shift;
            }
            offsets[row] = offset_of(record);
            ids[row] = id as u32;
        }
        Ok(Blocks { codes, offsets, ids })
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
