//! Estimates against exact distances: unbiased, and as far off as they say.

use foveal_datasets::seeded::Seeded;

use crate::code_width::CodeWidth;
use foveal_datasets::{Element, Metric, Row, Rows, Values};

use super::encode::field_positions;
use super::{BORROWED_DIMS, CodeSpace, Encoder, PreparedQuery, Quantizer, Record, RowFacts};
use crate::distance::{QueryDistance, Space};
use crate::kernel::packed;

/// Gaussian rows around a mean that is not zero; the norms differ.
fn gaussian(n: usize, dim: usize, seed: u64) -> Rows {
    let mut random = Seeded::new(seed);
    let mean: Vec<f32> = (0..dim).map(|_| 0.5 * random.gaussian()).collect();
    let mut numbers = Vec::with_capacity(n * dim);
    for _ in 0..n {
        let length = 0.5 + random.next_f32();
        numbers.extend(mean.iter().map(|mean| mean + length * random.gaussian()));
    }
    Rows::new(dim, Values::F32(numbers)).unwrap()
}

fn bytes(element: Element, n: usize, dim: usize, seed: u64) -> Rows {
    let mut random = Seeded::new(seed);
    let bytes: Vec<u8> = (0..n * dim).map(|_| random.next_u64() as u8).collect();
    let values = match element {
        Element::U8 => Values::U8(bytes),
        _ => Values::I8(bytes.into_iter().map(|x| x as i8).collect()),
    };
    Rows::new(dim, values).unwrap()
}

/// Codes of rows, and their extra bits.
struct Encoded {
    codes: Vec<u8>,
    extra: Vec<u8>,
}

fn encode(quantizer: &Quantizer, rows: &Rows) -> (Encoded, RowFacts) {
    let mut encoder = Encoder::new(quantizer);
    let (stride, extra_stride) = (quantizer.stride(), quantizer.extra_stride());
    let mut codes = vec![0xaa; rows.len() * stride];
    let mut extra = vec![0xaa; rows.len() * extra_stride];
    let mut facts = RowFacts::default();
    for (i, row) in rows.iter().enumerate() {
        let records =
            (&mut codes[i * stride..][..stride], &mut extra[i * extra_stride..][..extra_stride]);
        facts = facts.and(encoder.encode(row, records));
    }
    (Encoded { codes, extra }, facts)
}

/// The shown estimate of every row with all of its bits, and one deviation of its error.
fn estimates(
    quantizer: &Quantizer,
    encoded: &Encoded,
    prepared: &PreparedQuery,
) -> Vec<(f32, f32)> {
    let (stride, extra_stride) = (quantizer.stride(), quantizer.extra_stride());
    let ids: Vec<u32> = (0..(encoded.codes.len() / stride) as u32).collect();
    let mut estimates = vec![0.0; ids.len()];
    let distance = quantizer.distance(&encoded.codes, prepared);
    distance.distances(&ids, &mut estimates);
    let (scale, add) = prepared.shown();
    let both = |(id, estimate): (u32, f32)| {
        if extra_stride == 0 {
            return (estimate, distance.error(id));
        }
        let id = id as usize;
        let extra = &encoded.extra[id * extra_stride..][..extra_stride];
        quantizer.extra_estimate(
            prepared,
            (&encoded.codes[id * stride..][..stride], extra),
            estimate,
        )
    };
    let both = ids.into_iter().zip(estimates).map(both);
    both.map(|(estimate, error)| (estimate * scale + add, error * scale)).collect()
}

/// Trains, and makes the quantizer that serves at `bits`, as a build does.
fn serving(metric: Metric, bits: u8, rows: &Rows, seed: u64) -> (Quantizer, Encoded) {
    let first = Quantizer::train(metric, CodeWidth::Eight, rows, seed);
    let (_, facts) = encode(&first, rows);
    let mut serving = first.serving(CodeWidth::of_bits(bits).unwrap(), &facts, (rows, None));
    let (encoded, facts) = encode(&serving, rows);
    serving.note(&facts);
    (serving, encoded)
}

