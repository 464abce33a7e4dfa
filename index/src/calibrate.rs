//! Which list size reaches which recall, measured at the end of a build.
//!
//! Queries are the rows that are inserted last, searched for before they are: the graph has grown
//! without them. Or they are sample queries given with the build, searched for in the whole graph,
//! which tell more where queries are unlike the rows.
//!
//! What is counted is whether the true nearest rows are among the candidates that fullview reads
//! when the walk ends: those are ranked exactly. Everything here is an integer, f32 in a fixed
//! order or double precision in a fixed order: the same on every machine.

mod bound;
mod truth;

use std::collections::HashSet;

use foveal_datasets::{FileError, Metric, Row, RowSource, Rows};
use rayon::prelude::*;

use crate::calibrate::truth::truth_of;
use crate::exact::ExactError;
use crate::graph::entry_points_of;
use crate::neighbor::Candidate;
use crate::params::{ParamsError, SCANNED_ROWS, SearchParams, out_of_range};
use crate::preview::{Preview, PreviewSlot};
use crate::stats::Job;

/// Queries, if there are rows enough and not so many that their truth would take too long.
const QUERIES: usize = 1000;
/// Queries that measure the stop radii.
const STOP_RADIUS_QUERIES: usize = 200;
/// At most this part of the rows is inserted last.
const HELD_OUT_PART: usize = 10;
/// Most multiplications of the search for the truth.
const TRUTH_PRODUCTS: u64 = 400_000_000_000;
/// True neighbors of a query that are known; some more than `KS` needs, because of ties.
const KNOWN: usize = 160;
/// Numbers of results that are looked at.
pub(crate) const KS: [u32; 6] = [1, 5, 10, 20, 50, 100];
/// List sizes, in steps of about a quarter.
pub(crate) const LIST_SIZES: [u32; 25] = [
    10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1024,
    1280, 1600, 2048, 2560,
];
/// Larger list sizes are not tried once this share of the nearest is proposed for the largest k.
const ENOUGH: f64 = 0.9995;

/// The recall of list sizes: the cheapest first for each k.
#[derive(Clone, Debug, Default, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Frontier {
    /// Queries behind every point; 0 where so few rows leave nothing to measure.
    pub queries: u32,
    /// Whether they were sample queries, not rows.
    pub learned: bool,
    /// By k, then by list size.
    pub points: Vec<FrontierPoint>,
    /// The radius at which walks stop, by list size.
    pub stop_radii: Vec<StopRadius>,
}

/// The radius at which a walk of a list size stops.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct StopRadius {
    /// Effort.
    pub list_size: u32,
    /// The squared distance of the candidate of that rank over that of the tenth, in the space that
    /// is walked: the median over some queries.
    pub factor: f64,
}

/// The recall of one list size for one k.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct FrontierPoint {
    /// Results wanted.
    pub k: u32,
    /// Effort.
    pub list_size: u32,
    /// Mean recall over the queries.
    pub recall: f64,
    /// What the mean recall of other such queries is above, with 95 % confidence; 0 where one query
    /// tells nothing of others.
    pub lower: f64,
    /// Mean preview distances of a query.
    pub distances: f64,
}

impl Frontier {
    /// The parameters for `k` results at a recall of `target`, and the recall to expect of them:
    /// of the list sizes whose 95 % lower bound reaches the target, the cheapest. If the queries
    /// are too few to prove so much, the cheapest one that missed half of what the target allows;
    /// if none did, the one with the highest recall.
    ///
    /// # Errors
    /// `k` of 0 or above 100; a target that is no share; an index without a frontier.
    pub fn choose(&self, k: u32, target: f64) -> Result<(SearchParams, f64), ParamsError> {
        if !(0.0..1.0).contains(&target) {
            return Err(out_of_range("target_recall", target, "0 to below 1"));
        }
        let most = KS[KS.len() - 1];
        let Some(known) = KS.into_iter().find(|known| *known >= k && k > 0) else {
            let wanted = format!("1 to {most} with a target recall");
            return Err(out_of_range("k", k, wanted));
        };
        let points = || self.points.iter().filter(|point| point.k == known);
        // Of equals the first, which is the cheapest.
        let best = || points().reduce(|a, b| if b.recall > a.recall { b } else { a });
        let half = || points().find(|point| 1.0 - point.recall <= 0.5 * (1.0 - target));
        let reached = points().find(|point| point.lower >= target);
        let Some(point) = reached.or_else(half).or_else(best) else {
            return Err(out_of_range("target_recall", target, "none: k is beyond the lists tried"));
        };
        Ok((SearchParams::with_list_size(k, point.list_size), point.recall))
    }

