//! Which key does an id have, and which id a key?

use std::path::Path;

use rayon::slice::ParallelSliceMut;

use crate::disk::array_header::HEADER;
use crate::disk::{
    ArrayHeader, ArrayKind, ArrayShape, ArrayWriter, FileEntry, LateArray, Manifest, OpenArray,
    OpenError, RamArray, Storage, WriteError,
};
use crate::kernel::prefetch;

/// The keys of all rows, by id, in memory: 4 bytes a row where all keys lie within 2^32 of each
/// other, else 8. The order of the keys, 4 bytes a row, is read by the first look-up by key.
#[derive(Debug)]
pub struct KeyTable {
    stored: Stored,
    /// `[n]`: all ids in the order of their keys.
    order: LateArray<RamArray<u32>>,
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
    /// Writes the keys of `rows` rows and their order into `dir`; `key` gives that of an id.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(
        storage: &dyn Storage,
        dir: &Path,
        rows: u32,
        key: impl Fn(u32) -> u64 + Sync,
    ) -> Result<Vec<FileEntry>, WriteError> {
        let order = order_of(rows, &key);
        let [first, last] = [order.first(), order.last()].map(|id| id.map_or(0, |id| key(*id)));
        let keys = write_keys(storage, dir, (first, last), (0..rows).map(key))?;
        Ok([keys, write_order(storage, dir, &order)?].concat())
    }

    /// The ids in the order of their keys, of an index that may not have them in a file.
    ///
    /// # Errors
    /// The first damage found; memory or a read refused.
    pub(crate) fn sorted_ids(dir: &Path, manifest: &Manifest) -> Result<Vec<u32>, OpenError> {
        let keys = Stored::load(dir, manifest)?;
        Ok(order_of(keys.len() as u32, |id| keys.key(id)))
    }

    /// Reads the keys of the index in `dir`, verifying each block on the way; opens their order.
    ///
    /// # Errors
    /// The first damage found; memory or a read refused.
    pub fn load(dir: &Path, manifest: &Manifest) -> Result<KeyTable, OpenError> {
        let stored = Stored::load(dir, manifest)?;
        let order = OpenArray::open(dir, manifest, ArrayKind::KeyOrder)?;
        order.check_shape(stored.len() as u64, size_of::<u32>())?;
        Ok(KeyTable { stored, order: order.into() })
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
        self.stored.key(id)
    }

    /// Whether `id` is a row, and has this key.
    pub(crate) fn is(&self, id: u32, key: u64) -> bool {
        (id as usize) < self.len() && self.key(id) == key
    }

    /// The row that has a key, if any: a binary search. The first one reads the order of the keys.
    ///
    /// # Errors
    /// The first damage found; memory or a read refused.
    pub fn id_of(&self, key: u64) -> Result<Option<u32>, OpenError> {
        let order = self.order()?;
        let at = order.partition_point(|id| self.key(*id) < key);
        Ok(order.get(at).copied().filter(|id| self.key(*id) == key))
    }

    /// All ids in the order of their keys, read and verified unless they are in memory: each key is
    /// larger than the one before, so that each names one row and each row has its place.
    ///
    /// # Errors
    /// The first damage found; memory or a read refused.
    pub(crate) fn order(&self) -> Result<&[u32], OpenError> {
        let order = self.order.load(|array| {
            let damaged = |at: usize, what: String| {
                Err(OpenError::damaged(array.path(), (HEADER + at * 4) as u64, what))
            };
            let order = array.read_all::<u32>()?;
            if let Some(at) = order.iter().position(|id| *id as usize >= self.len()) {
                return damaged(at, format!("id {}; wanted one below {}", order[at], self.len()));
            }
            let keys = |at: usize| (self.key(order[at]), self.key(order[at + 1]));
            let falls = |at: &usize| keys(*at).0 >= keys(*at).1;
            if let Some(at) = (0..order.len().saturating_sub(1)).find(falls) {
                let (found, previous) = (keys(at).1, keys(at).0);
                return damaged(at + 1, format!("key {found}; wanted one above {previous}"));
            }
            Ok(order)
        })?;
        Ok(order)
    }

    fn len(&self) -> usize {
        self.stored.len()
    }

    /// Bytes of memory the keys take now, with their order if it was read.
    pub fn resident_bytes(&self) -> u64 {
        self.stored.bytes() + self.order.loaded_bytes()
    }

    /// Bytes of memory the keys take at most.
    pub fn most_bytes(&self) -> u64 {
        self.stored.bytes() + self.order.bytes()
    }
}

