//! A graph over n rows, grown in batches that double (ParlayANN, PPoPP 2024).
//!
//! ```text
//! the entry points know each other exactly
//! for each batch of the rows that follow, at most as many as are in the graph already:
//!     each row walks the frozen graph and prunes what it expanded     (parallel over rows)
//!     the kept edges are reversed, grouped by target, sorted
//!     each target takes its new sources, pruning when it overflows    (parallel over targets)
//! lists are cut to the degree, and filled from the neighbors of neighbors (by estimate)
//! ```
//!
//! Each step reads what the one before left and writes lists of its own, so the graph is the same
//! at any thread count. Rows come in `order`: in each batch those near the same entry point follow
//! each other, lie on the same pages, and find in the cache what the one before read.

use std::iter;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::adjacency::{Adjacency, NO_NEIGHBOR, filled};
use super::entry_points_of;
use super::prune::{Near, PruneRule, Pruner, nearest_first};
use super::walk::{Seen, Walk, id_of};
use crate::disk::MemoryError;
use crate::distance::{QueryDistance, Space};
use crate::kernel::Level;
use crate::kernel::fresh::GROUP;
use crate::kernel::ordered::{EMPTY, OfferKernel, offer};
use crate::stats::Job;

/// Nodes whose lists one task updates.
const NODES_A_TASK: usize = 2048;
/// Rows that one task inserts.
const ROWS_A_TASK: u32 = 256;
/// A batch is at most this share of all rows: rows of one batch do not see each other.
const LARGEST_BATCH: u32 = 50;

/// How a graph is grown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GrowParams {
    pub(crate) rule: PruneRule,
    pub(crate) list_size: usize,
}

impl GrowParams {
    /// Slots of a list while the graph grows: reverse edges gather before a list is pruned.
    pub(crate) fn growing_stride(&self) -> usize {
        self.rule.max_degree + self.rule.max_degree / 4 + 1
    }
}

/// Why a graph was not grown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrowError {
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("interrupted")]
    Interrupted,
}

/// Grows the graph of the first `count` rows of `space` on the current rayon pool. Every row has a
/// list of `max_degree` slots; the others' are empty. Panics unless the entry points of all rows
/// are among the first.
pub(crate) fn grow<S: Space>(
    space: &S,
    params: &GrowParams,
    count: u32,
    job: Job<'_>,
) -> Result<Adjacency, GrowError> {
    let n = space.len();
    let mut graph = Adjacency::empty(n as usize, params.growing_stride())?;
    let first = entry_points_of(n);
    assert!(first <= count && count <= n, "entry points come first");
    seed(space, params, &mut graph, first);
    let inserted = AtomicU64::new(u64::from(first));
    for rows in batches(n, count) {
        let lists = insert_batch(space, params, &graph, rows.clone(), &|rows| {
            let done = inserted.fetch_add(rows, Ordering::Relaxed) + rows;
            job.tell("growing the graph", done, u64::from(n));
            job.interrupted()
        });
        if job.interrupted() {
            return Err(GrowError::Interrupted);
        }
        let mut edges = Vec::with_capacity(lists.iter().map(Vec::len).sum());
        for (id, kept) in rows.zip(&lists) {
            graph.slots_mut(id)[..kept.len()].copy_from_slice(kept);
            edges.extend(kept.iter().map(|target| (*target, id)));
        }
        edges.par_sort_unstable();
        add_reverse(space, params, &mut graph, &edges);
    }
    finish(space, params, &graph, job)
}

/// An order of rows that lets those which `grow` inserts together lie together as well, on few
/// pages of memory: the rows of each batch by the entry point nearest to them. `order[i]` is the
/// row that should be number i.
pub(crate) fn order<S: Space>(space: &S, count: u32) -> Vec<u32> {
    let (n, nearest_entry_points) = (space.len(), nearest_entry_points(space));
    let mut order: Vec<u32> = (0..entry_points_of(n)).collect();
    order.extend(batches(n, count).flat_map(|rows| by_entry_point(&nearest_entry_points, rows)));
    order.extend(count..n);
    order
}

