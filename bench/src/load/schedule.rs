//! When calls are meant to start, whatever the server does.

use std::time::Duration;

use clap::ValueEnum;
use foveal_datasets::seeded::Seeded;

/// How calls of an open loop follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// As calls of many callers who do not know of each other: gaps of random length.
    Poisson,
    /// At equal gaps.
    Fixed,
}

impl Arrivals {
    /// Its name, as flags have it.
    pub fn name(self) -> &'static str {
        match self {
            Arrivals::Poisson => "poisson",
            Arrivals::Fixed => "fixed",
        }
    }
}

/// The moments at which calls are meant to start, counted from the beginning; without end.
///
/// The same seed gives the same moments.
pub struct Schedule {
    arrivals: Arrivals,
    rate: f64,
    random: Seeded,
    calls: u64,
    seconds: f64,
}

impl Schedule {
    /// Calls that start `rate` times a second: of equal gaps, the first one at once.
    pub fn new(arrivals: Arrivals, rate: f64, seed: u64) -> Schedule {
        Schedule { arrivals, rate, random: Seeded::new(seed), calls: 0, seconds: 0.0 }
    }

    /// Seconds to the next call of a Poisson process: 1/rate in the mean.
    fn gap(&mut self) -> f64 {
        // 53 random bits in (0, 1], so that the logarithm is finite.
        let uniform = ((self.random.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        -uniform.ln() / self.rate
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.seconds = match self.arrivals {
            Arrivals::Poisson => self.seconds + self.gap(),
            // Not a sum, whose error would grow.
            Arrivals::Fixed => self.calls as f64 / self.rate,
        };
        self.calls += 1;
        // Beyond what a duration can say there is no run either.
        Duration::try_from_secs_f64(self.seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(arrivals: Arrivals, rate: f64, seed: u64, seconds: u64) -> Vec<Duration> {
        let end = Duration::from_secs(seconds);
        Schedule::new(arrivals, rate, seed).take_while(|moment| *moment < end).collect()
    }

    #[test]
    fn fixed_arrivals_are_evenly_spaced_to_the_last() {
        let moments = within(Arrivals::Fixed, 1_000.0, 1, 100);
        assert_eq!(moments.len(), 100_000);
        for (i, moment) in moments.iter().enumerate() {
            assert!(moment.abs_diff(Duration::from_millis(i as u64)) < Duration::from_nanos(10));
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_of_independent_callers() {
        let moments = within(Arrivals::Poisson, 1_000.0, 1, 100);
        // The standard deviation of the count is its root, 316.
        assert!((98_000..102_000).contains(&moments.len()), "{}", moments.len());
        let gaps: Vec<f64> =
            moments.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1_000.0).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Gaps of an exponential distribution spread as far as they are long.
        assert!((0.95..1.05).contains(&mean), "{mean}");
        assert!((0.9..1.1).contains(&variance), "{variance}");
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let of = |seed| within(Arrivals::Poisson, 50.0, seed, 10);
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn a_tiny_rate_ends_instead_of_overflowing() {
        assert_eq!(Schedule::new(Arrivals::Fixed, 1e-300, 1).count(), 1);
    }
}
