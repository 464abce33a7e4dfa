//! Scores of 4-bit product codes: sums of table entries, for every row of some blocks of an array.
//!
//! Rows come in blocks of 16. A block is `parts / 8` lines: line `g` holds parts `8 g` to `8 g + 7`
//! of its 16 rows, byte `4 r + j` those of row `r`: part `8 g + j` in its lower half, part
//! `8 g + 4 + j` in its upper. A table is a line a four parts: entry `16 j + c` is what code `c` of
//! the `j`-th of them adds. One permutation of a line then looks up 64 parts, and one dot product
//! with ones sums four parts of each row.

use super::LINE;
use super::level::{Level, best_version};

/// Rows of a block.
pub(crate) const BLOCK_ROWS: usize = 16;
/// Parts of a line of codes.
pub(crate) const LINE_PARTS: usize = 8;

/// `kernel(codes, tables, blocks, out)`: `out[16 i + r]` is the sum over the parts of row r of
/// block `blocks[i]` of their entries. `codes` is `[any x parts / 8]` lines, `tables`
/// `[parts / 4]` lines, `out` `[len(blocks) x 16]`. Panics if the lengths do not go together or a
/// block lies outside of `codes`. `O(len(blocks) parts)`.
pub(crate) type LookupKernel = fn(&[u8], &[u8], &[u32], &mut [u32]);

/// The kernel of a level.
///
/// Panics if this CPU lacks the level.
pub(crate) fn kernel(level: Level) -> LookupKernel {
    best_version!(level, Avx512Vbmi => avx512vbmi, Avx2 => avx2, _ => portable)
}

/// Fills `positions` with the places of all values of at least `least`, in order. No value may be
/// NaN.
pub(crate) fn positions_above(values: &[f32], least: f32, positions: &mut Vec<u32>) {
    positions.clear();
    #[cfg(target_arch = "x86_64")]
    if Level::in_use() >= Level::Avx512 {
        positions.reserve(values.len() + BLOCK_ROWS);
        // SAFETY: the level in use is one the CPU has; there is room for each value and a block
        // more, and as many positions are written as are found.
        unsafe {
            let found = x86::positions_above(values, least, positions.as_mut_ptr());
            positions.set_len(found);
        }
        return;
    }
    let all = (0..).zip(values).filter(|(_, value)| **value >= least);
    positions.extend(all.map(|(position, _)| position));
}

/// Where the part of a row lies in its block: the byte, and how far its four bits are shifted.
pub(crate) fn code_position(row: usize, part: usize) -> (usize, u32) {
    let (line, within) = (part / LINE_PARTS, part % LINE_PARTS);
    (line * LINE + 4 * row + within % 4, if within < 4 { 0 } else { 4 })
}

/// Lines of codes of a block. Panics unless tables are whole pairs of lines, `codes` holds every
/// block and `out` has an element for each of their rows.
fn check(codes: &[u8], tables: &[u8], blocks: &[u32], out: &[u32]) -> usize {
    assert!(!tables.is_empty() && tables.len().is_multiple_of(2 * LINE), "eight parts a line");
    let lines = tables.len() / (2 * LINE);
    assert_eq!(out.len(), blocks.len() * BLOCK_ROWS, "whole blocks");
    let held = codes.len() / (lines * LINE);
    let last = blocks.iter().copied().max().map_or(0, |last| last as usize + 1);
    assert!(last <= held, "block {last} of {held}");
    lines
}

