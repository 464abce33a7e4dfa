use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use hdf5_metno::types::{FixedAscii, VarLenAscii, VarLenUnicode};
use hdf5_metno::{File, H5Type};
use tempfile::TempDir;

use super::Place;
use crate::error::{ErrorKind, FileError};
use crate::metric::Metric;
use crate::row_source::RowSource;
use crate::rows::{Rows, Values};
use crate::seeded::Seeded;
use crate::truth_file::Truth;
use crate::vector_file::VectorFile;

const N: usize = 40;
const DIM: usize = 3;
const QUERIES: usize = 4;
const K: usize = 5;

/// A file that is being made wrong in one way.
struct Made {
    _folder: TempDir,
    path: PathBuf,
}

impl Made {
    /// What `write` writes into a new file.
    fn by(write: impl FnOnce(&File)) -> Made {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hdf5");
        write(&File::create(&path).unwrap());
        Made { _folder: folder, path }
    }

    /// A whole file of `metric`, and what `change` does to it.
    fn whole(metric: &str, change: impl FnOnce(&File)) -> Made {
        Made::by(|file| {
            put(file, "train", DIM, &train(), false);
            put(file, "test", DIM, &train()[..QUERIES * DIM], false);
            let (neighbors, distances) = nearest(metric);
            put(file, "neighbors", K, &neighbors, false);
            put(file, "distances", K, &distances, false);
            put_word(file, metric);
            change(file);
        })
    }

    fn inside(&self, dataset: &str) -> PathBuf {
        self.path.join(dataset)
    }

    /// What an error says after the path.
    #[track_caller]
    fn said<T: std::fmt::Debug>(&self, result: Result<T, FileError>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
        let line = error.to_string();
        assert!(!line.contains('\n'), "{line}");
        line.strip_prefix(&format!("{}: ", self.path.display())).unwrap().into()
    }
}

fn put<T: H5Type>(file: &File, name: &str, columns: usize, numbers: &[T], packed: bool) {
    let rows = numbers.len() / columns;
    let mut builder = file.new_dataset::<T>().shape([rows, columns]);
    if packed {
        builder = builder.chunk([7.min(rows.max(1)), columns]).shuffle().deflate(6);
    }
    let dataset = builder.create(name).unwrap();
    if rows > 0 {
        dataset.write_raw(numbers).unwrap();
    }
}

fn put_word(file: &File, word: &str) {
    let word: VarLenUnicode = word.parse().unwrap();
    file.new_attr::<VarLenUnicode>().create("distance").unwrap().write_scalar(&word).unwrap();
}

fn replace<T: H5Type>(file: &File, name: &str, columns: usize, numbers: &[T]) {
    file.unlink(name).unwrap();
    put(file, name, columns, numbers, false);
}

/// Rows on a lattice, none twice and none zero.
fn train() -> Vec<f32> {
    (0..N).flat_map(|i| [i as f32 + 1.0, (i % 7) as f32, -((i % 3) as f32)]).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
}

/// Neighbors and distances as the layout gives them.
fn nearest(metric: &str) -> (Vec<i32>, Vec<f32>) {
    let train = train();
    let rows: Vec<&[f32]> = train.chunks(DIM).collect();
    let of_query = |q: &&[f32]| {
        let distance = |x: &&[f32]| match metric {
            "euclidean" => (dot(q, q) - 2.0 * dot(q, x) + dot(x, x)).sqrt(),
            "ip" | "dot" => -dot(q, x),
            _ => 1.0 - dot(q, x) / (dot(q, q) * dot(x, x)).sqrt(),
        };
        let mut all: Vec<_> = rows.iter().map(distance).zip(0i32..).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.truncate(K);
        all
    };
    let found: Vec<_> = rows[..QUERIES].iter().flat_map(of_query).collect();
    // The inner product itself, as some write it.
    let sign = if metric == "dot" { -1.0 } else { 1.0 };
    (found.iter().map(|f| f.1).collect(), found.iter().map(|f| (sign * f.0) as f32).collect())
}

fn all(path: &Path) -> Rows {
    let file = VectorFile::open(path).unwrap();
    file.read(0..file.len()).unwrap()
}

