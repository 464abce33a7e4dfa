//! Keys out of a NumPy file, one a row.

use std::path::Path;

use foveal_datasets::key_file::read_keys;

use super::exit_code::Failure;

/// Keys in file order, one a row of the base file.
///
/// # Errors
/// As [`read_keys`]; another number of keys than `rows`.
pub(crate) fn read(path: &Path, rows: usize) -> anyhow::Result<Vec<u64>> {
    let keys = read_keys(path)?;
    if keys.len() != rows {
        let (shown, found) = (path.display(), keys.len());
        let message = format!("{shown}: holds {found} keys; wanted {rows}, one a row");
        return Err(Failure::bad_data(message).into());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::super::exit_code;
    use super::*;

    #[test]
    fn the_number_of_keys_must_be_that_of_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.npy");
        let text = "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }\n";
        let length = (text.len() as u16).to_le_bytes();
        let numbers = [1_i32.to_le_bytes(), 2_i32.to_le_bytes()].concat();
        let bytes = [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), &numbers].concat();
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(read(&path, 2).unwrap(), [1, 2]);
        assert_eq!(exit_code::of(&read(&path, 3).unwrap_err()), 65);
        let missing = read(&dir.path().join("none.npy"), 3).unwrap_err();
        assert_eq!(exit_code::of(&missing), 66);
    }
}
