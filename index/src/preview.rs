//! Query -> candidates, in RAM: the walk over codes. The only module that names both a graph and a
//! quantizer.
//!
//! No allocation, lock or system call between `begin` and `candidates` once a slot has seen a query
//! of the same parameters.

use std::cmp::Ordering;

use foveal_datasets::Row;

use crate::disk::RamArray;
use crate::distance::QueryDistance;
use crate::extremes::Extremes;
use crate::graph::stored::StoredGraph;
use crate::graph::walk::{StopRule, Walk};
use crate::id_set::IdSet;
use crate::kernel::{LINE, prefetch};
use crate::neighbor::Candidate;
use crate::quantizer::{PreparedQuery, Quantizer};
use crate::stats::{Stop, Stopped};

/// The stop radius of a walk is a multiple of the distance of the candidate of this rank.
pub(crate) const STOP_RADIUS_K: usize = 10;
/// Candidates kept, in list sizes, where a stop radius ends the walk.
const POOL_FACTOR: usize = 2;

/// Hops between two looks at the deadline.
pub(crate) const STEPS_A_LOOK: u32 = 32;
/// Codes scored at once by a scan of them all.
const SCAN_BATCH: usize = 1024;
/// Codes scored at once while the next ones are prefetched.
const ESTIMATE_BATCH: usize = 16;
/// Such batches that are prefetched while a scan of allowed rows scores one.
const SCAN_AHEAD: usize = 3;

/// The first stage: codes and graph of one index.
pub(crate) struct Preview {
    pub(crate) quantizer: Quantizer,
    /// `[n x stride]`, in graph order.
    pub(crate) codes: RamArray<u8>,
    /// `[n x extra_stride]`, in graph order: the extra bits, which rank candidates.
    pub(crate) extra: RamArray<u8>,
    pub(crate) graph: StoredGraph,
    pub(crate) entry_points: u32,
    /// Rows without a code and neighbors.
    pub(crate) extremes: Extremes,
}

/// The state of one query in preview.
pub(crate) struct PreviewSlot {
    walk: Walk,
    query: PreparedQuery,
    /// The query as it came, where there are extreme rows.
    wide: Vec<f32>,
    /// What was found, before extra bits and extreme rows: estimates and ids, best first.
    found: Vec<(f32, u32)>,
    candidates: Vec<Candidate>,
}

impl PreviewSlot {
    pub(crate) fn new() -> PreviewSlot {
        let (walk, query) = (Walk::new(), PreparedQuery::default());
        let (wide, found, candidates) = (Vec::new(), Vec::new(), Vec::new());
        PreviewSlot { walk, query, wide, found, candidates }
    }

    /// The squared distance of the candidate of rank `list_size` over that of rank `STOP_RADIUS_K`;
    /// none where there are not so many, or they lie at no distance.
    pub(crate) fn stop_radius(&self, list_size: u32) -> Option<f64> {
        let common = self.query.common();
        let near = f64::from(self.walk.distance_at(STOP_RADIUS_K - 1)?) + common;
        let far = f64::from(self.walk.distance_at(list_size as usize - 1)?) + common;
        (near > 0.0).then(|| far / near)
    }

    /// What [`Preview::candidates`] gave.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// How many of the best candidates, at least, have been expanded.
    pub(crate) fn settled(&self) -> usize {
        self.walk.settled()
    }

    /// The best candidates so far.
    pub(crate) fn best(&self) -> impl Iterator<Item = u32> {
        self.walk.found().map(|(_, id)| id)
    }

    /// Distances computed and nodes expanded for the query.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.walk.computed.into(), self.walk.expanded().len() as u64)
    }
}

impl Preview {
    /// Takes a query and finds where its walk starts. Where the squared distance of the
    /// `list_size`-th candidate over that of the `STOP_RADIUS_K`-th is known, as a mean, the walk
    /// goes as far as that for this query: farther than `list_size` candidates where they lie
    /// close, not as far where they do not; to `least` of them and half of `list_size` in any case.
    /// The graph must have been loaded.
    pub(crate) fn begin(
        &self,
        slot: &mut PreviewSlot,
        query: Row<'_>,
        (list_size, least): (u32, u32),
        stop_radius: Option<f64>,
    ) {
        self.begin_to(slot, query, (list_size, least, 1.0), stop_radius);
    }

    /// The same where a `share` of the rows is allowed: as far as so many of those are met, if they
    /// lie everywhere.
    pub(crate) fn begin_to(
        &self,
        slot: &mut PreviewSlot,
        query: Row<'_>,
        (list_size, least, share): (u32, u32, f64),
        stop_radius: Option<f64>,
    ) {
        self.prepare(slot, query);
        let distance = self.quantizer.distance(&self.codes, &slot.query);
        let among = |allowed: u32| (f64::from(allowed) / share).ceil() as usize;
        let floor = among(least.max(list_size / 2).max(1));
        let common = slot.query.common();
        let k = among(STOP_RADIUS_K as u32);
        let stop = stop_radius.map(|factor| StopRule { k, factor, common, floor });
        let list_sizes = if stop_radius.is_some() { POOL_FACTOR } else { 1 };
        slot.walk.begin(list_sizes * among(list_size), stop, self.entry_points, &distance);
    }

