//! Which candidates of a node become its neighbors: the one pruning rule.
//!
//! Candidates nearest first; y is kept unless some kept r has `alpha * d(r, y) < d(p, y)`; stop at
//! R. With alpha = 1 that is MRNG (arXiv:2107.13052), with alpha > 1 Vamana (DiskANN, NeurIPS
//! 2019). The nearest candidate is always kept. d is L2, not squared.

use crate::distance::{QueryDistance, Space};

/// Degree and slack of the rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PruneRule {
    pub(crate) max_degree: usize,
    pub(crate) alpha: f32,
}

impl PruneRule {
    /// Whether a kept neighbor at squared distance `to_kept` from y hides y, which is at squared
    /// distance `to_node` from the node.
    #[inline(always)]
    fn hides(&self, to_kept: f32, to_node: f32) -> bool {
        // A copy of a kept neighbor is hidden: one of them leads to the others, and a thousand
        // equal rows must not fill each other's lists.
        to_kept <= 0.0 || self.alpha * self.alpha * to_kept < to_node
    }
}

/// A possible neighbor: its squared distance to the node, and its id.
pub(crate) type Near = (f32, u32);

/// Scratch of one thread.
pub(crate) struct Pruner<S: Space> {
    waiting: Vec<Near>,
    ids: Vec<u32>,
    distances: Vec<f32>,
    hidden: Vec<Near>,
    scratch: S::Scratch,
}

impl<S: Space> Default for Pruner<S> {
    fn default() -> Self {
        Pruner {
            waiting: Vec::new(),
            ids: Vec::new(),
            distances: Vec::new(),
            hidden: Vec::new(),
            scratch: S::Scratch::default(),
        }
    }
}

impl<S: Space> Pruner<S> {
    /// Keeps at most `rule.max_degree` of `candidates`, which are sorted nearest first, distinct
    /// and without the node itself, in `kept`. `O(candidates x kept)` distances at most.
    pub(crate) fn prune(
        &mut self,
        space: &S,
        rule: &PruneRule,
        candidates: &[Near],
        kept: &mut Vec<u32>,
    ) {
        debug_assert!(candidates.is_sorted_by(|x, y| x.0 <= y.0), "an unsorted pool");
        kept.clear();
        self.hidden.clear();
        self.waiting.clear();
        self.waiting.extend_from_slice(candidates);
        let mut next = 0;
        while next < self.waiting.len() && kept.len() < rule.max_degree {
            let (_, nearest) = self.waiting[next];
            kept.push(nearest);
            next += 1;
            if kept.len() == rule.max_degree || next == self.waiting.len() {
                break;
            }
            self.ids.clear();
            self.ids.extend(self.waiting[next..].iter().map(|(_, id)| *id));
            self.distances.resize(self.distances.len().max(self.ids.len()), 0.0);
            let from_kept = space.distances_from(nearest, &mut self.scratch);
            from_kept.distances(&self.ids, &mut self.distances);
            // What is hidden leaves the list; the rest moves up, in order.
            let mut to = next;
            for from in next..self.waiting.len() {
                let candidate = self.waiting[from];
                if rule.hides(self.distances[from - next], candidate.0) {
                    self.hidden.push(candidate);
                } else {
                    self.waiting[to] = candidate;
                    to += 1;
                }
            }
            self.waiting.truncate(to);
        }
    }

    /// Fills `kept`, as `prune` left it, up to the degree with the nearest that were pruned.
    pub(crate) fn fill(&mut self, rule: &PruneRule, kept: &mut Vec<u32>) {
        let missing = rule.max_degree.saturating_sub(kept.len()).min(self.hidden.len());
        if missing > 0 {
            self.hidden.sort_unstable_by(nearest_first);
            kept.extend(self.hidden[..missing].iter().map(|(_, id)| *id));
        }
    }
}

/// Nearest first; equal distances: smaller id first.
pub(crate) fn nearest_first(x: &Near, y: &Near) -> std::cmp::Ordering {
    x.0.total_cmp(&y.0).then(x.1.cmp(&y.1))
}
