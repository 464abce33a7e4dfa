//! The order of a decode: a hidden state, candidates, exact logits, probabilities.
//!
//! FGD (arXiv:1806.04189) finds the best tokens of a softmax head by walking a proximity graph.
//! Here that is one way of three to candidates, next to a scan of few-bit codes and the exact
//! scan of all rows; what follows is the same for all of them.

mod ask;
mod effort;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use foveal_datasets::{Metric, Row};

use crate::distance::ExactQuery;
use crate::fullview::Fullview;
use crate::params::{DecodeMode, LogZMode};
use crate::preview::PreviewSlot;
use crate::search::{Index, SearchError, Shared};
use crate::softmax::{LogZ, Sampler, Unknown, log_sum_exp};
use crate::stats::QueryStats;
use crate::vocabulary::{Cut, TokenScores};

use effort::{Effort, Plan};

pub use ask::{DecodeAsk, Decoded, Token, TokenSet, Tokens};

/// Standard deviations that a candidate's estimate may be too low by, to be ranked exactly.
const LIKELY: f32 = 3.0;
/// Tokens ranked exactly at least where log Z is told as an interval.
const KNOWN_OF_Z: u32 = 256;
/// Rows met between two looks at the deadline.
const ROWS_A_LOOK: usize = 1024;

/// Decodes hidden states, one thread at a time; owns its buffers.
pub struct Decoder {
    index: Index,
    fullview: Fullview,
    exact: ExactQuery,
    preview: PreviewSlot,
    scores: TokenScores,
    sampler: Sampler,
    /// The hidden state, with a 1 behind it where rows end with a bias.
    hidden: Vec<f32>,
    /// Candidates, then tokens whose logits are known.
    known: Vec<(f32, u32)>,
    ids: Vec<u32>,
    estimates: Vec<f32>,
    /// How the last decode went about it.
    plan: Plan,
}

