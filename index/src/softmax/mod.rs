//! Logits -> probabilities: log Z, exactly or as an interval.
//!
//! `Z = sum over tokens of exp(s / t)` for logits s and a temperature t. The tokens whose logits
//! are known are summed as they are. What the others add is estimated by importance sampling in two
//! phases (double sampling, Neyman, 1938), for there are three prices of a logit: an estimate e of
//! every token is at hand, a better one e' costs a cache miss or a few, the true one s a row.
//!
//! The first phase draws tokens with chances in proportion to about `exp(e / t)`. A draw stands for
//! a *mass*: `exp(e' / t)` over the chance that it was drawn, and what masses sum to estimates the
//! sum over all tokens of `exp(e' / t)`. The second phase draws from those in proportion to their
//! masses, and multiplies the mass that a draw stands for by `b = exp((s - e') / t)`.
//!
//! Draws are systematic (Madow, 1949) over the tokens nearly in the order of memory, where like
//! tokens lie together. What weighs half a step of the first round or more is taken once; the
//! others, R in sum, are drawn from. Where it turns out that more draws are needed there is a
//! second round over those. With n draws in all, and r the mass of a draw over its weight, the
//! variance of a phase is about `R^2 var(r) / n`; where draws are few, var(r) is that of all that
//! was looked at. What the first phase leaves open counts in true masses: `mean(b)^2` times its
//! variance, and var(b) for each square of a mass that was drawn. The interval is `WIDTH` standard
//! errors to either side, as if draws were independent, and never less than `LEAST`.
//!
//! A variance of draws tells nothing where draws miss what matters: a token that estimates are
//! wrong about by many t may hold all of Z. So how far e' is from e, and s from e', is measured on
//! the draws as well, in logs, which a few draws tell well; where it is too much for masses to be
//! spread evenly over draws, or few of them hold most of what was drawn, the sample is `Doubtful`.
//! Then [`Sampler::split`] tells which tokens must be known for the others not to matter.

mod draws;

use foveal_datasets::seeded::Seeded;

use crate::kernel::logits::{self, TILE};
use draws::Draws;

/// Standard errors to either side: 99 of 100 intervals hold the true log Z. More than the 2.58 of
/// a normal mean, because `exp` of an error has a long tail.
const WIDTH: f64 = 3.0;
/// Nats to either side that no interval is narrower than at temperatures t from 1 on; below in
/// proportion to `1 / t`. Tokens that estimates are hopelessly wrong about and no draw met, and
/// what rows kept in 16 bits have lost, move log Z by less. A quarter of what is aimed at.
const LEAST: f64 = 0.005;
/// The width in nats that samples are made large enough for.
const WANTED: f64 = 0.02;
/// Of the square of that width, what the first phase may take.
const FIRST_SHARE: f64 = 0.6;
/// Draws of a phase at first, and the most that its spread may call for: a hidden state that any
/// token may follow is left a wider interval.
const FIRST: (usize, usize) = (1024, 2048);
const SECOND: (usize, usize) = (64, 512);
/// Fewer draws than this do not tell how spread they are.
const FEW: f64 = 32.0;
/// Of a step of the first round, what is worth so much is certain: it would be drawn again and
/// again in the second.
const CERTAIN: f64 = 0.5;
/// How far, in units of the temperature, a better estimate may be from the first one, and a logit
/// from that: one that is hopelessly wrong must not outweigh all others.
const FARTHEST: f64 = 30.0;
/// Standard deviations of logs of masses over weights up to which draws are trusted, of the first
/// and of the second phase; and the share of the draws that they must be worth.
const LARGEST_SPREAD: (f64, f64) = (1.25, 0.8);
const LEAST_WORTH: (f64, f64) = (0.06, 0.15);
/// Standard deviations that the estimate of a token may be wrong by, where no draw tells.
const FARTHEST_WRONG: f64 = 4.0;
/// Steps of a logit over the temperature in which tokens are counted, and how many of them.
const STEPS_A_NAT: f64 = 4.0;
const STEPS: usize = 4096;
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

    /// The same interval, wider by so much on either side.
    pub(crate) fn widened(self, by: f64) -> LogZ {
        LogZ { low: self.low - by, high: self.high + by, ..self }
    }

    /// The same when every logit over the temperature is larger by so much.
    pub(crate) fn shifted(self, by: f64) -> LogZ {
        LogZ { value: self.value + by, low: self.low + by, high: self.high + by }
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
    /// By position: about `exp` of the estimates; and the sums of groups of 16, see `weights_of`.
    weights: Vec<f32>,
    sums: Vec<f32>,
    draws: Draws,
    /// What the first phase drew, that of its certain ones first: positions, better estimates, and
    /// masses over weights, then masses.
    positions: Vec<u32>,
    better: Vec<f32>,
    masses: Vec<f64>,
    certain: usize,
    /// Those of a round: logits, and `exp` of them; the positions of the second phase.
    looked_up: Vec<f32>,
    raised: Vec<f32>,
    second: Vec<u32>,
    /// By phase: how far what it saw was from what it was drawn by, in units of the temperature.
    errors: [Spread; 2],
}

