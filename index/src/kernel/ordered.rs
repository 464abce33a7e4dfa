//! A sorted array of keys that takes new ones: the candidate pool's inner loop.
//!
//! A key holds everything that orders a candidate in one integer: order-preserving bits of the
//! distance, then the id, then one bit for "expanded". Unused slots hold `u64::MAX`.

use super::level::{Level, best_version};

/// No candidate: sorts behind every key.
pub(crate) const EMPTY: u64 = u64::MAX;

/// The bits of a distance as an integer of the same order; -0 sorts before 0.
#[inline(always)]
pub(crate) fn ordered_bits(distance: f32) -> u32 {
    let bits = distance.to_bits();
    bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000)
}

/// The distance whose `ordered_bits` these are.
#[inline(always)]
pub(crate) fn distance_of_bits(bits: u32) -> f32 {
    f32::from_bits(if bits & 0x8000_0000 != 0 { bits ^ 0x8000_0000 } else { !bits })
}

/// The key of a candidate that is not expanded.
#[inline(always)]
pub(crate) fn key(distance: f32, id: u32) -> u64 {
    u64::from(ordered_bits(distance)) << 32 | u64::from(id) << 1
}

/// `offer(keys, limit, ids, distances)`: puts the candidates whose distance is at most `limit` into
/// `keys` (ascending, full length is the capacity), dropping the last ones; an entry that is there
/// already, expanded or not, stays as it is. Returns the first place that changed, or the length.
pub(crate) type OfferKernel = fn(&mut [u64], f32, &[u32], &[f32]) -> usize;

/// The kernel of a level.
///
/// Panics if this CPU lacks the level.
pub(crate) fn offer(level: Level) -> OfferKernel {
    best_version!(level, Avx512 => avx512, _ => portable)
}

fn portable(keys: &mut [u64], limit: f32, ids: &[u32], distances: &[f32]) -> usize {
    let capacity = keys.len();
    let mut first = capacity;
    for (id, distance) in ids.iter().zip(distances) {
        let key = key(*distance, *id);
        if *distance > limit || key >= keys[capacity - 1] {
            continue;
        }
        let position = keys.partition_point(|other| *other < key);
        if keys[position] | 1 == key | 1 {
            continue;
        }
        keys.copy_within(position..capacity - 1, position + 1);
        keys[position] = key;
        first = first.min(position);
    }
    first
}

