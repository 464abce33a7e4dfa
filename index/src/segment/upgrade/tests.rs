//! Builds and upgrades whose disk refuses, or loses its power: an index is there whole, or not at
//! all.

use std::fs;
use std::path::{Path, PathBuf};

use foveal_datasets::seeded::Seeded;
use foveal_datasets::{Metric, Rows, Values};

use super::{UpgradeError, upgrade_on};
use crate::bulk_build::{BuildInput, build_on};
use crate::disk::publish::Publication;
use crate::disk::simulated::{Forgets, Left, Loss, SimulatedDisk};
use crate::disk::storage::Faulty;
use crate::disk::{Disk, Manifest, PublishError, Storage, format7};
use crate::params::BuildParams;
use crate::segment::{check, inspect};
use crate::stats::Job;

/// Crashes tried after each call; `FOVEAL_TEST_CRASHES` asks for more.
const CRASHES: u64 = 12;

fn crashes() -> u64 {
    let set = std::env::var("FOVEAL_TEST_CRASHES");
    set.map_or(CRASHES, |text| text.parse().expect("FOVEAL_TEST_CRASHES is a number"))
}

/// What was found after the crashes of one run.
#[derive(Debug, Default)]
struct Found {
    states: u64,
    /// Those with an index where it was to be.
    with_index: u64,
    /// Those whose index is not whole.
    broken: u64,
}

/// Crashes after each call of `disk`; `is_whole` judges the index at `index` below the root.
fn crash_everywhere(disk: &SimulatedDisk, is_whole: &dyn Fn(&Path) -> bool) -> Found {
    let mut found = Found::default();
    let mut random = Seeded::new(20);
    for calls in 0..=disk.calls() {
        let mut look_at = |left: &Left| {
            found.states += 1;
            let dir = tempfile::tempdir().unwrap();
            let index = dir.path().join("index");
            let has_index = left.dirs.contains(&PathBuf::from("index"));
            // Most states differ in what nobody will read; a new build clears it away.
            if has_index || random_place(found.states) {
                left.restore(dir.path());
            }
            if has_index {
                found.with_index += 1;
                found.broken += u64::from(!is_whole(&index));
            } else if random_place(found.states) {
                drop(Publication::begin(&Disk, &index).unwrap());
                assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
            }
        };
        look_at(&disk.crash(calls, Loss::Everything));
        look_at(&disk.crash(calls, Loss::Nothing));
        for _ in 2..crashes() {
            look_at(&disk.crash(calls, Loss::Some(&mut random)));
        }
    }
    found
}

/// One state in sixteen.
fn random_place(state: u64) -> bool {
    state.is_multiple_of(16)
}

fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Seeded::new(seed);
    (0..count).map(|_| random.gaussian()).collect()
}

/// A build of rows with payloads, or of an output layer; its crashes.
fn build_and_crash(metric: Metric, forgets: Forgets) -> Found {
    let dir = tempfile::tempdir().unwrap();
    let rows = Rows::new(12, Values::F32(numbers(12 * 300, 1))).unwrap();
    let learn = Rows::new(12, Values::F32(numbers(12 * 250, 2))).unwrap();
    let texts: Vec<String> = (0..300).map(|row| format!("{{\"row\": {row}}}")).collect();
    let input = match metric {
        Metric::InnerProduct => BuildInput { learn: Some(&learn), ..BuildInput::of(&rows) },
        _ => BuildInput { payload: Some(&texts), ..BuildInput::of(&rows) },
    };
    let params = BuildParams { bits: Some(4), threads: 1, ..BuildParams::new(metric) };
    let disk = SimulatedDisk::over(dir.path(), forgets);
    let report =
        build_on(&disk, &input, &dir.path().join("index"), &params, Job::default()).unwrap();
    let is_whole = |index: &Path| {
        let checked = check(index, true, Job::default());
        checked.is_ok_and(|report| report.damage.is_empty())
            && inspect(index).is_ok_and(|(manifest, _)| manifest == report.manifest)
    };
    let last = disk.crash(disk.calls(), Loss::Everything);
    let done = last.dirs.contains(&PathBuf::from("index"));
    assert!(done || forgets == Forgets::Directories, "a build that returned is on the device");
    crash_everywhere(&disk, &is_whole)
}

#[test]
fn a_build_leaves_an_index_or_none() {
    for metric in [Metric::L2, Metric::InnerProduct] {
        let found = build_and_crash(metric, Forgets::Nothing);
        assert!(found.states > 500 && found.with_index > 10, "{found:?}");
        assert_eq!(found.broken, 0, "{found:?}");
        println!("{metric}: {found:?}");
    }
}

/// The crashes would find a sync that is missing.
#[test]
fn a_build_that_forgets_to_sync_is_found() {
    for forgets in [Forgets::Files, Forgets::Directories] {
        let found = build_and_crash(Metric::L2, forgets);
        assert!(found.broken > 0, "{forgets:?}: {found:?}");
    }
}

