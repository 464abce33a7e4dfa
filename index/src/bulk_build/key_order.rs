//! An order of rows that follows from their keys alone.
//!
//! Whatever order a file has, or however rows are split into sources, the same rows with the same
//! keys are sampled, inserted and held out in the same order, and give the same index.

use foveal_datasets::{FileError, RowSource, Rows, Values};
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Keys;

/// All rows, by a hash of their keys: an order as good as a random one.
pub(super) fn by_hash(keys: Keys<'_>, n: usize, seed: u64) -> Vec<u32> {
    let hash = |row: u32| {
        let key = keys.of(row);
        (xxh3_64_with_seed(&key.to_le_bytes(), seed), key)
    };
    let mut rows: Vec<u32> = (0..n as u32).collect();
    rows.par_sort_by_cached_key(|row| hash(*row));
    rows
}

/// Some rows of the base, in the order of `rows`; the base is read in its own.
pub(super) fn read_in_order(base: &dyn RowSource, rows: &[u32]) -> Result<Rows, FileError> {
    let mut positions: Vec<u32> = (0..rows.len() as u32).collect();
    positions.sort_unstable_by_key(|position| rows[*position as usize]);
    let ascending: Vec<usize> =
        positions.iter().map(|position| rows[*position as usize] as usize).collect();
    let read = base.read_each(&ascending)?;
    let row_bytes = read.row_bytes();
    let mut values = Values::zeroed(read.element(), rows.len() * read.dim());
    let out = values.bytes_mut();
    for (position, row) in positions.iter().zip(read.values().bytes().chunks_exact(row_bytes)) {
        out[*position as usize * row_bytes..][..row_bytes].copy_from_slice(row);
    }
    Ok(Rows::new(read.dim(), values).expect("whole rows"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_follows_from_keys_and_seed_alone() {
        let keys: Vec<u64> = (0..500u64).map(|i| i * i).collect();
        let mut shuffled = keys.clone();
        shuffled.reverse();
        shuffled.swap(3, 99);
        let in_order = |keys: &[u64], seed| {
            let rows = by_hash(Keys::List(keys), keys.len(), seed);
            rows.iter().map(|row| keys[*row as usize]).collect::<Vec<u64>>()
        };
        let order = in_order(&keys, 7);
        assert_eq!(order, in_order(&shuffled, 7));
        assert_ne!(order, in_order(&keys, 8));
        // What an index holds depends on it: it may never change.
        assert_eq!(order[..5], [1849, 191_844, 84_681, 214_369, 5929]);
        let numbered = by_hash(Keys::From(3), 4, 1);
        assert_eq!(numbered, by_hash(Keys::List(&[3, 4, 5, 6]), 4, 1));
    }

    #[test]
    fn rows_are_read_in_any_order() {
        let rows = Rows::new(2, Values::F32((0..20).map(|x| x as f32).collect())).unwrap();
        let read = read_in_order(&rows, &[7, 0, 9, 3]).unwrap();
        let wanted = [14.0, 15.0, 0.0, 1.0, 18.0, 19.0, 6.0, 7.0];
        assert_eq!(read.values(), &Values::F32(wanted.to_vec()));
        assert!(read_in_order(&rows, &[10]).is_err());
        assert!(read_in_order(&rows, &[]).unwrap().is_empty());
    }
}
