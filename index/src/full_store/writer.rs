//! Writes full vectors in id order.

use std::path::Path;

use foveal_datasets::{Element, Rows};

use super::layout::Layout;
use crate::disk::{ArrayKind, ArrayShape, ArrayWriter, FileEntry, Storage, WriteError};

/// Writes `vectors.bin` from the first row to the last, padding each unit to whole blocks.
pub struct FullStoreWriter<'a> {
    array: ArrayWriter<'a>,
    layout: Layout,
    element: Element,
    dim: usize,
    /// Rows to come.
    left: u32,
    /// Rows in the unit that is being filled.
    filled: u32,
    zeros: Vec<u8>,
}

impl<'a> FullStoreWriter<'a> {
    /// Starts the store of `n` rows of `dim` numbers each in `dir`.
    ///
    /// # Errors
    /// The file is there already or cannot be written.
    pub fn create(
        storage: &'a dyn Storage,
        dir: &'a Path,
        n: u32,
        dim: usize,
        element: Element,
    ) -> Result<FullStoreWriter<'a>, WriteError> {
        let layout = Layout::new(dim * element.size());
        let shape = ArrayShape {
            rows: n.into(),
            stride: layout.row_bytes() as u32,
            data_bytes: layout.data_bytes(n),
            first: 0,
        };
        let array = ArrayWriter::create(storage, dir, ArrayKind::Vectors, shape)?;
        let padding = layout.unit_bytes() - layout.rows_per_unit() as usize * layout.row_bytes();
        let zeros = vec![0; padding];
        Ok(FullStoreWriter { array, layout, element, dim, left: n, filled: 0, zeros })
    }

    /// Appends rows.
    ///
    /// # Errors
    /// The disk refuses.
    ///
    /// # Panics
    /// If the rows are of another dimension or type, or more than announced.
    pub fn append(&mut self, rows: &Rows) -> Result<(), WriteError> {
        assert_eq!((rows.dim(), rows.element()), (self.dim, self.element), "rows of the store");
        assert!(rows.len() <= self.left as usize, "no more rows than announced");
        self.left -= rows.len() as u32;
        for row in rows.values().bytes().chunks_exact(self.layout.row_bytes()) {
            self.array.append(row)?;
            self.filled += 1;
            if self.filled == self.layout.rows_per_unit() {
                self.array.append(&self.zeros)?;
                self.filled = 0;
            }
        }
        Ok(())
    }

    /// Fills up the last unit; returns once the files are on the device.
    ///
    /// # Errors
    /// The disk refuses.
    ///
    /// # Panics
    /// If rows are missing.
    pub fn finish(mut self) -> Result<[FileEntry; 2], WriteError> {
        assert_eq!(self.left, 0, "as many rows as announced");
        if self.filled > 0 {
            let used = self.filled as usize * self.layout.row_bytes();
            self.array.append(&vec![0; self.layout.unit_bytes() - used])?;
        }
        self.array.finish()
    }
}
