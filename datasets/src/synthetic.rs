//! Seeded data with known answers, for samples, tests and benchmarks.

use crate::rows::{Rows, Values};
use crate::seeded::Seeded;

/// `n` rows in clusters, `[n x dim]` f32: row `i` lies around centre `i mod centres`.
///
/// Centres have a deviation of 1 in each dimension, rows one of 0.25 around their centre.
///
/// # Panics
/// If `centres` is 0, or `dim` is 0 or above [`MAX_DIM`](crate::rows::MAX_DIM).
pub fn clusters(n: usize, dim: usize, centres: usize, seed: u64) -> Rows {
    assert!(centres > 0, "rows need a centre");
    let mut seeded = Seeded::new(seed);
    let middle: Vec<f32> = (0..centres * dim).map(|_| seeded.gaussian()).collect();
    let numbers = (0..n * dim).map(|i| middle[i % (centres * dim)] + 0.25 * seeded.gaussian());
    rows(dim, Values::F32(numbers.collect()))
}

/// `n` rows in clusters, `[n x dim]` u8: row `i` lies around centre `i mod centres`.
///
/// Centres are anywhere from 0 to 255 in each dimension, rows have a deviation of 16 around their
/// centre and end at 0 and 255.
///
/// # Panics
/// If `centres` is 0, or `dim` is 0 or above [`MAX_DIM`](crate::rows::MAX_DIM).
pub fn byte_clusters(n: usize, dim: usize, centres: usize, seed: u64) -> Rows {
    assert!(centres > 0, "rows need a centre");
    let mut seeded = Seeded::new(seed);
    let middle: Vec<f32> = (0..centres * dim).map(|_| seeded.below(256) as f32).collect();
    let numbers = (0..n * dim).map(|i| {
        let number = middle[i % (centres * dim)] + 16.0 * seeded.gaussian();
        number.round().clamp(0.0, 255.0) as u8
    });
    rows(dim, Values::U8(numbers.collect()))
}

/// Every point of a grid, `[side^dim x dim]` f32: row `i` holds the digits of `i` to the base
/// `side`, the most significant first.
///
/// So the nearest neighbours of row `i`, all at squared distance 1, are the rows `i + side^j` and
/// `i - side^j`, for `j` below `dim`, as far as the digit stays below `side` and above -1.
///
/// # Panics
/// If `side` is 0, `dim` is 0 or above [`MAX_DIM`](crate::rows::MAX_DIM), or `side^dim` is beyond
/// 64 bits.
pub fn lattice(side: usize, dim: usize) -> Rows {
    assert!(side > 0, "a grid needs a side");
    let n = u32::try_from(dim).ok().and_then(|dim| side.checked_pow(dim));
    let n = n.expect("a grid has fewer than 2^64 points");
    let mut numbers = Vec::with_capacity(n * dim);
    for row in 0..n {
        let first = numbers.len();
        let mut digits = row;
        for _ in 0..dim {
            numbers.push((digits % side) as f32);
            digits /= side;
        }
        numbers[first..].reverse();
    }
    rows(dim, Values::F32(numbers))
}

fn rows(dim: usize, values: Values) -> Rows {
    Rows::new(dim, values).expect("the dimension is in range and every row is whole")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Row;

    #[test]
    fn rows_lie_around_their_centre() {
        let near = |a: Row<'_>, b: Row<'_>| {
            let (mut x, mut y) = (vec![0.0; a.dim()], vec![0.0; b.dim()]);
            a.widen_into(&mut x);
            b.widen_into(&mut y);
            x.iter().zip(&y).map(|(x, y)| (x - y) * (x - y)).sum::<f32>()
        };
        for rows in [clusters(100, 32, 4, 5), byte_clusters(100, 32, 4, 5)] {
            assert_eq!((rows.len(), rows.dim()), (100, 32));
            for i in 4..100 {
                let nearest = (0..4)
                    .min_by(|a, b| {
                        near(rows.row(i), rows.row(*a)).total_cmp(&near(rows.row(i), rows.row(*b)))
                    })
                    .unwrap();
                assert_eq!(nearest, i % 4);
            }
        }
        assert_eq!(clusters(9, 3, 2, 5), clusters(9, 3, 2, 5));
        assert_ne!(clusters(9, 3, 2, 5), clusters(9, 3, 2, 6));
    }

    #[test]
    fn a_lattice_holds_the_digits_of_the_row_number() {
        let rows = lattice(3, 4);
        assert_eq!((rows.len(), rows.dim()), (81, 4));
        assert_eq!(rows.row(0), Row::F32(&[0.0; 4]));
        assert_eq!(rows.row(80), Row::F32(&[2.0; 4]));
        assert_eq!(rows.row(27 + 2 * 3 + 1), Row::F32(&[1.0, 0.0, 2.0, 1.0]));
        assert_eq!(lattice(1, 2).len(), 1);
    }
}
