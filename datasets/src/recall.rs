//! Recall: the share of the true neighbours that were found. The only definition of it.

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
/// its distance ties with the last of them: at most `d_k + 1e-5 s + 1e-7`, where `s` is 1 for
/// cosine and `|d_k|` otherwise. Each key counts once. Where fewer than `k` neighbours exist, the
/// missing ones (key -1) are neither wanted nor countable. Without distances in `truth` only keys
/// count. Queries of `truth` beyond `found` are left out.
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
    if truth.k() < k {
        return Err(RecallError::K { found: truth.k(), wanted: k });
    }
    if truth.queries() < found.len() {
        return Err(RecallError::Queries { found: truth.queries(), wanted: found.len() });
    }
    let (mut hits, mut wanted) = (0, 0);
    for (query, answer) in found.iter().enumerate() {
        let true_keys: HashSet<u64> =
            truth.keys(query)[..k].iter().filter_map(|key| u64::try_from(*key).ok()).collect();
        let tie = tie_distance(truth, query, k, metric);
        let mut seen = HashSet::new();
        let counted = answer
            .iter()
            .take(k)
            .filter(|(key, distance)| true_keys.contains(key) || f64::from(*distance) <= tie)
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

/// The largest distance that counts whatever its key; -inf if only keys count.
fn tie_distance(truth: &Truth, query: usize, k: usize, metric: Metric) -> f64 {
    let Some(distances) = truth.distances(query) else {
        return f64::NEG_INFINITY;
    };
    let mut real = truth.keys(query)[..k].iter().zip(distances).filter(|(key, _)| **key >= 0);
    let Some((_, last)) = real.next_back() else {
        return f64::NEG_INFINITY;
    };
    let last = f64::from(*last);
    let scale = if metric == Metric::Cosine { 1.0 } else { last.abs() };
    last + 1e-5 * scale + 1e-7
}
