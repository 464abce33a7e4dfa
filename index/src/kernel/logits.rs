//! Loops over the logits of a decode, the same bits on every level.

use super::lanes::{LANES, by_halves};
use super::level::{Level, for_every_level};

/// Values of a tile of weights.
pub(crate) const TILE: usize = LANES * LANES;

for_every_level! {
    /// Row i of `out` becomes row i of `sums` times unit, plus base, plus row `blocks[i]` of
    /// `offsets`, with `(base, unit)`; a row is 16 numbers. Panics if there are fewer sums than
    /// places, or a block lies outside of the offsets.
    scale_blocks, scale_blocks_text,
    (sums: &[u32], offsets_and_blocks: (&[f32], &[u32]), base_and_unit: (f32, f32), out: &mut [f32])
}
for_every_level! {
    /// What each centroid of a group adds to a sum, less the least of its group, in `entries`
    /// (`[groups x 16]`), for a query in groups of `sizes` numbers and centroids
    /// `[len(query) x 16]`. Returns the sum of what was taken off, and the largest entry. Panics if
    /// the lengths do not go together.
    table_entries, table_entries_text,
    (query: &[f32], sizes: &[u16], centroids: &[f32], entries: &mut [f32]) -> (f32, f32)
}
for_every_level! {
    /// `entries` times `scale` to the nearest whole numbers, ties to even, in bytes. Panics if
    /// there are fewer elements. No product may be below 0 or above 255.
    bytes_of, bytes_of_text, (entries: &[f32], scale: f32, out: &mut [u8])
}
for_every_level! {
    /// For each state (`[len(out) x dim]`) the largest of its inner products with the 16 columns of
    /// `rows` (`[dim x 16]`), with an offset added to each. Panics if the lengths do not go
    /// together.
    largest_products, largest_products_text,
    (rows: &[f32], offsets: &[f32; LANES], states: &[f32], out: &mut [f32])
}
for_every_level! {
    /// The largest of each column of `values` (`[any x len(out)]`). Panics unless rows are whole.
    /// No value may be NaN.
    largest_of_columns, largest_of_columns_text, (values: &[f32], out: &mut [f32])
}
for_every_level! {
    /// How many values are larger than `least`.
    count_above, count_above_text, (values: &[f32], least: f32) -> u32
}
for_every_level! {
    /// `exp((x - shift) * scale)` of each value; relative errors are below 4e-7, and what is below
    /// 1e-37 becomes 0. Panics unless `out` has an element for each.
    exp_of_each, exp_of_each_text,
    (values: &[f32], shift_and_scale: (f32, f32), out: &mut [f32])
}
for_every_level! {
    /// About `exp((x - shift) * scale)` of each value: powers of 2 with straight lines between, up
    /// to 6.2 % more. What is below 1e-37 becomes 0. And the sums of groups: the values of a tile
    /// of 256 that lie 16 apart are one; the last tile may be shorter. Panics unless values are
    /// whole sixteens, `out` has an element for each and `sums` 16 for each tile.
    weights_of, weights_of_text,
    (values: &[f32], shift_and_scale: (f32, f32), out: &mut [f32], sums: &mut [f32])
}

