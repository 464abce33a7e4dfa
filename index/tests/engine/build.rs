//! What a build refuses, and what it leaves behind when it does: nothing.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use foveal_datasets::{Element, ErrorKind, Metric, RowSource, Rows, Values, VectorFile};
use foveal_index::stats::{Job, Progress};
use foveal_index::{
    BuildError, BuildInput, BuildParams, JsonLines, Keys, PayloadSource, build, inspect,
};

use crate::built::{Built, floats, half, names, params, rows_and_queries, write_rows};

/// Builds `base` in a directory that must hold nothing new afterwards; the error.
fn refused(base: &VectorFile, keys: Keys<'_>, params: &BuildParams) -> BuildError {
    let dir = tempfile::tempdir().unwrap();
    let input = BuildInput { keys, ..BuildInput::of(base) };
    let error = build(&input, &dir.path().join("index"), params, Job::default()).unwrap_err();
    assert_eq!(names(dir.path()), [""; 0], "{error}");
    error
}

fn rows() -> Rows {
    rows_and_queries(Element::F32, 300, 0, 8).0
}

#[test]
fn parameters_out_of_range_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows());
    let plain = params(Metric::L2, 4);
    for (params, wanted) in [
        (BuildParams { bits: Some(3), ..plain.clone() }, "bits is 3; wanted 2, 4, 5, 6, 8 or 32"),
        (BuildParams { bits: Some(7), ..plain.clone() }, "bits is 7; wanted 2, 4, 5, 6, 8 or 32"),
        (BuildParams { max_degree: 3, ..plain.clone() }, "max_degree is 3; wanted 4 to 256"),
        (BuildParams { max_degree: 257, ..plain.clone() }, "max_degree is 257; wanted 4 to 256"),
        (BuildParams { list_size: 31, ..plain.clone() }, "list_size is 31; wanted 32 to 4096"),
        (BuildParams { list_size: 4097, ..plain.clone() }, "list_size is 4097; wanted 32 to 4096"),
        (BuildParams { alpha: 0.99, ..plain.clone() }, "alpha is 0.99; wanted 1 to 4"),
        (BuildParams { alpha: f32::NAN, ..plain.clone() }, "alpha is NaN; wanted 1 to 4"),
        (BuildParams { threads: 1025, ..plain.clone() }, "threads is 1025; wanted 0 to 1024"),
    ] {
        let error = refused(&base, Keys::From(0), &params);
        assert_eq!((error.to_string().as_str(), error.kind()), (wanted, ErrorKind::Usage));
    }
}

#[test]
fn keys_that_do_not_name_the_rows_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows());
    let params = params(Metric::L2, 4);
    let told = |keys: Keys<'_>| {
        let error = refused(&base, keys, &params);
        assert_eq!(error.kind(), ErrorKind::BadData);
        error.to_string()
    };
    let wanted = "keys: 300 rows from 18446744073709551317 on pass the largest key, \
        18446744073709551615";
    assert_eq!(told(Keys::From(u64::MAX - 298)), wanted);
    assert_eq!(told(Keys::List(&[1, 2])), "keys: 2 keys; wanted 300, one a row");
    let mut keys: Vec<u64> = (0..300).collect();
    keys[299] = 17;
    assert_eq!(told(Keys::List(&keys)), "keys: 17 stands for two rows; wanted one");
    keys[299] = u64::MAX;
    keys[0] = u64::MAX;
    assert!(told(Keys::List(&keys)).contains("18446744073709551615 stands for two rows"));
}

#[test]
fn a_memory_limit_is_kept_or_refused_with_figures() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows());
    let limited = |memory| BuildParams { memory: Some(memory), ..params(Metric::L2, 4) };
    let error = refused(&base, Keys::From(0), &limited(1 << 20));
    assert_eq!(error.kind(), ErrorKind::Usage);
    let BuildError::MemoryLimit { needed, allowed } = error else { panic!("{error}") };
    assert_eq!(allowed, 1 << 20);
    let text = BuildError::MemoryLimit { needed, allowed }.to_string();
    assert!(text.contains(&needed.to_string()) && text.contains("1048576"), "{text}");
    // What it says it needs is enough; a byte less is not.
    let error = refused(&base, Keys::From(0), &limited(needed - 1));
    assert!(matches!(error, BuildError::MemoryLimit { .. }));
    let built = Built::new(&rows(), &limited(needed));
    assert_eq!(built.report.measured.predicted_peak_bytes, needed);
}

