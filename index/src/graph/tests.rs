//! The rules of this module, each against a slow and obvious twin.

use foveal_datasets::seeded::Seeded;
use foveal_datasets::synthetic::lattice;
use foveal_datasets::{Rows, Values};

use super::adjacency::{Adjacency, NO_NEIGHBOR};
use super::grow::{GrowParams, grow};
use super::order::renumber;
use super::prune::{Near, PruneRule, Pruner, nearest_first};
use super::walk::{StopRule, Walk};
use super::{connectivity, entry_points_of};
use crate::distance::{QueryDistance, Space};
use crate::stats::Job;

/// Rows as they are, with their distances as they are.
struct Points {
    rows: Vec<Vec<f32>>,
}

struct FromPoint<'a> {
    points: &'a Points,
    query: Vec<f32>,
}

impl Points {
    fn new(rows: &Rows) -> Points {
        let Values::F32(numbers) = rows.values() else { unreachable!("points are f32") };
        Points { rows: numbers.chunks(rows.dim()).map(<[f32]>::to_vec).collect() }
    }

    fn random(n: usize, dim: usize, seed: u64) -> Points {
        let mut random = Seeded::new(seed);
        Points { rows: (0..n).map(|_| (0..dim).map(|_| random.gaussian()).collect()).collect() }
    }

    fn from(&self, query: &[f32]) -> FromPoint<'_> {
        FromPoint { points: self, query: query.to_vec() }
    }

    /// All rows but `except`, nearest to it first.
    fn candidates(&self, except: u32) -> Vec<Near> {
        let others = (0..self.len()).filter(|id| *id != except);
        let from = &self.rows[except as usize];
        let mut near: Vec<Near> =
            others.map(|id| (squared(from, &self.rows[id as usize]), id)).collect();
        near.sort_by(nearest_first);
        near
    }
}

fn squared(x: &[f32], y: &[f32]) -> f32 {
    x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum()
}

impl QueryDistance for FromPoint<'_> {
    fn prefetch(&self, _id: u32) {}

    fn distances(&self, ids: &[u32], out: &mut [f32]) {
        for (id, out) in ids.iter().zip(out) {
            *out = squared(&self.query, &self.points.rows[*id as usize]);
        }
    }

    fn error(&self, _id: u32) -> f32 {
        0.0
    }
}

impl Space for Points {
    type Scratch = ();
    type From<'a> = FromPoint<'a>;

    fn len(&self) -> u32 {
        self.rows.len() as u32
    }

    fn distances_from<'a>(&'a self, id: u32, _scratch: &'a mut ()) -> FromPoint<'a> {
        self.from(&self.rows[id as usize])
    }
}

/// The rule as it reads: y is kept unless some kept r has alpha d(r, y) < d(p, y).
fn prune_twin(points: &Points, rule: &PruneRule, candidates: &[Near]) -> Vec<u32> {
    let mut kept: Vec<u32> = Vec::new();
    for (to_node, y) in candidates {
        let hidden = kept.iter().any(|r| {
            let to_kept = squared(&points.rows[*r as usize], &points.rows[*y as usize]);
            let (to_kept, to_node) = (f64::from(to_kept).sqrt(), f64::from(*to_node).sqrt());
            f64::from(rule.alpha) * to_kept < to_node
        });
        if !hidden && kept.len() < rule.max_degree {
            kept.push(*y);
        }
    }
    kept
}

#[test]
fn pruning_keeps_what_its_rule_keeps() {
    for alpha in [1.0, 1.2, 1.3, 4.0] {
        for (n, dim, max_degree) in [(2, 1, 4), (60, 2, 200), (120, 8, 200), (300, 16, 24)] {
            let points = Points::random(n, dim, n as u64);
            let rule = PruneRule { max_degree, alpha };
            let mut pruner = Pruner::default();
            for id in 0..(n as u32).min(20) {
                let candidates = points.candidates(id);
                let mut kept = Vec::new();
                pruner.prune(&points, &rule, &candidates, &mut kept);
                let wanted = prune_twin(&points, &rule, &candidates);
                assert_eq!(kept, wanted, "alpha {alpha} n {n} id {id}");
                assert_eq!(kept[0], candidates[0].1, "the nearest is always kept");
                pruner.fill(&rule, &mut kept);
                let hidden = candidates.iter().map(|(_, id)| *id).filter(|id| !wanted.contains(id));
                let most = if wanted.len() < max_degree { max_degree } else { wanted.len() };
                let filled: Vec<u32> = wanted.iter().copied().chain(hidden).take(most).collect();
                assert_eq!(kept, filled, "filled with the nearest of the hidden");
            }
            let mut kept = vec![7];
            pruner.prune(&points, &rule, &[], &mut kept);
            assert_eq!(kept, [0; 0]);
        }
    }
}

