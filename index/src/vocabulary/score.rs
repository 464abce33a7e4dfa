//! A hidden state -> estimated logits, and the best of them.
//!
//! Estimates lie in positions, block after block of what was scanned.

use foveal_datasets::Row;

use super::groups::CENTROIDS;
use super::layout::{Blocks, NO_TOKEN, Vocabulary};
use crate::kernel::logits;
use crate::kernel::lookup::{self, BLOCK_ROWS};
use crate::kernel::planar::PlanarQuery;

/// The largest entry of a table.
const TOP: f32 = 255.0;
/// Positions whose best estimate stands for them when the best are chosen.
const GROUP: usize = 16;

/// Which clusters are scanned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Threshold {
    /// The cluster of this rank by prediction, from 1 on, is what others are held against.
    rank: u32,
    /// They are scanned if their prediction is at most this much below its.
    margin: f32,
}

impl Threshold {
    pub(crate) const ALL: Threshold = Threshold { rank: 1, margin: f32::INFINITY };

    /// For the best `k` tokens, which lie in about half as many clusters.
    pub(crate) fn of(k: u32, margin: f32) -> Threshold {
        Threshold { rank: k.div_ceil(2), margin }
    }
}

/// The estimates for one hidden state after the other; owns its buffers, so that nothing is
/// allocated anew.
#[derive(Default)]
pub(crate) struct TokenScores {
    /// `[dim]`: h, then `h - m`; and q.
    centred: Vec<f32>,
    planes: PlanarQuery,
    query: Vec<f32>,
    tables: Tables,
    /// Whose estimates there are.
    held: Held,
    /// Blocks of tokens that were scanned.
    chosen: Vec<u32>,
    /// `0..blocks` of clusters.
    every: Vec<u32>,
    /// Estimates of clusters, and of tokens by position: a whole number of groups each.
    predicted: Estimates,
    found: Estimates,
    /// What `best` found last, among others.
    top_k: TopK,
    /// The best, with their ids.
    best: Vec<(f32, u32)>,
}

/// What positions mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    /// Position i is id i.
    #[default]
    InOrder,
    /// Sixteen positions a block of `chosen`.
    Chosen,
}

/// What each centroid of each group adds to a logit.
#[derive(Default)]
struct Tables {
    entries: Vec<f32>,
    bytes: Vec<u8>,
    /// What to add to a sum of bytes, and what a byte's unit is.
    base_and_unit: (f32, f32),
}

impl Tables {
    fn fill(&mut self, query: &[f32], sizes: &[u16], centroids: &[f32]) {
        self.entries.resize(sizes.len() * CENTROIDS, 0.0);
        self.bytes.resize(sizes.len() * CENTROIDS, 0);
        let (base, widest) = logits::table_entries(query, sizes, centroids, &mut self.entries);
        let unit = widest / TOP;
        let per_unit = if (1.0 / unit).is_finite() { 1.0 / unit } else { 0.0 };
        logits::bytes_of(&self.entries, per_unit, &mut self.bytes);
        self.base_and_unit = (base, unit);
    }
}

/// Estimated logits of the rows of some blocks. Buffers only grow.
#[derive(Default)]
struct Estimates {
    sums: Vec<u32>,
    logits: Vec<f32>,
    len: usize,
}

impl Estimates {
    fn make_room(&mut self, len: usize) {
        self.len = len;
        self.sums.resize(len.max(self.sums.len()), 0);
        self.logits.resize(len.max(self.logits.len()), 0.0);
    }

    fn fill(&mut self, vocabulary: &Vocabulary, of: &Blocks, chosen: &[u32], tables: &Tables) {
        self.make_room(chosen.len() * BLOCK_ROWS);
        let sums = &mut self.sums[..self.len];
        (vocabulary.kernel)(&of.codes, &tables.bytes, chosen, sums);
        let out = &mut self.logits[..self.len];
        logits::scale_blocks(sums, (&of.offsets, chosen), tables.base_and_unit, out);
    }

    fn values(&self) -> &[f32] {
        &self.logits[..self.len]
    }
}

/// Finds the positions of the largest of many numbers.
#[derive(Default)]
struct TopK {
    best_of: Vec<f32>,
    ranked: Vec<f32>,
    positions: Vec<u32>,
}

