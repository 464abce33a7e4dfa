//! Files of vectors, written and read by their published layouts rather than by our own code.

use std::fs;
use std::path::Path;

/// big-ann: u32 rows, u32 dimension, then the numbers.
pub fn bin(rows: u32, dim: u32, numbers: &[u8]) -> Vec<u8> {
    [&rows.to_le_bytes(), &dim.to_le_bytes(), numbers].concat()
}

/// fbin of rows of `dim` numbers.
pub fn fbin(dim: usize, numbers: &[f32]) -> Vec<u8> {
    bin((numbers.len() / dim) as u32, dim as u32, &bytes(numbers))
}

/// Little-endian bytes.
pub fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// NumPy, version 1.0, C order.
pub fn npy(descr: &str, shape: &str, numbers: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), numbers].concat()
}

/// `count` numbers from -1 to 1, the same in every run.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Keys and distances of an ibin file, `k` of each a query.
pub struct Lists {
    /// A list a query, nearest first.
    pub keys: Vec<Vec<i32>>,
    /// The bits of the distances, in step with the keys.
    pub distances: Vec<Vec<u32>>,
}

/// Reads a big-ann ibin: u32 queries, u32 k, the keys, the distances.
pub fn ibin(path: &Path) -> Lists {
    let bytes = fs::read(path).unwrap();
    let words: Vec<u32> =
        bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    let (n, k) = (words[0] as usize, words[1] as usize);
    assert_eq!(bytes.len(), 8 + n * k * 8, "{}", path.display());
    let (keys, distances) = words[2..].split_at(n * k);
    let lists = |words: &[u32]| words.chunks(k).map(<[u32]>::to_vec).collect::<Vec<_>>();
    let signed = |list: Vec<u32>| list.into_iter().map(u32::cast_signed).collect();
    Lists { keys: lists(keys).into_iter().map(signed).collect(), distances: lists(distances) }
}

/// The `k` rows nearest to `query` by squared distance, smaller row first: a scan in f64.
pub fn nearest(rows: &[f32], query: &[f32], k: usize) -> Vec<i32> {
    let distance = |row: &[f32]| -> f64 {
        row.iter().zip(query).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum()
    };
    let mut all: Vec<(f64, i32)> = rows.chunks(query.len()).map(distance).zip(0..).collect();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all.into_iter().take(k).map(|(_, row)| row).collect()
}
