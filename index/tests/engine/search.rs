//! What a search accepts, refuses and promises.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use foveal_datasets::{Element, ErrorKind, Metric, Values};
use foveal_index::stats::Stop;
use foveal_index::{
    Answer, Keys, MAX_K, MAX_LIST_SIZE, OpenOptions, SearchError, SearchParams, Segment, Stopped,
};

use crate::built::{Built, answers, floats, params, queries_of, recall_of, rows_and_queries, wide};

fn small(metric: Metric, element: Element, bits: u8) -> (Built, Segment, foveal_datasets::Rows) {
    let (rows, queries) = rows_and_queries(element, 700, 20, 24);
    let built = Built::new(&rows, &params(metric, bits));
    let index = built.open();
    (built, index, queries)
}

#[test]
fn queries_that_cannot_be_answered_are_refused() {
    let (_built, index, _) = small(Metric::Cosine, Element::F32, 4);
    let mut searcher = index.searcher();
    let mut refused = |query: &[f32]| {
        let error = searcher.search(query, &SearchParams::new(3)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData);
        error.to_string()
    };
    assert_eq!(refused(&[1.0; 23]), "the query has dimension 23; the index has 24");
    assert_eq!(refused(&[]), "the query has dimension 0; the index has 24");
    let with = |value: f32| {
        let mut query = [1.0; 24];
        query[7] = value;
        query
    };
    assert_eq!(
        refused(&with(f32::NAN)),
        "the query holds NaN at position 7; wanted finite numbers"
    );
    assert!(refused(&with(f32::INFINITY)).contains("holds inf at position 7"));
    assert!(refused(&with(f32::NEG_INFINITY)).contains("holds -inf at position 7"));
    assert_eq!(refused(&[0.0; 24]), "the query is all zeros, which has no cosine");
    assert!(searcher.search(&[1.0; 24][..], &SearchParams::new(3)).is_ok(), "still of use");
    // Other metrics know a distance from zero.
    for metric in [Metric::L2, Metric::InnerProduct] {
        let (built, index, _) = small(metric, Element::F32, 4);
        let zero = floats(24, vec![0.0; 24]);
        let answer = &answers(&index, &zero, &SearchParams::new(10))[0];
        let wanted = &built.exact(&zero, 10)[0];
        assert_eq!(answer.neighbors[0].distance, wanted[0].distance, "{metric}");
        assert_eq!(answer.neighbors.len(), 10);
    }
}

#[test]
fn queries_whose_distances_pass_f32_are_refused() {
    for metric in [Metric::L2, Metric::InnerProduct] {
        let (_built, index, _) = small(metric, Element::F32, 4);
        for length in [1e19f32, 1e37] {
            let query = vec![length; index.dim()];
            let error = index.searcher().search(&query, &SearchParams::new(5)).unwrap_err();
            assert!(matches!(error, SearchError::TooLong), "{metric} {length}: {error}");
        }
    }
}

#[test]
fn parameters_out_of_range_are_named() {
    let (_built, index, queries) = small(Metric::L2, Element::F32, 4);
    let plain = SearchParams::with_list_size(10, 40);
    for (params, wanted) in [
        (SearchParams::new(0), "k is 0; wanted 1 to 16384"),
        (SearchParams::new(MAX_K + 1), "k is 16385; wanted 1 to 16384"),
        (SearchParams::new(u32::MAX), "k is 4294967295; wanted 1 to 16384"),
        (SearchParams { list_size: 9, ..plain }, "list_size is 9; wanted 10 to 65536"),
        (
            SearchParams { list_size: MAX_LIST_SIZE + 1, ..plain },
            "list_size is 65537; wanted 10 to 65536",
        ),
        (SearchParams { rerank_size: 9, ..plain }, "rerank_size is 9; wanted 10 to 40"),
        (SearchParams { rerank_size: 41, ..plain }, "rerank_size is 41; wanted 10 to 40"),
        (SearchParams { max_reads: Some(0), ..plain }, "max_reads is 0; wanted at least 1"),
    ] {
        let error = index.searcher().search(queries.row(0), &params).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (wanted, ErrorKind::Usage));
    }
    for in_flight in [0, 65, usize::MAX] {
        let batch = queries_of(&queries, 0..20, &plain);
        let sink = &mut |_: usize, _: Result<Answer, SearchError>| Ok(());
        let error =
            index.searcher().search_batch(&mut batch.iter().copied(), in_flight, sink).unwrap_err();
        assert_eq!(error.to_string(), format!("in_flight is {in_flight}; wanted 1 to 64"));
    }
    let largest = SearchParams::with_list_size(MAX_K, MAX_LIST_SIZE);
    let answer = index.searcher().search(queries.row(0), &largest).unwrap();
    assert_eq!((answer.neighbors.len(), answer.exhausted), (700, true));
}

