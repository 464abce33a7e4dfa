//! A softmax head in few bits: hidden state -> an estimated logit of every token.
//!
//! A token is a row x, a hidden state h, the logit `<h, x>`. What an error in x does to a logit
//! depends on where hidden states point, so codes are measured in the metric of the hidden states:
//! with their mean m and covariance `C = V diag(v) V'`,
//!
//! ```text
//! <h, x> = <m, x> + <q, y>,   q = diag(v)^-1/2 V' (h - m),   y = diag(v)^1/2 V' x
//! ```
//!
//! `|y - z|^2` is then the mean squared difference of the logits of two rows. `<m, x>` is kept as
//! it is, y as a product code (Jégou et al., TPAMI 2011): its coordinates in groups, each group's
//! part of y as one of 16 centroids. Groups are dealt out so that the products of their variances
//! match (optimized product quantization, Ge et al., TPAMI 2014): a coordinate that varies much
//! has a group of its own, and many that vary little share one.
//!
//! Tokens lie in clusters of 16 that are alike. A cluster has a code of half a token's bytes for a
//! predictor of its best logit, fitted to sample hidden states: only clusters that may hold one of
//! the best tokens need be scanned (learning which part of a vocabulary to look at: L2S, Chen et
//! al., ICLR 2019).
//!
//! | file | question it answers |
//! |---|---|
//! | `mapping` | where hidden states point, and how rows and states are transformed |
//! | `groups` | which coordinates share a code, and its centroids |
//! | `clusters` | which tokens are alike, and what their best logit will be |
//! | `encode` | a row -> its record |
//! | `layout` | records -> memory that is scanned in order |
//! | `score` | a hidden state -> estimated logits, and the best of them |

mod clusters;
mod encode;
mod groups;
mod layout;
mod mapping;
mod score;

pub(crate) use clusters::Clustering;
pub(crate) use encode::{encode_rows, put_clusters};
pub(crate) use layout::Vocabulary;
pub(crate) use score::{Threshold, TokenScores};

use foveal_datasets::Rows;
use half::bf16;

use crate::kernel::lookup::{BLOCK_ROWS, LINE_PARTS};
use groups::CENTROIDS;
use mapping::Mapping;

/// Tokens of a cluster: a block of codes.
pub(crate) const CLUSTER: usize = BLOCK_ROWS;
/// Coordinates a group, on average.
const COORDINATES_A_PART: usize = 4;
/// What looking closer at a candidate costs, in codes scanned: cache misses against a stream.
const CANDIDATE: f64 = 30.0;
/// Rows so many times as long as half of them are not learned from.
const ODD: f32 = 4.0;
/// Most groups.
const MAX_PARTS: usize = 256;

/// What was learned of a head, as plain fields: what `meta.rkyv` keeps.
#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct VocabularySpec {
    /// Sample hidden states behind it.
    pub(crate) learned: u32,
    /// `[dim]`: m.
    pub(crate) mean: Vec<f32>,
    /// `[dim x dim]` of bf16: row i is what coordinate i of `h - m` adds to q. The coordinates of q
    /// are in the order of the groups.
    pub(crate) to_query: Vec<u16>,
    /// Coordinates of each group; a multiple of 8 of them, the last ones may be empty.
    pub(crate) sizes: Vec<u16>,
    /// `[dim x 16]`: coordinate i of the centroids of its group.
    pub(crate) centroids: Vec<f32>,
    /// `[dim x 16]`: the same for clusters, whose groups are two of those each.
    pub(crate) cluster_centroids: Vec<f32>,
    /// `[clusters x cluster_stride]`: four bits a group of the predictor of a cluster's best logit,
    /// then its mean over the sample hidden states as f32.
    pub(crate) clusters: Vec<u8>,
    /// What scanning and ranking so much finds.
    pub(crate) points: Vec<ScanPoint>,
}

/// What scanning a share of the tokens, and looking closer at the best estimates, finds.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub(crate) struct ScanPoint {
    /// Tokens wanted.
    pub(crate) k: u32,
    /// Clusters are scanned whose prediction is at most this much below that of the cluster of
    /// rank `(k + 1) / 2`; infinite where all are.
    pub(crate) margin: f32,
    /// The mean share of the clusters that is, above 0 to 1.
    pub(crate) share: f64,
    /// Candidates taken of them, by estimate.
    pub(crate) rerank_size: u32,
    /// The mean share of the true k best tokens that are found, over sample hidden states that
    /// nothing but margins was learned from.
    pub(crate) precision: f64,
}

/// How a vocabulary is learned, before any row has a code.
pub(crate) struct Learned {
    pub(crate) spec: VocabularySpec,
    /// `[dim x dim]`: row i is what coordinate i of x adds to y.
    to_row: Vec<f32>,
}

/// Learns the codes of rows of which `sample` (`[n x dim]`) is a part, for hidden states like
/// `hidden` (`[m x dim]`); clusters are yet to come. `O((n + m + dim) dim^2)`.
pub(crate) fn learn(sample: &Rows, hidden: &Rows, seed: u64) -> Learned {
    let dim = sample.dim();
    let mapping = Mapping::of_states(hidden, sample);
    let mapped = without_odd(mapping.rows(sample), dim);
    let (order, sizes) = groups::deal(&mapped, dim, parts_of(dim));
    let mapping = mapping.in_order(&order);
    let unordered = mapped;
    let mapped = groups::columns(&unordered, dim, &order);
    drop(unordered);
    let centroids = groups::centroids(&mapped, dim, &sizes, seed);
    let Mapping { mean, to_query, to_row } = mapping;
    let spec = VocabularySpec {
        learned: hidden.len() as u32,
        mean,
        to_query: to_query.into_iter().map(|x| bf16::from_f32(x).to_bits()).collect(),
        sizes,
        centroids,
        cluster_centroids: Vec::new(),
        clusters: Vec::new(),
        points: Vec::new(),
    };
    Learned { spec, to_row }
}

