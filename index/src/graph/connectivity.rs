//! Whether every node can be reached from the entry points, and how that is made true.

use std::collections::VecDeque;

use super::adjacency::{Adjacency, NO_NEIGHBOR, filled};
use super::walk::Walk;
use crate::distance::Space;

/// Candidates looked at when a node that cannot be reached is attached.
const LIST_SIZE: usize = 64;
const NO_PARENT: u32 = u32::MAX;
const ROOT: u32 = u32::MAX - 1;

/// A spanning forest from the entry points: each reached node's parent.
struct Forest {
    parents: Vec<u32>,
    queue: VecDeque<u32>,
    reached: usize,
}

impl Forest {
    fn new(n: usize, entry_points: u32) -> Forest {
        let mut parents = vec![NO_PARENT; n];
        parents[..entry_points as usize].fill(ROOT);
        Forest { parents, queue: (0..entry_points).collect(), reached: entry_points as usize }
    }

    /// Follows edges until nothing new is reached; `visit` sees each node once, in order.
    fn spread(&mut self, graph: &Adjacency, mut visit: impl FnMut(u32)) {
        while let Some(id) = self.queue.pop_front() {
            visit(id);
            for neighbor in graph.neighbors(id) {
                let parent = &mut self.parents[*neighbor as usize];
                if *parent == NO_PARENT {
                    *parent = id;
                    self.reached += 1;
                    self.queue.push_back(*neighbor);
                }
            }
        }
    }
}

/// How many nodes can be reached from the ids `0..entry_points`. Linear in the edges.
pub(crate) fn count_reached(graph: &Adjacency, entry_points: u32) -> usize {
    let mut forest = Forest::new(graph.len(), entry_points);
    forest.spread(graph, |_| {});
    forest.reached
}

/// Nodes in breadth-first order from the entry points; every node is there when all are reached.
pub(crate) fn breadth_first(graph: &Adjacency, entry_points: u32) -> Vec<u32> {
    let mut order = Vec::with_capacity(graph.len());
    Forest::new(graph.len(), entry_points).spread(graph, |id| order.push(id));
    order
}

/// Makes every node reachable; returns how many were not.
///
/// A node that is not reached is attached to the nearest reached node that has a free slot or an
/// edge that no other node depends on (one outside the spanning forest), so that nothing else is
/// lost; where no near node has one, to the last node attached, which has just been reached and
/// keeps slots of its own.
pub(crate) fn repair<S: Space>(space: &S, graph: &mut Adjacency, entry_points: u32) -> usize {
    let n = graph.len();
    let mut forest = Forest::new(n, entry_points);
    forest.spread(graph, |_| {});
    let orphans = n - forest.reached;
    let (mut walk, mut scratch) = (Walk::new(), S::Scratch::default());
    // Reached nodes that are known to take another node, newest last.
    let mut spare: Vec<u32> = (0..entry_points).collect();
    for id in 0..n as u32 {
        if forest.parents[id as usize] != NO_PARENT {
            continue;
        }
        let distance = space.distances_from(id, &mut scratch);
        walk.begin(LIST_SIZE, None, entry_points, &distance);
        while walk.hop(graph, &distance) {}
        let near = walk.found().map(|(_, other)| other).filter(|other| *other != id);
        let near: Vec<u32> = near.collect();
        let host = near.into_iter().find(|host| attach(graph, &mut forest, *host, id));
        if host.is_none() {
            while let Some(last) = spare.last().copied() {
                if attach(graph, &mut forest, last, id) {
                    break;
                }
                spare.pop();
            }
        }
        spare.insert(0, id);
        forest.reached += 1;
        forest.queue.push_back(id);
        forest.spread(graph, |_| {});
    }
    orphans
}

/// Puts `id` into the list of `host`, in a free slot or instead of the farthest neighbor that is
/// reached from elsewhere. False if there is none, or if the host is not reached itself.
fn attach(graph: &mut Adjacency, forest: &mut Forest, host: u32, id: u32) -> bool {
    if forest.parents[host as usize] == NO_PARENT {
        return false;
    }
    let list = graph.slots_mut(host);
    let length = filled(list);
    let slot = if length < list.len() {
        Some(length)
    } else {
        list.iter().rposition(|neighbor| {
            *neighbor != NO_NEIGHBOR && forest.parents[*neighbor as usize] != host
        })
    };
    let Some(slot) = slot else { return false };
    list[slot] = id;
    forest.parents[id as usize] = host;
    true
}
