//! The order of a decode: a hidden state, candidates, exact logits, probabilities.
//!
//! FGD (arXiv:1806.04189) finds the best tokens of a softmax head by walking a proximity graph.
//! Here that is one way of three to candidates, next to a scan of few-bit codes and the exact
//! scan of all rows; what follows is the same for all of them.

mod candidates;
mod effort;
mod look_up;
mod normalise;
mod request;

use std::sync::Arc;
use std::time::Instant;

use foveal_datasets::Row;

use crate::distance::ExactQuery;
use crate::fullview::Fullview;
use crate::kernel::float;
use crate::params::DecodeMode;
use crate::preview::PreviewSlot;
use crate::segment::{SearchError, Segment, Shared};
use crate::softmax::{LogZ, Sampler, Spread, log_sum_exp};
use crate::stats::QueryStats;
use crate::vocabulary::TokenScores;

use effort::{Effort, Plan};
use normalise::Total;

pub use request::{DecodeRequest, Decoded, Token};

/// Tokens ranked exactly at least where the answer has log Z as an interval.
const KNOWN_OF_Z: u32 = 256;
/// Where estimates turn out to be poor, at most this part of the tokens is looked up one by one:
/// beyond that the logits of all tokens are computed.
const WIDEST_PART: usize = 8;
/// The error that f32 products may leave in a logit, in nats at temperatures from 1 on: where it
/// may be more, products are summed in f64.
const ROUNDING: f64 = 0.000_25;
/// What f32 products of vectors are off by, of the product of their lengths.
const PRODUCT_ERROR: f64 = 1.0 / (1 << 23) as f64;

/// Decodes hidden states, one thread at a time; owns its buffers.
pub struct Decoder {
    index: Segment,
    fullview: Fullview,
    exact: ExactQuery,
    preview: PreviewSlot,
    scores: TokenScores,
    sampler: Sampler,
    /// The hidden state, with a 1 behind it where rows end with a bias.
    hidden: Vec<f32>,
    /// What is left out of all logits here: the logit of the mean row where f32 would lose what
    /// they differ by, else 0. Probabilities depend on differences alone.
    common: f64,
    /// What a logit may be off by.
    rounding: f64,
    /// Candidates, then tokens whose logits are known.
    known: Vec<Known>,
    /// Tokens that are looked up whatever their estimates.
    certain: Vec<u32>,
    /// Candidates that better estimates rule out of the best.
    passed: Vec<Known>,
    /// How far better estimates of candidates were from those of the scan, and logits from them.
    spreads: [Spread; 2],
    ids: Vec<u32>,
    estimates: Vec<f32>,
    /// How the last decode went about it.
    plan: Plan,
}

/// A candidate.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The best estimate so far, then the logit.
    logit: f32,
    /// The estimate of the scan, and the better one; NaN where there was none.
    estimate: f32,
    better: f32,
    id: u32,
}

impl Known {
    /// A token that no scan proposed.
    fn looked_up(id: u32, logit: f32) -> Known {
        Known { logit, estimate: f32::NAN, better: f32::NAN, id }
    }
}

impl Segment {
    /// A decoder of its own for a thread.
    ///
    /// # Errors
    /// The metric is not inner product: its distances are no logits.
    pub fn decoder(&self) -> Result<Decoder, SearchError> {
        let manifest = &self.shared.manifest;
        if !manifest.metric.is_product() {
            return Err(SearchError::NoHead { found: manifest.metric });
        }
        Ok(Decoder {
            index: self.clone(),
            fullview: self.shared.fullview(),
            exact: ExactQuery::new(manifest.metric, manifest.element),
            preview: PreviewSlot::new(),
            scores: TokenScores::default(),
            sampler: Sampler::default(),
            hidden: Vec::new(),
            common: 0.0,
            rounding: 0.0,
            known: Vec::new(),
            certain: Vec::new(),
            passed: Vec::new(),
            spreads: Default::default(),
            ids: Vec::new(),
            estimates: Vec::new(),
            plan: Plan::default(),
        })
    }

    /// Numbers in a hidden state: one less than in a row where rows end with a bias.
    pub fn hidden_dim(&self) -> usize {
        self.dim() - usize::from(self.shared.manifest.bias)
    }
}

impl Shared {
    /// Bytes of a full vector.
    fn row_bytes(&self) -> usize {
        self.manifest.dim as usize * self.manifest.element.size()
    }
}

impl Decoder {
    /// Numbers in a hidden state; see [`Segment::hidden_dim`].
    pub(crate) fn hidden_dim(&self) -> usize {
        self.index.hidden_dim()
    }

