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
    /// One minus the cosine of the angle, `1 - <x, y> / (|x| |y|)`; from 0 to 2.
    #[serde(rename = "cosine")]
    Cosine,
}

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

    /// The distance of two vectors by the plain definition, in double precision and in order: what
    /// faster ways are compared with, and the same on every machine. NaN for the cosine of zeros.
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
            Metric::Cosine => 1.0 - dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt(),
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
        let bytes = ([250u8, 0], [0u8, 250]);
        let l2 = Metric::L2.plain_distance(Row::U8(&bytes.0), Row::U8(&bytes.1));
        assert_eq!(l2, 125_000.0);
    }
}
