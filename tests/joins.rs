//! Truths, next tokens and lists of keys against the index they are used with: what belongs to
//! other rows, another metric or other keys is refused before any search.

use crate::program::Place;
use crate::vectors::{bin, fbin, ibin, noise, npy};

const DIM: usize = 12;

/// Rows of length 1.
fn unit(count: usize, seed: u32) -> Vec<f32> {
    let rows = noise(count * DIM, seed);
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    rows.chunks(DIM)
        .flat_map(|row| row.iter().map(|x| x / length(row)).collect::<Vec<_>>())
        .collect()
}

/// 700 unit rows, 50 queries, and truths of both under three metrics, with distances and without.
fn place() -> Place {
    let place = Place::new();
    place.write("unit.fbin", fbin(DIM, &unit(700, 3)));
    place.write("rows.fbin", fbin(DIM, &noise(700 * DIM, 4)));
    place.write("q.fbin", fbin(DIM, &noise(50 * DIM, 5)));
    for base in ["unit", "rows"] {
        for metric in ["l2", "ip", "cosine"] {
            let truth = format!(
                "truth --base {base}.fbin --queries q.fbin --metric {metric} --k 10 --out {base}"
            );
            place.ok(&format!("{truth}-{metric}.ibin"));
            place.ok(&format!("{truth}-{metric}.ivecs"));
        }
    }
    place
}

#[test]
fn a_truth_of_another_metric_is_refused() {
    let place = place();
    place.ok("build --base unit.fbin --metric cosine --out unit");
    place.ok("build --base rows.fbin --metric ip --out rows");
    let search = |index: &str, truth: &str| {
        format!("search --index {index} --queries q.fbin --k 10 --list-size 64 --truth {truth}")
    };
    place.ok(&format!("{} --min-recall 0.9", search("unit", "unit-cosine.ibin")));
    place.ok(&format!("{} --min-recall 0.9", search("rows", "rows-ip.ivecs")));
    // Of unit rows the order is the same, the distances are not.
    let refused = search("unit", "unit-l2.ibin");
    place.refused(&refused, 65, &["unit-l2.ibin: query 0", "under cosine it is", "another metric"]);
    place.refused(&search("unit", "unit-ip.ibin"), 65, &["under cosine it is"]);
    // Without distances a wrong order tells, or rows left out.
    for truth in ["rows-l2.ivecs", "rows-cosine.ivecs", "unit-ip.ivecs"] {
        place.refused(&search("rows", truth), 65, &[truth, "under ip", "another metric"]);
    }
    // The truth of other queries.
    place.write("other.fbin", fbin(DIM, &noise(50 * DIM, 6)));
    let other = "search --index unit --queries other.fbin --k 10 --truth unit-cosine.ivecs";
    place.refused(other, 65, &["of other queries"]);
}

#[test]
fn a_truth_speaks_the_keys_of_the_index() {
    let place = place();
    let keys: Vec<u8> = (0..700u64).flat_map(|row| (100_000 - 7 * row).to_le_bytes()).collect();
    place.write("keys.npy", npy("<u8", "(700,)", &keys));
    place.ok("build --base rows.fbin --metric l2 --keys keys.npy --out listed");
    place.ok("build --base rows.fbin --metric l2 --first-key 1000 --out counted");
    let truth = "truth --base rows.fbin --queries q.fbin --metric l2 --k 10";
    place.ok(&format!("{truth} --keys keys.npy --out listed.ibin"));
    place.ok(&format!("{truth} --first-key 1000 --out counted.ivecs"));
    let keys_of = |name: &str| ibin(&place.path(name)).keys;
    for (listed, rows) in keys_of("listed.ibin").iter().zip(keys_of("rows-l2.ibin")) {
        assert_eq!(*listed, rows.iter().map(|row| 100_000 - 7 * row).collect::<Vec<_>>());
    }
    let search = |index: &str, truth: &str| {
        format!("search --index {index} --queries q.fbin --k 10 --list-size 200 --truth {truth}")
    };
    place.ok(&format!("{} --min-recall 0.99", search("listed", "listed.ibin")));
    place.ok(&format!("{} --min-recall 0.99", search("counted", "counted.ivecs")));
    let none = "0 of 500 keys of the truth are in this index";
    place.refused(&search("listed", "rows-l2.ivecs"), 65, &["rows-l2.ivecs", none]);
    place.refused(&search("counted", "rows-l2.ibin"), 65, &[none]);
    // A key that a truth file cannot hold, a key of two rows, too few keys: before the scan.
    let huge: Vec<u8> = (0..700u64).flat_map(|row| (u64::MAX - row).to_le_bytes()).collect();
    place.write("huge.npy", npy("<u8", "(700,)", &huge));
    place.write("twice.npy", npy("<u8", "(700,)", &[&keys[8..], &keys[8..16]].concat()));
    let huge = format!("{truth} --keys huge.npy --out t.ibin");
    place.refused(&huge, 2, &["key 18446744073709551615", "wanted keys below 2^31"]);
    place.refused(&format!("{truth} --first-key 2147483000 --out t.ibin"), 2, &["below 2^31"]);
    let twice = format!("{truth} --keys twice.npy --out t.ibin");
    place.refused(&twice, 65, &["twice.npy", "stands for two rows"]);
    // Keys of 64 bits stay what they are, and no file of 31 bits is begun for them.
    place.ok("build --base rows.fbin --metric l2 --keys huge.npy --out huge");
    let shown = place.ok("search --index huge --queries q.fbin --k 700 --list-size 700 --show 1");
    assert!(shown.out.contains("  18446744073709551615  "), "{}", shown.out);
    let line = "search --index huge --queries q.fbin --k 1 --ids-out found.ibin";
    place.refused(line, 2, &["key 18446744073709551615 fits no .ibin or .ivecs file"]);
}