#[test]
fn rows_that_are_no_vectors_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut numbers = vec![1.0f32; 300 * 8];
    numbers[217 * 8..][..8].fill(0.0);
    let zero = write_rows(dir.path(), "zero", &floats(8, numbers.clone()));
    let error = refused(&zero, Keys::From(0), &params(Metric::Cosine, 4));
    let wanted = format!("{}: row 217 is all zeros, which has no cosine", zero.path().display());
    assert_eq!((error.to_string(), error.kind()), (wanted, ErrorKind::BadData));
    let zeros = Rows::new(2, Values::U8(vec![1, 0, 0, 0, 3, 4])).unwrap();
    let zeros = write_rows(dir.path(), "zeros", &zeros);
    assert!(
        refused(&zeros, Keys::From(0), &params(Metric::Cosine, 8)).to_string().contains("row 1")
    );

    // No writer writes these: the bytes are put into the file.
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let base = write_rows(dir.path(), text, &floats(8, vec![1.0; 300 * 8]));
        let mut bytes = fs::read(base.path()).unwrap();
        let at = bytes.len() - (300 * 8 - (123 * 8 + 5)) * 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        fs::write(base.path(), bytes).unwrap();
        let error = refused(&base, Keys::From(0), &params(Metric::L2, 4));
        assert_eq!(error.kind(), ErrorKind::BadData);
        let said = error.to_string();
        assert!(said.contains("row 123") && said.contains(text), "{said}");
    }
    for (metric, length) in [(Metric::L2, 1e19), (Metric::InnerProduct, -1e19)] {
        let mut numbers = vec![1.0f32; 300 * 8];
        numbers[42 * 8] = length;
        let name = format!("long-{metric}");
        let base = write_rows(dir.path(), &name, &floats(8, numbers));
        let error = refused(&base, Keys::From(0), &params(metric, 4)).to_string();
        assert!(error.contains("row 42 is too long"), "{error}");
    }
    let halves = Rows::new(1, Values::F16(vec![half(0.0), half(1.0)])).unwrap();
    let base = write_rows(dir.path(), "halves", &halves);
    assert!(
        refused(&base, Keys::From(0), &params(Metric::Cosine, 4)).to_string().contains("row 0")
    );
}

#[test]
fn an_output_that_exists_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows());
    let out = dir.path().join("index");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "precious").unwrap();
    let before = names(dir.path());
    let input = BuildInput::of(&base);
    let error = build(&input, &out, &params(Metric::L2, 4), Job::default()).unwrap_err();
    let wanted = format!("{}: exists already; wanted a new directory", out.display());
    assert_eq!((error.to_string(), error.kind()), (wanted, ErrorKind::CannotCreate));
    assert_eq!((names(dir.path()), names(&out)), (before, vec!["mine".into()]));
    let nowhere = dir.path().join("gone/index");
    let error = build(&input, &nowhere, &params(Metric::L2, 4), Job::default()).unwrap_err();
    assert!(error.to_string().contains("gone: no such directory"), "{error}");
}

#[test]
fn payloads_that_do_not_fit_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &floats(1, vec![1.0, 2.0]));
    let texts = dir.path().join("texts.jsonl");
    for (text, wanted) in [
        ("{}\n", "1 lines; wanted 2, one a row"),
        ("{}\n{}\n{}\n", "3 lines; wanted 2, one a row"),
        ("{}\n7\n", "line 2: starts with \"7\"; wanted a JSON object"),
    ] {
        fs::write(&texts, text).unwrap();
        let before = names(dir.path());
        let payload = JsonLines::open(&texts).unwrap();
        let input = BuildInput { payload: Some(&payload), ..BuildInput::of(&base) };
        let out = dir.path().join("index");
        let error = build(&input, &out, &params(Metric::L2, 4), Job::default()).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!((names(dir.path()), error.kind()), (before, ErrorKind::BadData));
    }
}

/// Builds with a job that is interrupted at the first report of `stage`.
fn interrupted(base: &VectorFile, dir: &Path, stage: &str) -> Option<BuildError> {
    let interrupt = AtomicBool::new(stage == "at once");
    let tell = |progress: Progress| {
        if progress.stage == stage {
            interrupt.store(true, Ordering::Relaxed);
        }
    };
    let job = Job { progress: Some(&tell), interrupt: Some(&interrupt) };
    let input = BuildInput::of(base);
    build(&input, &dir.join("index"), &params(Metric::L2, 4), job).err()
}

#[test]
fn an_interrupt_at_any_stage_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows_and_queries(Element::F32, 1500, 0, 8).0);
    let stages = Mutex::new(Vec::new());
    let tell = |progress: Progress| {
        assert!(progress.done <= progress.total, "{progress:?}");
        let mut stages = stages.lock().unwrap();
        if stages.last() != Some(&progress.stage) {
            stages.push(progress.stage);
        }
    };
    let job = Job { progress: Some(&tell), interrupt: None };
    let input = BuildInput::of(&base);
    let elsewhere = tempfile::tempdir().unwrap();
    build(&input, &elsewhere.path().join("index"), &params(Metric::L2, 4), job).unwrap();
    let mut stages = stages.into_inner().unwrap();
    assert!(stages.len() >= 5, "{stages:?}");
    stages.push("at once");
    for stage in stages {
        let out = tempfile::tempdir().unwrap();
        let error = interrupted(&base, out.path(), stage);
        let error = error.unwrap_or_else(|| panic!("{stage}: not interrupted"));
        assert!(matches!(error, BuildError::Interrupted), "{stage}: {error}");
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert_eq!(names(out.path()), [""; 0], "{stage}");
    }
}

