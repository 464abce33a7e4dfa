//! Several segments, searched as if all their rows were in one.

use std::sync::atomic::AtomicBool;

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Metric, Row, RowSource, Rows, Values};
use foveal_index::{
    Answer, IdSet, Keys, Neighbor, Query, SearchError, SearchParams, Searcher, Segment, Stop,
    Stopped, search_segments,
};

use crate::built::{Built, params};

const DIM: usize = 12;

/// Rows of a few values, so that many distances are equal.
fn rows(count: usize, seed: u64) -> Rows {
    let mut random = Seeded::new(seed);
    let numbers = (0..count * DIM).map(|_| 1.0 + random.below(3) as f32).collect();
    Rows::new(DIM, Values::F32(numbers)).unwrap()
}

/// Segments of so many rows; the keys of segment `i` are `i`, `i + count`, `i + 2 count`, ...
fn split(metric: Metric, counts: &[usize]) -> Vec<Built> {
    let build = |(i, count): (usize, &usize)| {
        let keys: Vec<u64> = (0..*count).map(|row| (row * counts.len() + i) as u64).collect();
        let texts: String = keys.iter().map(|key| format!("{{\"key\": {key}}}\n")).collect();
        Built::with(&rows(*count, i as u64), &params(metric, 8), Keys::List(&keys), Some(&texts))
    };
    counts.iter().enumerate().map(build).collect()
}

fn searchers(built: &[Built]) -> Vec<Searcher> {
    built.iter().map(|built| built.open().searcher()).collect()
}

/// The slow twin: all answers together, sorted.
fn together(searchers: &mut [Searcher], request: &Request<'_>) -> Vec<Neighbor> {
    let mut all: Vec<Neighbor> = Vec::new();
    for (i, searcher) in searchers.iter_mut().enumerate() {
        let (row, stop) = (request.row, Stop::default());
        let query = Query { row, params: request.params, allowed: request.allowed(i), stop };
        all.extend(searcher.search_one(query).unwrap().neighbors);
    }
    all.sort_by(Neighbor::order);
    all.truncate(request.params.k as usize);
    all
}

struct Request<'a> {
    row: Row<'a>,
    params: SearchParams,
    allowed: Vec<Option<&'a IdSet>>,
}

impl Request<'_> {
    fn allowed(&self, segment: usize) -> Option<&IdSet> {
        self.allowed.get(segment).copied().flatten()
    }

    fn answer(&self, searchers: &mut [Searcher]) -> Answer {
        let stop = Stop::default();
        search_segments(searchers, self.row, &self.params, &self.allowed, &stop).unwrap()
    }
}

#[test]
fn answers_are_merged_by_distance_and_key() {
    for metric in Metric::ALL {
        let built = split(metric, &[400, 30, 250]);
        let mut searchers = searchers(&built);
        let queries = rows(40, 99);
        for row in queries.iter() {
            for k in [1, 10, 100] {
                let request = Request { row, params: SearchParams::new(k), allowed: vec![] };
                let answer = request.answer(&mut searchers);
                assert_eq!(answer.neighbors, together(&mut searchers, &request), "{metric} {k}");
                assert_eq!(answer.neighbors.len(), k as usize);
                assert!(!answer.exhausted && !answer.partial);
                assert!(answer.certified <= k);
            }
        }
    }
}

/// With a list as long as the segments are, the answer is that of a scan.
#[test]
fn a_merge_of_whole_segments_is_exact() {
    let built = split(Metric::L2, &[120, 5, 75]);
    let mut searchers = searchers(&built);
    for row in rows(20, 98).iter() {
        let params = SearchParams { list_size: 256, rerank_size: 256, ..SearchParams::new(250) };
        let answer = Request { row, params, allowed: vec![] }.answer(&mut searchers);
        let Row::F32(numbers) = row else { panic!("rows of f32") };
        let one = Rows::new(DIM, Values::F32(numbers.into())).unwrap();
        let mut all: Vec<Neighbor> = Vec::new();
        for (i, built) in built.iter().enumerate() {
            let exact = built.exact(&one, 120.min(built.base.len()));
            let key = |row: u64| row * 3 + i as u64;
            all.extend(exact[0].iter().map(|n| Neighbor { key: key(n.key), ..*n }));
        }
        all.sort_by(Neighbor::order);
        assert_eq!(answer.neighbors, all);
        assert!(answer.exhausted, "200 rows are fewer than 250");
        assert_eq!(answer.certified, 200);
    }
}

