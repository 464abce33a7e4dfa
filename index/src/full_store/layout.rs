//! Where does row id lie?

use std::ops::Range;

use crate::disk::BLOCK;

/// Rows of one size in units of whole blocks. A unit is one block with as many rows as fit, or,
/// for rows larger than a block, one row on as few blocks as hold it. No row lies across a block
/// boundary that it could have avoided, and every row is aligned to the size of its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    row_bytes: u32,
    rows_per_unit: u32,
    blocks_per_unit: u32,
}

impl Layout {
    /// The layout of rows of `row_bytes` bytes. Panics if that is 0 or above 2^31.
    pub fn new(row_bytes: usize) -> Layout {
        assert!((1..=1 << 31).contains(&row_bytes), "rows of {row_bytes} bytes");
        Layout {
            row_bytes: row_bytes as u32,
            rows_per_unit: (BLOCK / row_bytes).max(1) as u32,
            blocks_per_unit: row_bytes.div_ceil(BLOCK) as u32,
        }
    }

    /// Bytes of a row.
    pub fn row_bytes(self) -> usize {
        self.row_bytes as usize
    }

    /// Rows a unit holds; the last unit may hold fewer.
    pub fn rows_per_unit(self) -> u32 {
        self.rows_per_unit
    }

    /// Blocks of a unit.
    pub fn blocks_per_unit(self) -> u32 {
        self.blocks_per_unit
    }

    /// Bytes of a unit: a multiple of the block.
    pub fn unit_bytes(self) -> usize {
        self.blocks_per_unit as usize * BLOCK
    }

    /// How many units hold `n` rows.
    pub fn units(self, n: u32) -> u32 {
        n.div_ceil(self.rows_per_unit)
    }

    /// Bytes of `n` rows without padding.
    pub fn loaded_bytes(self, n: u32) -> u64 {
        u64::from(n) * u64::from(self.row_bytes)
    }

    /// Bytes of `n` rows with all padding.
    pub fn data_bytes(self, n: u32) -> u64 {
        u64::from(self.units(n)) * self.unit_bytes() as u64
    }

    /// The unit that holds row `id`.
    #[inline]
    pub fn unit_of(self, id: u32) -> u32 {
        id / self.rows_per_unit
    }

    /// The rows of a unit that are among `rows`.
    pub fn ids_of(self, unit: u32, rows: Range<u32>) -> Range<u32> {
        let first = unit * self.rows_per_unit;
        first.max(rows.start)..first.saturating_add(self.rows_per_unit).min(rows.end)
    }

    /// Where row `id` lies within its unit, in bytes.
    #[inline]
    pub fn within_unit(self, id: u32) -> Range<usize> {
        let start = (id % self.rows_per_unit) as usize * self.row_bytes();
        start..start + self.row_bytes()
    }

    /// Where a unit starts, in bytes from the first row.
    #[inline]
    pub fn unit_start(self, unit: u32) -> u64 {
        u64::from(unit) * self.unit_bytes() as u64
    }

    /// Which blocks of the file a unit is; block 0 holds the header.
    pub fn file_blocks(self, unit: u32) -> Range<u64> {
        let first = 1 + u64::from(unit) * u64::from(self.blocks_per_unit);
        first..first + u64::from(self.blocks_per_unit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_keep_apart_and_off_block_boundaries(
            row_bytes in prop_oneof![1usize..10_000, Just(4096), Just(4097), 1usize..=262_140],
            id in 0u32..(1 << 31) - 2,
        ) {
            let layout = Layout::new(row_bytes);
            let place = |id: u32| {
                let within = layout.within_unit(id);
                let start = layout.unit_start(layout.unit_of(id));
                start + within.start as u64..start + within.end as u64
            };
            let (row, next) = (place(id), place(id + 1));
            prop_assert_eq!(row.end - row.start, row_bytes as u64);
            prop_assert!(row.end <= next.start);
            prop_assert!(next.end <= layout.data_bytes(id + 2));
            let block = BLOCK as u64;
            let blocks = row.end.div_ceil(block) - row.start / block;
            prop_assert_eq!(blocks, row_bytes.div_ceil(BLOCK) as u64);
            // Rows of k numbers of s bytes start at multiples of s.
            for size in [2u64, 4] {
                let whole = (row_bytes as u64).is_multiple_of(size);
                prop_assert!(!whole || row.start.is_multiple_of(size));
            }
            let first = layout.file_blocks(layout.unit_of(id)).start;
            prop_assert_eq!(first * block, block + layout.unit_start(layout.unit_of(id)));
            // Less than one row of padding in a block of rows, less than a block behind a row.
            let used = layout.rows_per_unit() as usize * row_bytes;
            prop_assert!(layout.unit_bytes() - used < row_bytes.min(BLOCK));
        }
    }
}
