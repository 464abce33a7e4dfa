//! The queries of one thread: their walks, and their rows on the way.

use std::iter;
use std::time::Instant;

use foveal_datasets::Row;

use super::Answer;
use super::segments::certified;
use crate::distance::ExactQuery;
use crate::fullview::{Fullview, Rerank, Reranked};
use crate::id_set::IdSet;
use crate::neighbor::Candidate;
use crate::params::{SearchParams, out_of_range};
use crate::plan::{self, Plan};
use crate::preview::{PreviewSlot, STEPS_A_LOOK};
use crate::segment::{SearchError, Segment, Shared};
use crate::stats::{QueryStats, Stop};

/// The most queries that one thread has begun at a time. One of them walks; the others wait for
/// their rows.
const MAX_IN_FLIGHT: usize = 64;
/// Candidates beyond the k best that are expanded before rows are requested.
const SETTLED: usize = 10;

/// A query and how it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// What the nearest rows are wanted to.
    pub row: Row<'a>,
    /// How they are found.
    pub params: SearchParams,
    /// The only rows that count; none where all do.
    pub allowed: Option<&'a IdSet>,
    /// When to give up.
    pub stop: Stop<'a>,
}

/// Answers queries, one thread at a time; owns what they need, so that none of it is allocated
/// anew.
pub struct Searcher {
    index: Segment,
    slots: Vec<Slot>,
}

/// One query in flight.
struct Slot {
    stage: Stage,
    preview: PreviewSlot,
    exact: ExactQuery,
    fullview: Fullview,
    /// How the allowed rows are found; none where all rows are allowed.
    plan: Option<Plan>,
    /// How candidates are ranked.
    params: SearchParams,
    stats: QueryStats,
    started: Instant,
    /// When the walk was over.
    walked: Instant,
}

/// How far a query has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Walking,
    Ranking,
}

impl Searcher {
    pub(super) fn new(index: Segment) -> Searcher {
        Searcher { index, slots: Vec::new() }
    }

    /// What it searches.
    pub fn segment(&self) -> &Segment {
        &self.index
    }

    /// The nearest rows to a query.
    ///
    /// # Errors
    /// Parameters out of range; a query of another dimension, not finite, or all zeros under
    /// cosine; a full vector that cannot be read.
    pub fn search<'q>(
        &mut self,
        query: impl Into<Row<'q>>,
        params: &SearchParams,
    ) -> Result<Answer, SearchError> {
        self.search_until(query, params, &Stop::default())
    }

    /// The nearest rows to a query, unless `stop` comes first; it is looked at every few hops and
    /// before each read.
    ///
    /// # Errors
    /// As [`Searcher::search`], and the stop.
    pub fn search_until<'q>(
        &mut self,
        query: impl Into<Row<'q>>,
        params: &SearchParams,
        stop: &Stop<'_>,
    ) -> Result<Answer, SearchError> {
        let query = Query { row: query.into(), params: *params, allowed: None, stop: *stop };
        self.search_one(query)
    }

    /// The answer to a query.
    ///
    /// # Errors
    /// As [`Searcher::search_until`].
    ///
    /// # Panics
    /// If the allowed rows are a set of another number of rows than the index has.
    pub fn search_one(&mut self, query: Query<'_>) -> Result<Answer, SearchError> {
        let mut found = None;
        self.search_batch(&mut iter::once(query), 1, &mut |_, answer| {
            found = Some(answer?);
            Ok(())
        })?;
        Ok(found.expect("each query is answered"))
    }

    /// Answers queries on this thread, up to `in_flight` at a time: while some wait for rows by
    /// io_uring another walks. With other media one is as good as many. `sink(i, answer)` gets the
    /// answer to query number i, in any order of i, or the reason why there is none. The other
    /// queries are answered all the same.
    ///
    /// Returns once there is nothing in flight and no further query: `queries` may have one again
    /// after it had none.
    ///
    /// # Errors
    /// `in_flight` of 0 or above 64, and the first error of `sink`, which leaves the rest
    /// unanswered.
    pub fn search_batch<'q>(
        &mut self,
        queries: &mut dyn Iterator<Item = Query<'q>>,
        in_flight: usize,
        sink: &mut dyn FnMut(usize, Result<Answer, SearchError>) -> Result<(), SearchError>,
    ) -> Result<(), SearchError> {
        if !(1..=MAX_IN_FLIGHT).contains(&in_flight) {
            let wanted = format!("1 to {MAX_IN_FLIGHT}");
            return Err(out_of_range("in_flight", in_flight, wanted).into());
        }
        let Searcher { index, slots } = self;
        let few = index.shared.few.as_ref();
        slots.iter_mut().for_each(|slot| slot.stage = Stage::Idle);
        let mut in_slots: Vec<(usize, Query<'_>)> = Vec::with_capacity(in_flight);
        let mut queries = queries.enumerate();
        let (mut walking, mut ranking, mut turns) = (false, 0, 0);
        // Nothing is left to do but to wait for a device: a whole turn changed nothing.
        let mut wait = false;
        loop {
            let looks = turns % STEPS_A_LOOK == 0;
            turns += 1;
            let (mut idle, mut room) = (!walking, looks || wait);
            for (slot, (i, query)) in slots.iter_mut().zip(&in_slots) {
                if slot.stage == Stage::Walking {
                    let hopped = slot.hop(index, query, looks).and_then(|goes_on| match goes_on {
                        true => Ok(true),
                        false => slot.walked(index, query).map(|()| false),
                    });
                    match hopped {
                        Ok(true) => {}
                        Ok(false) => (walking, ranking, room) = (false, ranking + 1, true),
                        Err(error) => {
                            (slot.stage, walking, room) = (Stage::Idle, false, true);
                            sink(*i, Err(error))?;
                        }
                    }
                }
                if slot.stage == Stage::Ranking {
                    let answer = slot.rank(index, query, std::mem::take(&mut wait));
                    if let Some(answer) = answer.transpose() {
                        (slot.stage, ranking, room) = (Stage::Idle, ranking - 1, true);
                        idle = false;
                        sink(*i, answer)?;
                    }
                }
            }
            while room
                && !walking
                && ranking < in_flight
                && let Some((i, mut query)) = queries.next()
            {
                query.allowed = query.allowed.or(few);
                match admit(index, &query) {
                    Ok(()) => {
                        let at = free_slot(index, slots);
                        slots[at].begin(index, &query);
                        in_slots.resize(in_slots.len().max(at + 1), (i, query));
                        in_slots[at] = (i, query);
                        (walking, idle) = (true, false);
                    }
                    Err(error) => sink(i, Err(error))?,
                }
            }
            if !walking && ranking == 0 {
                return Ok(());
            }
            wait = idle;
        }
    }
}