#[test]
fn asking_for_more_than_there_is_returns_all() {
    for (metric, element, bits) in [
        (Metric::L2, Element::F32, 4),
        (Metric::InnerProduct, Element::F32, 8),
        (Metric::Cosine, Element::F32, 4),
        (Metric::L2, Element::U8, 8),
        (Metric::InnerProduct, Element::I8, 8),
    ] {
        for n in [1, 2, 37, 256, 600] {
            let (rows, queries) = rows_and_queries(element, n, 5, 9);
            let built = Built::new(&rows, &params(metric, bits));
            let (index, wanted) = (built.open(), built.exact(&queries, n));
            let found = answers(&index, &queries, &SearchParams::new(n as u32 + 1));
            for (answer, wanted) in found.iter().zip(&wanted) {
                assert!(answer.exhausted && !answer.partial);
                assert_eq!(answer.stats.hops > 0, n == 600, "only the most rows are walked");
                assert_eq!(answer.neighbors, *wanted, "{metric} {element} {bits} n {n}");
            }
            let all = answers(&index, &queries, &SearchParams::new(n as u32));
            assert!(all.iter().all(|answer| !answer.exhausted && answer.neighbors.len() == n));
        }
    }
}

#[test]
fn a_longer_list_never_finds_less() {
    let (rows, queries) = rows_and_queries(Element::F32, 2500, 100, 48);
    for metric in Metric::ALL {
        let small = foveal_index::BuildParams { max_degree: 8, ..params(metric, 4) };
        let built = Built::new(&rows, &small);
        let (index, exact) = (built.open(), built.exact(&queries, 10));
        let mut before = (0.0, 0);
        for list_size in [10, 14, 20, 40, 80, 200, 600, 2500] {
            let params = SearchParams::with_list_size(10, list_size);
            let answers = answers(&index, &queries, &params);
            let found = recall_of(&answers, &exact, 10, metric);
            let distances: u64 = answers.iter().map(|answer| answer.stats.distances).sum();
            // One neighbor of a thousand may be lost to chance.
            assert!(found >= before.0 - 0.001, "{metric} {list_size}: {found} after {before:?}");
            assert!(distances > before.1, "effort grows with the list");
            before = (found, distances);
        }
        assert!(before.0 >= 0.999, "{metric}: a list of all rows finds {}", before.0);
    }
}

#[test]
fn a_smaller_rerank_reads_less() {
    // One row a block.
    let (rows, queries) = rows_and_queries(Element::F32, 700, 20, 600);
    let index = Built::new(&rows, &params(Metric::L2, 4)).open();
    let most = SearchParams::with_list_size(5, 64);
    let mut before = 0;
    for rerank_size in [5, 6, 8, 64] {
        let answers = answers(&index, &queries, &SearchParams { rerank_size, ..most });
        for stats in answers.iter().map(|answer| answer.stats) {
            assert!((5..=rerank_size.into()).contains(&stats.reads), "{stats:?}");
            assert_eq!(stats.reranked, stats.reads);
        }
        let reads: u64 = answers.iter().map(|answer| answer.stats.reads).sum();
        assert!(reads > before, "{rerank_size}: {reads} reads after {before}");
        before = reads;
    }
}