impl TopK {
    /// Fills `positions` with those of the `count` largest values and of few others, in order.
    /// Values are whole groups, minus infinity never counts.
    fn select(&mut self, values: &[f32], count: usize) {
        let groups = values.len() / GROUP;
        self.best_of.resize(groups, 0.0);
        // Group i is made of the positions i, i + groups, i + 2 groups, ...
        logits::largest_of_columns(values, &mut self.best_of);
        // The best of `count` groups are `count` values: none smaller need be looked at.
        let mut least = f32::MIN;
        if (1..groups).contains(&count) {
            self.ranked.clear();
            self.ranked.extend_from_slice(&self.best_of);
            let (_, nth, _) = self.ranked.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
            least = nth.max(f32::MIN);
        }
        lookup::positions_above(values, least, &mut self.positions);
    }

    /// The value of a rank, from 1 on; the least there is if there are fewer, minus infinity if
    /// there is none.
    fn nth(&mut self, values: &[f32], rank: usize) -> f32 {
        self.select(values, rank);
        self.ranked.clear();
        self.ranked.extend(self.positions.iter().map(|position| values[*position as usize]));
        let Some(at) = rank.min(self.ranked.len()).checked_sub(1) else {
            return f32::NEG_INFINITY;
        };
        *self.ranked.select_nth_unstable_by(at, |a, b| b.total_cmp(a)).1
    }
}

impl TokenScores {
    /// Estimates the logits of the tokens of some clusters for a hidden state of the vocabulary's
    /// dimension. `O(dim^2 + tokens dim / 8)` with the number of tokens that are scanned, and a
    /// thirty-second of the others.
    pub(crate) fn score(&mut self, vocabulary: &Vocabulary, hidden: Row<'_>, threshold: Threshold) {
        self.prepare(vocabulary, hidden);
        if threshold.margin < f32::INFINITY {
            self.predict(vocabulary);
            let predicted = self.predicted.values();
            let least = self.top_k.nth(predicted, threshold.rank as usize) - threshold.margin;
            lookup::positions_above(predicted, least.max(f32::MIN), &mut self.chosen);
        } else if self.held != Held::Chosen || self.chosen.len() != vocabulary.count() {
            self.chosen.clear();
            self.chosen.extend(0..vocabulary.count() as u32);
        }
        self.held = Held::Chosen;
        let spec = &vocabulary.spec;
        self.tables.fill(&self.query, &spec.sizes, &spec.centroids);
        self.found.fill(vocabulary, &vocabulary.tokens, &self.chosen, &self.tables);
    }

    /// How much below that of the cluster of a rank the predictions of all clusters are, to
    /// `deficits`: what margins are measured in. Nothing is scored.
    pub(crate) fn deficits(
        &mut self,
        vocabulary: &Vocabulary,
        hidden: Row<'_>,
        (threshold, deficits): (Threshold, &mut Vec<f32>),
    ) {
        self.prepare(vocabulary, hidden);
        self.predict(vocabulary);
        let predicted = &self.predicted.values()[..vocabulary.count()];
        let held_against = self.top_k.nth(self.predicted.values(), threshold.rank as usize);
        deficits.extend(predicted.iter().map(|logit| held_against - logit));
    }

    /// Room for the logits of `tokens` tokens that come from elsewhere, in id order, to be filled
    /// whole.
    pub(crate) fn room_for(&mut self, tokens: usize) -> &mut [f32] {
        self.held = Held::InOrder;
        self.found.make_room(tokens.next_multiple_of(GROUP));
        let (room, rest) = self.found.logits[..self.found.len].split_at_mut(tokens);
        rest.fill(f32::NEG_INFINITY);
        room
    }

    /// Fills `centred` and `query`.
    fn prepare(&mut self, vocabulary: &Vocabulary, hidden: Row<'_>) {
        let spec = &vocabulary.spec;
        let dim = spec.dim();
        self.centred.resize(dim, 0.0);
        hidden.widen_into(&mut self.centred);
        self.centred.iter_mut().zip(&spec.mean).for_each(|(x, mean)| *x -= mean);
        self.query.resize(dim, 0.0);
        let TokenScores { planes, centred, query, .. } = self;
        vocabulary.to_query.times::<1>(vocabulary.planar, planes, centred, query);
    }

    /// Fills `predicted`.
    fn predict(&mut self, vocabulary: &Vocabulary) {
        let clusters = &vocabulary.clusters;
        let blocks = clusters.offsets.len() / BLOCK_ROWS;
        if self.every.len() != blocks {
            self.every.clear();
            self.every.extend(0..blocks as u32);
        }
        let centroids = &vocabulary.spec.cluster_centroids;
        self.tables.fill(&self.query, &vocabulary.cluster_sizes, centroids);
        self.predicted.fill(vocabulary, clusters, &self.every, &self.tables);
    }

    /// `h - m` of the hidden state that was scored last: what is left of logits beside `<m, x>`.
    pub(crate) fn centred(&self) -> &[f32] {
        &self.centred
    }

