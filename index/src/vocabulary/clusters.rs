//! Which tokens are alike, and what predicts the best logit among them.
//!
//! Tokens are parted in two by what their codes say of y, and `<m, x>` beside it: along the line
//! between two means, so that both parts are whole blocks (balanced 2-means), again and again down
//! to 16 tokens. The best logit of a cluster is then fitted to q of sample hidden states by ridge
//! regression, shrunk to the mean of the cluster's tokens. On the states that the mapping was
//! learned from the coordinates of q are not correlated and average 0: each coefficient follows by
//! itself, `(sum of q_i t + RIDGE mean_i) / (sum of q_i^2 + RIDGE)`.

use foveal_datasets::Rows;
use foveal_datasets::seeded::Seeded;
use rayon::prelude::*;

use super::encode::{self, encode, offset_of, part_of};
use super::groups::{self, CENTROIDS};
use super::mapping::{AT_ONCE, transform, widen};
use super::{Learned, VocabularySpec};
use crate::kernel::lookup::BLOCK_ROWS;
use crate::kernel::{float, logits};

/// Most clusters: their numbers fit a record.
pub(super) const MOST: usize = 1 << 16;
/// Rounds of 2-means.
const ROUNDS: usize = 6;
/// Tokens that are parted on more than one thread.
const TOGETHER: usize = 4096;
/// The mean of a cluster counts as much as this many hidden states.
const RIDGE: f32 = 300.0;
/// Hidden states met by one cluster before the next, and clusters of a task: both stay in the
/// cache.
const STATES_A_TILE: usize = 64;
const CLUSTERS_A_TASK: usize = 4;

/// Clusters in the making.
pub(crate) struct Clustering<'a> {
    learned: &'a Learned,
    /// `[n x stride]`.
    records: &'a [u8],
    /// `[n]`: tokens, cluster by cluster.
    order: Vec<u32>,
    /// `[states x dim]`: q of sample hidden states; and the sums of the squares of each coordinate.
    states: Vec<f32>,
    squares: Vec<f32>,
    /// `[clusters x dim]`, and what is added.
    predictors: Vec<f32>,
    offsets: Vec<f32>,
}

