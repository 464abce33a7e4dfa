//! Best-first (beam) search over a graph.
//!
//! ```text
//! pool = the nearest entry point                       capacity L, sorted
//! loop v = nearest entry of the pool not expanded yet
//!      fresh = neighbors of v not seen yet             the list was prefetched a hop before
//!      distances of what the hop before found          the codes of fresh are prefetched meanwhile
//!      pool takes them; none left to expand or score: done
//! at the end, once: pool takes all entry points, and the loop goes on if that changed it
//! ```
//!
//! Two hops overlap, so that the memory of one arrives while the other computes; a node may be
//! expanded before its nearer rival, found by the hop before, is known: a few hops more.
//! Threads may take turns between walks as well, hop by hop.

use super::adjacency::Adjacency;
use crate::distance::QueryDistance;
use crate::kernel::Level;
use crate::kernel::fresh::{FreshKernel, GROUP, HIGH_BITS, SLOT_BITS, Slots, kernel as fresh};
use crate::kernel::ordered::{EMPTY, OfferKernel, distance_of_bits, key, offer};

/// Codes scored between two requests for as many more.
const SPREAD: usize = 8;

/// The state of one walk; reused from query to query without allocating.
pub(crate) struct Walk {
    /// The candidate pool: `[list_size]` keys, ascending.
    pool: Vec<u64>,
    /// No position before this one waits for expansion.
    cursor: usize,
    seen: Seen,
    fresh: Vec<u32>,
    /// Found a hop before `fresh`; not scored yet.
    pending: Vec<u32>,
    /// The nodes expanded, in order, with their distances.
    expanded: Vec<(f32, u32)>,
    distances: Vec<f32>,
    offer: OfferKernel,
    stop: Option<StopRule>,
    entry_ids: Vec<u32>,
    entry_distances: Vec<f32>,
    /// Whether every entry point was offered to the pool, not only the nearest.
    all_entered: bool,
    /// Distances computed in this walk.
    pub(crate) computed: u32,
}

/// Stop, and take no candidate, beyond `factor` times the distance of the k-th best so far
/// (distance-adaptive beam search, NeurIPS 2025; distances here are squared).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StopRule {
    pub(crate) k: usize,
    pub(crate) factor: f64,
    /// What squared distances have on top of those that the walk computes.
    pub(crate) common: f64,
    /// So many candidates are always taken, however far: where many lie at one place, none beyond
    /// it would be.
    pub(crate) floor: usize,
}

impl StopRule {
    /// The radius at which a walk stops whose k-th best is at `near`.
    fn radius(self, near: f32) -> f32 {
        ((f64::from(near) + self.common) * self.factor - self.common) as f32
    }
}

impl Walk {
    pub(crate) fn new() -> Walk {
        Walk {
            pool: Vec::new(),
            cursor: 0,
            seen: Seen::new(),
            fresh: Vec::new(),
            pending: Vec::new(),
            expanded: Vec::new(),
            distances: Vec::new(),
            offer: offer(Level::in_use()),
            stop: None,
            entry_ids: Vec::new(),
            entry_distances: Vec::new(),
            all_entered: false,
            computed: 0,
        }
    }

    /// Starts a walk with a pool of `list_size` at the nearest of the ids `0..entry_points`.
    pub(crate) fn begin(
        &mut self,
        list_size: usize,
        stop: Option<StopRule>,
        entry_points: u32,
        distance: &impl QueryDistance,
    ) {
        self.pool.clear();
        self.pool.resize(list_size, EMPTY);
        self.cursor = 0;
        self.seen.begin();
        self.stop = stop;
        self.all_entered = false;
        self.pending.clear();
        self.expanded.clear();
        self.fresh.clear();
        self.entry_ids.clear();
        self.entry_ids.extend(0..entry_points);
        self.entry_distances.resize(entry_points as usize, 0.0);
        distance.distances(&self.entry_ids, &mut self.entry_distances);
        self.computed = entry_points;
        let entries = self.entry_ids.iter().zip(&self.entry_distances);
        if let Some(nearest) = entries.map(|(id, distance)| key(*distance, *id)).min() {
            let mut out = [0; 1 + GROUP];
            self.seen.fresh(&[id_of(nearest)], &mut out);
            self.pool[0] = nearest;
        }
    }

    /// Lets the pool take every entry point. The walk started at the nearest one alone; another may
    /// be among the nearest rows without being anybody's neighbor, or lead where the first one does
    /// not while the pool has room.
    fn enter_everywhere(&mut self) {
        self.all_entered = true;
        let limit = self.limit();
        let first = (self.offer)(&mut self.pool, limit, &self.entry_ids, &self.entry_distances);
        self.cursor = self.cursor.min(first);
    }

    /// One hop; false when the walk is over. Expands the nearest node that waits, then scores what
    /// the hop before found: that had so long to arrive. Meanwhile it prefetches what the next hop
    /// will score, a few at a time, since a processor waits when it prefetches too much at once.
    #[inline(always)]
    pub(crate) fn hop(&mut self, graph: &Adjacency, distance: &impl QueryDistance) -> bool {
        std::mem::swap(&mut self.fresh, &mut self.pending);
        match self.next_waiting() {
            Some(nearest) => self.expand(nearest, graph),
            None => self.fresh.clear(),
        }
        if !self.fresh.is_empty() || !self.pending.is_empty() {
            self.score_pending(distance);
            self.prefetch_next(graph);
            return true;
        }
        if self.next_waiting().is_some() {
            return true;
        }
        if !self.all_entered {
            self.enter_everywhere();
            return true;
        }
        false
    }

