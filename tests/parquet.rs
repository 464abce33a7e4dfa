//! `build` from a Parquet file, as pyarrow writes it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

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

/// A table of vectors of two numbers, and texts.
fn write_table(path: &Path, rows: &[([f32; 2], String)]) {
    let schema = "message rows { required group emb (LIST) { repeated group list { required float \
        element; } } required binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let numbers: Vec<f32> = rows.iter().flat_map(|row| row.0).collect();
    let defined = vec![1; numbers.len()];
    let repeats: Vec<i16> = (0..numbers.len()).map(|i| (i % 2) as i16).collect();
    let mut column = group.next_column().unwrap().unwrap();
    let typed = column.typed::<FloatType>();
    typed.write_batch(&numbers, Some(&defined), Some(&repeats)).unwrap();
    column.close().unwrap();
    let texts: Vec<ByteArray> = rows.iter().map(|row| row.1.as_str().into()).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

/// 100 rows that can be indexed.
fn good_rows() -> Vec<([f32; 2], String)> {
    (0..100).map(|i| ([i as f32 + 1.0, 0.5], format!("text {i}"))).collect()
}

#[test]
fn rows_that_an_index_cannot_hold_are_those_of_the_table() {
    let place = Place::new();
    let mut rows = good_rows();
    rows[17].0 = [0.0, 0.0];
    rows[5].1 = "x".repeat(70_000);
    write_table(&place.path("table.parquet"), &rows);
    let build = "build --base table.parquet --out index";
    let line = format!("{build} --metric cosine");
    place.refused(&line, 65, &["foveal: error: table.parquet: row 17 is all zeros"]);
    let line = format!("{build} --metric l2 --payload-columns text");
    place.refused(&line, 65, &["foveal: error: table.parquet: row 5: more than 65536 bytes"]);
}

/// Copying the columns of a large table takes long. The row that this would meet is not met.
#[test]
fn other_inputs_are_refused_before_the_columns_are_copied() {
    let place = Place::new();
    let mut rows = good_rows();
    rows[17].0 = [f32::NAN, 0.0];
    write_table(&place.path("table.parquet"), &rows);
    place.write("two.fbin", fbin(1, &[1.0, 2.0]));
    place.write("two.npy", npy("<u8", "(2,)", &[0; 16]));
    let build = "build --base table.parquet --out index --metric";
    place.refused(&format!("{build} l2"), 65, &["found NaN in column \"emb\", row 17"]);
    for (line, code, wanted) in [
        ("l2 --learn gone.fbin", 66, "gone.fbin: no such file"),
        ("l2 --payload gone.jsonl", 66, "gone.jsonl"),
        ("l2 --keys gone.npy", 66, "gone.npy: no such file"),
        ("l2 --keys two.npy", 65, "two.npy: holds 2 keys; wanted 100"),
        ("l2 --bias two.fbin", 2, "--bias does not go with --metric l2"),
        ("ip --bias gone.fbin", 66, "gone.fbin: no such file"),
        ("ip --bias two.fbin", 65, "two.fbin: holds 2 numbers; wanted 100"),
        ("l2 --tensor emb", 2, "table.parquet: --tensor goes with a .safetensors file"),
    ] {
        place.refused(&format!("{build} {line}"), code, &[wanted]);
    }
}

#[test]
fn more_rows_than_an_index_holds_are_refused_before_they_are_read() {
    let place = Place::new();
    let path = place.path("table.parquet");
    write_table(&path, &good_rows());
    let mut bytes = std::fs::read(&path).unwrap();
    // The number of rows in the footer, 100 and then 2^31, before the list of one row group.
    let (found, wanted) = ([0x16, 0xc8, 1, 0x19, 0x1c], [0x80, 0x80, 0x80, 0x80, 0x10]);
    let at = bytes.windows(5).position(|window| window == found).unwrap();
    bytes.splice(at + 1..at + 3, wanted);
    let length = bytes.len() - 8..bytes.len() - 4;
    let footer = u32::from_le_bytes(bytes[length.clone()].try_into().unwrap()) + 3;
    bytes[length].copy_from_slice(&footer.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let build = "build --base table.parquet --metric l2 --out index";
    place.refused(build, 2, &["rows", "2147483648", "at most 2147483647"]);
}
