//! Neighbor lists of a fixed stride in one array.

use crate::disk::{MemoryError, RamArray};
use crate::kernel::fresh::NO_ID;
use crate::kernel::{LINE, prefetch};

/// Fills the slots of a list that hold no neighbor; they come last.
pub(crate) const NO_NEIGHBOR: u32 = NO_ID;

/// `[n x stride]` neighbor ids; a list ends at its stride or at `NO_NEIGHBOR`.
pub(crate) struct Adjacency {
    lists: RamArray<u32>,
    stride: usize,
}

impl Adjacency {
    /// `n` empty lists of `stride` slots.
    pub(crate) fn empty(n: usize, stride: usize) -> Result<Adjacency, MemoryError> {
        let mut lists = RamArray::zeroed(n * stride)?;
        lists.fill(NO_NEIGHBOR);
        Ok(Adjacency { lists, stride })
    }

    /// Lists that were read. Panics unless they are whole.
    pub(crate) fn from_lists(lists: RamArray<u32>, stride: usize) -> Adjacency {
        assert!(stride > 0 && lists.len().is_multiple_of(stride), "whole lists");
        Adjacency { lists, stride }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.lists.len() / self.stride
    }

    /// Neighbor slots of a list.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The slots of a node's list, those without a neighbor included.
    #[inline(always)]
    pub(crate) fn slots(&self, id: u32) -> &[u32] {
        &self.lists[id as usize * self.stride..][..self.stride]
    }

    /// The neighbors of a node.
    pub(crate) fn neighbors(&self, id: u32) -> &[u32] {
        let slots = self.slots(id);
        &slots[..filled(slots)]
    }

    /// The slots of a node's list, to be changed.
    pub(crate) fn slots_mut(&mut self, id: u32) -> &mut [u32] {
        &mut self.lists[id as usize * self.stride..][..self.stride]
    }

    /// All lists, in id order.
    pub(crate) fn lists(&self) -> &[u32] {
        &self.lists
    }

    /// All lists, in id order, to be changed.
    pub(crate) fn lists_mut(&mut self) -> &mut [u32] {
        &mut self.lists
    }

    /// Asks the memory for a node's list.
    #[inline(always)]
    pub(crate) fn prefetch(&self, id: u32) {
        let bytes: &[u8] = bytemuck::cast_slice(&self.lists);
        let row = self.stride * size_of::<u32>();
        let at = id as usize * row;
        for offset in (0..row).step_by(LINE) {
            prefetch(bytes, at + offset);
        }
    }
}

/// How many slots of a list hold a neighbor.
pub(crate) fn filled(slots: &[u32]) -> usize {
    slots.iter().position(|id| *id == NO_NEIGHBOR).unwrap_or(slots.len())
}
