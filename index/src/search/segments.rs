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
/// merged by exact distance, then by key: a row that a segment finds is left out only for k nearer
/// ones. Costs the searches, one after the other.
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
    for (i, searcher) in searchers.iter_mut().enumerate() {
        let allowed = allowed.get(i).copied().flatten();
        merged.add(searcher.search_one(Query { row, params: *params, allowed, stop: *stop })?);
    }
    Ok(merged.finish(params.k as usize, started))
}

/// The answers so far.
struct Merge {
    /// Neighbor, segment, id.
    found: Vec<(Neighbor, u32, u32)>,
    segments: u32,
    all_exhausted: bool,
    partial: bool,
    /// What every candidate that was not read is at least away from the query.
    unread: f32,
    stats: QueryStats,
}

impl Default for Merge {
    fn default() -> Merge {
        Merge {
            found: Vec::new(),
            segments: 0,
            all_exhausted: true,
            partial: false,
            unread: f32::INFINITY,
            stats: QueryStats::default(),
        }
    }
}

impl Merge {
    fn add(&mut self, answer: Answer) {
        let ids = answer.neighbors.iter().zip(&answer.ids);
        self.found.extend(ids.map(|(neighbor, id)| (*neighbor, self.segments, *id)));
        self.segments += 1;
        self.all_exhausted &= answer.exhausted;
        self.partial |= answer.partial;
        self.unread = self.unread.min(answer.unread);
        self.stats += answer.stats;
    }

    fn finish(mut self, k: usize, started: Instant) -> Answer {
        self.found.sort_unstable_by(|a, b| a.0.order(&b.0).then(a.1.cmp(&b.1)));
        // A segment with k rows or more gives k, however many are kept of them.
        let exhausted = self.all_exhausted && self.found.len() < k;
        self.found.truncate(k);
        let neighbors: Vec<Neighbor> = self.found.iter().map(|found| found.0).collect();
        Answer {
            certified: certified(&neighbors, self.unread),
            neighbors,
            segments: self.found.iter().map(|found| found.1).collect(),
            ids: self.found.iter().map(|found| found.2).collect(),
            exhausted,
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
