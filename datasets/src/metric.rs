//! What "near" means: the metric of a dataset, and the distance each one stands for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::rows::Row;

/// The rule by which two vectors are compared. Its number is a distance: **smaller is closer**.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Metric {
    /// Squared Euclidean distance, `sum (x - y)^2`.
    #[serde(rename = "l2")]
    L2,
    /// Minus the inner product, `-sum x y`; may be negative.
    #[serde(rename = "ip")]
    InnerProduct,
    /// One minus the cosine of the angle, `1 - <x, y> / (|x| |y|)`; from 0 to 2. It is half the
    /// squared L2 distance of the two vectors divided by their norms.
    #[serde(rename = "cosine")]
    Cosine,
}

/// Cosine distances below this are computed from the difference of the unit vectors: one minus a
/// cosine near one has few digits, or none.
pub const NEAR_COSINE: f64 = 1.0 / 32.0;

/// What a cosine in f32 is rounded by: some steps of the numbers just below 1.
const ROUNDED_COSINE: f64 = 8.0 * f32::EPSILON as f64 / 2.0;

impl Metric {
    /// Every metric, in the order in which help texts name them.
    pub const ALL: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

    /// The name used on the command line and on disk.
    pub fn name(self) -> &'static str {
        match self {
            Metric::L2 => "l2",
            Metric::InnerProduct => "ip",
            Metric::Cosine => "cosine",
        }
    }

    /// Whether only the directions of vectors count: zeros have none, and codes are of vectors
    /// divided by their norms.
    pub fn needs_direction(self) -> bool {
        self == Metric::Cosine
    }

    /// Whether a distance is minus a product: it has no lower bound, rows are lifted into a space
    /// of one dimension more to be searched by L2, and distances are the logits of a softmax head.
    pub fn is_product(self) -> bool {
        self == Metric::InnerProduct
    }

    /// Whether distances depend on differences of coordinates alone, so that rows of bytes are
    /// their own codes.
    pub fn is_of_differences(self) -> bool {
        self == Metric::L2
    }

    /// A distance as a score: larger is better.
    pub fn score(self, distance: f32) -> f32 {
        match self {
            // Not -0.0 for a perfect match.
            Metric::L2 | Metric::InnerProduct => 0.0 - distance,
            Metric::Cosine => 1.0 - distance,
        }
    }

    /// A distance as other programs state it: the root under l2.
    pub fn plain_unit(self, distance: f64) -> f64 {
        if self == Metric::L2 { distance.sqrt() } else { distance }
    }

    /// How large the terms are that make up the distance of two vectors of these squared norms:
    /// rounding is a share of them.
    pub fn terms(self, square: f64, other: f64) -> f64 {
        match self {
            Metric::L2 => square + other,
            Metric::InnerProduct => (square * other).sqrt(),
            Metric::Cosine => 1.0,
        }
    }

    /// The largest distance that ties with `distance`: a millionth of it more. Wherever ties are
    /// counted, this is the rule.
    ///
    /// f32 rounds a sum of some thousand squares, as L2 distances are, by less than that share of
    /// the sum, at any scale of the data. A cosine distance is one minus a product wherever other
    /// programs computed a truth: rounded as numbers near 1 are, below 0 even for copies. An inner
    /// product may be much smaller than its terms, and is then rounded by more than the share
    /// allows: near 0 a tie counts only if both products were computed alike. Recall is then too
    /// low, and never too high.
    pub fn tie_limit(self, distance: f64) -> f64 {
        let share = 1e-6;
        match self {
            Metric::L2 => distance * (1.0 + share),
            Metric::Cosine => distance.max(0.0) * (1.0 + share) + ROUNDED_COSINE,
            Metric::InnerProduct => distance + share * distance.abs(),
        }
    }

    /// The distance of two vectors by the plain definition, in double precision and in order: what
    /// faster ways are compared with, and the same on every machine. Near-copies keep their digits
    /// under cosine; a vector is at distance 0 from itself. NaN for the cosine of zeros.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn plain_distance(self, x: Row<'_>, y: Row<'_>) -> f64 {
        assert_eq!(x.dim(), y.dim(), "dimension mismatch");
        let wide = |row: Row<'_>| {
            let mut wide = vec![0.0; row.dim()];
            row.widen_into(&mut wide);
            wide.into_iter().map(f64::from).collect::<Vec<f64>>()
        };
        let (x, y) = (wide(x), wide(y));
        let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
        match self {
            Metric::L2 => x.iter().zip(&y).map(|(x, y)| (x - y) * (x - y)).sum(),
            Metric::InnerProduct => -dot(&x, &y),
            Metric::Cosine => {
                let (xx, yy) = (dot(&x, &x), dot(&y, &y));
                let distance = 1.0 - dot(&x, &y) / (xx * yy).sqrt();
                if distance < NEAR_COSINE {
                    let (one, other) = (1.0 / xx.sqrt(), 1.0 / yy.sqrt());
                    let apart = x.iter().zip(&y).map(|(x, y)| x * one - y * other);
                    return 0.5 * apart.map(|apart| apart * apart).sum::<f64>();
                }
                // NaN stays NaN.
                distance.clamp(0.0, 2.0)
            }
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Metric, String> {
        Metric::ALL
            .into_iter()
            .find(|metric| metric.name() == text)
            .ok_or_else(|| format!("metric {text:?} is unknown; wanted l2, ip or cosine"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_distances_are_those_of_the_definitions() {
        let (x, y) = ([1.0f32, 2.0, -2.0], [4.0f32, 0.0, 3.0]);
        let of = |metric: Metric| metric.plain_distance(Row::F32(&x), Row::F32(&y));
        // Differences 3, 2, 5; product 4 - 6; norms 3 and 5.
        assert_eq!(of(Metric::L2), 38.0);
        assert_eq!(of(Metric::InnerProduct), 2.0);
        assert_eq!(of(Metric::Cosine), 1.0 + 2.0 / 15.0);
        assert!(Metric::Cosine.plain_distance(Row::F32(&[0.0; 3]), Row::F32(&y)).is_nan());
        let bytes = ([250u8, 0], [0u8, 250]);
        let l2 = Metric::L2.plain_distance(Row::U8(&bytes.0), Row::U8(&bytes.1));
        assert_eq!(l2, 125_000.0);
    }

    #[test]
    fn cosine_keeps_its_digits_for_near_copies_and_its_range_for_opposites() {
        let x = [3e20f32, -1e20, 2e20];
        let of = |y: [f32; 3]| Metric::Cosine.plain_distance(Row::F32(&x), Row::F32(&y));
        assert_eq!(of(x), 0.0);
        assert!(of(x.map(|x| 3.0 * x)) < 1e-14);
        assert_eq!(of(x.map(|x| -x)), 2.0);
        // The angle to a vector moved by e across is e: half its square.
        for e in [1e-3f32, 1e-6] {
            let plain = Metric::Cosine.plain_distance(Row::F32(&[1.0, 0.0]), Row::F32(&[1.0, e]));
            let wanted = 0.5 * f64::from(e).powi(2);
            assert!((plain / wanted - 1.0).abs() < 1e-5, "{plain} {wanted}");
        }
    }
}