/// What is known of tokens whose logits are not.
pub(crate) struct Unknown<'a> {
    /// An estimated logit by position, in whole groups of 16; minus infinity for what does not
    /// count.
    pub(crate) estimates: &'a [f32],
    /// log Z of all other tokens.
    pub(crate) known: f64,
    pub(crate) temperature: f64,
    /// A standard deviation of logits from estimates, where it was seen; else 0.
    pub(crate) error: f64,
}

/// The result of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sampled {
    /// log Z of all tokens.
    Sound(LogZ),
    /// Nothing: logits are `spread` from estimates, in units of the temperature.
    Doubtful { spread: f64 },
}

/// Count, sum and squares of some numbers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spread {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Spread {
    pub(crate) fn add(&mut self, x: f64) {
        self.count += 1.0;
        self.sum += x;
        self.squares += x * x;
    }

    pub(crate) fn count(&self) -> f64 {
        self.count
    }

    pub(crate) fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    pub(crate) fn deviation(&self) -> f64 {
        self.variance().sqrt()
    }

    /// The share of them that says as much, were they of one size (effective sample size).
    fn worth(&self) -> f64 {
        let of_all = self.squares * self.count;
        if of_all > 0.0 { self.sum * self.sum / of_all } else { 1.0 }
    }

    /// The variance of one of them; 0 where there are too few to tell.
    fn variance(&self) -> f64 {
        if self.count < 2.0 {
            return 0.0;
        }
        let mean = self.mean();
        (self.squares / self.count - mean * mean).max(0.0) * self.count / (self.count - 1.0)
    }
}

/// The estimate that a phase gives of the sum of all masses.
#[derive(Clone, Copy, Default)]
struct Phase {
    sum: f64,
    variance: f64,
    /// The squares of the masses that were drawn.
    squares: f64,
    /// The share of the draws that they are worth, and what they sum to.
    worth: f64,
    drawn: f64,
}

impl Sampler {
    /// log Z of all tokens, if draws can tell. `better(positions, out)` estimates logits better;
    /// `exact(positions, visit)` computes the true logit of the i-th position, i in any order.
    ///
    /// # Errors
    /// Those of `exact`.
    pub(crate) fn log_z<E>(
        &mut self,
        unknown: &Unknown<'_>,
        better: impl FnMut(&[u32], &mut [f32]),
        exact: impl FnMut(&[u32], &mut dyn FnMut(usize, f32)) -> Result<(), E>,
    ) -> Result<Sampled, E> {
        let Unknown { estimates, known, temperature, .. } = *unknown;
        self.weights.resize(estimates.len(), 0.0);
        self.sums.resize(estimates.len() / GROUP, 0.0);
        logits::largest_of_columns(estimates, &mut self.sums);
        let shift = self.sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if !shift.is_finite() {
            return Ok(Sampled::Sound(LogZ::exact(known)));
        }
        self.errors = Default::default();
        let scale = (1.0 / temperature) as f32;
        self.sums.resize(estimates.len().div_ceil(TILE) * GROUP, 0.0);
        logits::weights_of(estimates, (shift, scale), &mut self.weights, &mut self.sums);
        // What a mass of 1 is in units of the known part of Z. Held where exp is finite: a low
        // temperature makes an error of any size of an estimate.
        let unit = (f64::from(shift) / temperature - known).min(600.0).exp();
        let mut random = Seeded::new(0x5eed);
        let first = self.first_phase(unknown, (shift, unit), &mut random, better);
        let second = self.second_phase(unknown, (first, unit), &mut random, exact)?;
        let least = LEAST / temperature.min(1.0);
        let all = unit * self.sums.iter().map(|sum| f64::from(*sum)).sum::<f64>();
        if let Some(spread) = self.doubt(unknown, (first, second), (all, unit, least)) {
            return Ok(Sampled::Doubtful { spread });
        }
        let others = unit * second.sum;
        let error = WIDTH * unit * second.variance.sqrt();
        let (low, high) = ((others - error).max(0.0), others + error);
        let [value, low, high] = [others, low, high].map(|part| known + part.ln_1p());
        let (low, high) = (low.min(value - least), high.max(value + least));
        Ok(Sampled::Sound(LogZ { value, low, high }))
    }

