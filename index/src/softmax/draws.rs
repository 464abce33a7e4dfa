//! Which tokens are drawn: systematic draws in proportion to weights.

use super::GROUP;
use crate::kernel::logits::TILE;

/// What is drawn from.
#[derive(Default)]
pub(super) struct Draws {
    /// What weighs as much or more is certain.
    pub(super) largest: f64,
    /// By group: the sum of what is not certain; and of all groups.
    small: Vec<f32>,
    pub(super) rest: f64,
    /// Positions: those that are certain, or those of a round.
    pub(super) drawn: Vec<u32>,
}

impl Draws {
    /// Partitions positions by their weights, of which `sums` are those of groups: `drawn` are the
    /// ones of a `parts`-th of all or more, and `small` and `rest` what the others sum to.
    pub(super) fn split(&mut self, weights: &[f32], sums: &[f32], parts: f64) {
        self.largest = sums.iter().map(|sum| f64::from(*sum)).sum::<f64>() / parts;
        self.drawn.clear();
        self.small.clear();
        self.small.extend_from_slice(sums);
        let largest = self.largest as f32;
        for (at, small) in self.small.iter_mut().enumerate().filter(|(_, sum)| **sum >= largest) {
            let certain = group(weights, at).filter(|(_, w)| *w >= largest && *w > 0.0);
            self.drawn.extend(certain.map(|(position, _)| position as u32));
            *small = group(weights, at).map(|(_, w)| if w < largest { w } else { 0.0 }).sum();
        }
        self.rest = self.small.iter().map(|small| f64::from(*small)).sum();
    }

    /// Fills `drawn` with about `count` of the others: where even steps of their running sum end,
    /// from the part `start` of a step on.
    pub(super) fn draw(&mut self, weights: &[f32], count: usize, start: f64) {
        self.drawn.clear();
        let (largest, step) = (self.largest as f32, self.rest / count as f64);
        let (mut before, mut next) = (0.0f64, start * step);
        for (at, small) in self.small.iter().enumerate() {
            let end = before + f64::from(*small);
            if next < end {
                // The running sums after each of the group, from its start on.
                let (mut ends, mut running, mut last) = ([f32::INFINITY; GROUP], 0.0, 0);
                for (row, (_, weight)) in group(weights, at).enumerate() {
                    let weight = if weight < largest { weight } else { 0.0 };
                    running += weight;
                    ends[row] = running;
                    last = if weight > 0.0 { row } else { last };
                }
                let first = at / GROUP * TILE + at % GROUP;
                while next < end {
                    let target = (next - before) as f32;
                    let row: usize = ends.iter().map(|end| usize::from(*end <= target)).sum();
                    self.drawn.push((first + last.min(row) * GROUP) as u32);
                    next += step;
                }
            }
            before = end;
        }
    }
}

/// The positions and weights of a group, every sixteenth of a tile.
fn group(weights: &[f32], at: usize) -> impl Iterator<Item = (usize, f32)> {
    let (tile, lane) = (at / GROUP * TILE, at % GROUP);
    let weights = &weights[tile..weights.len().min(tile + TILE)];
    (tile + lane..).step_by(GROUP).zip(weights[lane..].iter().step_by(GROUP).copied())
}
