//! The command line over generated data: types, keys, shapes and formats.

use std::fs;

use crate::program::Place;
use crate::sample::place_beside_it;
use crate::vectors::{self, bin, bytes, fbin, ibin, noise, npy};

#[test]
fn threads_and_memory_do_not_change_an_index() {
    let place = Place::new();
    place.write("base.fbin", fbin(16, &noise(16 * 1_500, 3)));
    let mut digests = Vec::new();
    for (i, flags) in ["--threads 1", "--threads 3", "--memory 200MiB"].iter().enumerate() {
        let line = format!("build --base base.fbin --metric ip --out {i} --seed 9 {flags}");
        digests.push(place.json(&line)["digest"].clone());
    }
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{digests:?}");
    let other = place.json("build --base base.fbin --metric ip --out other --seed 10");
    assert_ne!(other["digest"], digests[0]);
    assert_eq!(place.names(), ["0", "1", "2", "base.fbin", "other"]);
}

#[test]
fn every_metric_type_and_width_finds_the_nearest() {
    for (metric, extension, bits) in
        [("l2", "fbin", 4), ("ip", "f16bin", 8), ("cosine", "fvecs", 4), ("l2", "u8bin", 8)]
    {
        let place = Place::new();
        let numbers: Vec<f32> = match extension {
            "u8bin" => noise(24 * 600, 5).iter().map(|x| (x * 127.0 + 128.0).floor()).collect(),
            _ => noise(24 * 600, 5),
        };
        place.write("base.fbin", fbin(24, &numbers));
        let base = format!("base.{extension}");
        if extension != "fbin" {
            place.ok(&format!("convert --in base.fbin --out {base}"));
        }
        let queries = format!("q.{extension}");
        place.ok(&format!("convert --in {base} --out {queries} --rows 100..160"));
        place.ok(&format!("build --base {base} --metric {metric} --bits {bits} --out index"));
        place.ok(&format!(
            "truth --base {base} --queries {queries} --metric {metric} --k 10 --out truth.ibin"
        ));
        let found = place.json(&format!(
            "search --index index --queries {queries} --k 10 --truth truth.ibin \
             --list-size 128 --threads 1"
        ));
        let recall = found["recall"].as_f64().unwrap();
        assert!(recall > 0.97, "{metric} {extension} {bits}: {recall}");
        assert_eq!(found["bits"].as_u64(), Some(bits));
        assert_eq!(place.json("check index --deep")["ok"], true);
    }
}

#[test]
fn truth_is_what_a_scan_says() {
    let place = Place::new();
    let (rows, queries) = (noise(7 * 300, 1), noise(7 * 5, 2));
    place.write("base.fbin", fbin(7, &rows));
    place.write("q.npy", npy("<f4", "(5, 7)", &bytes(&queries)));
    place.ok("truth --base base.fbin --queries q.npy --metric l2 --k 9 --out truth.ibin");
    place.ok("truth --base base.fbin --queries q.npy --metric l2 --k 9 --out truth.ivecs");
    let truth = ibin(&place.path("truth.ibin"));
    let mut vecs = Vec::new();
    for (query, keys) in queries.chunks(7).zip(&truth.keys) {
        assert_eq!(*keys, vectors::nearest(&rows, query, 9));
        vecs.extend(9_i32.to_le_bytes());
        keys.iter().for_each(|key| vecs.extend(key.to_le_bytes()));
    }
    assert_eq!(fs::read(place.path("truth.ivecs")).unwrap(), vecs);
}

#[test]
fn a_recall_below_the_one_asked_for_is_a_failed_check() {
    let place = place_beside_it();
    // One block of rows holds few of the ten nearest.
    let line = "search --index sample/index --queries sample/queries.f16bin --k 10 --max-reads 1 \
                --truth sample/truth.ibin --format json";
    let ran = place.run(&format!("{line} --min-recall 0.9"));
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("recall is ") && ran.err.contains("0.9"), "{}", ran.err);
    assert!(ran.json()["recall"].as_f64().unwrap() < 0.9, "the result is printed all the same");
    let ran = place.run(&format!("{line} --min-recall 1.5"));
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[test]
fn keys_are_the_callers() {
    let place = Place::new();
    let rows = noise(4 * 50, 8);
    place.write("base.fbin", fbin(4, &rows));
    let keys: Vec<u8> =
        (0..50_u64).flat_map(|row| (9_000_000_000 - 7 * row).to_le_bytes()).collect();
    place.write("keys.npy", npy("<u8", "(50,)", &keys));
    place.ok("build --base base.fbin --metric l2 --out listed --keys keys.npy");
    place.ok("build --base base.fbin --metric l2 --out counted --first-key 1000000");

    let shown_first = |index: &str| {
        let line =
            format!("search --index {index} --queries base.fbin --k 1 --show 50 --threads 1");
        let text = place.ok(&line).out;
        let mut keys = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.first() == Some(&"1") {
                keys.push(words[1].parse::<u64>().unwrap());
            }
        }
        keys
    };
    assert_eq!(
        shown_first("listed"),
        (0..50).map(|row| 9_000_000_000 - 7 * row).collect::<Vec<_>>()
    );
    assert_eq!(shown_first("counted"), (1_000_000..1_000_050).collect::<Vec<_>>());
    // An ibin holds 31 bits a key: more is refused, not cut.
    let line = "search --index listed --queries base.fbin --k 1 --ids-out found.ibin";
    let ran = place.run(line);
    assert_ne!(ran.code, 0, "{}", ran.out);
    assert!(!place.path("found.ibin").exists());

    for (name, bytes, wanted) in [
        ("few.npy", npy("<u8", "(49,)", &keys[8..]), "49 keys; wanted 50"),
        (
            "twice.npy",
            npy("<u8", "(50,)", &[&keys[8..], &keys[8..16]].concat()),
            "stands for two rows",
        ),
        (
            "minus.npy",
            npy("<i8", "(50,)", &[&[255; 8], &keys[8..]].concat()),
            "found key -1 in row 0",
        ),
        ("float.npy", npy("<f8", "(50,)", &keys), "keys of f64; wanted integers"),
        ("short.npy", npy("<u8", "(50,)", &keys[1..]), "1 too few; wanted 528 bytes for 50 keys"),
    ] {
        place.write(name, bytes);
        let line = format!("build --base base.fbin --metric l2 --out no --keys {name}");
        place.refused(&line, 65, &[wanted]);
    }
    let ran =
        place.run("build --base base.fbin --metric l2 --out no --keys keys.npy --first-key 1");
    assert_eq!(ran.code, 2, "{}", ran.err);
    let line = "build --base base.fbin --metric l2 --out no --first-key 18446744073709551610";
    place.refused(line, 65, &["50 rows", "18446744073709551615"]);
}