#[test]
fn rows_that_do_not_count_are_in_no_answer() {
    let built = split(Metric::Cosine, &[300, 300, 300]);
    let mut searchers = searchers(&built);
    let segments: Vec<Segment> = built.iter().map(Built::open).collect();
    let even: Vec<u64> = (0..900).filter(|key| key % 2 == 0).collect();
    let sets = [segments[0].id_set(&even).unwrap(), segments[1].id_set(&[]).unwrap()];
    for row in rows(20, 97).iter() {
        let params = SearchParams::new(20);
        let allowed = vec![Some(&sets[0]), Some(&sets[1]), None];
        let request = Request { row, params, allowed };
        let answer = request.answer(&mut searchers);
        assert_eq!(answer.neighbors, together(&mut searchers, &request));
        let counts = |key: u64| [0, 2, 5].contains(&(key % 6));
        assert!(answer.neighbors.iter().all(|neighbor| counts(neighbor.key)));
        // Fewer than k where fewer count.
        let few = segments[0].id_set(&[0, 6, 3]).unwrap();
        let allowed = vec![Some(&few), Some(&sets[1]), Some(&sets[1])];
        let answer = Request { row, params, allowed }.answer(&mut searchers);
        assert!(answer.exhausted && answer.neighbors.len() == 3);
    }
}

#[test]
fn payloads_come_from_the_segment_of_a_neighbor() {
    let built = split(Metric::L2, &[200, 200]);
    let mut searchers = searchers(&built);
    let row = rows(1, 96);
    let request = Request { row: row.row(0), params: SearchParams::new(10), allowed: vec![] };
    let mut answer = request.answer(&mut searchers);
    for rank in 0..10 {
        let (key, segment) = (answer.neighbors[rank].key, answer.segment_of(rank));
        assert_eq!(segment as u64, key % 2);
        let payload = searchers[segment].segment().payload_of(&mut answer, rank).unwrap();
        assert_eq!(payload, Some(format!("{{\"key\": {key}}}")));
    }
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let (l2, cosine) = (split(Metric::L2, &[50]), split(Metric::Cosine, &[50]));
    let mut mixed = [searchers(&l2), searchers(&cosine)].into_iter().flatten().collect::<Vec<_>>();
    let (row, params) = (rows(1, 95), SearchParams::new(3));
    let search = |searchers: &mut [Searcher], row: Row<'_>, stop: &Stop<'_>| {
        search_segments(searchers, row, &params, &[], stop)
    };
    let error = search(&mut mixed, row.row(0), &Stop::default()).unwrap_err();
    assert_eq!(error.to_string(), "segments of metrics l2 and cosine; wanted one metric");
    let error = search(&mut mixed[..1], Row::F32(&[1.0]), &Stop::default()).unwrap_err();
    assert!(matches!(error, SearchError::Dim { found: 1, wanted: DIM }), "{error}");
    let cancelled = AtomicBool::new(true);
    let stop = Stop { cancelled: Some(&cancelled), ..Stop::default() };
    let error = search(&mut mixed[..1], row.row(0), &stop).unwrap_err();
    assert!(matches!(error, SearchError::Stopped(Stopped::Cancelled)), "{error}");
    let none = search(&mut [], row.row(0), &Stop::default()).unwrap();
    assert!(none.neighbors.is_empty() && none.exhausted && none.certified == 0);
}
