//! Keys out of a NumPy file: one axis of integers that are at least 0.

use std::path::Path;

use crate::error::FileError;
use crate::input_file::InputFile;
use crate::layout::one_axis;
use crate::npy;
use crate::rows::Element;
use crate::stored::{Stored, Wide};

/// Keys in file order, of an npy file of whatever name: integers of any width, signed or not, in an
/// array of one axis or of one that is longer than 1.
///
/// # Errors
/// No regular file; no such npy file; a length that contradicts the header; a key below 0.
pub fn read_keys(path: impl AsRef<Path>) -> Result<Vec<u64>, FileError> {
    let input = InputFile::open(path.as_ref())?;
    let npy::Header { stored, shape, data_offset } = npy::read_header(&input)?;
    let wrong = |found: String, wanted: &str| FileError::Field {
        path: input.path().into(),
        offset: 10,
        found,
        wanted: wanted.into(),
    };
    let count = one_axis(&shape)
        .ok_or_else(|| wrong(format!("shape {shape:?}"), "one axis of keys, such as (1000,)"))?;
    let key_of = reader(stored).ok_or_else(|| {
        wrong(format!("keys of {}", stored.name()), "integers: save a.astype('u8')")
    })?;
    let size = stored.size() as u64;
    let bytes = count.checked_mul(size).and_then(|bytes| bytes.checked_add(data_offset));
    input.check_len(bytes, format!("{count} keys of {}", stored.name()))?;
    let mut bytes = vec![0; (count * size) as usize];
    input.read_at(data_offset, &mut bytes)?;
    let keys = bytes.chunks_exact(stored.size()).map(key_of);
    let found = keys.enumerate().map(|(row, key)| match u64::try_from(key) {
        Ok(key) => Ok(key),
        Err(_) => Err(FileError::Content {
            path: input.path().into(),
            found: format!("key {key} in row {row}"),
            wanted: "keys of at least 0".into(),
        }),
    });
    found.collect()
}

/// How bytes become a key; `None` for what is no integer.
fn reader(stored: Stored) -> Option<fn(&[u8]) -> i128> {
    /// Little-endian bytes as a number, without a sign.
    fn unsigned(bytes: &[u8]) -> i128 {
        bytes.iter().rev().fold(0, |number, byte| number << 8 | i128::from(*byte))
    }
    fn signed(bytes: &[u8]) -> i128 {
        let spare = 128 - 8 * bytes.len();
        unsigned(bytes) << spare >> spare
    }
    match stored {
        Stored::As(Element::U8) => Some(unsigned),
        Stored::As(Element::I8) => Some(signed),
        Stored::Wide(Wide::U16 | Wide::U32 | Wide::U64) => Some(unsigned),
        Stored::Wide(Wide::I16 | Wide::I32 | Wide::I64) => Some(signed),
        Stored::As(_) | Stored::Wide(Wide::F64) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::ErrorKind;

    fn read(descr: &str, shape: &str, data: &[u8]) -> Result<Vec<u64>, String> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let head = [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..]].concat();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, [&head[..], text.as_bytes(), data].concat()).unwrap();
        read_keys(&path).map_err(|error| {
            assert_eq!(error.kind(), ErrorKind::BadData, "{error}");
            error.to_string()
        })
    }

    fn words(keys: &[u64]) -> Vec<u8> {
        keys.iter().flat_map(|key| key.to_le_bytes()).collect()
    }

    #[test]
    fn integers_of_every_width_are_keys() {
        let keys = [7, 0, u64::MAX];
        assert_eq!(read("<u8", "(3,)", &words(&keys)), Ok(keys.to_vec()));
        assert_eq!(read("<i8", "(2,)", &words(&[1, 2])), Ok(vec![1, 2]));
        assert_eq!(read("<i4", "(2,)", &[1, 0, 0, 0, 0, 1, 0, 0]), Ok(vec![1, 256]));
        assert_eq!(read("<u4", "(1,)", &[0xff; 4]), Ok(vec![u64::from(u32::MAX)]));
        assert_eq!(read("<i2", "(1, 1)", &[2, 1]), Ok(vec![258]));
        assert_eq!(read("<u2", "(1,)", &[0xff; 2]), Ok(vec![65_535]));
        assert_eq!(read("|u1", "(2, 1)", &[255, 3]), Ok(vec![255, 3]));
        assert_eq!(read("|i1", "(2,)", &[127, 3]), Ok(vec![127, 3]));
        assert_eq!(read("<u8", "(0,)", &[]), Ok(vec![]));
    }

    #[test]
    fn what_is_no_list_of_keys_is_named() {
        let two = words(&[1, 2]);
        for (found, named) in [
            (read("<f4", "(4,)", &two), "keys of f32; wanted integers: save a.astype('u8')"),
            (read("<f8", "(2,)", &two), "keys of f64"),
            (read(">u8", "(2,)", &two), "'>u8'"),
            (read("<u4", "(2, 2)", &two), "shape [2, 2]; wanted one axis of keys"),
            (read("<u8", "()", &two), "shape []"),
            (read("<u8", "(3,)", &two), "8 too few"),
            (read("<u8", "(2305843009213693952,)", &two), "below 2^63"),
            (read("<i8", "(2,)", &words(&[3, u64::MAX])), "found key -1 in row 1; wanted keys of"),
            (read("<i2", "(2,)", &[1, 0, 0, 0x80]), "found key -32768 in row 1"),
        ] {
            let error = found.expect_err(named);
            assert!(error.contains(named), "{error} does not name {named}");
        }
    }
}
