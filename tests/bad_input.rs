//! Input that makes no sense: an exit code, one line that says what, where, found and wanted, and
//! nothing left behind.

use std::fs;

use crate::program::Place;
use crate::vectors::{bin, bytes, fbin, noise, npy};

/// A place with `base.fbin`, 40 rows of 4 numbers.
fn place() -> Place {
    let place = Place::new();
    place.write("base.fbin", fbin(4, &noise(160, 1)));
    place
}

/// Every verb that reads vectors refuses `bytes` under `name` with 65 and names all of `wanted`.
#[track_caller]
fn refused_by_all(name: &str, bytes: impl AsRef<[u8]>, wanted: &[&str]) {
    let place = place();
    place.write(name, bytes);
    let wanted: Vec<&str> = [name].iter().chain(wanted).copied().collect();
    for line in [
        format!("build --base {name} --metric l2 --out index"),
        format!("convert --in {name} --out out.npy"),
        format!("truth --base {name} --queries base.fbin --metric l2 --k 1 --out out.ibin"),
        format!("truth --base base.fbin --queries {name} --metric l2 --k 1 --out out.ibin"),
    ] {
        place.refused(&line, 65, &wanted);
    }
}

#[test]
fn a_file_that_is_too_short() {
    let whole = fbin(4, &noise(40, 1));
    let wanted = ["found 167 bytes, 1 too few; wanted 168", "10 rows of dimension 4"];
    refused_by_all("short.fbin", &whole[..167], &wanted);
    refused_by_all("head.fbin", &whole[..7], &["found a file of 7 bytes; wanted a header of 8"]);
    let row = [&4_i32.to_le_bytes()[..], &bytes(&[1.0; 4])].concat();
    let vecs = row.repeat(3);
    refused_by_all("short.fvecs", &vecs[..59], &["found 59 bytes, 1 too few; wanted 60"]);
    let whole = npy("<f4", "(3, 4)", &bytes(&[1.0; 12]));
    refused_by_all("short.npy", &whole[..whole.len() - 4], &["4 too few", "3 rows of dimension 4"]);
}

#[test]
fn a_file_that_is_too_long() {
    let long = [fbin(4, &noise(40, 1)), vec![0; 5]].concat();
    refused_by_all("long.fbin", long, &["found 173 bytes, 5 too many; wanted 168"]);
    let long = [npy("|u1", "(3, 4)", &[1; 12]), vec![0]].concat();
    refused_by_all("long.npy", long, &["1 too many"]);
}

#[test]
fn a_header_beyond_all_memory() {
    let huge = bin(u32::MAX, 65_535, &[0; 64]);
    refused_by_all("huge.fbin", huge, &["too few", "4294967295 rows of dimension 65535"]);
    let huge = npy("<f4", "(4611686018427387904, 60000)", &[0; 64]);
    refused_by_all("huge.npy", huge, &["4611686018427387904 rows", "below 2^63"]);
    // 2^61 rows of 8 bytes are 2^64 bytes, which is 0 to whoever does not look.
    let wraps = npy("<f4", "(2305843009213693952, 2)", &[]);
    refused_by_all("wraps.npy", wraps, &["2305843009213693952 rows", "below 2^63"]);
}

#[test]
fn no_rows() {
    refused_by_all("none.fbin", bin(0, 4, &[]), &["holds no rows; wanted at least 1"]);
    refused_by_all("none.npy", npy("<f4", "(0, 4)", &[]), &["holds no rows"]);
    refused_by_all("none.fvecs", [], &["holds no rows"]);
    refused_by_all("none.u8bin", [], &["found a file of 0 bytes"]);
}