    /// The most likely tokens for a hidden state.
    ///
    /// # Errors
    /// Parameters out of range; a hidden state of another dimension or not finite; no token that
    /// counts; a requested key that names none; a row that cannot be read; the stop.
    pub fn decode<'q>(
        &mut self,
        hidden: impl Into<Row<'q>>,
        request: &DecodeRequest<'_>,
    ) -> Result<Decoded, SearchError> {
        let started = Instant::now();
        let shared = Arc::clone(&self.index.shared);
        request.params.check()?;
        self.take(&shared, hidden.into(), request.params.temperature)?;
        let counted = request.allowed.map_or(shared.manifest.n, |set| set.len().into()) as usize;
        if counted == 0 {
            return Err(SearchError::NoToken);
        }
        let mut requested = Vec::with_capacity(request.requested.len());
        for key in request.requested {
            let id = shared.keys.id_of(*key)?;
            requested.push(id.ok_or(SearchError::UnknownKey { key: *key })?);
        }
        let mut stats = QueryStats::default();
        let mut effort = self.plan.effort(&shared, request);
        let (mut widened, mut between) = (false, started);
        let total = loop {
            self.find(&shared, request, effort, &mut stats)?;
            between = Instant::now().max(between);
            let (enough, more) =
                self.look_up(&shared, (request, &requested), effort, &mut stats)?;
            widened |= more;
            let total = match enough {
                true => self.log_z(&shared, request, (effort, counted), &mut stats)?,
                false => Total::Unsure,
            };
            match total {
                // Estimates are too poor: the logits of all tokens are computed.
                Total::Unsure => (effort, widened) = (Effort::exact(request.params.k), true),
                Total::Unwanted => break None,
                Total::Sure(log_z) => break Some(log_z),
                Total::Widened(log_z) => {
                    widened = true;
                    break Some(log_z);
                }
            }
        };
        let all = effort.mode == DecodeMode::Exact || counted <= self.known.len();
        let mut decoded = self.answer(&shared, (request, &requested), total, &mut stats)?;
        let end = Instant::now();
        stats.preview_nanos = (between - started).as_nanos() as u64;
        stats.fullview_nanos = (end - between).as_nanos() as u64;
        (decoded.order_proved, decoded.widened) = (all, widened);
        decoded.mode = effort.mode;
        decoded.nanos = (end - started).as_nanos() as u64;
        decoded.stats = stats;
        Ok(decoded)
    }

    /// Takes a hidden state in.
    fn take(
        &mut self,
        shared: &Shared,
        hidden: Row<'_>,
        temperature: f64,
    ) -> Result<(), SearchError> {
        let wanted = self.index.hidden_dim();
        if hidden.dim() != wanted {
            return Err(SearchError::Dim { found: hidden.dim(), wanted });
        }
        self.hidden.resize(self.index.dim(), 1.0);
        hidden.widen_into(&mut self.hidden[..wanted]);
        self.index.check_query(Row::F32(&self.hidden))?;
        self.exact.set(Row::F32(&self.hidden));
        let spec = shared.preview.quantizer.spec();
        let length = float::dot_in_f64(&self.hidden, &self.hidden).sqrt();
        let extreme = shared.preview.extremes.largest_square();
        let longest = extreme.max(f64::from(spec.largest_square)).sqrt();
        (self.common, self.rounding) = (0.0, PRODUCT_ERROR * length * longest);
        if self.rounding > ROUNDING * temperature.min(1.0) {
            self.common = float::dot_in_f64(&self.hidden, &spec.mean);
            self.exact.take_off(self.common);
            self.rounding = 0.0;
        }
        Ok(())
    }

    /// The answer, once the best tokens are known exactly.
    fn answer(
        &mut self,
        shared: &Shared,
        (request, ids): (&DecodeRequest<'_>, &[u32]),
        log_z: Option<LogZ>,
        stats: &mut QueryStats,
    ) -> Result<Decoded, SearchError> {
        let (params, common) = (&request.params, self.common);
        let best = &self.known[..self.known.len().min(params.k as usize)];
        let logits = best.iter().map(|known| known.logit);
        let normalise = log_z.map_or_else(|| log_sum_exp(logits, params.temperature), |z| z.value);
        let token = |key: u64, logit: f32| Token {
            key,
            logit: (f64::from(logit) + common) as f32,
            log_prob: f64::from(logit) / params.temperature - normalise,
        };
        let tokens = best.iter().map(|known| token(shared.keys.key(known.id), known.logit));
        let mut tokens: Vec<Token> = tokens.collect();
        cut_to_share(&mut tokens, params.top_p);
        let mut requested: Vec<Token> =
            request.requested.iter().map(|key| token(*key, 0.0)).collect();
        self.fullview.distances(
            &shared.row_origin(),
            &mut self.exact,
            (ids, &request.stop, stats),
            &mut |i, distance| requested[i] = token(request.requested[i], -distance),
        )?;
        for (token, id) in requested.iter_mut().zip(ids) {
            if !request.allows(*id) {
                token.log_prob = f64::NEG_INFINITY;
            }
        }
        let whole = |z: LogZ| z.shifted(common / params.temperature);
        Ok(Decoded { tokens, requested, log_z: log_z.map(whole), ..Decoded::default() })
    }
}

/// Keeps the fewest of the first tokens whose probabilities sum to `share` or more.
fn cut_to_share(tokens: &mut Vec<Token>, share: f64) {
    if share >= 1.0 {
        return;
    }
    let mut sum = 0.0;
    let enough = tokens.iter().position(|token| {
        sum += token.log_prob.exp();
        sum >= share
    });
    tokens.truncate(enough.map_or(tokens.len(), |at| at + 1));
}