/// 64 rows lie in a block, and every row is a candidate: what is read is ranked, all of it.
#[test]
fn candidates_in_blocks_that_are_read_are_ranked() {
    let (rows, queries) = rows_and_queries(Element::F32, 640, 20, 16);
    let built = Built::new(&rows, &params(Metric::L2, 4));
    let (index, exact) = (built.open(), built.exact(&queries, 640));
    for (rerank_size, max_reads) in [(1, None), (3, None), (640, Some(1)), (640, Some(2))] {
        let params =
            SearchParams { rerank_size, max_reads, ..SearchParams::with_list_size(1, 640) };
        for (answer, exact) in answers(&index, &queries, &params).iter().zip(&exact) {
            let stats = answer.stats;
            assert!(stats.reads <= max_reads.unwrap_or(rerank_size).into(), "{stats:?}");
            assert_eq!(stats.reranked, 64 * stats.reads, "{stats:?}");
            let nearest = exact.iter().position(|row| *row == answer.neighbors[0]);
            let better = nearest.expect("one of the rows") as u64;
            assert!(better <= 640 - stats.reranked, "{better} rows nearer than that of {stats:?}");
        }
    }
}

fn plain(mut answer: Answer) -> Answer {
    answer.nanos = 0;
    answer.stats.preview_nanos = 0;
    answer.stats.fullview_nanos = 0;
    answer
}

#[test]
fn batches_are_single_searches() {
    for (metric, element, bits) in [
        (Metric::L2, Element::F32, 4),
        (Metric::Cosine, Element::F16, 8),
        (Metric::InnerProduct, Element::I8, 8),
        (Metric::L2, Element::U8, 8),
    ] {
        let (_built, index, queries) = small(metric, element, bits);
        let params = SearchParams::with_list_size(7, 30);
        let single: Vec<Answer> =
            answers(&index, &queries, &params).into_iter().map(plain).collect();
        let mut searcher = index.searcher();
        for in_flight in [1, 3, 8, 64] {
            for rows in [0..20, 0..1, 4..11, 5..5, 20..20] {
                let mut found = vec![None; 20];
                let batch = queries_of(&queries, rows.clone(), &params);
                searcher
                    .search_batch(&mut batch.iter().copied(), in_flight, &mut |i, answer| {
                        let before = found[rows.start + i].replace(plain(answer?));
                        assert!(before.is_none(), "answered once");
                        Ok(())
                    })
                    .unwrap();
                for (row, found) in found.into_iter().enumerate() {
                    let wanted = rows.contains(&row).then(|| single[row].clone());
                    assert_eq!(found, wanted, "{metric} {element} in flight {in_flight}");
                }
            }
        }
    }
}

/// Queries with parameters, deadlines and flaws of their own.
#[test]
fn a_query_of_a_batch_that_fails_keeps_no_other_from_its_answer() {
    let (_built, index, _) = small(Metric::L2, Element::F32, 4);
    let mut numbers: Vec<f32> = (0..24 * 9).map(|i| (i % 7) as f32).collect();
    numbers[24 * 4 + 2] = f32::NAN;
    let queries = floats(24, numbers);
    let (set, now) = (AtomicBool::new(true), Instant::now());
    let mut batch = queries_of(&queries, 0..9, &SearchParams::new(3));
    batch[1].params = SearchParams::with_list_size(20, 400);
    batch[2].stop.cancelled = Some(&set);
    batch[3].stop.deadline = Some(now);
    batch[5].params.k = 0;
    batch[7].params = SearchParams::new(1);
    let mut searcher = index.searcher();
    for in_flight in [1, 2, 5, 9] {
        let mut told = vec![None; 9];
        let sink = &mut |i: usize, answer: Result<Answer, SearchError>| {
            let what = match answer {
                Ok(answer) => Ok(plain(answer)),
                Err(error) => Err(error.to_string()),
            };
            assert!(told[i].replace(what).is_none(), "told once");
            Ok(())
        };
        searcher.search_batch(&mut batch.iter().copied(), in_flight, sink).unwrap();
        for (query, told) in batch.iter().zip(told) {
            let alone = index.searcher().search_until(query.row, &query.params, &query.stop);
            let wanted = alone.map(plain).map_err(|error| error.to_string());
            assert_eq!(told, Some(wanted), "in flight {in_flight}");
        }
    }
}