#[test]
fn dimensions_out_of_range() {
    for dim in [0_u32, 65_536, u32::MAX] {
        let (found, wanted) = (format!("at byte 4: found dimension {dim}"), "wanted 1 to 65535");
        refused_by_all("dim.u8bin", bin(2, dim, &[0; 16]), &[&found, wanted]);
    }
    for dim in [0_i32, 65_536, -1] {
        let found = format!("at byte 0: found dimension {dim};");
        let row = [&dim.to_le_bytes()[..], &[0; 16]].concat();
        refused_by_all("dim.bvecs", row, &[&found, "wanted 1 to 65535"]);
    }
    refused_by_all("dim.npy", npy("|u1", "(1, 65536)", &[0; 65_536]), &["found dimension 65536"]);
    // The largest dimension is none of them.
    let place = Place::new();
    place.write("wide.u8bin", bin(2, 65_535, &[&[1; 65_535][..], &[9; 65_535]].concat()));
    place.ok("build --base wide.u8bin --metric cosine --out index");
    assert_eq!(place.json("check index --deep")["ok"], true);
}

#[test]
fn numbers_that_are_not_finite() {
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut numbers = noise(160, 1);
        numbers[17 * 4 + 2] = bad;
        let found = format!("row 17, column 2: found {shown}; wanted a finite number");
        refused_by_all("bad.fbin", fbin(4, &numbers), &[&found]);
        refused_by_all("bad.npy", npy("<f4", "(40, 4)", &bytes(&numbers)), &[&found]);
    }
    // f16: all ones in the exponent.
    let mut halves = vec![0; 40 * 4 * 2];
    halves[(39 * 4 + 3) * 2 + 1] = 0x7c;
    refused_by_all("bad.f16bin", bin(40, 4, &halves), &["row 39, column 3: found inf"]);
}

#[test]
fn zero_under_cosine() {
    let place = place();
    let mut numbers = noise(160, 1);
    numbers[7 * 4..8 * 4].fill(0.0);
    place.write("zero.fbin", fbin(4, &numbers));
    let wanted = ["zero.fbin: row 7"];
    place.refused("build --base zero.fbin --metric cosine --out index", 65, &wanted);
    let truth = "--metric cosine --k 1 --out truth.ibin";
    place.refused(&format!("truth --base base.fbin --queries zero.fbin {truth}"), 65, &wanted);
    place.refused(&format!("truth --base zero.fbin --queries base.fbin {truth}"), 65, &wanted);
    place.ok("build --base base.fbin --metric cosine --out index");
    place.refused("search --index index --queries zero.fbin --k 1", 65, &wanted);
    // Under the other metrics a zero is a vector like any other.
    place.ok("build --base zero.fbin --metric l2 --out l2");
    place.ok("build --base zero.fbin --metric ip --out ip");
}

#[test]
fn numbers_too_large_for_a_distance() {
    let place = place();
    let mut numbers = noise(160, 1);
    numbers[9 * 4] = 3e38;
    place.write("large.fbin", fbin(4, &numbers));
    for metric in ["l2", "ip"] {
        let line = format!("build --base large.fbin --metric {metric} --out index");
        place.refused(&line, 65, &["large.fbin: row 9 is too long"]);
    }
    // An angle has no length.
    place.ok("build --base large.fbin --metric cosine --out angles");
    place.ok("build --base base.fbin --metric l2 --out index");
    let before = place.names();
    let ran = place.run("search --index index --queries large.fbin --k 1");
    assert_ne!(ran.code, 0, "{}", ran.out);
    ran.is_refusal(ran.code, &[]);
    assert_eq!(place.names(), before);
}

#[test]
fn unknown_extensions() {
    let place = place();
    for name in ["rows.csv", "rows", "rows.FBIN"] {
        place.write(name, fbin(4, &noise(160, 1)));
        let wanted =
            [name, "is unknown; wanted fvecs, bvecs, fbin, u8bin, i8bin, f16bin, bf16bin, npy"];
        place.refused(&format!("build --base {name} --metric l2 --out index"), 2, &wanted);
        place.refused(&format!("convert --in {name} --out out.npy"), 2, &wanted);
    }
    place.refused("convert --in base.fbin --out out.csv", 2, &["out.csv", "is unknown"]);
    let truth = "truth --base base.fbin --queries base.fbin --metric l2 --k 1";
    place.refused(&format!("{truth} --out out.fbin"), 2, &["out.fbin", "wanted ibin, ivecs"]);
    place.write("truth.txt", "1 2 3");
    place.ok("build --base base.fbin --metric l2 --out index");
    let search = "search --index index --queries base.fbin --k 1 --truth truth.txt";
    place.refused(search, 2, &["truth.txt", "is unknown"]);
}

