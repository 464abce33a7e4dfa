//! Which ids of a neighbor list a walk has not seen yet.
//!
//! The table is lossy: an id's low bits pick a slot, which holds its high bits and the number of
//! the walk. An id may be forgotten when another one takes its slot, which costs a distance
//! computed twice; an id not seen is never taken for one that was.
//!
//! Ids go through in groups of 16: all slots of a group are read, then all are written, in order.

use super::level::{Level, best_version};

/// Low bits of an id that pick its slot.
pub(crate) const SLOT_BITS: u32 = 14;
/// Ids are below 2^31: what remains of them, and how far the number of the walk is shifted.
pub(crate) const HIGH_BITS: u32 = 31 - SLOT_BITS;
/// Fills the slots of a list that hold no id; they come last.
pub(crate) const NO_ID: u32 = u32::MAX;
/// Ids of a group, and how many elements `out` must have beyond the list's.
pub(crate) const GROUP: usize = 16;

/// `[2^SLOT_BITS]` slots.
pub(crate) type Slots = [u32; 1 << SLOT_BITS];

/// `fresh(slots, walk, list, out)`: writes the ids of `list` that are new to walk number `walk` to
/// the front of `out`, in order, and returns how many; they are seen from then on. What follows
/// them in `out` is anything. Panics if `out` is not `GROUP` elements longer than `list`.
pub(crate) type FreshKernel = fn(&mut Slots, u32, &[u32], &mut [u32]) -> usize;

/// The kernel of a level.
///
/// Panics if this CPU lacks the level.
pub(crate) fn kernel(level: Level) -> FreshKernel {
    best_version!(level, Avx512 => avx512, _ => portable)
}

fn check(list: &[u32], out: &[u32]) {
    assert!(out.len() >= list.len() + GROUP, "room for every id and a group");
}

fn portable(slots: &mut Slots, walk: u32, list: &[u32], out: &mut [u32]) -> usize {
    check(list, out);
    let slot = |id: u32| (id & ((1 << SLOT_BITS) - 1)) as usize;
    let mark = |id: u32| walk << HIGH_BITS | id >> SLOT_BITS;
    let mut count = 0;
    for group in list.chunks(GROUP) {
        let ids = group.iter().take_while(|id| **id != NO_ID);
        for id in ids.clone() {
            out[count] = *id;
            count += usize::from(slots[slot(*id)] != mark(*id));
        }
        ids.for_each(|id| slots[slot(*id)] = mark(*id));
    }
    count
}

#[cfg(target_arch = "x86_64")]
fn avx512(slots: &mut Slots, walk: u32, list: &[u32], out: &mut [u32]) -> usize {
    check(list, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, the lengths.
    unsafe { x86::avx512(slots, walk, list, out) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{GROUP, HIGH_BITS, NO_ID, SLOT_BITS, Slots};

    /// # Safety
    /// AVX-512 F is there; `out` is `GROUP` elements longer than `list`.
    #[target_feature(enable = "avx512f,popcnt,bmi1,bmi2")]
    pub(super) unsafe fn avx512(
        slots: &mut Slots,
        walk: u32,
        list: &[u32],
        out: &mut [u32],
    ) -> usize {
        let walk = _mm512_set1_epi32((walk << HIGH_BITS) as i32);
        let low = _mm512_set1_epi32((1 << SLOT_BITS) - 1);
        let none = _mm512_set1_epi32(NO_ID as i32);
        let slots = slots.as_mut_ptr().cast::<i32>();
        let mut count = 0;
        for group in list.chunks(GROUP) {
            let lanes = ((1u32 << group.len()) - 1) as u16;
            // SAFETY: only the lanes of the mask are read, and `group` has as many.
            let ids = unsafe { _mm512_mask_loadu_epi32(none, lanes, group.as_ptr().cast()) };
            let some = _mm512_cmpneq_epi32_mask(ids, none);
            let at = _mm512_and_si512(ids, low);
            let marks = _mm512_or_si512(walk, _mm512_srli_epi32::<SLOT_BITS>(ids));
            // SAFETY: `at` holds slots, all of them inside the table.
            let old = unsafe { _mm512_i32gather_epi32::<4>(at, slots) };
            let fresh = _mm512_mask_cmpneq_epi32_mask(some, old, marks);
            let (mut positions, mut new) = ([0u32; GROUP], [0i32; GROUP]);
            // SAFETY: both arrays are as long as a register.
            unsafe {
                _mm512_storeu_si512(positions.as_mut_ptr().cast(), at);
                _mm512_storeu_si512(new.as_mut_ptr().cast(), marks);
            }
            // One by one: where scatters are microcode they take several times as long.
            for (position, mark) in positions.iter().zip(new).take(some.count_ones() as usize) {
                // SAFETY: as above.
                unsafe { *slots.add(*position as usize) = mark };
            }
            let kept = _mm512_maskz_compress_epi32(fresh, ids);
            // SAFETY: at most `list.len()` ids were kept before this group, and `out` has `GROUP`
            // elements more.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(count).cast(), kept) };
            count += fresh.count_ones() as usize;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    #[test]
    fn the_unseen_are_never_missed_and_the_seen_are_mostly_known() {
        for level in Level::available() {
            let fresh = kernel(level);
            let mut slots = [0; 1 << SLOT_BITS];
            for walk in 1..200u32 {
                let id = walk.wrapping_mul(2_654_435_761) >> 1;
                let list = [id, id ^ 1 << 30, NO_ID, NO_ID];
                let mut out = [0; 4 + GROUP];
                assert_eq!(fresh(&mut slots, walk, &list, &mut out), 2, "{level:?} {walk}");
                assert_eq!(out[..2], list[..2], "ids of one slot");
                assert_eq!(fresh(&mut slots, walk, &list[1..], &mut out), 0);
                assert_eq!(fresh(&mut slots, walk, &list, &mut out), 1, "the first was forgotten");
            }
        }
    }

    #[test]
    fn levels_agree_on_any_list() {
        let mut random = Seeded::new(4);
        let start = || vec![0u32; 1 << SLOT_BITS].into_boxed_slice();
        let mut tables: Vec<_> = Level::available().map(|level| (level, start())).collect();
        for round in 0..2000 {
            let length = random.below(70) as usize;
            let mut list: Vec<u32> =
                (0..length).map(|_| (random.below(3) << 29 | random.below(300)) as u32).collect();
            list.extend(vec![NO_ID; random.below(4) as usize]);
            let walk = 1 + round / 100;
            let mut wanted = None;
            for (level, slots) in &mut tables {
                let mut out = vec![0; list.len() + GROUP];
                let slots: &mut Slots = (&mut slots[..]).try_into().unwrap();
                let count = kernel(*level)(slots, walk, &list, &mut out);
                let found = (out[..count].to_vec(), slots.to_vec());
                assert_eq!(*wanted.get_or_insert(found.clone()), found, "{level:?} {list:?}");
            }
        }
    }
}