impl<'a> Clustering<'a> {
    /// Parts the tokens of `records` (`[n x stride]`); `hidden` are the states that `learned` was
    /// learned from. `O(n log(n) dim + len(hidden) dim^2)`.
    pub(crate) fn new(
        learned: &'a Learned,
        records: &'a [u8],
        hidden: &Rows,
        seed: u64,
    ) -> Clustering<'a> {
        let spec = &learned.spec;
        let mut order: Vec<u32> = (0..(records.len() / spec.stride()) as u32).collect();
        Points { spec, records }.part(&mut order, seed);
        order.chunks_mut(BLOCK_ROWS).for_each(<[u32]>::sort_unstable);
        let states = spec.queries(hidden);
        let mut squares = vec![0.0; spec.dim()];
        for q in states.chunks_exact(spec.dim()) {
            squares.iter_mut().zip(q).for_each(|(sum, x)| *sum += x * x);
        }
        let (predictors, offsets) = (Vec::new(), Vec::new());
        Clustering { learned, records, order, states, squares, predictors, offsets }
    }

    /// The tokens of every cluster, one cluster after the other; 16 each but for the last.
    pub(crate) fn order(&self) -> &[u32] {
        &self.order
    }

    /// Fits predictors of the next clusters, whose tokens' rows are `rows`, in order. Whole
    /// clusters. `O(len(rows) dim (states + dim))`.
    pub(crate) fn fit(&mut self, rows: &Rows) {
        let first = self.offsets.len();
        let dim = rows.dim();
        let clusters: Vec<usize> = (0..rows.len().div_ceil(BLOCK_ROWS)).collect();
        let fitted: Vec<(Vec<f32>, Vec<f32>)> = clusters
            .par_chunks(CLUSTERS_A_TASK)
            .map(|some| {
                let blocks = some.iter().map(|cluster| self.block(rows, cluster * BLOCK_ROWS));
                let mut fits: Vec<Fit> = blocks.collect();
                for states in self.states.chunks(STATES_A_TILE * dim) {
                    fits.iter_mut().for_each(|fit| fit.meet(states));
                }
                let mut predictors = Vec::with_capacity(some.len() * dim);
                let mut offsets = Vec::with_capacity(some.len());
                for (cluster, fit) in some.iter().zip(fits) {
                    let mean = self.mean_of(first + cluster);
                    let known = fit.sums.iter().zip(&self.squares).zip(mean);
                    let of = |((sum, square), mean)| (sum + RIDGE * mean) / (square + RIDGE);
                    predictors.extend(known.map(of));
                    let states = self.states.len() / dim;
                    offsets.push(fit.shift + (fit.total / states.max(1) as f64) as f32);
                }
                (predictors, offsets)
            })
            .collect();
        for (predictors, offsets) in fitted {
            self.predictors.extend(predictors);
            self.offsets.extend(offsets);
        }
    }

    /// Codes of the predictors, and the cluster of every token in id order. `O(n dim)`.
    ///
    /// Panics unless all clusters were met.
    pub(crate) fn finish(self, seed: u64) -> (Vec<f32>, Vec<u8>, Vec<u16>) {
        let spec = &self.learned.spec;
        let dim = spec.dim();
        assert_eq!(self.offsets.len(), self.order.len().div_ceil(BLOCK_ROWS), "every cluster");
        let sizes = groups::pairs_of(&spec.sizes);
        let centroids = groups::centroids(&self.predictors, dim, &sizes, seed);
        let stride = spec.cluster_stride();
        let mut clusters = vec![0; self.offsets.len() * stride];
        let each = clusters.chunks_exact_mut(stride).zip(self.predictors.chunks_exact(dim));
        for ((record, predictor), offset) in each.zip(&self.offsets) {
            let (code, tail) = record.split_at_mut(stride - encode::OFFSET);
            encode(&sizes, &centroids, predictor, code);
            tail.copy_from_slice(&offset.to_le_bytes());
        }
        let mut cluster_of = vec![0; self.order.len()];
        for (cluster, tokens) in self.order.chunks(BLOCK_ROWS).enumerate() {
            tokens.iter().for_each(|token| cluster_of[*token as usize] = cluster as u16);
        }
        (centroids, clusters, cluster_of)
    }

    /// What the tokens of a cluster, from the given row on, are to hidden states.
    fn block(&self, rows: &Rows, start: usize) -> Fit {
        let dim = rows.dim();
        let count = BLOCK_ROWS.min(rows.len() - start);
        let (mut wide, mut y) = (vec![0.0; count * dim], vec![0.0; count * dim]);
        let mut fit = Fit {
            columns: vec![0.0; dim * BLOCK_ROWS],
            offsets: [f32::NEG_INFINITY; BLOCK_ROWS],
            shift: f32::NEG_INFINITY,
            total: 0.0,
            sums: vec![0.0; dim],
        };
        let offsets = self.learned.map((rows, start), &mut wide, &mut y);
        fit.offsets.iter_mut().zip(offsets).for_each(|(to, offset)| *to = offset);
        for (lane, y) in y.chunks_exact(dim).enumerate() {
            let column = fit.columns.iter_mut().skip(lane).step_by(BLOCK_ROWS);
            column.zip(y).for_each(|(to, x)| *to = *x);
        }
        fit.shift = fit.offsets.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        fit
    }

    /// The mean of a cluster's tokens, as their codes tell it.
    fn mean_of(&self, cluster: usize) -> Vec<f32> {
        let spec = &self.learned.spec;
        let start = cluster * BLOCK_ROWS;
        let tokens = &self.order[start..self.order.len().min(start + BLOCK_ROWS)];
        Points { spec, records: self.records }.mean(tokens).0
    }
}

