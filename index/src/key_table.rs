//! Which key does an id have, and which id a key?

use std::path::Path;

use crate::disk::{
    ArrayHeader, ArrayKind, ArrayShape, ArrayWriter, FileEntry, Manifest, OpenArray, OpenError,
    RamArray, Storage, WriteError,
};
use crate::kernel::prefetch;

/// The keys of all rows, by id, in memory: 4 bytes a row where all keys lie within 2^32 of each
/// other, else 8.
#[derive(Debug)]
pub struct KeyTable {
    stored: Stored,
}

#[derive(Debug)]
enum Stored {
    /// Keys less the smallest one.
    Narrow {
        first: u64,
        above: RamArray<u32>,
    },
    Wide(RamArray<u64>),
}

impl KeyTable {
    /// Writes the keys of the rows, in id order, into `dir`. Goes over them twice.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(
        storage: &dyn Storage,
        dir: &Path,
        keys: impl Iterator<Item = u64> + Clone,
    ) -> Result<[FileEntry; 2], WriteError> {
        let (mut first, mut last, mut rows) = (u64::MAX, 0, 0);
        for key in keys.clone() {
            (first, last, rows) = (first.min(key), last.max(key), rows + 1);
        }
        let narrow = last.saturating_sub(first) <= u64::from(u32::MAX);
        let shape = match narrow {
            true => ArrayShape { first, ..ArrayShape::packed(rows, 4) },
            false => ArrayShape::packed(rows, 8),
        };
        let mut writer = ArrayWriter::create(storage, dir, ArrayKind::Keys, shape)?;
        for key in keys {
            match narrow {
                true => writer.append(&((key - first) as u32).to_le_bytes())?,
                false => writer.append(&key.to_le_bytes())?,
            }
        }
        writer.finish()
    }

    /// Reads the keys of the index in `dir`, verifying each block on the way.
    ///
    /// # Errors
    /// The first damage found; memory or a read refused.
    pub fn load(dir: &Path, manifest: &Manifest) -> Result<KeyTable, OpenError> {
        let array = OpenArray::open(dir, manifest, ArrayKind::Keys)?;
        let ArrayHeader { shape, .. } = *array.header();
        let stored = match (shape.stride, shape.first) {
            (4, first) => Stored::Narrow { first, above: array.read_all()? },
            (8, 0) => Stored::Wide(array.read_all()?),
            (stride, first) => {
                let what = format!("keys of {stride} bytes above {first}; wanted 4, or 8 above 0");
                return Err(OpenError::damaged(array.path(), 0, what));
            }
        };
        Ok(KeyTable { stored })
    }

    /// Asks the memory for the key of a row.
    #[inline]
    pub(crate) fn prefetch(&self, id: u32) {
        match &self.stored {
            Stored::Narrow { above, .. } => prefetch(bytemuck::cast_slice(above), id as usize * 4),
            Stored::Wide(keys) => prefetch(bytemuck::cast_slice(keys), id as usize * 8),
        }
    }

    /// The key of a row. Panics if the id is not below the number of rows.
    #[inline]
    pub fn key(&self, id: u32) -> u64 {
        match &self.stored {
            // A forged table may wrap around: a wrong key, never a panic.
            Stored::Narrow { first, above } => first.wrapping_add(above[id as usize].into()),
            Stored::Wide(keys) => keys[id as usize],
        }
    }

    /// The row that has a key, if any. Scans all keys (1 ms for a few million): meant for the
    /// rare look-up by key, never for a query.
    pub fn id_of(&self, key: u64) -> Option<u32> {
        let at = match &self.stored {
            Stored::Narrow { first, above } => {
                let wanted = u32::try_from(key.checked_sub(*first)?).ok()?;
                above.iter().position(|&value| value == wanted)
            }
            Stored::Wide(keys) => keys.iter().position(|&value| value == key),
        };
        at.map(|id| id as u32)
    }

    /// The smallest key that stands for two rows, which no build lets happen. Sorts a copy.
    pub(crate) fn first_twice(&self) -> Option<u64> {
        let rows = match &self.stored {
            Stored::Narrow { above, .. } => above.len(),
            Stored::Wide(keys) => keys.len(),
        };
        let mut keys: Vec<u64> = (0..rows as u32).map(|id| self.key(id)).collect();
        keys.sort_unstable();
        keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }

    /// Bytes of memory the keys take.
    pub fn resident_bytes(&self) -> u64 {
        match &self.stored {
            Stored::Narrow { above, .. } => above.bytes(),
            Stored::Wide(keys) => keys.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, sample};

    /// Writes the keys and reads them back; bytes a key takes.
    fn check(keys: &[u64]) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyTable::write(&Disk, dir.path(), keys.iter().copied()).unwrap();
        let n = keys.len() as u64;
        let manifest = Manifest { n, files: files.into(), ..sample::manifest() };
        let table = KeyTable::load(dir.path(), &manifest).unwrap();
        for (id, &key) in keys.iter().enumerate() {
            assert_eq!(table.key(id as u32), key);
            assert_eq!(table.id_of(key), Some(id as u32));
            for missing in [key.wrapping_add(1), key.wrapping_sub(1)] {
                let id = keys.iter().position(|&key| key == missing);
                assert_eq!(table.id_of(missing), id.map(|id| id as u32));
            }
        }
        table.resident_bytes() / n
    }

    #[test]
    fn keys_come_back_in_as_few_bytes_as_they_need() {
        assert_eq!(check(&[0]), 4);
        assert_eq!(check(&[u64::MAX]), 4);
        assert_eq!(check(&[7, 5, 6]), 4);
        assert_eq!(check(&[1 << 40, (1 << 40) + u64::from(u32::MAX)]), 4);
        assert_eq!(check(&[1 << 40, (1 << 40) + (1 << 32)]), 8);
        assert_eq!(check(&[u64::MAX, 0, 1 << 32]), 8);
    }

    #[test]
    fn forged_tables_do_not_panic() {
        let dir = tempfile::tempdir().unwrap();
        let load = |shape: ArrayShape| {
            let dir = tempfile::tempdir_in(&dir).unwrap();
            let mut writer =
                ArrayWriter::create(&Disk, dir.path(), ArrayKind::Keys, shape).unwrap();
            writer.append(&vec![0xff; shape.data_bytes as usize]).unwrap();
            let files = writer.finish().unwrap().into();
            KeyTable::load(dir.path(), &Manifest { n: 2, files, ..sample::manifest() })
        };
        let narrow = load(ArrayShape { first: u64::MAX, ..ArrayShape::packed(2, 4) }).unwrap();
        assert_eq!(narrow.key(1), u64::from(u32::MAX) - 1);
        load(ArrayShape { first: 1, ..ArrayShape::packed(2, 8) }).unwrap_err();
        load(ArrayShape::packed(2, 3)).unwrap_err();
    }
}