#[test]
fn asked_for_more_than_there_is_everything_is_found() {
    let place = Place::new();
    let rows = noise(4 * 30, 11);
    place.write("base.fbin", fbin(4, &rows));
    place.ok("build --base base.fbin --metric l2 --out index");
    place.write("q.fbin", fbin(4, &rows[..8]));
    place.ok("search --index index --queries q.fbin --k 40 --threads 1 --ids-out found.ibin");
    let found = ibin(&place.path("found.ibin"));
    for (query, (keys, distances)) in found.keys.iter().zip(&found.distances).enumerate() {
        assert_eq!(keys[..30], vectors::nearest(&rows, &rows[query * 4..][..4], 30));
        assert_eq!(keys[30..], [-1; 10]);
        assert!(distances[30..].iter().all(|bits| f32::from_bits(*bits) == f32::INFINITY));
    }
}

#[test]
fn one_row_is_an_index_too() {
    let place = Place::new();
    place.write("base.fbin", fbin(1, &[-2.5]));
    let begun = std::time::Instant::now();
    for metric in ["l2", "ip", "cosine"] {
        place.ok(&format!("build --base base.fbin --metric {metric} --out {metric}"));
        place.ok(&format!(
            "search --index {metric} --queries base.fbin --k 1 --threads 1 --ids-out {metric}.ibin"
        ));
        assert_eq!(ibin(&place.path(&format!("{metric}.ibin"))).keys, [[0]]);
        assert_eq!(place.json(&format!("check {metric} --deep"))["reachable"].as_u64(), Some(1));
    } // However quick a query, measuring it takes seconds and not minutes.
    assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
}

#[test]
fn conversions_round_trip_through_every_format() {
    let place = Place::new();
    // Small whole numbers fit every type that can hold their sign.
    let unsigned: Vec<f32> = noise(6 * 40, 4).iter().map(|x| (x * 60.0 + 64.0).floor()).collect();
    let signed: Vec<f32> = unsigned.iter().map(|x| x - 64.0).collect();
    place.write("unsigned.fbin", fbin(6, &unsigned));
    place.write("signed.fbin", fbin(6, &signed));
    for (from, extension) in [
        ("unsigned", "fvecs"),
        ("unsigned", "bvecs"),
        ("unsigned", "u8bin"),
        ("signed", "i8bin"),
        ("signed", "f16bin"),
        ("signed", "npy"),
        ("signed", "fvecs"),
    ] {
        let there = format!("{from}-there.{extension}");
        place.ok(&format!("convert --in {from}.fbin --out {there}"));
        let back = format!("{from}-{extension}-back.fbin");
        place.ok(&format!("convert --in {there} --out {back}"));
        let [wanted, found] =
            [format!("{from}.fbin"), back].map(|name| fs::read(place.path(&name)).unwrap());
        assert!(wanted == found, "{from} through {extension}");
    }
    // The bytes are those that others write.
    let u8s: Vec<u8> = unsigned.iter().map(|x| *x as u8).collect();
    assert_eq!(fs::read(place.path("unsigned-there.u8bin")).unwrap(), bin(40, 6, &u8s));
    let rows = fs::read(place.path("signed-there.npy")).unwrap();
    assert!(rows.ends_with(&bytes(&signed)) && rows.starts_with(b"\x93NUMPY\x01\x00"));
    assert_eq!((rows.len() - 6 * 40 * 4) % 64, 0);
    let vecs: Vec<u8> =
        u8s.chunks(6).flat_map(|row| [&6_u32.to_le_bytes(), row].concat()).collect();
    assert_eq!(fs::read(place.path("unsigned-there.bvecs")).unwrap(), vecs);

    place.ok("convert --in signed.fbin --out some.npy --rows 38.. --type i8");
    let some: Vec<u8> = signed[38 * 6..].iter().map(|x| *x as i8 as u8).collect();
    assert_eq!(fs::read(place.path("some.npy")).unwrap(), npy("|i1", "(2, 6)", &some));
    let lost = ["signed.fbin: row 0, column", "wanted"];
    place.refused("convert --in signed.fbin --out lost.u8bin", 65, &lost);
    place.refused("convert --in signed.fbin --out signed-there.npy", 73, &["exists already"]);
    place.refused("convert --in signed.fbin --out no.npy --rows 40..", 2, &["there are 40"]);
}