    /// How far logits are from estimates, in units of the temperature, if that is too far for draws
    /// to tell what all tokens weigh; nothing where they tell, or where the tokens, which weigh
    /// `all` by their estimates, move log Z by less than `least` in any case.
    fn doubt(
        &self,
        unknown: &Unknown<'_>,
        (first, second): (Phase, Phase),
        (all, unit, least): (f64, f64, f64),
    ) -> Option<f64> {
        let seen = unknown.error / unknown.temperature;
        let of_phase = |errors: &Spread| {
            let few = errors.count < FEW;
            if few { seen.max(errors.deviation()) } else { errors.deviation() }
        };
        let [near, far] = self.errors.each_ref().map(of_phase);
        let spread = near.hypot(far);
        if all * (FARTHEST_WRONG * spread).exp() <= least / 2.0 {
            return None;
        }
        // What draws sum to may be little beside what is certain.
        let matters = |phase: &Phase| unit * phase.drawn > least;
        let poor = |phase: &Phase, worth: f64| matters(phase) && phase.worth < worth;
        let sound = near <= LARGEST_SPREAD.0
            && far <= LARGEST_SPREAD.1
            && !poor(&first, LEAST_WORTH.0)
            && !poor(&second, LEAST_WORTH.1);
        (!sound).then_some(spread)
    }

    /// Which tokens must be known for the others not to matter, where logits may be far from
    /// estimates: those with an estimate of the first number or more. And what the others weigh at
    /// most, in units of the known part of Z; 0 where all must be known.
    pub(crate) fn split(&self, unknown: &Unknown<'_>, spread: f64) -> (f32, f64) {
        let Unknown { estimates, known, temperature, .. } = *unknown;
        let mut counts = [0u32; STEPS];
        for estimate in estimates.iter().filter(|estimate| **estimate > f32::NEG_INFINITY) {
            let below = (known - f64::from(*estimate) / temperature) * STEPS_A_NAT;
            counts[(below.max(0.0) as usize).min(STEPS - 1)] += 1;
        }
        let farthest = FARTHEST_WRONG * spread;
        let most = LEAST / temperature.min(1.0);
        let (mut rest, mut step) = (0.0, STEPS);
        while step > 0 {
            let weight = (farthest - (step - 1) as f64 / STEPS_A_NAT).exp();
            let more =
                if counts[step - 1] == 0 { 0.0 } else { weight * f64::from(counts[step - 1]) };
            if rest + more > most {
                break;
            }
            (rest, step) = (rest + more, step - 1);
        }
        if step == STEPS {
            // The last step holds all that lie farther as well.
            return (f32::MIN, 0.0);
        }
        (((known - step as f64 / STEPS_A_NAT) * temperature) as f32, rest)
    }

