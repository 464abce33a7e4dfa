//! Which way to the nearest allowed rows costs less?

use crate::id_set::IdSet;
use crate::params::{SCANNED_ROWS, SearchParams};

/// How candidates among allowed rows are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Over the graph, through rows that are not allowed.
    Walk,
    /// By the codes of all allowed rows.
    Scan,
}

/// What a scan spends on a code: it lies apart from the one before. The distance of a neighbor in
/// a walk costs 1.
const SCANNED: f64 = 1.5;
/// The pass over the bits of so many rows costs 1.
const ROWS_A_PASS: f64 = 1100.0;
/// What a node that a walk expands costs beside the distances of its neighbors.
const HOP: f64 = 14.0;
/// Nodes that a walk expands for each candidate of its pool, and new rows for each neighbor of
/// them.
const HOPS_A_CANDIDATE: f64 = 0.7;
const FRESH: f64 = 0.8;
/// So few allowed rows are scanned in any case.
const FEW: u32 = 2048;
/// The largest pool: to keep it in order takes more than the walk beyond it.
const MAX_POOL: f64 = 4096.0;

/// A walk gives way to a scan once it has cost this many times as much.
const MOST_SCANS: f64 = 2.0;

impl Plan {
    /// The plan for the nearest of the `allowed` rows in a graph of degree `degree`.
    pub(crate) fn choose(allowed: &IdSet, params: &SearchParams, degree: u32) -> Plan {
        let pool = f64::from(params.list_size.max(params.k)) / share(allowed);
        let few = allowed.len() <= FEW.max(4 * params.k);
        if few || pool > MAX_POOL {
            return Plan::Scan;
        }
        let walk = pool * HOPS_A_CANDIDATE * (HOP + FRESH * f64::from(degree));
        match walk < scan_cost(allowed) {
            true => Plan::Walk,
            false => Plan::Scan,
        }
    }
}

/// All rows of a segment of `n` where they are so few that every search scans them.
pub(crate) fn few_rows(n: u64) -> Option<IdSet> {
    (n <= SCANNED_ROWS).then(|| IdSet::new(n as u32, 0..n as u32))
}

/// Whether a walk that computed `distances` and expanded `hops` nodes has cost too much.
pub(crate) fn is_too_long(allowed: &IdSet, (distances, hops): (u64, u64)) -> bool {
    let cost = distances as f64 + HOP * hops as f64;
    cost > MOST_SCANS * scan_cost(allowed)
}

/// Whether so many allowed candidates are too few for a walk whose pool should hold `list_size`:
/// the allowed rows lie elsewhere.
pub(crate) fn is_astray(allowed: &IdSet, found: usize, params: &SearchParams) -> bool {
    let wanted = params.k.max(params.list_size / 2);
    found < wanted.min(allowed.len()) as usize
}

/// The share of the rows that is allowed.
pub(crate) fn share(allowed: &IdSet) -> f64 {
    f64::from(allowed.len()) / f64::from(allowed.n().max(1))
}

/// How the best of a scan are ranked: all of them, as far as their bounds need it. If all allowed
/// rows are far from the query, thousands have nearly the same distance, so many must be ranked
/// exactly.
pub(crate) fn ranking(params: &SearchParams) -> SearchParams {
    let most = params.rerank_size.max(params.list_size).max(FEW);
    SearchParams { list_size: most, rerank_size: most, ..*params }
}

fn scan_cost(allowed: &IdSet) -> f64 {
    SCANNED * f64::from(allowed.len()) + f64::from(allowed.n()) / ROWS_A_PASS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_allowed_rows_are_scanned_and_many_walked_to() {
        let n = 1_000_000;
        let one_in = |part: u32| IdSet::new(n, (0..n).filter(|id| id % part == 0));
        let plan = |set: &IdSet| Plan::choose(set, &SearchParams::with_list_size(10, 40), 32);
        assert_eq!(plan(&one_in(2)), Plan::Walk);
        assert_eq!(plan(&one_in(10)), Plan::Walk);
        assert_eq!(plan(&one_in(100)), Plan::Scan);
        assert_eq!(plan(&one_in(100_000)), Plan::Scan);
        assert_eq!(plan(&IdSet::new(n, [])), Plan::Scan);
        let most = SearchParams::with_list_size(10, 60_000);
        assert_eq!(Plan::choose(&one_in(2), &most, 32), Plan::Scan);
    }

    #[test]
    fn a_walk_gives_way_when_it_costs_more_or_finds_too_little() {
        let set = IdSet::new(100_000, (0..100_000).filter(|id| id % 10 == 0));
        assert!(!is_too_long(&set, (19_000, 750)) && is_too_long(&set, (20_000, 800)));
        let params = SearchParams::with_list_size(10, 64);
        assert!(is_astray(&set, 31, &params) && !is_astray(&set, 32, &params));
        let few = IdSet::new(100_000, [5, 9]);
        assert!(is_astray(&few, 1, &params) && !is_astray(&few, 2, &params));
    }
}
