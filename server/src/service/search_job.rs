//! How a search becomes parts for the pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use foveal_datasets::Rows;
use foveal_index::{Answer, Io, Query, SearchError, SearchParams, Segment, Stop};

use super::Collection;
use crate::search_pool::{Found, PartError, Searchers, Single, Task, Work};

/// Queries that a worker interleaves, so that memory of one arrives while others walk.
const IN_FLIGHT: usize = 4;
/// The same where rows come by io_uring, whose reads take longer than a walk. Each has a ring: a
/// file descriptor.
pub(super) const IN_FLIGHT_READING: usize = 8;

/// The most queries in a part: at tens of microseconds each, a few milliseconds.
const MAX_PART: usize = 64;

/// Parts for each worker, so that a slow part at the end leaves nobody idle for long.
const PARTS_PER_WORKER: usize = 4;

/// A search for one or many queries, validated.
pub(super) struct SearchJob {
    /// Where to search.
    pub collection: Arc<Collection>,
    /// What to search for.
    pub queries: Rows,
    /// How.
    pub params: SearchParams,
    /// The most bytes of payload the hits may bring along; `None` returns no payload.
    pub payload_limit: Option<u64>,
}

impl SearchJob {
    /// The search as a task for `threads` workers.
    pub(super) fn into_task(self, deadline: Instant, threads: usize) -> Task<Found> {
        let queries = self.queries.len();
        let bytes = queries * self.queries.row_bytes();
        let payloads = Payloads::new(&self.collection.index, self.payload_limit);
        let work = match queries {
            1 => self.single(payloads),
            _ => self.parts(payloads, part_size(queries, threads)),
        };
        Task { bytes, deadline, work }
    }

    fn single(self, payloads: Payloads) -> Work<Found> {
        let SearchJob { collection, queries: query, params, .. } = self;
        let index = collection.index.clone();
        // Where no read is waited for, one after the other they are answered sooner.
        let in_flight = if is_reading(&index) { IN_FLIGHT_READING } else { 1 };
        let finish = Box::new(move |answer: Answer, stop: &Stop<'_>| payloads.found(answer, stop));
        Work::Single(Single { slot: collection.slot, index, query, params, in_flight, finish })
    }

    fn parts(self, payloads: Payloads, size: usize) -> Work<Found> {
        let SearchJob { collection, queries, params, .. } = self;
        let in_flight = if is_reading(&collection.index) { IN_FLIGHT_READING } else { IN_FLIGHT };
        let parts = queries.len().div_ceil(size);
        let run = move |searchers: &mut Searchers, part: usize, stop: &Stop<'_>| {
            let rows = part * size..((part + 1) * size).min(queries.len());
            let query = |row| Query { row: queries.row(row), params, allowed: None, stop: *stop };
            let mut answers: Vec<Option<Answer>> = rows.clone().map(|_| None).collect();
            let searcher = searchers.of(collection.slot, &collection.index);
            searcher.search_batch(&mut rows.map(query), in_flight, &mut |i, answer| {
                answers[i] = Some(answer?);
                Ok(())
            })?;
            let answers = answers.into_iter().flatten();
            answers.map(|answer| payloads.found(answer, stop)).collect()
        };
        Work::Parts(parts, Box::new(run))
    }
}

/// The payloads that a call's hits bring along.
struct Payloads {
    index: Segment,
    /// The most bytes that they may have together; none are wanted without.
    limit: Option<u64>,
    bytes: AtomicU64,
}

impl Payloads {
    fn new(index: &Segment, limit: Option<u64>) -> Payloads {
        Payloads { index: index.clone(), limit, bytes: AtomicU64::new(0) }
    }

    /// An answer with its payloads.
    fn found(&self, mut answer: Answer, stop: &Stop<'_>) -> Result<Found, PartError> {
        let Some(limit) = self.limit else {
            return Ok(Found { answer, payloads: Vec::new() });
        };
        let mut payloads = Vec::with_capacity(answer.neighbors.len());
        for rank in 0..answer.neighbors.len() {
            if let Some(why) = stop.now() {
                return Err(SearchError::Stopped(why).into());
            }
            let payload = self.index.payload_of(&mut answer, rank)?;
            let bytes = payload.as_ref().map_or(0, |payload| payload.len() as u64);
            if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > limit {
                return Err(PartError::PayloadTooLarge { limit });
            }
            payloads.push(payload);
        }
        Ok(Found { answer, payloads })
    }
}

/// Whether the device reads rows while other queries walk.
fn is_reading(index: &Segment) -> bool {
    index.io() == Io::Uring
}

pub(super) fn part_size(queries: usize, threads: usize) -> usize {
    queries.div_ceil(threads.max(1) * PARTS_PER_WORKER).clamp(1, MAX_PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_small_enough_to_take_turns_and_to_share() {
        for (queries, threads, size) in
            [(1, 8, 1), (7, 8, 1), (33, 2, 5), (1_000, 2, 64), (4_096, 64, 16), (4_096, 1, 64)]
        {
            assert_eq!(part_size(queries, threads), size, "{queries} on {threads}");
        }
    }
}
