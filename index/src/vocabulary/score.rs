//! A hidden state -> estimated logits, and the best of them.
//!
//! Estimates lie in positions, block after block of what was scanned; `ids` tells whose they are.

use foveal_datasets::Row;

use super::groups::CENTROIDS;
use super::layout::{NO_TOKEN, Vocabulary};
use crate::kernel::float;
use crate::kernel::lookup::{self, BLOCK_ROWS};
use crate::kernel::planar::PlanarQuery;
use crate::kernel::{LINE, prefetch};

/// The largest entry of a table.
const TOP: f32 = 255.0;
/// Positions whose best estimate stands for them when the best are chosen.
const GROUP: usize = 16;

/// The estimates for one hidden state after the other; owns its buffers, so that nothing is
/// allocated anew.
#[derive(Default)]
pub(crate) struct TokenScores {
    /// `[dim]`: h, then `h - m`; and q.
    centred: Vec<f32>,
    planes: PlanarQuery,
    query: Vec<f32>,
    /// `[parts x 16]`: what each centroid adds to a logit, and as bytes.
    entries: Vec<f32>,
    tables: Vec<u8>,
    sums: Vec<u32>,
    /// Clusters to scan, and what is estimated of them.
    chosen: Vec<(f32, u32)>,
    /// The estimated logits by position: a whole number of groups.
    scores: Vec<f32>,
    ids: Vec<u32>,
    held: Held,
    best_of: Vec<f32>,
    ranked: Vec<f32>,
    above: Vec<u32>,
    /// The best, with their positions; and with their ids.
    found: Vec<(f32, u32)>,
    best: Vec<(f32, u32)>,
}

/// What `ids` holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Held {
    #[default]
    Other,
    /// Those of a whole vocabulary.
    Whole,
    /// Id i at position i, for so many tokens.
    InOrder(usize),
}

impl TokenScores {
    /// Estimates the logits of all tokens for a hidden state of the vocabulary's dimension.
    /// `O(dim^2 + tokens dim / 8)`.
    pub(crate) fn score(&mut self, vocabulary: &Vocabulary, hidden: Row<'_>) {
        let base_and_unit = self.prepare(vocabulary, hidden);
        let tokens = &vocabulary.tokens;
        if self.held != Held::Whole {
            self.ids.clear();
            self.ids.extend_from_slice(&tokens.ids);
            self.held = Held::Whole;
        }
        self.sums.resize(tokens.offsets.len(), 0);
        self.scores.resize(tokens.offsets.len(), 0.0);
        (vocabulary.kernel)(&tokens.codes, &self.tables, &mut self.sums);
        float::scale_sums(&self.sums, &tokens.offsets, base_and_unit, &mut self.scores);
    }

    /// Estimates the logits of the tokens of the best clusters, this share of all of them.
    pub(crate) fn score_some(&mut self, vocabulary: &Vocabulary, hidden: Row<'_>, share: f64) {
        if share >= 1.0 || vocabulary.counts.len() == 1 {
            return self.score(vocabulary, hidden);
        }
        let base_and_unit = self.prepare(vocabulary, hidden);
        self.choose(vocabulary, base_and_unit, share);
        let tokens = &vocabulary.tokens;
        let block_bytes = tokens.codes.len() / (tokens.offsets.len() / BLOCK_ROWS);
        let blocks = self.chosen.iter().map(|(_, cluster)| {
            let cluster = *cluster as usize;
            vocabulary.starts[cluster] as usize..vocabulary.starts[cluster + 1] as usize
        });
        let rows: usize = blocks.clone().map(|blocks| blocks.len() * BLOCK_ROWS).sum();
        self.held = Held::Other;
        self.ids.clear();
        self.sums.resize(rows, 0);
        self.scores.resize(rows, 0.0);
        let mut done = 0;
        let mut ahead = blocks.clone().skip(1);
        for blocks in blocks {
            // A cluster is too short for the CPU to see a stream coming.
            let next = ahead.next().unwrap_or_default();
            for line in (next.start * block_bytes..next.end * block_bytes).step_by(LINE) {
                prefetch(&tokens.codes, line);
            }
            let (codes, rows) = (
                &tokens.codes[blocks.start * block_bytes..blocks.end * block_bytes],
                blocks.start * BLOCK_ROWS..blocks.end * BLOCK_ROWS,
            );
            let sums = &mut self.sums[done..done + rows.len()];
            (vocabulary.kernel)(codes, &self.tables, sums);
            let scores = &mut self.scores[done..done + rows.len()];
            float::scale_sums(sums, &tokens.offsets[rows.clone()], base_and_unit, scores);
            self.ids.extend_from_slice(&tokens.ids[rows.clone()]);
            done += rows.len();
        }
    }

