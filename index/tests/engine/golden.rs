//! Indexes that earlier builds of this program wrote, one directory a format version. Each is
//! opened, or rewritten, for as long as the version is supported; none is ever written again.

use std::fs;
use std::path::{Path, PathBuf};

use foveal_datasets::{ErrorKind, KeyedRows, Metric, Row, Rows};
use foveal_index::stats::Job;
use foveal_index::{
    DecodeRequest, ExactRequest, OpenError, SearchParams, Segment, check, exact, inspect, upgrade,
};

use crate::built::{answers, recall_of};

/// Name, digest in format version 8.
const GOLDEN: [(&str, &str); 2] =
    [("rows", "10045c60dc3d15b34a2bc1905594f8cc"), ("head", "7bea38a7b74b66da8bca092b5508f684")];

fn golden(version: u32, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}/{name}"))
}

/// A copy that may be changed.
fn copied(version: u32, name: &str, to: &Path) -> PathBuf {
    let copy = to.join(name);
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(golden(version, name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

/// Names and bytes of all files but `measured.json`.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            (name, fs::read(path).unwrap())
        })
        .filter(|(name, _)| name != "measured.json")
        .collect();
    files.sort();
    files
}

fn keys(index: &Segment) -> Vec<u64> {
    index.keys().collect()
}

fn all_rows(index: &Segment) -> Rows {
    index.rows(&keys(index)).unwrap()
}

#[test]
fn this_version_opens_and_answers() {
    for (name, digest) in GOLDEN {
        let path = golden(8, name);
        assert_eq!(inspect(&path).unwrap().0.digest, digest, "{name}");
        let report = check(&path, true, Job::default()).unwrap();
        assert_eq!((report.damage, report.reachable), (vec![], Some(150)), "{name}");
        let index = Segment::open(&path).unwrap();
        let (rows, metric) = (all_rows(&index), index.manifest().metric);
        let request = ExactRequest { metric, k: 10, threads: 1 };
        let mut exact = exact::search(&rows, &rows, &request, Job::default()).unwrap();
        let keys = keys(&index);
        exact.iter_mut().flatten().for_each(|neighbor| neighbor.key = keys[neighbor.key as usize]);
        let found = answers(&index, &rows, &SearchParams::new(10));
        let recall = recall_of(&found, &exact, 10, metric);
        assert!(recall > 0.99, "{name}: {recall}");
    }
}

#[test]
fn keys_lead_to_payloads_and_vectors() {
    let index = Segment::open(golden(8, "rows")).unwrap();
    let key = 10_000_000_588;
    assert_eq!(index.payload(key).unwrap().unwrap().trim(), r#"{"n": 5}"#);
    let row = index.rows(&[key]).unwrap();
    let Row::F32(numbers) = row.row(0) else { panic!("rows by key are f32") };
    assert_eq!(numbers[..3], [0.2031386, -0.4633076, 0.12726842]);
}

#[test]
fn tokens_decode() {
    let index = Segment::open(golden(8, "head")).unwrap();
    assert_eq!(index.manifest().metric, Metric::InnerProduct);
    let hidden: Vec<f32> = (0..12).map(|i| (i as f32 - 6.0) / 4.0).collect();
    let decoded = index.decoder().unwrap().decode(&hidden[..], &DecodeRequest::new(5));
    let tokens = decoded.unwrap().tokens;
    let rows = all_rows(&index);
    let logit = |i: usize| -Metric::InnerProduct.plain_distance(rows.row(i), Row::F32(&hidden));
    let best = (0..150).max_by(|a, b| logit(*a).total_cmp(&logit(*b))).unwrap();
    assert_eq!(tokens[0].key, keys(&index)[best]);
}

#[test]
fn the_version_before_is_refused_and_rewritten() {
    for (name, digest) in GOLDEN {
        let dir = tempfile::tempdir().unwrap();
        let old = copied(7, name, dir.path());
        let error = Segment::open(&old).err().expect("another version");
        let wanted = "manifest.json: format version 7; wanted 8; `foveal upgrade` rewrites it";
        assert!(error.to_string().ends_with(wanted), "{error}");
        // Aside, and the old one stays as it is.
        let aside = dir.path().join("aside");
        let upgraded = upgrade(&old, Some(&aside), Job::default()).unwrap().unwrap();
        assert_eq!((upgraded.from, &*upgraded.manifest.digest), (7, digest));
        assert_eq!(files(&aside), files(&golden(8, name)));
        let measured = |dir: &Path| fs::read(dir.join("measured.json")).unwrap();
        assert_eq!(measured(&aside), measured(&old));
        assert_eq!(files(&old), files(&golden(7, name)));
        // In place, by way of a link.
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&old, &link).unwrap();
        assert!(upgrade(&link, None, Job::default()).unwrap().is_some());
        assert_eq!(files(&old), files(&golden(8, name)));
        assert_eq!(upgrade(&link, None, Job::default()).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "nothing else");
    }
}

#[test]
fn damage_is_not_carried_over() {
    for (name, _) in GOLDEN {
        for (file, _) in files(&golden(7, name)) {
            let dir = tempfile::tempdir().unwrap();
            let old = copied(7, name, dir.path());
            let path = old.join(&file);
            let mut bytes = fs::read(&path).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let error = upgrade(&old, None, Job::default()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadData, "{file}: {error}");
            assert!(error.to_string().contains(&file), "{file}: {error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "{file}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{file}");
        }
    }
}

#[test]
fn versions_nobody_can_rewrite_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let old = copied(7, "rows", dir.path());
    let manifest = old.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"format_version\": 7", "\"format_version\": 6")).unwrap();
    let error = upgrade(&old, None, Job::default()).unwrap_err().to_string();
    assert!(error.ends_with("manifest.json: format version 6; wanted 8"), "{error}");
    let error = Segment::open(&old).err().expect("another version");
    assert!(matches!(error, OpenError::Version { found: 6, wanted: 8, .. }), "{error}");
}