#[test]
fn a_path_names_a_file_or_a_dataset_in_it() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("d.hdf5")).unwrap();
    let of = |name: &str| {
        let path = folder.path().join(name);
        Place::of(&path).map(|place| {
            let file = place.file.file_name().unwrap().to_str().unwrap().to_owned();
            (file, place.dataset.map(str::to_owned))
        })
    };
    assert_eq!(of("a.hdf5"), Some(("a.hdf5".into(), None)));
    assert_eq!(of("a.h5/test"), Some(("a.h5".into(), Some("test".into()))));
    assert_eq!(of("a.hdf5/x/y"), Some(("a.hdf5".into(), Some("x/y".into()))));
    assert_eq!(of("a.fbin"), None);
    assert_eq!(of("d.hdf5/a.fbin"), None);
}

#[test]
fn every_element_type_is_read_packed_and_not() {
    fn check<T: H5Type>(numbers: &[T], wanted: &Values) {
        for packed in [false, true] {
            let made = Made::by(|file| put(file, "train", 2, numbers, packed));
            let file = VectorFile::open(&made.path).unwrap();
            assert_eq!((file.len(), file.dim(), file.element()), (3, 2, wanted.element()));
            assert_eq!(file.path(), made.path);
            assert_eq!(*file.read(0..3).unwrap().values(), *wanted, "packed {packed}");
        }
    }
    let floats = Values::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    check(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &floats);
    check(&[1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0], &floats);
    check(&[1i16, 2, 3, 4, 5, 6], &floats);
    check(&[1u32, 2, 3, 4, 5, 6], &floats);
    check(&[1i64, 2, 3, 4, 5, 6], &floats);
    check(&[1u8, 2, 3, 4, 5, 255], &Values::U8(vec![1, 2, 3, 4, 5, 255]));
    check(&[1i8, 2, 3, 4, 5, -128], &Values::I8(vec![1, 2, 3, 4, 5, -128]));
    let halves = [1.0, 2.0, 3.0, 4.0, 5.0, -0.5].map(f16::from_f32);
    check(&halves, &Values::F16(halves.to_vec()));
}

#[test]
fn ranges_and_samples_give_the_rows_of_the_whole() {
    let numbers: Vec<f32> = (0..500 * DIM).map(|i| i as f32).collect();
    for packed in [false, true] {
        let made = Made::by(|file| put(file, "train", DIM, &numbers, packed));
        let file = VectorFile::open(&made.path).unwrap();
        for range in [0..1, 6..8, 499..500, 3..3, 0..500] {
            let wanted = numbers[range.start * DIM..range.end * DIM].to_vec();
            assert_eq!(*file.read(range).unwrap().values(), Values::F32(wanted));
        }
        let (picked, rows) = file.sample(20, 7).unwrap();
        for (row, picked) in rows.iter().zip(picked) {
            let mut wide = vec![0.0; DIM];
            row.widen_into(&mut wide);
            assert_eq!(wide, numbers[picked * DIM..][..DIM]);
        }
        assert!(matches!(file.read(0..501), Err(FileError::NoSuchRows { .. })));
    }
}

#[test]
fn any_number_of_threads_read_one_file() {
    let numbers: Vec<f32> = (0..500 * DIM).map(|i| i as f32).collect();
    let made = Made::by(|file| put(file, "train", DIM, &numbers, true));
    let file = VectorFile::open(&made.path).unwrap();
    std::thread::scope(|scope| {
        for part in 0..8 {
            let (file, numbers) = (&file, &numbers);
            scope.spawn(move || {
                let range = part * 60..part * 60 + 60;
                let wanted = numbers[range.start * DIM..range.end * DIM].to_vec();
                assert_eq!(*file.read(range).unwrap().values(), Values::F32(wanted));
            });
        }
    });
}

#[test]
fn distances_become_those_of_the_metric() {
    for (word, metric) in [
        ("euclidean", Metric::L2),
        ("angular", Metric::Cosine),
        ("normalized", Metric::Cosine),
        ("ip", Metric::InnerProduct),
        ("dot", Metric::InnerProduct),
    ] {
        let made = Made::whole(word, |_| {});
        assert_eq!(VectorFile::open(&made.path).unwrap().metric().unwrap(), Some(metric));
        assert_eq!(all(&made.inside("test")).values().len(), QUERIES * DIM);
        let truth = Truth::read(&made.path).unwrap();
        assert_eq!((truth.queries(), truth.k()), (QUERIES, K));
        let train = train();
        let row = |i: usize| &train[i * DIM..][..DIM];
        for q in 0..QUERIES {
            for (key, found) in truth.keys(q).iter().zip(truth.distances(q).unwrap()) {
                let (q, x) = (row(q), row(*key as usize));
                let wanted = match metric {
                    Metric::L2 => dot(q, q) - 2.0 * dot(q, x) + dot(x, x),
                    Metric::InnerProduct => -dot(q, x),
                    Metric::Cosine => 1.0 - dot(q, x) / (dot(q, q) * dot(x, x)).sqrt(),
                };
                assert!((f64::from(*found) - wanted).abs() < 1e-4, "{word}: {found} {wanted}");
            }
        }
    }
}

