//! Ground truth: the true nearest neighbours of each query, as ibin, ivecs, or in an hdf5 file.
//!
//! ```text
//! ibin    u32 queries, u32 k, then queries x k keys (i32), then queries x k distances (f32)
//! ivecs   for each query: i32 k, then k keys (i32); no distances
//! ```
//! All little-endian. A key of -1 says that a query has fewer than k neighbours; its distance is
//! +inf.

use std::path::Path;

use crate::error::FileError;
use crate::format::TruthFormat;
use crate::hdf5::{self, Place};
use crate::input_file::InputFile;
use crate::output_file::OutputFile;

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

    /// Reads an ibin or ivecs file, or the neighbours and distances of an hdf5 file (feature
    /// `hdf5`), whose distances become those of `Metric`.
    ///
    /// # Errors
    /// No regular file; unknown extension; header that contradicts the length; what [`Truth::new`]
    /// refuses; neighbours and distances that do not fit the rows and queries beside them; a failed
    /// read.
    pub fn read(path: impl AsRef<Path>) -> Result<Truth, FileError> {
        Truth::read_as(path, None)
    }

    /// As [`read`](Truth::read), in a format that the extension does not name.
    ///
    /// # Errors
    /// As [`read`](Truth::read).
    pub fn read_as(
        path: impl AsRef<Path>,
        format: Option<TruthFormat>,
    ) -> Result<Truth, FileError> {
        let path = path.as_ref();
        if let Some(place) = Place::of(path).filter(|_| format.is_none()) {
            return hdf5::read_truth(&place);
        }
        let input = InputFile::open(path)?;
        match format.map_or_else(|| TruthFormat::of(path), Ok)? {
            TruthFormat::Ibin => read_ibin(&input),
            TruthFormat::Ivecs => read_ivecs(&input),
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
        match (TruthFormat::of_output(path)?, &self.distances) {
            (TruthFormat::Ibin, Some(distances)) => {
                bytes.extend([queries.to_le_bytes(), k.to_le_bytes()].concat());
                put_keys(&mut bytes, &self.keys);
                distances.iter().for_each(|distance| bytes.extend(distance.to_le_bytes()));
            }
            (TruthFormat::Ibin, None) => {
                return Err(unfit("keys without distances".into(), "ivecs for them"));
            }
            (TruthFormat::Ivecs, _) => {
                for keys in self.keys.chunks(self.k) {
                    bytes.extend(k.to_le_bytes());
                    put_keys(&mut bytes, keys);
                }
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use proptest::prelude::*;
    use std::fs;

    fn some() -> Truth {
        let distances = vec![0.5, 0.5, 2.0, -3.0, 9.0, f32::INFINITY];
        Truth::new(2, 3, vec![7, 0, 2_147_483_647, 4, 5, -1], Some(distances)).unwrap()
    }

    fn refused(bytes: &[u8], name: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = Truth::read(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadData);
        error.to_string().strip_prefix(&format!("{}: ", path.display())).unwrap().into()
    }

    fn ints(numbers: &[i32]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
    }

    #[test]
    fn ibin_has_counts_then_keys_then_distances() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ibin");
        some().write(&path).unwrap();
        let distances = [0.5f32, 0.5, 2.0, -3.0, 9.0, f32::INFINITY];
        let distances: Vec<u8> = distances.iter().flat_map(|x| x.to_le_bytes()).collect();
        let keys = ints(&[2, 3, 7, 0, i32::MAX, 4, 5, -1]);
        assert_eq!(fs::read(&path).unwrap(), [keys, distances].concat());
        let read = Truth::read(&path).unwrap();
        assert_eq!(read, some());
        assert_eq!((read.queries(), read.k()), (2, 3));
        assert_eq!(read.keys(1), [4, 5, -1]);
        assert_eq!(read.distances(1), Some(&[-3.0, 9.0, f32::INFINITY][..]));
    }

    #[test]
    fn ivecs_has_k_before_each_row_of_keys_and_no_distances() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ivecs");
        some().write(&path).unwrap();
        let wanted = ints(&[3, 7, 0, i32::MAX, 3, 4, 5, -1]);
        assert_eq!(fs::read(&path).unwrap(), wanted);
        let read = Truth::read(&path).unwrap();
        assert_eq!((read.keys(0), read.keys(1)), (some().keys(0), some().keys(1)));
        assert_eq!(read.distances(0), None);
    }

    #[test]
    fn an_existing_file_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ibin");
        fs::write(&path, "mine").unwrap();
        assert_eq!(some().write(&path).unwrap_err().kind(), ErrorKind::CannotCreate);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_format_cannot_hold_is_a_usage_error() {
        let folder = tempfile::tempdir().unwrap();
        for (keys, distances, name, wanted) in [
            (
                1 << 31,
                Some(vec![1.0]),
                "a.ibin",
                "cannot hold key 2147483648; wanted keys below 2^31",
            ),
            (1 << 31, None, "a.ivecs", "cannot hold key 2147483648; wanted keys below 2^31"),
            (1, None, "a.ibin", "cannot hold keys without distances; wanted ivecs for them"),
            (1, None, "a.npy", "extension \"npy\" is unknown; wanted ibin, ivecs"),
        ] {
            let truth = Truth::new(1, 1, vec![keys], distances).unwrap();
            let error = truth.write(folder.path().join(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().ends_with(wanted), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn lengths_that_contradict_the_header_are_refused() {
        let file = ints(&[1, 2, 10, 11, 0, 0]);
        let shape = "wanted 24 bytes for 1 queries of 2 keys and distances";
        assert_eq!(refused(&file[..16], "a.ibin"), format!("found 16 bytes, 8 too few; {shape}"));
        let long = [&file[..], &[0; 3]].concat();
        assert_eq!(refused(&long, "a.ibin"), format!("found 27 bytes, 3 too many; {shape}"));
        assert_eq!(refused(&ints(&[0, 2]), "a.ibin"), "holds no rows; wanted at least 1");
        assert_eq!(refused(&ints(&[2, 0]), "a.ibin"), "at byte 4: found k = 0; wanted at least 1");
        assert!(refused(&ints(&[-1, -1]), "a.ibin").contains("wanted a length below 2^63 bytes"));
        assert!(refused(&[0; 5], "a.ibin").contains("found a file of 5 bytes"));

        assert_eq!(
            refused(&ints(&[2, 1, 1, 2, 1]), "a.ivecs"),
            "found 20 bytes, 4 too few; wanted 24 bytes for 2 queries of 2 keys, as the first says"
        );
        assert_eq!(
            refused(&ints(&[2, 1, 1, 1, 1, 1]), "a.ivecs"),
            "at byte 12: found another k in query 1; wanted 2, as the first query says"
        );
        assert_eq!(refused(&ints(&[-5]), "a.ivecs"), "at byte 0: found k = -5; wanted at least 1");
        assert_eq!(refused(&[], "a.ivecs"), "holds no rows; wanted at least 1");
    }

    #[test]
    fn numbers_that_are_no_ground_truth_name_query_and_neighbour() {
        let new = |keys: &[i64], distances: &[f32]| {
            Truth::new(2, 2, keys.to_vec(), Some(distances.to_vec())).unwrap_err().to_string()
        };
        assert_eq!(
            new(&[1, 2, 3, -2], &[0.0; 4]),
            "query 1, neighbour 1: found key -2; wanted a key or -1 for none"
        );
        assert_eq!(
            new(&[1, 2, 3, 4], &[0.0, 1.0, f32::NAN, 1.0]),
            "query 1, neighbour 0: found distance NaN; wanted a finite number"
        );
        assert_eq!(
            new(&[1, 2, 3, 4], &[0.0, 1.0, 0.9, 0.8]),
            "query 1, neighbour 1: found distance 0.8; \
             wanted at least 0.9, the distance before (smaller is closer)"
        );
        assert_eq!(
            new(&[1, 2, 3, 4], &[0.0; 3]),
            "found 3 distances for 2 queries of 2 neighbours; wanted 2 x 2"
        );
        for (queries, k) in [(0, 0), (0, 3), (3, 0), (usize::MAX, 2)] {
            assert!(Truth::new(queries, k, vec![], None).is_err(), "{queries} x {k}");
        }
        let file = ints(&[1, 2, 10, -7, 0, 0]);
        assert!(refused(&file, "a.ibin").starts_with("query 0, neighbour 1: found key -7"));
    }

    #[test]
    fn the_distance_of_a_missing_neighbour_becomes_infinite() {
        let truth = Truth::new(1, 3, vec![5, -1, -1], Some(vec![2.0, 0.0, f32::NAN])).unwrap();
        assert_eq!(truth.distances(0), Some(&[2.0, f32::INFINITY, f32::INFINITY][..]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(
            head in prop::collection::vec(0i32..5, 0..12),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let folder = tempfile::tempdir().unwrap();
            for extension in TruthFormat::names() {
                let path = folder.path().join("a").with_extension(extension);
                fs::write(&path, [ints(&head), rest.clone()].concat()).unwrap();
                if let Ok(truth) = Truth::read(&path) {
                    assert!(truth.queries() * truth.k() * 4 <= head.len() * 4 + rest.len());
                }
            }
        }
    }
}
