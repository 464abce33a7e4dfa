//! Products of a matrix of 8-bit numbers and vectors: rows are planar records, so that the kernel
//! of 8-bit codes computes them.

use super::LINE;
use super::planar::{PlanarKernel, PlanarQuery};

/// What a number is stored with, so that it is unsigned.
const OFFSET: i32 = 128;

/// `[rows x width]` numbers of -127 to 127, each row in a unit of its own.
#[derive(Clone, Debug)]
pub(crate) struct ByteMatrix {
    width: usize,
    stride: usize,
    /// `[rows x stride]`.
    records: Vec<u8>,
    /// `0..rows`.
    ids: Vec<u32>,
}

impl ByteMatrix {
    /// A matrix without rows.
    pub(crate) fn new(width: usize) -> ByteMatrix {
        let stride = (width + 8).next_multiple_of(LINE);
        ByteMatrix { width, stride, records: Vec::new(), ids: Vec::new() }
    }

    /// Adds a row of `width` numbers, in units of `unit`. Panics if there are more.
    pub(crate) fn push(&mut self, row: impl Iterator<Item = i8>, unit: f32) {
        let start = self.records.len();
        self.ids.push((start / self.stride) as u32);
        self.records.resize(start + self.stride, 0);
        let (fields, tail) = self.records[start..].split_at_mut(self.stride - 8);
        for (i, x) in row.enumerate() {
            fields[..self.width][i] = (i32::from(x) + OFFSET) as u8;
        }
        tail[..4].copy_from_slice(&unit.to_le_bytes());
    }

    /// Bytes in RAM.
    pub(crate) fn bytes(&self) -> u64 {
        (self.records.len() + 4 * self.ids.len()) as u64
    }

    pub(crate) fn rows(&self) -> usize {
        self.ids.len()
    }

    /// The product with `vector` (`[width]`) in `out` (`[rows]`). The vector is rounded to steps
    /// that `PLANES` planes of lanes can tell, 127 or 16,256 of them for its largest number;
    /// returns what a step is. `kernel` is one of as many planes.
    ///
    /// Panics if `out` is too short.
    pub(crate) fn times<const PLANES: usize>(
        &self,
        kernel: PlanarKernel,
        query: &mut PlanarQuery,
        vector: &[f32],
        out: &mut [f32],
    ) -> f32 {
        let step = query.fill::<PLANES>(vector, (self.stride, OFFSET));
        (query.base, query.add_unit, query.slope) = (0.0, 0.0, step);
        kernel(&self.records, query, &self.ids, out);
        step
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::super::{Level, planar};
    use super::*;

    #[test]
    fn products_are_those_of_the_matrix() {
        let mut random = Seeded::new(4);
        for (rows, width) in [(0, 3), (1, 1), (5, 56), (7, 57), (64, 200)] {
            let numbers: Vec<i8> =
                (0..rows * width).map(|_| (random.next_u64() as i8).max(-127)).collect();
            let mut matrix = ByteMatrix::new(width);
            for (i, row) in numbers.chunks_exact(width).enumerate() {
                matrix.push(row.iter().copied(), 0.25 + i as f32);
            }
            assert_eq!(matrix.rows(), rows);
            let vector: Vec<f32> = (0..width).map(|_| random.gaussian()).collect();
            let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            let mut query = PlanarQuery::default();
            for level in Level::available() {
                let mut found = vec![0.0; rows];
                let coarse = planar::kernel(level, 1);
                let step = matrix.times::<1>(coarse, &mut query, &vector, &mut found);
                check(&numbers, &vector, &found, step);
                let fine = planar::kernel(level, 2);
                let fine_step = matrix.times::<2>(fine, &mut query, &vector, &mut found);
                check(&numbers, &vector, &found, fine_step);
                assert!(fine_step < step / 100.0 && step <= length / 127.0);
            }
        }
    }

    fn check(numbers: &[i8], vector: &[f32], found: &[f32], step: f32) {
        for (i, (row, found)) in numbers.chunks_exact(vector.len()).zip(found).enumerate() {
            let unit = 0.25 + i as f64;
            let products = row.iter().zip(vector).map(|(x, y)| f64::from(*x) * f64::from(*y));
            let size: f64 = row.iter().map(|x| f64::from(x.unsigned_abs())).sum();
            let wanted = unit * products.sum::<f64>();
            let limit = unit * size * f64::from(step) * 0.51;
            assert!((f64::from(*found) - wanted).abs() <= limit + 1e-4, "{found} {wanted}");
        }
    }
}