/// The best logit of a cluster against q, in the making.
struct Fit {
    /// `[dim x 16]`: y of its tokens; and `<m, x>`, minus infinity where there is none.
    columns: Vec<f32>,
    offsets: [f32; BLOCK_ROWS],
    /// What best logits are counted from, and the sums of them, alone and times q.
    shift: f32,
    total: f64,
    sums: Vec<f32>,
}

impl Fit {
    fn meet(&mut self, states: &[f32]) {
        let dim = self.sums.len();
        let mut best = [0.0; STATES_A_TILE];
        let best = &mut best[..states.len() / dim];
        logits::largest_products(&self.columns, &self.offsets, states, best);
        for (q, best) in states.chunks_exact(dim).zip(best) {
            let best = *best - self.shift;
            self.total += f64::from(best);
            float::add_scaled(&mut self.sums, q, best);
        }
    }
}

/// The estimates of tokens by their codes.
struct Points<'a> {
    spec: &'a VocabularySpec,
    records: &'a [u8],
}

impl Points<'_> {
    fn record(&self, token: u32) -> &[u8] {
        let stride = self.spec.stride();
        &self.records[token as usize * stride..][..stride]
    }

    /// The mean of some tokens: y, and `<m, x>`.
    fn mean(&self, tokens: &[u32]) -> (Vec<f32>, f32) {
        let parts = self.spec.sizes.len();
        let mut counts = vec![0u32; parts * CENTROIDS];
        let mut offset = 0.0f64;
        for token in tokens {
            let record = self.record(*token);
            for part in 0..parts {
                counts[part * CENTROIDS + usize::from(part_of(record, part))] += 1;
            }
            offset += f64::from(offset_of(record));
        }
        let share = 1.0 / tokens.len() as f32;
        let mut y = Vec::with_capacity(self.spec.dim());
        let mut centroids = self.spec.centroids.as_chunks::<CENTROIDS>().0.iter();
        for (size, counts) in self.spec.sizes.iter().zip(counts.chunks_exact(CENTROIDS)) {
            for coordinates in centroids.by_ref().take(usize::from(*size)) {
                let sum: f32 = coordinates.iter().zip(counts).map(|(x, n)| x * *n as f32).sum();
                y.push(sum * share);
            }
        }
        (y, (offset * f64::from(share)) as f32)
    }

    /// Orders tokens so that each 16 in a row are alike.
    fn part(&self, tokens: &mut [u32], seed: u64) {
        let blocks = tokens.len().div_ceil(BLOCK_ROWS);
        if blocks <= 1 {
            return;
        }
        let left = blocks / 2 * BLOCK_ROWS;
        self.halve(tokens, left, seed);
        let (first, last) = tokens.split_at_mut(left);
        // The tree numbers its nodes: a seed of its own for each.
        let twice = seed.wrapping_mul(2);
        let seeds = (twice.wrapping_add(1), twice.wrapping_add(2));
        if first.len() > TOGETHER {
            rayon::join(|| self.part(first, seeds.0), || self.part(last, seeds.1));
        } else {
            self.part(first, seeds.0);
            self.part(last, seeds.1);
        }
    }

    /// Puts `left` tokens first that lie on one side of the others.
    fn halve(&self, tokens: &mut [u32], left: usize, seed: u64) {
        let mut random = Seeded::new(seed);
        let first = random.below(tokens.len() as u64);
        let second = (first + 1 + random.below(tokens.len() as u64 - 1)) % tokens.len() as u64;
        let start = |i: u64| self.mean(&[tokens[i as usize]]);
        let mut means = (start(first), start(second));
        let mut positions: Vec<(f32, u32)> = Vec::with_capacity(tokens.len());
        for _ in 0..ROUNDS {
            let ((a, a_offset), (b, b_offset)) = &means;
            let line: Vec<f32> = b.iter().zip(a).map(|(b, a)| b - a).collect();
            let table = self.products(&line);
            positions.clear();
            positions.extend(tokens.iter().map(|token| {
                let record = self.record(*token);
                let entry = |(part, entries): (usize, &[f32; CENTROIDS])| {
                    entries[usize::from(part_of(record, part))]
                };
                let along: f32 = table.iter().enumerate().map(entry).sum();
                (along + (b_offset - a_offset) * offset_of(record), *token)
            }));
            positions.select_nth_unstable_by(left, |x, y| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1)));
            positions[..left].sort_unstable_by_key(|position| position.1);
            positions[left..].sort_unstable_by_key(|position| position.1);
            let before = tokens.to_vec();
            tokens.iter_mut().zip(&positions).for_each(|(to, position)| *to = position.1);
            if before == tokens {
                break;
            }
            means = (self.mean(&tokens[..left]), self.mean(&tokens[left..]));
        }
    }

    /// What each centroid of each group is along a line: `[groups x 16]`.
    fn products(&self, line: &[f32]) -> Vec<[f32; CENTROIDS]> {
        let centroids = self.spec.centroids.as_chunks::<CENTROIDS>().0;
        let mut each = line.iter().zip(centroids);
        let of = |size: &u16| {
            let mut entries = [0.0; CENTROIDS];
            for (x, coordinates) in each.by_ref().take(usize::from(*size)) {
                let pairs = entries.iter_mut().zip(coordinates);
                pairs.for_each(|(entry, y)| *entry += x * y);
            }
            entries
        };
        self.spec.sizes.iter().map(of).collect()
    }
}