    /// Fills `positions`, `better` and `masses`.
    fn first_phase(
        &mut self,
        unknown: &Unknown<'_>,
        (shift, unit): (f32, f64),
        random: &mut Seeded,
        mut better: impl FnMut(&[u32], &mut [f32]),
    ) -> Phase {
        self.positions.clear();
        self.better.clear();
        self.masses.clear();
        self.draws.split(&self.weights, &self.sums, FIRST.0 as f64 / CERTAIN);
        let mut ratios = Spread::default();
        self.meet(unknown, shift, &mut ratios, &mut better);
        self.certain = self.positions.len();
        let raised = self.masses.iter().zip(&self.positions);
        let sure: f64 = raised.map(|(r, position)| r * self.weight(*position)).sum();
        let mut count = steps(self.draws.rest, self.draws.largest / CERTAIN);
        let mut told = Phase::default();
        for round in 0..2 {
            self.draws.draw(&self.weights, count, start(random));
            self.meet(unknown, shift, &mut ratios, &mut better);
            let drawn = &self.masses[self.certain..];
            told = Phase::of(sure, self.draws.rest, drawn, &ratios);
            count = wanted_more(&told, drawn.len(), unit, FIRST_SHARE).min(FIRST.1 - FIRST.0);
            if count == 0 || round == 1 {
                break;
            }
        }
        let step = self.draws.rest / (self.masses.len() - self.certain).max(1) as f64;
        for i in 0..self.masses.len() {
            self.masses[i] *= if i < self.certain { self.weight(self.positions[i]) } else { step };
        }
        told
    }

    fn weight(&self, position: u32) -> f64 {
        f64::from(self.weights[position as usize])
    }

    /// Looks closer at what was drawn.
    fn meet(
        &mut self,
        unknown: &Unknown<'_>,
        shift: f32,
        ratios: &mut Spread,
        better: &mut impl FnMut(&[u32], &mut [f32]),
    ) {
        let drawn = &self.draws.drawn;
        self.looked_up.resize(drawn.len(), 0.0);
        self.raised.resize(drawn.len(), 0.0);
        better(drawn, &mut self.looked_up);
        let farthest = (FARTHEST * unknown.temperature) as f32;
        for (position, logit) in drawn.iter().zip(&mut self.looked_up) {
            let estimate = unknown.estimates[*position as usize];
            self.errors[0].add(f64::from(*logit - estimate) / unknown.temperature);
            *logit = logit.min(estimate + farthest);
        }
        let scale = (1.0 / unknown.temperature) as f32;
        logits::exp_of_each(&self.looked_up, (shift, scale), &mut self.raised);
        for (position, raised) in drawn.iter().zip(&self.raised) {
            let ratio = f64::from(*raised) / f64::from(self.weights[*position as usize]);
            ratios.add(ratio);
            self.masses.push(ratio);
        }
        self.positions.extend_from_slice(drawn);
        self.better.extend_from_slice(&self.looked_up);
    }

    /// The sum of the true masses, where `first` tells of the estimated ones.
    fn second_phase<E>(
        &mut self,
        unknown: &Unknown<'_>,
        (first, unit): (Phase, f64),
        random: &mut Seeded,
        mut exact: impl FnMut(&[u32], &mut dyn FnMut(usize, f32)) -> Result<(), E>,
    ) -> Result<Phase, E> {
        let total: f64 = self.masses.iter().sum();
        let largest = total / SECOND.0 as f64;
        let (mut certain, mut others) = (Vec::new(), Vec::new());
        for (i, mass) in (0..).zip(&self.masses) {
            if *mass >= largest { certain.push(i) } else { others.push(i) }
        }
        let rest: f64 = others.iter().map(|i| self.masses[*i as usize]).sum();
        let (mut ratios, mut seen) = (Spread::default(), Vec::new());
        self.look(unknown, &certain, &mut exact, &mut seen)?;
        let sure = certain.iter().zip(&seen).map(|(i, b)| self.masses[*i as usize] * b).sum();
        seen.iter().for_each(|b| ratios.add(*b));
        seen.clear();
        let mut count = steps(rest, largest);
        let mut told = Phase::default();
        for round in 0..2 {
            let (step, mut running) = (rest / count as f64, 0.0);
            let mut next = start(random) * step;
            let mut drawn = Vec::with_capacity(count + 1);
            for i in &others {
                running += self.masses[*i as usize];
                while next < running {
                    drawn.push(*i);
                    next += step;
                }
            }
            let before = seen.len();
            self.look(unknown, &drawn, &mut exact, &mut seen)?;
            seen[before..].iter().for_each(|b| ratios.add(*b));
            told = Phase::of(sure, rest, &seen, &ratios);
            count = wanted_more(&told, seen.len(), unit, 1.0 - FIRST_SHARE);
            count = count.min(SECOND.1 - SECOND.0);
            if count == 0 || round == 1 {
                break;
            }
        }
        // What the first phase left open, of the true masses in the place of estimated ones.
        let ratio = if total > 0.0 { told.sum / total } else { 1.0 };
        told.variance += ratio * ratio * first.variance + ratios.variance() * first.squares;
        Ok(told)
    }

