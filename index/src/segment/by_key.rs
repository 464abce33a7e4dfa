//! Full vectors by key: what a ground truth, or anything else from outside, is compared with.

use std::collections::BTreeMap;

use foveal_datasets::{Element, KeyedRows, Rows, Values};

use super::{SearchError, Segment};
use crate::id_set::IdSet;
use crate::stats::{QueryStats, Stop};

impl KeyedRows for Segment {
    type Error = SearchError;

    fn count_known(&self, keys: &[u64]) -> Result<usize, SearchError> {
        keys.iter().try_fold(0, |known, key| Ok(known + usize::from(self.has_key(*key)?)))
    }

    fn rows(&self, keys: &[u64]) -> Result<Rows, SearchError> {
        // A row that several keys of the list name is read once.
        let mut positions: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (position, key) in keys.iter().enumerate() {
            let id = self.shared.keys.id_of(*key)?;
            let id = id.ok_or(SearchError::UnknownKey { key: *key })?;
            positions.entry(id).or_default().push(position);
        }
        let ids: Vec<u32> = positions.keys().copied().collect();
        let (shared, dim) = (&*self.shared, self.dim());
        let mut wide = vec![0.0; keys.len() * dim];
        let mut source = shared.full_vectors();
        source.begin_query();
        let (stop, mut stats) = (Stop::default(), QueryStats::default());
        let wanted = (&ids[..], &stop, &mut stats);
        source.rows(&shared.row_origin(), wanted, &mut |i, row| {
            for position in &positions[&ids[i]] {
                row.widen_into(&mut wide[position * dim..][..dim]);
            }
        })?;
        Ok(Rows::new(dim, Values::F32(wide)).expect("whole rows of the index's dimension"))
    }

    fn some_keys(&self, count: usize) -> Vec<u64> {
        let n = self.len();
        let count = n.min(count as u64);
        (0..count).map(|i| self.shared.keys.key((i * n / count) as u32)).collect()
    }

    fn element(&self) -> Element {
        self.shared.manifest.element
    }
}

impl Segment {
    /// The largest key of a row. Goes over all keys.
    pub fn largest_key(&self) -> u64 {
        let keys = (0..self.len() as u32).map(|id| self.shared.keys.key(id));
        keys.max().expect("an index holds at least one row")
    }

    /// Whether a key names a row. The first look-up by key, whichever it is, reads the order of all
    /// keys: 4 bytes a row.
    ///
    /// # Errors
    /// Damage, or a read refused.
    pub fn has_key(&self, key: u64) -> Result<bool, SearchError> {
        Ok(self.shared.keys.id_of(key)?.is_some())
    }

    /// The rows that `keys` name; keys that name none are left out.
    ///
    /// # Errors
    /// Damage, or a read refused.
    pub fn id_set(&self, keys: &[u64]) -> Result<IdSet, SearchError> {
        let mut ids = Vec::with_capacity(keys.len());
        for key in keys {
            ids.extend(self.shared.keys.id_of(*key)?);
        }
        Ok(IdSet::new(self.len() as u32, ids))
    }
}
