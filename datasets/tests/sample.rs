//! The sample beside the code: rows and payload belong together, and no two rows are equal.

#![expect(clippy::unwrap_used, reason = "every function here belongs to a test")]

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use foveal_datasets::{Element, RowSource, Rows, VectorFile};

fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("samples").join(name)
}

fn rows() -> Rows {
    let file = VectorFile::open(sample("debian-packages-5k.f16bin")).unwrap();
    assert_eq!((file.len(), file.dim(), file.element()), (5_000, 384, Element::F16));
    file.read(0..file.len()).unwrap()
}

/// The text of a field of each payload line.
fn field(name: &str) -> Vec<String> {
    let payload = fs::read_to_string(sample("debian-packages-5k.payload.jsonl")).unwrap();
    let texts = payload.lines().map(|line| {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        object[name].as_str().unwrap().to_string()
    });
    texts.collect()
}

/// Names of the rows nearest to that of `name` by inner product (rows have length 1), itself first.
fn nearest(rows: &Rows, names: &[String], name: &str, count: usize) -> Vec<String> {
    let mut query = vec![0.0; rows.dim()];
    let row = names.iter().position(|other| other == name).unwrap();
    rows.row(row).widen_into(&mut query);
    let mut wide = vec![0.0; rows.dim()];
    let mut scored: Vec<(f32, &String)> = rows
        .iter()
        .zip(names)
        .map(|(row, name)| {
            row.widen_into(&mut wide);
            (wide.iter().zip(&query).map(|(x, y)| x * y).sum(), name)
        })
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(count).map(|(_, name)| name.clone()).collect()
}

#[test]
fn payload_lines_describe_the_rows() {
    let (rows, names) = (rows(), field("name"));
    assert_eq!(names.len(), rows.len());
    for (name, related) in [("nginx", "lighttpd"), ("gimp", "krita"), ("mpv", "vlc")] {
        let nearest = nearest(&rows, &names, name, 10);
        assert_eq!(nearest[0], name);
        assert!(nearest.iter().any(|other| other == related), "{name}: {nearest:?}");
    }
}

#[test]
fn no_two_rows_and_no_two_descriptions_are_equal() {
    let rows = rows();
    assert_eq!(rows.first_zero(), None);
    let distinct: HashSet<&[u8]> = rows.values().bytes().chunks(rows.row_bytes()).collect();
    assert_eq!(distinct.len(), rows.len());
    for name in ["name", "description"] {
        let texts = field(name);
        assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len(), "{name}");
    }
}

#[test]
fn packages_that_examples_name_are_there() {
    let names = field("name");
    for name in ["gimp", "nginx", "postgresql-15", "vim", "git", "redis-server", "ffmpeg"] {
        assert!(names.iter().any(|other| other == name), "{name}");
    }
    assert!(names.is_sorted());
}
