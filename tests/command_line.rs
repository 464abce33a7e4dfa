//! The command line over real data: what each verb prints, writes and ends with.

use std::fs;

use crate::program::{Place, fields};
use crate::sample::{DIM, QUERIES, ROWS, place_beside_it, sample};
use crate::vectors::{self, Lists, bin, bytes, fbin, ibin, noise, npy};

const BUILD_FIELDS: [&str; 16] = [
    "n",
    "dim",
    "metric",
    "element",
    "bits",
    "max_degree",
    "alpha",
    "shift",
    "seed",
    "build_seconds",
    "predicted_peak_bytes",
    "peak_rss_bytes",
    "resident_bytes_per_vector",
    "disk_bytes",
    "format_version",
    "digest",
];

const SEARCH_FIELDS: [&str; 28] = [
    "n",
    "dim",
    "metric",
    "bits",
    "queries",
    "k",
    "list_size",
    "rerank_size",
    "target_recall",
    "expected_recall",
    "threads",
    "in_flight",
    "io",
    "cold",
    "passes",
    "seconds",
    "recall",
    "qps",
    "latency_us",
    "distances_per_query",
    "hops_per_query",
    "reads_per_query",
    "device_reads_per_query",
    "read_bytes_per_query",
    "certified",
    "partial",
    "resident_bytes_per_vector",
    "full_store_cached_bytes_per_vector",
];

#[test]
fn a_build_tells_what_it_made() {
    let text = &sample().built;
    assert_eq!(fields(text), BUILD_FIELDS);
    let built: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!((built["n"].as_u64(), built["dim"].as_u64()), (Some(5_000), Some(384)));
    assert_eq!(
        (built["metric"].as_str(), built["element"].as_str()),
        (Some("cosine"), Some("f16"))
    );
    // Each file of the index, counted from outside.
    let lengths: u64 = fs::read_dir(sample().dir.join("index"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            !["manifest.json", "measured.json"].map(Into::into).contains(&entry.file_name())
        })
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert_eq!(built["disk_bytes"].as_u64(), Some(lengths));
    assert!(built["peak_rss_bytes"].as_u64() <= built["predicted_peak_bytes"].as_u64(), "{text}");
    // 4-bit codes of 384 dimensions, 32 neighbors and a key: far below the 768 bytes of a row.
    let resident = built["resident_bytes_per_vector"].as_f64().unwrap();
    assert!((192.0..400.0).contains(&resident), "{resident}");
}

#[test]
fn a_search_finds_the_truth_and_says_how() {
    let place = place_beside_it();
    let line = "search --index sample/index --queries sample/queries.f16bin --k 10";
    let with_truth = "--truth sample/truth.ibin --min-recall 0.97 --ids-out found.ibin";
    let ran = place.ok(&format!("{line} {with_truth} --format json"));
    assert_eq!(fields(&ran.out), SEARCH_FIELDS);
    let found = ran.json();
    assert_eq!(fields(&found["latency_us"].to_string()).len(), 4);
    for name in ["mean", "p50", "p95", "p99"] {
        assert!(found["latency_us"][name].as_f64().unwrap() > 0.0, "{name}");
    }
    let n = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("{name} is no number"));
    assert_eq!((n("n"), n("dim"), n("queries")), (ROWS as f64, DIM as f64, QUERIES as f64));
    assert_eq!((n("k"), n("list_size"), n("rerank_size")), (10.0, 64.0, 64.0));
    assert!(n("passes") >= 3.0 && n("seconds") >= 1.0 && n("qps") > 0.0, "{found}");
    assert!(found["target_recall"].is_null() && found["expected_recall"].is_null(), "{found}");
    // It walks, it does not scan.
    assert!(n("distances_per_query") < ROWS as f64 / 2.0 && n("hops_per_query") > 1.0, "{found}");
    assert!((0.0..=1.0).contains(&n("certified")) && n("partial") == 0.0, "{found}");

    let (truth, lists) = (ibin(&place.path("sample/truth.ibin")), ibin(&place.path("found.ibin")));
    let hits = |q: usize| {
        let true_keys = &truth.keys[q][..10];
        lists.keys[q].iter().filter(|key| true_keys.contains(key)).count()
    };
    let recall = (0..QUERIES).map(hits).sum::<usize>() as f64 / (10 * QUERIES) as f64;
    // Recall counts ties, which plain membership does not.
    assert!(n("recall") >= recall && n("recall") < recall + 0.01, "{} {recall}", n("recall"));
    assert!(recall >= 0.97, "{recall}");
    assert!((0..QUERIES).all(|q| lists.keys[q][0] == q as i32), "each row finds itself first");

    let without = place.ok(&format!("{line} --format json"));
    assert!(!fields(&without.out).contains(&"recall".to_string()));
}

