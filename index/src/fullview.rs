//! Candidates -> the exact top k, from full vectors.
//!
//! The k best by estimate are read first. Of the others only those are read whose *likely* bound,
//! `estimate - 1.9 error`, still beats the k-th exact distance: RaBitQ's bound (arXiv:2405.12497),
//! which a true neighbor misses with a probability of a few percent at most.

use foveal_datasets::Row;

use crate::disk::{OpenError, RamArray};
use crate::distance::ExactQuery;
use crate::full_store::RowReader;
use crate::key_table::KeyTable;
use crate::neighbor::{Candidate, Neighbor};
use crate::params::SearchParams;
use crate::quantizer::Quantizer;
use crate::stats::{QueryStats, Stop, Stopped};

/// How many standard deviations a likely bound allows for.
const LIKELY: f32 = 1.9;
/// Rows asked for at once where rows are in memory: after each batch the bound is tighter.
const MEMORY_BATCH: usize = 8;

/// Where full vectors come from.
pub(crate) enum RowSource {
    /// The codes hold the rows exactly.
    Codes {
        /// A row as bytes of its element type.
        row: Vec<u8>,
    },
    /// The full store.
    Store(Box<RowReader>),
}

/// What rerank needs of the index.
pub(crate) struct RowOrigin<'a> {
    pub(crate) quantizer: &'a Quantizer,
    pub(crate) codes: &'a RamArray<u8>,
    pub(crate) keys: &'a KeyTable,
    /// Whether a read costs a system call: then all that may matter is asked for at once.
    pub(crate) on_device: bool,
}

/// Why a rerank ended early.
pub(crate) enum RerankError {
    Read(OpenError),
    Stopped(Stopped),
}

/// The second stage of one searcher; owns its buffers.
pub(crate) struct Fullview {
    source: RowSource,
    /// The nearest so far, in order: at most k.
    nearest: Vec<Neighbor>,
    ids: Vec<u32>,
}

impl Fullview {
    pub(crate) fn new(source: RowSource) -> Fullview {
        Fullview { source, nearest: Vec::new(), ids: Vec::new() }
    }

    /// The `params.k` nearest of `candidates`, which come best first, by exact distance; equal
    /// distances smaller key first. The flag tells whether `params.max_reads` cut the reading.
    pub(crate) fn rerank(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        ask: &Rerank<'_>,
        stats: &mut QueryStats,
    ) -> Result<(Vec<Neighbor>, bool), RerankError> {
        let k = ask.params.k as usize;
        let batch = if origin.on_device { usize::MAX } else { MEMORY_BATCH };
        if let RowSource::Store(reader) = &mut self.source {
            reader.begin_query();
        }
        self.nearest.clear();
        self.prefetch(origin, ask.candidates, k);
        let mut rest = ask.candidates;
        let mut cut = false;
        while !rest.is_empty() && !cut {
            if let Some(why) = ask.stop.now() {
                return Err(RerankError::Stopped(why));
            }
            let most = if self.nearest.len() < k { k - self.nearest.len() } else { batch };
            self.ids.clear();
            while let Some((candidate, others)) = rest.split_first() {
                if self.ids.len() == most {
                    break;
                }
                rest = others;
                if self.may_matter(candidate, k) {
                    self.ids.push(candidate.id);
                }
            }
            cut = self.cut_to_reads_left(ask.params, stats);
            self.read(origin, query, k, stats).map_err(RerankError::Read)?;
        }
        Ok((self.nearest.clone(), cut))
    }

    /// Asks the memory for what ranking the first candidates takes: most of what is read at all.
    fn prefetch(&mut self, origin: &RowOrigin<'_>, candidates: &[Candidate], k: usize) {
        let RowSource::Store(reader) = &self.source else { return };
        self.ids.clear();
        self.ids.extend(candidates.iter().take(k + 2 * MEMORY_BATCH).map(|candidate| candidate.id));
        self.ids.iter().for_each(|id| origin.keys.prefetch(*id));
        reader.prefetch(&self.ids);
    }

    fn may_matter(&self, candidate: &Candidate, k: usize) -> bool {
        match self.nearest.get(k - 1) {
            Some(farthest) => candidate.estimate - LIKELY * candidate.error <= farthest.distance,
            None => true,
        }
    }

    /// Drops the ids from the first one on that `max_reads` has no read left for; true if it did.
    fn cut_to_reads_left(&mut self, params: &SearchParams, stats: &mut QueryStats) -> bool {
        let (Some(most), RowSource::Store(reader)) = (params.max_reads, &mut self.source) else {
            return false;
        };
        let left = reader.ask(&self.ids, most, stats);
        let cut = self.ids.len() > left;
        self.ids.truncate(left);
        cut
    }

    /// Ranks the rows of `self.ids`.
    fn read(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        k: usize,
        stats: &mut QueryStats,
    ) -> Result<(), OpenError> {
        stats.reranked += self.ids.len() as u32;
        let (nearest, ids) = (&mut self.nearest, &self.ids);
        let mut meet = |id: u32, row: Row<'_>| {
            let neighbor = Neighbor { key: origin.keys.key(id), distance: query.distance(row) };
            insert(nearest, neighbor, k);
        };
        match &mut self.source {
            RowSource::Codes { row } => {
                let (quantizer, stride) = (origin.quantizer, origin.quantizer.stride());
                row.resize(quantizer.dim(), 0);
                for id in ids {
                    let record = &origin.codes[*id as usize * stride..][..stride];
                    meet(*id, quantizer.exact_row(record, row));
                }
                Ok(())
            }
            RowSource::Store(reader) => {
                reader.prefetch(ids);
                reader.read(ids, stats, |i, row| meet(ids[i], row))
            }
        }
    }
}

/// What to rerank.
pub(crate) struct Rerank<'a> {
    pub(crate) candidates: &'a [Candidate],
    pub(crate) params: &'a SearchParams,
    pub(crate) stop: &'a Stop<'a>,
}

/// Puts a neighbor where it belongs among the `k` nearest.
fn insert(nearest: &mut Vec<Neighbor>, neighbor: Neighbor, k: usize) {
    if nearest.len() == k {
        match nearest.last() {
            Some(last) if neighbor.order(last).is_lt() => nearest.pop(),
            _ => return,
        };
    }
    let place = nearest.partition_point(|other| other.order(&neighbor).is_lt());
    nearest.insert(place, neighbor);
}
