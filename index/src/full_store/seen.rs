//! Which units has this query reserved already?

/// A set of units that is emptied in no time. An open-addressed table; each entry carries the
/// number of its query, so that older entries count as free.
#[derive(Debug)]
pub(super) struct SeenUnits {
    /// Query number in the upper half, unit in the lower; length a power of two.
    slots: Box<[u64]>,
    query: u32,
    len: usize,
}

/// Enough for 128 units, at 2 KiB.
const FIRST_SLOTS: usize = 256;

impl SeenUnits {
    pub(super) fn new() -> SeenUnits {
        SeenUnits { slots: vec![0; FIRST_SLOTS].into(), query: 1, len: 0 }
    }

    /// Empties the set. Keeps its memory.
    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.query = self.query.wrapping_add(1);
        if self.query == 0 {
            self.slots.fill(0);
            self.query = 1;
        }
    }

    /// Adds a unit; whether it was not there. A few nanoseconds.
    #[inline]
    pub(super) fn insert(&mut self, unit: u32) -> bool {
        let slot = self.slot(unit);
        let entry = self.entry(unit);
        if self.slots[slot] == entry {
            return false;
        }
        self.slots[slot] = entry;
        self.len += 1;
        if self.len * 2 > self.slots.len() {
            self.grow();
        }
        true
    }

    /// Whether a unit is there.
    #[inline]
    pub(super) fn contains(&self, unit: u32) -> bool {
        self.slots[self.slot(unit)] == self.entry(unit)
    }

    fn entry(&self, unit: u32) -> u64 {
        u64::from(self.query) << 32 | u64::from(unit)
    }

    /// The slot that holds a unit, or the free one where it would go. At most half of the slots
    /// are taken, so there is one.
    #[inline]
    fn slot(&self, unit: u32) -> usize {
        let (entry, mask) = (self.entry(unit), self.slots.len() - 1);
        // The upper bits of the product are the mixed ones.
        let mut slot = (u64::from(unit).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        while self.slots[slot] != entry && (self.slots[slot] >> 32) as u32 == self.query {
            slot = (slot + 1) & mask;
        }
        slot
    }

    #[cold]
    fn grow(&mut self) {
        let larger = vec![0; self.slots.len() * 2].into();
        let old = std::mem::replace(&mut self.slots, larger);
        self.len = 0;
        for entry in old {
            if (entry >> 32) as u32 == self.query {
                self.insert(entry as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn agrees_with_a_plain_set() {
        let mut seen = SeenUnits::new();
        let mut next = 1u32;
        for query in 0..50 {
            let mut plain = HashSet::new();
            seen.clear();
            for _ in 0..query * 40 {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let unit = next >> 20;
                assert_eq!(seen.contains(unit), plain.contains(&unit));
                assert_eq!(seen.insert(unit), plain.insert(unit));
            }
        }
    }

    #[test]
    fn old_queries_stay_forgotten_when_their_number_comes_again() {
        let mut seen = SeenUnits::new();
        assert!(seen.insert(0) && seen.insert(7) && !seen.insert(7));
        seen.query = u32::MAX;
        seen.clear();
        assert_eq!(seen.query, 1);
        assert!(seen.insert(7) && seen.insert(0));
    }
}
