//! What a mean is not below: a bound for shares from 0 to 1, however skewed and however few.
//!
//! Most queries find everything and a few find little, so that a standard deviation, which often
//! has not met the worst of them, promises too much. Here a gambler starts with 1 and bets on each
//! share `x` that the true mean is above `m`: the stake becomes `1 + c (x / m - 1)` times what it
//! was. If the mean is `m` nobody can expect to gain: the chance that 1 becomes 20 is 1 in 20
//! (Waudby-Smith and Ramdas, arXiv:2010.09686). So a mean at which it does is ruled out. Shares of
//! the capital are bet at different `c` at once, since the best one is not known before.
//!
//! Only products and sums in a fixed order: the same on every machine.

use std::collections::BTreeMap;

/// The chance that the mean is below the bound.
const MISSED: f64 = 0.05;
/// Parts of the capital that are bet, in equal shares.
const BETS: [f64; 10] = [
    1.0 / 64.0,
    1.0 / 32.0,
    1.0 / 16.0,
    1.0 / 8.0,
    1.0 / 4.0,
    1.0 / 2.0,
    3.0 / 4.0,
    7.0 / 8.0,
    15.0 / 16.0,
    31.0 / 32.0,
];
/// Halvings of the interval that holds the bound.
const HALVINGS: u32 = 30;

/// What the mean of the shares `hits / wanted` is above with 95 % confidence, for independent
/// queries; 0 of fewer than two of them, which promise nothing.
pub(super) fn lower_bound(shares: impl Iterator<Item = (u32, u32)>) -> f64 {
    let mut counts: BTreeMap<(u32, u32), u32> = BTreeMap::new();
    shares.for_each(|share| *counts.entry(share).or_default() += 1);
    let counts: Vec<(f64, u32)> = counts
        .into_iter()
        .map(|((hits, wanted), count)| (f64::from(hits) / f64::from(wanted), count))
        .collect();
    let n: u32 = counts.iter().map(|(_, count)| count).sum();
    if n < 2 {
        return 0.0;
    }
    let sum: f64 = counts.iter().map(|(share, count)| share * f64::from(*count)).sum();
    let (mut ruled_out, mut possible) = (0.0, sum / f64::from(n));
    for _ in 0..HALVINGS {
        let mean = 0.5 * (ruled_out + possible);
        if mean > 0.0 && is_ruled_out(&counts, mean) {
            ruled_out = mean;
        } else {
            possible = mean;
        }
    }
    ruled_out
}

/// Whether the bets win so much that the mean cannot be `mean`.
fn is_ruled_out(counts: &[(f64, u32)], mean: f64) -> bool {
    let wanted = BETS.len() as f64 / MISSED;
    let mut capital = 0.0;
    for bet in BETS {
        let factors =
            counts.iter().map(|(share, count)| (1.0 + bet * (share / mean - 1.0), *count));
        capital += product(factors, wanted);
    }
    capital >= wanted
}

/// A number as `fraction * 2^exponent`: powers of a thousand factors pass the range of f64.
#[derive(Clone, Copy)]
struct Wide {
    fraction: f64,
    exponent: i64,
}

impl Wide {
    /// Of a normal number above 0, or a product of two fractions.
    fn of(number: f64) -> Wide {
        const BITS: u32 = f64::MANTISSA_DIGITS - 1;
        let exponent = (number.to_bits() >> BITS) as i64 - 1023;
        let fraction = number.to_bits() & ((1 << BITS) - 1) | 1023 << BITS;
        Wide { fraction: f64::from_bits(fraction), exponent }
    }

    fn times(self, other: Wide) -> Wide {
        let Wide { fraction, exponent } = Wide::of(self.fraction * other.fraction);
        Wide { fraction, exponent: exponent + self.exponent + other.exponent }
    }

    fn power(self, mut times: u32) -> Wide {
        let (mut base, mut power) = (self, Wide::of(1.0));
        while times > 0 {
            if times % 2 == 1 {
                power = power.times(base);
            }
            base = base.times(base);
            times /= 2;
        }
        power
    }
}

