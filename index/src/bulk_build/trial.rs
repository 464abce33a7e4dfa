//! How well the index just written decodes hidden states that it did not learn from.

use std::path::Path;

use foveal_datasets::Row;
use rayon::prelude::*;

use super::error::BuildError;
use super::{BuildInput, tokens};
use crate::decode::{DecodeRequest, Decoded, Decoder};
use crate::disk::DecodeQuality;
use crate::params::{DecodeMode, DecodeParams};
use crate::segment::{SearchError, Segment};
use crate::stats::{Job, Stop};

/// Tokens whose share among the true best is measured.
const K: u32 = 10;
/// Hidden states decoded at most, and at least where there are so many.
const STATES: usize = 200;
const LEAST_STATES: usize = 20;
/// Products of numbers that computing every logit for them may take.
const PRODUCTS: usize = 100_000_000_000;
/// Shares below which a build warns, of the best tokens and of the intervals.
const PRECISION: f64 = 0.95;
const COVERED: f64 = 0.97;
/// The share of widened decodes beyond which a build warns.
const WIDENED: f64 = 0.5;
/// Hidden states that tell whether intervals hold.
const TELLING: u32 = 100;

/// What one decode shows.
struct Shown {
    right: usize,
    wanted: usize,
    covered: bool,
    width: f64,
    widened: bool,
}

/// Decodes hidden states that were held out, with the defaults, and compares with the logits of all
/// tokens. `O(states n dim)`.
///
/// # Errors
/// The index cannot be opened or read; an interrupt.
pub(super) fn measure(
    dir: &Path,
    input: &BuildInput<'_>,
    job: Job<'_>,
) -> Result<Option<DecodeQuality>, BuildError> {
    let Some(learn) = input.learn else { return Ok(None) };
    job.tell("trying decodes", 0, 1);
    let index = Segment::open(dir)?;
    let affordable = PRODUCTS / (input.base.len() * input.base.dim());
    let states = affordable.clamp(LEAST_STATES, STATES).min(tokens::checks(learn.len()));
    if states == 0 {
        return Ok(None);
    }
    let held_out = learn.read(learn.len() - states..learn.len())?;
    let decoder = || index.decoder().expect("only output layers have token codes");
    let shown: Result<Vec<Shown>, SearchError> = (0..states)
        .into_par_iter()
        .map_init(decoder, |decoder, state| show(decoder, held_out.row(state), job))
        .collect();
    let shown = shown.map_err(|error| match error {
        SearchError::Stopped(_) => BuildError::Interrupted,
        error => BuildError::Trial(error),
    })?;
    job.tell("trying decodes", 1, 1);
    Ok(Some(quality(&shown)))
}

/// Decodes a hidden state, which ends with a 1 where rows end with a bias, both ways.
fn show(decoder: &mut Decoder, state: Row<'_>, job: Job<'_>) -> Result<Shown, SearchError> {
    let mut wide = vec![0.0; state.dim()];
    state.widen_into(&mut wide);
    wide.truncate(decoder.hidden_dim());
    let stop = Stop { cancelled: job.interrupt, ..Stop::default() };
    let mut decode = |mode: DecodeMode| -> Result<Decoded, SearchError> {
        let params = DecodeParams { mode, ..DecodeParams::new(K) };
        decoder.decode(&wide, &DecodeRequest { params, stop, ..DecodeRequest::new(K) })
    };
    let (found, truth) = (decode(DecodeMode::Auto)?, decode(DecodeMode::Exact)?);
    let is_right = |key: u64| truth.tokens.iter().any(|token| token.key == key);
    let (Some(log_z), Some(wanted)) = (found.log_z, truth.log_z) else {
        unreachable!("decodes tell log Z unless the request turns it off")
    };
    Ok(Shown {
        right: found.tokens.iter().filter(|token| is_right(token.key)).count(),
        wanted: truth.tokens.len(),
        // Both are intervals: the exact one is as wide as rounding is.
        covered: log_z.low <= wanted.high && wanted.low <= log_z.high,
        width: log_z.high - log_z.low,
        widened: found.widened,
    })
}

fn quality(shown: &[Shown]) -> DecodeQuality {
    let share = |holds: &dyn Fn(&Shown) -> bool| {
        shown.iter().filter(|one| holds(one)).count() as f64 / shown.len().max(1) as f64
    };
    let mut widths: Vec<f64> = shown.iter().map(|one| one.width).collect();
    widths.sort_unstable_by(f64::total_cmp);
    let right: usize = shown.iter().map(|one| one.right).sum();
    let wanted: usize = shown.iter().map(|one| one.wanted).sum();
    DecodeQuality {
        states: shown.len() as u32,
        precision: right as f64 / wanted.max(1) as f64,
        covered: share(&|one| one.covered),
        width_p50: widths.get(shown.len() / 2).copied().unwrap_or(0.0),
        widened: share(&|one| one.widened),
    }
}

/// What a user of the index should know before decoding with it.
pub(super) fn warnings(quality: &DecodeQuality) -> Vec<String> {
    let DecodeQuality { states, precision, covered, widened, .. } = *quality;
    let mut warnings = Vec::new();
    if precision < PRECISION {
        warnings.push(format!(
            "decode finds {:.1} % of the {K} best tokens of {states} hidden states that were held \
             out; wanted {:.0} %: give more sample hidden states, or decode with mode exact",
            100.0 * precision,
            100.0 * PRECISION,
        ));
    }
    if states >= TELLING && covered < COVERED {
        warnings.push(format!(
            "intervals of log Z hold the truth for {:.1} % of {states} hidden states that were \
             held out; wanted 99 %: decode with log Z exact",
            100.0 * covered,
        ));
    }
    if widened > WIDENED {
        warnings.push(format!(
            "token codes tell little about {:.0} % of {states} hidden states that were held out: \
             decodes of such states look at more tokens and take longer",
            100.0 * widened,
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(right: usize, covered: bool, widened: bool) -> Shown {
        Shown { right, wanted: 10, covered, width: 0.01, widened }
    }

    #[test]
    fn a_build_warns_of_each_thing_that_decodes_fall_short_of() {
        let told = |shown: &[Shown]| warnings(&quality(shown)).join("\n");
        let all = |one: fn() -> Shown| (0..200).map(|_| one()).collect::<Vec<Shown>>();
        assert_eq!(told(&all(|| shown(10, true, false))), "");
        let missing = told(&all(|| shown(9, true, false)));
        assert!(
            missing.starts_with("decode finds 90.0 % of the 10 best tokens of 200"),
            "{missing}"
        );
        let mut uncovered = all(|| shown(10, true, false));
        uncovered[..10].iter_mut().for_each(|one| one.covered = false);
        assert!(told(&uncovered).starts_with("intervals of log Z hold the truth for 95.0 %"));
        // So few tell nothing of 97 %.
        assert_eq!(told(&[shown(10, true, false), shown(10, false, false)]), "");
        let widened = told(&all(|| shown(10, true, true)));
        assert!(widened.starts_with("token codes tell little about 100 %"), "{widened}");
    }
}