#[test]
fn the_metric_is_read_however_the_word_is_stored() {
    fn check<T: H5Type>(word: &T) {
        let made = Made::by(|file| {
            put(file, "train", DIM, &train(), false);
            file.new_attr::<T>().create("distance").unwrap().write_scalar(word).unwrap();
        });
        let metric = VectorFile::open(&made.path).unwrap().metric();
        assert_eq!(metric.unwrap(), Some(Metric::L2));
    }
    check(&"euclidean".parse::<VarLenUnicode>().unwrap());
    check(&VarLenAscii::from_ascii("euclidean").unwrap());
    check(&FixedAscii::<9>::from_ascii("euclidean").unwrap());
    check(&FixedAscii::<20>::from_ascii("euclidean").unwrap());
}

#[test]
fn a_metric_that_is_missing_or_unknown_is_named() {
    let made = Made::whole("hamming", |_| {});
    let wanted = "found distance \"hamming\"; wanted one of euclidean, l2, angular, cosine";
    assert!(made.said(VectorFile::open(&made.path).unwrap().metric()).starts_with(wanted));
    assert!(made.said(Truth::read(&made.path)).starts_with(wanted));
    let made = Made::by(|file| put(file, "train", DIM, &train(), false));
    let said = made.said(VectorFile::open(&made.path).unwrap().metric());
    assert_eq!(said, "found no attribute distance; wanted one that says what near means");
    let made = Made::by(|file| {
        put(file, "train", DIM, &train(), false);
        file.new_attr::<i32>().create("distance").unwrap().write_scalar(&3).unwrap();
    });
    let said = made.said(VectorFile::open(&made.path).unwrap().metric());
    assert!(said.starts_with("found an attribute distance that is no word"), "{said}");
}

#[test]
fn rows_that_make_no_sense_are_refused() {
    let open = |write: fn(&File)| {
        let made = Made::by(write);
        made.said(VectorFile::open(&made.path).and_then(|file| file.read(0..file.len())))
    };
    assert_eq!(
        open(|file| put(file, "base", 2, &[1.0f32, 2.0], false)),
        "found no dataset train; wanted one of that name"
    );
    assert!(
        open(|file| {
            file.new_dataset::<f32>().shape([4]).create("train").unwrap();
        })
        .starts_with("found 1 axes in dataset train; wanted 2 axes")
    );
    assert!(
        open(|file| {
            file.new_dataset::<f32>().shape([4, 0]).create("train").unwrap();
        })
        .starts_with("found dimension 0 in dataset train; wanted 1 to 65535")
    );
    assert_eq!(
        open(|file| put::<f32>(file, "train", 2, &[], false)),
        "holds no rows; wanted at least 1"
    );
    assert!(
        open(|file| put(file, "train", 2, &[true, false], false))
            .starts_with("found an element type of dataset train that is no number")
    );
    // Rows that were promised and never written.
    assert_eq!(
        open(|file| {
            file.new_dataset::<f32>().shape([1 << 40, 8]).chunk([64, 8]).create("train").unwrap();
        }),
        "found 0 bytes in dataset train; wanted enough for 1099511627776 rows of dimension 8"
    );
    assert_eq!(
        open(|file| put(file, "train", 2, &[1.0f32, 2.0, 3.0, f32::NAN], true)),
        "row 1, column 1: found NaN; wanted a finite number"
    );
    assert_eq!(
        open(|file| put(file, "train", 2, &[1.0f64, 2.0, f64::INFINITY, 4.0], true)),
        "row 1, column 0: found inf; wanted a finite number"
    );
    let exact = "wanted a number that f32 holds exactly";
    assert_eq!(
        open(|file| put(file, "train", 2, &[1.0f64, 0.1], false)),
        format!("found 0.1 in row 0, column 1; {exact}")
    );
    assert_eq!(
        open(|file| put(file, "train", 2, &[1i64, i64::MAX], false)),
        format!("found {} in row 0, column 1; {exact}", i64::MAX)
    );
}

