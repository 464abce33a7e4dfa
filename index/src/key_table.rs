//! Which key does an id have, and which id a key?

use std::path::Path;
use std::sync::OnceLock;

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
    /// `[n]`: all ids in the order of their keys; made by the first look-up by key.
    by_key: OnceLock<Vec<u32>>,
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
        Ok(KeyTable { stored, by_key: OnceLock::new() })
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

    /// Whether `id` is a row, and has this key.
    pub(crate) fn is(&self, id: u32, key: u64) -> bool {
        (id as usize) < self.len() && self.key(id) == key
    }

    /// The row that has a key, if any: a binary search. The first one sorts all ids by key, which
    /// takes a tenth of a second for a million, and keeps them: 4 bytes a row.
    pub fn id_of(&self, key: u64) -> Option<u32> {
        let by_key = self.by_key.get_or_init(|| {
            let mut ids: Vec<u32> = (0..self.len() as u32).collect();
            // Keys that stand for two rows, which no build lets happen, keep the order of ids.
            ids.sort_by_key(|id| self.key(*id));
            ids
        });
        let at = by_key.partition_point(|id| self.key(*id) < key);
        by_key.get(at).copied().filter(|id| self.key(*id) == key)
    }

    fn len(&self) -> usize {
        match &self.stored {
            Stored::Narrow { above, .. } => above.len(),
            Stored::Wide(keys) => keys.len(),
        }
    }

    /// The smallest key that stands for two rows, which no build lets happen. Sorts a copy.
    pub(crate) fn first_twice(&self) -> Option<u64> {
        let mut keys: Vec<u64> = (0..self.len() as u32).map(|id| self.key(id)).collect();
        keys.sort_unstable();
        keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
    }

    /// Bytes of memory the keys take, and their order by key once it is made.
    pub fn resident_bytes(&self) -> u64 {
        let keys = match &self.stored {
            Stored::Narrow { above, .. } => above.bytes(),
            Stored::Wide(keys) => keys.bytes(),
        };
        keys + self.by_key.get().map_or(0, |ids| size_of_val(&ids[..]) as u64)
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
        (table.resident_bytes() - 4 * n) / n
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