    /// The stop radius of a walk of `list_size`, interpolated between list sizes; none beyond the
    /// list sizes tried: such a walk ends when its candidates do.
    pub(crate) fn stop_radius(&self, list_size: u32) -> Option<f64> {
        let at = self.stop_radii.partition_point(|radius| radius.list_size < list_size);
        let upper = self.stop_radii.get(at)?;
        let Some(lower) = at.checked_sub(1).map(|at| self.stop_radii[at]) else {
            return (upper.list_size == list_size).then_some(upper.factor);
        };
        let [from, to, here] = [lower.list_size, upper.list_size, list_size].map(f64::from);
        let share = (here - from) / (to - from);
        Some(lower.factor + share * (upper.factor - lower.factor))
    }

    /// The frontier of so few rows that every walk with a pool for all of them meets them all.
    fn of_everything(n: u32) -> Frontier {
        let points = KS.into_iter().map(|k| FrontierPoint {
            k,
            list_size: n.max(k),
            recall: 1.0,
            lower: 1.0,
            distances: f64::from(n),
        });
        let (points, stop_radii) = (points.collect(), Vec::new());
        Frontier { queries: 0, learned: false, points, stop_radii }
    }

    /// Whether every number is one that `calibrate` may have written.
    pub(crate) fn is_sound(&self) -> bool {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let sorted = self.stop_radii.is_sorted_by(|a, b| a.list_size < b.list_size);
        let known =
            self.stop_radii.iter().all(|radius| radius.list_size > 0 && radius.factor >= 1.0);
        sorted
            && known
            && self.points.iter().all(|point| {
                let FrontierPoint { k, list_size, recall, lower, distances } = *point;
                let sizes = (1..=crate::params::MAX_LIST_SIZE).contains(&list_size);
                let known = KS.contains(&k) && k <= list_size;
                known && sizes && share(recall) && lower <= recall && distances.is_finite()
            })
    }
}

/// How many of `n` rows to insert last, so that they can be searched for before.
pub(crate) fn held_out(n: usize, dim: usize) -> usize {
    if n as u64 <= SCANNED_ROWS {
        // Never walked.
        return 0;
    }
    let later = n - entry_points_of(n as u32) as usize;
    queries_for(n, dim).min(later / HELD_OUT_PART)
}

fn queries_for(n: usize, dim: usize) -> usize {
    let affordable = TRUTH_PRODUCTS / (n as u64 * dim as u64);
    QUERIES.min((affordable as usize).max(16))
}

/// What is calibrated.
pub(crate) struct Subject<'a> {
    /// Codes of all rows, and a graph of those not held out; of all where there are sample
    /// queries.
    pub(crate) preview: &'a Preview,
    /// `[n]`: the row of the base file that each id stands for.
    pub(crate) rows: &'a [u32],
    /// How many of the last of them are not in the graph yet, the extreme ones aside.
    pub(crate) held_out: usize,
    pub(crate) base: &'a dyn RowSource,
    /// Sample queries, if there are any.
    pub(crate) learn: Option<&'a dyn RowSource>,
    pub(crate) metric: Metric,
    pub(crate) seed: u64,
    /// Threads that look for the truth; walks run on the caller's pool.
    pub(crate) threads: usize,
}

impl Subject<'_> {
    /// The rows in the graph, and those that are held out.
    fn grown_and_held_out(&self) -> (&[u32], &[u32]) {
        let rows = &self.rows[..self.preview.extremes.first() as usize];
        rows.split_at(rows.len() - self.held_out)
    }
}