#[test]
fn truth_that_does_not_fit_is_refused() {
    let read = |metric: &str, change: &dyn Fn(&File)| {
        let made = Made::whole(metric, change);
        made.said(Truth::read(&made.path))
    };
    let distances = nearest("euclidean").1;
    assert_eq!(
        read("euclidean", &|file| replace(file, "neighbors", K, &[1i32; 3 * K])),
        "found 3 x 5 neighbors; wanted one row for each of 4 queries"
    );
    assert_eq!(
        read("euclidean", &|file| replace(file, "distances", 4, &distances[..4 * 4])),
        "found 4 x 4 distances; wanted 4 x 5, as there are neighbors"
    );
    assert_eq!(
        read("euclidean", &|file| replace(file, "neighbors", K, &[N as i64; QUERIES * K])),
        "found query 0, neighbor 0: row 40; wanted rows below 40"
    );
    assert_eq!(
        read("euclidean", &|file| replace(file, "neighbors", K, &[-2i32; QUERIES * K])),
        "query 0, neighbour 0: found key -2; wanted a key or -1 for none"
    );
    assert_eq!(
        read("euclidean", &|file| replace(file, "neighbors", K, &[1.0f32; QUERIES * K])),
        "found neighbors that are no integers; wanted row numbers"
    );
    for (bad, wanted) in [(f32::NAN, "found distance NaN"), (-1.0, "found distance -1")] {
        let mut distances = distances.clone();
        distances[K + 2] = bad;
        let said = read("euclidean", &|file| replace(file, "distances", K, &distances));
        assert!(said.starts_with("query 1, neighbour 2: ") && said.contains(wanted), "{said}");
    }
    for name in ["train", "test", "neighbors", "distances"] {
        assert_eq!(
            read("angular", &|file| file.unlink(name).unwrap()),
            format!("found no dataset {name}; wanted one of that name")
        );
    }
    let made = Made::whole("angular", |_| {});
    let error = Truth::read(made.inside("neighbors")).unwrap_err().to_string();
    assert!(error.contains("found the name of a dataset, neighbors; wanted the file"), "{error}");
}

#[test]
fn what_is_no_hdf5_file_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.hdf5");
    let error = VectorFile::open(path.join("test")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoInput);
    for bytes in [&b""[..], b"\x89HDF", &[7; 4096]] {
        fs::write(&path, bytes).unwrap();
        let error = VectorFile::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData);
        let line = error.to_string();
        assert!(
            line.ends_with("a.hdf5: found no signature of HDF5; wanted an HDF5 file"),
            "{line}"
        );
    }
    fs::write(&path, b"\x89HDF\r\n\x1a\n").unwrap();
    let line = VectorFile::open(&path).unwrap_err().to_string();
    assert!(
        line.contains("found damage: ") && line.ends_with("wanted a whole HDF5 file"),
        "{line}"
    );
}

/// Everything that can be read of a file.
fn read_all(path: &Path) -> Result<(), FileError> {
    for path in [path.to_path_buf(), path.join("test")] {
        let file = VectorFile::open(path)?;
        file.metric()?;
        file.read(0..file.len())?;
    }
    Truth::read(path).map(|_| ())
}

#[test]
fn a_file_that_was_cut_is_refused() {
    let made = Made::whole("angular", |_| {});
    let whole = fs::read(&made.path).unwrap();
    read_all(&made.path).unwrap();
    for len in (0..whole.len()).step_by(61) {
        fs::write(&made.path, &whole[..len]).unwrap();
        let error = read_all(&made.path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn no_changed_byte_makes_reading_panic() {
    let mut seeded = Seeded::new(1);
    let made = Made::whole("angular", |file| {
        file.unlink("train").unwrap();
        put(file, "train", DIM, &train(), true);
    });
    let whole = fs::read(&made.path).unwrap();
    // The library itself never returns from a heap of texts whose lengths are wrong.
    let heap = whole.windows(4).position(|window| window == b"GCOL").unwrap();
    let heap = heap..heap + 4096;
    for _ in 0..1000 {
        let mut bytes = whole.clone();
        for _ in 0..=seeded.below(3) {
            let at = seeded.below(bytes.len() as u64) as usize;
            if !heap.contains(&at) {
                bytes[at] = seeded.below(256) as u8;
            }
        }
        fs::write(&made.path, bytes).unwrap();
        if let Err(error) = read_all(&made.path) {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
