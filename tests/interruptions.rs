//! Builds that do not reach their end: the index is all there or not there.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::program::{Place, ran};
use crate::vectors::{fbin, noise};

/// A place with `base.fbin`, 20,000 rows of 32 numbers.
fn place() -> Place {
    let place = Place::new();
    place.write("base.fbin", fbin(32, &noise(32 * 20_000, 1)));
    place
}

/// Takes a minute or more.
const SLOW: &str = "build --base base.fbin --metric l2 --out index --threads 1 --max-degree 64 \
                    --list-size 1500";

/// Takes no time.
const QUICK: &str = "build --base base.fbin --metric l2 --out index --max-degree 8 --list-size 8";

#[test]
fn an_interrupted_build_leaves_nothing() {
    let place = place();
    for (signal, wait) in [(Signal::INT, 0), (Signal::TERM, 150), (Signal::INT, 1_000)] {
        let mut build = place.start(SLOW);
        build.until(|| place.path(".index.building").exists());
        std::thread::sleep(Duration::from_millis(wait));
        let requested = Instant::now();
        build.signal(signal);
        build.end().is_refusal(130, &["interrupted"]);
        assert!(
            requested.elapsed() < Duration::from_secs(5),
            "{:?} to clean up",
            requested.elapsed()
        );
        assert_eq!(place.names(), ["base.fbin"], "{signal:?} after {wait} ms");
    }
}

#[test]
fn an_interrupted_truth_leaves_nothing() {
    let place = place();
    let truth = "truth --base base.fbin --queries base.fbin --metric l2 --k 10 --threads 1 \
                 --out truth.ibin";
    let mut running = place.start(truth);
    std::thread::sleep(Duration::from_millis(500));
    running.signal(Signal::INT);
    running.end().is_refusal(130, &["interrupted"]);
    assert_eq!(place.names(), ["base.fbin"]);
}

#[test]
fn a_killed_build_is_in_nobodys_way() {
    let place = place();
    let mut build = place.start(SLOW);
    build.until(|| place.path(".index.building").exists());
    std::thread::sleep(Duration::from_millis(200));
    build.signal(Signal::KILL);
    assert_eq!(build.end().code, 128 + 9);
    assert_eq!(place.names(), [".index.building", "base.fbin"]);
    place.write(".index.building/codes.bin", "half of them");
    place.ok(QUICK);
    assert_eq!(place.names(), ["base.fbin", "index"]);
    assert_eq!(place.json("check index --deep")["ok"], true);
}

#[test]
fn a_second_build_meets_the_lock() {
    let place = place();
    let mut first = place.start(SLOW);
    first.until(|| place.path(".index.building").exists());
    // Made, and a moment later locked.
    std::thread::sleep(Duration::from_millis(100));
    place.refused(QUICK, 73, &["another build into index is running"]);
    // Into another name there is no lock.
    place.ok(&QUICK.replace("--out index", "--out other"));
    first.signal(Signal::INT);
    assert_eq!(first.end().code, 130);
    place.ok(QUICK);
    assert_eq!(place.names(), ["base.fbin", "index", "other"]);
}

#[test]
fn a_full_disk_is_said_and_left_clean() {
    let place = place();
    std::fs::create_dir(place.path("full")).unwrap();
    // In a mount namespace of its own: nothing stays mounted, whatever happens.
    let script = "mount -t tmpfs -o size=2m none full && touch mounted && \"$@\"; code=$?; \
                  ls -A full > left; exit $code";
    for line in [
        "build --base base.fbin --metric l2 --out full/index --max-degree 8 --list-size 8",
        "convert --in base.fbin --out full/out.npy",
    ] {
        let foveal = place.command(line);
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
        command.arg(foveal.get_program()).args(foveal.get_args()).current_dir(place.path(""));
        let output = command.output();
        if !place.path("mounted").exists() {
            eprintln!("skipped: no tmpfs may be mounted here: {output:?}");
            return;
        }
        let ran = ran(line, output.unwrap());
        ran.is_refusal(74, &["full/", "No space left on device"]);
        assert_eq!(std::fs::read_to_string(place.path("left")).unwrap(), "", "foveal {line}");
        std::fs::remove_file(place.path("mounted")).unwrap();
    }
}