#[test]
fn outputs_are_refused_before_the_work() {
    let place = place();
    place.ok("build --base rows.fbin --metric l2 --out index");
    let truth = "truth --base rows.fbin --queries q.fbin --metric l2 --k 10";
    place.refused(&format!("{truth} --out t.bin"), 2, &["t.bin", "wanted ibin, ivecs"]);
    place.refused(&format!("{truth} --out nowhere/t.ibin"), 73, &["nowhere: no such directory"]);
    let search = "search --index index --queries q.fbin --k 1 --ids-out";
    place.refused(&format!("{search} found.bin"), 2, &["found.bin", "wanted ibin, ivecs"]);
    place.refused(&format!("{search} nowhere/found.ibin"), 73, &["nowhere: no such directory"]);
    let threads = place.run(&format!("{truth} --threads 20000 --out t.ibin"));
    assert!(threads.code == 2 && threads.err.contains("0 to 1024"), "{}", threads.err);
}

#[test]
fn a_decode_is_compared_with_tokens_of_its_head_alone() {
    let place = place();
    place.ok("build --base rows.fbin --metric ip --first-key 500 --out head");
    let truth = "truth --base rows.fbin --queries q.fbin --k 10 --first-key 500";
    place.ok(&format!("{truth} --metric ip --out right.ibin"));
    place.ok(&format!("{truth} --metric l2 --out l2.ivecs"));
    let decode = |rest: &str| format!("decode --index head --hidden q.fbin --k 5 {rest}");
    place.ok(&decode("--truth right.ibin --min-recall 0.9"));
    place.refused(&decode("--truth l2.ivecs"), 65, &["l2.ivecs", "under ip", "another metric"]);
    // Row numbers from 500 on are keys as well, of other rows.
    let some = "of 250 keys of the truth are in this index";
    place.refused(&decode("--truth rows-ip.ibin"), 65, &["rows-ip.ibin", some]);

    let next = |first: i32| {
        let keys: Vec<u8> = (first..first + 50).flat_map(i32::to_le_bytes).collect();
        bin(50, 1, &[keys, vec![0; 200]].concat())
    };
    place.write("next.ibin", next(600));
    place.write("beyond.ibin", next(1170));
    place.ok(&decode("--next next.ibin"));
    let wanted = "30 of 50 next tokens are in this index";
    place.refused(&decode("--next beyond.ibin"), 65, &["beyond.ibin", wanted]);

    let list = |keys: std::ops::Range<u64>| {
        let bytes: Vec<u8> = keys.clone().flat_map(u64::to_le_bytes).collect();
        npy("<u8", &format!("({},)", keys.count()), &bytes)
    };
    place.write("some.npy", list(500..800));
    place.write("rows.npy", list(400..600));
    let wanted = "100 of 200 keys are in this index";
    place.refused(&decode("--deny rows.npy"), 65, &["rows.npy", wanted]);
    // A truth of all tokens tells nothing of some.
    let some = decode("--allow some.npy --truth right.ibin");
    let ran = place.ok(&format!("{some} --format json"));
    assert!(ran.err.contains("which is not allowed"), "{}", ran.err);
    assert_eq!(ran.json().get("p_at_k"), None);
    place.refused(&format!("{some} --min-recall 0.5"), 65, &["which is not allowed"]);
    // An excluded token has no probability.
    place.ok(&decode("--allow some.npy --next next.ibin"));
    let denied = ["next.ibin: row 0: next token 600", "excluded by --allow or --deny"];
    place.refused(&decode("--deny some.npy --next next.ibin"), 65, &denied);
}

/// Everything times a number: the same neighbors, so the same recall, where not all are found.
#[test]
fn scaled_data_has_the_very_same_recall() {
    let place = Place::new();
    let (rows, queries) = (noise(1500 * 24, 7), noise(60 * 24, 8));
    let recalls = ["1", "1e-5", "1e5", "1e-15"].map(|scale| {
        // A power of two changes no digit.
        let power: f32 = match scale {
            "1e-5" => 2f32.powi(-17),
            "1e5" => 2f32.powi(17),
            "1e-15" => 2f32.powi(-50),
            _ => 1.0,
        };
        let scaled = |numbers: &[f32]| numbers.iter().map(|x| x * power).collect::<Vec<f32>>();
        place.write("base.fbin", fbin(24, &scaled(&rows)));
        place.write("q.fbin", fbin(24, &scaled(&queries)));
        let mut found = Vec::new();
        for metric in ["l2", "ip", "cosine"] {
            let name = format!("{metric}-{scale}");
            place.ok(&format!(
                "truth --base base.fbin --queries q.fbin --metric {metric} --k 10 \
                 --out {name}.ibin"
            ));
            place.ok(&format!("build --base base.fbin --metric {metric} --out {name}"));
            let search = format!(
                "search --index {name} --queries q.fbin --k 10 --list-size 10 --truth {name}.ibin \
                 --threads 1"
            );
            found.push(place.json(&search)["recall"].as_f64().unwrap());
        }
        found
    });
    assert!(recalls[0].iter().all(|recall| *recall < 0.95), "{recalls:?}");
    for scaled in &recalls[1..] {
        assert_eq!(*scaled, recalls[0]);
    }
}
