//! Candidates: by a scan of codes, by a walk, or by the logits of all rows.

use foveal_datasets::Row;

use super::effort::Effort;
use super::{DecodeRequest, Decoder, Known};
use crate::params::{DecodeMode, LogZMode};
use crate::preview::{Preview, PreviewSlot};
use crate::segment::{SearchError, Shared};
use crate::stats::QueryStats;

/// Rows met between two looks at the deadline.
const ROWS_A_LOOK: usize = 1024;
/// A row whose codes err by so many times as much as those of half of the rows is odd.
const ODD: f32 = 4.0;
/// At most this part of the rows is odd, and at most so many.
const ODD_PART: usize = 32;
const MOST_ODD: usize = 256;

impl Decoder {
    /// Fills `known` with the candidates of a scan, `certain` with others, and `scores` with what
    /// is estimated of tokens.
    pub(super) fn find(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        effort: Effort,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        self.known.clear();
        self.certain.clear();
        if effort.mode == DecodeMode::Graph {
            self.walk(shared, request, stats)?;
            if request.params.log_z == LogZMode::Off {
                return Ok(());
            }
        }
        self.score(shared, request, effort, stats)?;
        let vocabulary = shared.vocabulary.as_ref();
        if request.allowed.is_some() {
            self.scores.keep(vocabulary, |id| request.allows(id));
        }
        if effort.mode != DecodeMode::Exact {
            let odd = shared.odd.get_or_init(|| odd_rows(&shared.preview, self.hidden.len()));
            // Token codes err about extreme rows by more than any other logit.
            let certain = odd.iter().copied().chain(shared.preview.extremes.ids());
            self.certain.extend(certain.filter(|id| request.allows(*id)));
            self.certain.sort_unstable();
            self.certain.dedup();
            self.scores.take_out(vocabulary, &self.certain);
        }
        let key = |id: u32| shared.keys.key(id);
        let best = self.scores.best(vocabulary, effort.ranked as usize, key);
        let scanned = effort.mode != DecodeMode::Exact;
        self.known.extend(best.iter().map(|(logit, id)| {
            let estimate = if scanned { *logit } else { f32::NAN };
            Known { logit: *logit, estimate, better: estimate, id: *id }
        }));
        Ok(())
    }

    /// Fills `scores`.
    fn score(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        effort: Effort,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        let hidden = Row::F32(&self.hidden);
        match (&shared.vocabulary, effort.mode) {
            (_, DecodeMode::Exact) => self.score_exactly(shared, request, stats)?,
            (Some(vocabulary), _) => {
                self.scores.score(vocabulary, hidden, effort.threshold);
                self.scores.take_off(self.common);
            }
            (None, _) => {
                let scores = self.scores.room_for(shared.manifest.n as usize);
                shared.preview.estimate_all(&mut self.preview, hidden, scores);
                scores.iter_mut().for_each(|distance| *distance = -*distance);
                self.scores.take_off(self.common);
            }
        }
        stats.distances += self.scores.scores().len() as u64;
        Ok(())
    }

    /// The exact logits of all rows.
    fn score_exactly(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        let (n, origin) = (shared.manifest.n as u32, shared.row_origin());
        let scores = self.scores.room_for(n as usize);
        self.fullview.begin_query();
        for first in (0..n).step_by(ROWS_A_LOOK) {
            if let Some(why) = request.stop.now() {
                return Err(SearchError::Stopped(why));
            }
            let rows = first..n.min(first + ROWS_A_LOOK as u32);
            let rows = (rows, &request.stop, &mut *stats);
            self.fullview.scan(&origin, &mut self.exact, rows, |id, distance| {
                scores[id as usize] = -distance;
            })?;
        }
        Ok(())
    }

    /// Fills `certain` with the candidates of a walk.
    fn walk(
        &mut self,
        shared: &Shared,
        request: &DecodeRequest<'_>,
        stats: &mut QueryStats,
    ) -> Result<(), SearchError> {
        shared.preview.graph.load()?;
        let list_size = request.params.list_size;
        let stop_radius = shared.frontier.stop_radius(list_size);
        let query = Row::F32(&self.hidden);
        shared.preview.begin(&mut self.preview, query, (list_size, request.params.k), stop_radius);
        shared.preview.walk(&mut self.preview, &request.stop).map_err(SearchError::Stopped)?;
        (stats.distances, stats.hops) = self.preview.counts();
        let most = request.params.rerank_size.unwrap_or(list_size) as usize;
        let found = shared.preview.candidates(&mut self.preview).iter().take(most);
        self.certain.extend(found.map(|found| found.id));
        Ok(())
    }
}

/// Rows far longer than most: what a code misses is a share of its row, so that a scan may take
/// them for anything. Linear in the rows.
fn odd_rows(preview: &Preview, dim: usize) -> Vec<u32> {
    let mut slot = PreviewSlot::new();
    preview.prepare(&mut slot, Row::F32(&vec![1.0; dim]));
    let n = preview.codes.len() / preview.quantizer.stride();
    let errors: Vec<f32> = (0..n as u32).map(|id| preview.error(&slot, id)).collect();
    let mut sorted = errors.clone();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    let most = MOST_ODD.min(n / ODD_PART);
    let least = (ODD * sorted[n / 2]).max(sorted[most]);
    (0..n as u32).filter(|id| errors[*id as usize] > least).collect()
}
