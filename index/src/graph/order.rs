//! The order in which ids lie in memory and on disk: neighbors near each other, entry points first.

use rayon::prelude::*;

use super::adjacency::{Adjacency, NO_NEIGHBOR};
use super::connectivity::breadth_first;
use crate::disk::MemoryError;

/// `inverse[permutation[i]] = i`.
pub(crate) fn inverse(permutation: &[u32]) -> Vec<u32> {
    let mut inverse = vec![0; permutation.len()];
    for (i, to) in permutation.iter().enumerate() {
        inverse[*to as usize] = i as u32;
    }
    inverse
}

/// A graph with its ids renumbered, and the old id of each new one.
pub(crate) struct Ordered {
    pub(crate) graph: Adjacency,
    /// `[n]`: `old[new id]`.
    pub(crate) old: Vec<u32>,
}

/// Renumbers ids in groups of neighbors, as many as share a block of the full store, the groups
/// breadth-first from the entry points, which stay `0..entry_points`. Panics if a node cannot be
/// reached.
pub(crate) fn renumber(
    graph: &Adjacency,
    entry_points: u32,
    group: usize,
) -> Result<Ordered, MemoryError> {
    let old = grouped(graph, entry_points, group);
    assert_eq!(old.len(), graph.len(), "every node is reached");
    let mut new = vec![0u32; old.len()];
    for (to, from) in old.iter().enumerate() {
        new[*from as usize] = to as u32;
    }
    let stride = graph.stride();
    let mut renumbered = Adjacency::empty(graph.len(), stride)?;
    renumbered.lists_mut().par_chunks_mut(stride).zip(&old).for_each(|(list, from)| {
        for (to, neighbor) in list.iter_mut().zip(graph.slots(*from)) {
            *to = if *neighbor == NO_NEIGHBOR { NO_NEIGHBOR } else { new[*neighbor as usize] };
        }
    });
    Ok(Ordered { graph: renumbered, old })
}

/// Every id once, in groups. A group begins, and goes on where no member has a free neighbor, with
/// the first id, breadth-first, that is in none yet, and takes the free id that the most of its
/// members have as a neighbor, of equals the one met first (block packing as in Starling, SIGMOD
/// 2024, with counts for its neighbor frequencies).
fn grouped(graph: &Adjacency, entry_points: u32, group: usize) -> Vec<u32> {
    let seeds = breadth_first(graph, entry_points);
    let mut order: Vec<u32> = seeds[..entry_points as usize].to_vec();
    let mut placed = vec![false; graph.len()];
    order.iter().for_each(|id| placed[*id as usize] = true);
    let mut near = Near::new(graph.len());
    for &seed in &seeds {
        if placed[seed as usize] {
            continue;
        }
        let mut next = Some(seed);
        while let Some(id) = next {
            placed[id as usize] = true;
            order.push(id);
            if order.len().is_multiple_of(group) {
                near.clear();
                break;
            }
            near.remove(id);
            let free = graph.neighbors(id).iter().filter(|id| !placed[**id as usize]);
            free.for_each(|id| near.count(*id));
            next = near.best();
        }
    }
    order
}

/// Free ids that members of a group have as neighbors, and how many of them do.
struct Near {
    /// `[n]`: the position of an id in `ids`, from 1 on; 0 for those that are not there.
    positions: Vec<u32>,
    ids: Vec<u32>,
    /// Of the ids; 0 for those that were removed.
    counts: Vec<u32>,
}

impl Near {
    fn new(n: usize) -> Near {
        Near { positions: vec![0; n], ids: Vec::new(), counts: Vec::new() }
    }

    fn clear(&mut self) {
        self.ids.drain(..).for_each(|id| self.positions[id as usize] = 0);
        self.counts.clear();
    }

    fn count(&mut self, id: u32) {
        let position = &mut self.positions[id as usize];
        if *position == 0 {
            self.ids.push(id);
            self.counts.push(0);
            *position = self.ids.len() as u32;
        }
        self.counts[*position as usize - 1] += 1;
    }

    fn remove(&mut self, id: u32) {
        if let Some(position) = self.positions[id as usize].checked_sub(1) {
            self.counts[position as usize] = 0;
        }
    }

    fn best(&self) -> Option<u32> {
        let most = self.counts.iter().max().filter(|most| **most > 0)?;
        let position = self.counts.iter().position(|count| count == most)?;
        Some(self.ids[position])
    }
}