/// The rows that are inserted together: of `n` rows, those after the entry points up to `count`.
fn batches(n: u32, count: u32) -> impl Iterator<Item = Range<u32>> {
    let first = entry_points_of(n);
    let largest = (n / LARGEST_BATCH).max(first);
    let mut start = first;
    iter::from_fn(move || {
        let rows = start..count.min(start + start.min(largest));
        start = rows.end;
        (!rows.is_empty()).then_some(rows)
    })
}

/// Inserts the rows from `start` on into a graph that was grown without them.
pub(crate) fn append<S: Space>(space: &S, params: &GrowParams, graph: &mut Adjacency, start: u32) {
    let rows = start..space.len();
    let lists = insert_batch(space, params, graph, rows.clone(), &|_| false);
    let mut edges = Vec::with_capacity(lists.iter().map(Vec::len).sum());
    for (id, kept) in rows.clone().zip(&lists) {
        graph.slots_mut(id)[..kept.len()].copy_from_slice(kept);
        edges.extend(kept.iter().map(|target| (*target, id)));
    }
    edges.par_sort_unstable();
    let mut worker = Worker::<S>::new();
    for group in edges.chunk_by(|x, y| x.0 == y.0) {
        let target = group[0].0;
        let sources = group.iter().map(|(_, source)| *source);
        let ids: Vec<u32> = graph.neighbors(target).iter().copied().chain(sources).collect();
        worker.gather(space, target, &ids);
        worker.choose(space, params);
        worker.pruner.fill(&params.rule, &mut worker.kept);
        write_list(graph.slots_mut(target), &worker.kept);
    }
    for id in rows {
        worker.complete(space, params, graph, id);
        write_list(graph.slots_mut(id), &worker.kept);
    }
}

/// The lists of the first rows, each pruned from all the others.
fn seed<S: Space>(space: &S, params: &GrowParams, graph: &mut Adjacency, first: u32) {
    let stride = graph.stride();
    let rows = &mut graph.lists_mut()[..first as usize * stride];
    rows.par_chunks_mut(stride).enumerate().for_each_init(
        Worker::<S>::new,
        |worker, (id, list)| {
            let id = id as u32;
            let others: Vec<u32> = (0..first).filter(|other| *other != id).collect();
            worker.gather(space, id, &others);
            worker.choose(space, params);
            write_list(list, &worker.kept);
        },
    );
}

/// The lists of `rows`, from walks over the graph as it stands. Stops early, with lists missing,
/// when `told` returns true.
fn insert_batch<S: Space>(
    space: &S,
    params: &GrowParams,
    graph: &Adjacency,
    rows: Range<u32>,
    told: &(dyn Fn(u64) -> bool + Sync),
) -> Vec<Vec<u32>> {
    let entry_points = entry_points_of(rows.start);
    let tasks: Vec<u32> = rows.clone().step_by(ROWS_A_TASK as usize).collect();
    tasks
        .into_par_iter()
        .map_init(Worker::<S>::new, |worker, start| {
            let task = start..rows.end.min(start + ROWS_A_TASK);
            if told(task.len() as u64) {
                return Vec::new();
            }
            let lists = task.map(|id| {
                worker.walk(space, params.list_size, graph, (id, entry_points));
                worker.choose(space, params);
                worker.kept.clone()
            });
            lists.collect()
        })
        .flatten_iter()
        .collect()
}

/// Adds `edges` (target, source; sorted) to the lists of their targets.
fn add_reverse<S: Space>(
    space: &S,
    params: &GrowParams,
    graph: &mut Adjacency,
    edges: &[(u32, u32)],
) {
    let stride = graph.stride();
    let tasks = graph.lists_mut().par_chunks_mut(NODES_A_TASK * stride).enumerate();
    tasks.for_each_init(Worker::<S>::new, |worker, (task, lists)| {
        let base = (task * NODES_A_TASK) as u32;
        let end = base.saturating_add(NODES_A_TASK as u32);
        let from = edges.partition_point(|(target, _)| *target < base);
        let to = edges.partition_point(|(target, _)| *target < end);
        for group in edges[from..to].chunk_by(|x, y| x.0 == y.0) {
            let target = group[0].0;
            let list = &mut lists[(target - base) as usize * stride..][..stride];
            worker.insert(space, params, target, (list, group));
        }
    });
}

