//! Ground truth: the true nearest neighbours of each query, as ibin or ivecs.
//!
//! ```text
//! ibin    u32 queries, u32 k, then queries x k keys (i32), then queries x k distances (f32)
//! ivecs   for each query: i32 k, then k keys (i32); no distances
//! ```
//! All little-endian. A key of -1 says that a query has fewer than k neighbours; its distance is
//! +inf.

use std::path::Path;

use crate::error::FileError;
use crate::format;
use crate::input_file::InputFile;
use crate::output_file::OutputFile;

const EXTENSIONS: [&str; 2] = ["ibin", "ivecs"];

/// Stands for a neighbour that does not exist.
const MISSING: i64 = -1;

/// The true nearest neighbours of queries, `[queries x k]`, nearest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    k: usize,
    keys: Vec<i64>,
    distances: Option<Vec<f32>>,
}

/// What is wrong with numbers that should have been ground truth.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TruthError {
    /// There is nothing in it, or it is no whole number of queries.
    #[error("found {found} {what} for {queries} queries of {k} neighbours; wanted {queries} x {k}")]
    Shape {
        /// Keys or distances.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many queries were promised.
        queries: usize,
        /// How many neighbours each was promised.
        k: usize,
    },
    /// A key is below -1.
    #[error("query {query}, neighbour {rank}: found key {found}; wanted a key or -1 for none")]
    Key {
        /// The query, counted from 0.
        query: usize,
        /// The position among its neighbours, counted from 0.
        rank: usize,
        /// The key.
        found: i64,
    },
    /// A distance is NaN, infinite or smaller than the one before.
    #[error("query {query}, neighbour {rank}: found distance {found}; wanted {wanted}")]
    Distance {
        /// The query, counted from 0.
        query: usize,
        /// The position among its neighbours, counted from 0.
        rank: usize,
        /// The distance.
        found: f32,
        /// What it should be.
        wanted: String,
    },
}

impl Truth {
    /// Ground truth from numbers, both `[queries x k]`, nearest first. Distances are as `Metric`
    /// defines them: smaller is closer. The distance of a missing neighbour (key -1) becomes +inf.
    ///
    /// # Errors
    /// Lengths that are not `queries * k`, or 0; keys below -1; distances that are not finite, or
    /// that fall from one neighbour to the next (a similarity, not a distance).
    pub fn new(
        queries: usize,
        k: usize,
        keys: Vec<i64>,
        mut distances: Option<Vec<f32>>,
    ) -> Result<Truth, TruthError> {
        let wanted = queries.checked_mul(k).filter(|count| *count > 0);
        let lengths = [("keys", Some(keys.len())), ("distances", distances.as_ref().map(Vec::len))];
        for (what, found) in lengths {
            if let Some(found) = found.filter(|found| wanted != Some(*found)) {
                return Err(TruthError::Shape { what, found, queries, k });
            }
        }
        if let Some(at) = keys.iter().position(|key| *key < MISSING) {
            return Err(TruthError::Key { query: at / k, rank: at % k, found: keys[at] });
        }
        if let Some(distances) = &mut distances {
            for (query, (keys, distances)) in
                keys.chunks(k).zip(distances.chunks_mut(k)).enumerate()
            {
                check_distances(query, keys, distances)?;
            }
        }
        Ok(Truth { k, keys, distances })
    }

    /// Reads an ibin or ivecs file.
    ///
    /// # Errors
    /// No regular file; unknown extension; header that contradicts the length; what [`Truth::new`]
    /// refuses; a failed read.
    pub fn read(path: impl AsRef<Path>) -> Result<Truth, FileError> {
        let path = path.as_ref();
        let input = InputFile::open(path)?;
        match format::extension(path) {
            "ibin" => read_ibin(&input),
            "ivecs" => read_ivecs(&input),
            _ => Err(format::unknown_extension(path, &EXTENSIONS)),
        }
    }

    /// Writes a new ibin or ivecs file; ivecs loses the distances. All there or not there.
    ///
    /// # Errors
    /// A path that exists or cannot be made; unknown extension; ibin without distances; a key, a
    /// count of queries or k that the format cannot hold; a failed write.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), FileError> {
        let path = path.as_ref();
        let unfit = |found: String, wanted: &str| FileError::Unfit {
            path: path.into(),
            found,
            wanted: wanted.into(),
        };
        if let Some(key) = self.keys.iter().find(|key| i32::try_from(**key).is_err()) {
            return Err(unfit(format!("key {key}"), "keys below 2^31"));
        }
        let (Ok(queries), Ok(k)) = (u32::try_from(self.queries()), i32::try_from(self.k)) else {
            return Err(unfit(format!("{} x {} keys", self.queries(), self.k), "smaller counts"));
        };
        let mut bytes = Vec::with_capacity(8 + self.keys.len() * 8);
        match (format::extension(path), &self.distances) {
            ("ibin", Some(distances)) => {
                bytes.extend([queries.to_le_bytes(), k.to_le_bytes()].concat());
                put_keys(&mut bytes, &self.keys);
                distances.iter().for_each(|distance| bytes.extend(distance.to_le_bytes()));
            }
            ("ibin", None) => return Err(unfit("keys without distances".into(), "ivecs for them")),
            ("ivecs", _) => {
                for keys in self.keys.chunks(self.k) {
                    bytes.extend(k.to_le_bytes());
                    put_keys(&mut bytes, keys);
                }
            }
            _ => return Err(format::unknown_extension(path, &EXTENSIONS)),
        }
        let mut output = OutputFile::create(path)?;
        output.write(&bytes)?;
        output.publish()
    }

    /// How many queries there are; at least 1.
    pub fn queries(&self) -> usize {
        self.keys.len() / self.k
    }

    /// How many neighbours each query has, missing ones included; at least 1.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The keys of the true neighbours of query `q`, nearest first; -1 where there is none.
    ///
    /// # Panics
    /// If `q` is not below `queries`.
    pub fn keys(&self, q: usize) -> &[i64] {
        &self.keys[q * self.k..(q + 1) * self.k]
    }

    /// The distances of the true neighbours of query `q`, ascending; +inf where there is none.
    /// `None` if the truth came without distances.
    ///
    /// # Panics
    /// If `q` is not below `queries`.
    pub fn distances(&self, q: usize) -> Option<&[f32]> {
        self.distances.as_ref().map(|distances| &distances[q * self.k..(q + 1) * self.k])
    }
}

