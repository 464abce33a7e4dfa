//! What probabilities are normalised by.

use foveal_datasets::Row;

use super::effort::Effort;
use super::look_up::better;
use super::{DecodeRequest, Decoder, KNOWN_OF_Z, Known, PRODUCT_ERROR, WIDEST_PART};
use crate::params::{DecodeMode, LogZMode};
use crate::segment::{SearchError, Shared};
use crate::softmax::{LogZ, Sampled, Spread, Unknown, log_sum_exp};
use crate::stats::QueryStats;
use crate::vocabulary::Vocabulary;

/// log Z, or what has to be done for it.
pub(super) enum Total {
    /// The request does not want it.
    Unwanted,
    Sure(LogZ),
    /// It took more than what was planned.
    Widened(LogZ),
    /// The logits of all tokens are needed.
    Unsure,
}

impl Decoder {
    /// log Z, where `counted` tokens count and `known` are some of them, best first.
    pub(super) fn log_z(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        (effort, counted): (Effort, usize),
        stats: &mut QueryStats,
    ) -> Result<Total, SearchError> {
        let temperature = request.params.temperature;
        if request.params.log_z == LogZMode::Off {
            return Ok(Total::Unwanted);
        }
        let best = self.known.first().map_or(0.0, |known| f64::from(known.logit).abs());
        let rounding = (self.rounding + PRODUCT_ERROR * best) / temperature;
        let point = |value: f64| match request.params.log_z {
            LogZMode::Exact => LogZ::exact(value),
            _ => LogZ::exact(value).widened(rounding),
        };
        if effort.mode == DecodeMode::Exact {
            let all = self.scores.scores().iter().copied();
            return Ok(Total::Sure(point(log_sum_exp(all, temperature))));
        }
        if counted == self.known.len() {
            return Ok(Total::Sure(point(self.log_z_known(temperature))));
        }
        if counted - self.known.len() <= KNOWN_OF_Z as usize {
            return Ok(Total::Unsure);
        }
        let known = self.known_ids();
        let vocabulary = shared.vocabulary.as_ref();
        self.scores.take_out_found(vocabulary, |id| known.binary_search(&id).is_ok());
        let mut sampled = self.sample(shared, request, stats)?;
        if let Sampled::Sound(log_z) = sampled {
            return Ok(Total::Sure(log_z));
        }
        if let Some(vocabulary) = &shared.vocabulary {
            self.estimate_better_all(shared, (vocabulary, request), stats);
            sampled = self.sample(shared, request, stats)?;
        }
        match sampled {
            Sampled::Sound(log_z) => Ok(Total::Widened(log_z)),
            Sampled::Doubtful { spread } => self.bound(shared, request, (spread, rounding), stats),
        }
    }

    /// Puts the estimates of preview's codes in the place of those of the scan, of all tokens that
    /// are not known. Linear in the codes: several times a scan, and a fraction of all rows.
    fn estimate_better_all(
        &mut self,
        shared: &Shared,
        (vocabulary, request): (&Vocabulary, &DecodeRequest<'_>),
        stats: &mut QueryStats,
    ) {
        let hidden = self.scores.centred().to_vec();
        let scores = self.scores.room_for(shared.manifest.n as usize);
        shared.preview.estimate_all(&mut self.preview, Row::F32(&hidden), scores);
        for (score, offset) in scores.iter_mut().zip(vocabulary.offsets()) {
            *score = (f64::from(*offset) - f64::from(*score) - self.common) as f32;
        }
        for known in &self.known {
            scores[known.id as usize] = f32::NEG_INFINITY;
        }
        if request.allowed.is_some() {
            self.scores.keep(Some(vocabulary), |id| request.allows(id));
        }
        stats.distances += shared.manifest.n;
        self.spreads[0] = Spread::default();
    }

    /// The ids of the known tokens, ascending.
    fn known_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> = self.known.iter().map(|known| known.id).collect();
        ids.sort_unstable();
        ids
    }

    fn log_z_known(&self, temperature: f64) -> f64 {
        log_sum_exp(self.known.iter().map(|known| known.logit), temperature)
    }

    /// log Z from a sample of the tokens that are not known. Those of the sample that belong to the
    /// best become known.
    fn sample(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        stats: &mut QueryStats,
    ) -> Result<Sampled, SearchError> {
        let temperature = request.params.temperature;
        let known = self.log_z_known(temperature);
        let last = self.known.get(request.params.k as usize - 1);
        let last = last.map_or(f32::NEG_INFINITY, |known| known.logit);
        let error = self.error();
        let Decoder { fullview, exact, scores, sampler, preview, common, .. } = self;
        let (vocabulary, origin) = (shared.vocabulary.as_ref(), shared.row_origin());
        let (estimates, mut ids) = (scores.scores(), Vec::new());
        let better = |positions: &[u32], out: &mut [f32]| {
            if scores.in_order() {
                // The estimates are those of preview's codes already.
                let same = positions.iter().map(|position| estimates[*position as usize]);
                return out.iter_mut().zip(same).for_each(|(out, logit)| *out = logit);
            }
            ids.clear();
            ids.extend(positions.iter().map(|position| scores.id(vocabulary, *position)));
            better(shared, (preview, *common), &ids, out);
        };
        let mut found = Vec::new();
        let unknown = Unknown { estimates, known, temperature, error };
        let sampled = sampler.log_z(&unknown, better, |positions, visit| {
            let ids: Vec<u32> =
                positions.iter().map(|position| scores.id(vocabulary, *position)).collect();
            let mut visit = |i: usize, distance: f32| {
                if -distance >= last {
                    let known = Known::looked_up(ids[i], -distance);
                    found.push(known);
                }
                visit(i, -distance);
            };
            fullview.distances(&origin, exact, (&ids, &request.stop, stats), &mut visit)
        })?;
        if let Sampled::Sound(_) = sampled
            && !found.is_empty()
        {
            found.sort_unstable_by_key(|known| known.id);
            found.dedup_by_key(|known| known.id);
            self.known.append(&mut found);
            self.sort(shared);
        }
        Ok(sampled)
    }

    /// log Z where a sample is not enough: looks up all that may matter although estimates are
    /// `spread` off, in units of the temperature, and allows for the rest.
    fn bound(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        (spread, rounding): (f64, f64),
        stats: &mut QueryStats,
    ) -> Result<Total, SearchError> {
        let temperature = request.params.temperature;
        let known = self.log_z_known(temperature);
        let estimates = self.scores.scores();
        let error = self.error();
        let unknown = Unknown { estimates, known, temperature, error };
        let (least, rest) = self.sampler.split(&unknown, spread);
        let positions = self.scores.positions_above(least);
        if positions.len() > shared.manifest.n as usize / WIDEST_PART {
            return Ok(Total::Unsure);
        }
        let vocabulary = shared.vocabulary.as_ref();
        let ids: Vec<u32> = positions.iter().map(|at| self.scores.id(vocabulary, *at)).collect();
        self.add(shared, (request, &ids), stats)?;
        self.sort(shared);
        let value = self.log_z_known(temperature);
        // The rest is in units of what was known before.
        let rest = (rest * (known - value).exp()).ln_1p();
        let log_z = LogZ { value: value + rest / 2.0, low: value, high: value + rest };
        Ok(Total::Widened(log_z.widened(rounding)))
    }
}