#[test]
fn bytes_that_contradict_their_header() {
    let text = npy("<f4", "(4, 4)", &bytes(&[1.0; 16]));
    let with = |from: &str, to: &str| {
        let text = text.iter().map(|byte| char::from(*byte)).collect::<String>();
        assert!(text.contains(from));
        text.replacen(from, to, 1).chars().map(|c| c as u8).collect::<Vec<u8>>()
    };
    refused_by_all("magic.npy", with("NUMPY", "NUMPI"), &["at byte 0"]);
    refused_by_all("complex.npy", npy("<c8", "(4, 4)", &[0; 128]), &["<c8", "astype"]);
    refused_by_all(
        "flat.npy",
        npy("<f4", "(16,)", &bytes(&[1.0; 16])),
        &["found 1 axes; wanted 2"],
    );
    refused_by_all(
        "cube.npy",
        npy("<f4", "(2,2,4)", &bytes(&[1.0; 16])),
        &["found 3 axes; wanted 2"],
    );
    refused_by_all("fortran.npy", with("False", "True "), &["found Fortran order; wanted C order"]);
    refused_by_all("order.npy", with("<f4", ">f4"), &[">f4"]);
    refused_by_all("page.fvecs", "<!DOCTYPE html><title>404</title>", &["found dimension"]);
    let rows = [(4_i32, 16), (4, 16), (3, 12), (5, 20)];
    let rows: Vec<u8> =
        rows.iter().flat_map(|(dim, n)| [&dim.to_le_bytes()[..], &vec![0; *n]].concat()).collect();
    let found = "at byte 40: found dimension 3 in row 2; wanted 4, as row 0 says";
    refused_by_all("mixed.fvecs", rows, &[found]);
}

#[test]
fn queries_of_another_dimension() {
    let place = place();
    place.write("five.fbin", fbin(5, &noise(50, 1)));
    place.ok("build --base base.fbin --metric l2 --out index");
    let wanted = ["five.fbin", "dimension 5; wanted 4"];
    place.refused("search --index index --queries five.fbin --k 1", 65, &wanted);
    let truth = "truth --base base.fbin --queries five.fbin --metric l2 --k 1 --out t.ibin";
    place.refused(truth, 65, &wanted);
}

#[test]
fn parameters_out_of_range() {
    let place = place();
    place.ok("build --base base.fbin --metric l2 --out index");
    let search = "search --index index --queries base.fbin";
    for (flags, wanted) in [
        ("--k 0", "k is 0; wanted"),
        ("--k 16385", "k is 16385; wanted"),
        ("--k 4294967295", "k is 4294967295; wanted"),
        ("--k 10 --list-size 9", "list_size is 9; wanted"),
        ("--k 10 --list-size 65537", "list_size is 65537; wanted"),
        ("--k 10 --rerank-size 9", "rerank_size is 9; wanted"),
        ("--k 10 --list-size 20 --rerank-size 21", "rerank_size is 21; wanted"),
        ("--k 10 --max-reads 0", "max_reads is 0; wanted"),
        ("--k 10 --cold --io memory", "--cold does not go with --io memory"),
        ("--k 10 --show 1 --format json", "--show does not go with --format json"),
    ] {
        place.refused(&format!("{search} {flags}"), 2, &[wanted]);
    }
    let build = "build --base base.fbin --metric l2 --out new";
    for (flags, wanted) in [
        ("--max-degree 0", "max_degree is 0; wanted"),
        ("--max-degree 257", "max_degree is 257; wanted"),
        ("--list-size 8", "list_size is 8; wanted"),
        ("--alpha 0.9", "alpha is 0.9; wanted"),
        ("--alpha NaN", "alpha is NaN; wanted"),
        ("--threads 1025", "threads is 1025; wanted"),
        ("--memory 1MiB", "bytes of memory; memory is limited to 1048576"),
    ] {
        place.refused(&format!("{build} {flags}"), 2, &[wanted]);
    }
}

