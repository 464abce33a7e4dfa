//! Several segments, searched as if all their rows were in one.

use std::time::Instant;

use foveal_datasets::Row;

use super::{Answer, SearchError, Searcher};
use crate::id_set::IdSet;
use crate::neighbor::Neighbor;
use crate::params::SearchParams;
use crate::search::Query;
use crate::stats::{QueryStats, Stop};

/// The nearest rows to a query among those of all `searchers`, one a segment. `allowed[i]` are the
/// only rows of segment `i` that count; no list where all do. The answers of the segments are
/// merged by exact distance, then by key: a row that one segment finds is dropped only if the
/// segments together found k nearer rows. `max_reads` is for all segments together; where it is
/// less than their number, some are passed over and the answer is partial. Costs the searches, one
/// after the other.
///
/// # Errors
/// As [`Searcher::search_until`]; segments of different metrics, whose distances say nothing of
/// each other. Nothing is searched unless every segment can be.
///
/// # Panics
/// If `allowed` is a list of another length than `searchers`, or holds a set of another number of
/// rows than its segment has.
pub fn search_segments(
    searchers: &mut [Searcher],
    row: Row<'_>,
    params: &SearchParams,
    allowed: &[Option<&IdSet>],
    stop: &Stop<'_>,
) -> Result<Answer, SearchError> {
    assert!(allowed.is_empty() || allowed.len() == searchers.len(), "a set for each segment");
    let started = Instant::now();
    let metric = |searcher: &Searcher| searcher.segment().manifest().metric;
    for pair in searchers.windows(2) {
        let (wanted, found) = (metric(&pair[0]), metric(&pair[1]));
        if found != wanted {
            return Err(SearchError::Metrics { found, wanted });
        }
    }
    for searcher in &*searchers {
        searcher.segment().check(row, params)?;
    }
    let mut merged = Merge::default();
    let mut left = params.max_reads;
    let segments = searchers.len() as u32;
    for (i, searcher) in (0..).zip(searchers) {
        let allowed = allowed.get(i as usize).copied().flatten();
        let rows = allowed.map_or(searcher.segment().len(), |set| set.len().into());
        // Each gets an even part of the reads that those before it left.
        let max_reads = left.map(|left| left.div_ceil(segments - i));
        if max_reads == Some(0) {
            merged.pass_over(rows);
            continue;
        }
        let params = SearchParams { max_reads, ..*params };
        let answer = searcher.search_one(Query { row, params, allowed, stop: *stop })?;
        left = left.map(|left| left.saturating_sub(answer.stats.reads as u32));
        merged.add(answer, rows);
    }
    Ok(merged.finish(params.k, started))
}

/// The answers so far.
struct Merge {
    /// Neighbor, segment, id.
    found: Vec<(Neighbor, u32, u32)>,
    segments: u32,
    /// Rows that count.
    rows: u64,
    partial: bool,
    /// A lower bound on the distance from the query to every candidate that was not read.
    unread: f32,
    stats: QueryStats,
}

impl Default for Merge {
    fn default() -> Merge {
        Merge {
            found: Vec::new(),
            segments: 0,
            rows: 0,
            partial: false,
            unread: f32::INFINITY,
            stats: QueryStats::default(),
        }
    }
}

impl Merge {
    fn add(&mut self, answer: Answer, rows: u64) {
        let ids = answer.neighbors.iter().zip(&answer.ids);
        self.found.extend(ids.map(|(neighbor, id)| (*neighbor, self.segments, *id)));
        self.segments += 1;
        self.rows += rows;
        self.partial |= answer.partial;
        self.unread = self.unread.min(answer.unread);
        self.stats += answer.stats;
    }

    /// Takes no row of a segment: nothing is known of them.
    fn pass_over(&mut self, rows: u64) {
        self.segments += 1;
        self.rows += rows;
        self.partial |= rows > 0;
        self.unread = f32::NEG_INFINITY;
    }

    fn finish(mut self, k: u32, started: Instant) -> Answer {
        self.found.sort_unstable_by(|a, b| a.0.order(&b.0).then(a.1.cmp(&b.1)));
        self.found.truncate(k as usize);
        let neighbors: Vec<Neighbor> = self.found.iter().map(|found| found.0).collect();
        Answer {
            certified: certified(&neighbors, self.unread),
            neighbors,
            segments: self.found.iter().map(|found| found.1).collect(),
            ids: self.found.iter().map(|found| found.2).collect(),
            exhausted: self.rows < k.into(),
            partial: self.partial,
            unread: self.unread,
            nanos: started.elapsed().as_nanos() as u64,
            stats: self.stats,
        }
    }
}

/// How many of the leading neighbors are nearer than whatever was not read.
pub(super) fn certified(neighbors: &[Neighbor], unread: f32) -> u32 {
    neighbors.partition_point(|neighbor| neighbor.distance < unread) as u32
}