/// Cuts lists to the degree and fills them with the nearest neighbors of neighbors.
fn finish<S: Space>(
    space: &S,
    params: &GrowParams,
    graph: &Adjacency,
    job: Job<'_>,
) -> Result<Adjacency, GrowError> {
    let degree = params.rule.max_degree;
    let n = graph.len();
    let mut finished = Adjacency::empty(n, degree)?;
    let done = AtomicU64::new(0);
    let tasks = finished.lists_mut().par_chunks_mut(NODES_A_TASK * degree).enumerate();
    tasks.for_each_init(Worker::<S>::new, |worker, (task, lists)| {
        if job.interrupted() {
            return;
        }
        for (i, list) in lists.chunks_mut(degree).enumerate() {
            let id = (task * NODES_A_TASK + i) as u32;
            worker.complete(space, params, graph, id);
            write_list(list, &worker.kept);
        }
        let nodes = (lists.len() / degree) as u64;
        job.tell("finishing lists", done.fetch_add(nodes, Ordering::Relaxed) + nodes, n as u64);
    });
    if job.interrupted() { Err(GrowError::Interrupted) } else { Ok(finished) }
}

/// The entry point nearest to each row.
fn nearest_entry_points<S: Space>(space: &S) -> Vec<u32> {
    let entries: Vec<u32> = (0..entry_points_of(space.len())).collect();
    let mut nearest_entry_points = vec![0; space.len() as usize];
    let tasks = nearest_entry_points.par_chunks_mut(NODES_A_TASK).enumerate();
    let scratch = || (S::Scratch::default(), vec![0.0; entries.len()]);
    tasks.for_each_init(scratch, |(scratch, distances), (task, nearest_entry_points)| {
        for (i, entry_point) in nearest_entry_points.iter_mut().enumerate() {
            let id = (task * NODES_A_TASK + i) as u32;
            space.distances_from(id, scratch).distances(&entries, distances);
            let entries = distances.iter().zip(&entries);
            let nearest = entries.min_by(|x, y| x.0.total_cmp(y.0));
            *entry_point = nearest.map_or(0, |(_, id)| *id);
        }
    });
    nearest_entry_points
}

/// The rows of a range, those with the same nearest entry point after each other.
fn by_entry_point(nearest_entry_points: &[u32], rows: Range<u32>) -> Vec<u32> {
    let mut rows: Vec<u32> = rows.collect();
    rows.par_sort_unstable_by_key(|id| (nearest_entry_points[*id as usize], *id));
    rows
}

fn write_list(list: &mut [u32], kept: &[u32]) {
    list[..kept.len()].copy_from_slice(kept);
    list[kept.len()..].fill(NO_NEIGHBOR);
}

/// The distances of `others`, into the first elements of `out`.
fn measure(distance: &impl QueryDistance, others: &[u32], out: &mut Vec<f32>) {
    others.iter().for_each(|other| distance.prefetch(*other));
    out.resize(out.len().max(others.len()), 0.0);
    distance.distances(others, out);
}

/// What one thread needs to choose neighbors.
struct Worker<S: Space> {
    walk: Walk,
    pruner: Pruner<S>,
    scratch: S::Scratch,
    candidates: Vec<Near>,
    ids: Vec<u32>,
    distances: Vec<f32>,
    kept: Vec<u32>,
    seen: Seen,
    /// Keys of the nearest ids met.
    nearest: Vec<u64>,
    offer: OfferKernel,
}

