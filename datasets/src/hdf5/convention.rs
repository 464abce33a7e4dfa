//! How the layout writes down what near means: a word, and distances that are not ours.

use crate::metric::Metric;

/// The words of ann-benchmarks and of VIBE, and the metric each one stands for. VIBE says
/// `normalized` for angles between rows of length 1.
const WORDS: [(&str, Metric); 8] = [
    ("euclidean", Metric::L2),
    ("l2", Metric::L2),
    ("angular", Metric::Cosine),
    ("cosine", Metric::Cosine),
    ("normalized", Metric::Cosine),
    ("ip", Metric::InnerProduct),
    ("dot", Metric::InnerProduct),
    ("inner_product", Metric::InnerProduct),
];

/// The metric a word stands for.
pub(super) fn metric(word: &str) -> Option<Metric> {
    WORDS.into_iter().find(|(name, _)| *name == word).map(|(_, metric)| metric)
}

/// The words, as messages name them.
pub(super) fn known() -> String {
    WORDS.map(|(name, _)| name).join(", ")
}

/// Distances (`[queries x k]`) as [`Metric`] defines them.
///
/// Euclidean distances are not squared there. VIBE writes minus the inner product, other files the
/// inner product itself, which falls from one neighbor to the next.
pub(super) fn to_ours(metric: Metric, k: usize, distances: &[f64]) -> Vec<f32> {
    let falls = |of_query: &[f64]| of_query.first() > of_query.last();
    let negated = metric.is_product() && distances.chunks(k).any(falls);
    let ours = |distance: &f64| match metric {
        // What is below 0 is no distance: it keeps its sign, falls, and is refused.
        Metric::L2 => distance * distance.abs(),
        _ if negated => -distance,
        Metric::InnerProduct | Metric::Cosine => *distance,
    };
    distances.iter().map(|distance| ours(distance) as f32).collect()
}