/// Checks the distances of one query and sets those of missing neighbours to +inf.
fn check_distances(query: usize, keys: &[i64], distances: &mut [f32]) -> Result<(), TruthError> {
    let mut before = f32::NEG_INFINITY;
    for (rank, (key, distance)) in keys.iter().zip(distances).enumerate() {
        let found = *distance;
        let wrong = |wanted| Err(TruthError::Distance { query, rank, found, wanted });
        if *key == MISSING {
            *distance = f32::INFINITY;
        } else if !found.is_finite() {
            return wrong("a finite number".into());
        } else if found < before {
            return wrong(format!("at least {before}, the distance before (smaller is closer)"));
        } else {
            before = found;
        }
    }
    Ok(())
}

fn read_ibin(input: &InputFile) -> Result<Truth, FileError> {
    let [n0, n1, n2, n3, k0, k1, k2, k3] = input.head()?;
    let queries = u64::from(u32::from_le_bytes([n0, n1, n2, n3]));
    let k = u64::from(u32::from_le_bytes([k0, k1, k2, k3]));
    check_counts(input, queries, (k as i64, 4))?;
    let wanted = (queries * k).checked_mul(8).and_then(|bytes| bytes.checked_add(8));
    input.check_len(wanted, format!("{queries} queries of {k} keys and distances"))?;
    let mut bytes = vec![0; (input.len() - 8) as usize];
    input.read_at(8, &mut bytes)?;
    let (keys, distances) = bytes.split_at(bytes.len() / 2);
    let distances = numbers(distances).map(f32::from_le_bytes).collect();
    truth(input, (queries, k), take_keys(keys), Some(distances))
}

fn read_ivecs(input: &InputFile) -> Result<Truth, FileError> {
    if input.len() == 0 {
        return Err(FileError::Empty { path: input.path().into() });
    }
    let written = i32::from_le_bytes(input.head()?);
    check_counts(input, 1, (i64::from(written), 0))?;
    let k = written as u64;
    let stride = 4 + 4 * k;
    let queries = input.len().div_ceil(stride);
    let shape = format!("{queries} queries of {k} keys, as the first says");
    input.check_len(queries.checked_mul(stride), shape)?;
    let mut bytes = vec![0; input.len() as usize];
    input.read_at(0, &mut bytes)?;
    let mut keys = Vec::with_capacity((queries * k) as usize);
    for (query, row) in bytes.chunks_exact(stride as usize).enumerate() {
        let (prefix, row) = row.split_at(4);
        if prefix != written.to_le_bytes() {
            return Err(FileError::Field {
                path: input.path().into(),
                offset: query as u64 * stride,
                found: format!("another k in query {query}"),
                wanted: format!("{k}, as the first query says"),
            });
        }
        keys.extend(take_keys(row));
    }
    truth(input, (queries, k), keys, None)
}

/// Refuses files without queries or neighbours; `k` comes with its offset.
fn check_counts(input: &InputFile, queries: u64, (k, offset): (i64, u64)) -> Result<(), FileError> {
    let path = input.path().into();
    if queries == 0 {
        return Err(FileError::Empty { path });
    }
    if k < 1 {
        let (found, wanted) = (format!("k = {k}"), "at least 1".into());
        return Err(FileError::Field { path, offset, found, wanted });
    }
    Ok(())
}

fn truth(
    input: &InputFile,
    (queries, k): (u64, u64),
    keys: Vec<i64>,
    distances: Option<Vec<f32>>,
) -> Result<Truth, FileError> {
    Truth::new(queries as usize, k as usize, keys, distances)
        .map_err(|source| FileError::Truth { path: input.path().into(), source })
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    bytes.as_chunks::<4>().0.iter().copied()
}

fn take_keys(bytes: &[u8]) -> Vec<i64> {
    numbers(bytes).map(|key| i64::from(i32::from_le_bytes(key))).collect()
}

/// Appends keys that fit i32.
fn put_keys(bytes: &mut Vec<u8>, keys: &[i64]) {
    keys.iter().for_each(|key| bytes.extend((*key as i32).to_le_bytes()));
}
