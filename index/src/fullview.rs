//! Candidates -> the exact top k, from full vectors.
//!
//! A row is read if its *likely* bound, `estimate - 1.9 error`, reaches the k-th best. First the
//! k-th best estimate stands for it, then, once those rows are ranked, the k-th exact distance:
//! mostly one round of reads, never more than two, and the same rows wherever they come from. A
//! true neighbor at the very edge, at the k-th distance itself, is missed with a probability of
//! 3 %, any other with less. Candidates that share a block with a row that is read are ranked as
//! well.
//!
//! The k best of a walk that is not over are read ahead, as far as reads are allowed beyond k: most
//! of them stay, and their rows arrive while it goes on.

use std::mem::take;
use std::ops::Range;

use foveal_datasets::Row;

use crate::disk::RamArray;
use crate::distance::ExactQuery;
use crate::full_store::{ReadError, RowReader};
use crate::key_table::KeyTable;
use crate::neighbor::{Candidate, Neighbor, Ranked};
use crate::params::SearchParams;
use crate::quantizer::Quantizer;
use crate::stats::{QueryStats, Stop};

/// Rows that are ranked while the next ones come from memory.
const MEMORY_BATCH: usize = 8;

/// Where full vectors come from.
pub(crate) enum FullVectors {
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
    /// Whether a read costs a system call: then all rows are requested at once.
    pub(crate) on_device: bool,
}

impl RowOrigin<'_> {
    fn ranked(&self, id: u32, distance: f32) -> Ranked {
        Ranked { key: self.keys.key(id), distance, id }
    }
}

/// The second stage of one query at a time; owns its buffers.
pub(crate) struct Fullview {
    source: FullVectors,
    /// The nearest so far, in order: at most k.
    nearest: Vec<Ranked>,
    /// The rows to read, best estimate first, then those that share their blocks.
    ids: Vec<u32>,
    /// Candidates that need not be read.
    rest: Vec<u32>,
    /// The likely bound up to which candidates are read, or in `ids`; none before the first round.
    read_bound: Option<f32>,
    /// Rows reserved, of the `rerank_size` allowed.
    reserved: usize,
    /// Whether the query read ahead.
    ahead: bool,
    /// Whether `max_reads` left rows unread.
    partial: bool,
    /// Whether the rows of `ids` are being read.
    reading: bool,
}

impl Fullview {
    pub(crate) fn new(source: FullVectors) -> Fullview {
        let (nearest, ids, rest) = (Vec::new(), Vec::new(), Vec::new());
        let (reserved, read_bound) = (0, None);
        let (ahead, partial, reading) = (false, false, false);
        Fullview { source, nearest, ids, rest, read_bound, reserved, ahead, partial, reading }
    }

    /// Begins to read the rows that preview, not over yet, takes for the k best: once a query,
    /// before `begin`.
    ///
    /// # Errors
    /// A read is refused.
    pub(crate) fn read_ahead(
        &mut self,
        origin: &RowOrigin<'_>,
        best: impl Iterator<Item = u32>,
        params: &SearchParams,
        stats: &mut QueryStats,
    ) -> Result<(), ReadError> {
        self.ahead = true;
        let FullVectors::Store(reader) = &mut self.source else { return Ok(()) };
        let most = params.rerank_size.min(params.max_reads.unwrap_or(u32::MAX));
        let spare = most.saturating_sub(params.k);
        self.ids.clear();
        self.ids.extend(best.take(params.k.min(spare) as usize));
        self.ids.truncate(reader.reserve_reads(&self.ids, most, stats));
        self.reserved = self.ids.len();
        self.ids.iter().for_each(|id| origin.keys.prefetch(*id));
        reader.read_ahead(&self.ids, stats)
    }

    /// Whether the query read ahead.
    pub(crate) fn is_ahead(&self) -> bool {
        self.ahead
    }

    /// Takes the candidates of a query, for `rank`.
    pub(crate) fn begin(&mut self, origin: &RowOrigin<'_>, request: &Rerank<'_>) {
        self.nearest.clear();
        (self.read_bound, self.partial, self.reading) = (None, false, false);
        let farthest = request.candidates.get(request.params.k as usize - 1);
        self.choose(request, farthest.map_or(f32::INFINITY, |candidate| candidate.estimate));
        self.ids.iter().for_each(|id| origin.keys.prefetch(*id));
    }