impl VocabularySpec {
    /// q of hidden states, `[n x dim]`.
    fn queries(&self, hidden: &Rows) -> Vec<f32> {
        let dim = self.dim();
        let bits = self.to_query.iter().map(|bits| half::bf16::from_bits(*bits).to_f32());
        let to_query: Vec<f32> = bits.collect();
        let mut queries = vec![0.0; hidden.len() * dim];
        queries.par_chunks_mut(AT_ONCE * dim).enumerate().for_each(|(i, q)| {
            let mut centred = vec![0.0; q.len()];
            widen(hidden, i * AT_ONCE, &mut centred);
            for state in centred.chunks_exact_mut(dim) {
                state.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x -= mean);
            }
            transform(&to_query, &centred, q);
        });
        queries
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::Values;

    use super::super::{
        ScanPoint, Threshold, TokenScores, Vocabulary, encode_rows, learn, put_clusters,
    };
    use super::*;

    const DIM: usize = 24;

    /// Vectors around a few centres, as a head's rows are; and hidden states.
    fn made(n: usize, seed: u64) -> (Rows, Rows) {
        let mut random = Seeded::new(seed);
        let centres: Vec<f32> = (0..12 * DIM).map(|_| 2.0 * random.gaussian()).collect();
        let mut values = Vec::new();
        for i in 0..n {
            let centre = &centres[i % 12 * DIM..][..DIM];
            values.extend(centre.iter().map(|x| x + 0.5 * random.gaussian()));
        }
        let hidden = (0..2000 * DIM).map(|_| random.gaussian()).collect();
        let rows = |values| Rows::new(DIM, Values::F32(values)).unwrap();
        (rows(values), rows(hidden))
    }

    fn clustered(rows: &Rows, hidden: &Rows) -> (Learned, Vec<u8>) {
        let mut learned = learn(rows, hidden, 3);
        let stride = learned.spec.stride();
        let mut records = vec![0; rows.len() * stride];
        encode_rows(&learned, rows, &mut records);
        let mut clustering = Clustering::new(&learned, &records, hidden, 3);
        let mut seen = clustering.order().to_vec();
        let gathered = seen.iter().flat_map(|token| {
            let mut wide = vec![0.0; DIM];
            rows.row(*token as usize).widen_into(&mut wide);
            wide
        });
        let gathered = Rows::new(DIM, Values::F32(gathered.collect())).unwrap();
        clustering.fit(&gathered);
        seen.sort_unstable();
        assert_eq!(seen, (0..rows.len() as u32).collect::<Vec<_>>(), "each token once");
        let (centroids, clusters, cluster_of) = clustering.finish(3);
        (learned.spec.cluster_centroids, learned.spec.clusters) = (centroids, clusters);
        put_clusters(&learned.spec, &mut records, &cluster_of);
        (learned, records)
    }

