//! Lists of neighbors in the shapes that recall and truth files want.

use foveal_datasets::Truth;
use foveal_index::{Neighbor, Segment};

use super::exit_code::Failure;

/// Keys and distances, in order.
pub(crate) fn pairs_of(neighbors: &[Neighbor]) -> Vec<(u64, f32)> {
    neighbors.iter().map(|neighbor| (neighbor.key, neighbor.distance)).collect()
}

/// `k` keys and distances a query; lists that are shorter are padded with -1 and +inf.
///
/// # Errors
/// A key of 2^63 or more; lists that are no ground truth.
pub(crate) fn truth_of(lists: &[Vec<Neighbor>], k: usize) -> anyhow::Result<Truth> {
    let mut keys = Vec::with_capacity(lists.len() * k);
    let mut distances = Vec::with_capacity(lists.len() * k);
    for list in lists {
        for rank in 0..k {
            let neighbor = list.get(rank);
            keys.push(neighbor.map_or(Ok(-1), |n| key_of(n.key))?);
            distances.push(neighbor.map_or(f32::INFINITY, |n| n.distance));
        }
    }
    Ok(Truth::new(lists.len(), k, keys, Some(distances))?)
}

/// Refuses an index whose keys no truth file can hold, before any search.
///
/// # Errors
/// A key of 2^31 or more.
pub(crate) fn check_keys(index: &Segment) -> Result<(), Failure> {
    check_key(index.largest_key())
}

/// Refuses a key that no truth file can hold.
///
/// # Errors
/// A key of 2^31 or more.
pub(crate) fn check_key(key: u64) -> Result<(), Failure> {
    if i32::try_from(key).is_err() { Err(too_large(key)) } else { Ok(()) }
}

fn too_large(key: u64) -> Failure {
    Failure::usage(format!("key {key} fits no .ibin or .ivecs file; wanted keys below 2^31"))
}

fn key_of(key: u64) -> Result<i64, Failure> {
    i64::try_from(key).map_err(|_| too_large(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lists_are_padded() {
        let near = Neighbor { key: 7, distance: 0.5 };
        let far = Neighbor { key: 9, distance: 1.5 };
        let truth = truth_of(&[vec![near, far], vec![near], vec![]], 2).unwrap();
        assert_eq!([0, 1, 2].map(|q| truth.keys(q)), [[7, 9], [7, -1], [-1, -1]]);
        assert_eq!(truth.distances(1), Some(&[0.5, f32::INFINITY][..]));
        assert_eq!(pairs_of(&[near, far]), [(7, 0.5), (9, 1.5)]);
    }

    #[test]
    fn keys_beyond_63_bits_are_refused() {
        let huge = Neighbor { key: u64::MAX, distance: 0.5 };
        assert!(truth_of(&[vec![huge]], 1).is_err());
    }
}
