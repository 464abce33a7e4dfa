//! What "near" means: the metric of a dataset, and the distance each one stands for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