/// The rows of `mapped` (`[n x dim]`) but for those far longer than most, about their mean: few
/// centroids and one unit for all tables would serve them alone. They are looked up instead.
fn without_odd(mut mapped: Vec<f32>, dim: usize) -> Vec<f32> {
    // Of the middle by each coordinate: long rows do not move it.
    let n = mapped.len() / dim;
    let middle = |i: usize| {
        let mut column: Vec<f32> = mapped.iter().skip(i).step_by(dim).copied().collect();
        *column.select_nth_unstable_by(n / 2, f32::total_cmp).1
    };
    let centre: Vec<f32> = (0..dim).map(middle).collect();
    let square = |y: &[f32]| -> f32 { y.iter().zip(&centre).map(|(y, c)| (y - c) * (y - c)).sum() };
    let squares: Vec<f32> = mapped.chunks_exact(dim).map(square).collect();
    let median = *squares.clone().select_nth_unstable_by(n / 2, f32::total_cmp).1;
    let most = ODD * ODD * median;
    if squares.iter().all(|square| *square <= most) {
        return mapped;
    }
    let mut kept = 0;
    for (i, square) in squares.iter().enumerate() {
        if *square <= most {
            mapped.copy_within(i * dim..(i + 1) * dim, kept * dim);
            kept += 1;
        }
    }
    mapped.truncate(kept * dim);
    mapped
}

/// Groups of a code: a multiple of what a line of codes holds.
fn parts_of(dim: usize) -> usize {
    (dim / COORDINATES_A_PART).next_multiple_of(LINE_PARTS).clamp(LINE_PARTS, MAX_PARTS)
}

impl VocabularySpec {
    pub(crate) fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Bytes of a record: four bits a group, then `<m, x>` as f32 and the cluster as u16.
    pub(crate) fn stride(&self) -> usize {
        self.sizes.len() / 2 + encode::TAIL
    }

    /// Bytes of a record of a cluster: four bits a group, then an f32.
    fn cluster_stride(&self) -> usize {
        groups::pairs_of(&self.sizes).len() / 2 + encode::OFFSET
    }

    fn cluster_count(&self) -> usize {
        self.clusters.len() / self.cluster_stride()
    }

    /// Which tokens to scan, what share of all they are on average, and the number of rows to rank
    /// exactly for `k` of `tokens` tokens at a mean precision: what reached it on sample hidden
    /// states at the least price; else the most that was tried. `whole`: all are scanned in any
    /// case.
    pub(crate) fn effort(
        &self,
        (k, precision): (u32, f64),
        whole: bool,
        tokens: usize,
    ) -> (Threshold, f64, u32) {
        let largest = self.points.iter().map(|point| point.k).max().unwrap_or(k);
        let known = self.points.iter().map(|point| point.k).filter(|known| *known >= k).min();
        let known = known.unwrap_or(largest);
        let of_k = || {
            let points = self.points.iter().filter(|point| point.k == known);
            points.filter(|point| !whole || point.share >= 1.0)
        };
        let price = |point: &ScanPoint| {
            point.share * tokens as f64 + CANDIDATE * f64::from(point.rerank_size)
        };
        let enough = of_k().filter(|point| point.precision >= precision);
        let cheapest = enough.min_by(|a, b| price(a).total_cmp(&price(b)));
        let best = || {
            of_k().max_by(|a, b| {
                a.precision.total_cmp(&b.precision).then(price(b).total_cmp(&price(a)))
            })
        };
        let Some(point) = cheapest.or_else(best) else { return (Threshold::ALL, 1.0, k) };
        // Beyond what was tried, in proportion.
        let size = u64::from(point.rerank_size) * u64::from(k.max(known)) / u64::from(known);
        let size = size.min(u64::from(crate::params::MAX_LIST_SIZE)) as u32;
        match k > known {
            true => (Threshold::ALL, 1.0, size),
            false => (Threshold::of(known, point.margin), point.share, size),
        }
    }

    /// Whether every number is one that `learn` may have written for vectors of `dim`.
    pub(crate) fn is_sound(&self, dim: usize) -> bool {
        let sizes = self.sizes.iter().map(|size| usize::from(*size)).sum::<usize>();
        let finite = |numbers: &[f32]| numbers.iter().all(|x| x.is_finite());
        let points = self.points.iter().all(|point| {
            let k = point.k > 0 && point.k <= point.rerank_size;
            let share = point.share > 0.0 && point.share <= 1.0 && point.margin >= 0.0;
            let share = share && (point.share >= 1.0) == point.margin.is_infinite();
            k && share && (0.0..=1.0).contains(&point.precision)
        });
        let matrix = self.to_query.iter().all(|bits| bf16::from_bits(*bits).is_finite());
        if (sizes, self.sizes.len()) != (dim, parts_of(dim)) {
            return false;
        }
        let stride = self.cluster_stride();
        let records = self.clusters.chunks_exact(stride);
        let count = records.len();
        self.mean.len() == dim
            && self.to_query.len() == dim * dim
            && (self.centroids.len(), self.cluster_centroids.len())
                == (dim * CENTROIDS, dim * CENTROIDS)
            && (1..=clusters::MOST).contains(&count)
            && self.clusters.len() == count * stride
            && records.into_iter().all(|record| encode::cluster_offset(record).is_finite())
            && matrix
            && finite(&self.mean)
            && finite(&self.centroids)
            && finite(&self.cluster_centroids)
            && points
    }
}