impl<S: Space> Worker<S> {
    fn new() -> Worker<S> {
        Worker {
            walk: Walk::new(),
            pruner: Pruner::default(),
            scratch: S::Scratch::default(),
            candidates: Vec::new(),
            ids: Vec::new(),
            distances: Vec::new(),
            kept: Vec::new(),
            seen: Seen::new(),
            nearest: Vec::new(),
            offer: offer(Level::in_use()),
        }
    }

    /// Candidates: every node that a walk toward the row expanded, with its distance, of which the
    /// walk may have seen but an estimate.
    fn walk(&mut self, space: &S, list_size: usize, graph: &Adjacency, (id, entries): (u32, u32)) {
        let distance = space.estimates_from(id, &mut self.scratch);
        self.walk.begin(list_size, None, entries, &distance);
        while self.walk.hop(graph, &distance) {}
        drop(distance);
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        ids.extend(self.walk.expanded().iter().map(|(_, id)| *id));
        self.gather(space, id, &ids);
        self.ids = ids;
        // The lossy table of seen ids may let a dropped node in, and be expanded, again.
        self.candidates.dedup();
    }

    /// Candidates: the ids given, which are distinct and not `id`.
    fn gather(&mut self, space: &S, id: u32, others: &[u32]) {
        measure(&space.distances_from(id, &mut self.scratch), others, &mut self.distances);
        self.candidates.clear();
        self.candidates.extend(self.distances.iter().copied().zip(others.iter().copied()));
        self.candidates.sort_unstable_by(nearest_first);
    }

    /// The neighbors among the candidates, in `kept`.
    fn choose(&mut self, space: &S, params: &GrowParams) {
        self.pruner.prune(space, &params.rule, &self.candidates, &mut self.kept);
    }

    /// Adds the sources of `group` to the list of `target`.
    fn insert(
        &mut self,
        space: &S,
        params: &GrowParams,
        target: u32,
        (list, group): (&mut [u32], &[(u32, u32)]),
    ) {
        let length = filled(list);
        let sources = group.iter().map(|(_, source)| *source);
        if length + group.len() <= list.len() {
            for (place, source) in list[length..].iter_mut().zip(sources) {
                *place = source;
            }
            return;
        }
        // A row that was inserted in this batch may know the target already: never both ways yet,
        // since rows of one batch do not see each other; so all ids are distinct.
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        ids.extend_from_slice(&list[..length]);
        ids.extend(sources);
        self.gather(space, target, &ids);
        self.ids = ids;
        self.choose(space, params);
        write_list(list, &self.kept);
    }

    /// The finished list of a node in `kept`: its own neighbors, pruned if they are too many, then
    /// the nearest of their neighbors.
    fn complete(&mut self, space: &S, params: &GrowParams, graph: &Adjacency, id: u32) {
        let degree = params.rule.max_degree;
        let own = graph.neighbors(id);
        if own.len() >= degree {
            self.gather(space, id, own);
            self.choose(space, params);
            self.pruner.fill(&params.rule, &mut self.kept);
            return;
        }
        own.iter().for_each(|neighbor| graph.prefetch(*neighbor));
        let mut ids = std::mem::take(&mut self.ids);
        ids.clear();
        self.seen.begin();
        for neighbor in own {
            let (slots, before) = (graph.slots(*neighbor), ids.len());
            ids.resize(before + slots.len() + GROUP, 0);
            let fresh = self.seen.fresh(slots, &mut ids[before..]);
            ids.truncate(before + fresh);
        }
        measure(&space.estimates_from(id, &mut self.scratch), &ids, &mut self.distances);
        // Among them may be the node and its own neighbors.
        self.nearest.clear();
        self.nearest.resize(degree + 1, EMPTY);
        (self.offer)(&mut self.nearest, f32::INFINITY, &ids, &self.distances);
        self.ids = ids;
        self.kept.clear();
        self.kept.extend_from_slice(own);
        let others = self.nearest.iter().take_while(|key| **key != EMPTY).map(|key| id_of(*key));
        let others = others.filter(|other| *other != id && !own.contains(other));
        self.kept.extend(others.take(degree - own.len()));
    }
}
