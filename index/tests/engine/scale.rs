//! Values at the ends of what f32 holds, near-copies, and rows by key.

use std::fs;

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Element, ErrorKind, KeyedRows, Metric, Rows, Values};
use foveal_index::stats::Job;
use foveal_index::{
    BuildError, BuildInput, ExactError, ExactRequest, Io, Keys, SearchError, SearchParams, Segment,
    build, exact,
};
use half::bf16;

use crate::built::{Built, answers, floats, params, recall_of, rows_and_queries, wide, write_rows};

fn times(rows: &Rows, scale: f32) -> Rows {
    floats(rows.dim(), rows.iter().flat_map(wide).map(|x| x * scale).collect())
}

#[test]
fn rows_whose_distances_vanish_are_refused_and_nothing_stays() {
    let (rows, queries) = rows_and_queries(Element::F32, 400, 5, 12);
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "tiny", &times(&rows, 1e-24));
    let input = BuildInput::of(&base);
    for metric in [Metric::L2, Metric::InnerProduct] {
        let out = dir.path().join("index");
        let error = build(&input, &out, &params(metric, 4), Job::default()).unwrap_err();
        assert!(matches!(error, BuildError::TooSmall { .. }), "{metric}: {error}");
        assert_eq!(error.kind(), ErrorKind::BadData);
        assert!(error.to_string().contains("tiny.fbin: typical squared distances"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let request = ExactRequest { metric, k: 3, threads: 1 };
        let tiny = times(&queries, 1e-24);
        let error = exact::search(&base, &tiny, &request, Job::default()).unwrap_err();
        assert!(matches!(error, ExactError::TooSmall { .. }), "{metric}: {error}");
    }
    // Products with queries of length 1 do not vanish, nor do angles.
    let request = ExactRequest { metric: Metric::InnerProduct, k: 3, threads: 1 };
    assert!(exact::search(&base, &queries, &request, Job::default()).is_ok());
    build(&input, &dir.path().join("angles"), &params(Metric::Cosine, 4), Job::default()).unwrap();
}

#[test]
fn truth_of_what_passes_f32_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let brief = |numbers: &[f32]| {
        let numbers = numbers.iter().map(|x| bf16::from_f32(*x)).collect();
        Rows::new(2, Values::Bf16(numbers)).unwrap()
    };
    let fine = write_rows(dir.path(), "fine", &brief(&[1.0, 2.0, 3.0, 4.0]));
    let long = write_rows(dir.path(), "long", &brief(&[1.0, 2.0, 1e19, 1e19]));
    for metric in [Metric::L2, Metric::InnerProduct] {
        let request = ExactRequest { metric, k: 1, threads: 1 };
        let of = |base, queries: &[f32]| {
            exact::search(base, &brief(queries), &request, Job::default()).unwrap_err()
        };
        assert!(matches!(of(&fine, &[1.0, 1.0, 1e19, 0.0]), ExactError::LongQuery { row: 1 }));
        assert!(matches!(of(&long, &[1.0, 1.0]), ExactError::LongRow { row: 1, .. }));
    }
}

#[test]
fn queries_too_long_or_too_short_are_refused_in_every_type() {
    let (rows, queries) = rows_and_queries(Element::F32, 400, 1, 12);
    for metric in [Metric::L2, Metric::InnerProduct] {
        let index = Built::new(&rows, &params(metric, 4)).open();
        let search =
            |query: &Rows| index.searcher().search(query.row(0), &SearchParams::new(3)).map(|_| ());
        let long = times(&queries, 1e19).convert(Element::Bf16).unwrap();
        assert!(matches!(search(&long), Err(SearchError::TooLong)), "{metric}");
        let short = times(&queries, 1e-42);
        let refused = matches!(search(&short), Err(SearchError::TooShort));
        assert_eq!(refused, metric == Metric::InnerProduct, "{metric}");
        assert!(search(&times(&queries, 1e-9)).is_ok(), "{metric}");
    }
}

/// Twins at a cosine distance of about 5e-9, which one minus a cosine rounds to nothing.
#[test]
fn twins_order_rightly_under_cosine() {
    let mut random = Seeded::new(12);
    let dim = 48;
    let mut numbers = Vec::new();
    for _ in 0..300 {
        let row: Vec<f32> = (0..dim).map(|_| random.gaussian()).collect();
        let twin: Vec<f32> = row.iter().map(|x| x + 1e-4 * random.gaussian()).collect();
        numbers.extend(row.into_iter().chain(twin));
    }
    let rows = floats(dim, numbers);
    for bits in [4, 8] {
        let built = Built::new(&rows, &params(Metric::Cosine, bits));
        let exact = built.exact(&rows, 3);
        let found = answers(&built.open(), &rows, &SearchParams::with_list_size(3, 40));
        for row in 0..rows.len() {
            let other = row ^ 1;
            let plain = Metric::Cosine.plain_distance(rows.row(row), rows.row(other));
            assert!((1e-10..1e-7).contains(&plain), "{plain}");
            for nearest in [&exact[row], &found[row].neighbors] {
                assert_eq!((nearest[0].key, nearest[0].distance), (row as u64, 0.0));
                assert_eq!(nearest[1].key, other as u64);
                let off = f64::from(nearest[1].distance) / plain - 1.0;
                assert!(off.abs() < 1e-6, "{} {plain}", nearest[1].distance);
                assert!(nearest.iter().all(|near| (0.0..=2.0).contains(&near.distance)));
            }
        }
    }
}

/// Scaled rows and queries have the same neighbors, and answers of the same recall.
#[test]
fn scale_changes_no_recall() {
    let (rows, queries) = rows_and_queries(Element::F32, 1200, 40, 24);
    for metric in Metric::ALL {
        for bits in [4, 8] {
            let recalls = [0i32, -17, 17, -50].map(|power| {
                let scale = 2f32.powi(power);
                let (rows, queries) = (times(&rows, scale), times(&queries, scale));
                let built = Built::new(&rows, &params(metric, bits));
                let found = answers(&built.open(), &queries, &SearchParams::with_list_size(10, 10));
                recall_of(&found, &built.exact(&queries, 10), 10, metric)
            });
            assert!(recalls[0] < 1.0 && recalls[0] > 0.3, "{metric} {bits}: {recalls:?}");
            assert_eq!(recalls, [recalls[0]; 4], "{metric} {bits}");
        }
    }
}

#[test]
fn rows_come_by_key_from_every_medium() {
    for (element, bits) in [(Element::F16, 4), (Element::U8, 8)] {
        let (rows, _) = rows_and_queries(element, 300, 1, 24);
        let keys: Vec<u64> = (0..300).map(|row| u64::MAX - 3 * row).collect();
        let built = Built::with(&rows, &params(Metric::L2, bits), Keys::List(&keys), None);
        for io in [Io::Memory, Io::Mapped, Io::Pread, Io::Auto] {
            let index: Segment = built.open_io(io);
            // One of them twice.
            let wanted = [keys[7], keys[0], keys[299], keys[7]];
            let found = index.rows(&wanted).unwrap();
            for (i, row) in [7, 0, 299, 7].into_iter().enumerate() {
                assert_eq!(wide(found.row(i)), wide(rows.row(row)), "{element} {io}");
            }
            assert_eq!(index.count_known(&[keys[1], 5, keys[2], keys[1]]).unwrap(), 3);
            assert!(matches!(index.rows(&[5]), Err(SearchError::UnknownKey { key: 5 })));
            assert_eq!(index.largest_key(), u64::MAX);
            let some = index.some_keys(16);
            assert!(some.len() == 16 && index.count_known(&some).unwrap() == 16);
        }
    }
}
