//! Best-first (beam) search over a graph.
//!
//! ```text
//! pool = the nearest entry point                       capacity L, sorted
//! loop v = nearest entry of the pool not expanded yet; none: done
//!      fresh = neighbors of v not seen yet          each one's code is prefetched as it is found
//!      distances of all of fresh in one call        the next list was prefetched a hop before
//!      pool takes them
//! at the end, once: pool takes all entry points, and the loop goes on if that changed it
//! ```
//!
//! A hop is two steps, `expand` and `score`, so that one thread can take turns between walks and
//! let one walk's memory arrive while it computes for another.

use super::adjacency::{Adjacency, NO_NEIGHBOR};
use crate::distance::QueryDistance;
use crate::kernel::Level;
use crate::kernel::ordered::{EMPTY, OfferKernel, distance_of_bits, key, offer};

/// The state of one walk; reused from query to query without allocating.
pub(crate) struct Walk {
    /// The candidate pool: `[list_size]` keys, ascending.
    pool: Vec<u64>,
    /// No place before this one waits for expansion.
    cursor: usize,
    seen: Seen,
    fresh: Vec<u32>,
    /// Found a hop before `fresh`, not scored yet, where hops overlap.
    pending: Vec<u32>,
    distances: Vec<f32>,
    offer: OfferKernel,
    stop: Option<StopRule>,
    entry_ids: Vec<u32>,
    entry_distances: Vec<f32>,
    /// Whether every entry point was offered to the pool, not only the nearest.
    all_entered: bool,
    /// Distances computed in this walk.
    pub(crate) computed: u32,
    /// Nodes expanded in this walk.
    pub(crate) hops: u32,
}

/// Stop, and take no candidate, beyond `factor` times the distance of the k-th best so far
/// (distance-adaptive beam search, NeurIPS 2025; distances here are squared).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StopRule {
    pub(crate) k: usize,
    pub(crate) factor: f32,
}

