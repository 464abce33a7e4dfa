//! Recall: the share of the true neighbours that were found. The only definition of it, and beside
//! it the one of ann-benchmarks, so that figures can be compared with theirs.

use std::collections::HashSet;

use crate::metric::Metric;
use crate::truth_file::Truth;

/// Why a recall cannot be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecallError {
    /// The ground truth has too few neighbours for each query.
    #[error("ground truth holds {found} neighbours a query; wanted at least k = {wanted}")]
    K {
        /// What the ground truth holds.
        found: usize,
        /// k.
        wanted: usize,
    },
    /// The ground truth has too few queries.
    #[error("ground truth holds {found} queries; wanted at least {wanted}, one for each answer")]
    Queries {
        /// What the ground truth holds.
        found: usize,
        /// How many answers there are.
        wanted: usize,
    },
    /// A share of nothing.
    #[error("found no true neighbours for {queries} answers and k = {k}; wanted at least 1")]
    Nothing {
        /// How many answers there are.
        queries: usize,
        /// k.
        k: usize,
    },
}

/// Recall@k: how many of the true first `k` neighbours of all queries were found, from 0 to 1.
///
/// `found[q]` holds keys and exact distances, nearest first, for query `q` of `truth`; only its
/// first `k` entries are looked at. An entry counts if its key is among the true first `k`, or if
/// its distance ties with the last of them: see [`Metric::tie_limit`]. Each key counts once. Where
/// fewer than `k` neighbours exist, the missing ones (key -1) are neither wanted nor countable.
/// Without distances in `truth` only keys count. Queries of `truth` beyond `found` are left out.
///
/// # Errors
/// `truth` has fewer than `k` neighbours a query, or fewer queries than `found`; or there is
/// nothing to find.
pub fn recall(
    truth: &Truth,
    found: &[Vec<(u64, f32)>],
    k: usize,
    metric: Metric,
) -> Result<f64, RecallError> {
    check(truth, found, k)?;
    let (mut hits, mut wanted) = (0, 0);
    for (query, answer) in found.iter().enumerate() {
        let true_keys: HashSet<u64> =
            truth.keys(query)[..k].iter().filter_map(|key| u64::try_from(*key).ok()).collect();
        let tie = tie_distance(truth, query, k, metric);
        let mut seen = HashSet::new();
        let counted = answer
            .iter()
            .take(k)
            .filter(|(key, distance)| {
                true_keys.contains(key) || tie.is_some_and(|tie| f64::from(*distance) <= tie)
            })
            .filter(|(key, _)| seen.insert(*key))
            .count();
        hits += counted.min(true_keys.len());
        wanted += true_keys.len();
    }
    if wanted == 0 {
        return Err(RecallError::Nothing { queries: found.len(), k });
    }
    Ok(hits as f64 / wanted as f64)
}

/// Recall@k as ann-benchmarks counts it (its `knn` metric with epsilon 1e-3), from 0 to 1.
///
/// Of the first `k` entries of each answer those count whose distance is at most that of the true
/// `k`-th neighbour plus 1e-3, whatever their keys, out of `k` for each query. Distances under L2
/// are compared as plain Euclidean ones there, so their roots are taken here. `found` is laid out
/// as for [`recall`]; `None` if `truth` holds no distances, or fewer than `k` for some query, or if
/// 1e-3 is more than a tenth of the median true distance: that count would be of no meaning.
///
/// # Errors
/// As [`recall`].
pub fn recall_ann_benchmarks(
    truth: &Truth,
    found: &[Vec<(u64, f32)>],
    k: usize,
    metric: Metric,
) -> Result<Option<f64>, RecallError> {
    check(truth, found, k)?;
    let plain = |distance: f32| metric.plain_unit(f64::from(distance));
    let mut hits = 0;
    let mut last = Vec::with_capacity(found.len());
    for (query, answer) in found.iter().enumerate() {
        let Some(distances) = truth.distances(query) else { return Ok(None) };
        if truth.keys(query)[k - 1] < 0 {
            return Ok(None);
        }
        last.push(plain(distances[k - 1]));
        let limit = last[query] + 1e-3;
        hits += answer.iter().take(k).filter(|(_, distance)| plain(*distance) <= limit).count();
    }
    let middle = last.len() / 2;
    let median = last.select_nth_unstable_by(middle, f64::total_cmp).1.abs();
    Ok((median >= 1e-2).then_some(hits as f64 / (k * found.len()) as f64))
}

/// Whether `truth` can answer for `found` at `k`.
fn check(truth: &Truth, found: &[Vec<(u64, f32)>], k: usize) -> Result<(), RecallError> {
    if k == 0 || found.is_empty() {
        return Err(RecallError::Nothing { queries: found.len(), k });
    }
    if truth.k() < k {
        return Err(RecallError::K { found: truth.k(), wanted: k });
    }
    if truth.queries() < found.len() {
        return Err(RecallError::Queries { found: truth.queries(), wanted: found.len() });
    }
    Ok(())
}