#[test]
fn inputs_that_are_not_there() {
    let place = place();
    fs::create_dir(place.path("folder.fbin")).unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    let missing = ["gone.fbin: no such file"];
    place.refused("build --base gone.fbin --metric l2 --out index", 66, &missing);
    place.refused("convert --in gone.fbin --out out.npy", 66, &missing);
    place.refused("build --base folder.fbin --metric l2 --out index", 66, &["folder.fbin: is a"]);
    for verb in ["inspect", "check", "search --queries base.fbin --k 1 --index"] {
        place.refused(&format!("{verb} gone"), 66, &["gone: no such directory"]);
        place.refused(&format!("{verb} empty"), 65, &["empty: no manifest.json"]);
    }
    let build = "build --base base.fbin --metric l2 --out index";
    place.refused(&format!("{build} --keys gone.npy"), 66, &["gone.npy"]);
    place.refused(&format!("{build} --payload gone.jsonl"), 66, &["gone.jsonl"]);
}

#[test]
fn outputs_that_are_there_already() {
    let place = place();
    fs::create_dir(place.path("index")).unwrap();
    place.write("index/mine.txt", "mine");
    place.write("out.npy", "mine");
    std::os::unix::fs::symlink("nowhere", place.path("link")).unwrap();
    for out in ["index", "out.npy", "link"] {
        let line = format!("build --base base.fbin --metric l2 --out {out}");
        place.refused(&line, 73, &[out, "exists already"]);
    }
    place.refused("convert --in base.fbin --out out.npy", 73, &["out.npy: exists already"]);
    let line = "build --base base.fbin --metric l2 --out no/such/index";
    place.refused(line, 73, &["no/such: no such directory"]);
    place.refused("convert --in base.fbin --out no/out.npy", 73, &["no: no such directory"]);
    assert_eq!(fs::read_to_string(place.path("index/mine.txt")).unwrap(), "mine");
    assert_eq!(fs::read_to_string(place.path("out.npy")).unwrap(), "mine");
}

#[test]
fn payloads_that_do_not_fit() {
    let place = place();
    let lines = |n: usize| "{\"a\": 1}\n".repeat(n);
    for (name, text, wanted) in [
        ("few.jsonl", lines(39), "39"),
        ("many.jsonl", lines(41), "40"),
        ("list.jsonl", lines(20) + "[1]\n" + &lines(19), "21"),
        ("broken.jsonl", lines(20) + "{\"a\": \n" + &lines(19), "21"),
    ] {
        place.write(name, text);
        let line = format!("build --base base.fbin --metric l2 --out index --payload {name}");
        place.refused(&line, 65, &[name, wanted]);
    }
}

#[test]
fn truth_that_does_not_fit() {
    let place = place();
    place.ok("build --base base.fbin --metric l2 --out index");
    let words = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    for (name, bytes, wanted) in [
        ("queries.ibin", words(&[1, 1, 0, 0]), "holds the truth of 1 queries; wanted 40"),
        ("short.ibin", words(&[40, 1, 0]), "too few"),
        (
            "k.ibin",
            words(&[&[40, 1][..], &[0; 80]].concat()),
            "holds 1 neighbors a query; wanted k = 2",
        ),
        (
            "similar.ibin",
            words(&[&[1, 2, 0, 1][..], &[2.0_f32, 1.0].map(f32::to_bits)].concat()),
            "found distance 1",
        ),
    ] {
        place.write(name, bytes);
        let line = format!("search --index index --queries base.fbin --k 2 --truth {name}");
        place.refused(&line, 65, &[name, wanted]);
    }
}