#[inline(always)]
fn scale_blocks_text(
    sums: &[u32],
    (offsets, blocks): (&[f32], &[u32]),
    (base, unit): (f32, f32),
    out: &mut [f32],
) {
    let (sums, out) = (sums.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
    let offsets = offsets.as_chunks::<LANES>().0;
    assert!(sums.len() >= out.len() && blocks.len() >= out.len(), "one a place");
    for ((out, sums), block) in out.iter_mut().zip(sums).zip(blocks) {
        let offsets = &offsets[*block as usize];
        for i in 0..LANES {
            // Sums are far below 2^31, and the signed conversion is one instruction everywhere.
            out[i] = sums[i] as i32 as f32 * unit + (base + offsets[i]);
        }
    }
}

#[inline(always)]
fn table_entries_text(
    query: &[f32],
    sizes: &[u16],
    centroids: &[f32],
    entries: &mut [f32],
) -> (f32, f32) {
    let (entries, centroids) = (entries.as_chunks_mut::<LANES>().0, centroids.as_chunks().0);
    assert!(entries.len() == sizes.len() && centroids.len() == query.len(), "a table a group");
    let (mut start, mut base, mut widest) = (0, 0.0f32, 0.0f32);
    for (entries, size) in entries.iter_mut().zip(sizes) {
        let end = start + usize::from(*size);
        let mut sums = [0.0f32; LANES];
        for (x, centroids) in query[start..end].iter().zip(&centroids[start..end]) {
            let centroids: &[f32; LANES] = centroids;
            for i in 0..LANES {
                sums[i] += x * centroids[i];
            }
        }
        let least = by_halves(sums, |x, y| if y < x { y } else { x });
        let most = by_halves(sums, |x, y| if y > x { y } else { x });
        for i in 0..LANES {
            entries[i] = sums[i] - least;
        }
        base += least;
        widest = if most - least > widest { most - least } else { widest };
        start = end;
    }
    (base, widest)
}

#[inline(always)]
fn bytes_of_text(entries: &[f32], scale: f32, out: &mut [u8]) {
    // 1.5 * 2^23: in the sum the last bits are the whole number.
    const ROUND: f32 = 12_582_912.0;
    assert!(out.len() >= entries.len(), "one a place");
    for (out, entry) in out.iter_mut().zip(entries) {
        *out = (entry * scale + ROUND).to_bits() as u8;
    }
}

#[inline(always)]
fn plus(sums: [f32; LANES], x: f32, row: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|lane| sums[lane] + x * row[lane])
}

#[inline(always)]
fn largest_products_text(rows: &[f32], offsets: &[f32; LANES], states: &[f32], out: &mut [f32]) {
    let rows = rows.as_chunks::<LANES>().0;
    let dim = rows.len();
    assert_eq!(states.len(), out.len() * dim, "whole states");
    let largest = |sums: &[f32; LANES]| {
        let logits = std::array::from_fn(|i| sums[i] + offsets[i]);
        by_halves(logits, |x, y| if y > x { y } else { x })
    };
    // Four states share each load of a row, in sums of their own: an array of them would not stay
    // in registers.
    let (some, rest) = out.as_chunks_mut::<4>();
    let (first, last) = states.split_at(some.len() * 4 * dim);
    for (states, out) in first.chunks_exact((4 * dim).max(1)).zip(some) {
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| &states[i * dim..][..dim]);
        let (mut a_sums, mut b_sums) = ([0.0f32; LANES], [0.0f32; LANES]);
        let (mut c_sums, mut d_sums) = ([0.0f32; LANES], [0.0f32; LANES]);
        for ((((row, a), b), c), d) in rows.iter().zip(a).zip(b).zip(c).zip(d) {
            a_sums = plus(a_sums, *a, row);
            b_sums = plus(b_sums, *b, row);
            c_sums = plus(c_sums, *c, row);
            d_sums = plus(d_sums, *d, row);
        }
        // Read through memory, once: else the compiler, on a whim, stores them at every step.
        let sums = std::hint::black_box([a_sums, b_sums, c_sums, d_sums]);
        *out = sums.each_ref().map(largest);
    }
    for (state, out) in last.chunks_exact(dim.max(1)).zip(rest) {
        let mut sums = [0.0f32; LANES];
        for (x, row) in state.iter().zip(rows) {
            sums = plus(sums, *x, row);
        }
        *out = largest(&sums);
    }
}

#[inline(always)]
fn largest_of_columns_text(values: &[f32], out: &mut [f32]) {
    assert!(out.is_empty() || values.len().is_multiple_of(out.len()), "whole rows");
    out.fill(f32::NEG_INFINITY);
    for row in values.chunks_exact(out.len().max(1)) {
        for (most, x) in out.iter_mut().zip(row) {
            *most = if *x > *most { *x } else { *most };
        }
    }
}

#[inline(always)]
fn count_above_text(values: &[f32], least: f32) -> u32 {
    values.iter().map(|x| u32::from(*x > least)).sum()
}

#[inline(always)]
fn exp_of_each_text(values: &[f32], (shift, scale): (f32, f32), out: &mut [f32]) {
    assert_eq!(out.len(), values.len(), "a place for each value");
    out.iter_mut().zip(values).for_each(|(out, x)| *out = exp((x - shift) * scale));
}