/// The largest distance that counts whatever its key; `None` if only keys count.
fn tie_distance(truth: &Truth, query: usize, k: usize, metric: Metric) -> Option<f64> {
    let keys = &truth.keys(query)[..k];
    let last = keys.iter().rposition(|key| *key >= 0)?;
    Some(metric.tie_limit(f64::from(truth.distances(query)?[last])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One query with keys 10, 11, 12, 13 at distances 1, 2, 4, 4.
    fn truth() -> Truth {
        Truth::new(1, 4, vec![10, 11, 12, 13], Some(vec![1.0, 2.0, 4.0, 4.0])).unwrap()
    }

    fn of(truth: &Truth, found: &[(u64, f32)], k: usize) -> f64 {
        recall(truth, &[found.to_vec()], k, Metric::L2).unwrap()
    }

    #[test]
    fn true_keys_count_in_any_order_whatever_their_distance() {
        assert_eq!(of(&truth(), &[(10, 1.0), (11, 2.0)], 2), 1.0);
        assert_eq!(of(&truth(), &[(11, 99.0), (10, 99.0)], 2), 1.0);
        assert_eq!(of(&truth(), &[(10, 1.0), (12, 4.0)], 2), 0.5);
        assert_eq!(of(&truth(), &[(12, 4.0), (13, 4.0)], 2), 0.0);
    }

    #[test]
    fn a_tie_with_the_last_true_neighbour_counts() {
        assert_eq!(of(&truth(), &[(10, 1.0), (11, 2.0), (13, 4.0)], 3), 1.0);
        assert_eq!(of(&truth(), &[(10, 1.0), (11, 2.0), (99, 4.0)], 3), 1.0);
        // d_k = 4, so the last distance that counts is 4 + 4e-6.
        assert_eq!(of(&truth(), &[(10, 1.0), (11, 2.0), (99, 4.000_003)], 3), 1.0);
        assert_eq!(of(&truth(), &[(10, 1.0), (11, 2.0), (99, 4.000_005)], 3), 2.0 / 3.0);
    }

    #[test]
    fn ties_go_with_the_distances_at_any_scale() {
        let tie = |last: f32, found: f32, metric| {
            let truth = Truth::new(1, 1, vec![1], Some(vec![last])).unwrap();
            recall(&truth, &[vec![(2, found)]], 1, metric).unwrap() == 1.0
        };
        for (metric, scale) in [Metric::L2, Metric::InnerProduct]
            .into_iter()
            .flat_map(|metric| [1e-30, 1e-10, 1.0, 1e10, 1e30].map(|scale| (metric, scale)))
        {
            assert!(tie(scale, scale * 1.000_000_8, metric), "{metric} {scale}");
            assert!(!tie(scale, scale * 1.000_001_5, metric), "{metric} {scale}");
            assert!(tie(0.0, 0.0, metric) && tie(0.0, -0.0, metric) && !tie(0.0, 1e-45, metric));
            assert!(!tie(1.0, f32::NAN, metric));
        }
        // Copies, which other programs put a little below 0; what f32 rounds a cosine by, and more.
        assert!(tie(-1.2e-7, 0.0, Metric::Cosine) && tie(0.3, 0.300_000_6, Metric::Cosine));
        assert!(!tie(0.3, 0.300_002, Metric::Cosine) && !tie(0.0, 1e-6, Metric::Cosine));
        assert!(!tie(1.0, f32::NAN, Metric::Cosine));
        for scale in [1e-30, 1.0, 1e30] {
            // Minus an inner product: upwards is nearer to 0.
            assert!(tie(-scale, -scale * 0.999_999_3, Metric::InnerProduct), "{scale}");
            assert!(!tie(-scale, -scale * 0.999_998, Metric::InnerProduct), "{scale}");
        }
    }

    #[test]
    fn scaling_everything_changes_no_recall() {
        // Neighbors a thousandth apart: none ties with another.
        for scale in [1e-35f32, 1e-15, 1e-5, 1.0, 1e5, 1e30] {
            let near: Vec<f32> = (0..10).map(|i| scale * (1.0 + 0.001 * i as f32)).collect();
            let truth = Truth::new(1, 10, (0..10).collect(), Some(near.clone())).unwrap();
            let found = near.iter().enumerate();
            let found = found.map(|(i, far)| (if i < 5 { i as u64 } else { 50 }, far * 1.01));
            assert_eq!(recall(&truth, &[found.collect()], 10, Metric::L2), Ok(0.5), "{scale}");
        }
    }

    #[test]
    fn a_key_counts_once() {
        assert_eq!(of(&truth(), &[(10, 1.0), (10, 1.0), (10, 1.0), (10, 1.0)], 4), 0.25);
        assert_eq!(of(&truth(), &[(99, 4.0), (99, 4.0), (99, 4.0), (99, 4.0)], 4), 0.25);
    }

    #[test]
    fn only_the_first_k_entries_are_looked_at() {
        assert_eq!(of(&truth(), &[(98, 9.0), (99, 9.0), (10, 1.0), (11, 2.0)], 2), 0.0);
        assert_eq!(of(&truth(), &[(10, 1.0), (11, 2.0), (12, 2.0), (13, 2.0)], 2), 1.0);
    }

    #[test]
    fn fewer_answers_than_k_miss() {
        assert_eq!(of(&truth(), &[(10, 1.0)], 4), 0.25);
        assert_eq!(of(&truth(), &[], 4), 0.0);
    }

    #[test]
    fn missing_neighbours_are_neither_wanted_nor_countable() {
        let truth = Truth::new(1, 3, vec![10, 11, -1], Some(vec![1.0, 2.0, 0.0])).unwrap();
        assert_eq!(of(&truth, &[(10, 1.0), (11, 2.0)], 3), 1.0);
        assert_eq!(of(&truth, &[(10, 1.0), (99, 3.0), (u64::MAX, f32::INFINITY)], 3), 0.5);
        // Three ties for two places are two.
        assert_eq!(of(&truth, &[(97, 2.0), (98, 2.0), (99, 2.0)], 3), 1.0);
    }

    #[test]
    fn without_distances_only_keys_count() {
        let truth = Truth::new(1, 2, vec![10, 11], None).unwrap();
        assert_eq!(of(&truth, &[(10, 5.0), (99, 0.0)], 2), 0.5);
        assert_eq!(of(&truth, &[(99, f32::NEG_INFINITY), (98, 0.0)], 2), 0.0);
    }

    #[test]
    fn ann_benchmarks_counts_plain_distances_within_a_thousandth() {
        let of = |truth: &Truth, found: &[(u64, f32)], k, metric| {
            recall_ann_benchmarks(truth, &[found.to_vec()], k, metric).unwrap()
        };
        // Squared distances 1, 2, 4, 4: the second true neighbour is sqrt(2) = 1.41421 away.
        let t = truth();
        assert_eq!(of(&t, &[(10, 1.0), (11, 2.0)], 2, Metric::L2), Some(1.0));
        // 1.41521^2 = 2.00282: inside and outside of the slack.
        assert_eq!(of(&t, &[(10, 1.0), (99, 2.0027)], 2, Metric::L2), Some(1.0));
        assert_eq!(of(&t, &[(10, 1.0), (99, 2.0029)], 2, Metric::L2), Some(0.5));
        assert_eq!(of(&t, &[(10, 1.0), (99, 2.0009)], 2, Metric::Cosine), Some(1.0));
        assert_eq!(of(&t, &[(10, 1.0), (99, 2.0011)], 2, Metric::Cosine), Some(0.5));
        // A true key at a distance that is too large does not count here; fewer answers miss.
        assert_eq!(of(&t, &[(11, 9.0)], 2, Metric::L2), Some(0.0));
        assert_eq!(of(&t, &[(10, 1.0)], 4, Metric::L2), Some(0.25));
        assert_eq!(of(&t, &[(10, 1.0), (10, 1.0)], 2, Metric::L2), Some(1.0));
        let tiny = Truth::new(1, 2, vec![1, 2], Some(vec![1e-6, 2e-6])).unwrap();
        assert_eq!(of(&tiny, &[(8, 4e-6), (9, 4e-6)], 2, Metric::L2), None);
        let keys_only = Truth::new(1, 2, vec![1, 2], None).unwrap();
        assert_eq!(of(&keys_only, &[(1, 0.0)], 2, Metric::L2), None);
        let short = Truth::new(1, 2, vec![1, -1], Some(vec![0.0, 0.0])).unwrap();
        assert_eq!(of(&short, &[(1, 0.0)], 2, Metric::L2), None);
    }

    #[test]
    fn queries_count_by_their_true_neighbours() {
        let keys = vec![1, 2, 3, -1, -1, -1];
        let truth = Truth::new(3, 2, keys, None).unwrap();
        let found = [vec![(1, 0.0), (2, 0.0)], vec![(9, 0.0)], vec![(9, 0.0)]];
        assert_eq!(recall(&truth, &found, 2, Metric::L2), Ok(2.0 / 3.0));
        assert_eq!(recall(&truth, &found[..1], 2, Metric::L2), Ok(1.0));
    }

    #[test]
    fn what_the_truth_cannot_answer_is_an_error() {
        let answers = [vec![(10, 1.0)], vec![(10, 1.0)]];
        let said = |found: &[Vec<(u64, f32)>], k| {
            recall(&truth(), found, k, Metric::L2).unwrap_err().to_string()
        };
        assert_eq!(
            said(&answers[..1], 5),
            "ground truth holds 4 neighbours a query; wanted at least k = 5"
        );
        assert_eq!(
            said(&answers, 4),
            "ground truth holds 1 queries; wanted at least 2, one for each answer"
        );
        for (found, k) in [(&answers[..0], 4), (&answers[..1], 0)] {
            assert!(said(found, k).starts_with("found no true neighbours"));
        }
    }
}