#[test]
fn hard_bounds_are_never_above_the_true_distance() {
    for metric in Metric::ALL {
        for (bits, dim) in
            [(2, 20), (2, 300), (4, 20), (4, 128), (4, 300), (5, 128), (6, 20), (6, 300), (8, 64)]
        {
            let kinds = [gaussian(300, dim, 3), bytes(Element::U8, 300, dim, 4)];
            for rows in kinds {
                let (quantizer, encoded) = serving(metric, bits, &rows, 5);
                let mut prepared = PreparedQuery::default();
                // Queries far and near, one of them a row.
                let far = gaussian(6, dim, 6);
                let wide = |row: Row<'_>| {
                    let mut wide = vec![0.0; dim];
                    row.widen_into(&mut wide);
                    wide
                };
                let near: Vec<f32> = wide(rows.row(7)).iter().map(|x| x * 1.001 + 1e-3).collect();
                let queries = far.iter().map(wide).chain([near, wide(rows.row(9))]);
                let mut tightest = f64::INFINITY;
                for query in queries {
                    prepared.prepare(&quantizer, Row::F32(&query));
                    let estimates = estimates(&quantizer, &encoded, &prepared);
                    for (row, (estimate, _)) in rows.iter().zip(estimates) {
                        let exact = metric.plain_distance(Row::F32(&query), row);
                        let bound = quantizer.lower_bound(&prepared, estimate);
                        let bound = f64::from(bound);
                        assert!(bound <= exact + 1e-9, "{metric} {bits} {dim}: {bound} {exact}");
                        tightest = tightest.min((exact - bound) / exact.abs().max(1e-9));
                    }
                }
                assert!(tightest < 0.9, "{metric} {bits} {dim}: a bound that bounds nothing");
            }
        }
    }
}

/// Statistics of the estimates of many pairs.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    /// Mean of (estimate - exact) / error.
    mean: f64,
    /// Mean of its square.
    variance: f64,
    /// Share of pairs whose exact distance lies below estimate - 1.9 error.
    below_bound: f64,
    /// Root of the mean squared error, as a share of the deviation of exact distances.
    noise: f64,
}

