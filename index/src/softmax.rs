//! Logits -> probabilities: log Z, exactly or as an interval.
//!
//! `Z = sum over tokens of exp(s / t)` for logits s and a temperature t. The tokens whose logits
//! are known are summed as they are. What the others add is estimated by importance sampling in two
//! phases (double sampling, Neyman, 1938), for there are three prices of a logit: an estimate e of
//! every token is at hand, a better one e' costs a cache miss or a few, the true one s a row.
//!
//! ```text
//! sum of exp(s / t) = sum of exp(e / t)
//!                     x  mean of a = exp((e' - e) / t)   over tokens drawn by exp(e / t)
//!                     x  mean of b = exp((s - e') / t)   over tokens drawn from those, by a
//! ```
//!
//! Draws are systematic (Madow, 1949) over the tokens in the order of memory, where like tokens lie
//! together. With n draws of the first phase and m of the second the relative variance is about
//! `(cv(a)^2 + cv(b)^2) / n + cv(b)^2 / m`; the interval is `WIDTH` standard errors to either side,
//! as if draws were independent.

use foveal_datasets::synthetic::Seeded;

use crate::kernel::logits;

/// Standard errors to either side: 99 of 100 intervals hold the true log Z. More than the 2.58 of
/// a normal mean, because `exp` of an error has a long tail.
const WIDTH: f64 = 3.0;
/// The width in nats that samples are made large enough for.
const WANTED: f64 = 0.02;
/// Of the square of that width, what the first phase may take.
const FIRST_SHARE: f64 = 0.6;
/// Draws of a phase at first, and the most that its spread may call for.
const FIRST: (usize, usize) = (512, 4096);
const SECOND: (usize, usize) = (64, 1024);
/// Values that share one sum.
const GROUP: usize = 16;

/// log Z: between `low` and `high` with the confidence that the way it was found has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogZ {
    /// The best estimate.
    pub value: f64,
    /// No less than this; `value` where it is exact.
    pub low: f64,
    /// No more than this; `value` where it is exact.
    pub high: f64,
}

impl LogZ {
    pub(crate) fn exact(value: f64) -> LogZ {
        LogZ { value, low: value, high: value }
    }
}

/// The log of the sum of `exp(logit / temperature)`; no logit is so large that it overflows.
/// Minus infinity for no logits.
pub(crate) fn log_sum_exp(logits: impl Iterator<Item = f32> + Clone, temperature: f64) -> f64 {
    let largest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let largest = f64::from(largest);
    let sum: f64 = logits.map(|logit| ((f64::from(logit) - largest) / temperature).exp()).sum();
    largest / temperature + sum.ln()
}

/// Estimates log Z; owns its buffers.
#[derive(Default)]
pub(crate) struct Sampler {
    /// By place: `exp` of the estimates; and the sums of each 16.
    weights: Vec<f32>,
    sums: Vec<f32>,
    /// The draws of the first phase: places, better estimates, and a.
    first: Vec<u32>,
    better: Vec<f32>,
    ratios: Vec<f64>,
    /// The draws of a round: places, or numbers of draws of the first phase.
    drawn: Vec<u32>,
    second: Vec<u32>,
    looked_up: Vec<f32>,
}

/// What is known of tokens whose logits are not.
pub(crate) struct Unknown<'a> {
    /// An estimated logit by place, in whole groups of 16; minus infinity for what does not count.
    pub(crate) estimates: &'a [f32],
    /// log Z of all other tokens.
    pub(crate) known: f64,
    pub(crate) temperature: f64,
}

/// The mean and spread of what was drawn.
#[derive(Default)]
struct Ratios {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Ratios {
    fn add(&mut self, ratio: f64) {
        self.count += 1.0;
        self.sum += ratio;
        self.squares += ratio * ratio;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count
    }

    /// The relative variance of one draw.
    fn variance(&self) -> f64 {
        let mean = self.mean();
        let variance = (self.squares / self.count - mean * mean).max(0.0) / (mean * mean);
        variance * self.count / (self.count - 1.0)
    }
}

impl Sampler {
    /// log Z of all tokens. `better(places, out)` estimates the logits of places better;
    /// `exact(places, visit)` tells the true logit of the i-th place, i in any order.
    ///
    /// # Errors
    /// Those of `exact`.
    pub(crate) fn log_z<E>(
        &mut self,
        unknown: &Unknown<'_>,
        better: impl FnMut(&[u32], &mut [f32]),
        exact: impl FnMut(&[u32], &mut dyn FnMut(usize, f32)) -> Result<(), E>,
    ) -> Result<LogZ, E> {
        let Unknown { estimates, known, temperature } = *unknown;
        self.weights.resize(estimates.len(), 0.0);
        self.sums.resize(estimates.len() / GROUP, 0.0);
        logits::largest_of_columns(estimates, &mut self.sums);
        let shift = self.sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if shift == f32::NEG_INFINITY {
            return Ok(LogZ::exact(known));
        }
        let scale = (1.0 / temperature) as f32;
        logits::exp_of_each(estimates, (shift, scale), &mut self.weights, &mut self.sums);
        let total: f64 = self.sums.iter().map(|sum| f64::from(*sum)).sum();
        // What the estimates say of the others, in units of the known part of Z.
        // Held where exp is finite: a low temperature makes an error of any size of an estimate.
        let estimated = (f64::from(shift) / temperature + total.ln() - known).min(600.0).exp();
        let mut random = Seeded::new(0x5eed);
        let a = self.first_phase(unknown, (total, estimated), &mut random, better);
        let b = self.second_phase(unknown, estimated * a.mean(), &mut random, exact)?;
        let others = estimated * a.mean() * b.mean();
        let variance = (a.variance() + b.variance()) / a.count + b.variance() / b.count;
        let error = WIDTH * others * variance.sqrt();
        let (low, high) = ((others - error).max(0.0), others + error);
        let [value, low, high] = [others, low, high].map(|part| known + part.ln_1p());
        Ok(LogZ { value, low, high })
    }