fn portable(codes: &[u8], tables: &[u8], blocks: &[u32], out: &mut [u32]) {
    let lines = check(codes, tables, blocks, out);
    for (block, sums) in blocks.iter().zip(out.as_chunks_mut::<BLOCK_ROWS>().0) {
        let block = &codes[*block as usize * lines * LINE..][..lines * LINE];
        *sums = [0; BLOCK_ROWS];
        let halves = block.chunks_exact(LINE).zip(tables.chunks_exact(2 * LINE));
        for (line, tables) in halves {
            let (low, high) = tables.split_at(LINE);
            for (sum, codes) in sums.iter_mut().zip(line.as_chunks::<4>().0) {
                for (j, code) in codes.iter().enumerate() {
                    let (first, second) = (code & 15, code >> 4);
                    *sum += u32::from(low[16 * j + usize::from(first)]);
                    *sum += u32::from(high[16 * j + usize::from(second)]);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2(codes: &[u8], tables: &[u8], blocks: &[u32], out: &mut [u32]) {
    let lines = check(codes, tables, blocks, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, the lengths.
    unsafe { x86::avx2(codes, (tables, lines), blocks, out) }
}

#[cfg(target_arch = "x86_64")]
fn avx512vbmi(codes: &[u8], tables: &[u8], blocks: &[u32], out: &mut [u32]) {
    let lines = check(codes, tables, blocks, out);
    // SAFETY: `kernel`, the only way here, checked the level; the line above, the lengths.
    unsafe { x86::avx512vbmi(codes, (tables, lines), blocks, out) }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::LINE;
    use super::BLOCK_ROWS;

    /// Blocks that share each load of a table.
    const TOGETHER: usize = 4;

    /// # Safety
    /// AVX2 is there; `tables` is `2 lines` lines, `codes` holds all of `blocks`, `lines` lines
    /// each.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn avx2(
        codes: &[u8],
        (tables, lines): (&[u8], usize),
        blocks: &[u32],
        out: &mut [u32],
    ) {
        let ones = _mm256_set1_epi16(1);
        let low_half = _mm256_set1_epi8(15);
        for (block, sums) in blocks.iter().zip(out.chunks_exact_mut(BLOCK_ROWS)) {
            let block = &codes[*block as usize * lines * LINE..][..lines * LINE];
            let mut rows = [_mm256_setzero_si256(); 2];
            for line in 0..lines {
                for (half, rows) in rows.iter_mut().enumerate() {
                    // SAFETY: `line` is below `lines`, and each of its halves 32 bytes.
                    let codes = unsafe {
                        _mm256_loadu_si256(block.as_ptr().add(line * LINE + half * 32).cast())
                    };
                    let low = _mm256_and_si256(codes, low_half);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low_half);
                    for (second, codes) in [low, high].into_iter().enumerate() {
                        let table = &tables[(2 * line + second) * LINE..][..LINE];
                        let found = look_up(table, codes);
                        // Bytes to pairs of one row, pairs to their sum: unsigned, none overflows.
                        let even = _mm256_and_si256(found, _mm256_set1_epi16(255));
                        let pairs = _mm256_add_epi16(even, _mm256_srli_epi16::<8>(found));
                        *rows = _mm256_add_epi32(*rows, _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            // SAFETY: `sums` is 16 numbers.
            unsafe {
                _mm256_storeu_si256(sums.as_mut_ptr().cast(), rows[0]);
                _mm256_storeu_si256(sums.as_mut_ptr().add(8).cast(), rows[1]);
            }
        }
    }

    /// Byte `4 r + j` of the result is entry `16 j + codes[4 r + j]` of `table`, a line.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn look_up(table: &[u8], codes: __m256i) -> __m256i {
        assert_eq!(table.len(), LINE, "a line");
        let mut found = _mm256_setzero_si256();
        for j in 0..4 {
            // SAFETY: 16 bytes from `16 j` on lie inside the line.
            let entries = unsafe { _mm_loadu_si128(table.as_ptr().add(16 * j).cast()) };
            let all = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(entries), codes);
            let mine = _mm256_set1_epi32(0xff << (8 * j));
            found = _mm256_or_si256(found, _mm256_and_si256(all, mine));
        }
        found
    }

    /// # Safety
    /// AVX-512 F is there; `positions` can hold as many numbers as there are values, and 16 more.
    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) unsafe fn positions_above(values: &[f32], least: f32, positions: *mut u32) -> usize {
        let wanted = _mm512_set1_ps(least);
        let first = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        let (blocks, rest) = values.as_chunks::<BLOCK_ROWS>();
        let mut found = 0;
        for (i, block) in blocks.iter().enumerate() {
            // SAFETY: a block is 16 numbers.
            let block = unsafe { _mm512_loadu_ps(block.as_ptr()) };
            let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(block, wanted);
            // Without a branch: which blocks have any is hard to foresee.
            let here = _mm512_add_epi32(first, _mm512_set1_epi32((i * BLOCK_ROWS) as i32));
            let kept = _mm512_maskz_compress_epi32(mask, here);
            // SAFETY: `found` is at most the number of values before this block, and `positions`
            // can hold those and 16 more.
            unsafe { _mm512_storeu_si512(positions.add(found).cast(), kept) };
            found += mask.count_ones() as usize;
        }
        for (i, _) in rest.iter().enumerate().filter(|(_, value)| **value >= least) {
            // SAFETY: fewer were found than there are values.
            unsafe { positions.add(found).write((blocks.len() * BLOCK_ROWS + i) as u32) };
            found += 1;
        }
        found
    }

    /// # Safety
    /// AVX-512 F, BW, VNNI and VBMI are there; `tables` is `2 lines` lines, `codes` holds all of
    /// `blocks`, `lines` lines each, and `out` 16 sums for each.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
    pub(super) unsafe fn avx512vbmi(
        codes: &[u8],
        tables: (&[u8], usize),
        blocks: &[u32],
        out: &mut [u32],
    ) {
        let (several, rest) = blocks.as_chunks::<TOGETHER>();
        let (sums, rest_sums) = out.split_at_mut(several.len() * TOGETHER * BLOCK_ROWS);
        let mut ahead = several.iter().skip(1);
        for (blocks, sums) in several.iter().zip(sums.chunks_exact_mut(TOGETHER * BLOCK_ROWS)) {
            let next = ahead.next().unwrap_or(blocks);
            // SAFETY: `TOGETHER` blocks that `codes` holds, sums for each, and the same for those
            // that are prefetched.
            unsafe { together::<TOGETHER>(codes, tables, (blocks, next), sums) };
        }
        for (block, sums) in rest.iter().zip(rest_sums.chunks_exact_mut(BLOCK_ROWS)) {
            // SAFETY: one block of codes and of sums.
            unsafe { together::<1>(codes, tables, (&[*block], &[*block]), sums) };
        }
    }

    /// Sums of `N` blocks; those of `next` are prefetched meanwhile: what is picked here and there
    /// the CPU does not see coming.
    ///
    /// # Safety
    /// As `avx512vbmi`, for `blocks` and `next`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx512vbmi")]
    unsafe fn together<const N: usize>(
        codes: &[u8],
        (tables, lines): (&[u8], usize),
        (blocks, next): (&[u32; N], &[u32; N]),
        out: &mut [u32],
    ) {
        let ones = _mm512_set1_epi8(1);
        let low_half = _mm512_set1_epi8(15);
        // Byte `4 r + j` looks into the `j`-th sixteen entries of a table.
        let sixteen = _mm512_set1_epi32(0x3020_1000);
        // SAFETY: `codes` holds every block whole.
        let start = |block: u32| unsafe { codes.as_ptr().add(block as usize * lines * LINE) };
        let (blocks, next) = (blocks.map(start), next.map(start));
        let mut sums = [_mm512_setzero_si512(); N];
        for line in 0..lines {
            // SAFETY: `tables` is `2 lines` lines.
            let (low, high) = unsafe {
                let at = tables.as_ptr().add(2 * line * LINE);
                (_mm512_loadu_si512(at.cast()), _mm512_loadu_si512(at.add(LINE).cast()))
            };
            for (i, sum) in sums.iter_mut().enumerate() {
                // SAFETY: a block is `lines` lines, and a prefetch reads nothing.
                let codes = unsafe {
                    _mm_prefetch::<_MM_HINT_T0>(next[i].add(line * LINE).cast());
                    _mm512_loadu_si512(blocks[i].add(line * LINE).cast())
                };
                // (codes & 15) | sixteen
                let first = _mm512_ternarylogic_epi32::<0xea>(codes, low_half, sixteen);
                let shifted = _mm512_srli_epi16::<4>(codes);
                let second = _mm512_ternarylogic_epi32::<0xea>(shifted, low_half, sixteen);
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_permutexvar_epi8(first, low), ones);
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_permutexvar_epi8(second, high), ones);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            // SAFETY: `out` is 16 numbers a block.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(i * BLOCK_ROWS).cast(), sum) };
        }
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    #[test]
    fn sums_are_those_of_the_entries_one_by_one() {
        let mut random = Seeded::new(8);
        for (lines, blocks) in [(1, 0), (1, 1), (1, 3), (2, 4), (5, 5), (18, 9)] {
            let parts = lines * LINE_PARTS;
            let tables: Vec<u8> = (0..2 * lines * LINE).map(|_| random.next_u64() as u8).collect();
            let mut codes = vec![0u8; blocks * lines * LINE];
            let mut wanted = vec![0u32; blocks * BLOCK_ROWS];
            for (i, sum) in wanted.iter_mut().enumerate() {
                for part in 0..parts {
                    let code = (random.next_u64() % 16) as u8;
                    let (byte, shift) = code_position(i % BLOCK_ROWS, part);
                    codes[i / BLOCK_ROWS * lines * LINE + byte] |= code << shift;
                    *sum += u32::from(tables[part * 16 + usize::from(code)]);
                }
            }
            for level in Level::available() {
                let mut found = vec![7u32; wanted.len()];
                let all: Vec<u32> = (0..blocks as u32).collect();
                kernel(level)(&codes, &tables, &all, &mut found);
                assert_eq!(found, wanted, "{level:?}, {lines} lines, {blocks} blocks");
                for some in [vec![], vec![2], vec![1, 3], vec![0, 2, 3, 4, 5, 6, 8, 7, 7]] {
                    let some: Vec<u32> = some.into_iter().filter(|i| *i < blocks as u32).collect();
                    let mut found = vec![7u32; some.len() * BLOCK_ROWS];
                    kernel(level)(&codes, &tables, &some, &mut found);
                    let of = |block: &u32| &wanted[*block as usize * BLOCK_ROWS..][..BLOCK_ROWS];
                    let wanted: Vec<u32> = some.iter().flat_map(of).copied().collect();
                    assert_eq!(found, wanted, "{level:?}, {lines} lines, blocks {some:?}");
                }
            }
        }
    }

    #[test]
    fn places_above_are_found_in_order() {
        let mut random = Seeded::new(9);
        for n in [0, 1, 15, 16, 17, 100, 1000] {
            let values: Vec<f32> = (0..n).map(|_| random.gaussian()).collect();
            for least in [f32::MIN, -0.5, 0.7, 9.0] {
                let positions = (0..).zip(&values).filter(|(_, value)| **value >= least);
                let wanted: Vec<u32> = positions.map(|(position, _)| position).collect();
                let mut found = vec![3; 7];
                positions_above(&values, least, &mut found);
                assert_eq!(found, wanted, "{n} {least}");
            }
        }
        let mut found = Vec::new();
        positions_above(&[f32::NEG_INFINITY; 40], f32::MIN, &mut found);
        assert_eq!(found, [0u32; 0]);
    }

    #[test]
    fn the_largest_sum_is_exact() {
        let (lines, blocks) = (128, 5);
        let (tables, codes) = (vec![255; 2 * lines * LINE], vec![0xff; blocks * lines * LINE]);
        for level in Level::available() {
            let mut found = vec![0; blocks * BLOCK_ROWS];
            kernel(level)(&codes, &tables, &[0, 1, 2, 3, 4], &mut found);
            assert!(found.iter().all(|sum| *sum == 255 * 1024), "{level:?}");
        }
    }
}
