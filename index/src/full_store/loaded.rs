//! The full store in memory of its own.

use super::layout::Layout;
use crate::disk::{OpenArray, OpenError, RamArray};

/// All rows, one behind the other: what pads units on disk is left there.
#[derive(Debug)]
pub(super) struct LoadedRows {
    rows: RamArray<u8>,
    /// Bytes of the rows of a unit.
    used: usize,
}

impl LoadedRows {
    /// Reads the `n` rows of an array in order, and verifies each block.
    pub(super) fn load(array: &OpenArray, layout: Layout, n: u32) -> Result<LoadedRows, OpenError> {
        let used = layout.rows_per_unit() as usize * layout.row_bytes();
        let rows = array.read_used((layout.unit_bytes(), used), layout.loaded_bytes(n))?;
        Ok(LoadedRows { rows, used })
    }

    /// The rows of a unit: they start where they start in the unit on disk.
    #[inline]
    pub(super) fn unit(&self, unit: u32) -> &[u8] {
        let rest = &self.rows[unit as usize * self.used..];
        &rest[..self.used.min(rest.len())]
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> u64 {
        self.rows.bytes()
    }
}
