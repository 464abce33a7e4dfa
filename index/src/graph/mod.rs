//! Ids and their neighbors: a proximity graph that a walk descends.
//!
//! | file | question it answers |
//! |---|---|
//! | `adjacency` | who are the neighbors of an id? |
//! | `stored` | how do the lists come from their file into memory? |
//! | `walk` | which ids are near a query? (best-first search) |
//! | `prune` | which of many candidates become neighbors? |
//! | `grow` | how does a graph grow, the same one at any thread count? |
//! | `connectivity` | can every node be reached from the entry points; repair |
//! | `order` | in which order do ids lie in memory? |
//!
//! The entry points are always the ids `0..entry_points`. Nothing here knows what a distance is
//! made of: the graph meets codes in `QueryDistance` alone.

pub(crate) mod adjacency;
pub(crate) mod connectivity;
pub(crate) mod grow;
pub(crate) mod order;
pub(crate) mod prune;
pub(crate) mod stored;
pub(crate) mod walk;

/// Entry points of a graph of `n` nodes: scanned before a walk, the nearest one starts it.
pub(crate) fn entry_points_of(n: u32) -> u32 {
    n.min(256)
}

#[cfg(test)]
mod tests;