/// Each node of a grid knows the nodes one step away, and nothing else.
fn grid_graph(side: usize, dim: usize) -> (Points, Adjacency) {
    let points = Points::new(&lattice(side, dim));
    let mut graph = Adjacency::empty(points.rows.len(), 2 * dim + 1).unwrap();
    for id in 0..points.len() {
        let steps: Vec<u32> = points
            .candidates(id)
            .into_iter()
            .take_while(|(distance, _)| *distance <= 1.0)
            .map(|(_, id)| id)
            .collect();
        graph.slots_mut(id)[..steps.len()].copy_from_slice(&steps);
    }
    (points, graph)
}

fn walk(
    points: &Points,
    graph: &Adjacency,
    entry_points: u32,
    query: &[f32],
    list_size: usize,
) -> Vec<Near> {
    let (mut walk, distance) = (Walk::new(), points.from(query));
    walk.begin(list_size, None, entry_points, &distance);
    while walk.hop(graph, &distance) {}
    walk.found().collect()
}

fn nearest(points: &Points, query: &[f32]) -> Vec<Near> {
    let mut all: Vec<Near> =
        (0..points.len()).map(|id| (squared(query, &points.rows[id as usize]), id)).collect();
    all.sort_by(nearest_first);
    all
}

#[test]
fn a_walk_with_room_for_all_finds_all_in_order() {
    let mut random = Seeded::new(1);
    for (side, dim) in [(1, 1), (2, 1), (40, 1), (9, 2), (6, 3), (3, 5)] {
        let (points, graph) = grid_graph(side, dim);
        for _ in 0..10 {
            let query: Vec<f32> = (0..dim).map(|_| random.next_f32() * side as f32).collect();
            let wanted = nearest(&points, &query);
            for spare in [0, 1, 7] {
                let found = walk(&points, &graph, 1, &query, wanted.len() + spare);
                assert_eq!(found, wanted, "side {side} dim {dim}");
            }
        }
    }
}

/// On a grid every step toward a query is an edge, so even the shortest list finds the nearest.
#[test]
fn a_short_walk_descends_to_the_nearest() {
    let mut random = Seeded::new(2);
    let (points, graph) = grid_graph(7, 3);
    for _ in 0..50 {
        let query: Vec<f32> = (0..3).map(|_| random.next_f32() * 6.0).collect();
        let wanted = nearest(&points, &query);
        for list_size in [1, 2, 8] {
            let found = walk(&points, &graph, 5, &query, list_size);
            assert_eq!(found[0], wanted[0]);
            assert!(found.len() == list_size && found.is_sorted_by(|x, y| x.0 <= y.0));
        }
    }
}

#[test]
fn a_walk_that_may_stop_early_does_less_and_finds_as_much() {
    let (points, graph) = grid_graph(7, 3);
    let mut random = Seeded::new(3);
    for _ in 0..20 {
        let query: Vec<f32> = (0..3).map(|_| random.next_f32() * 6.0).collect();
        let distance = points.from(&query);
        let run = |stop| {
            let mut walk = Walk::new();
            walk.begin(100, stop, 1, &distance);
            while walk.hop(&graph, &distance) {}
            (walk.found().take(4).collect::<Vec<Near>>(), walk.computed, walk.expanded().len())
        };
        let whole = run(None);
        let short = run(Some(StopRule { k: 4, factor: 2.0, common: 0.0, floor: 4 }));
        assert!(short.2 < whole.2 && short.1 <= whole.1, "{short:?} {whole:?}");
        assert_eq!(short.0, whole.0);
    }
}

/// Ids reachable from the entry points, the obvious way.
fn reached(graph: &Adjacency, entry_points: u32) -> Vec<bool> {
    let mut seen = vec![false; graph.len()];
    let mut stack: Vec<u32> = (0..entry_points).collect();
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut seen[id as usize], true) {
            stack.extend(graph.slots(id).iter().filter(|id| **id != NO_NEIGHBOR));
        }
    }
    seen
}

