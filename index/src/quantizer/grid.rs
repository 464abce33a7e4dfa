//! A rotated residual -> the point of an integer grid that points most nearly the same way.
//!
//! The estimate of a code depends on its direction alone (its length is a stored factor), so the
//! grid point is chosen by its angle: a few scales are tried, then single coordinates are moved
//! while that turns the point toward the residual (extended RaBitQ, arXiv:2409.09913; CAQ,
//! arXiv:2509.12086).

use crate::kernel::float;

/// The levels of one dimension: `step * i - middle` for `i` in `0..=last`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Levels {
    pub(crate) last: f32,
    pub(crate) middle: f32,
    pub(crate) step: f32,
}

impl Levels {
    /// 16 levels, -7.5 to 7.5.
    pub(crate) const PACKED4: Levels = Levels { last: 15.0, middle: 7.5, step: 1.0 };
    /// 8 levels, -7 to 7: four bits, the lowest of which holds a part of the factors.
    pub(crate) const BORROWED: Levels = Levels { last: 7.0, middle: 7.0, step: 2.0 };
    /// 4 levels, -1.5 to 1.5.
    pub(crate) const PACKED2: Levels = Levels { last: 3.0, middle: 1.5, step: 1.0 };
    /// 255 levels, -127 to 127.
    pub(crate) const BYTE: Levels = Levels { last: 254.0, middle: 127.0, step: 1.0 };

    /// The level nearest to `value`, as a number.
    fn nearest(self, value: f32) -> f32 {
        // Adding and taking off 1.5 * 2^23 rounds to an integer and compiles to two additions.
        const ROUND: f32 = 12_582_912.0;
        let index = ((value + self.middle) / self.step).clamp(0.0, self.last);
        ((index + ROUND) - ROUND) * self.step - self.middle
    }
}

/// What a code's estimate needs to know of the vector it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Factors {
    /// `|r|^2 / <u, r>`: makes the estimate of `<q, r>` from `<q, u>` unbiased. 0 for r = 0.
    pub(crate) scale: f32,
    /// `|r|^2`.
    pub(crate) square: f32,
}

/// The grid points of vectors of one shape; owns its scratch.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    /// The first `coarse` dimensions have the levels `first`, the others `rest`.
    coarse: usize,
    first: Levels,
    rest: Levels,
    /// Multiples of "the largest coordinate meets the last level" that are tried.
    scales: &'static [f32],
    point: Vec<f32>,
    best: Vec<f32>,
}

impl Grid {
    /// 4-bit codes of `dim` dimensions, the first `coarse` of which have 8 levels.
    pub(crate) fn packed4(dim: usize, coarse: usize) -> Grid {
        let scales: &[f32] = &[0.85, 0.95, 1.05, 1.2, 1.4];
        Grid::new(dim, coarse, (Levels::BORROWED, Levels::PACKED4), scales)
    }

    /// 2-bit codes of `dim` dimensions.
    pub(crate) fn packed2(dim: usize) -> Grid {
        let scales: &[f32] = &[1.1, 1.4, 1.7, 2.0, 2.4];
        Grid::new(dim, 0, (Levels::PACKED2, Levels::PACKED2), scales)
    }

    /// 8-bit codes of `dim` dimensions.
    pub(crate) fn bytes(dim: usize) -> Grid {
        Grid::new(dim, 0, (Levels::BYTE, Levels::BYTE), &[1.0])
    }

    fn new(dim: usize, coarse: usize, levels: (Levels, Levels), scales: &'static [f32]) -> Grid {
        let (point, best) = (vec![0.0; dim], vec![0.0; dim]);
        Grid { coarse, first: levels.0, rest: levels.1, scales, point, best }
    }

    /// The grid point (`[dim]`, in level units) nearest in direction to `residual`, and its
    /// factors. Linear in the dimension.
    pub(crate) fn fit(&mut self, residual: &[f32]) -> (&[f32], Factors) {
        let square = float::dot(residual, residual);
        let largest = residual.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let unit = self.rest.middle / largest;
        if !(square > 0.0 && unit.is_finite()) {
            self.round(residual, 0.0);
            return (&self.point, Factors { scale: 0.0, square: 0.0 });
        }
        let mut fit = (0.0f32, 1.0f32);
        for scale in self.scales {
            self.round(residual, unit * scale);
            let tried = (float::dot(&self.point, residual), float::dot(&self.point, &self.point));
            if fit.0 == 0.0 || turns_toward(tried, fit) {
                fit = tried;
                std::mem::swap(&mut self.point, &mut self.best);
            }
        }
        std::mem::swap(&mut self.point, &mut self.best);
        if self.scales.len() > 1 {
            self.refine(residual, fit);
        }
        let product = float::dot(&self.point, residual);
        (&self.point, Factors { scale: square / product, square })
    }