impl Walk {
    pub(crate) fn new() -> Walk {
        Walk {
            pool: Vec::new(),
            cursor: 0,
            seen: Seen::new(),
            fresh: Vec::new(),
            pending: Vec::new(),
            distances: Vec::new(),
            offer: offer(Level::in_use()),
            stop: None,
            entry_ids: Vec::new(),
            entry_distances: Vec::new(),
            all_entered: false,
            computed: 0,
            hops: 0,
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
        self.hops = 0;
        self.pending.clear();
        self.fresh.clear();
        self.entry_ids.clear();
        self.entry_ids.extend(0..entry_points);
        self.entry_distances.resize(entry_points as usize, 0.0);
        distance.distances(&self.entry_ids, &mut self.entry_distances);
        self.computed = entry_points;
        let entries = self.entry_ids.iter().zip(&self.entry_distances);
        if let Some(nearest) = entries.map(|(id, distance)| key(*distance, *id)).min() {
            self.seen.insert(id_of(nearest));
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

    /// Takes the nearest node that waits, and asks the memory for what its unseen neighbors need.
    /// Returns the node with its distance; `None` when the walk is over.
    #[inline(always)]
    pub(crate) fn expand(
        &mut self,
        graph: &Adjacency,
        distance: &impl QueryDistance,
    ) -> Option<(f32, u32)> {
        let nearest = match self.next_waiting() {
            Some(nearest) => nearest,
            None if self.all_entered => return None,
            None => {
                self.enter_everywhere();
                self.next_waiting()?
            }
        };
        self.open(nearest, graph, distance);
        Some((distance_of_key(nearest), id_of(nearest)))
    }

    /// A hop that overlaps with the one before: expands the nearest node that waits, then scores
    /// what the hop before found, which had that long to arrive. False when the walk is over.
    #[inline(always)]
    pub(crate) fn overlap(&mut self, graph: &Adjacency, distance: &impl QueryDistance) -> bool {
        std::mem::swap(&mut self.fresh, &mut self.pending);
        match self.next_waiting() {
            Some(nearest) => self.open(nearest, graph, distance),
            None => {
                self.fresh.clear();
                if self.pending.is_empty() {
                    if self.all_entered {
                        return false;
                    }
                    self.enter_everywhere();
                    return true;
                }
            }
        }
        std::mem::swap(&mut self.fresh, &mut self.pending);
        self.score(distance);
        std::mem::swap(&mut self.fresh, &mut self.pending);
        self.prefetch_next(graph);
        true
    }

    /// Expands a node of the pool.
    #[inline(always)]
    fn open(&mut self, node: u64, graph: &Adjacency, distance: &impl QueryDistance) {
        self.pool[self.cursor] |= 1;
        self.cursor += 1;
        self.prefetch_next(graph);
        let places = graph.places(id_of(node));
        // Which of them are fresh is anybody's guess, the processor's too: no branch asks it.
        self.fresh.resize(places.len(), 0);
        let mut count = 0;
        for id in places {
            if *id == NO_NEIGHBOR {
                break;
            }
            let is_fresh = self.seen.insert(*id);
            self.fresh[count] = *id;
            distance.prefetch(if is_fresh { *id } else { self.fresh[0] });
            count += usize::from(is_fresh);
        }
        self.fresh.truncate(count);
        self.hops += 1;
    }

    /// Asks the memory for the list that `expand` will look at next.
    #[inline(always)]
    pub(crate) fn prefetch_next(&self, graph: &Adjacency) {
        if let Some(next) = self.pool.get(self.cursor).filter(|next| **next & 1 == 0) {
            graph.prefetch(id_of(*next));
        }
    }

    /// Computes the distances of what `expand` found and lets the pool take them.
    #[inline(always)]
    pub(crate) fn score(&mut self, distance: &impl QueryDistance) {
        if self.fresh.is_empty() {
            return;
        }
        if self.distances.len() < self.fresh.len() {
            self.distances.resize(self.fresh.len(), 0.0);
        }
        distance.distances(&self.fresh, &mut self.distances);
        self.computed += self.fresh.len() as u32;
        let limit = self.limit();
        let first = (self.offer)(&mut self.pool, limit, &self.fresh, &self.distances);
        self.cursor = self.cursor.min(first);
    }

    /// The candidates found: ids with their distances, nearest first.
    pub(crate) fn found(&self) -> impl Iterator<Item = (f32, u32)> {
        let keys = self.pool.iter().take_while(|key| **key != EMPTY);
        keys.map(|key| (distance_of_key(*key), id_of(*key)))
    }

    fn next_waiting(&mut self) -> Option<u64> {
        while let Some(key) = self.pool.get(self.cursor) {
            // An empty place has the expanded bit set as well.
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
        match self.pool.get(rule.k - 1) {
            Some(key) if *key != EMPTY => distance_of_key(*key) * rule.factor,
            _ => f32::INFINITY,
        }
    }
}

fn id_of(key: u64) -> u32 {
    (key as u32) >> 1
}

fn distance_of_key(key: u64) -> f32 {
    distance_of_bits((key >> 32) as u32)
}

/// Which ids a walk has seen, approximately: an id may be forgotten when another one takes its
/// slot, which costs a distance computed twice; an id not seen is never taken for one that was.
struct Seen {
    /// Low id bits pick the slot; it holds the high id bits and the number of the walk.
    slots: Box<[u32]>,
    walk: u32,
}

impl Seen {
    const SLOT_BITS: u32 = 14;
    /// Ids are below 2^31, so their high bits take 17 and the number of the walk 15.
    const HIGH_BITS: u32 = 31 - Seen::SLOT_BITS;

    fn new() -> Seen {
        Seen { slots: vec![0; 1 << Seen::SLOT_BITS].into_boxed_slice(), walk: 0 }
    }

    fn begin(&mut self) {
        self.walk += 1;
        if self.walk >> (32 - Seen::HIGH_BITS) != 0 {
            self.slots.fill(0);
            self.walk = 1;
        }
    }

    /// Whether the id was not there; it is now.
    #[inline(always)]
    fn insert(&mut self, id: u32) -> bool {
        let slot = &mut self.slots[(id & ((1 << Seen::SLOT_BITS) - 1)) as usize];
        let mark = self.walk << Seen::HIGH_BITS | id >> Seen::SLOT_BITS;
        std::mem::replace(slot, mark) != mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_is_never_wrong_about_the_unseen() {
        let mut seen = Seen::new();
        for walk in 0..70_000u32 {
            seen.begin();
            let id = walk.wrapping_mul(2_654_435_761) >> 1;
            assert!(seen.insert(id), "walk {walk}");
            assert!(!seen.insert(id));
            assert!(seen.insert(id ^ 1 << 30), "another id of the same slot");
        }
    }
}
