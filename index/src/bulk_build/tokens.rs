//! Token codes: what an inner-product index decodes with, learned from sample hidden states.

use foveal_datasets::{RowSource, Rows};
use rayon::prelude::*;

use super::error::BuildError;
use super::key_order::{by_hash, read_in_order};
use super::row_pass::RowPass;
use super::{BuildInput, SAMPLE_BYTES};
use crate::calibrate::{KS, LIST_SIZES, gather};
use crate::exact::{self, ExactRequest, Sums};
use crate::graph::order::inverse;
use crate::params::BuildParams;
use crate::stats::Job;
use crate::vocabulary::{
    self, CLUSTER, Clustering, ScanPoint, Threshold, TokenScores, Vocabulary, VocabularySpec,
};

/// The most rows that get token codes: with more, a scan of them all is no way to decode.
const MAX_TOKENS: usize = 1 << 20;
/// The most dimensions of such rows: hidden states are transformed by a matrix of `dim^2` numbers.
const MAX_TOKEN_DIM: usize = 16_384;
/// Most rows the codes are learned from, and at least so many where they are large.
const SAMPLE_ROWS: usize = 16_384;
const LEAST_ROWS: usize = 1024;
/// Most hidden states they are learned from.
const STATES: usize = 20_000;
/// Most hidden states that tell how good they are, and at most this part of those given.
const CHECKS: usize = 1000;
const CHECKED_PART: usize = 4;
/// Shares of the clusters that are scanned, on average.
const SHARES: [f64; 14] =
    [0.02, 0.035, 0.05, 0.07, 0.085, 0.1, 0.12, 0.14, 0.17, 0.2, 0.3, 0.45, 0.7, 1.0];
/// Hidden states that tell which margin scans so much.
const MARGIN_STATES: usize = 128;
/// Bytes of rows that clusters are fitted to at once.
const FIT_BYTES: usize = 16 << 20;
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
    let (n, dim) = (input.base.len(), input.base.dim());
    params.metric.is_product() && some && n <= MAX_TOKENS && dim <= MAX_TOKEN_DIM
}

/// How many sample hidden states, the last ones, are held out: nothing but margins is learned from
/// them.
pub(super) fn checks(states: usize) -> usize {
    (states / CHECKED_PART).min(CHECKS)
}

/// The most memory that takes, in bytes; 0 where an index gets none.
pub(super) fn bytes(input: &BuildInput<'_>, params: &BuildParams) -> u64 {
    let Some(learn) = input.learn.filter(|_| wanted(input, params)) else { return 0 };
    let dim = learn.dim();
    let states = learn.len().min(STATES + CHECKS);
    let hidden = states * dim * (learn.element().size() + 4);
    let sample = sample_rows(input) * dim * (input.base.element().size() + 8);
    // The covariance and its eigenvectors in f64, and the two maps, with a copy of each.
    let matrices = dim * dim * (4 * 8 + 4 * 4);
    let records = 3 * input.base.len() * (dim / 8 + 16);
    // q of the hidden states; of clusters in the making the tokens, their places, and predictors.
    let clusters = states * dim * 4 + input.base.len() * (24 + dim / 4) + FIT_BYTES;
    (hidden + sample + matrices + records + clusters) as u64
}

/// The most memory that opening them takes, in bytes: the codes, once more as they are arranged,
/// and what turns hidden states.
pub(super) fn opened_bytes(input: &BuildInput<'_>, params: &BuildParams) -> u64 {
    if !wanted(input, params) {
        return 0;
    }
    let (n, dim) = (input.base.len(), input.base.dim());
    (3 * n * (dim / 8 + 16) + n * (24 + dim / 4) + 4 * dim * dim) as u64
}

/// How many rows the codes are learned from.
fn sample_rows(input: &BuildInput<'_>) -> usize {
    let row_bytes = input.base.dim() * input.base.element().size();
    SAMPLE_ROWS.min(SAMPLE_BYTES / row_bytes).max(LEAST_ROWS).min(input.base.len())
}

