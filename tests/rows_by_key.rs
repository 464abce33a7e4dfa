//! `get`: rows by their keys; `upgrade`: indexes of the version before.

use std::fs;

use serde_json::Value;

use crate::program::Place;
use crate::sample::{DIM, ROWS, place_beside_it, sample};
use crate::source;

#[test]
fn rows_are_found_by_their_keys() {
    let place = place_beside_it();
    let payload = fs::read_to_string(sample().dir.join("payload.jsonl")).unwrap();
    let keys = [0, ROWS - 1, 1234, 0];
    let flags: String = keys.iter().map(|key| format!(" --key {key}")).collect();
    let lines = place.ok(&format!("get --index sample/index{flags} --format json")).out;
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), keys.len());
    for (key, row) in keys.iter().zip(&rows) {
        let wanted: Value = serde_json::from_str(payload.lines().nth(*key).unwrap()).unwrap();
        assert_eq!((&row["key"], &row["payload"]), (&Value::from(*key), &wanted));
        let wanted: Vec<f32> = sample().row(*key).iter().map(|x| *x as f32).collect();
        let found: Vec<f32> = serde_json::from_value(row["vector"].clone()).unwrap();
        assert!(found.len() == DIM && found == wanted, "row {key}");
    }
    let one = |line: &str| place.json(&format!("get --index sample/index --key 7 {line}"));
    assert!(one("--vector").get("payload").is_none());
    assert!(one("--payload").get("vector").is_none());
    let table = place.ok("get --index sample/index --key 7 --payload").out;
    assert!(table.starts_with("  key      7\n  payload  {"), "{table}");
    let line = "get --index sample/index --key 7 --key 5000";
    place.refused(line, 65, &["sample/index: no row has the key 5000"]);
    place.refused("get --index gone --key 7", 66, &["gone: no such directory"]);
    assert_eq!(place.run("get --index sample/index").code, 2);
}

#[test]
fn an_index_of_the_version_before_is_rewritten() {
    let place = Place::new();
    let golden = source::root().join("index/tests/golden/v7/rows");
    fs::create_dir(place.path("old")).unwrap();
    for entry in fs::read_dir(golden).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.path("old").join(entry.file_name())).unwrap();
    }
    for line in ["inspect old", "check old", "get --index old --key 1"] {
        let wanted = &["format version 7; wanted 8; `foveal upgrade` rewrites it"];
        place.refused(line, 65, wanted);
    }
    let aside = place.json("upgrade old --out new");
    assert_eq!((&aside["from"], &aside["format_version"]), (&Value::from(7), &Value::from(8)));
    assert_eq!(place.json("inspect new")["digest"], aside["digest"]);
    place.refused("upgrade old --out new", 73, &["new: exists already"]);
    assert_eq!(place.json("upgrade old"), aside);
    place.ok("check old --deep");
    let again = place.ok("upgrade old").out;
    assert_eq!(again, "ok: old: format version 8 already: nothing was done\n");
    place.refused("upgrade old --out third", 2, &["old: has format version 8 already"]);
    place.refused("upgrade gone", 66, &["gone: no such directory"]);
    assert_eq!(place.names(), ["new", "old"]);
}
