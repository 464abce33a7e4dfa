//! Token codes: what an inner-product index decodes with, learned from sample hidden states.

use foveal_datasets::{Metric, Rows};
use rayon::prelude::*;

use super::error::BuildError;
use super::row_pass::{RowPass, inverse};
use super::{BuildInput, SAMPLE_BYTES};
use crate::calibrate::{KS, LIST_SIZES};
use crate::exact::{self, ExactAsk};
use crate::params::BuildParams;
use crate::stats::Job;
use crate::vocabulary::{self, ScanPoint, TokenScores, Vocabulary, VocabularySpec};

/// The most rows that get token codes: with more, a scan of them all is no way to decode.
const MAX_TOKENS: usize = 1 << 20;
/// Most rows the codes are learned from, and at least so many where they are large.
const SAMPLE_ROWS: usize = 16_384;
const LEAST_ROWS: usize = 1024;
/// Most hidden states they are learned from.
const STATES: usize = 10_000;
/// Most hidden states that tell how good they are, and at most this part of those given.
const CHECKS: usize = 1000;
const CHECKED_PART: usize = 4;
/// Shares of the tokens that are scanned.
const SHARES: [f64; 8] = [0.06, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0];
/// Larger sizes are not tried once all but this share is found.
const ENOUGH: f64 = 0.9998;

/// Token codes in id order, and what they mean.
pub(super) struct TokenCodes {
    pub(super) spec: VocabularySpec,
    /// `[n x stride]`.
    pub(super) records: Vec<u8>,
}

/// Whether an index gets token codes.
pub(super) fn wanted(input: &BuildInput<'_>, params: &BuildParams) -> bool {
    let some = input.learn.is_some_and(|learn| learn.len() >= CHECKED_PART);
    params.metric == Metric::InnerProduct && some && input.base.len() <= MAX_TOKENS
}

/// The most memory that takes, in bytes; 0 where an index gets none.
pub(super) fn bytes(input: &BuildInput<'_>, params: &BuildParams) -> u64 {
    let Some(learn) = input.learn.filter(|_| wanted(input, params)) else { return 0 };
    let dim = learn.dim();
    let states = learn.len().min(STATES + CHECKS) * dim * (learn.element().size() + 4);
    let sample = sample_rows(input) * dim * (input.base.element().size() + 8);
    // The covariance and its eigenvectors in f64, and the two maps, with a copy of each.
    let matrices = dim * dim * (4 * 8 + 4 * 4);
    let records = 3 * input.base.len() * (dim / 8 + 16);
    (states + sample + matrices + records) as u64
}

/// How many rows the codes are learned from.
fn sample_rows(input: &BuildInput<'_>) -> usize {
    let row_bytes = input.base.dim() * input.base.element().size();
    SAMPLE_ROWS.min(SAMPLE_BYTES / row_bytes).max(LEAST_ROWS).min(input.base.len())
}

/// Learns the codes, encodes every row, and measures what they find.
///
/// # Errors
/// A file cannot be read; an interrupt.
pub(super) fn encode(
    pass: &mut RowPass<'_>,
    input: &BuildInput<'_>,
    rows: &[u32],
    (params, job): (&BuildParams, Job<'_>),
) -> Result<TokenCodes, BuildError> {
    let learn = input.learn.expect("`wanted` saw sample hidden states");
    job.tell("learning tokens", 0, 1);
    // The last part of the file checks what was learned from the first: other text, as a rule.
    let checks = (learn.len() / CHECKED_PART).min(CHECKS);
    let kept = (learn.len() - checks).min(STATES);
    let hidden = learn.read(0..kept)?;
    let checked = learn.read(learn.len() - checks..learn.len())?;
    let (_, sample) = input.base.sample(sample_rows(input), params.seed)?;
    let mut learned = vocabulary::learn(&sample, rows.len(), &hidden, params.seed);
    drop(sample);
    let records = pass.encode_tokens(&learned, rows)?;
    let vocabulary = Vocabulary::arrange(learned.spec.clone(), &records)?;
    learned.spec.points = points(&vocabulary, input, &checked, (rows, params, job))?;
    Ok(TokenCodes { spec: learned.spec, records })
}

/// What scanning and ranking finds: by share, then k, then by how many are ranked.
fn points(
    vocabulary: &Vocabulary,
    input: &BuildInput<'_>,
    checked: &Rows,
    (rows, params, job): (&[u32], &BuildParams, Job<'_>),
) -> Result<Vec<ScanPoint>, BuildError> {
    let k = KS[KS.len() - 1] as usize;
    let ask = ExactAsk { metric: params.metric, k, threads: params.threads };
    let truth = exact::search(input.base, checked, &ask, job)?;
    let ids = inverse(rows);
    let mut points = Vec::new();
    for share in SHARES {
        let ranks: Vec<Vec<u32>> = (0..checked.len())
            .into_par_iter()
            .map_init(TokenScores::default, |scores, state| {
                scores.score_some(vocabulary, checked.row(state), share);
                scores.ranks_of(truth[state].iter().map(|found| ids[found.key as usize]))
            })
            .collect();
        for k in KS.into_iter().filter(|k| *k as usize <= rows.len()) {
            for rerank_size in LIST_SIZES.into_iter().filter(|size| *size >= k) {
                let found = ranks.iter().flat_map(|ranks| &ranks[..k as usize]);
                let found = found.filter(|rank| **rank < rerank_size).count();
                let precision = found as f64 / (checked.len() * k as usize) as f64;
                points.push(ScanPoint { k, share, rerank_size, precision });
                if precision >= ENOUGH {
                    break;
                }
            }
        }
    }
    Ok(points)
}
