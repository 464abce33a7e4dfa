//! The command line over real data: what each verb prints, writes and ends with.

use std::fs;

use crate::program::{Place, fields};
use crate::sample::{DIM, QUERIES, ROWS, place_beside_it, sample};
use crate::vectors::{Lists, ibin};

const BUILD_FIELDS: [&str; 16] = [
    "n",
    "dim",
    "metric",
    "element",
    "bits",
    "max_degree",
    "alpha",
    "seed",
    "build_seconds",
    "predicted_peak_bytes",
    "peak_rss_bytes",
    "resident_bytes_per_vector",
    "disk_bytes",
    "format_version",
    "digest",
    "warnings",
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
    let mut resident = None;
    for (i, way) in [
        "--io mapped --threads 1",
        "--io memory --threads 1",
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
             --ids-out {i}.ibin --format json"
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
        let told = |name: &str| ran.json()[name].as_f64().unwrap();
        let mapped = *resident.get_or_insert(told("resident_bytes_per_vector"));
        if way.contains("memory") {
            // Rows of 384 halves, five to a block on disk, are counted once.
            assert_eq!(told("full_store_cached_bytes_per_vector"), 768.0);
        }
        if way.contains("memory --threads 1") {
            let loaded = told("resident_bytes_per_vector");
            assert!((loaded - mapped).abs() < 200.0, "{loaded} and {mapped} B a row");
        }
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