#[test]
fn repair_connects_orphans_and_loses_nobody() {
    let mut random = Seeded::new(4);
    for (n, degree, entry_points, orphans) in
        [(2, 1, 1, 1), (50, 4, 1, 10), (400, 4, 16, 100), (400, 1, 1, 399), (3000, 8, 256, 900)]
    {
        let points = Points::random(n, 4, n as u64);
        // Everybody knows some of the nodes that are not to be orphans; nobody knows an orphan.
        let known = n - orphans;
        let mut graph = Adjacency::empty(n, degree).unwrap();
        for id in 0..n as u32 {
            let mut ids: Vec<u32> = (0..known as u32).filter(|other| *other != id).collect();
            random.shuffle(&mut ids);
            ids.truncate(if known == 1 { 0 } else { degree });
            graph.slots_mut(id)[..ids.len()].copy_from_slice(&ids);
        }
        let before = reached(&graph, entry_points).iter().filter(|seen| **seen).count();
        assert_eq!(before, connectivity::count_reached(&graph, entry_points));
        assert!(before <= known.max(entry_points as usize), "orphans are orphans");
        let repaired = connectivity::repair(&points, &mut graph, entry_points);
        assert!(reached(&graph, entry_points).iter().all(|seen| *seen), "n {n}");
        assert_eq!(connectivity::count_reached(&graph, entry_points), n);
        assert!(repaired > 0 && repaired == n - before, "{repaired} of n {n}");
        for id in 0..n as u32 {
            let mut list = graph.neighbors(id).to_vec();
            assert!(list.iter().all(|other| *other != id), "no node is its own neighbor");
            list.sort_unstable();
            assert!(list.windows(2).all(|pair| pair[0] != pair[1]), "neighbors are distinct");
        }
        assert_eq!(
            connectivity::repair(&points, &mut graph, entry_points),
            0,
            "nothing is left to do"
        );
    }
}

fn grown(points: &Points, max_degree: usize, list_size: usize) -> Adjacency {
    let rule = PruneRule { max_degree, alpha: 1.2 };
    grow(points, &GrowParams { rule, list_size }, points.len(), Job::default()).unwrap()
}

#[test]
fn a_grown_graph_is_whole_and_leads_to_the_nearest() {
    for n in [1, 2, 5, 255, 256, 257, 700, 1500] {
        let points = Points::random(n, 6, 9);
        let entry_points = entry_points_of(n as u32);
        let mut graph = grown(&points, 16, 48);
        assert_eq!((graph.len(), graph.stride()), (n, 16));
        for id in 0..n as u32 {
            let mut list = graph.neighbors(id).to_vec();
            assert!(n < 255 || list.len() == 16, "n {n}: lists are filled: {list:?}");
            list.sort_unstable();
            assert!(list.windows(2).all(|pair| pair[0] != pair[1]), "neighbors are distinct");
            assert!(list.iter().all(|other| *other != id && (*other as usize) < n));
            // Up to 256 rows every row met every other one.
            if (2..=256).contains(&n) {
                assert!(list.contains(&points.candidates(id)[0].1), "n {n}: the nearest is kept");
            }
        }
        connectivity::repair(&points, &mut graph, entry_points);
        let mut hits = 0;
        for id in 0..n.min(200) {
            let query: Vec<f32> = points.rows[id].iter().map(|x| x + 0.05).collect();
            let found = walk(&points, &graph, entry_points, &query, 16);
            hits += usize::from(found[0] == nearest(&points, &query)[0]);
        }
        assert!(hits * 100 >= n.min(200) * 99, "n {n}: {hits}");
    }
}

#[test]
fn an_order_renames_ids_and_keeps_edges() {
    let points = Points::random(600, 5, 11);
    let mut graph = grown(&points, 12, 32);
    connectivity::repair(&points, &mut graph, 256);
    let ordered = renumber(&graph, 256, 8).unwrap();
    let mut seen = ordered.old.clone();
    assert!(seen[..256].iter().all(|old| *old < 256), "entry points stay in front");
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..600), "every id once");
    for new in 0..600u32 {
        let old_of = |id: &u32| ordered.old[*id as usize];
        let list: Vec<u32> = ordered.graph.neighbors(new).iter().map(old_of).collect();
        assert_eq!(list, graph.neighbors(ordered.old[new as usize]));
    }
}

#[test]
fn neighbors_share_groups() {
    let points = Points::random(2000, 3, 12);
    let mut graph = grown(&points, 12, 32);
    connectivity::repair(&points, &mut graph, 256);
    // Of each row and its nearest other one: how many are in one group of eight.
    let together = |group: usize| {
        let old = renumber(&graph, 256, group).unwrap().old;
        let mut new = vec![0; 2000];
        old.iter().enumerate().for_each(|(to, from)| new[*from as usize] = to);
        let same = |id: &u32| {
            let query = &points.rows[*id as usize];
            let near = nearest(&points, query).into_iter().find(|(_, other)| other != id);
            new[*id as usize] / 8 == new[near.unwrap().1 as usize] / 8
        };
        (0..2000u32).filter(same).count()
    };
    let (apart, grouped) = (together(1), together(8));
    assert!(grouped > 600 && grouped > 2 * apart, "{apart} {grouped}");
}