#[cfg(target_arch = "x86_64")]
fn avx512(keys: &mut [u64], limit: f32, ids: &[u32], distances: &[f32]) -> usize {
    assert!(!keys.is_empty() && distances.len() >= ids.len());
    // SAFETY: `offer`, the only way here, checked the level; the line above, the lengths.
    unsafe { x86::avx512(keys, limit, ids, distances) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{EMPTY, ordered_bits};

    /// From this capacity on a binary search finds a position faster than counting does.
    const COUNTED: usize = 128;

    /// Candidates that are near enough at first sight, of one group.
    const GROUP: usize = 16;

    /// # Safety
    /// AVX-512 F, BW and VL are there; `keys` is not empty; `distances` is as long as `ids`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt,bmi1,bmi2")]
    pub(super) unsafe fn avx512(
        keys: &mut [u64],
        limit: f32,
        ids: &[u32],
        distances: &[f32],
    ) -> usize {
        let limit = ordered_bits(limit);
        let mut first = keys.len();
        for (ids, distances) in ids.chunks(GROUP).zip(distances.chunks(GROUP)) {
            let worst = (keys[keys.len() - 1] >> 32) as u32;
            let mut news = [EMPTY; GROUP];
            // SAFETY: the level is there; both have as many, at most `GROUP`.
            unsafe {
                let count = near_keys(ids, &distances[..ids.len()], limit.min(worst), &mut news);
                first = first.min(merge(keys, &mut news[..count]));
            }
        }
        first
    }

    /// The keys of the candidates whose ordered bits are at most `limit`, in order, at the front of
    /// `news`, and how many they are; of two that are the same one is `EMPTY`. Each finds its
    /// position by counting the smaller ones: no branch depends on a key.
    ///
    /// # Safety
    /// AVX-512 F is there; `ids` and `distances` have one length, at most `GROUP`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt,bmi1,bmi2")]
    #[inline]
    unsafe fn near_keys(
        ids: &[u32],
        distances: &[f32],
        limit: u32,
        news: &mut [u64; GROUP],
    ) -> usize {
        let lanes = ((1u32 << distances.len()) - 1) as u16;
        // SAFETY: only the lanes of the mask are read, and both have as many.
        let (bits, ids) = unsafe {
            (
                _mm512_maskz_loadu_epi32(lanes, distances.as_ptr().cast()),
                _mm512_maskz_loadu_epi32(lanes, ids.as_ptr().cast()),
            )
        };
        let sign = _mm512_srai_epi32::<31>(bits);
        let ordered = _mm512_xor_si512(bits, _mm512_or_si512(sign, _mm512_set1_epi32(i32::MIN)));
        let near = _mm512_mask_cmple_epu32_mask(lanes, ordered, _mm512_set1_epi32(limit as i32));
        let count = near.count_ones() as usize;
        let (ordered, ids) =
            (_mm512_maskz_compress_epi32(near, ordered), _mm512_maskz_compress_epi32(near, ids));
        let (upper, lower) =
            (_mm512_extracti64x4_epi64::<1>(ordered), _mm512_extracti64x4_epi64::<1>(ids));
        let key = |distance: __m256i, id: __m256i| {
            _mm512_or_si512(
                _mm512_slli_epi64::<32>(_mm512_cvtepu32_epi64(distance)),
                _mm512_slli_epi64::<1>(_mm512_cvtepu32_epi64(id)),
            )
        };
        let some = (1u32 << count) - 1;
        let none = _mm512_set1_epi64(-1);
        let low = key(_mm512_castsi512_si256(ordered), _mm512_castsi512_si256(ids));
        let low = _mm512_mask_mov_epi64(none, some as u8, low);
        let high = _mm512_mask_mov_epi64(none, (some >> 8) as u8, key(upper, lower));
        let mut unordered = [0u64; GROUP];
        // SAFETY: two registers hold sixteen keys.
        unsafe {
            _mm512_storeu_si512(unordered.as_mut_ptr().cast(), low);
            _mm512_storeu_si512(unordered.as_mut_ptr().add(GROUP / 2).cast(), high);
        }
        for key in &unordered[..count] {
            let wanted = _mm512_set1_epi64(*key as i64);
            let mut below = _mm512_cmplt_epu64_mask(low, wanted).count_ones();
            if count > GROUP / 2 {
                below += _mm512_cmplt_epu64_mask(high, wanted).count_ones();
            }
            news[below as usize % GROUP] = *key;
        }
        count
    }

    /// Merges `news`, which are in order, into `keys`; returns the first place that changed.
    /// Every key moves once: a key that was just stored cannot be loaded again across two stores
    /// without a long wait.
    ///
    /// # Safety
    /// AVX-512 F, BW and VL are there; `keys` is not empty.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt,bmi1,bmi2")]
    #[inline]
    unsafe fn merge(keys: &mut [u64], news: &mut [u64]) -> usize {
        let capacity = keys.len();
        let mut positions = [0usize; GROUP];
        let mut kept = 0;
        for i in 0..news.len() {
            let key = news[i];
            // No key is left where two were the same.
            if key >= keys[capacity - 1] {
                continue;
            }
            // SAFETY: the level is there.
            let position = unsafe { position_of(keys, key) };
            if keys[position] | 1 != key | 1 {
                (news[kept], positions[kept]) = (key, position);
                kept += 1;
            }
        }
        let mut end = capacity;
        for i in (0..kept).rev() {
            let (position, shift) = (positions[i], i + 1);
            // SAFETY: `position <= end <= capacity`.
            unsafe { shift_up(keys, position, end.min(capacity.saturating_sub(shift)), shift) };
            if position + i < capacity {
                keys[position + i] = news[i];
            }
            end = position;
        }
        if kept == 0 { capacity } else { positions[0] }
    }

    /// How many keys are smaller.
    ///
    /// # Safety
    /// AVX-512 F is there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt,bmi1,bmi2")]
    #[inline]
    unsafe fn position_of(keys: &[u64], key: u64) -> usize {
        if keys.len() > COUNTED {
            return keys.partition_point(|other| *other < key);
        }
        let wanted = _mm512_set1_epi64(key as i64);
        let (blocks, rest) = keys.as_chunks::<8>();
        let mut below = 0;
        for block in blocks {
            // SAFETY: a block has eight keys.
            let block = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            below += _mm512_cmplt_epu64_mask(block, wanted).count_ones() as usize;
        }
        below + rest.iter().filter(|other| **other < key).count()
    }

    /// Moves `keys[from..to]` up by `shift` slots.
    ///
    /// # Safety
    /// AVX-512 F is there; `to + shift <= keys.len()`, or there is nothing to move.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,popcnt,bmi1,bmi2")]
    #[inline]
    unsafe fn shift_up(keys: &mut [u64], from: usize, to: usize, shift: usize) {
        let mut end = to;
        let keys = keys.as_mut_ptr();
        // SAFETY: every access lies in `from..to + shift`; each block is read before anything at
        // or above it is written.
        unsafe {
            while end >= from + 8 {
                let block = _mm512_loadu_si512(keys.add(end - 8).cast());
                _mm512_storeu_si512(keys.add(end - 8 + shift).cast(), block);
                end -= 8;
            }
            if end > from {
                let rest = ((1u32 << (end - from)) - 1) as u8;
                let block = _mm512_maskz_loadu_epi64(rest, keys.add(from).cast());
                _mm512_mask_storeu_epi64(keys.add(from + shift).cast(), rest, block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    #[test]
    fn bits_keep_the_order_of_distances() {
        let distances = [f32::NEG_INFINITY, -5.0, -1e-40, 0.0, 1e-40, 0.5, 3e38, f32::INFINITY];
        for pair in distances.windows(2) {
            assert!(ordered_bits(pair[0]) < ordered_bits(pair[1]), "{pair:?}");
        }
        for distance in distances {
            assert_eq!(distance_of_bits(ordered_bits(distance)), distance);
        }
    }

    /// The slow twin: a sorted set of everything offered, cut to the capacity.
    #[test]
    fn levels_keep_the_best_of_all_offers() {
        let mut random = Seeded::new(10);
        for capacity in [1, 2, 7, 8, 9, 16, 63, 64, 65, 128, 129, 300] {
            let offers: Vec<(u32, f32)> = (0..700)
                .map(|_| random.below(400) as u32)
                .map(|id| (id, (f64::from(id) * 0.618).fract() as f32 - 0.3))
                .collect();
            let limit = 0.6;
            let mut wanted: Vec<u64> = offers
                .iter()
                .filter(|(_, distance)| *distance <= limit)
                .map(|(id, distance)| key(*distance, *id))
                .collect();
            wanted.sort_unstable();
            wanted.dedup();
            wanted.resize(wanted.len().max(capacity), EMPTY);
            for level in Level::available() {
                let mut keys = vec![EMPTY; capacity];
                for batch in offers.chunks(13) {
                    let (ids, distances): (Vec<u32>, Vec<f32>) = batch.iter().copied().unzip();
                    let before = keys.clone();
                    let first = offer(level)(&mut keys, limit, &ids, &distances);
                    let changed = before.iter().zip(&keys).position(|(x, y)| x != y);
                    assert_eq!(first, changed.unwrap_or(capacity), "{level:?} {capacity}");
                }
                assert_eq!(keys, wanted[..capacity], "{level:?} {capacity}");
            }
        }
    }

    #[test]
    fn an_expanded_entry_is_not_offered_twice() {
        for level in Level::available() {
            let mut keys = vec![EMPTY; 8];
            offer(level)(&mut keys, f32::INFINITY, &[5], &[1.0]);
            keys[0] |= 1;
            assert_eq!(offer(level)(&mut keys, f32::INFINITY, &[5], &[1.0]), 8);
            assert_eq!(keys[1], EMPTY);
        }
    }
}
