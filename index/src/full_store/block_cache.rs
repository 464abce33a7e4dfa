//! Units that were read, in the memory that a limit leaves for them.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::layout::Layout;

/// Units of a set: few to look through, enough to choose from.
const WAYS: usize = 8;
/// What a unit takes beside its bytes, at most.
const ENTRY_BYTES: usize = 64;

/// Units by their number, verified; shared by all readers.
pub(super) struct BlockCache {
    sets: Box<[Mutex<Set>]>,
    /// The most units of a set.
    ways: usize,
}

/// The units of some numbers.
#[derive(Default)]
struct Set {
    entries: Vec<Entry>,
    /// The CLOCK hand: the entry that is examined next when one must be evicted.
    hand: usize,
}

struct Entry {
    unit: u32,
    /// The reference bit: whether it was read since the hand passed it, or since it was added.
    referenced: bool,
    /// Its bytes, at an address that suits numbers of any type.
    words: Box<[u64]>,
}

impl BlockCache {
    /// Room for as many of `units` units as `bytes` bytes hold; none if that is not one.
    pub(super) fn new(bytes: u64, layout: Layout, units: u32) -> Option<BlockCache> {
        let fit = bytes / (layout.unit_bytes() + ENTRY_BYTES) as u64;
        let most = fit.min(u64::from(units)) as usize;
        let sets = most.div_ceil(WAYS);
        let ways = most.checked_div(sets)?;
        Some(BlockCache { sets: (0..sets).map(|_| Mutex::default()).collect(), ways })
    }

    /// Hands a unit to `visit` if it is here; whether it is. Nobody gets at the units of its set
    /// meanwhile, `visit` itself included.
    pub(super) fn visit(&self, unit: u32, visit: impl FnOnce(&[u8])) -> bool {
        let mut set = self.set(unit);
        let Some(entry) = set.entries.iter_mut().find(|entry| entry.unit == unit) else {
            return false;
        };
        entry.referenced = true;
        visit(bytemuck::cast_slice(&entry.words));
        true
    }

    /// Keeps a unit; a full set evicts, by CLOCK, one that was not referenced lately.
    pub(super) fn keep(&self, unit: u32, bytes: &[u8]) {
        let mut set = self.set(unit);
        if set.entries.iter().any(|entry| entry.unit == unit) {
            return;
        }
        if set.entries.len() < self.ways {
            let mut words = vec![0; bytes.len() / size_of::<u64>()];
            bytemuck::cast_slice_mut(&mut words).copy_from_slice(bytes);
            set.entries.push(Entry { unit, referenced: false, words: words.into() });
            return;
        }
        loop {
            let at = set.hand;
            set.hand = (at + 1) % self.ways;
            let entry = &mut set.entries[at];
            if !std::mem::take(&mut entry.referenced) {
                entry.unit = unit;
                bytemuck::cast_slice_mut(&mut entry.words).copy_from_slice(bytes);
                return;
            }
        }
    }

    /// Bytes of the units here. Looks at every set: meant for reports.
    pub(super) fn bytes(&self) -> u64 {
        let held = |set: &Mutex<Set>| -> u64 {
            let set = set.lock().unwrap_or_else(PoisonError::into_inner);
            set.entries.iter().map(|entry| size_of_val(&*entry.words) as u64).sum()
        };
        self.sets.iter().map(held).sum()
    }

    fn set(&self, unit: u32) -> MutexGuard<'_, Set> {
        // The upper half of the product is spread evenly; it is scaled to the number of sets.
        let mixed = u64::from(unit.wrapping_mul(0x9e37_79b9));
        let at = (mixed * self.sets.len() as u64) >> 32;
        // A visitor that panicked has changed nothing here.
        self.sets[at as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BlockCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockCache of {} sets of {} units", self.sets.len(), self.ways)
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    fn bytes_of(unit: u32) -> Vec<u8> {
        unit.to_le_bytes().repeat(1024)
    }

    #[test]
    fn units_come_back_as_they_were_kept_within_the_bytes_given() {
        let layout = Layout::new(128);
        let unit = (4096 + ENTRY_BYTES) as u64;
        for (room, units) in [(1, 40), (7, 40), (8, 40), (9, 40), (30, 40), (100, 40), (1, 1)] {
            let cache = BlockCache::new(room * unit, layout, units).unwrap();
            let mut random = Seeded::new(room);
            let mut hits = 0;
            for _ in 0..2000 {
                let unit = random.next_u64() as u32 % units;
                let is_hit = cache.visit(unit, |bytes| assert_eq!(bytes, bytes_of(unit)));
                if is_hit {
                    hits += 1;
                } else {
                    cache.keep(unit, &bytes_of(unit));
                    assert!(cache.visit(unit, |bytes| assert_eq!(bytes, bytes_of(unit))));
                }
                assert!(cache.bytes() <= room.min(u64::from(units)) * 4096);
            }
            assert!(hits >= 900 * room.min(u64::from(units)) / u64::from(units), "{room}: {hits}");
        }
        assert!(BlockCache::new(unit - 1, layout, 40).is_none());
    }

    #[test]
    fn what_is_asked_for_again_stays() {
        let budget = 8 * (4096 + ENTRY_BYTES) as u64;
        let cache = BlockCache::new(budget, Layout::new(4096), 1000).unwrap();
        cache.keep(0, &bytes_of(0));
        for unit in 1..500 {
            cache.keep(unit, &bytes_of(unit));
            assert!(cache.visit(0, |_| ()), "gone after {unit}");
        }
        assert!(!cache.visit(1, |_| ()));
    }
}
