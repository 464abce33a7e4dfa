//! Do codes tell the nearest rows of a sample from the others?

use foveal_datasets::{Metric, Row, Rows};
use rayon::prelude::*;

use super::{Encoder, PreparedQuery, Quantizer, RowFacts};
use crate::distance::QueryDistance;
use crate::kernel::float;

/// The share of the true nearest rows of a sample that must be among the best by their codes.
pub(crate) const ENOUGH: f64 = 0.98;
/// Queries of a trial.
pub(crate) const TRIED_QUERIES: usize = 100;
/// True neighbors of each query.
const NEAR: usize = 10;

/// How codes are tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    /// Rows of the sample that are searched, at most.
    pub(crate) rows: usize,
    /// How many of the best by their codes count as found.
    pub(crate) within: usize,
}

impl Quantizer {
    /// The share of the true nearest rows of a sample that are among the best by their codes, for
    /// the sample queries `sample_queries`, or else for the last rows of the sample, whose order is
    /// random, and the other rows.
    pub(crate) fn share_found(
        &self,
        trial: &Trial,
        (sample, sample_queries): (&Rows, Option<&Rows>),
    ) -> f64 {
        let queries = sample_queries.unwrap_or(sample);
        let queries: Vec<usize> =
            (queries.len().saturating_sub(TRIED_QUERIES)..queries.len()).collect();
        let rows = sample.len().min(trial.rows);
        let own = usize::from(sample_queries.is_none());
        let near = NEAR.min(rows - own.min(rows));
        if near == 0 {
            return 1.0;
        }
        let codes = self.codes_of(sample, rows).0;
        let metric = self.metric;
        let inverse_norms: Vec<f64> = (0..rows)
            .into_par_iter()
            .map(|row| inverse_norm(metric, &wide(sample.row(row))))
            .collect();
        let found = queries.par_iter().map(|at| {
            let query = sample_queries.unwrap_or(sample).row(*at);
            let is_other = |id: &u32| sample_queries.is_some() || *id as usize != *at;
            let ids: Vec<u32> = (0..rows as u32).filter(is_other).collect();
            let mut prepared = PreparedQuery::default();
            prepared.prepare(self, query);
            let mut estimates = vec![0.0; ids.len()];
            let codes = bytemuck::cast_slice(&codes);
            self.distance(codes, &prepared).distances(&ids, &mut estimates);
            let query = wide(query);
            let norm = inverse_norm(metric, &query);
            let mut row = vec![0.0; query.len()];
            let exact = ids.iter().map(|id| {
                sample.row(*id as usize).widen_into(&mut row);
                distance(metric, (&query, norm), (&row, inverse_norms[*id as usize]))
            });
            let exact: Vec<f64> = exact.collect();
            let mut best: Vec<usize> = (0..ids.len()).collect();
            best.sort_unstable_by(|x, y| estimates[*x].total_cmp(&estimates[*y]).then(x.cmp(y)));
            let mut sorted = exact.clone();
            let (_, last, _) = sorted.select_nth_unstable_by(near - 1, f64::total_cmp);
            let hits = best.iter().take(trial.within).filter(|at| exact[**at] <= *last);
            hits.count().min(near)
        });
        found.sum::<usize>() as f64 / (near * queries.len()) as f64
    }

    /// What codes of these rows depend on.
    pub(crate) fn facts_of(&self, rows: &Rows) -> RowFacts {
        self.codes_of(rows, rows.len()).1
    }

    /// The records of the first `count` rows, in words so that 32-bit codes are aligned, and the
    /// facts of the rows.
    fn codes_of(&self, rows: &Rows, count: usize) -> (Vec<u32>, RowFacts) {
        let words = self.stride / size_of::<u32>();
        let mut codes = vec![0u32; count * words];
        let extra = self.extra_stride();
        let scratch = || (Encoder::new(self), vec![0; extra]);
        let facts = codes.par_chunks_exact_mut(words).enumerate().map_init(
            scratch,
            |(encoder, extra), (i, record)| {
                encoder.encode(rows.row(i), (bytemuck::cast_slice_mut(record), extra))
            },
        );
        // The largest of numbers: the same in any order.
        let facts = facts.reduce(RowFacts::default, RowFacts::and);
        (codes, facts)
    }
}

fn wide(row: Row<'_>) -> Vec<f32> {
    let mut wide = vec![0.0; row.dim()];
    row.widen_into(&mut wide);
    wide
}

/// What a row is multiplied by before distances are taken.
fn inverse_norm(metric: Metric, row: &[f32]) -> f64 {
    if metric.needs_direction() { 1.0 / float::square(row).sqrt() } else { 1.0 }
}

/// What orders rows as the distance does, in double precision.
fn distance(metric: Metric, (x, x_norm): (&[f32], f64), (y, y_norm): (&[f32], f64)) -> f64 {
    match metric.is_product() {
        true => -float::dot_in_f64(x, y),
        false => float::half_l2_scaled(x, y, [x_norm, y_norm]),
    }
}
