//! What preview proposes and what a query returns.

use std::cmp::Ordering;

/// A row that preview proposes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Position in the segment's graph order.
    pub id: u32,
    /// Estimated distance in the search space (squared L2 there); smaller is closer.
    pub estimate: f32,
    /// One standard deviation of the estimate's error, in the same unit; 0 where codes are exact.
    pub error: f32,
}

/// How many standard deviations a likely bound allows for.
const LIKELY: f32 = 1.9;

impl Candidate {
    /// The distance that the row is not below, likely: RaBitQ's bound (arXiv:2405.12497).
    pub(crate) fn likely_bound(&self) -> f32 {
        self.estimate - LIKELY * self.error
    }
}

/// A neighbor with the id of its row, which takes no more memory than the neighbor alone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranked {
    pub(crate) key: u64,
    pub(crate) distance: f32,
    pub(crate) id: u32,
}

impl Ranked {
    /// As [`Neighbor::order`].
    pub(crate) fn order(&self, other: &Ranked) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.key.cmp(&other.key))
    }
}

/// A row that a query returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbor {
    /// The caller's name for the row; by default the row number in the base file.
    pub key: u64,
    /// The exact distance; smaller is closer.
    pub distance: f32,
}

impl From<&Ranked> for Neighbor {
    fn from(ranked: &Ranked) -> Neighbor {
        Neighbor { key: ranked.key, distance: ranked.distance }
    }
}

impl Neighbor {
    /// Nearest first; equal distances: smaller key first.
    pub fn order(&self, other: &Neighbor) -> Ordering {
        self.distance.total_cmp(&other.distance).then(self.key.cmp(&other.key))
    }
}
