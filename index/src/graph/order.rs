//! The order in which ids lie in memory: neighbors near each other, entry points first.

use rayon::prelude::*;

use super::adjacency::{Adjacency, NO_NEIGHBOR};
use super::reach::breadth_first;
use crate::disk::MemoryError;

/// A graph with its ids renumbered, and the old id of each new one.
pub(crate) struct Ordered {
    pub(crate) graph: Adjacency,
    /// `[n]`: `old[new id]`.
    pub(crate) old: Vec<u32>,
}

/// Renumbers ids breadth-first from the entry points, which stay `0..entry_points`. Panics if a
/// node cannot be reached.
pub(crate) fn renumber(graph: &Adjacency, entry_points: u32) -> Result<Ordered, MemoryError> {
    let old = breadth_first(graph, entry_points);
    assert_eq!(old.len(), graph.len(), "every node is reached");
    let mut new = vec![0u32; old.len()];
    for (to, from) in old.iter().enumerate() {
        new[*from as usize] = to as u32;
    }
    let stride = graph.stride();
    let mut renumbered = Adjacency::empty(graph.len(), stride)?;
    renumbered.lists_mut().par_chunks_mut(stride).zip(&old).for_each(|(list, from)| {
        for (to, neighbor) in list.iter_mut().zip(graph.places(*from)) {
            *to = if *neighbor == NO_NEIGHBOR { NO_NEIGHBOR } else { new[*neighbor as usize] };
        }
    });
    Ok(Ordered { graph: renumbered, old })
}
