//! Keys out of a NumPy file: one dimension of u64 or i64.

use std::path::Path;

use anyhow::Context;

use super::exit_code::Failure;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Keys in file order, one a row of the base file.
///
/// # Errors
/// No such file; not a one-dimensional `.npy` of u64 or i64; a length that contradicts the
/// header; a key below 0; another number of keys than `rows`.
pub(crate) fn read(path: &Path, rows: usize) -> anyhow::Result<Vec<u64>> {
    let shown = path.display();
    let keys = read_all(path)?;
    if keys.len() != rows {
        let message = format!("{shown}: holds {} keys; wanted {rows}, one a row", keys.len());
        return Err(Failure::bad_data(message).into());
    }
    Ok(keys)
}

/// Keys in file order, however many.
///
/// # Errors
/// As [`read`], but for their number.
pub(crate) fn read_all(path: &Path) -> anyhow::Result<Vec<u64>> {
    let shown = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("{shown}: cannot be read"))?;
    Ok(parse(&bytes).map_err(|what| Failure::bad_data(format!("{shown}: {what}")))?)
}

fn parse(bytes: &[u8]) -> Result<Vec<u64>, String> {
    let (header, data) = split(bytes).ok_or("starts with no header of a .npy file")?;
    let descr = value_of(header, "descr");
    let signed = match descr.map(|text| text.trim_matches(['\'', '"'])) {
        Some("<u8" | "=u8") => false,
        Some("<i8" | "=i8") => true,
        other => {
            return Err(format!("holds {}; wanted <u8 or <i8", other.unwrap_or("no descr")));
        }
    };
    let shape = value_of(header, "shape").unwrap_or("no shape");
    let wrong = || format!("has shape {shape}; wanted one dimension, such as (1000,)");
    let inner = shape.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
    let count = inner.and_then(|text| text.trim().strip_suffix(',')).ok_or_else(wrong)?;
    let count: usize = count.trim().parse().map_err(|_| wrong())?;
    if count.checked_mul(8) != Some(data.len()) {
        return Err(format!("holds {} bytes of keys; {count} keys take 8 each", data.len()));
    }
    let keys: Vec<u64> = data.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    if signed && let Some(row) = keys.iter().position(|key| *key > i64::MAX as u64) {
        return Err(format!("row {row}: found key {}; wanted at least 0", keys[row] as i64));
    }
    Ok(keys)
}

/// The text of the header and the bytes after it.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (len, rest) = match version[0] {
        1 => {
            rest.split_first_chunk::<2>().map(|(n, rest)| (u32::from(u16::from_le_bytes(*n)), rest))
        }
        2 | 3 => rest.split_first_chunk::<4>().map(|(n, rest)| (u32::from_le_bytes(*n), rest)),
        _ => None,
    }?;
    let (header, data) = rest.split_at_checked(len as usize)?;
    Some((std::str::from_utf8(header).ok()?, data))
}

/// The value of a field in the header's dictionary, such as `(3,)` in `{'shape': (3,), }`.
fn value_of<'a>(header: &'a str, field: &str) -> Option<&'a str> {
    let after = header.split_once(&format!("'{field}':"))?.1.trim_start();
    let end = match after.chars().next()? {
        '(' => after.find(')')? + 1,
        _ => after.find([',', '}'])?,
    };
    Some(after[..end].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn words(keys: &[u64]) -> Vec<u8> {
        keys.iter().flat_map(|key| key.to_le_bytes()).collect()
    }

    #[test]
    fn keys_come_in_file_order() {
        let keys = [7, 0, u64::MAX];
        assert_eq!(parse(&npy("<u8", "(3,)", &words(&keys))), Ok(keys.to_vec()));
        assert_eq!(parse(&npy("<i8", "(2,)", &words(&[1, 2]))), Ok(vec![1, 2]));
        assert_eq!(parse(&npy("<u8", "(0,)", &[])), Ok(vec![]));
    }

    #[test]
    fn the_second_header_version_is_read() {
        let text = "{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }\n";
        let mut bytes = MAGIC.to_vec();
        bytes.extend([2, 0]);
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend(words(&[9]));
        assert_eq!(parse(&bytes), Ok(vec![9]));
    }

    #[test]
    fn what_is_no_list_of_keys_is_named() {
        let two = words(&[1, 2]);
        for (bytes, named) in [
            (b"hello".to_vec(), "no header"),
            (npy("<f4", "(2,)", &two), "<f4"),
            (npy(">u8", "(2,)", &two), ">u8"),
            (npy("<u8", "(2, 1)", &two), "(2, 1)"),
            (npy("<u8", "()", &two), "()"),
            (npy("<u8", "(3,)", &two), "16 bytes"),
            (npy("<u8", "(99999999999999999999,)", &two), "99999999999999999999"),
            (npy("<i8", "(2,)", &words(&[3, u64::MAX])), "row 1: found key -1"),
        ] {
            let error = parse(&bytes).expect_err(named);
            assert!(error.contains(named), "{error} does not name {named}");
        }
    }

    #[test]
    fn cut_files_are_errors() {
        let whole = npy("<u8", "(2,)", &words(&[1, 2]));
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn the_number_of_keys_must_be_that_of_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.npy");
        std::fs::write(&path, npy("<u8", "(2,)", &words(&[1, 2]))).unwrap();
        assert_eq!(read(&path, 2).unwrap(), [1, 2]);
        let error = read(&path, 3).unwrap_err();
        assert_eq!(super::super::exit_code::of(&error), 65);
        let missing = read(&dir.path().join("none.npy"), 3).unwrap_err();
        assert_eq!(super::super::exit_code::of(&missing), 66);
    }
}
