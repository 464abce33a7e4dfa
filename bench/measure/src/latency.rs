//! Latencies of queries: mean and quantiles, in microseconds.

use serde::{Deserialize, Serialize};

/// Latencies of queries, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// Half of the queries took no longer.
    pub p50: f64,
    /// 95 of 100 queries took no longer.
    pub p95: f64,
    /// 99 of 100 queries took no longer.
    pub p99: f64,
}

impl Latency {
    /// Of nanoseconds in any order; sorts them. All 0 if there are none.
    pub fn of_nanos(nanos: &mut [u64]) -> Latency {
        nanos.sort_unstable();
        let sum: u128 = nanos.iter().map(|n| u128::from(*n)).sum();
        Latency {
            mean: micros(sum as f64 / nanos.len().max(1) as f64),
            p50: micros(quantile(nanos, 50) as f64),
            p95: micros(quantile(nanos, 95) as f64),
            p99: micros(quantile(nanos, 99) as f64),
        }
    }
}

fn micros(nanos: f64) -> f64 {
    nanos / 1e3
}

/// The smallest value that at least `percent` of 100 values do not exceed (nearest rank): always a
/// value that was measured. 0 if there are none.
fn quantile(sorted: &[u64], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// The middle value; the mean of both where there are two. 0 if there are none. Sorts `values`.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[half],
        _ => (values[half - 1] + values[half]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut hundred: Vec<u64> = (1..=100).rev().map(|i| i * 1000).collect();
        let latency = Latency::of_nanos(&mut hundred);
        assert_eq!(latency, Latency { mean: 50.5, p50: 50.0, p95: 95.0, p99: 99.0 });
        let latency = Latency::of_nanos(&mut [3000, 1000, 2000]);
        assert_eq!(latency, Latency { mean: 2.0, p50: 2.0, p95: 3.0, p99: 3.0 });
        let latency = Latency::of_nanos(&mut [1500]);
        assert_eq!(latency, Latency { mean: 1.5, p50: 1.5, p95: 1.5, p99: 1.5 });
        let none = Latency::of_nanos(&mut []);
        assert_eq!(none, Latency { mean: 0.0, p50: 0.0, p95: 0.0, p99: 0.0 });
    }

    #[test]
    fn the_99th_percentile_of_101_is_the_100th() {
        let mut values: Vec<u64> = (1..=101).map(|i| i * 1000).collect();
        assert_eq!(Latency::of_nanos(&mut values).p99, 100.0);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }
}