/// Measures the frontier.
///
/// # Errors
/// A file cannot be read; sample queries that an index cannot answer; an interrupt.
pub(crate) fn calibrate(subject: &Subject<'_>, job: Job<'_>) -> Result<Frontier, ExactError> {
    let n = subject.rows.len();
    let (grown, held_out) = subject.grown_and_held_out();
    let queries = match subject.learn {
        Some(learn) => learn.sample(queries_for(n, subject.base.dim()), subject.seed)?.1,
        None if held_out.is_empty() => return Ok(Frontier::of_everything(n as u32)),
        None => gather(subject.base, held_out)?,
    };
    let is_repeated = repeated(&queries);
    let truth = truth_of(subject, &queries, job)?;
    let samples = truth.into_iter().enumerate();
    let samples: Vec<SampleQuery<'_>> =
        samples.map(|(q, near)| SampleQuery { query: queries.row(q), near }).collect();
    let mut frontier = Frontier {
        queries: samples.len() as u32,
        learned: subject.learn.is_some(),
        points: Vec::new(),
        stop_radii: stop_radii(subject, &samples[..samples.len().min(STOP_RADIUS_QUERIES)]),
    };
    for (i, list_size) in LIST_SIZES.into_iter().enumerate() {
        job.tell("calibrating", i as u64, LIST_SIZES.len() as u64);
        let counts: Vec<Counts> = samples
            .par_iter()
            .map_init(PreviewSlot::new, |slot, sample| {
                sample.measure(subject, slot, (list_size, frontier.stop_radius(list_size)))
            })
            .collect::<Result<_, _>>()?;
        if job.interrupted() {
            return Err(ExactError::Interrupted);
        }
        let points = KS.into_iter().enumerate().filter(|(_, k)| *k <= list_size);
        let queries = || counts.iter().zip(&is_repeated);
        frontier.points.extend(points.map(|(at, k)| point((k, list_size), at, queries)));
        let proposed = counts.iter().map(|counts| share(counts.proposed)).sum::<f64>();
        let all_found = proposed >= ENOUGH * counts.len() as f64;
        if list_size as usize >= grown.len() || all_found {
            break;
        }
    }
    frontier.points.sort_by_key(|point| (point.k, point.list_size));
    Ok(frontier)
}

/// The stop radii of walks with a pool of just `list_size` candidates.
fn stop_radii(subject: &Subject<'_>, samples: &[SampleQuery<'_>]) -> Vec<StopRadius> {
    let grown = subject.grown_and_held_out().0.len() as u32;
    let of = |list_size: u32| {
        let factors: Vec<Option<f64>> = samples
            .par_iter()
            .map_init(PreviewSlot::new, |slot, sample| {
                subject.preview.begin(slot, sample.query, (list_size, 1), None);
                while subject.preview.step(slot) {}
                slot.stop_radius(list_size)
            })
            .collect();
        // The median: where a query lies among copies, its nearest at next to no distance, its
        // factor is a thousand times that of others.
        let mut known: Vec<f64> = factors.into_iter().flatten().collect();
        known.sort_unstable_by(f64::total_cmp);
        let factor = *known.get(known.len() / 2)?;
        (factor >= 1.0 && factor.is_finite()).then_some(StopRadius { list_size, factor })
    };
    // List sizes above the first without a stop radius have none.
    LIST_SIZES.into_iter().take_while(|size| *size < grown).map_while(of).collect()
}

/// Rows of the base file in the order of `rows`.
pub(crate) fn gather(base: &dyn RowSource, rows: &[u32]) -> Result<Rows, FileError> {
    base.read_each(&rows.iter().map(|row| *row as usize).collect::<Vec<usize>>())
}

/// A query and what is truly near to it.
struct SampleQuery<'a> {
    query: Row<'a>,
    /// Nearest first: distances, and the ids at them.
    near: Vec<(f64, u32)>,
}

/// What one query found with one list size.
struct Counts {
    /// For each of `KS`: how many of the true nearest are found, and how many there are.
    hits: [(u32, u32); KS.len()],
    /// Of the last of `KS`: those that are candidates, read or not.
    proposed: (u32, u32),
    /// Preview distances of the walk for each of `KS`.
    distances: [u64; KS.len()],
}