#[test]
fn an_error_of_the_sink_ends_a_batch() {
    let (_built, index, queries) = small(Metric::L2, Element::F32, 4);
    let batch = queries_of(&queries, 0..20, &SearchParams::new(3));
    let mut answered = 0;
    let error = index.searcher().search_batch(&mut batch.iter().copied(), 2, &mut |_, _| {
        answered += 1;
        Err(SearchError::ZeroQuery)
    });
    assert!(matches!(error, Err(SearchError::ZeroQuery)), "{error:?}");
    assert_eq!(answered, 1);
}

#[test]
fn late_and_cancelled_queries_stop() {
    let (_built, index, queries) = small(Metric::L2, Element::F32, 4);
    let (set, unset) = (AtomicBool::new(true), AtomicBool::new(false));
    let now = Instant::now();
    let past = Stop { deadline: Some(now), cancelled: None };
    let cancelled = Stop { deadline: None, cancelled: Some(&set) };
    let both = Stop { deadline: Some(now), cancelled: Some(&set) };
    let later = now + Duration::from_secs(3600);
    let neither = Stop { deadline: Some(later), cancelled: Some(&unset) };
    let mut searcher = index.searcher();
    for params in [SearchParams::new(1), SearchParams::with_list_size(10, 400)] {
        for (stop, wanted) in [
            (past, Some(Stopped::Deadline)),
            (cancelled, Some(Stopped::Cancelled)),
            (both, Some(Stopped::Cancelled)),
            (neither, None),
        ] {
            let why = |error: SearchError| match error {
                SearchError::Stopped(why) => why,
                other => panic!("{other}"),
            };
            let found = searcher.search_until(queries.row(0), &params, &stop);
            assert_eq!(found.err().map(why), wanted);
        }
    }
    let whole = searcher.search(queries.row(0), &SearchParams::new(5)).unwrap();
    assert_eq!(whole.neighbors.len(), 5, "a searcher that was stopped is as good as new");
}

/// Rows of 24, 2000 and 3000 numbers: many a block, one on two blocks, one on three. The last are
/// so few that they are scanned.
#[test]
fn max_reads_is_never_passed_and_a_cut_is_told() {
    for (n, dim) in [(600, 24), (600, 2000), (120, 3000)] {
        let (rows, queries) = rows_and_queries(Element::F32, n, 8, dim);
        let built = Built::new(&rows, &params(Metric::L2, 4));
        let index = built.open();
        let blocks = (dim as u32 * 4).div_ceil(4096);
        let free = SearchParams::with_list_size(20, 60);
        let whole = answers(&index, &queries, &free);
        assert!(whole.iter().all(|answer| (answer.stats.hops > 0) == (n == 600)));
        for max_reads in [1, 2, 3, 7, 60 * blocks] {
            let params = SearchParams { max_reads: Some(max_reads), ..free };
            for (answer, whole) in answers(&index, &queries, &params).iter().zip(&whole) {
                let reads = answer.stats.reads;
                assert!(reads <= max_reads.into(), "dim {dim}: {reads} reads of {max_reads}");
                if whole.stats.reads > max_reads.into() {
                    assert!(answer.partial, "dim {dim}: {max_reads} reads cut nothing");
                } else if max_reads == 60 * blocks {
                    assert!(!answer.partial && answer.neighbors == whole.neighbors);
                }
            }
        }
    }
}