fn report(metric: Metric, bits: u8, dim: usize) -> Report {
    let (n, q) = (300, 20);
    let (mut deviations, mut exacts, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..4 {
        let rows = gaussian(n, dim, 20 + seed);
        let queries = gaussian(q, dim, 50 + seed);
        let (quantizer, encoded) = serving(metric, bits, &rows, seed);
        let mut prepared = PreparedQuery::default();
        for query in queries.iter() {
            prepared.prepare(&quantizer, query);
            let estimates = estimates(&quantizer, &encoded, &prepared);
            for (row, (estimate, error)) in rows.iter().zip(estimates) {
                let exact = metric.plain_distance(query, row);
                let off = f64::from(estimate) - exact;
                deviations.push(off / f64::from(error));
                errors.push(off);
                exacts.push(exact);
            }
        }
    }
    let count = exacts.len() as f64;
    let mean_of = |values: &[f64]| values.iter().sum::<f64>() / count;
    let square_of = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>() / count;
    let spread = square_of(&exacts) - mean_of(&exacts).powi(2);
    Report {
        mean: mean_of(&deviations),
        variance: square_of(&deviations),
        below_bound: deviations.iter().filter(|x| **x > 1.9).count() as f64 / count,
        noise: (square_of(&errors) / spread).sqrt(),
    }
}

#[test]
fn estimates_are_unbiased_and_as_wrong_as_they_say() {
    for metric in Metric::ALL {
        for bits in [2, 4, 5, 6, 8] {
            for dim in [16, 31, 64, 100, 120, 121, 124, 128, 129, 250, 385] {
                let found = report(metric, bits, dim);
                let what = format!("{metric} {bits} bits dim {dim}: {found:?}");
                assert!(found.mean.abs() < 0.06, "{what}");
                assert!((0.93..1.07).contains(&found.variance), "{what}");
                // A normal number is beyond 1.9 deviations 2.9 % of the time.
                assert!((0.022..0.038).contains(&found.below_bound), "{what}");
            }
        }
    }
}

/// A 4-bit code misses a fixed share of a row, more where 32 dimensions gave up a bit.
#[test]
fn codes_miss_as_little_as_they_should() {
    for metric in Metric::ALL {
        let whole = report(metric, 4, 120);
        for dim in [121, 125, 128] {
            let ratio = report(metric, 4, dim).noise / whole.noise;
            assert!((1.2..1.42).contains(&ratio), "{metric} dim {dim}: {ratio}");
        }
        let wider = report(metric, 4, 129).noise / whole.noise;
        assert!((0.85..1.05).contains(&wider), "{metric}: {wider}");
        let pairs = report(metric, 2, 120).noise / whole.noise;
        assert!((3.0..4.0).contains(&pairs), "{metric}: {pairs}");
        let bytes = report(metric, 8, 120).noise / whole.noise;
        assert!(bytes < 0.075, "{metric}: {bytes}");
        // Each extra bit nearly halves the error, within the cells that are there.
        for dim in [120, 128] {
            let noises = [4, 5, 6].map(|bits| report(metric, bits, dim).noise);
            for pair in noises.windows(2) {
                let ratio = pair[1] / pair[0];
                assert!((0.5..0.67).contains(&ratio), "{metric} dim {dim}: {ratio}");
            }
        }
    }
    // Shares of the deviation of exact distances, measured for these rows.
    assert!(report(Metric::L2, 4, 120).noise < 0.029);
    assert!(report(Metric::Cosine, 4, 120).noise < 0.104);
}

/// Rows that differ much along some directions and little along most, as embeddings do, and rows
/// that differ as much along all.
fn embedded(n: usize, dim: usize, decay: f32, seed: u64) -> Rows {
    let mut random = Seeded::new(seed);
    let mut numbers: Vec<f32> = (0..n * dim).map(|_| random.gaussian()).collect();
    for row in numbers.chunks_exact_mut(dim) {
        row.iter_mut().enumerate().for_each(|(i, x)| *x /= 1.0 + decay * i as f32);
        // No direction is that of a coordinate.
        super::rotation::Rotation::new(dim, 77).apply(row);
    }
    Rows::new(dim, Values::F32(numbers)).unwrap()
}

#[test]
fn pairs_keep_the_leading_axes_where_those_will_do() {
    for metric in Metric::ALL {
        let (rows, queries) = (embedded(1500, 600, 0.05, 3), embedded(40, 600, 0.05, 4));
        let (quantizer, encoded) = serving(metric, 2, &rows, 5);
        assert_eq!(quantizer.stride(), 64, "{metric}: three lines would hold all dimensions");
        let mut prepared = PreparedQuery::default();
        let (mut square, mut outside, mut count) = (0.0, 0, 0);
        for query in queries.iter() {
            prepared.prepare(&quantizer, query);
            let estimates = estimates(&quantizer, &encoded, &prepared);
            for (row, (estimate, error)) in rows.iter().zip(estimates) {
                let exact = metric.plain_distance(query, row);
                let deviation = (f64::from(estimate) - exact) / f64::from(error);
                square += deviation * deviation;
                outside += usize::from(deviation > 1.9);
                count += 1;
            }
        }
        let (variance, outside) = (square / count as f64, outside as f64 / count as f64);
        assert!((0.85..1.15).contains(&variance), "{metric}: {variance}");
        assert!((0.02..0.05).contains(&outside), "{metric}: {outside}");
        let even = embedded(1500, 600, 0.0, 3);
        let (quantizer, _) = serving(metric, 2, &even, 5);
        assert!(quantizer.stride() > 64, "{metric}: no direction of these is a leading one");
    }
}

/// In few dimensions errors are not normal, but they still have the reported size.
#[test]
fn estimates_of_few_dimensions_are_no_worse_than_they_say() {
    for metric in [Metric::L2, Metric::InnerProduct] {
        let shapes = [1, 2, 3, 7].map(|dim| [4, 5, 6, 8].map(|bits| (bits, dim)));
        for (bits, dim) in shapes.into_iter().flatten() {
            let found = report(metric, bits, dim);
            let what = format!("{metric} {bits} bits dim {dim}: {found:?}");
            assert!(found.mean.abs() < 0.06 && found.variance < 1.07, "{what}");
            assert!(found.below_bound < 0.042, "{what}");
        }
    }
}

/// The fast way takes the estimate of a walk and adds what its codes lack; this is the whole sum,
/// from the bytes of both records.
fn plain_extra_estimate(
    quantizer: &Quantizer,
    query: &PreparedQuery,
    (code, extra): (&[u8], &[u8]),
) -> (f64, f64) {
    let Record::Packed4 { borrowed } = quantizer.record else { unreachable!("4 bits and more") };
    let (planes, growth) = extra.split_at(extra.len() - 2);
    let growth = half::f16::from_le_bytes([growth[0], growth[1]]).to_f64();
    let bits = usize::from(quantizer.spec.bits - 4);
    let plane_bytes = planes.len() / bits;
    let (mut product, mut square) = (0.0, 0.0);
    for (i, (at, x)) in field_positions(quantizer.dim, 2).zip(&query.residual).enumerate() {
        let packed4 = code[at.byte] >> at.shift & 15;
        let coarse = borrowed && i < BORROWED_DIMS;
        let (level, width) = match coarse {
            true => (f64::from(packed4 & 14) - 7.0, 2.0),
            false => (f64::from(packed4) - 7.5, 1.0),
        };
        let part = (0..bits)
            .fold(0, |part, plane| part << 1 | planes[plane * plane_bytes + i / 8] >> (i % 8) & 1);
        let cells = f64::from(1 << bits);
        let level = level + width * ((f64::from(part) + 0.5) / cells - 0.5);
        product += level * f64::from(*x);
        square += level * level;
    }
    let (a, b) = packed::factors(code, borrowed);
    let start = query.packed.base + b.to_f32() * query.packed.add_unit;
    let scale = 2.0 * a.to_f64() * f64::from(quantizer.spec.scale_unit) * (1.0 + growth);
    // Lanes are off by a twelfth of a squared step each.
    let deviation = scale * f64::from(query.step) * (square / 12.0).sqrt();
    (f64::from(start) - scale * product, deviation)
}

#[test]
fn extra_estimates_are_those_of_the_extra_point() {
    for (metric, dims) in Metric::ALL.into_iter().zip([[1, 128], [31, 129], [32, 120]]) {
        for (dim, bits) in dims.into_iter().flat_map(|dim| [(dim, 5), (dim, 6)]) {
            let (rows, queries) = (gaussian(100, dim, 8), gaussian(5, dim, 9));
            let (quantizer, encoded) = serving(metric, bits, &rows, 5);
            let (stride, extra_stride) = (quantizer.stride(), quantizer.extra_stride());
            let records = encoded.codes.chunks(stride).zip(encoded.extra.chunks(extra_stride));
            let mut prepared = PreparedQuery::default();
            for query in queries.iter() {
                prepared.prepare(&quantizer, query);
                let (scale, add) = prepared.shown();
                let estimates = estimates(&quantizer, &encoded, &prepared);
                for (records, (estimate, _)) in records.clone().zip(estimates) {
                    let (wanted, deviation) = plain_extra_estimate(&quantizer, &prepared, records);
                    let off = f64::from((estimate - add) / scale) - wanted;
                    let limit = 6.0 * deviation + 1e-5 * wanted.abs();
                    assert!(off.abs() <= limit, "{metric} {bits} dim {dim}: {off}, {limit}");
                }
            }
        }
    }
}

/// Exact squared L2 between rows in the search space: what codes of rows stand for in a build.
fn between(metric: Metric, largest_square: f64, x: Row<'_>, y: Row<'_>) -> f64 {
    let square = |row| -Metric::InnerProduct.plain_distance(row, row);
    match metric {
        Metric::L2 => Metric::L2.plain_distance(x, y),
        Metric::Cosine => 2.0 * Metric::Cosine.plain_distance(x, y),
        Metric::InnerProduct => {
            let lift = |row| (largest_square - square(row)).max(0.0).sqrt();
            Metric::L2.plain_distance(x, y) + (lift(x) - lift(y)).powi(2)
        }
    }
}

#[test]
fn byte_rows_at_8_bits_are_exact() {
    for element in [Element::U8, Element::I8] {
        for dim in [1, 2, 31, 63, 64, 65, 128, 385] {
            let (rows, queries) = (bytes(element, 60, dim, 1), bytes(element, 8, dim, 2));
            for metric in Metric::ALL {
                let (quantizer, Encoded { codes, .. }) = serving(metric, 8, &rows, 3);
                assert!(quantizer.is_exact() && quantizer.stride().is_multiple_of(64));
                let mut flipped = vec![0; dim];
                for (row, record) in rows.iter().zip(codes.chunks_exact(quantizer.stride())) {
                    assert_eq!(quantizer.exact_row(record, &mut flipped), row);
                }
                let ids: Vec<u32> = (0..60).collect();
                let mut estimates = vec![0.0; 60];
                let mut prepared = PreparedQuery::default();
                for query in queries.iter() {
                    prepared.prepare(&quantizer, query);
                    quantizer.distance(&codes, &prepared).distances(&ids, &mut estimates);
                    let (scale, add) = prepared.shown();
                    for (row, estimate) in rows.iter().zip(&estimates) {
                        let wanted = metric.plain_distance(query, row);
                        let found = f64::from(estimate * scale + add);
                        // The query has 15 bits under ip and cosine; its lanes round at random.
                        let square = |row| -Metric::InnerProduct.plain_distance(row, row);
                        let slack = match metric {
                            Metric::L2 => 0.0,
                            Metric::InnerProduct => 2e-4 * (square(query) * square(row)).sqrt(),
                            Metric::Cosine => 2e-4,
                        };
                        assert!(
                            (found - wanted).abs() <= slack,
                            "{metric} {element} dim {dim}: {found} {wanted}"
                        );
                    }
                }
            }
        }
    }
}

/// What a graph grows over: distances between 8-bit codes of rows.
#[test]
fn distances_between_rows_are_those_of_the_search_space() {
    let cases = [gaussian(50, 100, 4), gaussian(50, 31, 5)];
    let bytes = [bytes(Element::U8, 50, 70, 6), bytes(Element::I8, 50, 64, 7)];
    for rows in cases.iter().chain(&bytes) {
        for metric in Metric::ALL {
            let quantizer = Quantizer::train(metric, CodeWidth::Eight, rows, 8);
            let (Encoded { codes, .. }, facts) = encode(&quantizer, rows);
            let square = |row| -Metric::InnerProduct.plain_distance(row, row);
            let largest = rows.iter().map(square).fold(0.0, f64::max);
            let lift = |row| (largest - square(row)).max(0.0).sqrt() as f32;
            let lifts: Vec<f32> = match metric {
                Metric::InnerProduct => rows.iter().map(lift).collect(),
                _ => Vec::new(),
            };
            let wanted_square = if metric == Metric::Cosine { 1.0 } else { largest };
            assert!((f64::from(facts.square) / wanted_square - 1.0).abs() < 1e-5);
            let space = CodeSpace::new(&quantizer, &codes, &lifts);
            assert_eq!(space.len(), 50);
            let ids: Vec<u32> = (0..50).collect();
            let (mut scratch, mut found) = (PreparedQuery::default(), vec![0.0; 50]);
            let spread = between(metric, largest, rows.row(0), rows.row(1));
            for from in 0..50 {
                space.distances_from(from, &mut scratch).distances(&ids, &mut found);
                for (to, found) in found.iter().enumerate() {
                    let wanted = between(metric, largest, rows.row(from as usize), rows.row(to));
                    let off = (f64::from(*found) - wanted).abs() / spread;
                    assert!(off < 0.02, "{metric} {}: {found} {wanted}", rows.element());
                }
            }
            // What a walk sees of them, over codes of 4 bits.
            let serving = quantizer.serving(CodeWidth::Four, &facts, (rows, None));
            let (encoded, _) = encode(&serving, rows);
            let space = space.walked_over(&serving, &encoded.codes);
            let mut sum = 0.0;
            for from in 0..50 {
                space.estimates_from(from, &mut scratch).distances(&ids, &mut found);
                for (to, found) in found.iter().enumerate() {
                    let wanted = between(metric, largest, rows.row(from as usize), rows.row(to));
                    let off = (f64::from(*found) - wanted) / spread;
                    assert!(off.abs() < 0.3, "{metric} {}: {found} {wanted}", rows.element());
                    sum += off;
                }
            }
            assert!((sum / 2500.0).abs() < 0.02, "{metric} {}: {sum}", rows.element());
        }
    }
}