#[test]
fn an_index_tells_how_it_was_built() {
    let wanted = BuildParams {
        bits: Some(8),
        max_degree: 12,
        list_size: 40,
        alpha: 1.15,
        seed: 99,
        ..params(Metric::Cosine, 8)
    };
    let built = Built::new(&rows(), &wanted);
    let (manifest, measured) = inspect(&built.path).unwrap();
    assert_eq!(manifest, built.report.manifest);
    assert_eq!(manifest, *built.open().manifest());
    assert_eq!(measured, Some(built.report.measured));
    assert_eq!((manifest.n, manifest.dim, manifest.metric), (300, 8, Metric::Cosine));
    assert_eq!((manifest.element, manifest.bits, manifest.payload), (Element::F32, 8, false));
    assert_eq!((manifest.max_degree, manifest.list_size, manifest.seed), (12, 40, 99));
    assert_eq!(manifest.alpha, 1.15);
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    assert_eq!(built.report.disk_bytes, bytes);
    for file in &manifest.files {
        assert_eq!(fs::metadata(built.path.join(&file.name)).unwrap().len(), file.bytes);
    }
    assert_eq!(names(&built.path).len(), manifest.files.len() + 2, "manifest and measured");
}

/// Builds with a job that calls `meddle` once, at the first report of `stage`; the error. Nothing
/// new may be in `dir` afterwards.
fn meddled(
    input: &BuildInput<'_>,
    dir: &Path,
    stage: &str,
    meddle: impl Fn() + Sync,
) -> BuildError {
    let before = names(dir);
    let met = AtomicBool::new(false);
    let tell = |progress: Progress| {
        if progress.stage == stage && !met.swap(true, Ordering::Relaxed) {
            meddle();
        }
    };
    let job = Job { progress: Some(&tell), interrupt: None };
    let error = build(input, &dir.join("index"), &params(Metric::L2, 4), job).unwrap_err();
    assert!(met.into_inner(), "{stage} was not met");
    assert_eq!(names(dir), before, "{error}");
    error
}

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn inputs_that_change_meanwhile_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows());
    let learn = write_rows(dir.path(), "learn", &rows());
    let texts = dir.path().join("texts.jsonl");
    fs::write(&texts, "{\"number\": 12345}\n".repeat(300)).unwrap();
    let payload = JsonLines::open(&texts).unwrap();
    let payload: &dyn PayloadSource = &payload;
    let input = BuildInput { payload: Some(payload), learn: Some(&learn), ..BuildInput::of(&base) };
    for (stage, path, wanted) in [
        ("encoding", base.path(), "changed while the index was built from it"),
        ("encoding", learn.path(), "changed while the index was built from it"),
        ("writing rows", &texts, "changed while it was read"),
    ] {
        let error = meddled(&input, dir.path(), stage, || flip(path));
        let said = format!("{}: {wanted}", path.display());
        assert_eq!((error.to_string(), error.kind()), (said, ErrorKind::BadData), "{stage}");
        flip(path);
    }
}

#[test]
fn what_cannot_be_opened_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows());
    let input = BuildInput::of(&base);
    let staged = dir.path().join(".index.building");
    for name in ["codes.bin", "graph.bin", "keys.bin", "meta.rkyv", "vectors.bin.crc"] {
        let error = meddled(&input, dir.path(), "opening", || flip(&staged.join(name)));
        assert!(matches!(error, BuildError::Sealed(_)), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn samples_of_another_dimension_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let base = write_rows(dir.path(), "base", &rows());
    let learn = write_rows(dir.path(), "learn", &floats(3, vec![1.0; 30]));
    let before = names(dir.path());
    for bits in [2, 4, 6, 8] {
        let input = BuildInput { learn: Some(&learn), ..BuildInput::of(&base) };
        let tell = |progress: Progress| panic!("{progress:?}");
        let job = Job { progress: Some(&tell), interrupt: None };
        let out = dir.path().join("index");
        let error = build(&input, &out, &params(Metric::L2, bits), job).unwrap_err();
        let wanted = "holds rows of dimension 3; wanted 8, that of the base";
        let said = format!("{}: {wanted}", learn.path().display());
        assert_eq!((error.to_string(), error.kind()), (said, ErrorKind::BadData));
        assert_eq!(names(dir.path()), before);
    }
}

#[test]
fn rows_in_memory_give_the_index_of_the_file_that_holds_them() {
    let (dir, rows) = (tempfile::tempdir().unwrap(), rows());
    let file = write_rows(dir.path(), "rows", &rows);
    let digest = |base: &dyn RowSource, name: &str| {
        let (out, params) = (dir.path().join(name), params(Metric::L2, 4));
        build(&BuildInput::of(base), &out, &params, Job::default()).unwrap().manifest.digest
    };
    assert_eq!(digest(&rows, "of-memory"), digest(&file, "of-file"));
    let no_rows = floats(8, Vec::new());
    let out = dir.path().join("of-nothing");
    let input = BuildInput::of(&no_rows);
    let refused = build(&input, &out, &params(Metric::L2, 4), Job::default()).unwrap_err();
    assert!(refused.to_string().contains("rows in memory: holds no rows"), "{refused}");
    assert!(!out.exists());
}
