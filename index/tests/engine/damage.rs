//! A damaged index is found damaged: by opening it, by the read that meets the damage, or by a
//! check. It never gives an answer that the sound index would not have given, and never a panic.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use foveal_datasets::{Element, Metric, Rows};
use foveal_index::stats::Job;
use foveal_index::{
    CheckReport, Io, Keys, Neighbor, OpenError, OpenOptions, SearchError, SearchParams, Segment,
    check, inspect,
};

use crate::built::{Built, params, rows_and_queries};

/// So few rows that a search for 50 reads all of them.
fn sound(element: Element, bits: u8) -> (Built, Rows) {
    let (rows, queries) = rows_and_queries(element, 40, 4, 6);
    let texts: String = (0..40).map(|row| format!("{{\"row\":{row}}}\n")).collect();
    let built = Built::with(&rows, &params(Metric::L2, bits), Keys::From(5), Some(&texts));
    (built, queries)
}

/// All neighbors of all queries and all payloads, or what stood in the way.
fn search_all(path: &Path, io: Io, queries: &Rows) -> Result<Vec<Vec<Neighbor>>, SearchError> {
    let options = OpenOptions { io, ..OpenOptions::default() };
    let index = Segment::open_with(path, &options)?;
    let mut searcher = index.searcher();
    let mut all = Vec::new();
    for query in queries.iter() {
        all.push(searcher.search(query, &SearchParams::new(50))?.neighbors);
    }
    for key in 5..45 {
        let text = index.payload(key)?;
        assert_eq!(text, Some(format!("{{\"row\":{}}}", key - 5)), "a payload is right or none");
    }
    Ok(all)
}

fn deep_check(path: &Path) -> Result<CheckReport, OpenError> {
    check(path, true, Job::default())
}

/// Flips a bit of every `step`-th byte of every file, one at a time.
fn each_flip(built: &Built, step: usize, mut look: impl FnMut(&str, usize)) {
    for entry in fs::read_dir(&built.path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let good = fs::read(&path).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let last = good.len() - 1;
        for at in (0..good.len()).step_by(step).chain([last]) {
            file.write_all_at(&[good[at] ^ (1 << (at % 8))], at as u64).unwrap();
            look(name, at);
            file.write_all_at(&good[at..=at], at as u64).unwrap();
        }
    }
}

#[test]
fn any_flipped_byte_is_found_and_never_a_wrong_answer() {
    for (element, bits, step) in
        [(Element::F32, 4, 29), (Element::F32, 6, 23), (Element::U8, 8, 37), (Element::F32, 2, 31)]
    {
        let (built, queries) = sound(element, bits);
        let wanted = search_all(&built.path, Io::Mapped, &queries).unwrap();
        each_flip(&built, step, |name, at| {
            match deep_check(&built.path) {
                Ok(report) => assert!(
                    report.damage.iter().any(|line| line.contains(name)),
                    "{name} at {at}: {:?}",
                    report.damage
                ),
                Err(error) => assert!(error.to_string().contains(name), "{name} at {at}: {error}"),
            }
            match search_all(&built.path, Io::Mapped, &queries) {
                Ok(found) => {
                    assert_eq!(found, wanted, "{name} at {at}");
                    // Neither is needed for an answer.
                    let unread = ["measured.json", "vectors.bin", "vectors.bin.crc"];
                    let exact = bits == 8;
                    assert!(
                        name == "measured.json"
                            || (exact && unread.contains(&name))
                            || name == "vectors.bin",
                        "{name} at {at} was not noticed"
                    );
                }
                Err(error) => assert!(error.to_string().contains(name), "{name} at {at}: {error}"),
            }
        });
        assert_eq!(deep_check(&built.path).unwrap().damage, [""; 0]);
    }
}

#[test]
fn damage_to_full_vectors_is_found_by_every_medium() {
    let (built, queries) = sound(Element::F32, 4);
    let wanted = search_all(&built.path, Io::Mapped, &queries).unwrap();
    let path = built.path.join("vectors.bin");
    let good = fs::read(&path).unwrap();
    for io in [Io::Memory, Io::Mapped, Io::Pread, Io::Uring] {
        for at in (0..good.len()).step_by(211).chain([4096, good.len() - 1]) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&path, &bad).unwrap();
            let error = search_all(&built.path, io, &queries).unwrap_err().to_string();
            assert!(error.contains("vectors.bin: damaged at byte"), "{io} at {at}: {error}");
        }
        fs::write(&path, &good).unwrap();
        assert_eq!(search_all(&built.path, io, &queries).unwrap(), wanted);
    }
}

#[test]
fn damage_that_comes_after_opening_is_found_by_the_read() {
    for io in [Io::Mapped, Io::Pread, Io::Uring] {
        let (built, queries) = sound(Element::F32, 4);
        let options = OpenOptions { io, ..OpenOptions::default() };
        let index = Segment::open_with(&built.path, &options).unwrap();
        let path = built.path.join("vectors.bin");
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0x55; 16], 4096 + 64).unwrap();
        let error = index.searcher().search(queries.row(0), &SearchParams::new(50)).unwrap_err();
        assert!(matches!(error, SearchError::Read(OpenError::Damaged { .. })), "{io}: {error}");
    }
}