    #[test]
    fn a_fifth_of_the_clusters_holds_nearly_all_of_the_best_tokens() {
        let (rows, hidden) = made(1000, 1);
        let (learned, records) = clustered(&rows, &hidden);
        assert!(learned.spec.is_sound(DIM));
        let vocabulary = Vocabulary::arrange(learned.spec, &records).unwrap();
        let mut scores = TokenScores::default();
        let mut deficits = Vec::new();
        for state in 0..100 {
            scores.deficits(
                &vocabulary,
                hidden.row(state),
                (Threshold::of(10, 0.0), &mut deficits),
            );
        }
        deficits.sort_by(f32::total_cmp);
        let threshold = Threshold::of(10, deficits[deficits.len() / 5]);
        let (mut scanned, mut found) = (0, 0);
        for state in 0..100 {
            scores.score(&vocabulary, hidden.row(state), threshold);
            scanned += scores.scores().len();
            let some: Vec<u32> = scores
                .best(Some(&vocabulary), 1000, u64::from)
                .to_vec()
                .into_iter()
                .map(|(_, id)| id)
                .collect();
            let mut logits: Vec<(f32, u32)> = (0..1000)
                .map(|token| {
                    let (mut x, mut h) = (vec![0.0; DIM], vec![0.0; DIM]);
                    rows.row(token).widen_into(&mut x);
                    hidden.row(state).widen_into(&mut h);
                    (float::dot(&x, &h), token as u32)
                })
                .collect();
            logits.sort_by(|a, b| b.0.total_cmp(&a.0));
            found += logits[..10].iter().filter(|(_, token)| some.contains(token)).count();
        }
        assert!((19_000..23_000).contains(&scanned), "{scanned} of 100,000");
        assert!(found >= 950, "{found} of 1,000");
    }

    #[test]
    fn numbers_that_cannot_be_are_seen() {
        let (rows, hidden) = made(40, 2);
        let spec = clustered(&rows, &hidden).0.spec;
        let point = ScanPoint { k: 1, margin: 0.5, share: 0.2, rerank_size: 3, precision: 0.9 };
        let told = |change: &dyn Fn(&mut VocabularySpec)| {
            let mut spec = VocabularySpec { points: vec![point], ..spec.clone() };
            change(&mut spec);
            spec.is_sound(DIM)
        };
        assert!(told(&|_| ()));
        assert!(!told(&|spec| spec.points[0].margin = f32::NAN));
        assert!(!told(&|spec| spec.points[0].margin = f32::INFINITY), "all, and a share of them");
        assert!(!told(&|spec| spec.points[0].share = 1.0), "a margin, and all");
        assert!(!told(&|spec| spec.cluster_centroids.truncate(5)));
        assert!(!told(&|spec| spec.cluster_centroids[7] = f32::INFINITY));
        assert!(!told(&|spec| spec.clusters.truncate(9)));
        assert!(!told(&|spec| spec.sizes.fill(u16::MAX)));
        assert!(!told(&|spec| spec.clusters.clear()));
    }

    #[test]
    fn clusters_that_are_no_blocks_are_seen() {
        let (rows, hidden) = made(40, 2);
        let (learned, mut records) = clustered(&rows, &hidden);
        let (spec, stride) = (&learned.spec, learned.spec.stride());
        assert_eq!(spec.cluster_count(), 3);
        assert_eq!(Vocabulary::first_unsound(spec, &records), None);
        let cluster = |i: usize, records: &mut [u8], cluster: u16| {
            records[(i + 1) * stride - 2..][..2].copy_from_slice(&cluster.to_le_bytes());
        };
        let sound = records.clone();
        cluster(7, &mut records, 3);
        assert_eq!(Vocabulary::first_unsound(spec, &records), Some(7), "there are three");
        records = sound;
        (0..17).for_each(|i| cluster(i, &mut records, 0));
        assert_eq!(Vocabulary::first_unsound(spec, &records), Some(16), "sixteen at most");
    }
}
