//! How a search becomes parts for the pool.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use foveal_datasets::Rows;
use foveal_index::{Answer, Batch, Io, SearchParams, Stop};

use super::Collection;
use crate::search_pool::{Found, PartError, Searchers, Task};

/// Queries of a batch that a worker interleaves, so that memory of one arrives while others walk.
const IN_FLIGHT: usize = 4;
/// The same where rows come by io_uring, whose reads take longer than a walk. Each has a ring: a
/// file descriptor.
const IN_FLIGHT_READING: usize = 8;

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
    /// The most bytes of payload the hits may bring along; `None` asks for no payload.
    pub payload_limit: Option<u64>,
}

impl SearchJob {
    /// The search as a task for `threads` workers.
    pub(super) fn into_task(self, deadline: Instant, threads: usize) -> Task<Found> {
        let queries = self.queries.len();
        let size = part_size(queries, threads);
        let bytes = queries * self.queries.row_bytes();
        let payload_bytes = AtomicU64::new(0);
        let run = move |searchers: &mut Searchers, part: usize, stop: &Stop<'_>| {
            let rows = part * size..((part + 1) * size).min(queries);
            let answers = self.answers(searchers, rows, stop)?;
            answers.into_iter().map(|answer| self.found(answer, &payload_bytes, stop)).collect()
        };
        Task { parts: queries.div_ceil(size), bytes, deadline, run: Box::new(run) }
    }

    fn answers(
        &self,
        searchers: &mut Searchers,
        rows: Range<usize>,
        stop: &Stop<'_>,
    ) -> Result<Vec<Answer>, PartError> {
        let searcher = searchers.of(self.collection.slot, &self.collection.index);
        if rows.len() == 1 {
            let query = self.queries.row(rows.start);
            return Ok(vec![searcher.search_until(query, &self.params, stop)?]);
        }
        let mut answers: Vec<Option<Answer>> = rows.clone().map(|_| None).collect();
        let first = rows.start;
        let reading = self.collection.index.io() == Io::Uring;
        let in_flight = if reading { IN_FLIGHT_READING } else { IN_FLIGHT };
        let batch = Batch { params: self.params, in_flight, rows, stop: *stop };
        searcher.search_batch(&self.queries, &batch, &mut |row, answer| {
            answers[row - first] = Some(answer);
        })?;
        let answered = |answer: Option<Answer>| answer.expect("a batch answers each of its rows");
        Ok(answers.into_iter().map(answered).collect())
    }

    fn found(
        &self,
        answer: Answer,
        payload_bytes: &AtomicU64,
        stop: &Stop<'_>,
    ) -> Result<Found, PartError> {
        let Some(limit) = self.payload_limit else {
            return Ok(Found { answer, payloads: Vec::new() });
        };
        let mut payloads = Vec::with_capacity(answer.neighbors.len());
        for neighbor in &answer.neighbors {
            if let Some(why) = stop.now() {
                return Err(foveal_index::SearchError::Stopped(why).into());
            }
            let payload = self.collection.index.payload(neighbor.key)?;
            let bytes = payload.as_ref().map_or(0, |payload| payload.len() as u64);
            if payload_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > limit {
                return Err(PartError::PayloadTooLarge { limit });
            }
            payloads.push(payload);
        }
        Ok(Found { answer, payloads })
    }
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
