//! Payloads of an answer, what they cost, and the memory that goes with them.

use foveal_datasets::{Element, Metric};
use foveal_index::{Keys, Neighbor, SearchParams};

use crate::built::{Built, answers, params, rows_and_queries};

fn text(row: u64) -> String {
    format!("{{\"row\": {row}}}")
}

fn built(bits: u8, metric: Metric) -> (Built, Vec<u64>) {
    let (rows, _) = rows_and_queries(Element::F32, 300, 1, 8);
    let keys: Vec<u64> = (0..300).map(|row| u64::MAX - row * row).collect();
    let texts: String = (0..300).map(|row| text(row) + "\n").collect();
    (Built::with(&rows, &params(metric, bits), Keys::List(&keys), Some(&texts)), keys)
}

#[test]
fn payloads_of_an_answer_need_no_look_up_by_key() {
    let (built, keys) = built(4, Metric::L2);
    let (_, queries) = rows_and_queries(Element::F32, 300, 3, 8);
    let index = built.open();
    let resident = index.resident_bytes();
    for mut answer in answers(&index, &queries, &SearchParams::new(20)) {
        for rank in 0..20 {
            let row = keys.iter().position(|key| *key == answer.neighbors[rank].key).unwrap();
            let found = index.payload_of(&mut answer, rank).unwrap();
            assert_eq!(found, Some(text(row as u64)));
        }
        // Offsets and texts lie on one block each, or on two where a row lies across.
        let reads = answer.stats.payload_reads;
        assert!((40..=80).contains(&reads), "{reads}");
        assert!(answer.stats.payload_nanos > 0);
    }
    // The order of keys, which a look-up by key makes, was never wanted.
    assert_eq!(index.resident_bytes(), resident);
    assert_eq!(index.payload(keys[7]).unwrap(), Some(text(7)));
    assert_eq!(index.resident_bytes(), resident + 4 * 300);
}

#[test]
fn payloads_follow_the_keys_of_neighbors_that_were_changed() {
    let (built, keys) = built(4, Metric::L2);
    let (_, queries) = rows_and_queries(Element::F32, 300, 1, 8);
    let index = built.open();
    let mut answer = answers(&index, &queries, &SearchParams::new(5)).remove(0);
    answer.neighbors.reverse();
    answer.neighbors.push(Neighbor { key: keys[3], distance: 0.0 });
    answer.neighbors.push(Neighbor { key: 1, distance: 0.0 });
    for rank in 0..6 {
        let row = keys.iter().position(|key| *key == answer.neighbors[rank].key).unwrap();
        assert_eq!(index.payload_of(&mut answer, rank).unwrap(), Some(text(row as u64)));
    }
    assert_eq!(index.payload_of(&mut answer, 6).unwrap(), None);
}

#[test]
fn memory_is_predicted_by_the_files() {
    for (bits, metric) in [(2, Metric::L2), (4, Metric::Cosine), (6, Metric::L2), (8, Metric::L2)] {
        let (built, _) = built(bits, metric);
        let predicted = built.report.manifest.memory();
        let archive = built.path.join("meta.rkyv").metadata().unwrap().len() - 64;
        let index = built.open();
        // Block checksums of payloads are in memory; the payloads and their offsets are not.
        assert_eq!(predicted.at_open - archive, index.resident_bytes(), "{bits} {metric}");
        assert!(!index.has_key(1).unwrap());
        assert_eq!(predicted.at_most - archive, index.resident_bytes(), "order of keys");
        assert_eq!(predicted.at_most, predicted.at_open + 4 * 300);
        assert_eq!(predicted.full_store, 300 * 8 * 4);
        assert_eq!(built.report.resident_bytes, predicted.at_open);
    }
}
