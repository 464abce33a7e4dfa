//! Several segments, searched as if all their rows were in one.

use std::ops::RangeInclusive;
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

/// The answers of the segments, each searched alone.
fn alone(searchers: &mut [Searcher], request: &Request<'_>) -> Vec<Answer> {
    let search = |(i, searcher): (usize, &mut Searcher)| {
        let (row, stop) = (request.row, Stop::default());
        let query = Query { row, params: request.params, allowed: request.allowed(i), stop };
        searcher.search_one(query).unwrap()
    };
    searchers.iter_mut().enumerate().map(search).collect()
}

/// The slow twin: all answers together, sorted.
fn together(answers: &[Answer], k: u32) -> Vec<Neighbor> {
    let mut all: Vec<Neighbor> =
        answers.iter().flat_map(|answer| answer.neighbors.clone()).collect();
    all.sort_by(Neighbor::order);
    all.truncate(k as usize);
    all
}

/// The fewest and the most of `neighbors` that the answers of all segments prove: a neighbor is
/// proved if no segment has a candidate left that may be as near. A segment proves what is no
/// farther than its last proved neighbor, and not what is as far as its first unproved one.
fn proved(answers: &[Answer], neighbors: &[Neighbor]) -> RangeInclusive<u32> {
    let (mut low, mut high) = (f32::INFINITY, f32::INFINITY);
    for Answer { neighbors, certified, .. } in answers {
        let (proved, unproved) = neighbors.split_at(*certified as usize);
        if let Some(first) = unproved.first() {
            low = low.min(proved.last().map_or(f32::NEG_INFINITY, |last| last.distance));
            high = high.min(first.distance);
        }
    }
    let least = neighbors.partition_point(|neighbor| neighbor.distance <= low);
    let most = neighbors.partition_point(|neighbor| neighbor.distance < high);
    least as u32..=most as u32
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
        let built = split(metric, &[600, 30, 700]);
        let mut searchers = searchers(&built);
        let queries = rows(40, 99);
        let (mut all_proved, mut some_unproved) = (false, false);
        for row in queries.iter() {
            for k in [1, 10, 100] {
                let params = SearchParams::with_list_size(k, k.max(20));
                let params = SearchParams { rerank_size: k, ..params };
                let request = Request { row, params, allowed: vec![] };
                let answer = request.answer(&mut searchers);
                let answers = alone(&mut searchers, &request);
                assert_eq!(answer.neighbors, together(&answers, k), "{metric} {k}");
                assert_eq!(answer.neighbors.len(), k as usize);
                assert!(!answer.exhausted && !answer.partial && answer.stats.hops > 0);
                assert_eq!(answer.stats.scanned, 30, "the other segments are walked");
                let proved = proved(&answers, &answer.neighbors);
                assert!(proved.contains(&answer.certified), "{metric} {k}: {answer:?} {proved:?}");
                all_proved |= answer.certified == k;
                some_unproved |= answer.certified < k;
            }
        }
        assert!(all_proved && some_unproved, "{metric}");
    }
}

/// With a list as long as the segments are, the answer is that of a scan.
#[test]
fn a_merge_of_whole_segments_is_exact() {
    let built = split(Metric::L2, &[600, 5, 520]);
    let mut searchers = searchers(&built);
    for row in rows(20, 98).iter() {
        let params = SearchParams::with_list_size(1200, 1200);
        let answer = Request { row, params, allowed: vec![] }.answer(&mut searchers);
        let Row::F32(numbers) = row else { panic!("rows of f32") };
        let one = Rows::new(DIM, Values::F32(numbers.into())).unwrap();
        let mut all: Vec<Neighbor> = Vec::new();
        for (i, built) in built.iter().enumerate() {
            let exact = built.exact(&one, built.base.len());
            let key = |row: u64| row * 3 + i as u64;
            all.extend(exact[0].iter().map(|n| Neighbor { key: key(n.key), ..*n }));
        }
        all.sort_by(Neighbor::order);
        assert_eq!(answer.neighbors, all);
        assert!(answer.exhausted, "1125 rows are fewer than 1200");
        assert!(answer.certified == 1125 && answer.stats.hops > 0);
    }
}

#[test]
fn rows_that_do_not_count_are_in_no_answer() {
    let built = split(Metric::Cosine, &[600, 600, 600]);
    let mut searchers = searchers(&built);
    let segments: Vec<Segment> = built.iter().map(Built::open).collect();
    let even: Vec<u64> = (0..1800).filter(|key| key % 2 == 0).collect();
    let sets = [segments[0].id_set(&even).unwrap(), segments[1].id_set(&[]).unwrap()];
    for row in rows(20, 97).iter() {
        let params = SearchParams::new(20);
        let allowed = vec![Some(&sets[0]), Some(&sets[1]), None];
        let request = Request { row, params, allowed };
        let answer = request.answer(&mut searchers);
        let answers = alone(&mut searchers, &request);
        assert_eq!(answer.neighbors, together(&answers, 20));
        assert!(answers[0].stats.scanned == 300 && answers[2].stats.hops > 0);
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
    let built = split(Metric::L2, &[600, 600]);
    let mut searchers = searchers(&built);
    let row = rows(1, 96);
    let request = Request { row: row.row(0), params: SearchParams::new(10), allowed: vec![] };
    let mut answer = request.answer(&mut searchers);
    assert!(answer.stats.hops > 0);
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

/// Rows of 1,000 numbers take a block each.
#[test]
fn reads_are_bounded_for_all_segments_together() {
    let dim = 1000;
    let mut random = Seeded::new(31);
    let mut built = |n: usize| {
        let numbers = (0..n * dim).map(|_| random.gaussian()).collect();
        Built::new(&Rows::new(dim, Values::F32(numbers)).unwrap(), &params(Metric::L2, 4))
    };
    let all = [built(30), built(4), built(40)];
    let mut searchers = searchers(&all);
    let query = vec![0.5; dim];
    for max_reads in [1, 2, 3, 4, 9, 30, 200] {
        let params = SearchParams { max_reads: Some(max_reads), ..SearchParams::new(10) };
        let row = Row::F32(&query);
        let answer = search_segments(&mut searchers, row, &params, &[], &Stop::default()).unwrap();
        let reads = answer.stats.reads;
        assert!(reads <= max_reads.into(), "{reads} reads of {max_reads}");
        assert_eq!(answer.partial, max_reads < 200, "{max_reads}: {answer:?}");
        // However few were read, there are 74.
        assert!(!answer.exhausted, "{max_reads}");
        assert!(max_reads > 3 || answer.certified == 0, "segments that were passed over");
    }
    let most = SearchParams::new(75);
    let answer = search_segments(&mut searchers, Row::F32(&query), &most, &[], &Stop::default());
    let answer = answer.unwrap();
    assert!(answer.exhausted && answer.neighbors.len() == 74);
}