    fn round(&mut self, residual: &[f32], unit: f32) {
        let (first, rest) = self.point.split_at_mut(self.coarse);
        let (residual_first, residual_rest) = residual.split_at(self.coarse);
        for (place, value) in first.iter_mut().zip(residual_first) {
            *place = self.first.nearest(value * unit);
        }
        for (place, value) in rest.iter_mut().zip(residual_rest) {
            *place = self.rest.nearest(value * unit);
        }
    }

    /// One pass over the coordinates, each moved a level where that improves the angle.
    fn refine(&mut self, residual: &[f32], mut fit: (f32, f32)) {
        for (i, (value, x)) in self.point.iter_mut().zip(residual).enumerate() {
            let levels = if i < self.coarse { self.first } else { self.rest };
            let outer = levels.last * levels.step - levels.middle;
            for step in [levels.step, -levels.step] {
                let moved = *value + step;
                if moved.abs() > outer {
                    continue;
                }
                let tried = (fit.0 + step * x, fit.1 + step * (2.0 * *value + step));
                if turns_toward(tried, fit) {
                    fit = tried;
                    *value = moved;
                    break;
                }
            }
        }
    }
}

/// Whether a point with `(<u, r>, |u|^2)` of `tried` has a smaller angle to r than one of `fit`.
fn turns_toward(tried: (f32, f32), fit: (f32, f32)) -> bool {
    tried.0 * tried.0 * fit.1 > fit.0 * fit.0 * tried.1
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    fn relative_error(grid: &mut Grid, residual: &[f32]) -> f32 {
        let (point, factors) = grid.fit(residual);
        let error: f32 =
            point.iter().zip(residual).map(|(u, r)| (u * factors.scale - r).powi(2)).sum();
        error / factors.square
    }

    #[test]
    fn a_grid_point_stands_for_its_vector() {
        let mut random = Seeded::new(6);
        for dim in [32, 100, 128, 385] {
            let mean_error = |grid: &mut Grid| {
                let mut random = random.clone();
                let errors = (0..50).map(|_| {
                    let residual: Vec<f32> = (0..dim).map(|_| random.gaussian()).collect();
                    relative_error(grid, &residual)
                });
                errors.sum::<f32>() / 50.0
            };
            assert!(mean_error(&mut Grid::packed4(dim, 0)) < 0.012, "dim {dim}");
            assert!(mean_error(&mut Grid::packed4(dim, 32)) < 0.05, "dim {dim}");
            assert!(mean_error(&mut Grid::bytes(dim)) < 1e-4, "dim {dim}");
        }
        random.next_u64();
    }

    #[test]
    fn points_are_levels() {
        let mut random = Seeded::new(6);
        let residual: Vec<f32> = (0..128).map(|_| random.gaussian()).collect();
        let mut grid = Grid::packed4(128, 32);
        let (point, _) = grid.fit(&residual);
        for (i, value) in point.iter().enumerate() {
            let index = if i < 32 { (value + 7.0) / 2.0 } else { value + 7.5 };
            assert_eq!(index, index.round());
            assert!((0.0..=if i < 32 { 7.0 } else { 15.0 }).contains(&index));
        }
    }

    #[test]
    fn nothing_and_next_to_nothing_have_finite_factors() {
        for value in [0.0, -0.0, 1e-45, 1e-38, 1e-20, 1e18] {
            for mut grid in [Grid::packed4(4, 0), Grid::bytes(4), Grid::packed4(40, 32)] {
                let residual = vec![value; grid.point.len()];
                let (point, factors) = grid.fit(&residual);
                assert!(point.iter().all(|u| u.is_finite()));
                assert!(factors.scale.is_finite() && factors.square.is_finite(), "{value}");
            }
        }
    }
}