/// The product of factors above 0, each so many times; `most` if it is more.
fn product(factors: impl Iterator<Item = (f64, u32)>, most: f64) -> f64 {
    let powers = factors.map(|(factor, times)| Wide::of(factor).power(times));
    let Wide { fraction, exponent } = powers.fold(Wide::of(1.0), Wide::times);
    match exponent {
        0..60 => (fraction * (1u64 << exponent) as f64).min(most),
        60.. => most,
        -60..0 => fraction / (1u64 << -exponent) as f64,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::seeded::Seeded;

    use super::*;

    fn bound(shares: &[(u32, u32)]) -> f64 {
        lower_bound(shares.iter().copied())
    }

    #[test]
    fn few_queries_promise_little() {
        assert_eq!(bound(&[]), 0.0);
        assert_eq!(bound(&[(10, 10)]), 0.0);
        let all_found = [2, 5, 20, 100, 1000].map(|n| bound(&vec![(10, 10); n]));
        assert!(all_found.is_sorted() && all_found[0] < 0.2, "{all_found:?}");
        // Of a thousand without a miss, 3 in 1000 may still miss.
        assert!(all_found[4] > 0.99 && all_found[4] < 0.997, "{all_found:?}");
        assert_eq!(bound(&[(0, 10); 50]), 0.0);
    }

    #[test]
    fn order_and_scale_of_counts_do_not_matter() {
        let mut shares: Vec<(u32, u32)> =
            (0..500).map(|i| (if i % 50 == 0 { 3 } else { 10 }, 10)).collect();
        let one = bound(&shares);
        shares.reverse();
        assert_eq!(bound(&shares), one);
        assert!(one > 0.95 && one < 0.986, "{one}");
    }

    #[test]
    fn products_pass_the_range_of_f64() {
        let all = |factor, times| product([(factor, times)].into_iter(), 1e9);
        assert_eq!((all(1.0, 1000), all(2.0, 10), all(0.5, 10)), (1.0, 1024.0, 1.0 / 1024.0));
        assert_eq!((all(2.0, 100_000), all(0.03, 100_000)), (1e9, 0.0));
        let there_and_back = [(8.0, 5000), (0.125, 5000)].into_iter();
        assert_eq!(product(there_and_back, 1e9), 1.0);
    }

    /// Shares of queries of which most find all and some find little, at means from 0.5 to 0.999:
    /// the mean of 2,000 others is above the bound nearly always, and the bound is no excuse.
    #[test]
    fn the_mean_of_others_is_above_the_bound() {
        let mut random = Seeded::new(9);
        let mut draw = |bad: f64| {
            let uniform =
                |random: &mut Seeded| (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let hits = if uniform(&mut random) < bad { 10.0 * uniform(&mut random) } else { 10.0 };
            (hits as u32, 10)
        };
        let mean = |shares: &[(u32, u32)]| {
            shares.iter().map(|(hits, of)| f64::from(*hits) / f64::from(*of)).sum::<f64>()
                / shares.len() as f64
        };
        let (mut held, mut all) = (0, 0);
        for bad in [0.9, 0.4, 0.1, 0.02, 0.002] {
            for n in [30, 200, 1000] {
                for _ in 0..20 {
                    let sample: Vec<(u32, u32)> = (0..n).map(|_| draw(bad)).collect();
                    let others: Vec<(u32, u32)> = (0..2000).map(|_| draw(bad)).collect();
                    let bound = bound(&sample);
                    held += u32::from(bound <= mean(&others));
                    all += 1;
                    if n == 1000 {
                        assert!(
                            mean(&sample) - bound < 0.06 * bad.sqrt() + 0.006,
                            "{bad}: {bound}"
                        );
                    }
                }
            }
        }
        assert!(f64::from(held) >= 0.97 * f64::from(all), "{held} of {all}");
    }
}