impl SampleQuery<'_> {
    /// Walks for every k as a search for it does.
    fn measure(
        &self,
        subject: &Subject<'_>,
        slot: &mut PreviewSlot,
        (list_size, stop_radius): (u32, Option<f64>),
    ) -> Result<Counts, FileError> {
        let mut counts =
            Counts { hits: [(0, 0); KS.len()], proposed: (0, 1), distances: [0; KS.len()] };
        // A walk goes to half of its list size in any case, and to k: of less it is the same.
        let mut walked_for = 0;
        for (at, k) in KS.into_iter().enumerate().take_while(|(_, k)| *k <= list_size) {
            let least = k.max(list_size / 2);
            if walked_for != least {
                walked_for = least;
                subject.preview.begin(slot, self.query, (list_size, k), stop_radius);
                while subject.preview.step(slot) {}
                subject.preview.candidates(slot);
            }
            counts.distances[at] = slot.counts().0;
            let most = slot.candidates().len().min(list_size as usize);
            let candidates = &slot.candidates()[..most];
            let read = self.read_by_fullview(candidates, k as usize);
            counts.hits[at] = self.count(subject, read, k as usize)?;
            if at == KS.len() - 1 {
                let all = candidates.iter().map(|found| found.id).collect();
                counts.proposed = self.count(subject, all, k as usize)?;
            }
        }
        Ok(counts)
    }

    /// How many of the `k` nearest are among `ids`, and how many there are.
    fn count(
        &self,
        subject: &Subject<'_>,
        mut ids: Vec<u32>,
        k: usize,
    ) -> Result<(u32, u32), FileError> {
        ids.sort_unstable();
        let wanted = self.near.len().min(k);
        let limit = subject.metric.tie_limit(self.near[wanted - 1].0);
        let ties = self.near.iter().filter(|(distance, _)| *distance <= limit);
        let mut counted = ties.clone().filter(|(_, id)| ids.binary_search(id).is_ok()).count();
        // More ties than are known: those that were read are compared one by one.
        if counted < wanted && ties.count() == KNOWN {
            counted += self.unknown_ties(subject, &ids, limit)?;
        }
        Ok((counted.min(wanted) as u32, wanted as u32))
    }

    /// The ids that fullview reads of the candidates of a walk, those of shared blocks left out:
    /// the ones whose likely bound reaches the k-th estimate, then those that reach the k-th exact
    /// distance. Where the k-th is not among the known ones, the last known one stands for it,
    /// which is not above it: some rows too few.
    fn read_by_fullview(&self, candidates: &[Candidate], k: usize) -> Vec<u32> {
        let id_of = |candidate: &Candidate| candidate.id;
        let farthest = candidates.get(k - 1).map_or(f32::INFINITY, |last| last.estimate);
        let is_within = |candidate: &Candidate, limit: f32| {
            let is_beyond = candidate.likely_bound() > limit;
            !is_beyond
        };
        let first = candidates.iter().filter(|candidate| is_within(candidate, farthest));
        let read: HashSet<u32> = first.map(id_of).collect();
        let known = self.near.iter().filter(|(_, id)| read.contains(id));
        let known = known.map(|(distance, _)| *distance).nth(k - 1);
        let last = known.unwrap_or(self.near[self.near.len() - 1].0) as f32;
        let limit = farthest.max(last);
        candidates.iter().filter(|candidate| is_within(candidate, limit)).map(id_of).collect()
    }

    /// How many of `ids` are no farther than `limit` and not among those known to be near.
    fn unknown_ties(
        &self,
        subject: &Subject<'_>,
        ids: &[u32],
        limit: f64,
    ) -> Result<usize, FileError> {
        let mut count = 0;
        for id in ids.iter().filter(|id| !self.near.iter().any(|near| near.1 == **id)) {
            let row = subject.rows[*id as usize] as usize;
            let near = subject.base.read(row..row + 1)?;
            count += usize::from(subject.metric.plain_distance(self.query, near.row(0)) <= limit);
        }
        Ok(count)
    }
}

/// Of each query, whether it is a copy of one before: it tells nothing new of others.
fn repeated(queries: &Rows) -> Vec<bool> {
    let mut seen = HashSet::new();
    let rows = queries.values().bytes().chunks_exact(queries.row_bytes());
    rows.map(|row| !seen.insert(row)).collect()
}

fn share((hits, wanted): (u32, u32)) -> f64 {
    f64::from(hits) / f64::from(wanted)
}

/// Means over the queries, each with whether it is a copy, for the `at`-th of `KS`.
fn point<'a, I>((k, list_size): (u32, u32), at: usize, queries: impl Fn() -> I) -> FrontierPoint
where
    I: Iterator<Item = (&'a Counts, &'a bool)>,
{
    let n = queries().count() as f64;
    let recall = queries().map(|(counts, _)| share(counts.hits[at])).sum::<f64>() / n;
    let once = queries().filter(|(_, is_repeated)| !**is_repeated);
    let lower = bound::lower_bound(once.map(|(counts, _)| counts.hits[at])).min(recall);
    let distances = queries().map(|(counts, _)| counts.distances[at]).sum::<u64>();
    FrontierPoint { k, list_size, recall, lower, distances: distances as f64 / n }
}
