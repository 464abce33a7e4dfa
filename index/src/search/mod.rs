//! The order of a query: preview, fullview, answer.

mod searcher;
mod segments;

pub use searcher::{Query, Searcher};
pub use segments::search_segments;

use std::time::Instant;

use foveal_datasets::Row;

use crate::neighbor::Neighbor;
use crate::params::SearchParams;
use crate::segment::{SearchError, Segment};
use crate::stats::QueryStats;

/// The answer to one query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// At most k, nearest first; equal distances smaller key first.
    pub neighbors: Vec<Neighbor>,
    /// The row of each neighbor, for its payload.
    ids: Vec<u32>,
    /// The segment of each neighbor; empty where there is but one.
    segments: Vec<u32>,
    /// Whether there are fewer than k rows.
    pub exhausted: bool,
    /// Whether `max_reads` left candidates unread.
    pub partial: bool,
    /// How many of the leading neighbors are proved to precede every other candidate of the walk,
    /// by a bound that never fails: those that were not read included. It says nothing of rows that
    /// the walk did not meet, and so is no recall. 0 where an estimate is NaN or infinite.
    pub certified: u32,
    /// What every candidate that was not read is at least away from the query; infinity where all
    /// were read, minus infinity where nothing is known.
    unread: f32,
    /// From the start of the query to its end, in nanoseconds.
    pub nanos: u64,
    /// What the query cost.
    pub stats: QueryStats,
}

impl Answer {
    /// Which of the segments searched holds neighbor number `rank`.
    pub fn segment_of(&self, rank: usize) -> usize {
        self.segments.get(rank).map_or(0, |segment| *segment as usize)
    }
}

impl Segment {
    /// A searcher of its own for a thread.
    pub fn searcher(&self) -> Searcher {
        Searcher::new(self.clone())
    }

    /// The payload of neighbor number `rank` of an answer as JSON text; none if the segment, which
    /// holds that neighbor, has no payloads. Time and reads are added to the stats of the answer.
    ///
    /// # Errors
    /// Damage, or a read refused.
    ///
    /// # Panics
    /// If the answer has no such neighbor.
    pub fn payload_of(
        &self,
        answer: &mut Answer,
        rank: usize,
    ) -> Result<Option<String>, SearchError> {
        let Some(payload) = &self.shared.payload else { return Ok(None) };
        let started = Instant::now();
        let key = answer.neighbors[rank].key;
        // The caller may have changed the neighbors, which are public, or mixed up two indexes.
        let known = answer.ids.get(rank).copied().filter(|id| self.shared.keys.is(*id, key));
        let id = match known {
            Some(id) => Some(id),
            None => self.shared.keys.id_of(key)?,
        };
        let Some(id) = id else { return Ok(None) };
        let (text, reads) = payload.get(id)?;
        answer.stats.payload_reads += u64::from(reads);
        answer.stats.payload_nanos += started.elapsed().as_nanos() as u64;
        Ok(Some(text))
    }

    fn check(&self, query: Row<'_>, params: &SearchParams) -> Result<(), SearchError> {
        params.check()?;
        self.check_query(query)
    }
}
