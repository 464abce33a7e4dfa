//! The true nearest rows of calibration's queries: the same ones on every machine.

use rayon::prelude::*;

use foveal_datasets::{FileError, Metric, RowSource, Rows};

use super::{KNOWN, Subject, gather};
use crate::exact::{self, ExactError, ExactRequest, Sums};
use crate::graph::order::inverse;
use crate::neighbor::Neighbor;
use crate::stats::Job;

/// Rows looked for. At most a tenth of all rows is held out of the graph, and of the nearest rows
/// about as many.
const WANTED: usize = KNOWN + KNOWN / 2;

/// Ids near a query, nearest first, with distances in double precision.
type Near = Vec<(f64, u32)>;

/// The [`KNOWN`] true neighbors of each query among the rows that are in the graph.
///
/// The rows are found by the sums of this CPU, which are the fastest, and ranked in double
/// precision. Where those sums could have missed one of them, they are found once more by sums that
/// every CPU has.
pub(super) fn truth_of(
    subject: &Subject<'_>,
    queries: &Rows,
    job: Job<'_>,
) -> Result<Vec<Near>, ExactError> {
    let ids = inverse(subject.rows);
    let request = ExactRequest { metric: subject.metric, k: WANTED, threads: subject.threads };
    let find = |queries: &Rows, sums| {
        exact::search_ids(subject.base, queries, (&request, &ids, sums), job)
    };
    // A product's rounding follows the length of the row, and any row may be the one missed.
    if subject.metric.is_product() {
        return Ok(rank(subject, queries, &find(queries, Sums::InFixedOrder)?)?);
    }
    let found = find(queries, Sums::Fastest)?;
    let mut near = rank(subject, queries, &found)?;
    let unsettled: Vec<u32> = (0..queries.len())
        .filter(|q| !is_settled(&near[*q], &found[*q], (subject.metric, subject.base)))
        .map(|q| q as u32)
        .collect();
    if !unsettled.is_empty() {
        let queries = gather(queries, &unsettled)?;
        let again = rank(subject, &queries, &find(&queries, Sums::InFixedOrder)?)?;
        unsettled.iter().zip(again).for_each(|(q, again)| near[*q as usize] = again);
    }
    Ok(near)
}

/// Those of `found` that are in the graph, ranked by distances that have the same digits on every
/// machine.
fn rank(
    subject: &Subject<'_>,
    queries: &Rows,
    found: &[Vec<Neighbor>],
) -> Result<Vec<Near>, FileError> {
    let (grown, held_out) = subject.grown_and_held_out();
    let absent = grown.len() as u32..(grown.len() + held_out.len()) as u32;
    let near = found.par_iter().enumerate().map(|(q, found)| {
        let ids = found.iter().map(|neighbor| neighbor.key as u32);
        let mut near = Vec::with_capacity(found.len());
        for id in ids.filter(|id| !absent.contains(id)) {
            let row = subject.rows[id as usize] as usize;
            let rows = subject.base.read(row..row + 1)?;
            near.push((subject.metric.plain_distance(queries.row(q), rows.row(0)), id));
        }
        near.sort_by(|a: &(f64, u32), b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        near.truncate(KNOWN);
        Ok(near)
    });
    near.collect()
}

/// Whether no other row can be among the `near` ones of a query, however sums were rounded: all
/// rows were found, or the last one found is farther than those by more than rounding.
fn is_settled(
    near: &[(f64, u32)],
    found: &[Neighbor],
    (metric, base): (Metric, &dyn RowSource),
) -> bool {
    let Some(last) = found.last().filter(|_| found.len() < base.len()) else {
        return true;
    };
    // Two sums of `dim` squares, or cosines, differ by no more than this.
    let rounding = 2.0 * base.dim() as f64 * f64::from(f32::EPSILON);
    let farthest = f64::from(last.distance);
    let scale = if metric.is_of_differences() { farthest } else { 1.0 };
    near.len() == KNOWN && near[KNOWN - 1].0 < farthest - rounding * scale
}

#[cfg(test)]
mod tests {
    use foveal_datasets::Values;

    use super::*;

    /// Whether the neighbors of a query at 0 are settled, of which `WANTED` were found.
    fn is_line_settled(squares: &[f32], metric: Metric) -> bool {
        let rows = Rows::new(1, Values::F32(squares.iter().map(|x| x.sqrt()).collect())).unwrap();
        let all = squares.iter().zip(0..).take(WANTED);
        let found: Vec<Neighbor> = all.map(|(x, key)| Neighbor { key, distance: *x }).collect();
        let near: Vec<(f64, u32)> =
            found.iter().take(KNOWN).map(|x| (f64::from(x.distance), x.key as u32)).collect();
        is_settled(&near, &found, (metric, &rows))
    }

    #[test]
    fn what_is_known_is_settled_where_the_last_row_found_is_farther_than_rounding() {
        let apart: Vec<f32> = (0..1000).map(|i| 1.0 + i as f32 * 1e-4).collect();
        assert!(is_line_settled(&apart, Metric::L2));
        assert!(is_line_settled(&apart, Metric::Cosine));
        // Copies, and rows that differ by their rounding.
        let mut copies = apart.clone();
        copies[KNOWN - 5..].fill(1.1);
        assert!(!is_line_settled(&copies, Metric::L2));
        let close: Vec<f32> = (0..1000).map(|i| 1.0 + i as f32 * 1e-9).collect();
        assert!(!is_line_settled(&close, Metric::L2));
        // Rounding of squared distances follows their size, that of cosines does not.
        let small: Vec<f32> = apart.iter().map(|x| x * 1e-9).collect();
        assert!(is_line_settled(&small, Metric::L2));
        assert!(!is_line_settled(&small, Metric::Cosine));
        // All rows were found.
        assert!(is_line_settled(&copies[KNOWN..KNOWN + 100], Metric::L2));
    }
}
