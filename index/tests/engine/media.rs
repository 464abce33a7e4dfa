//! Full vectors come from memory, page cache, read calls or io_uring: the answers are the same.

use std::fs;

use foveal_datasets::{Element, ErrorKind, Metric};
use foveal_index::{Answer, Io, Neighbor, OpenOptions, SearchParams, Segment};

use crate::built::{Built, answers, params, queries_of, rows_and_queries};

const MEDIA: [Io; 4] = [Io::Memory, Io::Mapped, Io::Pread, Io::Uring];

/// What must not depend on where rows come from: neighbors, what is proved, what was read.
fn told(answers: Vec<Answer>) -> Vec<(Vec<Neighbor>, u32, bool, u64, u64)> {
    let told = |answer: Answer| {
        let Answer { neighbors, certified, partial, stats, .. } = answer;
        (neighbors, certified, partial, stats.reranked, stats.reads)
    };
    answers.into_iter().map(told).collect()
}

#[test]
fn every_medium_gives_the_same_answers() {
    // Rows many a block, a few a block with a rest, and over several blocks.
    for (element, dim, metrics) in [
        (Element::F32, 30, &Metric::ALL[..]),
        (Element::F16, 700, &[Metric::Cosine]),
        (Element::F32, 1500, &[Metric::L2]),
        (Element::I8, 5000, &[Metric::InnerProduct]),
    ] {
        for &metric in metrics {
            let (rows, queries) = rows_and_queries(element, 600, 12, dim);
            let built = Built::new(&rows, &params(metric, if dim == 30 { 5 } else { 4 }));
            let plain = SearchParams::with_list_size(10, 50);
            let few_reads = SearchParams { max_reads: Some(12), ..plain };
            for (search, io) in
                [plain, few_reads].into_iter().flat_map(|search| MEDIA.map(|io| (search, io)))
            {
                let wanted = told(answers(&built.open(), &queries, &search));
                let index = built.open_io(io);
                assert!(index.io() == io || (io == Io::Uring && index.io() == Io::Pread));
                let found = answers(&index, &queries, &search);
                for answer in &found {
                    let stats = answer.stats;
                    assert!(stats.hops > 0);
                    assert_eq!(stats.device_reads > 0, io.is_device(), "{io}: {stats:?}");
                    assert!(stats.reads > 0 && stats.read_bytes % 4096 == 0);
                }
                assert_eq!(told(found), wanted, "{metric} {element} dim {dim} {io}");
                // Half of the blocks are kept once they were read: the same answers again.
                let bytes = fs::metadata(built.path.join("vectors.bin")).unwrap().len();
                let options = OpenOptions { io, cache: Some(bytes / 2), ..Default::default() };
                let halved = Segment::open_with(&built.path, &options).unwrap();
                for _ in 0..2 {
                    assert_eq!(told(answers(&halved, &queries, &search)), wanted, "{io}, kept");
                }
                let mut batched = vec![None; 12];
                let batch = queries_of(&queries, 0..12, &search);
                for index in [&index, &halved] {
                    let sink = &mut |i: usize, answer| {
                        batched[i] = Some(answer?);
                        Ok(())
                    };
                    // More than walk at a time: the others wait for their rows.
                    index.searcher().search_batch(&mut batch.iter().copied(), 9, sink).unwrap();
                    let batched = batched.iter_mut().flat_map(Option::take).collect();
                    assert_eq!(told(batched), wanted, "batch: {metric} {element} dim {dim} {io}");
                }
            }
        }
    }
}

#[test]
fn codes_that_hold_the_rows_need_no_medium() {
    let (rows, queries) = rows_and_queries(Element::U8, 200, 5, 40);
    for metric in Metric::ALL {
        let built = Built::new(&rows, &params(metric, 8));
        for io in MEDIA {
            let index = built.open_io(io);
            assert_eq!((index.io(), index.full_store_cached_bytes().unwrap()), (Io::None, 0));
            for answer in answers(&index, &queries, &SearchParams::new(5)) {
                let stats = answer.stats;
                assert_eq!((stats.reads, stats.device_reads, stats.read_bytes), (0, 0, 0));
            }
        }
    }
}

#[test]
fn a_medium_that_does_not_fit_is_refused() {
    let (rows, _) = rows_and_queries(Element::F32, 200, 0, 30);
    let built = Built::new(&rows, &params(Metric::L2, 4));
    // The order of the keys, once it is read.
    let resident = built.open().resident_bytes() + 4 * 200;
    let open = |io, spare: u64, cold| {
        let memory = Some(resident + spare);
        let options = OpenOptions { io, memory, cold, ..OpenOptions::default() };
        Segment::open_with(&built.path, &options).map(|index| index.io())
    };
    let error = open(Io::Memory, 100, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("wanted at most 100"), "{error}");
    assert_eq!(open(Io::Memory, 1 << 20, false).unwrap(), Io::Memory);
    assert_eq!(open(Io::Auto, 1 << 20, false).unwrap(), Io::Mapped);
    assert!(open(Io::Auto, 100, false).unwrap().is_device());
    assert_eq!(open(Io::Memory, 1 << 20, true).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(open(Io::Mapped, 1 << 20, true).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(open(Io::None, 1 << 20, false).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn searchers_of_one_index_work_side_by_side() {
    let (rows, queries) = rows_and_queries(Element::F32, 600, 40, 30);
    let built = Built::new(&rows, &params(Metric::L2, 4));
    let search = SearchParams::with_list_size(10, 40);
    for io in MEDIA {
        let index = built.open_io(io);
        let wanted: Vec<_> =
            answers(&index, &queries, &search).into_iter().map(|answer| answer.neighbors).collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let found = answers(&index.clone(), &queries, &search).into_iter();
                    assert!(found.map(|answer| answer.neighbors).eq(wanted.iter().cloned()));
                });
            }
        });
    }
}