    fn first_phase(
        &mut self,
        unknown: &Unknown<'_>,
        (total, estimated): (f64, f64),
        random: &mut Seeded,
        mut better: impl FnMut(&[u32], &mut [f32]),
    ) -> Ratios {
        let mut ratios = Ratios::default();
        self.first.clear();
        self.better.clear();
        self.ratios.clear();
        let mut count = FIRST.0;
        loop {
            self.draw(total, count, start(random));
            self.looked_up.resize(self.drawn.len(), 0.0);
            better(&self.drawn, &mut self.looked_up);
            for (place, logit) in self.drawn.iter().zip(&self.looked_up) {
                let error = f64::from(*logit) - f64::from(unknown.estimates[*place as usize]);
                // A hopelessly wrong estimate must not outweigh all others.
                let ratio = (error / unknown.temperature).clamp(-30.0, 30.0).exp();
                ratios.add(ratio);
                self.ratios.push(ratio);
            }
            self.first.extend_from_slice(&self.drawn);
            self.better.extend_from_slice(&self.looked_up);
            let more = wanted_more(&ratios, estimated * ratios.mean(), FIRST_SHARE);
            if ratios.count as usize > FIRST.0 || more == 0 {
                return ratios;
            }
            count = more.min(FIRST.1 - FIRST.0);
        }
    }

    /// `others` is what the first phase says of the others, in units of the known part of Z.
    fn second_phase<E>(
        &mut self,
        unknown: &Unknown<'_>,
        others: f64,
        random: &mut Seeded,
        mut exact: impl FnMut(&[u32], &mut dyn FnMut(usize, f32)) -> Result<(), E>,
    ) -> Result<Ratios, E> {
        let total: f64 = self.ratios.iter().sum();
        let mut ratios = Ratios::default();
        let mut count = SECOND.0;
        loop {
            let (step, mut next) = (total / count as f64, start(random) * total / count as f64);
            self.drawn.clear();
            let mut running = 0.0;
            for (i, ratio) in self.ratios.iter().enumerate() {
                running += ratio;
                while next < running && self.drawn.len() < count {
                    self.drawn.push(i as u32);
                    next += step;
                }
            }
            self.second.clear();
            self.second.extend(self.drawn.iter().map(|i| self.first[*i as usize]));
            let (drawn, better) = (&self.drawn, &self.better);
            exact(&self.second, &mut |i, logit| {
                let error = f64::from(logit) - f64::from(better[drawn[i] as usize]);
                ratios.add((error / unknown.temperature).clamp(-30.0, 30.0).exp());
            })?;
            let more = wanted_more(&ratios, others * ratios.mean(), 1.0 - FIRST_SHARE);
            if ratios.count as usize > SECOND.0 || more == 0 {
                return Ok(ratios);
            }
            count = more.min(SECOND.1 - SECOND.0);
        }
    }