#[test]
fn whole_numbers_as_f32_are_bytes() {
    for (element, bits) in [(Element::U8, 8), (Element::U8, 4), (Element::I8, 8), (Element::I8, 4)]
    {
        for metric in Metric::ALL {
            let (_built, index, queries) = small(metric, element, bits);
            let params = SearchParams::with_list_size(10, 30);
            let floats = floats(24, queries.iter().flat_map(wide).collect());
            let bytes = answers(&index, &queries, &params).into_iter().map(plain);
            let found = answers(&index, &floats, &params).into_iter().map(plain);
            assert!(bytes.eq(found), "{metric} {element} {bits}");
        }
    }
}

/// Queries between the bytes, and beyond them, meet the rows as f32.
#[test]
fn queries_that_are_no_bytes_find_the_nearest_bytes() {
    for metric in Metric::ALL {
        for (element, bits) in [(Element::U8, 8), (Element::I8, 8), (Element::U8, 4)] {
            let (rows, queries) = rows_and_queries(element, 1500, 60, 24);
            let built = Built::new(&rows, &params(metric, bits));
            let mut random = foveal_datasets::seeded::Seeded::new(5);
            for stretch in [1.0, 0.01, 1.5] {
                let numbers = queries.iter().flat_map(wide);
                let off = numbers.map(|x| stretch * (x + 12.0 * (random.next_f32() - 0.5)));
                let queries = floats(24, off.collect());
                let exact = built.exact(&queries, 10);
                let params = SearchParams::with_list_size(10, 60);
                let found = answers(&built.open(), &queries, &params);
                let recall = recall_of(&found, &exact, 10, metric);
                let floor = if metric == Metric::InnerProduct { 0.97 } else { 0.995 };
                assert!(recall >= floor, "{metric} {element} {bits} {stretch}: {recall}");
            }
        }
    }
}

#[test]
fn payloads_come_back_by_key() {
    let (rows, queries) = rows_and_queries(Element::F32, 300, 3, 8);
    let keys: Vec<u64> = (0..300).map(|row| u64::MAX - row * row).collect();
    let texts: String =
        (0..300).map(|row| format!("{{\"row\": {row}, \"name\": \"zażółć {row}\"}}\n")).collect();
    let built = Built::with(&rows, &params(Metric::L2, 4), Keys::List(&keys), Some(&texts));
    let index = built.open();
    for (row, key) in keys.iter().enumerate() {
        let wanted = format!("{{\"row\": {row}, \"name\": \"zażółć {row}\"}}");
        assert_eq!(index.payload(*key).unwrap(), Some(wanted));
    }
    for missing in [0, u64::MAX - 2, u64::MAX - 3] {
        assert_eq!(index.payload(missing).unwrap(), None);
    }
    // Keys of answers are the caller's keys of the oracle's rows.
    let found = answers(&index, &queries, &SearchParams::new(10));
    for (answer, exact) in found.iter().zip(built.exact(&queries, 10)) {
        let rows: Vec<u64> = exact.iter().map(|n| keys[n.key as usize]).collect();
        assert_eq!(answer.neighbors.iter().map(|n| n.key).collect::<Vec<u64>>(), rows);
    }
    let without = Built::new(&rows, &params(Metric::L2, 4));
    assert_eq!(without.open().payload(5).unwrap(), None);
}

#[test]
fn keys_from_a_number_end_at_the_largest() {
    let rows = floats(2, (0..20).map(|x| x as f32).collect());
    for first in [1, 1 << 40, u64::MAX - 9] {
        let built = Built::with(&rows, &params(Metric::L2, 4), Keys::From(first), None);
        let found = answers(&built.open(), &rows, &SearchParams::new(1));
        let keys = found.iter().map(|answer| answer.neighbors[0].key);
        assert!(keys.eq(first..=first + 9));
    }
}