    /// The `params.k` nearest of the candidates by exact distance; equal distances smaller key
    /// first. None while rows are being read: call it again, with the same `request`. With
    /// `request.wait` it waits for some of them.
    pub(crate) fn rank(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        request: &Rerank<'_>,
        stats: &mut QueryStats,
    ) -> Result<Option<Reranked>, ReadError> {
        loop {
            if !self.reading {
                if let Some(why) = request.stop.now() {
                    return Err(ReadError::Stopped(why));
                }
                self.share_blocks(request, stats);
                self.read(origin, query, request, stats)?;
            }
            if self.reading && !self.take_arrived(origin, query, request, stats)? {
                return Ok(None);
            }
            self.reading = false;
            self.ids.clear();
            if let (false, Some(last)) =
                (self.partial, self.nearest.get(request.params.k as usize - 1))
            {
                self.choose(request, last.distance);
            }
            if self.ids.is_empty() {
                return Ok(Some(Reranked {
                    neighbors: self.nearest.iter().map(Neighbor::from).collect(),
                    ids: self.nearest.iter().map(|ranked| ranked.id).collect(),
                    partial: self.partial,
                    unread: self.unread(request),
                }));
            }
        }
    }

    /// The rows to read if the k-th best is at `farthest`.
    fn choose(&mut self, request: &Rerank<'_>, farthest: f32) {
        self.ids.clear();
        if self.read_bound.is_some_and(|read_bound| farthest <= read_bound) {
            return;
        }
        self.rest.clear();
        // Codes that hold the rows cost no read.
        let most = match self.source {
            FullVectors::Store(_) => request.params.rerank_size as usize,
            FullVectors::Codes { .. } => request.params.list_size as usize,
        };
        for candidate in &request.candidates[..request.proposed()] {
            // What is no number, where numbers are too large for it, is read.
            let is_beyond = candidate.likely_bound() > farthest;
            if !self.is_read(candidate) {
                // In a block that is read ahead.
                let is_coming = self.is_reserved(candidate.id);
                let left = is_coming || is_beyond || self.reserved == most;
                if left { &mut self.rest } else { &mut self.ids }.push(candidate.id);
                self.reserved += usize::from(!left);
            }
        }
        self.read_bound = Some(farthest);
    }

    /// Whether a candidate's row was read in an earlier round.
    fn is_read(&self, candidate: &Candidate) -> bool {
        match (&self.source, self.read_bound) {
            (_, None) => false,
            (FullVectors::Store(_), _) => self.is_reserved(candidate.id),
            (FullVectors::Codes { .. }, Some(read_bound)) => {
                let is_beyond = candidate.likely_bound() > read_bound;
                !is_beyond
            }
        }
    }

    fn is_reserved(&self, id: u32) -> bool {
        matches!(&self.source, FullVectors::Store(reader) if reader.is_reserved(id))
    }

    /// The best estimate of a candidate that was not read.
    fn unread(&self, request: &Rerank<'_>) -> Option<f32> {
        let (proposed, beyond) = request.candidates.split_at(request.proposed());
        let first = proposed.iter().find(|candidate| !self.is_read(candidate));
        first.or(beyond.first()).map(|candidate| candidate.estimate)
    }

    /// Drops the ids from the first one on that `max_reads` has no read left for, and adds the
    /// candidates whose rows lie in blocks that are read anyway.
    fn share_blocks(&mut self, request: &Rerank<'_>, stats: &mut QueryStats) {
        let Fullview { source, ids, rest, partial, .. } = self;
        let FullVectors::Store(reader) = source else { return };
        let most = request.params.max_reads.unwrap_or(u32::MAX);
        let left = reader.reserve_reads(ids, most, stats);
        *partial = left < ids.len();
        rest.extend(ids.drain(left..));
        ids.extend(rest.iter().filter(|id| reader.is_reserved(**id)));
    }

    /// Ranks the rows of `ids`, or begins to read them where reads are asynchronous.
    fn read(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        request: &Rerank<'_>,
        stats: &mut QueryStats,
    ) -> Result<(), ReadError> {
        let Fullview { source, nearest, ids, reading, .. } = self;
        if let FullVectors::Store(reader) = source {
            let k = request.params.k as usize;
            let mut ready = 0;
            *reading = reader.begin(ids, stats, |i, row| {
                ready += 1;
                let distance = query.distance(row);
                insert(nearest, origin.ranked(ids[i], distance), k);
            });
            stats.reranked += ready;
            if *reading {
                return Ok(());
            }
        }
        let (ids, mut nearest) = (take(&mut self.ids), take(&mut self.nearest));
        let read =
            self.distances(origin, query, (&ids, request.stop, stats), &mut |i, distance| {
                insert(&mut nearest, origin.ranked(ids[i], distance), request.params.k as usize);
            });
        (self.ids, self.nearest) = (ids, nearest);
        read
    }