/// Learns the codes, encodes every row, and measures what they find.
///
/// # Errors
/// A file cannot be read; numbers that pass the range of f32; an interrupt.
pub(super) fn encode(
    pass: &mut RowPass<'_>,
    input: &BuildInput<'_>,
    rows: &[u32],
    (params, job): (&BuildParams, Job<'_>),
) -> Result<TokenCodes, BuildError> {
    let learn = input.learn.expect("`wanted` saw sample hidden states");
    job.tell("learning tokens", 0, 1);
    // The last part of the file, mostly other text, checks what was learned from the first.
    let checks = checks(learn.len());
    let kept = (learn.len() - checks).min(STATES);
    let hidden = learn.read(0..kept)?;
    let checked = learn.read(learn.len() - checks..learn.len())?;
    let by_hash = by_hash(input.keys, rows.len(), params.seed);
    let sample = read_in_order(input.base, &by_hash[..sample_rows(input)])?;
    drop(by_hash);
    let mut learned = vocabulary::learn(&sample, &hidden, params.seed);
    drop(sample);
    let mut records = pass.encode_tokens(&learned, rows)?;
    let (centroids, clusters, cluster_of) = {
        let mut clustering = Clustering::new(&learned, &records, &hidden, params.seed);
        fit(&mut clustering, input.base, (rows, job))?;
        clustering.finish(params.seed)
    };
    (learned.spec.cluster_centroids, learned.spec.clusters) = (centroids, clusters);
    vocabulary::put_clusters(&learned.spec, &mut records, &cluster_of);
    let is_sound = learned.spec.is_sound(input.base.dim());
    if !is_sound || Vocabulary::first_unsound(&learned.spec, &records).is_some() {
        return Err(BuildError::Learn { path: learn.path().into() });
    }
    let vocabulary = Vocabulary::arrange(learned.spec.clone(), &records)?;
    learned.spec.points = points(&vocabulary, input, &checked, (rows, params, job))?;
    Ok(TokenCodes { spec: learned.spec, records })
}

/// Shows every row to its cluster.
fn fit(
    clustering: &mut Clustering<'_>,
    base: &dyn RowSource,
    (rows, job): (&[u32], Job<'_>),
) -> Result<(), BuildError> {
    let order = clustering.order().to_vec();
    let row_bytes = base.dim() * base.element().size();
    let at_once = (FIT_BYTES / row_bytes).next_multiple_of(CLUSTER);
    for (i, tokens) in order.chunks(at_once).enumerate() {
        if job.interrupted() {
            return Err(BuildError::Interrupted);
        }
        job.tell("learning clusters", (i * at_once) as u64, order.len() as u64);
        let rows: Vec<u32> = tokens.iter().map(|token| rows[*token as usize]).collect();
        clustering.fit(&gather(base, &rows)?);
    }
    Ok(())
}

/// What scanning and ranking finds: by k, then share, then by how many are ranked.
fn points(
    vocabulary: &Vocabulary,
    input: &BuildInput<'_>,
    checked: &Rows,
    (rows, params, job): (&[u32], &BuildParams, Job<'_>),
) -> Result<Vec<ScanPoint>, BuildError> {
    let k = KS[KS.len() - 1] as usize;
    let request = ExactRequest { metric: params.metric, k, threads: params.threads };
    let (ids, positions) = (inverse(rows), vocabulary.rows());
    let truth = exact::search_ids(input.base, checked, (&request, &ids, Sums::InFixedOrder), job)?;
    let mut points = Vec::new();
    let (mut done, all) = (0, (KS.len() * SHARES.len()) as u64);
    for k in KS.into_iter().filter(|k| *k as usize <= rows.len()) {
        for (margin, share) in margins(vocabulary, checked, k) {
            if job.interrupted() {
                return Err(BuildError::Interrupted);
            }
            job.tell("calibrating tokens", done, all);
            done += 1;
            let of_state = |scores: &mut TokenScores, state: usize| {
                scores.score(vocabulary, checked.row(state), Threshold::of(k, margin));
                let true_best = truth[state][..k as usize].iter();
                scores.ranks_of(&positions, true_best.map(|found| found.key as u32))
            };
            let states = (0..checked.len()).into_par_iter();
            let ranks: Vec<Vec<u32>> = states.map_init(TokenScores::default, of_state).collect();
            for rerank_size in LIST_SIZES.into_iter().filter(|size| *size >= k) {
                let found = ranks.iter().flatten().filter(|rank| **rank < rerank_size).count();
                let precision = found as f64 / (checked.len() * k as usize) as f64;
                points.push(ScanPoint { k, margin, share, rerank_size, precision });
                if precision >= ENOUGH {
                    break;
                }
            }
        }
    }
    Ok(points)
}

/// The margins that scan about each of `SHARES`, and the shares of the clusters that they do scan.
fn margins(vocabulary: &Vocabulary, checked: &Rows, k: u32) -> Vec<(f32, f64)> {
    let mut scores = TokenScores::default();
    let mut deficits = Vec::new();
    let step = checked.len().div_ceil(MARGIN_STATES);
    for state in (0..checked.len()).step_by(step) {
        scores.deficits(vocabulary, checked.row(state), (Threshold::of(k, 0.0), &mut deficits));
    }
    deficits.sort_unstable_by(f32::total_cmp);
    let mut margins: Vec<(f32, f64)> = Vec::new();
    for share in SHARES {
        let at = ((share * deficits.len() as f64) as usize).min(deficits.len() - 1);
        let margin = deficits[at].max(0.0);
        let scanned =
            deficits.partition_point(|deficit| *deficit <= margin) as f64 / deficits.len() as f64;
        let same = margins.last().is_some_and(|(before, _)| *before == margin);
        if share < 1.0 && scanned < 1.0 && !same {
            margins.push((margin, scanned));
        }
    }
    margins.push((f32::INFINITY, 1.0));
    margins
}