    /// Draws `count` places at even steps of the running sum of the weights, from the part `start`
    /// of a step on.
    fn draw(&mut self, total: f64, count: usize, start: f64) {
        self.drawn.clear();
        let step = total / count as f64;
        let mut next = start * step;
        let mut before = 0.0f64;
        for (group, sum) in self.sums.iter().enumerate() {
            let end = before + f64::from(*sum);
            if next < end {
                let mut running = before;
                let first = group * GROUP;
                let weights = &self.weights[first..self.weights.len().min(first + GROUP)];
                let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(0);
                for (i, weight) in weights.iter().enumerate() {
                    running += f64::from(*weight);
                    // The group's sum was rounded once: its last token takes what is left.
                    let reached = if i == last { end } else { running.min(end) };
                    while next < reached && self.drawn.len() < count {
                        self.drawn.push((first + i) as u32);
                        next += step;
                    }
                }
            }
            before = end;
        }
    }
}

/// A number from 0 to below 1.
fn start(random: &mut Seeded) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// How many more draws like those bring the width of log Z down to its share of what is wanted,
/// where the others are `others` times what is known of Z.
fn wanted_more(ratios: &Ratios, others: f64, share: f64) -> usize {
    // The width of log(1 + others -+ error) is about 2 error / (1 + others).
    let width = 2.0 * WIDTH * others / (1.0 + others) * (ratios.variance() / ratios.count).sqrt();
    let excess = (width / WANTED).powi(2) / share;
    if excess <= 1.0 { 0 } else { (ratios.count * (excess - 1.0)).min(1e6).ceil() as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_a_sum_of_exponentials_never_overflows() {
        let sum = |logits: &[f32], t: f64| log_sum_exp(logits.iter().copied(), t);
        assert_eq!(sum(&[], 1.0), f64::NEG_INFINITY);
        assert_eq!(sum(&[3.0], 1.0), 3.0);
        assert!((sum(&[1.0, 2.0, 3.0], 1.0) - 3.407_605_964_444_38).abs() < 1e-12);
        assert!((sum(&[1.0, 2.0, 3.0], 0.5) - 6.142_931_628_499_9).abs() < 1e-12);
        assert!((sum(&[3e38, 3e38], 1.0) / f64::from(3e38f32) - 1.0).abs() < 1e-12);
        assert!((sum(&[-3e38, -3e38], 1.0) / f64::from(-3e38f32) - 1.0).abs() < 1e-12);
    }

    /// log Z by estimates that are wrong by so much, and better ones by so much less.
    fn sampled(
        logits: &[f32],
        known: f64,
        errors: (f32, f32),
        random: &mut Seeded,
    ) -> (LogZ, usize) {
        let rough: Vec<f32> = logits.iter().map(|x| x + errors.0 * random.gaussian()).collect();
        let better: Vec<f32> = logits.iter().map(|x| x + errors.1 * random.gaussian()).collect();
        let mut looked_up = 0;
        let unknown = Unknown { estimates: &rough, known, temperature: 1.0 };
        let found = Sampler::default().log_z(
            &unknown,
            |places, out| {
                let places = places.iter().map(|place| better[*place as usize]);
                out.iter_mut().zip(places).for_each(|(out, x)| *out = x);
            },
            |places, visit| {
                looked_up += places.len();
                let logits = places.iter().map(|place| logits[*place as usize]);
                logits.enumerate().for_each(|(i, logit)| visit(i, logit));
                Ok::<(), ()>(())
            },
        );
        (found.unwrap(), looked_up)
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let mut random = Seeded::new(5);
        for errors in [(0.7, 0.2), (1.0, 0.3), (0.2, 0.2)] {
            let (mut held, mut widths) = (0, Vec::new());
            for trial in 0..300 {
                let n = 1008 + 16 * trial;
                let logits: Vec<f32> = (0..n).map(|_| 2.5 * random.gaussian()).collect();
                let others = log_sum_exp(logits.iter().copied(), 1.0);
                // Nine tenths of Z are known.
                let (known, truth) = (others + 9f64.ln(), others + 10f64.ln());
                let (found, looked_up) = sampled(&logits, known, errors, &mut random);
                held += usize::from((found.low..=found.high).contains(&truth));
                widths.push(found.high - found.low);
                assert!(looked_up <= SECOND.1);
            }
            assert!(held >= 291, "{errors:?}: {held} of 300 intervals hold the truth");
            widths.sort_by(f64::total_cmp);
            assert!(widths[150] < 0.03, "{errors:?}: half are wider than {}", widths[150]);
        }
    }

    #[test]
    fn perfect_estimates_leave_no_doubt() {
        let logits: Vec<f32> = (0..96).map(|i| i as f32 * 0.1).collect();
        let truth = log_sum_exp(logits.iter().copied(), 1.0);
        let known = log_sum_exp(logits[48..].iter().copied(), 1.0);
        let mut rest = logits.clone();
        rest[48..].fill(f32::NEG_INFINITY);
        let (found, _) = sampled(&rest, known, (0.0, 0.0), &mut Seeded::new(1));
        assert!((found.value - truth).abs() < 1e-6 && found.high - found.low < 1e-6, "{found:?}");
        let (nothing_else, looked_up) =
            sampled(&[f32::NEG_INFINITY; 32], 1.5, (0.0, 0.0), &mut Seeded::new(1));
        assert_eq!((nothing_else, looked_up), (LogZ::exact(1.5), 0));
    }

    #[test]
    fn draws_are_shares_of_the_weights() {
        let weights = (0..40).map(|i| if i % 2 == 0 { 1.0 } else { 0.0 }).collect();
        let mut sampler = Sampler { weights, sums: vec![8.0, 8.0, 4.0], ..Sampler::default() };
        sampler.draw(20.0, 20, 0.5);
        assert_eq!(sampler.drawn, (0..20).map(|i| 2 * i).collect::<Vec<u32>>());
        sampler.draw(20.0, 5, 0.0);
        assert_eq!(sampler.drawn, [0, 8, 16, 24, 32]);
        sampler.draw(20.0, 60, 0.999);
        assert_eq!(sampler.drawn.len(), 60);
    }
}