#[test]
fn truth_and_answers_agree_with_a_scan() {
    let place = place_beside_it();
    place.ok("search --index sample/index --queries sample/queries.f16bin --k 20 \
              --list-size 400 --threads 1 --ids-out found.ibin");
    let truth = ibin(&place.path("sample/truth.ibin"));
    let found = ibin(&place.path("found.ibin"));
    for q in (0..QUERIES).step_by(10) {
        for (rank, (distance, _)) in sample().nearest(q, 20).into_iter().enumerate() {
            let told = f64::from(f32::from_bits(truth.distances[q][rank]));
            assert!((told - distance).abs() < 1e-5, "query {q}, rank {rank}: {told} {distance}");
        }
    }
    // With this effort only the bound that rows are read by misses any: 5 of the 4,000. All others
    // come in the same order, to the bit.
    let mut missed = 0;
    for q in 0..QUERIES {
        let told = |lists: &Lists, others: &Lists| -> Vec<(i32, u32)> {
            let all = lists.keys[q].iter().copied().zip(lists.distances[q].iter().copied());
            all.filter(|(key, _)| others.keys[q].contains(key)).collect()
        };
        let both = told(&found, &truth);
        assert_eq!(both, told(&truth, &found), "query {q}");
        missed += 20 - both.len();
    }
    assert!(missed <= 10, "{missed} of 4,000");
}

#[test]
fn every_way_to_read_and_to_share_work_gives_the_same_answers() {
    let place = place_beside_it();
    let mut first = None;
    for (i, way) in [
        "--io mapped --threads 1",
        "--io memory --threads 2 --in-flight 4",
        "--io pread --in-flight 3",
        "--io uring --in-flight 8",
        "--io pread --cold",
    ]
    .into_iter()
    .enumerate()
    {
        let ran = place.run(&format!(
            "search --index sample/index --queries sample/queries.f16bin --k 10 {way} \
             --ids-out {i}.ibin"
        ));
        let refused =
            way.contains("uring") && ran.code == 74 || way.contains("cold") && ran.code != 0;
        if refused {
            eprintln!("skipped: this machine refuses {way}: {}", ran.err);
            continue;
        }
        assert_eq!(ran.code, 0, "{way}: {}", ran.err);
        let bytes = fs::read(place.path(&format!("{i}.ibin"))).unwrap();
        assert!(*first.get_or_insert_with(|| bytes.clone()) == bytes, "{way} answers otherwise");
    }
}

#[test]
fn a_sound_index_passes_its_check_and_tells_of_itself() {
    let place = place_beside_it();
    let checked = place.json("check sample/index --deep");
    assert_eq!(checked["ok"], true);
    assert_eq!((checked["n"].as_u64(), checked["reachable"].as_u64()), (Some(5_000), Some(5_000)));
    assert_eq!(checked["damage"].as_array().unwrap().len(), 0);
    let table = place.ok("check sample/index").out;
    assert!(table.contains("no damage found"), "{table}");

    let told = place.json("inspect sample/index");
    let built: serde_json::Value = serde_json::from_str(&sample().built).unwrap();
    for name in [
        "n",
        "dim",
        "metric",
        "element",
        "bits",
        "max_degree",
        "alpha",
        "shift",
        "seed",
        "disk_bytes",
        "format_version",
        "digest",
    ] {
        assert_eq!(told[name], built[name], "{name}");
    }
    assert_eq!(told["payload"], true);
    let files = told["files"].as_array().unwrap();
    for file in files {
        let path = sample().dir.join("index").join(file["name"].as_str().unwrap());
        let bytes = fs::read(path).unwrap();
        assert_eq!(file["bytes"].as_u64(), Some(bytes.len() as u64), "{file}");
        assert_eq!(file["xxh3"], format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes)), "{file}");
    }
    assert_eq!(files.len(), checked["files"].as_array().unwrap().len());
}