    /// One hop; false when the walk is over. What the next hop reads is being prefetched when this
    /// one ends, so that walks which take turns hop by hop wait less.
    #[inline(always)]
    pub(crate) fn step(&self, slot: &mut PreviewSlot) -> bool {
        let distance = self.quantizer.distance(&self.codes, &slot.query);
        slot.walk.hop(self.graph.lists(), &distance)
    }

    /// All hops of a walk, unless `stop` comes first: it is looked at every few of them.
    ///
    /// # Errors
    /// The stop.
    pub(crate) fn walk(&self, slot: &mut PreviewSlot, stop: &Stop<'_>) -> Result<(), Stopped> {
        let mut steps = 0;
        while self.step(slot) {
            steps += 1;
            if steps % STEPS_A_LOOK == 0
                && let Some(why) = stop.now()
            {
                return Err(why);
            }
        }
        Ok(())
    }

    /// All candidates of a walk that is over, best first, in shown distances, and the extreme rows
    /// among them.
    pub(crate) fn candidates<'a>(&self, slot: &'a mut PreviewSlot) -> &'a [Candidate] {
        self.candidates_of(slot, None)
    }

    /// Those of the candidates of a walk that are allowed.
    pub(crate) fn candidates_of<'a>(
        &self,
        slot: &'a mut PreviewSlot,
        allowed: Option<&IdSet>,
    ) -> &'a [Candidate] {
        slot.found.clear();
        let is_allowed = |id: u32| allowed.is_none_or(|allowed| allowed.contains(id));
        slot.found.extend(slot.walk.found().filter(|(_, id)| is_allowed(*id)));
        self.fill_in(slot, is_allowed)
    }

    /// The best `most` of the allowed rows by their codes, all of which are met: `O(allowed)`.
    ///
    /// # Errors
    /// The stop, which is looked at every few hundred codes.
    pub(crate) fn scan(
        &self,
        slot: &mut PreviewSlot,
        (allowed, most): (&IdSet, usize),
        stop: &Stop<'_>,
    ) -> Result<(), Stopped> {
        let distance = self.quantizer.distance(&self.codes, &slot.query);
        let found = &mut slot.found;
        found.clear();
        let coded = allowed.iter().take_while(|id| *id < self.extremes.first());
        let (mut ids, mut distances) = (Vec::with_capacity(SCAN_BATCH), [0.0; SCAN_BATCH]);
        let mut coded = coded.peekable();
        let nearer = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let mut limit = f32::INFINITY;
        while coded.peek().is_some() {
            if let Some(why) = stop.now() {
                return Err(why);
            }
            ids.clear();
            ids.extend(coded.by_ref().take(SCAN_BATCH));
            // Allowed rows lie apart: some codes are prefetched while others are scored.
            let ahead = SCAN_AHEAD * ESTIMATE_BATCH;
            ids.iter().take(ahead).for_each(|id| distance.prefetch(*id));
            let batches = ids.chunks(ESTIMATE_BATCH).zip(distances.chunks_mut(ESTIMATE_BATCH));
            for (batch, (some, out)) in batches.enumerate() {
                let next = ids.iter().skip(batch * ESTIMATE_BATCH + ahead).take(ESTIMATE_BATCH);
                next.for_each(|id| distance.prefetch(*id));
                distance.distances(some, out);
            }
            // What is NaN is kept.
            let near = ids.iter().zip(distances).filter(|(_, distance)| {
                let is_beyond = *distance > limit;
                !is_beyond
            });
            found.extend(near.map(|(id, distance)| (distance, *id)));
            if found.len() >= 2 * most + SCAN_BATCH {
                limit = found.select_nth_unstable_by(most - 1, nearer).1.0;
                found.truncate(most);
            }
        }
        found.sort_unstable_by(nearer);
        found.truncate(most);
        self.fill_in(slot, |id| allowed.contains(id));
        Ok(())
    }

    /// Makes candidates of what was found, and of the extreme rows that are allowed.
    fn fill_in<'a>(
        &self,
        slot: &'a mut PreviewSlot,
        is_allowed: impl Fn(u32) -> bool,
    ) -> &'a [Candidate] {
        let distance = self.quantizer.distance(&self.codes, &slot.query);
        let (scale, add) = slot.query.shown();
        slot.candidates.clear();
        if self.extra.is_empty() {
            slot.candidates.extend(slot.found.iter().map(|(estimate, id)| {
                let error = distance.error(*id) * scale;
                Candidate { id: *id, estimate: estimate * scale + add, error }
            }));
        } else {
            self.look_again(slot);
        }
        if !self.extremes.is_empty() {
            self.meet_extremes(slot, is_allowed);
        }
        &slot.candidates
    }

    /// Puts the allowed extreme rows among the candidates.
    fn meet_extremes(&self, slot: &mut PreviewSlot, is_allowed: impl Fn(u32) -> bool) {
        let PreviewSlot { wide, candidates, .. } = slot;
        candidates.extend(self.extremes.ids().filter(|id| is_allowed(*id)).map(|id| {
            let (estimate, error) = self.extremes.distance(wide, id);
            Candidate { id, estimate, error }
        }));
        candidates.sort_unstable_by(nearest_first);
    }

    /// Fills in all that was found, by the estimates of all bits, best first.
    fn look_again(&self, slot: &mut PreviewSlot) {
        let (stride, extra_stride) = (self.quantizer.stride(), self.quantizer.extra_stride());
        let (scale, add) = slot.query.shown();
        let PreviewSlot { found, query, candidates, .. } = slot;
        for (_, id) in found.iter() {
            let at = *id as usize * extra_stride;
            (at..at + extra_stride).step_by(LINE).for_each(|line| prefetch(&self.extra, line));
            prefetch(&self.extra, at + extra_stride - 1);
        }
        candidates.extend(found.iter().map(|&(estimate, id)| {
            let at = id as usize;
            let code = &self.codes[at * stride..][..stride];
            let extra = &self.extra[at * extra_stride..][..extra_stride];
            let (estimate, error) = self.quantizer.extra_estimate(query, (code, extra), estimate);
            Candidate { id, estimate: estimate * scale + add, error: error * scale }
        }));
        candidates.sort_unstable_by(nearest_first);
    }

    /// What the shown distance of a row is never below if its estimate is `estimate` or more.
    pub(crate) fn lower_bound(&self, slot: &PreviewSlot, estimate: f32) -> f32 {
        self.quantizer.lower_bound(&slot.query, estimate)
    }

    /// Takes a query for `estimate`.
    pub(crate) fn prepare(&self, slot: &mut PreviewSlot, query: Row<'_>) {
        slot.query.prepare(&self.quantizer, query);
        self.extremes.widen(query, &mut slot.wide);
    }

    /// The estimated shown distances of some rows to the query that a slot took.
    pub(crate) fn estimate(&self, slot: &PreviewSlot, ids: &[u32], out: &mut [f32]) {
        if ids.iter().any(|id| *id >= self.extremes.first()) {
            return ids.iter().zip(out).for_each(|(id, out)| *out = self.estimate_one(slot, *id));
        }
        let distance = self.quantizer.distance(&self.codes, &slot.query);
        let (scale, add) = slot.query.shown();
        let batches = ids.chunks(ESTIMATE_BATCH).zip(out.chunks_mut(ESTIMATE_BATCH));
        for (batch, (ids_now, out)) in batches.enumerate() {
            let next = ids.iter().skip((batch + 1) * ESTIMATE_BATCH).take(ESTIMATE_BATCH);
            next.for_each(|id| distance.prefetch(*id));
            distance.distances(ids_now, out);
            out.iter_mut().for_each(|estimate| *estimate = *estimate * scale + add);
        }
    }

    /// The estimated shown distance of one row.
    fn estimate_one(&self, slot: &PreviewSlot, id: u32) -> f32 {
        if id >= self.extremes.first() {
            return self.extremes.distance(&slot.wide, id).0;
        }
        let (scale, add) = slot.query.shown();
        let mut distance = [0.0];
        self.quantizer.distance(&self.codes, &slot.query).distances(&[id], &mut distance);
        distance[0] * scale + add
    }

    /// One standard deviation of the error of an estimate, shown.
    pub(crate) fn error(&self, slot: &PreviewSlot, id: u32) -> f32 {
        if id >= self.extremes.first() {
            return self.extremes.distance(&slot.wide, id).1;
        }
        let (scale, _) = slot.query.shown();
        self.quantizer.distance(&self.codes, &slot.query).error(id) * scale
    }

    /// The estimated shown distance of every row to a query, by id. Linear in the codes.
    pub(crate) fn estimate_all(&self, slot: &mut PreviewSlot, query: Row<'_>, out: &mut [f32]) {
        self.prepare(slot, query);
        let distance = self.quantizer.distance(&self.codes, &slot.query);
        let (scale, add) = slot.query.shown();
        let (out, extreme) = out.split_at_mut(self.extremes.first() as usize);
        for (id, out) in self.extremes.ids().zip(extreme) {
            *out = self.extremes.distance(&slot.wide, id).0;
        }
        let mut ids = [0; SCAN_BATCH];
        for (batch, out) in out.chunks_mut(SCAN_BATCH).enumerate() {
            let first = (batch * SCAN_BATCH) as u32;
            ids.iter_mut().zip(first..).for_each(|(id, next)| *id = next);
            distance.distances(&ids[..out.len()], out);
            out.iter_mut().for_each(|estimate| *estimate = *estimate * scale + add);
        }
    }

    /// Bytes in RAM now.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let extremes = self.extremes.bytes();
        self.codes.bytes() + self.extra.bytes() + self.graph.loaded_bytes() + extremes
    }

    /// Bytes in RAM once the graph is loaded.
    pub(crate) fn most_bytes(&self) -> u64 {
        self.codes.bytes() + self.extra.bytes() + self.graph.bytes() + self.extremes.bytes()
    }
}

fn nearest_first(a: &Candidate, b: &Candidate) -> Ordering {
    a.estimate.total_cmp(&b.estimate).then(a.id.cmp(&b.id))
}
