//! Candidates -> the exact top k, from full vectors.
//!
//! The k best by estimate are read first. Of the others only those are read whose *likely* bound,
//! `estimate - 1.9 error`, still beats the k-th exact distance: RaBitQ's bound (arXiv:2405.12497),
//! which a true neighbor misses with a probability of a few percent at most.

use std::ops::Range;

use crate::disk::RamArray;
use crate::distance::ExactQuery;
use crate::full_store::{ReadError, RowReader};
use crate::key_table::KeyTable;
use crate::neighbor::{Candidate, Neighbor};
use crate::params::SearchParams;
use crate::quantizer::Quantizer;
use crate::stats::{QueryStats, Stop};

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
    /// distances smaller key first.
    pub(crate) fn rerank(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        ask: &Rerank<'_>,
        stats: &mut QueryStats,
    ) -> Result<Reranked, ReadError> {
        let k = ask.params.k as usize;
        let batch = if origin.on_device { usize::MAX } else { MEMORY_BATCH };
        self.begin_query();
        self.nearest.clear();
        self.prefetch(origin, ask.candidates, k);
        let mut rest = ask.candidates;
        let (mut cut, mut unread) = (false, ask.beyond);
        let mut pass_over =
            |estimate: f32| unread = Some(unread.map_or(estimate, |e| e.min(estimate)));
        while !rest.is_empty() && !cut {
            if let Some(why) = ask.stop.now() {
                return Err(ReadError::Stopped(why));
            }
            let most = if self.nearest.len() < k { k - self.nearest.len() } else { batch };
            self.ids.clear();
            while let Some((candidate, others)) = rest.split_first() {
                if self.ids.len() == most {
                    break;
                }
                rest = others;
                match self.may_matter(candidate, k) {
                    true => self.ids.push(candidate.id),
                    false => pass_over(candidate.estimate),
                }
            }
            if let Some(first) = self.cut_to_reads_left(ask.params, stats) {
                let left_out = ask.candidates.iter().find(|candidate| candidate.id == first);
                left_out.into_iter().for_each(|candidate| pass_over(candidate.estimate));
                cut = true;
            }
            self.read(origin, query, (k, ask.stop), stats)?;
        }
        Ok(Reranked { neighbors: self.nearest.clone(), partial: cut, unread })
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

    /// Drops the ids from the first one on that `max_reads` has no read left for; returns that.
    fn cut_to_reads_left(&mut self, params: &SearchParams, stats: &mut QueryStats) -> Option<u32> {
        let (Some(most), RowSource::Store(reader)) = (params.max_reads, &mut self.source) else {
            return None;
        };
        let left = reader.ask(&self.ids, most, stats);
        let first = self.ids.get(left).copied();
        self.ids.truncate(left);
        first
    }

    /// Ranks the rows of `self.ids`.
    fn read(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        (k, stop): (usize, &Stop<'_>),
        stats: &mut QueryStats,
    ) -> Result<(), ReadError> {
        let Fullview { source, nearest, ids } = self;
        if let RowSource::Store(reader) = source {
            reader.prefetch(ids);
        }
        source.distances(origin, query, (ids, stop, stats), &mut |i, distance| {
            insert(nearest, Neighbor { key: origin.keys.key(ids[i]), distance }, k);
        })
    }

    /// Starts counting the reads of a new query.
    pub(crate) fn begin_query(&mut self) {
        if let RowSource::Store(reader) = &mut self.source {
            reader.begin_query();
        }
    }

    /// The exact distance of each of `ids`, by `visit(i, distance)`, i in any order.
    ///
    /// # Errors
    /// A row cannot be read.
    pub(crate) fn distances(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        (ids, stop, stats): (&[u32], &Stop<'_>, &mut QueryStats),
        visit: &mut dyn FnMut(usize, f32),
    ) -> Result<(), ReadError> {
        let batch = if origin.on_device { ids.len() } else { MEMORY_BATCH };
        let mut batches = ids.chunks(batch.max(1)).peekable();
        if let (RowSource::Store(reader), Some(first)) = (&self.source, batches.peek()) {
            reader.prefetch(first);
        }
        let mut done = 0;
        while let Some(ids) = batches.next() {
            if let (RowSource::Store(reader), Some(next)) = (&self.source, batches.peek()) {
                reader.prefetch(next);
            }
            let mut shifted = |i: usize, distance: f32| visit(done + i, distance);
            self.source.distances(origin, query, (ids, stop, stats), &mut shifted)?;
            done += ids.len();
        }
        Ok(())
    }

    /// The exact distance of every row of `rows`, by `visit(id, distance)`, in any order.
    ///
    /// # Errors
    /// A row cannot be read.
    pub(crate) fn scan(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        (rows, stop, stats): (Range<u32>, &Stop<'_>, &mut QueryStats),
        mut visit: impl FnMut(u32, f32),
    ) -> Result<(), ReadError> {
        match &mut self.source {
            RowSource::Store(reader) => {
                stats.reranked += rows.len() as u32;
                reader.scan_until(rows, stop, stats, |id, row| visit(id, query.distance(row)))
            }
            RowSource::Codes { .. } => {
                let ids: Vec<u32> = rows.collect();
                let visit = &mut |i: usize, distance: f32| visit(ids[i], distance);
                self.source.distances(origin, query, (&ids, stop, stats), visit)
            }
        }
    }
}

impl RowSource {
    fn distances(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        (ids, stop, stats): (&[u32], &Stop<'_>, &mut QueryStats),
        visit: &mut dyn FnMut(usize, f32),
    ) -> Result<(), ReadError> {
        stats.reranked += ids.len() as u32;
        match self {
            RowSource::Codes { row } => {
                let (quantizer, stride) = (origin.quantizer, origin.quantizer.stride());
                row.resize(quantizer.dim(), 0);
                for (i, id) in ids.iter().enumerate() {
                    let record = &origin.codes[*id as usize * stride..][..stride];
                    visit(i, query.distance(quantizer.exact_row(record, row)));
                }
                Ok(())
            }
            RowSource::Store(reader) => {
                reader.read_until(ids, stop, stats, |i, row| visit(i, query.distance(row)))
            }
        }
    }
}

/// What to rerank.
pub(crate) struct Rerank<'a> {
    pub(crate) candidates: &'a [Candidate],
    /// The estimate of the best candidate that is not among them, if there is one.
    pub(crate) beyond: Option<f32>,
    pub(crate) params: &'a SearchParams,
    pub(crate) stop: &'a Stop<'a>,
}

/// What came out.
pub(crate) struct Reranked {
    /// Nearest first.
    pub(crate) neighbors: Vec<Neighbor>,
    /// Whether `params.max_reads` cut the reading.
    pub(crate) partial: bool,
    /// The best estimate of a candidate that was not read, if there is one.
    pub(crate) unread: Option<f32>,
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