#[test]
fn an_upgrade_leaves_the_old_index_or_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let (golden, index) = (golden(), dir.path().join("index"));
    copy(&golden, &index);
    let root = fs::canonicalize(dir.path()).unwrap();
    let disk = SimulatedDisk::over(&root, Forgets::Nothing);
    let upgraded = upgrade_on(&disk, &index, None, Job::default()).unwrap().unwrap();
    let old = format7::read_manifest(&golden).unwrap();
    let is_whole = |index: &Path| match format7::read_manifest(index) {
        Ok(manifest) => {
            let bytes = |name: &str| fs::read(index.join(name)).unwrap();
            manifest == old
                && old.files.iter().all(|file| {
                    let xxh3 = xxhash_rust::xxh3::xxh3_128(&bytes(&file.name));
                    format!("{xxh3:032x}") == file.xxh3
                })
        }
        Err(_) => {
            let damage = check(index, true, Job::default()).unwrap().damage;
            damage.is_empty() && inspect(index).unwrap().0 == upgraded.manifest
        }
    };
    let found = crash_everywhere(&disk, &is_whole);
    println!("upgrade: {found:?}");
    assert!(found.states > 500 && found.with_index == found.states, "{found:?}");
    assert_eq!(found.broken, 0, "{found:?}");
}

/// An index of the version before.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v7/rows")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for path in Disk.list(from).unwrap() {
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn what_an_upgrade_would_lose_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    copy(&golden(), &index);
    let upgraded = |out: Option<&Path>| upgrade_on(&Disk, &index, out, Job::default());
    let note = index.join("notes.txt");
    fs::write(&note, "mine").unwrap();
    let error = upgraded(None).unwrap_err();
    assert!(matches!(&error, UpgradeError::Stranger { path } if *path == note), "{error}");
    assert_eq!(fs::read_to_string(&note).unwrap(), "mine");
    // Another directory for the new index is no danger to it.
    let out = dir.path().join("out");
    assert!(upgraded(Some(&out)).unwrap().is_some());
    assert_eq!(Disk.list(&out).unwrap().len(), Disk.list(&index).unwrap().len() + 1);
    fs::remove_file(&note).unwrap();
    assert!(upgraded(None).unwrap().is_some());
    // There is nothing to do, and what a killed upgrade left goes.
    let left = dir.path().join(".index.building");
    copy(&golden(), &left);
    assert_eq!(upgraded(None).unwrap(), None);
    assert!(!left.exists());
    let error = upgraded(Some(&dir.path().join("other"))).unwrap_err();
    assert!(matches!(error, UpgradeError::Current { .. }), "{error}");
    assert_eq!(Disk.list(dir.path()).unwrap().len(), 2);
}

#[test]
fn an_index_that_came_meanwhile_stays() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    copy(&golden(), &index);
    let publication = Publication::begin_replacing(&Disk, &index).unwrap();
    fs::rename(&index, dir.path().join("old")).unwrap();
    fs::create_dir(&index).unwrap();
    fs::write(index.join("new"), "new").unwrap();
    let error = publication.commit().unwrap_err();
    assert!(matches!(error, PublishError::Replaced { .. }), "{error}");
    assert_eq!(fs::read_to_string(index.join("new")).unwrap(), "new");
    assert_eq!(Disk.list(dir.path()).unwrap().len(), 2);
}

/// Manifests whose checksums are right, and whose files are not those of an index.
#[test]
fn forged_manifests_are_damage() {
    for (from, to) in [
        ("\"codes.bin\"", "\"notes.txt\""),
        ("\"codes.bin\"", "\"../codes.bin\""),
        ("\"codes.bin.crc\"", "\"codes.bin\""),
        ("\"n\": 150", "\"n\": 0"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join("index");
        copy(&golden(), &index);
        format7::forge(&index, from, to);
        let error = upgrade_on(&Disk, &index, None, Job::default()).unwrap_err().to_string();
        assert!(error.contains("manifest.json: damaged at byte 0"), "{to}: {error}");
        assert_eq!(Disk.list(dir.path()).unwrap().len(), 1, "{to}");
    }
}

#[test]
fn any_failing_call_leaves_the_old_index() {
    for make in [Faulty::once, Faulty::full] {
        for call in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let old = dir.path().join("index");
            copy(&golden(), &old);
            let storage = make(call);
            let done = upgrade_on(&storage, &old, None, Job::default());
            let ended = storage.calls() <= call;
            if done.is_err() {
                format7::read_manifest(&old).unwrap();
                let names = fs::read_dir(dir.path()).unwrap().count();
                // A disk that does not even sync what was taken back may show either directory
                // after a loss of power: both stay, until an upgrade works.
                let may_stay = names == 2 && storage.is_full();
                assert!(names == 1 || may_stay, "call {call}: {names} names");
                if may_stay {
                    upgrade_on(&Disk, &old, None, Job::default()).unwrap().unwrap();
                    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "call {call}");
                }
                continue;
            }
            // The last call removes the old index, whose place the new one has by then.
            Manifest::read(&old).unwrap();
            if ended {
                assert!(call > 20, "only {call} calls");
                break;
            }
        }
    }
}