impl Index {
    /// A decoder of its own for a thread.
    ///
    /// # Errors
    /// The metric is not inner product: its distances are no logits.
    pub fn decoder(&self) -> Result<Decoder, SearchError> {
        let manifest = &self.shared.manifest;
        if manifest.metric != Metric::InnerProduct {
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
            known: Vec::new(),
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
    /// The most likely tokens for a hidden state.
    ///
    /// # Errors
    /// Parameters out of range; a hidden state of another dimension or not finite; no token that
    /// counts; a key asked for that names none; a row that cannot be read; the stop.
    pub fn decode<'q>(
        &mut self,
        hidden: impl Into<Row<'q>>,
        ask: &DecodeAsk<'_>,
    ) -> Result<Decoded, SearchError> {
        let started = Instant::now();
        let shared = Arc::clone(&self.index.shared);
        ask.params.check()?;
        self.take(hidden.into())?;
        let counted = ask.tokens.count(shared.manifest.n as usize);
        if counted == 0 {
            return Err(SearchError::NoToken);
        }
        let mut asked = Vec::with_capacity(ask.asked.len());
        for key in ask.asked {
            asked.push(shared.keys.id_of(*key).ok_or(SearchError::UnknownKey { key: *key })?);
        }
        let mut stats = QueryStats::default();
        let effort = self.plan.effort(&shared, ask);
        self.find(&shared, ask, effort, &mut stats)?;
        let between = Instant::now();
        self.look_up(&shared, ask, effort.mode, &mut stats)?;
        let rest = counted > self.known.len();
        let log_z = self.log_z(&shared, ask, (effort.mode, rest), &mut stats)?;
        let mut decoded = self.answer(&shared, (ask, &asked), log_z, &mut stats)?;
        let end = Instant::now();
        stats.preview_nanos = (between - started).as_nanos() as u64;
        stats.fullview_nanos = (end - between).as_nanos() as u64;
        decoded.order_proved = effort.mode == DecodeMode::Exact || !rest;
        decoded.mode = effort.mode;
        decoded.nanos = (end - started).as_nanos() as u64;
        decoded.stats = stats;
        Ok(decoded)
    }

    /// Takes a hidden state in.
    fn take(&mut self, hidden: Row<'_>) -> Result<(), SearchError> {
        let wanted = self.index.hidden_dim();
        if hidden.dim() != wanted {
            return Err(SearchError::Dim { found: hidden.dim(), wanted });
        }
        self.hidden.resize(self.index.dim(), 1.0);
        hidden.widen_into(&mut self.hidden[..wanted]);
        self.index.check_query(Row::F32(&self.hidden))?;
        self.exact.set(Row::F32(&self.hidden));
        Ok(())
    }

    /// Fills `known` with the candidates, and `scores` with what is estimated of tokens.
    fn find(
        &mut self,
        shared: &Shared,
        ask: &DecodeAsk<'_>,
        effort: Effort,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        self.known.clear();
        if effort.mode == DecodeMode::Graph {
            self.walk(shared, ask, effort.ranked, stats)?;
            if ask.params.log_z == LogZMode::Off {
                return Ok(());
            }
        }
        let hidden = Row::F32(&self.hidden);
        match (&shared.vocabulary, effort.mode) {
            (_, DecodeMode::Exact) => self.score_exactly(shared, ask, stats)?,
            (Some(vocabulary), DecodeMode::Scan) => {
                self.scores.score(vocabulary, hidden, effort.cut);
            }
            (Some(vocabulary), _) => self.scores.score(vocabulary, hidden, Cut::ALL),
            (None, _) => {
                let scores = self.scores.room_for(shared.manifest.n as usize);
                shared.preview.estimate_all(&mut self.preview, hidden, scores);
                scores.iter_mut().for_each(|distance| *distance = -*distance);
            }
        }
        let vocabulary = shared.vocabulary.as_ref();
        stats.distances += self.scores.scores().len() as u32;
        if !matches!(ask.tokens, Tokens::All) {
            self.scores.keep(vocabulary, |id| ask.tokens.allows(id));
        }
        if effort.mode == DecodeMode::Graph {
            let ids: Vec<u32> = self.known.iter().map(|(_, id)| *id).collect();
            self.scores.take_out(vocabulary, &ids);
        } else {
            let key = |id: u32| shared.keys.key(id);
            let best = self.scores.best(vocabulary, effort.ranked as usize, key);
            self.known.extend_from_slice(best);
        }
        Ok(())
    }

    /// The exact logits of all rows.
    fn score_exactly(
        &mut self,
        shared: &Shared,
        ask: &DecodeAsk<'_>,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        let (n, origin) = (shared.manifest.n as u32, shared.row_origin());
        let scores = self.scores.room_for(n as usize);
        self.fullview.begin_query();
        for first in (0..n).step_by(ROWS_A_LOOK) {
            if let Some(why) = ask.stop.now() {
                return Err(SearchError::Stopped(why));
            }
            let rows = first..n.min(first + ROWS_A_LOOK as u32);
            let rows = (rows, &ask.stop, &mut *stats);
            self.fullview.scan(&origin, &mut self.exact, rows, |id, distance| {
                scores[id as usize] = -distance;
            })?;
        }
        Ok(())
    }

    /// Candidates by the graph.
    fn walk(
        &mut self,
        shared: &Shared,
        ask: &DecodeAsk<'_>,
        list_size: u32,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        shared.preview.graph.load()?;
        let reach = shared.frontier.reach(list_size);
        let query = Row::F32(&self.hidden);
        shared.preview.begin(&mut self.preview, query, (list_size, ask.params.k), reach);
        shared.preview.walk(&mut self.preview, &ask.stop).map_err(SearchError::Stopped)?;
        (stats.distances, stats.hops) = self.preview.counts();
        let most = list_size as usize;
        let found = shared.preview.candidates(&mut self.preview).iter().take(most);
        self.known.extend(found.map(|found| (-found.estimate, found.id)));
        Ok(())
    }

    /// Puts the exact logits of the candidates in the place of estimates, best first; equal logits
    /// smaller key first.
    fn look_up(
        &mut self,
        shared: &Shared,
        ask: &DecodeAsk<'_>,
        mode: DecodeMode,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        if mode == DecodeMode::Exact {
            self.sort(shared);
            return Ok(());
        }
        if let Some(why) = ask.stop.now() {
            return Err(SearchError::Stopped(why));
        }
        self.fullview.begin_query();
        if mode == DecodeMode::Scan && shared.vocabulary.is_some() {
            self.estimate_better(shared);
        }
        // The k best by estimate first, then those that may still be among them. What is known of
        // Z need not be sampled: for that more of them are worth their price.
        let sampled = ask.params.log_z == LogZMode::Interval;
        let least = if sampled { KNOWN_OF_Z.max(ask.params.k) } else { ask.params.k };
        let first = self.known.len().min(least as usize);
        if mode == DecodeMode::Scan && (1..self.known.len()).contains(&first) {
            let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            self.known.select_nth_unstable_by(first - 1, order);
        }
        self.rank(shared, 0..first, (ask, stats))?;
        if mode == DecodeMode::Scan && self.known.len() > first {
            let mut logits: Vec<f32> = self.known[..first].iter().map(|(s, _)| *s).collect();
            let k = ask.params.k as usize;
            let (_, least, _) = logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            let least = *least;
            let mut may_matter = first;
            for i in first..self.known.len() {
                let (estimate, id) = self.known[i];
                let error = shared.preview.error(&self.preview, id);
                if estimate + LIKELY * error >= least {
                    self.known.swap(may_matter, i);
                    may_matter += 1;
                }
            }
            self.known.truncate(may_matter);
        }
        self.rank(shared, first..self.known.len(), (ask, stats))?;
        self.sort(shared);
        Ok(())
    }

    /// Best first; equal logits smaller key first.
    fn sort(&mut self, shared: &Shared) {
        let key = |id: u32| shared.keys.key(id);
        self.known
            .sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| key(a.1).cmp(&key(b.1))));
    }

    /// Puts the estimates of preview's codes in the place of those of the scan.
    fn estimate_better(&mut self, shared: &Shared) {
        self.prepare_better(shared);
        self.ids.clear();
        self.ids.extend(self.known.iter().map(|(_, id)| *id));
        self.estimates.resize(self.ids.len(), 0.0);
        better(shared, &self.preview, &self.ids, &mut self.estimates);
        let better = self.known.iter_mut().zip(&self.estimates);
        better.for_each(|((logit, _), estimate)| *logit = *estimate);
    }

    /// Readies `better`: preview's codes meet what a hidden state adds to `<m, x>`, which is known
    /// exactly. Hidden states have much in common, and no code errs there.
    fn prepare_better(&mut self, shared: &Shared) {
        if shared.vocabulary.is_some() {
            shared.preview.prepare(&mut self.preview, Row::F32(self.scores.centred()));
        }
    }

    /// Puts exact logits in the place of some estimates.
    fn rank(
        &mut self,
        shared: &Shared,
        places: Range<usize>,
        (ask, stats): (&DecodeAsk<'_>, &mut QueryStats),
    ) -> Result<(), SearchError> {
        let known = &mut self.known[places];
        self.ids.clear();
        self.ids.extend(known.iter().map(|(_, id)| *id));
        Ok(self.fullview.distances(
            &shared.row_origin(),
            &mut self.exact,
            (&self.ids, &ask.stop, stats),
            &mut |i, distance| known[i].0 = -distance,
        )?)
    }

    /// log Z, unless it is off; `rest` tells whether tokens that count are not known.
    fn log_z(
        &mut self,
        shared: &Shared,
        ask: &DecodeAsk<'_>,
        (mode, rest): (DecodeMode, bool),
        stats: &mut QueryStats,
    ) -> Result<Option<LogZ>, SearchError> {
        let temperature = ask.params.temperature;
        if ask.params.log_z == LogZMode::Off {
            return Ok(None);
        }
        if mode == DecodeMode::Exact {
            let all = self.scores.scores().iter().copied();
            return Ok(Some(LogZ::exact(log_sum_exp(all, temperature))));
        }
        let vocabulary = shared.vocabulary.as_ref();
        let known = log_sum_exp(self.known.iter().map(|(logit, _)| *logit), temperature);
        if !rest {
            return Ok(Some(LogZ::exact(known)));
        }
        if mode == DecodeMode::Scan {
            self.ids.clear();
            self.ids.extend(self.known.iter().map(|(_, id)| *id));
            self.ids.sort_unstable();
            let ids = &self.ids;
            self.scores.take_out_found(vocabulary, |id| ids.binary_search(&id).is_ok());
        }
        if mode == DecodeMode::Graph {
            self.prepare_better(shared);
        }
        let Decoder { fullview, exact, scores, sampler, preview, .. } = self;
        let (estimates, origin) = (scores.scores(), shared.row_origin());
        let mut ids = Vec::new();
        let better = |places: &[u32], out: &mut [f32]| {
            if vocabulary.is_none() {
                // The estimates are those of preview's codes already.
                let same = places.iter().map(|place| estimates[*place as usize]);
                return out.iter_mut().zip(same).for_each(|(out, logit)| *out = logit);
            }
            ids.clear();
            ids.extend(places.iter().map(|place| scores.id(vocabulary, *place)));
            better(shared, preview, &ids, out);
        };
        let unknown = Unknown { estimates, known, temperature };
        let log_z = sampler.log_z(&unknown, better, |places, visit| {
            let ids: Vec<u32> = places.iter().map(|place| scores.id(vocabulary, *place)).collect();
            let mut visit = |i: usize, distance: f32| visit(i, -distance);
            fullview.distances(&origin, exact, (&ids, &ask.stop, stats), &mut visit)
        })?;
        Ok(Some(log_z))
    }

    /// The answer, once the best tokens are known exactly.
    fn answer(
        &mut self,
        shared: &Shared,
        (ask, ids): (&DecodeAsk<'_>, &[u32]),
        log_z: Option<LogZ>,
        stats: &mut QueryStats,
    ) -> Result<Decoded, SearchError> {
        let params = &ask.params;
        let best = &self.known[..self.known.len().min(params.k as usize)];
        let normalise = match log_z {
            Some(log_z) => log_z.value,
            None => log_sum_exp(best.iter().map(|(logit, _)| *logit), params.temperature),
        };
        let token = |key: u64, logit: f32| Token {
            key,
            logit,
            log_prob: f64::from(logit) / params.temperature - normalise,
        };
        let tokens = best.iter().map(|(logit, id)| token(shared.keys.key(*id), *logit));
        let mut tokens: Vec<Token> = tokens.collect();
        cut_to_share(&mut tokens, params.top_p);
        let mut asked: Vec<Token> = ask.asked.iter().map(|key| token(*key, 0.0)).collect();
        self.fullview.distances(
            &shared.row_origin(),
            &mut self.exact,
            (ids, &ask.stop, stats),
            &mut |i, distance| asked[i] = token(ask.asked[i], -distance),
        )?;
        Ok(Decoded { tokens, asked, log_z, ..Decoded::default() })
    }
}

/// Logits estimated by preview's codes, once a decoder is ready for it.
fn better(shared: &Shared, slot: &PreviewSlot, ids: &[u32], out: &mut [f32]) {
    shared.preview.estimate(slot, ids, out);
    for (out, id) in out.iter_mut().zip(ids) {
        let known = shared.vocabulary.as_ref().map_or(0.0, |vocabulary| vocabulary.offset(*id));
        *out = known - *out;
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
