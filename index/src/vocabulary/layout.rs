//! Records -> memory that is scanned in order: cluster by cluster, each in whole blocks.

use super::VocabularySpec;
use super::encode::{cluster_of, offset_of, part_of};
use crate::disk::{MemoryError, RamArray};
use crate::kernel::float::PANEL;
use crate::kernel::lookup::{self, BLOCK_ROWS, LINE_PARTS, LookupKernel, place};
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
    /// `to_query` by columns: `[dim, rounded up to panels / PANEL][dim][PANEL]`, of bf16.
    pub(super) panels: RamArray<u16>,
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
        let panels = panels(&spec)?;
        let mut offsets = RamArray::zeroed(records.len() / stride)?;
        let records = records.chunks_exact(stride);
        offsets.iter_mut().zip(records).for_each(|(to, record)| *to = offset_of(record));
        let kernel = lookup::kernel(Level::in_use());
        Ok(Vocabulary { spec, tokens, clusters, offsets, starts, counts, panels, kernel })
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
        let rest = self.panels.bytes() + self.offsets.bytes() + spec as u64;
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

fn panels(spec: &VocabularySpec) -> Result<RamArray<u16>, MemoryError> {
    let dim = spec.dim();
    let mut panels = RamArray::zeroed(dim.next_multiple_of(PANEL) * dim)?;
    for (panel, first) in panels.chunks_exact_mut(dim * PANEL).zip((0..dim).step_by(PANEL)) {
        let columns = first..dim.min(first + PANEL);
        for (to, row) in panel.chunks_exact_mut(PANEL).zip(spec.to_query.chunks_exact(dim)) {
            to[..columns.len()].copy_from_slice(&row[columns.clone()]);
        }
    }
    Ok(panels)
}