impl Stored {
    fn load(dir: &Path, manifest: &Manifest) -> Result<Stored, OpenError> {
        let array = OpenArray::open(dir, manifest, ArrayKind::Keys)?;
        let ArrayHeader { shape, .. } = *array.header();
        match (shape.stride, shape.first) {
            (4, first) => Ok(Stored::Narrow { first, above: array.read_all()? }),
            (8, 0) => Ok(Stored::Wide(array.read_all()?)),
            (stride, first) => {
                let what = format!("keys of {stride} bytes above {first}; wanted 4, or 8 above 0");
                Err(OpenError::damaged(array.path(), 0, what))
            }
        }
    }

    #[inline]
    fn key(&self, id: u32) -> u64 {
        match self {
            // A forged table may wrap around: a wrong key, never a panic.
            Stored::Narrow { first, above } => first.wrapping_add(above[id as usize].into()),
            Stored::Wide(keys) => keys[id as usize],
        }
    }

    fn len(&self) -> usize {
        match self {
            Stored::Narrow { above, .. } => above.len(),
            Stored::Wide(keys) => keys.len(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Stored::Narrow { above, .. } => above.bytes(),
            Stored::Wide(keys) => keys.bytes(),
        }
    }
}

/// The ids below `rows` in the order of their keys, which differ.
fn order_of(rows: u32, key: impl Fn(u32) -> u64 + Sync) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..rows).collect();
    ids.par_sort_unstable_by_key(|id| key(*id));
    ids
}

/// Writes the ids in the order of their keys into `dir`.
///
/// # Errors
/// The disk refuses.
pub(crate) fn write_order(
    storage: &dyn Storage,
    dir: &Path,
    order: &[u32],
) -> Result<[FileEntry; 2], WriteError> {
    let shape = ArrayShape::packed(order.len() as u64, 4);
    let mut writer = ArrayWriter::create(storage, dir, ArrayKind::KeyOrder, shape)?;
    writer.append(bytemuck::cast_slice(order))?;
    writer.finish()
}

/// Writes the keys, in id order; all lie from the first to the last of `range`.
fn write_keys(
    storage: &dyn Storage,
    dir: &Path,
    (first, last): (u64, u64),
    keys: impl ExactSizeIterator<Item = u64>,
) -> Result<[FileEntry; 2], WriteError> {
    let rows = keys.len() as u64;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, sample};

    /// Writes the keys and reads them back; bytes a key takes.
    fn check(keys: &[u64]) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let n = keys.len() as u64;
        let files = KeyTable::write(&Disk, dir.path(), n as u32, |id| keys[id as usize]).unwrap();
        let manifest = Manifest { n, files, ..sample::manifest() };
        let table = KeyTable::load(dir.path(), &manifest).unwrap();
        for (id, &key) in keys.iter().enumerate() {
            assert_eq!(table.key(id as u32), key);
            assert_eq!(table.id_of(key).unwrap(), Some(id as u32));
            for missing in [key.wrapping_add(1), key.wrapping_sub(1)] {
                let id = keys.iter().position(|&key| key == missing);
                assert_eq!(table.id_of(missing).unwrap(), id.map(|id| id as u32));
            }
        }
        assert_eq!(table.most_bytes(), table.resident_bytes());
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

    /// A table whose files hold what they should not.
    fn forged(shape: ArrayShape, order: [u32; 2]) -> Result<KeyTable, OpenError> {
        let dir = tempfile::tempdir().unwrap();
        let mut keys = ArrayWriter::create(&Disk, dir.path(), ArrayKind::Keys, shape).unwrap();
        keys.append(&vec![0xff; shape.data_bytes as usize]).unwrap();
        let mut files = keys.finish().unwrap().to_vec();
        let shape = ArrayShape::packed(2, 4);
        let mut ids = ArrayWriter::create(&Disk, dir.path(), ArrayKind::KeyOrder, shape).unwrap();
        ids.append(bytemuck::cast_slice(&order)).unwrap();
        files.extend(ids.finish().unwrap());
        KeyTable::load(dir.path(), &Manifest { n: 2, files, ..sample::manifest() })
    }

    #[test]
    fn forged_tables_do_not_panic() {
        let narrow = ArrayShape { first: u64::MAX, ..ArrayShape::packed(2, 4) };
        let table = forged(narrow, [0, 1]).unwrap();
        assert_eq!(table.key(1), u64::from(u32::MAX) - 1);
        forged(ArrayShape { first: 1, ..ArrayShape::packed(2, 8) }, [0, 1]).unwrap_err();
        forged(ArrayShape::packed(2, 3), [0, 1]).unwrap_err();
        let equal = table.id_of(5).unwrap_err().to_string();
        let wanted =
            "key_order.bin: damaged at byte 68: key 4294967294; wanted one above 4294967294";
        assert!(equal.ends_with(wanted), "{equal}");
        let stranger = forged(narrow, [0, 2]).unwrap().id_of(5).unwrap_err().to_string();
        assert!(stranger.ends_with("key_order.bin: damaged at byte 68: id 2; wanted one below 2"));
    }
}