#[inline(always)]
fn weights_of_text(values: &[f32], (shift, scale): (f32, f32), out: &mut [f32], sums: &mut [f32]) {
    assert!(out.len() == values.len() && values.len().is_multiple_of(LANES), "whole sixteens");
    assert_eq!(sums.len(), values.len().div_ceil(TILE) * LANES, "sixteen sums a tile");
    out.iter_mut().zip(values).for_each(|(out, x)| *out = about_exp((x - shift) * scale));
    for (tile, sums) in out.chunks(TILE).zip(sums.as_chunks_mut::<LANES>().0) {
        *sums = [0.0; LANES];
        for row in tile.as_chunks::<LANES>().0 {
            *sums = std::array::from_fn(|i| sums[i] + row[i]);
        }
    }
}

/// `e^x` for x below 80, up to 6.2 % more: the bits of `x / ln 2 + 127` are its power of 2 and a
/// straight line (Schraudolph, Neural Computation, 1999).
#[inline(always)]
fn about_exp(x: f32) -> f32 {
    // In a sum from 512 to 1024 the last 14 bits are fractions; 256 times the rest falls out of 32
    // bits, but for a sign.
    const SHIFTED: f32 = 768.0;
    let power = x * std::f32::consts::LOG2_E + 127.0;
    let bits = (power + SHIFTED).to_bits() << 9 & 0x7fff_ffff;
    if power > 1.0 { f32::from_bits(bits) } else { 0.0 }
}