    /// b of some draws of the first phase, added to `seen`.
    fn look<E>(
        &mut self,
        unknown: &Unknown<'_>,
        drawn: &[u32],
        exact: &mut impl FnMut(&[u32], &mut dyn FnMut(usize, f32)) -> Result<(), E>,
        seen: &mut Vec<f64>,
    ) -> Result<(), E> {
        self.second.clear();
        self.second.extend(drawn.iter().map(|i| self.positions[*i as usize]));
        // Rows arrive in any order, and sums must not depend on it.
        self.looked_up.resize(drawn.len(), 0.0);
        let found = &mut self.looked_up;
        exact(&self.second, &mut |i, logit| found[i] = logit)?;
        seen.extend(drawn.iter().zip(&self.looked_up).map(|(i, logit)| {
            let error = f64::from(*logit) - f64::from(self.better[*i as usize]);
            let error = error / unknown.temperature;
            self.errors[1].add(error);
            error.min(FARTHEST).exp()
        }));
        Ok(())
    }
}

impl Phase {
    /// Of certain masses that sum to `sure`, and draws from others of which `rest` is the sum of
    /// the weights: `drawn` are their masses over weights; where they are few, they are as spread
    /// as `all`.
    fn of(sure: f64, rest: f64, drawn: &[f64], all: &Spread) -> Phase {
        let mut told = Spread::default();
        drawn.iter().for_each(|ratio| told.add(*ratio));
        let count = told.count.max(1.0);
        let spread = if told.count < FEW { all.variance() } else { told.variance() };
        let step = rest / count;
        Phase {
            sum: sure + step * told.sum,
            variance: rest * rest * spread / count,
            squares: step * step * told.squares,
            worth: told.worth(),
            drawn: step * told.sum,
        }
    }
}

/// How many draws are worth what is left, at least one.
fn steps(rest: f64, largest: f64) -> usize {
    if largest > 0.0 { (rest / largest).ceil().max(1.0) as usize } else { 1 }
}