    /// Expands a node of the pool: its neighbors that were not seen yet are `fresh`.
    #[inline(always)]
    fn expand(&mut self, node: u64, graph: &Adjacency) {
        self.pool[self.cursor] |= 1;
        self.cursor += 1;
        self.prefetch_next(graph);
        self.expanded.push((distance_of_key(node), id_of(node)));
        let slots = graph.slots(id_of(node));
        self.fresh.resize(slots.len() + GROUP, 0);
        let count = self.seen.fresh(slots, &mut self.fresh);
        self.fresh.truncate(count);
    }

    /// Asks the memory for the list that `expand` will look at next.
    #[inline(always)]
    fn prefetch_next(&self, graph: &Adjacency) {
        if let Some(next) = self.pool.get(self.cursor).filter(|next| **next & 1 == 0) {
            graph.prefetch(id_of(*next));
        }
    }

    /// Computes the distances of `pending` and lets the pool take them; prefetches what `fresh`
    /// needs.
    #[inline(always)]
    fn score_pending(&mut self, distance: &impl QueryDistance) {
        let Walk { pending, fresh, distances, .. } = self;
        if distances.len() < pending.len() {
            distances.resize(pending.len(), 0.0);
        }
        let mut ahead = fresh.chunks(SPREAD);
        for (ids, out) in pending.chunks(SPREAD).zip(distances.chunks_mut(SPREAD)) {
            ahead.next().into_iter().flatten().for_each(|id| distance.prefetch(*id));
            distance.distances(ids, out);
        }
        ahead.flatten().for_each(|id| distance.prefetch(*id));
        self.computed += self.pending.len() as u32;
        let limit = self.limit();
        let first = (self.offer)(&mut self.pool, limit, &self.pending, &self.distances);
        self.cursor = self.cursor.min(first);
    }

    /// The candidates found: ids with their distances, nearest first.
    pub(crate) fn found(&self) -> impl Iterator<Item = (f32, u32)> {
        let keys = self.pool.iter().take_while(|key| **key != EMPTY);
        keys.map(|key| (distance_of_key(*key), id_of(*key)))
    }

    /// The distance of the candidate at a position of the pool, the nearest at 0, if there is one.
    pub(crate) fn distance_at(&self, position: usize) -> Option<f32> {
        self.pool.get(position).filter(|key| **key != EMPTY).map(|key| distance_of_key(*key))
    }

    /// How many of the nearest candidates, at least, have been expanded.
    pub(crate) fn settled(&self) -> usize {
        self.cursor
    }

    /// The nodes expanded so far, in order, with their distances.
    pub(crate) fn expanded(&self) -> &[(f32, u32)] {
        &self.expanded
    }

    fn next_waiting(&mut self) -> Option<u64> {
        while let Some(key) = self.pool.get(self.cursor) {
            // An empty slot has the expanded bit set as well.
            if key & 1 == 0 {
                return (distance_of_key(*key) <= self.limit()).then_some(*key);
            }
            if *key == EMPTY {
                return None;
            }
            self.cursor += 1;
        }
        None
    }

    #[inline(always)]
    fn limit(&self) -> f32 {
        let Some(rule) = self.stop else { return f32::INFINITY };
        match (self.distance_at(rule.k - 1), self.distance_at(rule.floor - 1)) {
            (Some(near), Some(floor)) => rule.radius(near).max(floor),
            _ => f32::INFINITY,
        }
    }
}

pub(super) fn id_of(key: u64) -> u32 {
    (key as u32) >> 1
}

fn distance_of_key(key: u64) -> f32 {
    distance_of_bits((key >> 32) as u32)
}

/// Which ids a walk has seen, approximately: see [`crate::kernel::fresh`].
pub(super) struct Seen {
    slots: Box<Slots>,
    walk: u32,
    fresh: FreshKernel,
}

impl Seen {
    pub(super) fn new() -> Seen {
        let slots = vec![0; 1 << SLOT_BITS].try_into().expect("as many as there are slots");
        Seen { slots, walk: 0, fresh: fresh(Level::in_use()) }
    }

    pub(super) fn begin(&mut self) {
        self.walk += 1;
        if self.walk >> (32 - HIGH_BITS) != 0 {
            self.slots.fill(0);
            self.walk = 1;
        }
    }

    /// The ids of `list` that were not there, at the front of `out`; they are now.
    #[inline(always)]
    pub(super) fn fresh(&mut self, list: &[u32], out: &mut [u32]) -> usize {
        (self.fresh)(&mut self.slots, self.walk, list, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_walks_wrap_around() {
        let mut seen = Seen::new();
        let mut out = [0; 2 + GROUP];
        for walk in 0..70_000u32 {
            seen.begin();
            let id = walk.wrapping_mul(2_654_435_761) >> 1;
            assert_eq!(seen.fresh(&[id], &mut out), 1, "walk {walk}");
            assert_eq!(seen.fresh(&[id], &mut out), 0);
        }
    }
}