    /// Fills `chosen` with the best clusters, in the order of memory.
    fn choose(&mut self, vocabulary: &Vocabulary, base_and_unit: (f32, f32), share: f64) {
        let clusters = &vocabulary.clusters;
        self.sums.resize(clusters.offsets.len(), 0);
        self.scores.resize(clusters.offsets.len(), 0.0);
        (vocabulary.kernel)(&clusters.codes, &self.tables, &mut self.sums);
        float::scale_sums(&self.sums, &clusters.offsets, base_and_unit, &mut self.scores);
        self.chosen.clear();
        let scores = self.scores.iter().take(vocabulary.counts.len());
        self.chosen.extend(scores.copied().zip(0..));
        let wanted = (share * self.chosen.len() as f64).ceil() as usize;
        let wanted = wanted.clamp(1, self.chosen.len());
        let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        self.chosen.select_nth_unstable_by(wanted - 1, order);
        self.chosen.truncate(wanted);
        self.chosen.sort_unstable_by_key(|(_, cluster)| *cluster);
    }

    /// Room for the logits of `tokens` tokens that come from elsewhere, in id order, to be filled
    /// whole.
    pub(crate) fn room_for(&mut self, tokens: usize) -> &mut [f32] {
        if self.held != Held::InOrder(tokens) {
            self.ids.clear();
            self.ids.extend(0..tokens as u32);
            self.ids.resize(tokens.next_multiple_of(GROUP), NO_TOKEN);
            self.held = Held::InOrder(tokens);
        }
        self.scores.clear();
        self.scores.resize(tokens.next_multiple_of(GROUP), f32::NEG_INFINITY);
        &mut self.scores[..tokens]
    }

    /// Fills the tables; returns what to add to a sum of entries, and what an entry's unit is.
    fn prepare(&mut self, vocabulary: &Vocabulary, hidden: Row<'_>) -> (f32, f32) {
        // Adding and taking off 2^23 rounds to an integer.
        const ROUND: f32 = 8_388_608.0;
        let spec = &vocabulary.spec;
        let dim = spec.dim();
        self.centred.resize(dim, 0.0);
        hidden.widen_into(&mut self.centred);
        self.centred.iter_mut().zip(&spec.mean).for_each(|(x, mean)| *x -= mean);
        self.query.resize(dim, 0.0);
        let TokenScores { planes, centred, query, .. } = &mut *self;
        vocabulary.to_query.times::<2>(vocabulary.planar, planes, centred, query);

        self.entries.clear();
        let (mut start, mut base, mut widest) = (0, 0.0f32, 0.0f32);
        for size in &spec.sizes {
            let end = start + usize::from(*size);
            let mut entries = [0.0f32; CENTROIDS];
            let centroids = &spec.centroids[start * CENTROIDS..end * CENTROIDS];
            float::weighted_rows(&self.query[start..end], centroids, &mut entries);
            let least = entries.iter().copied().fold(f32::INFINITY, f32::min);
            let most = entries.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            base += least;
            widest = widest.max(most - least);
            self.entries.extend(entries.iter().map(|entry| entry - least));
            start = end;
        }
        let unit = widest / TOP;
        let per_unit = if (1.0 / unit).is_finite() { 1.0 / unit } else { 0.0 };
        self.tables.resize(self.entries.len(), 0);
        let entries = self.tables.iter_mut().zip(&self.entries);
        entries.for_each(|(byte, entry)| *byte = ((entry * per_unit + ROUND) - ROUND) as u8);
        (base, unit)
    }