/// Rows are read ahead of the end of a walk as well.
#[test]
fn damage_that_comes_after_opening_is_found_by_a_walk() {
    let (rows, queries) = rows_and_queries(Element::F32, 600, 20, 30);
    for io in [Io::Mapped, Io::Pread, Io::Uring] {
        let built = Built::new(&rows, &params(Metric::L2, 4));
        let options = OpenOptions { io, ..OpenOptions::default() };
        let open = || Segment::open_with(&built.path, &options).unwrap();
        let (plain, index) = (SearchParams::with_list_size(10, 64), open());
        let path = built.path.join("vectors.bin");
        let (first, last) = (4096, fs::metadata(&path).unwrap().len());
        for query in queries.iter() {
            let stats = open().searcher().search(query, &plain).unwrap().stats;
            assert!(stats.hops > 0 && stats.reads > 0, "{io}: {stats:?}");
        }
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        for at in (first..last).step_by(4096) {
            file.write_all_at(&[0x55; 16], at + 64).unwrap();
        }
        let mut searcher = index.searcher();
        for query in queries.iter() {
            let error = searcher.search(query, &plain).unwrap_err();
            assert!(matches!(error, SearchError::Read(OpenError::Damaged { .. })), "{io}: {error}");
        }
    }
}

#[test]
fn cut_longer_missing_and_strange_files_are_found() {
    let (built, queries) = sound(Element::F32, 5);
    for entry in fs::read_dir(&built.path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let good = fs::read(&path).unwrap();
        let lengths = [0, 1, 63, 64, good.len() - 1, good.len() + 1, good.len() + 4096];
        for length in lengths.into_iter().filter(|length| *length != good.len()) {
            let mut bad = good.clone();
            bad.resize(length, 0);
            fs::write(&path, bad).unwrap();
            let damage = deep_check(&built.path).unwrap().damage;
            assert!(damage.iter().any(|line| line.contains(&name)), "{name} {length}: {damage:?}");
            assert!(
                name == "measured.json" || search_all(&built.path, Io::Mapped, &queries).is_err()
            );
        }
        fs::remove_file(&path).unwrap();
        if name == "manifest.json" {
            assert!(matches!(deep_check(&built.path), Err(OpenError::NotAnIndex { .. })));
            assert!(matches!(inspect(&built.path), Err(OpenError::NotAnIndex { .. })));
        } else if name != "measured.json" {
            assert!(!deep_check(&built.path).unwrap().damage.is_empty(), "{name}");
        }
        fs::write(&path, good).unwrap();
    }
    fs::write(built.path.join("stranger"), "").unwrap();
    let damage = deep_check(&built.path).unwrap().damage;
    assert!(damage.len() == 1 && damage[0].contains("stranger"), "{damage:?}");
    fs::remove_file(built.path.join("stranger")).unwrap();
    assert_eq!(deep_check(&built.path).unwrap().damage, [""; 0]);
    assert!(matches!(deep_check(&built.path.join("gone")), Err(OpenError::NotFound { .. })));
}

/// Two sound indexes of one shape: a file of the other one is not the file that was written.
#[test]
fn files_of_another_index_are_found() {
    let (built, queries) = sound(Element::F32, 4);
    let rows = rows_and_queries(Element::F32, 41, 0, 6).0;
    let rows = crate::built::part(&rows, 1..41);
    let keys: Vec<u64> = (5..45).rev().collect();
    let texts: String = (0..40).map(|row| format!("{{\"row\":{}}}\n", 39 - row)).collect();
    let other = Built::with(&rows, &params(Metric::L2, 4), Keys::List(&keys), Some(&texts));
    for file in &built.report.manifest.files {
        let (ours, theirs) = (built.path.join(&file.name), other.path.join(&file.name));
        let (good, bad) = (fs::read(&ours).unwrap(), fs::read(theirs).unwrap());
        if good == bad {
            continue;
        }
        fs::write(&ours, bad).unwrap();
        let damage = deep_check(&built.path).unwrap().damage;
        assert!(!damage.is_empty(), "{}", file.name);
        assert!(search_all(&built.path, Io::Mapped, &queries).is_err(), "{}", file.name);
        fs::write(&ours, good).unwrap();
    }
}

#[test]
fn a_check_tells_its_progress_and_can_be_interrupted() {
    let (built, _) = sound(Element::F32, 4);
    let told = std::sync::atomic::AtomicU64::new(0);
    let tell = |progress: foveal_index::Progress| {
        assert!(progress.stage.starts_with("checking") && progress.done <= progress.total);
        told.fetch_max(progress.done, std::sync::atomic::Ordering::Relaxed);
    };
    let job = Job { progress: Some(&tell), interrupt: None };
    let report = check(&built.path, true, job).unwrap();
    assert_eq!((report.n, report.reachable), (40, Some(40)));
    assert_eq!(told.into_inner(), built.report.disk_bytes);
    let interrupt = std::sync::atomic::AtomicBool::new(true);
    let job = Job { progress: None, interrupt: Some(&interrupt) };
    assert!(matches!(check(&built.path, true, job), Err(OpenError::Interrupted)));
}
