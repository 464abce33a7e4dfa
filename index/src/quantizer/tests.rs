//! Estimates against exact distances: unbiased, and as far off as they say.

use foveal_datasets::synthetic::Seeded;
use foveal_datasets::{Element, Metric, Row, Rows, Values};

use super::{CodeSpace, Encoder, PreparedQuery, Quantizer, RowFacts};
use crate::distance::{QueryDistance, Space};

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

fn encode(quantizer: &Quantizer, rows: &Rows) -> (Vec<u8>, RowFacts) {
    let mut encoder = Encoder::new(quantizer);
    let mut codes = vec![0xaa; rows.len() * quantizer.stride()];
    let mut facts = RowFacts::default();
    for (row, record) in rows.iter().zip(codes.chunks_exact_mut(quantizer.stride())) {
        facts = facts.and(encoder.encode(row, record));
    }
    (codes, facts)
}

/// Trains, and makes the quantizer that serves at `bits`, as a build does.
fn serving(metric: Metric, bits: u8, rows: &Rows, seed: u64) -> (Quantizer, Vec<u8>) {
    let first = Quantizer::train(metric, rows, seed);
    let (_, facts) = encode(&first, rows);
    let mut serving = first.serving(bits, &facts, rows);
    let (codes, facts) = encode(&serving, rows);
    serving.note(&facts);
    (serving, codes)
}

#[test]
fn hard_bounds_are_never_above_the_true_distance() {
    for metric in Metric::ALL {
        for (bits, dim) in [(4, 20), (4, 128), (4, 300), (8, 64)] {
            let kinds = [gaussian(300, dim, 3), bytes(Element::U8, 300, dim, 4)];
            for rows in kinds {
                let (quantizer, codes) = serving(metric, bits, &rows, 5);
                let ids: Vec<u32> = (0..300).collect();
                let mut estimates = vec![0.0; 300];
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
                    quantizer.distance(&codes, &prepared).distances(&ids, &mut estimates);
                    let (scale, add) = quantizer.shown(&prepared);
                    for (id, estimate) in ids.iter().zip(&estimates) {
                        let row = rows.row(*id as usize);
                        let exact = metric.plain_distance(Row::F32(&query), row);
                        let bound = quantizer.lower_bound(&prepared, estimate * scale + add);
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

/// What the estimates of many pairs tell about themselves.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    /// Mean of (estimate - exact) / error.
    mean: f64,
    /// Mean of its square.
    variance: f64,
    /// Share of pairs whose exact distance lies below estimate - 1.9 error.
    missed: f64,
    /// Root of the mean squared error, as a share of the deviation of exact distances.
    noise: f64,
}

fn report(metric: Metric, bits: u8, dim: usize) -> Report {
    let (n, q) = (300, 20);
    let (mut deviations, mut exacts, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for seed in 0..4 {
        let rows = gaussian(n, dim, 20 + seed);
        let queries = gaussian(q, dim, 50 + seed);
        let (quantizer, codes) = serving(metric, bits, &rows, seed);
        let ids: Vec<u32> = (0..n as u32).collect();
        let mut estimates = vec![0.0; n];
        let mut prepared = PreparedQuery::default();
        for query in queries.iter() {
            prepared.prepare(&quantizer, query);
            let distance = quantizer.distance(&codes, &prepared);
            distance.distances(&ids, &mut estimates);
            let (scale, add) = quantizer.shown(&prepared);
            for (id, estimate) in ids.iter().zip(&estimates) {
                let exact = metric.plain_distance(query, rows.row(*id as usize));
                let off = f64::from(estimate * scale + add) - exact;
                let error = f64::from(distance.error(*id) * scale);
                deviations.push(off / error);
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
        missed: deviations.iter().filter(|x| **x > 1.9).count() as f64 / count,
        noise: (square_of(&errors) / spread).sqrt(),
    }
}

#[test]
fn estimates_are_unbiased_and_as_wrong_as_they_say() {
    for metric in Metric::ALL {
        for bits in [4, 8] {
            for dim in [16, 31, 64, 100, 120, 121, 124, 128, 129, 250, 385] {
                let found = report(metric, bits, dim);
                let what = format!("{metric} {bits} bits dim {dim}: {found:?}");
                assert!(found.mean.abs() < 0.06, "{what}");
                assert!((0.93..1.07).contains(&found.variance), "{what}");
                // A normal number is beyond 1.9 deviations 2.9 % of the time.
                assert!((0.022..0.038).contains(&found.missed), "{what}");
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
        let bytes = report(metric, 8, 120).noise / whole.noise;
        assert!(bytes < 0.075, "{metric}: {bytes}");
    }
    // Shares of the deviation of exact distances, measured for these rows.
    assert!(report(Metric::L2, 4, 120).noise < 0.029);
    assert!(report(Metric::Cosine, 4, 120).noise < 0.104);
}

/// In few dimensions errors are not normal, but they are still of the size that is told.
#[test]
fn estimates_of_few_dimensions_are_no_worse_than_they_say() {
    for metric in [Metric::L2, Metric::InnerProduct] {
        for (bits, dim) in [(4, 1), (8, 1), (4, 2), (8, 2), (4, 3), (8, 3), (4, 7), (8, 7)] {
            let found = report(metric, bits, dim);
            let what = format!("{metric} {bits} bits dim {dim}: {found:?}");
            assert!(found.mean.abs() < 0.06 && found.variance < 1.07, "{what}");
            assert!(found.missed < 0.042, "{what}");
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
                let (quantizer, codes) = serving(metric, 8, &rows, 3);
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
                    let (scale, add) = quantizer.shown(&prepared);
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
            let quantizer = Quantizer::train(metric, rows, 8);
            let (codes, facts) = encode(&quantizer, rows);
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
        }
    }
}