    /// `h - m` of the hidden state that was scored last: what is left of logits beside `<m, x>`.
    pub(crate) fn centred(&self) -> &[f32] {
        &self.centred
    }

    /// The estimated logits, by position.
    pub(crate) fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// Whose estimate a position holds.
    pub(crate) fn id(&self, position: u32) -> u32 {
        self.ids[position as usize]
    }

    /// How many tokens have better estimates than each of `ids`; as many as there are for one that
    /// was not scanned.
    pub(crate) fn ranks_of(&self, ids: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut sorted = self.scores.clone();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        let mut places: Vec<(u32, u32)> = self.ids.iter().copied().zip(0..).collect();
        places.sort_unstable();
        ids.map(|id| {
            let Ok(at) = places.binary_search_by_key(&id, |(id, _)| *id) else { return NO_TOKEN };
            let score = self.scores[places[at].1 as usize];
            sorted.partition_point(|other| other.total_cmp(&score).is_gt()) as u32
        })
        .collect()
    }

    /// Takes the tokens out that are not `allowed`: their estimate becomes minus infinity.
    pub(crate) fn keep(&mut self, allowed: impl Fn(u32) -> bool) {
        for (score, id) in self.scores.iter_mut().zip(&self.ids) {
            if *id != NO_TOKEN && !allowed(*id) {
                *score = f32::NEG_INFINITY;
            }
        }
    }

    /// Takes out those of the tokens that `best` found last that are `known`.
    pub(crate) fn take_out_found(&mut self, known: impl Fn(u32) -> bool) {
        for (_, at) in &self.found {
            if known(self.ids[*at as usize]) {
                self.scores[*at as usize] = f32::NEG_INFINITY;
            }
        }
    }

    /// Takes single tokens out.
    pub(crate) fn take_out(&mut self, ids: &[u32]) {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        self.keep(|id| ids.binary_search(&id).is_err());
    }

    /// The ids of the `count` best estimates, with those, in any order; of equal ones smaller keys
    /// first. Tokens that were taken out never.
    pub(crate) fn best(&mut self, count: usize, key: impl Fn(u32) -> u64) -> &[(f32, u32)] {
        let groups = self.scores.len() / GROUP;
        self.best_of.resize(groups, 0.0);
        // Group i is made of the positions i, i + groups, i + 2 groups, ...
        float::largest_of_columns(&self.scores, &mut self.best_of);
        // The best estimates of `count` groups are `count` tokens: none worse need be looked at.
        let mut least = f32::MIN;
        if (1..groups).contains(&count) {
            self.ranked.clear();
            self.ranked.extend_from_slice(&self.best_of);
            let (_, nth, _) = self.ranked.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
            least = nth.max(f32::MIN);
        }
        self.found.clear();
        lookup::places_above(&self.scores, least, &mut self.above);
        let scores = &self.scores;
        self.found.extend(self.above.iter().map(|at| (scores[*at as usize], *at)));
        let key = |at: u32| key(self.ids[at as usize]);
        let order = |a: &(f32, u32), b: &(f32, u32)| {
            b.0.total_cmp(&a.0).then_with(|| key(a.1).cmp(&key(b.1)))
        };
        if count < self.found.len() {
            self.found.select_nth_unstable_by(count, order);
            self.found.truncate(count);
        }
        self.best.clear();
        let ids = &self.ids;
        self.best.extend(self.found.iter().map(|(score, at)| (*score, ids[*at as usize])));
        &self.best
    }
}