/// A number from 0 to below 1.
fn start(random: &mut Seeded) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// How many more draws than `count` bring the width of log Z down to its share of what is wanted.
fn wanted_more(phase: &Phase, count: usize, unit: f64, share: f64) -> usize {
    // The width of log(1 + others -+ error) is about 2 error / (1 + others).
    let (others, error) = (unit * phase.sum, WIDTH * unit * phase.variance.sqrt());
    let excess = (2.0 * error / (1.0 + others) / WANTED).powi(2) / share;
    if excess > 1.0 { (count as f64 * (excess - 1.0)).min(1e6).ceil() as usize } else { 0 }
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
        let unknown = Unknown { estimates: &rough, known, temperature: 1.0, error: 0.0 };
        let (found, looked_up) = sampled_by(&unknown, &better, logits);
        let Sampled::Sound(found) = found else { panic!("{found:?}") };
        (found, looked_up.len())
    }

    /// log Z by better estimates and logits by position, and the positions that were looked up.
    fn sampled_by(unknown: &Unknown<'_>, better: &[f32], logits: &[f32]) -> (Sampled, Vec<u32>) {
        let mut looked_up = Vec::new();
        let found = Sampler::default().log_z(
            unknown,
            |positions, out| {
                let positions = positions.iter().map(|position| better[*position as usize]);
                out.iter_mut().zip(positions).for_each(|(out, x)| *out = x);
            },
            |positions, visit| {
                looked_up.extend_from_slice(positions);
                let logits = positions.iter().map(|position| logits[*position as usize]);
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
        assert!((found.value - truth).abs() < 1e-5, "{found:?}");
        assert!((found.high - found.low - 2.0 * LEAST).abs() < 1e-4, "{found:?}");
        let (nothing_else, looked_up) =
            sampled(&[f32::NEG_INFINITY; 32], 1.5, (0.0, 0.0), &mut Seeded::new(1));
        assert_eq!((nothing_else, looked_up), (LogZ::exact(1.5), 0));
    }

    /// Where nearly all of Z is known, few draws are made, and none meets a token whose estimates
    /// are hopelessly low: what such a one may add is part of every interval, at any temperature.
    #[test]
    fn a_token_that_no_draw_meets_is_allowed_for() {
        for temperature in [0.25f64, 1.0, 4.0] {
            let unit = temperature as f32;
            let mut logits = vec![-12.0 * unit; 4096];
            let least = LEAST / temperature.min(1.0);
            logits[77] = (0.8 * least).ln() as f32 * unit;
            let mut estimates = logits.clone();
            estimates[77] = -30.0 * unit;
            let unknown = Unknown { estimates: &estimates, known: 0.0, temperature, error: 0.0 };
            let (found, looked_up) = sampled_by(&unknown, &estimates, &logits);
            let Sampled::Sound(found) = found else { panic!("{found:?}") };
            let truth = log_sum_exp([0.0].iter().chain(&logits).copied(), temperature);
            assert!(!looked_up.contains(&77), "no draw meets it");
            assert!(truth - found.value > 0.7 * least, "{found:?} {truth}");
            assert!((found.low..=found.high).contains(&truth), "{found:?} {truth}");
        }
    }

    #[test]
    fn draws_are_shares_of_the_weights() {
        // Two tiles, the second of one row: a group is every sixteenth of a tile.
        let mut weights = vec![0.0; TILE + GROUP];
        for (position, weight) in
            [(0, 1.0), (32, 2.0), (1, 1.0), (241, 3.0), (256, 1.0), (258, 2.0)]
        {
            weights[position] = weight;
        }
        let sums_of = |weights: &[f32]| {
            let sum = |tile: &[f32], lane: usize| tile[lane..].iter().step_by(GROUP).sum();
            let of_tile = |tile: &[f32]| (0..GROUP).map(|lane| sum(tile, lane)).collect::<Vec<_>>();
            weights.chunks(TILE).flat_map(of_tile).collect::<Vec<f32>>()
        };
        let mut draws = Draws::default();
        let sums = sums_of(&weights);
        let mut drawn = |parts: f64, count: usize, start: f64| {
            draws.split(&weights, &sums, parts);
            let certain = draws.drawn.clone();
            draws.draw(&weights, count, start);
            (certain, draws.drawn.clone(), draws.rest)
        };
        assert_eq!(drawn(2.0, 2, 0.5), (vec![], vec![32, 256], 10.0));
        // What weighs a step or more is certain, and the others are drawn as if it was not there.
        assert_eq!(drawn(4.0, 3, 0.1), (vec![241], vec![0, 32, 256], 7.0));
        assert_eq!(drawn(1e3, 1, 0.5), (vec![0, 32, 1, 241, 256, 258], vec![], 0.0));
    }

    #[test]
    fn few_draws_do_not_pretend_to_be_sure() {
        // One token that is certain, and a few that share what a single draw is worth.
        let mut logits = vec![f32::NEG_INFINITY; 64];
        logits[0] = 0.0;
        logits[1..8].fill(-5.0);
        let others = log_sum_exp(logits.iter().copied(), 1.0);
        let (mut held, mut random) = (0, Seeded::new(7));
        for _ in 0..300 {
            let (found, _) = sampled(&logits, others, (0.5, 0.3), &mut random);
            let truth = others + 2f64.ln();
            held += usize::from((found.low..=found.high).contains(&truth));
        }
        assert!(held >= 291, "{held} of 300 intervals hold the truth");
    }
}