    /// Whether estimates are those of `room_for`.
    pub(crate) fn in_order(&self) -> bool {
        self.held == Held::InOrder
    }

    /// The estimated logits, by position.
    pub(crate) fn scores(&self) -> &[f32] {
        self.found.values()
    }

    /// Whose estimate a position holds; `vocabulary` is the one that was scored, if any was.
    pub(crate) fn id(&self, vocabulary: Option<&Vocabulary>, position: u32) -> u32 {
        id_at(self.held, (vocabulary, &self.chosen), position)
    }

    /// How many tokens have better estimates than each of `ids`; as many as there are for one that
    /// was not scanned. `rows[id]` is the row of a token in the blocks of the vocabulary that was
    /// scored.
    pub(crate) fn ranks_of(&self, rows: &[u32], ids: impl Iterator<Item = u32>) -> Vec<u32> {
        let scores = self.scores();
        ids.map(|id| {
            let (block, lane) = (rows[id as usize] / GROUP as u32, rows[id as usize] as usize);
            let Ok(at) = self.chosen.binary_search(&block) else { return NO_TOKEN };
            let score = scores[at * GROUP + lane % GROUP];
            logits::count_above(scores, score)
        })
        .collect()
    }

    /// Takes the tokens out that are not `allowed`: their estimate becomes minus infinity.
    pub(crate) fn keep(&mut self, vocabulary: Option<&Vocabulary>, allowed: impl Fn(u32) -> bool) {
        let (held, chosen) = (self.held, &self.chosen);
        let scores = &mut self.found.logits[..self.found.len];
        for (position, score) in (0..).zip(scores) {
            // Where there is no token there is no estimate to take out.
            if *score > f32::NEG_INFINITY && !allowed(id_at(held, (vocabulary, chosen), position)) {
                *score = f32::NEG_INFINITY;
            }
        }
    }

    /// Takes out those of the tokens that `best` found last that are `known`.
    pub(crate) fn take_out_found(
        &mut self,
        vocabulary: Option<&Vocabulary>,
        known: impl Fn(u32) -> bool,
    ) {
        for position in &self.top_k.positions {
            if known(id_at(self.held, (vocabulary, &self.chosen), *position)) {
                self.found.logits[*position as usize] = f32::NEG_INFINITY;
            }
        }
    }

    /// Takes single tokens out, sorted by id.
    pub(crate) fn take_out(&mut self, vocabulary: Option<&Vocabulary>, ids: &[u32]) {
        if !ids.is_empty() {
            self.keep(vocabulary, |id| ids.binary_search(&id).is_err());
        }
    }

    /// Takes so much off every estimate.
    pub(crate) fn take_off(&mut self, common: f64) {
        if common != 0.0 {
            let scores = &mut self.found.logits[..self.found.len];
            scores.iter_mut().for_each(|x| *x = (f64::from(*x) - common) as f32);
        }
    }

    /// The positions of estimates that are `least` or more, in order.
    pub(crate) fn positions_above(&self, least: f32) -> Vec<u32> {
        let mut positions = Vec::new();
        lookup::positions_above(self.scores(), least.max(f32::MIN), &mut positions);
        positions
    }

    /// The ids of the `count` best estimates, with those, in any order; of equal ones smaller keys
    /// first. Tokens that were taken out never.
    pub(crate) fn best(
        &mut self,
        vocabulary: Option<&Vocabulary>,
        count: usize,
        key: impl Fn(u32) -> u64,
    ) -> &[(f32, u32)] {
        let scores = &self.found.logits[..self.found.len];
        self.top_k.select(scores, count);
        let id = |position: u32| id_at(self.held, (vocabulary, &self.chosen), position);
        let positions = self.top_k.positions.iter();
        self.best.clear();
        self.best.extend(positions.map(|at| (scores[*at as usize], id(*at))));
        let order = |a: &(f32, u32), b: &(f32, u32)| {
            b.0.total_cmp(&a.0).then_with(|| key(a.1).cmp(&key(b.1)))
        };
        if count < self.best.len() {
            self.best.select_nth_unstable_by(count, order);
            self.best.truncate(count);
        }
        &self.best
    }
}

/// The id at a position of the given blocks.
fn id_at(held: Held, (vocabulary, chosen): (Option<&Vocabulary>, &[u32]), position: u32) -> u32 {
    let (Held::Chosen, Some(vocabulary)) = (held, vocabulary) else { return position };
    let (block, row) = (position as usize / BLOCK_ROWS, position as usize % BLOCK_ROWS);
    vocabulary.ids[chosen[block] as usize * BLOCK_ROWS + row]
}