impl Slot {
    fn new(index: &Segment) -> Slot {
        let shared = &index.shared;
        let now = Instant::now();
        Slot {
            stage: Stage::Idle,
            preview: PreviewSlot::new(),
            exact: ExactQuery::new(shared.manifest.metric, shared.manifest.element),
            fullview: shared.fullview(),
            plan: None,
            params: SearchParams::new(1),
            stats: QueryStats::default(),
            started: now,
            walked: now,
        }
    }

    fn begin(&mut self, index: &Segment, query: &Query<'_>) {
        let Shared { frontier, preview, manifest, .. } = &*index.shared;
        let SearchParams { list_size, k, .. } = query.params;
        self.started = Instant::now();
        self.stage = Stage::Walking;
        self.stats = QueryStats::default();
        self.params = query.params;
        self.exact.set(query.row);
        let choose = |set: &IdSet| Plan::choose(set, &query.params, manifest.max_degree);
        self.plan = query.allowed.map(choose);
        match self.plan {
            None => {
                let stop_radius = frontier.stop_radius(list_size);
                preview.begin(&mut self.preview, query.row, (list_size, k), stop_radius);
            }
            Some(Plan::Walk) => {
                let (share, stop_radius) =
                    (query.allowed.map_or(1.0, plan::share), frontier.stop_radius(list_size));
                preview.begin_to(&mut self.preview, query.row, (list_size, k, share), stop_radius);
            }
            Some(Plan::Scan) => preview.prepare(&mut self.preview, query.row),
        }
        self.fullview.begin_query();
    }

    /// One hop of the walk; false when it is over. Once the best candidates hardly change any more,
    /// the first rows are requested: they arrive while it goes on.
    #[inline(always)]
    fn hop(
        &mut self,
        index: &Segment,
        Query { params, allowed, stop, .. }: &Query<'_>,
        looks: bool,
    ) -> Result<bool, SearchError> {
        if let (true, Some(why)) = (looks, stop.now()) {
            return Err(SearchError::Stopped(why));
        }
        if let (Some(plan), Some(allowed)) = (self.plan, allowed) {
            return Ok(self.hop_to_allowed(index, plan, allowed));
        }
        let goes_on = index.shared.preview.step(&mut self.preview);
        let settled = self.preview.settled() >= params.k as usize + SETTLED;
        if settled && goes_on && !self.fullview.is_ahead() {
            let origin = index.shared.row_origin();
            self.fullview.read_ahead(&origin, self.preview.best(), params, &mut self.stats)?;
        }
        Ok(goes_on)
    }