#[test]
fn tables_have_no_colour_in_a_pipe_and_fit_a_terminal() {
    let place = place_beside_it();
    let search =
        "search --index sample/index --queries sample/queries.f16bin --k 3 --show 2 --threads 1";
    for line in [search, "check sample/index --deep", "inspect sample/index"] {
        let text = place.ok(line).out;
        assert!(!text.contains('\u{1b}'), "{line}: {text}");
        let wide = text.lines().find(|row| row.chars().count() > 100);
        assert_eq!(wide, None, "{line}");
        let colored = place.ok(&format!("{line} --color always")).out;
        assert!(colored.contains("\u{1b}["), "{line}: {colored}");
    }
}

#[test]
fn shown_neighbors_have_names() {
    let place = place_beside_it();
    let payload = fs::read_to_string(sample().dir.join("payload.jsonl")).unwrap();
    let name_of = |row: usize| {
        let line = payload.lines().nth(row).unwrap();
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        object["name"].as_str().unwrap().to_string()
    };
    let text = place
        .ok("search --index sample/index --queries sample/queries.f16bin --k 3 --show 2 \
     --threads 1")
        .out;
    for query in 0..2 {
        let shown: Vec<&str> = text
            .lines()
            .skip_while(|line| *line != format!("Query {query}"))
            .skip(1)
            .take(3)
            .collect();
        for (line, (distance, row)) in shown.iter().zip(sample().nearest(query, 3)) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(words[1], row.to_string(), "{text}");
            let told: f64 = words[2].parse().unwrap();
            assert!((told - distance).abs() < 1e-4, "{line}: {distance}");
            assert!(name_of(row as usize).starts_with(words[3].trim_end_matches('…')), "{line}");
        }
        assert_eq!(shown.len(), 3, "{text}");
    }
}

#[test]
fn the_demo_shows_packages_and_measures() {
    let place = Place::new();
    let text = place.ok("demo --keep kept").out;
    for name in ["gimp", "nginx", "postgresql-15"] {
        let mut lines = text.lines().skip_while(|line| !line.starts_with(&format!("{name} ")));
        assert!(lines.next().is_some(), "{name} is not shown: {text}");
        let distances: Vec<f64> = lines
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(distances.len(), 3, "{name}: {text}");
        assert!(distances.is_sorted() && distances[0] > 0.0, "{name}: {distances:?}");
    }
    let line = text.lines().find(|line| line.contains("recall@10")).expect("recall is told");
    let recall: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((0.97..=1.0).contains(&recall), "{line}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert_eq!(place.names(), ["kept"]);
    // The same input, seed and parameters give the same index.
    assert_eq!(place.json("inspect kept")["digest"], place_digest(&sample().built));
    place.refused("demo --keep kept", 73, &["kept: exists already"]);
}

fn place_digest(built: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(built).unwrap()["digest"].clone()
}

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
    // Rows 500 to 700 are not the queries whose truth this is.
    place.ok("convert --in sample/base.f16bin --out other.f16bin --rows 500..700");
    let line = "search --index sample/index --queries other.f16bin --k 10 \
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
            "row 0: found key -1",
        ),
        ("float.npy", npy("<f8", "(50,)", &keys), "<f8; wanted <u8 or <i8"),
        ("short.npy", npy("<u8", "(50,)", &keys[1..]), "50 keys take 8 each"),
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