/// `e^x` for x of at most 0, or little more: 2 to a whole power times a polynomial over the rest.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding and taking off 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts: a product of the first with a small integer is exact.
    const LN_2: (f32, f32) = (0.693_145_75, 1.428_606_8e-6);
    // Of the Taylor series, as far as f32 sees on half of ln 2 to either side.
    const TERMS: [f32; 6] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0];
    let held = if x > -86.0 { x } else { -86.0 };
    let held = if held < 80.0 { held } else { 80.0 };
    let whole = (held * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let rest = held - whole * LN_2.0 - whole * LN_2.1;
    let mut series = TERMS[0];
    for term in &TERMS[1..] {
        series = series * rest + term;
    }
    let power = f32::from_bits(((whole as i32 + 127) as u32) << 23);
    if x > -86.0 { (series * rest + 1.0) * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    #[test]
    fn exponentials_agree_with_f64() {
        let values: Vec<f32> = (0..4000).map(|i| 2.0 - i as f32 * 0.02).collect();
        for (shift, scale) in [(0.0, 1.0), (1.5, 0.7), (-3.0, 0.01)] {
            let (mut out, mut about) = (vec![0.0; values.len()], vec![0.0; values.len()]);
            let mut sums = vec![0.0; values.len().div_ceil(TILE) * LANES];
            exp_of_each(&values, (shift, scale), &mut out);
            weights_of(&values, (shift, scale), &mut about, &mut sums);
            for ((x, found), about) in values.iter().zip(&out).zip(&about) {
                let wanted = f64::from((x - shift) * scale).exp();
                assert!((f64::from(*found) / wanted - 1.0).abs() < 4e-7, "exp of {x}: {found}");
                let more = f64::from(*about) / wanted - 1.0;
                assert!((-1e-4..0.0616).contains(&more), "about exp of {x}: {about}");
            }
            let wanted: f64 = about.iter().map(|x| f64::from(*x)).sum();
            let found: f64 = sums.iter().map(|x| f64::from(*x)).sum();
            assert!((found / wanted - 1.0).abs() < 1e-5);
            let group: f32 = about[3 * TILE + 5..4 * TILE].iter().step_by(LANES).sum();
            assert!((sums[3 * LANES + 5] / group - 1.0).abs() < 1e-5);
            let mut twin = vec![0.0; values.len()];
            exp_of_each_text(&values, (shift, scale), &mut twin);
            assert_eq!(twin, out, "levels");
            weights_of_text(&values, (shift, scale), &mut twin, &mut sums);
            assert_eq!(twin, about, "levels");
        }
        let low = [f32::NEG_INFINITY, -90.0, 0.0];
        let mut out = [1.0; 3];
        exp_of_each(&low, (0.0, 1.0), &mut out);
        assert_eq!(out, [0.0, 0.0, 1.0]);
        let mut out = [1.0; LANES];
        let low: [f32; LANES] = std::array::from_fn(|i| low[i % 3]);
        weights_of(&low, (0.0, 1.0), &mut out, &mut [0.0; LANES]);
        assert_eq!(out[..3], [0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_largest_of_each_column() {
        let mut random = Seeded::new(14);
        for (rows, columns) in [(1, 1), (16, 1), (3, 17), (16, 40), (0, 5)] {
            let values: Vec<f32> = (0..rows * columns).map(|_| random.gaussian()).collect();
            let mut found = vec![0.0; columns];
            largest_of_columns(&values, &mut found);
            let column = |j: usize| values.iter().skip(j).step_by(columns).copied();
            let wanted = (0..columns).map(|j| column(j).fold(f32::NEG_INFINITY, f32::max));
            assert_eq!(found, wanted.collect::<Vec<_>>(), "{rows} x {columns}");
        }
    }

    #[test]
    fn tables_hold_what_each_centroid_adds() {
        let mut random = Seeded::new(15);
        let sizes = [3u16, 1, 0, 5];
        let query: Vec<f32> = (0..9).map(|_| random.gaussian()).collect();
        let centroids: Vec<f32> = (0..9 * LANES).map(|_| random.gaussian()).collect();
        let mut entries = vec![7.0; sizes.len() * LANES];
        let (base, widest) = table_entries(&query, &sizes, &centroids, &mut entries);
        let (mut start, mut wanted_base, mut wanted_widest) = (0, 0.0, 0.0f64);
        for (entries, size) in entries.chunks(LANES).zip(sizes) {
            let end = start + usize::from(size);
            let product = |c: usize| -> f64 {
                (start..end).map(|i| f64::from(query[i] * centroids[i * LANES + c])).sum()
            };
            let products: Vec<f64> = (0..LANES).map(product).collect();
            let least = products.iter().copied().fold(f64::INFINITY, f64::min);
            for (entry, product) in entries.iter().zip(&products) {
                assert!((f64::from(*entry) - (product - least)).abs() < 1e-5, "{entry} {product}");
            }
            wanted_base += least;
            wanted_widest = products.iter().fold(wanted_widest, |most, x| most.max(x - least));
            start = end;
        }
        assert!((f64::from(base) - wanted_base).abs() < 1e-5);
        assert!((f64::from(widest) - wanted_widest).abs() < 1e-5);
        let mut twin = entries.clone();
        assert_eq!(table_entries_text(&query, &sizes, &centroids, &mut twin), (base, widest));
        assert_eq!(twin, entries, "levels");

        let mut bytes = [9; 5];
        bytes_of(&[0.0, 0.2, 0.3, 1.0, 127.4], 2.0, &mut bytes);
        assert_eq!(bytes, [0, 0, 1, 2, 255]);
        let mut out = [0.0; 2 * LANES];
        let offsets: Vec<f32> = (0..3 * LANES).map(|i| i as f32).collect();
        let sums: Vec<u32> = (0..40).collect();
        scale_blocks(&sums, (&offsets, &[2, 0]), (10.0, 2.0), &mut out);
        for (i, x) in out.iter().enumerate() {
            let offset = if i < LANES { 2 * LANES + i } else { i - LANES };
            assert_eq!(*x, 2.0 * i as f32 + (10.0 + offset as f32));
        }
    }

    #[test]
    fn the_largest_of_sixteen_products() {
        let mut random = Seeded::new(16);
        for (dim, states) in [(1, 1), (7, 4), (30, 11), (5, 0)] {
            let mut numbers = |n: usize| (0..n).map(|_| random.gaussian()).collect::<Vec<f32>>();
            let (rows, vectors) = (numbers(dim * LANES), numbers(states * dim));
            let mut offsets: [f32; LANES] = numbers(LANES).try_into().unwrap();
            offsets[3] = f32::NEG_INFINITY;
            let mut found = vec![0.0; states];
            largest_products(&rows, &offsets, &vectors, &mut found);
            for (state, found) in vectors.chunks(dim).zip(&found) {
                let product = |lane: usize| -> f64 {
                    let pairs = state.iter().zip(rows.iter().skip(lane).step_by(LANES));
                    pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
                };
                let logits = (0..LANES).map(|lane| product(lane) + f64::from(offsets[lane]));
                let wanted = logits.fold(f64::NEG_INFINITY, f64::max);
                assert!((f64::from(*found) - wanted).abs() < 1e-4, "{found} {wanted}");
            }
            let mut twin = vec![0.0; states];
            largest_products_text(&rows, &offsets, &vectors, &mut twin);
            assert_eq!(twin, found, "levels");
        }
    }
}
