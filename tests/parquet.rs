//! `build` from a Parquet file, as pyarrow writes it.

use crate::program::Place;
use crate::source;
use crate::vectors::{fbin, npy};

const ROWS: usize = 200;
const DIM: usize = 8;

fn place_with_table() -> Place {
    let place = Place::new();
    let table = source::root().join("datasets/samples/table-200.parquet");
    std::fs::copy(table, place.path("table.parquet")).unwrap();
    place
}

/// The same rows, keys and payloads in flat files.
fn write_flat(place: &Place) {
    let number = |at: usize| {
        let (i, j) = (at / DIM, at % DIM);
        ((i * 7 + j * 3) % 11) as f32 - 5.0 + i as f32 / 256.0
    };
    place.write("flat.fbin", fbin(DIM, &(0..ROWS * DIM).map(number).collect::<Vec<f32>>()));
    let keys: Vec<u8> = (0..ROWS as u64).flat_map(|i| (i * 3 + 1000).to_le_bytes()).collect();
    place.write("keys.npy", npy("<u8", &format!("({ROWS},)"), &keys));
    let line = |i: usize| match i % 5 {
        0 => format!("{{\"pages\":null,\"title\":\"row {i}\"}}\n"),
        _ => format!("{{\"pages\":{i},\"title\":\"row {i}\"}}\n"),
    };
    place.write("rows.jsonl", (0..ROWS).map(line).collect::<String>());
}

#[test]
fn a_table_gives_the_index_of_the_flat_files() {
    let place = place_with_table();
    write_flat(&place);
    let flat = place
        .json("build --base flat.fbin --keys keys.npy --payload rows.jsonl --metric l2 --out flat");
    let build = "build --base table.parquet --metric l2 --key-column id";
    for (payload, out) in [("title,pages", "a"), ("*", "b")] {
        let line = format!("{build} --payload-columns {payload} --out {out}");
        assert_eq!(place.json(&line)["digest"], flat["digest"], "{payload}");
    }
    let named = place.json(&format!("{build} --vector-column embedding --out c"));
    assert_ne!(named["digest"], flat["digest"], "without payloads");
    let row = place.json("get --index a --key 1003 --payload");
    assert_eq!(row["payload"]["title"], "row 1");
    let names = place.names();
    assert!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let place = place_with_table();
    place.write("rows.fbin", fbin(2, &[1.0, 2.0, 3.0, 4.0]));
    let before = place.names();
    let build = "build --metric l2 --out index --base";
    for (line, code, wanted) in [
        ("table.parquet --vector-column emb", 65, "no column \"emb\"; wanted one of id, title"),
        ("table.parquet --key-column title", 65, "other values in column \"title\"; wanted integ"),
        ("table.parquet --key-column pages", 65, "found null in column \"pages\", row 0"),
        ("table.parquet --payload-columns a,b", 65, "no column \"a\""),
        ("gone.parquet", 66, "gone.parquet: no such file"),
        ("rows.fbin --key-column id", 2, "--key-column goes with a Parquet file alone"),
        ("rows.fbin --base-format parquet", 65, "rows.fbin: found no sound Parquet file"),
    ] {
        place.refused(&format!("{build} {line}"), code, &[wanted]);
        assert_eq!(place.names(), before, "{line}");
    }
    let both = place.run(&format!("{build} table.parquet --key-column id --first-key 3"));
    assert!(both.code == 2 && both.err.contains("cannot be used with"), "{}", both.err);
    let search = "truth --base rows.fbin --queries table.parquet --metric l2 --k 1 --out t.ibin";
    place.refused(search, 2, &["table.parquet: a Parquet file", "`foveal build` reads Parquet"]);
}