    /// Ranks the rows that have arrived; whether those were all that are being read.
    fn take_arrived(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        request: &Rerank<'_>,
        stats: &mut QueryStats,
    ) -> Result<bool, ReadError> {
        let Fullview { source, nearest, ids, .. } = self;
        let FullVectors::Store(reader) = source else { return Ok(true) };
        reader.arrived(request.stop, request.wait, |i, row| {
            stats.reranked += 1;
            let ranked = origin.ranked(ids[i], query.distance(row));
            insert(nearest, ranked, request.params.k as usize);
        })
    }

    /// Starts a new query, which has read nothing yet.
    pub(crate) fn begin_query(&mut self) {
        (self.reserved, self.ahead) = (0, false);
        if let FullVectors::Store(reader) = &mut self.source {
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
        if let (FullVectors::Store(reader), Some(first)) = (&self.source, batches.peek()) {
            reader.prefetch(first);
        }
        let mut done = 0;
        while let Some(ids) = batches.next() {
            if let (FullVectors::Store(reader), Some(next)) = (&self.source, batches.peek()) {
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
            FullVectors::Store(reader) => {
                stats.reranked += rows.len() as u64;
                reader.scan_until(rows, stop, stats, |id, row| visit(id, query.distance(row)))
            }
            FullVectors::Codes { .. } => {
                let ids: Vec<u32> = rows.collect();
                let visit = &mut |i: usize, distance: f32| visit(ids[i], distance);
                self.source.distances(origin, query, (&ids, stop, stats), visit)
            }
        }
    }
}

impl FullVectors {
    /// Starts counting the reads of a new query.
    pub(crate) fn begin_query(&mut self) {
        if let FullVectors::Store(reader) = self {
            reader.begin_query();
        }
    }

    fn distances(
        &mut self,
        origin: &RowOrigin<'_>,
        query: &mut ExactQuery,
        ids: (&[u32], &Stop<'_>, &mut QueryStats),
        visit: &mut dyn FnMut(usize, f32),
    ) -> Result<(), ReadError> {
        self.rows(origin, ids, &mut |i, row| visit(i, query.distance(row)))
    }

    /// The full vector of each of `ids`, by `visit(i, row)`, i in any order.
    ///
    /// # Errors
    /// A row cannot be read.
    pub(crate) fn rows(
        &mut self,
        origin: &RowOrigin<'_>,
        (ids, stop, stats): (&[u32], &Stop<'_>, &mut QueryStats),
        visit: &mut dyn FnMut(usize, Row<'_>),
    ) -> Result<(), ReadError> {
        stats.reranked += ids.len() as u64;
        match self {
            FullVectors::Codes { row } => {
                let (quantizer, stride) = (origin.quantizer, origin.quantizer.stride());
                row.resize(quantizer.dim(), 0);
                for (i, id) in ids.iter().enumerate() {
                    let record = &origin.codes[*id as usize * stride..][..stride];
                    visit(i, quantizer.exact_row(record, row));
                }
                Ok(())
            }
            FullVectors::Store(reader) => reader.read_until(ids, stop, stats, visit),
        }
    }
}

/// What to rerank.
pub(crate) struct Rerank<'a> {
    /// Best estimate first; those beyond the list size are not ranked.
    pub(crate) candidates: &'a [Candidate],
    pub(crate) params: &'a SearchParams,
    pub(crate) stop: &'a Stop<'a>,
    /// Whether to wait for rows that are being read.
    pub(crate) wait: bool,
}

impl Rerank<'_> {
    /// How many of the candidates may be ranked.
    fn proposed(&self) -> usize {
        self.candidates.len().min(self.params.list_size as usize)
    }
}

/// What came out.
pub(crate) struct Reranked {
    /// Nearest first.
    pub(crate) neighbors: Vec<Neighbor>,
    /// The row of each neighbor.
    pub(crate) ids: Vec<u32>,
    /// Whether `params.max_reads` cut the reading.
    pub(crate) partial: bool,
    /// The best estimate of a candidate that was not read, if there is one.
    pub(crate) unread: Option<f32>,
}

/// Puts a neighbor where it belongs among the `k` nearest.
fn insert(nearest: &mut Vec<Ranked>, neighbor: Ranked, k: usize) {
    if nearest.len() == k {
        match nearest.last() {
            Some(last) if neighbor.order(last).is_lt() => nearest.pop(),
            _ => return,
        };
    }
    let place = nearest.partition_point(|other| other.order(&neighbor).is_lt());
    nearest.insert(place, neighbor);
}
