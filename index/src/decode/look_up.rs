//! Candidates -> their exact logits, and whether those are enough.

use std::ops::Range;

use foveal_datasets::Row;

use super::effort::Effort;
use super::{DecodeRequest, Decoder, KNOWN_OF_Z, Known, WIDEST_PART};
use crate::params::{DecodeMode, LogZMode};
use crate::preview::PreviewSlot;
use crate::segment::{SearchError, Shared};
use crate::softmax::Spread;
use crate::stats::QueryStats;

/// Standard deviations that a candidate's estimate may be too low by, to be ranked exactly.
const LIKELY: f32 = 3.0;
/// Of the tokens wanted, the share that estimates may be expected to have missed.
const MISSED: f64 = 0.05;
/// Candidates that tell how far estimates are from logits, at least.
const TELLING: f64 = 8.0;

impl Decoder {
    /// Puts the exact logits of the candidates in the place of estimates, best first; equal logits
    /// smaller key first. Tells whether those are enough to answer, and whether it took more of
    /// them than planned.
    pub(super) fn look_up(
        &mut self,
        shared: &Shared,
        (request, requested): (&DecodeRequest<'_>, &[u32]),
        effort: Effort,
        stats: &mut QueryStats,
    ) -> Result<(bool, bool), SearchError> {
        self.spreads = Default::default();
        self.passed.clear();
        if effort.mode == DecodeMode::Exact {
            self.sort(shared);
            return Ok((true, false));
        }
        if let Some(why) = request.stop.now() {
            return Err(SearchError::Stopped(why));
        }
        self.fullview.begin_query();
        self.rank_scanned(shared, request, stats)?;
        for known in &self.known {
            self.spreads[1].add(f64::from(known.logit) - f64::from(known.better));
        }
        let certain = std::mem::take(&mut self.certain);
        self.add(shared, (request, &certain), stats)?;
        self.certain = certain;
        let is_known = |id: &u32| self.known.iter().any(|known| known.id == *id);
        let counts = |id: &u32| request.allows(*id) && !is_known(id);
        let mut others: Vec<u32> = requested.iter().copied().filter(counts).collect();
        others.sort_unstable();
        others.dedup();
        self.add(shared, (request, &others), stats)?;
        let scanned = effort.mode == DecodeMode::Scan || request.params.log_z != LogZMode::Off;
        if scanned {
            self.scores.take_out(shared.vocabulary.as_ref(), &others);
        }
        self.sort(shared);
        match scanned && request.params.rerank_size.is_none() {
            true => self.widen(shared, request, stats),
            false => Ok((true, false)),
        }
    }

    /// Ranks the candidates of a scan: the k best by estimate first, then those that may still be
    /// among them. What is known of Z need not be sampled: for that more of them are worth it.
    fn rank_scanned(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        if self.known.is_empty() {
            return Ok(());
        }
        if shared.vocabulary.is_some() {
            self.estimate_better(shared);
            for known in &self.known {
                self.spreads[0].add(f64::from(known.better) - f64::from(known.estimate));
            }
        }
        let sampled = request.params.log_z == LogZMode::Interval;
        let least = if sampled { KNOWN_OF_Z.max(request.params.k) } else { request.params.k };
        let first = self.known.len().min(least as usize);
        if first < self.known.len() {
            let order = |a: &Known, b: &Known| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id));
            self.known.select_nth_unstable_by(first - 1, order);
        }
        self.rank(shared, 0..first, (request, stats))?;
        if self.known.len() > first {
            let mut logits: Vec<f32> = self.known[..first].iter().map(|k| k.logit).collect();
            let k = request.params.k as usize;
            let (_, least, _) = logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            let least = *least;
            let mut may_matter = first;
            for i in first..self.known.len() {
                let Known { logit, id, .. } = self.known[i];
                let error = shared.preview.error(&self.preview, id);
                if logit + LIKELY * error >= least {
                    self.known.swap(may_matter, i);
                    may_matter += 1;
                }
            }
            self.passed.extend(self.known.drain(may_matter..));
        }
        self.rank(shared, first..self.known.len(), (request, stats))
    }

    /// Looks up the tokens that may be among the best although the scan put others before them, if
    /// it may have missed more of those than is wanted. How likely that is follows from how far the
    /// logits of candidates were from the estimates. `(false, true)` where so many may be among the
    /// best that the logits of all tokens cost no more.
    fn widen(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        stats: &mut QueryStats,
    ) -> Result<(bool, bool), SearchError> {
        let k = request.params.k as usize;
        if self.known.len() < k || self.spreads[1].count() < TELLING {
            return Ok((true, false));
        }
        let (last, error) = (f64::from(self.known[k - 1].logit), self.error());
        let last = last - self.spreads.iter().map(|spread| spread.mean().max(0.0)).sum::<f64>();
        // The chance that a token of an estimate belongs to the best.
        let chance = |estimate: f32| {
            let x = (last - f64::from(estimate)) / error.max(f64::MIN_POSITIVE);
            if x > 0.0 { 0.5 * (-0.717 * x - 0.416 * x * x).exp() } else { 1.0 }
        };
        let scores = self.scores.scores();
        let positions = self.scores.positions_above((last - 4.0 * error) as f32);
        let expected: f64 =
            positions.iter().map(|position| chance(scores[*position as usize])).sum();
        let looked_at = self.known.iter().chain(&self.passed);
        let scanned = looked_at.clone().filter(|known| known.estimate.is_finite());
        let seen: f64 = scanned.map(|known| chance(known.estimate)).sum();
        if expected - seen <= MISSED.max(1.0 - request.params.precision) * k as f64 {
            return Ok((true, false));
        }
        let least = (last - f64::from(LIKELY) * error) as f32;
        let positions =
            positions.into_iter().filter(|position| scores[*position as usize] >= least);
        let mut known: Vec<u32> = looked_at.map(|known| known.id).collect();
        known.sort_unstable();
        let vocabulary = shared.vocabulary.as_ref();
        let ids = positions.map(|position| self.scores.id(vocabulary, position));
        let mut more: Vec<u32> = ids.filter(|id| known.binary_search(id).is_err()).collect();
        more.sort_unstable();
        if more.len() > shared.manifest.n as usize / WIDEST_PART {
            return Ok((false, true));
        }
        self.add(shared, (request, &more), stats)?;
        self.scores.take_out(vocabulary, &more);
        self.sort(shared);
        Ok((true, true))
    }

    /// A standard deviation of logits from the estimates of the scan.
    pub(super) fn error(&self) -> f64 {
        let [near, far] = self.spreads.each_ref().map(Spread::deviation);
        near.hypot(far)
    }

    /// Adds tokens with their exact logits to what is known.
    pub(super) fn add(
        &mut self,
        shared: &Shared,
        (request, ids): (&DecodeRequest<'_>, &[u32]),
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        let before = self.known.len();
        self.known.extend(ids.iter().map(|id| Known::looked_up(*id, 0.0)));
        self.rank(shared, before..self.known.len(), (request, stats))
    }

    /// Best first; equal logits smaller key first.
    pub(super) fn sort(&mut self, shared: &Shared) {
        let key = |known: &Known| shared.keys.key(known.id);
        self.known
            .sort_unstable_by(|a, b| b.logit.total_cmp(&a.logit).then_with(|| key(a).cmp(&key(b))));
    }

    /// Puts the estimates of preview's codes in the place of those of the scan.
    fn estimate_better(&mut self, shared: &Shared) {
        self.prepare_better(shared);
        self.ids.clear();
        self.ids.extend(self.known.iter().map(|known| known.id));
        self.estimates.resize(self.ids.len(), 0.0);
        better(shared, (&self.preview, self.common), &self.ids, &mut self.estimates);
        let better = self.known.iter_mut().zip(&self.estimates);
        better.for_each(|(known, better)| (known.logit, known.better) = (*better, *better));
    }

    /// Readies `better`: preview's codes meet what a hidden state adds to `<m, x>`, which is known
    /// exactly. Hidden states have much in common, and no code errs there.
    fn prepare_better(&mut self, shared: &Shared) {
        shared.preview.prepare(&mut self.preview, Row::F32(self.scores.centred()));
    }

    /// Puts exact logits in the place of some estimates.
    fn rank(
        &mut self,
        shared: &Shared,
        positions: Range<usize>,
        (request, stats): (&DecodeRequest<'_>, &mut QueryStats),
    ) -> Result<(), SearchError> {
        let known = &mut self.known[positions];
        self.ids.clear();
        self.ids.extend(known.iter().map(|known| known.id));
        Ok(self.fullview.distances(
            &shared.row_origin(),
            &mut self.exact,
            (&self.ids, &request.stop, stats),
            &mut |i, distance| known[i].logit = -distance,
        )?)
    }
}

/// Logits estimated by preview's codes, less what all have in common, once a decoder is ready.
pub(super) fn better(
    shared: &Shared,
    (slot, common): (&PreviewSlot, f64),
    ids: &[u32],
    out: &mut [f32],
) {
    shared.preview.estimate(slot, ids, out);
    for (out, id) in out.iter_mut().zip(ids) {
        let known = shared.vocabulary.as_ref().map_or(0.0, |vocabulary| vocabulary.offset(*id));
        *out = (f64::from(known) - f64::from(*out) - common) as f32;
    }
}