    /// One hop of a walk to allowed rows; false when it is over, or costs more than a scan.
    fn hop_to_allowed(&mut self, index: &Segment, plan: Plan, allowed: &IdSet) -> bool {
        if plan == Plan::Scan || !index.shared.preview.step(&mut self.preview) {
            return false;
        }
        if plan::is_too_long(allowed, self.preview.counts()) {
            (self.stats.distances, self.stats.hops) = self.preview.counts();
            self.plan = Some(Plan::Scan);
            return false;
        }
        true
    }

    /// The walk is over: its candidates are to be ranked.
    fn walked(&mut self, index: &Segment, query: &Query<'_>) -> Result<(), SearchError> {
        let preview = &index.shared.preview;
        if self.plan != Some(Plan::Scan) {
            (self.stats.distances, self.stats.hops) = self.preview.counts();
            let found = preview.candidates_of(&mut self.preview, query.allowed).len();
            let is_astray = |set: &IdSet| plan::is_astray(set, found, &query.params);
            if query.allowed.is_some_and(is_astray) {
                self.plan = Some(Plan::Scan);
            }
        }
        if let (Some(Plan::Scan), Some(allowed)) = (self.plan, query.allowed) {
            self.params = plan::ranking(&query.params);
            let most = self.params.list_size as usize;
            let scanned = preview.scan(&mut self.preview, (allowed, most), &query.stop);
            scanned.map_err(SearchError::Stopped)?;
            self.stats.scanned = allowed.len().into();
            self.stats.distances += u64::from(allowed.len());
        }
        (self.walked, self.stage) = (Instant::now(), Stage::Ranking);
        let request = rerank_request(&self.preview, &self.params, (&query.stop, false));
        self.fullview.begin(&index.shared.row_origin(), &request);
        Ok(())
    }

    /// The answer, once all rows that it takes have been read.
    fn rank(
        &mut self,
        index: &Segment,
        query: &Query<'_>,
        wait: bool,
    ) -> Result<Option<Answer>, SearchError> {
        let Shared { preview, manifest, .. } = &*index.shared;
        let origin = index.shared.row_origin();
        let request = rerank_request(&self.preview, &self.params, (&query.stop, wait));
        let ranked = self.fullview.rank(&origin, &mut self.exact, &request, &mut self.stats)?;
        let Some(Reranked { neighbors, ids, partial, unread }) = ranked else { return Ok(None) };
        let bound = unread.map(|estimate| preview.lower_bound(&self.preview, estimate));
        let unread = match bound {
            _ if !is_finite(self.preview.candidates()) => f32::NEG_INFINITY,
            Some(bound) if !bound.is_finite() => f32::NEG_INFINITY,
            Some(bound) => bound,
            None => f32::INFINITY,
        };
        let end = Instant::now();
        self.stats.preview_nanos = (self.walked - self.started).as_nanos() as u64;
        self.stats.fullview_nanos = (end - self.walked).as_nanos() as u64;
        Ok(Some(Answer {
            certified: certified(&neighbors, unread),
            neighbors,
            ids,
            segments: Vec::new(),
            unread,
            exhausted: query.allowed.map_or(manifest.n, |set| set.len().into())
                < query.params.k.into(),
            partial,
            nanos: (end - self.started).as_nanos() as u64,
            stats: self.stats,
        }))
    }
}

/// Whether every estimate is a finite number; others prove nothing.
fn is_finite(candidates: &[Candidate]) -> bool {
    candidates.iter().all(|candidate| candidate.estimate.is_finite())
}

/// The number of a slot with no query in it, made if there is none.
fn free_slot(index: &Segment, slots: &mut Vec<Slot>) -> usize {
    let free = slots.iter().position(|slot| slot.stage == Stage::Idle);
    free.unwrap_or_else(|| {
        slots.push(Slot::new(index));
        slots.len() - 1
    })
}

/// Whether a query is valid and still wanted; a graph that waited for one is loaded.
fn admit(
    index: &Segment,
    Query { row, params, allowed, stop }: &Query<'_>,
) -> Result<(), SearchError> {
    index.check(*row, params)?;
    let n = allowed.map_or(index.len(), |set| set.n().into());
    assert_eq!(n, index.len(), "the allowed rows are a set of rows of the index");
    if let Some(why) = stop.now() {
        return Err(SearchError::Stopped(why));
    }
    index.shared.preview.graph.load()?;
    Ok(())
}

fn rerank_request<'a>(
    preview: &'a PreviewSlot,
    params: &'a SearchParams,
    (stop, wait): (&'a Stop<'a>, bool),
) -> Rerank<'a> {
    Rerank { candidates: preview.candidates(), params, stop, wait }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_that_are_no_finite_numbers_prove_nothing() {
        let of = |estimate| [Candidate { id: 0, estimate, error: 0.0 }];
        assert!(is_finite(&of(-1e30)) && is_finite(&[]));
        for estimate in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!is_finite(&of(estimate)), "{estimate}");
        }
    }
}