#[test]
fn equal_distances_come_smaller_key_first() {
    // Ten rows, each 5 times, under keys that descend.
    let numbers: Vec<f32> = (0..50).map(|row| (row % 10) as f32).collect();
    let keys: Vec<u64> = (0..50).map(|row| 1000 - row).collect();
    let rows = floats(1, numbers);
    let built = Built::with(&rows, &params(Metric::L2, 8), Keys::List(&keys), None);
    let answer = &answers(&built.open(), &floats(1, vec![3.0]), &SearchParams::new(15))[0];
    let pairs: Vec<(f32, u64)> = answer.neighbors.iter().map(|n| (n.distance, n.key)).collect();
    let of = |row: u64, distance| (0..5).rev().map(move |i| (distance, 1000 - row - 10 * i));
    let mut ones: Vec<(f32, u64)> = of(2, 1.0).chain(of(4, 1.0)).collect();
    ones.sort_by_key(|(_, key)| *key);
    assert_eq!(pairs, of(3, 0.0).chain(ones).collect::<Vec<_>>());
}

#[test]
fn memory_too_small_for_an_index_is_told() {
    let (built, index, _) = small(Metric::L2, Element::F32, 4);
    // The order of the keys, once it is read.
    let resident = index.resident_bytes() + 4 * index.len();
    let options = OpenOptions { memory: Some(resident - 1), ..OpenOptions::default() };
    let error = Segment::open_with(&built.path, &options).err().unwrap();
    let wanted =
        format!("preview takes {resident} bytes of memory; wanted at most {}", resident - 1);
    assert_eq!((error.to_string(), error.kind()), (wanted, ErrorKind::Usage));
    let options = OpenOptions { memory: Some(resident), ..OpenOptions::default() };
    assert!(Segment::open_with(&built.path, &options).is_ok(), "full vectors are read from disk");
}

#[test]
fn a_query_may_be_of_any_element_type() {
    let (_built, index, queries) = small(Metric::L2, Element::F32, 4);
    let halves = queries.convert(Element::F16).unwrap();
    let params = SearchParams::new(5);
    let widened = floats(24, halves.iter().flat_map(wide).collect());
    let as_halves = answers(&index, &halves, &params).into_iter().map(plain);
    assert!(as_halves.eq(answers(&index, &widened, &params).into_iter().map(plain)));
    assert!(matches!(halves.values(), Values::F16(_)));
}

/// A direction has no length: scaled rows and queries are as near as ever under cosine.
#[test]
fn lengths_do_not_matter_under_cosine() {
    let (rows, queries) = rows_and_queries(Element::F32, 600, 10, 12);
    let times = |rows: &foveal_datasets::Rows, scale: f32| {
        floats(12, rows.iter().flat_map(wide).map(|x| x * scale).collect())
    };
    let params_of_build = params(Metric::Cosine, 4);
    let search = SearchParams::with_list_size(10, 60);
    let plain = Built::new(&rows, &params_of_build);
    let wanted = plain.exact(&queries, 10);
    // Denormals have few digits left.
    for (scale, slack) in [
        (1e-41, 1e-2),
        (1e-36, 1e-5),
        (1e-22, 1e-5),
        (1e-15, 1e-5),
        (1e15, 1e-5),
        (1e19, 1e-5),
        (1e37, 1e-5),
    ] {
        let scaled = Built::new(&times(&rows, scale), &params_of_build);
        for (built, queries) in [
            (&plain, times(&queries, scale)),
            (&scaled, queries.clone()),
            (&scaled, times(&queries, scale)),
        ] {
            let exact = built.exact(&queries, 10);
            let found = answers(&built.open(), &queries, &search);
            assert!(found.iter().all(|answer| answer.stats.hops > 0));
            assert!(recall_of(&found, &exact, 10, Metric::Cosine) >= 0.98, "{scale:e}");
            for (exact, wanted) in exact.iter().zip(&wanted) {
                for (exact, wanted) in exact.iter().zip(wanted) {
                    let off = (exact.distance - wanted.distance).abs();
                    assert!(off <= slack, "{scale:e}: {exact:?} {wanted:?}");
                }
            }
        }
    }
}
