//! Which list size reaches which recall, measured at the end of a build.
//!
//! Queries are the rows that are inserted last, asked before they are: the graph has grown without
//! them. Or they are sample queries given with the build, which tell more where queries are unlike
//! the rows.
//!
//! What is counted is whether the true nearest rows are in the candidate pool when the walk ends:
//! fullview ranks the pool exactly, so that they are then in the answer. Everything here is an
//! integer or double precision in a fixed order: the same on every machine.

use foveal_datasets::{FileError, Metric, Row, Rows, Values, VectorFile};
use rayon::prelude::*;

use crate::exact::{self, ExactAsk, ExactError};
use crate::graph::entry_points_of;
use crate::params::{ParamsError, SearchParams, out_of_range};
use crate::preview::{Preview, PreviewSlot};
use crate::stats::Job;

/// Queries, if there are rows enough and not so many that their truth would take too long.
const QUERIES: usize = 1000;
/// Queries that tell how far walks go.
const REACH_QUERIES: usize = 200;
/// At most this part of the rows is inserted last.
const HELD_OUT_PART: usize = 10;
/// Most multiplications of the search for the truth.
const TRUTH_PRODUCTS: u64 = 400_000_000_000;
/// True neighbors of a query that are known; some more than `KS` asks for, because of ties.
const KNOWN: usize = 160;
/// Numbers of results that are looked at.
pub(crate) const KS: [u32; 6] = [1, 5, 10, 20, 50, 100];
/// List sizes, in steps of about a quarter.
pub(crate) const LIST_SIZES: [u32; 25] = [
    10, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400, 512, 640, 800, 1024,
    1280, 1600, 2048, 2560,
];
/// Larger list sizes are not tried once all of these is found.
const ENOUGH: f64 = 0.9995;
/// Standard deviations below the mean that 95 of 100 means stay above.
const ONE_SIDED_95: f64 = 1.645;

/// What list sizes reach: the cheapest first for each k.
#[derive(Clone, Debug, Default, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Frontier {
    /// Queries behind every point; 0 where so few rows leave nothing to measure.
    pub queries: u32,
    /// Whether they were sample queries, not rows.
    pub learned: bool,
    /// By k, then by list size.
    pub points: Vec<FrontierPoint>,
    /// How far walks go, by list size.
    pub reaches: Vec<Reach>,
}

/// How far a walk of a list size goes.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct Reach {
    /// Effort.
    pub list_size: u32,
    /// The squared distance of the candidate of that rank over that of the tenth, in the space that
    /// is walked: the median over some queries.
    pub factor: f32,
}

/// What one list size reaches for one k.
#[derive(Clone, Copy, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct FrontierPoint {
    /// Results wanted.
    pub k: u32,
    /// Effort.
    pub list_size: u32,
    /// Mean recall over the queries.
    pub recall: f64,
    /// What the mean recall of other such queries is above, with 95 % confidence.
    pub lower: f64,
    /// Mean preview distances of a query.
    pub distances: f64,
}

impl Frontier {
    /// The parameters for `k` results at a recall of `target`, and the recall to expect of them:
    /// of the list sizes whose 95 % lower bound reaches the target, the cheapest; if none does,
    /// the one with the highest recall.
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
        let best = || points().max_by(|a, b| a.recall.total_cmp(&b.recall));
        let reached = points().find(|point| point.lower >= target);
        let Some(point) = reached.or_else(best) else {
            return Err(out_of_range("target_recall", target, "none: k is beyond the lists tried"));
        };
        Ok((SearchParams::with_list_size(k, point.list_size), point.recall))
    }

    /// How far a walk of `list_size` goes, interpolated between list sizes; none beyond the list
    /// sizes tried: such a walk ends when its candidates do.
    pub(crate) fn reach(&self, list_size: u32) -> Option<f32> {
        let at = self.reaches.partition_point(|reach| reach.list_size < list_size);
        let upper = self.reaches.get(at)?;
        let Some(lower) = at.checked_sub(1).map(|at| self.reaches[at]) else {
            return (upper.list_size == list_size).then_some(upper.factor);
        };
        let [from, to, here] = [lower.list_size, upper.list_size, list_size].map(f64::from);
        let share = (here - from) / (to - from);
        let (from, to) = (f64::from(lower.factor), f64::from(upper.factor));
        Some((from + share * (to - from)) as f32)
    }

    /// That of so few rows that every walk with room for them all meets them all.
    fn of_everything(n: u32) -> Frontier {
        let points = KS.into_iter().map(|k| FrontierPoint {
            k,
            list_size: n.max(k),
            recall: 1.0,
            lower: 1.0,
            distances: f64::from(n),
        });
        let (points, reaches) = (points.collect(), Vec::new());
        Frontier { queries: 0, learned: false, points, reaches }
    }

    /// Whether every number is one that `calibrate` may have written.
    pub(crate) fn is_sound(&self) -> bool {
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let sorted = self.reaches.is_sorted_by(|a, b| a.list_size < b.list_size);
        let known = self.reaches.iter().all(|reach| reach.list_size > 0 && reach.factor >= 1.0);
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

/// How many of `n` rows to insert last, so that they can be asked before.
pub(crate) fn held_out(n: usize, dim: usize) -> usize {
    let later = n - entry_points_of(n as u32) as usize;
    queries_for(n, dim).min(later / HELD_OUT_PART)
}

fn queries_for(n: usize, dim: usize) -> usize {
    let affordable = TRUTH_PRODUCTS / (n as u64 * dim as u64);
    QUERIES.min((affordable as usize).max(16))
}

/// What is calibrated.
pub(crate) struct Subject<'a> {
    /// Codes of all rows, and a graph of those not held out.
    pub(crate) preview: &'a Preview,
    /// `[n]`: the row of the base file that each id stands for.
    pub(crate) rows: &'a [u32],
    /// How many of the last of them are not in the graph.
    pub(crate) held_out: usize,
    pub(crate) base: &'a VectorFile,
    /// Sample queries, if there are any.
    pub(crate) learn: Option<&'a VectorFile>,
    pub(crate) metric: Metric,
    pub(crate) seed: u64,
    /// Threads that look for the truth; walks run on the caller's pool.
    pub(crate) threads: usize,
}

/// Measures the frontier.
///
/// # Errors
/// A file cannot be read; sample queries that cannot be asked; an interrupt.
pub(crate) fn calibrate(subject: &Subject<'_>, job: Job<'_>) -> Result<Frontier, ExactError> {
    let n = subject.rows.len();
    let (grown, held_out) = subject.rows.split_at(n - subject.held_out);
    let queries = match subject.learn {
        Some(learn) => learn.sample(queries_for(n, subject.base.dim()), subject.seed)?.1,
        None if held_out.is_empty() => return Ok(Frontier::of_everything(n as u32)),
        None => gather(subject.base, held_out)?,
    };
    let truth = truth_of(subject, &queries, job)?;
    let asked = truth.into_iter().enumerate();
    let asked: Vec<Asked<'_>> =
        asked.map(|(q, near)| Asked { query: queries.row(q), near }).collect();
    let mut frontier = Frontier {
        queries: asked.len() as u32,
        learned: subject.learn.is_some(),
        points: Vec::new(),
        reaches: reaches(subject, &asked[..asked.len().min(REACH_QUERIES)]),
    };
    for (i, list_size) in LIST_SIZES.into_iter().enumerate() {
        job.tell("calibrating", i as u64, LIST_SIZES.len() as u64);
        let counts: Vec<Counts> = asked
            .par_iter()
            .map_init(PreviewSlot::new, |slot, asked| {
                asked.ask(subject, slot, (list_size, frontier.reach(list_size)))
            })
            .collect::<Result<_, _>>()?;
        if job.interrupted() {
            return Err(ExactError::Interrupted);
        }
        let points = KS.into_iter().enumerate().filter(|(_, k)| *k <= list_size);
        frontier.points.extend(points.map(|(at, k)| point(k, list_size, &counts, at)));
        let last = frontier.points[frontier.points.len() - 1];
        let all_found = last.k == KS[KS.len() - 1] && last.recall >= ENOUGH;
        if list_size as usize >= grown.len() || all_found {
            break;
        }
    }
    frontier.points.sort_by_key(|point| (point.k, point.list_size));
    Ok(frontier)
}

/// How far walks with room for just `list_size` candidates go.
fn reaches(subject: &Subject<'_>, asked: &[Asked<'_>]) -> Vec<Reach> {
    let grown = (subject.rows.len() - subject.held_out) as u32;
    let of = |list_size: u32| {
        let reaches: Vec<Option<f64>> = asked
            .par_iter()
            .map_init(PreviewSlot::new, |slot, asked| {
                subject.preview.begin(slot, asked.query, (list_size, 1), None);
                while subject.preview.step(slot) {}
                slot.reach(list_size)
            })
            .collect();
        // The median: where a query lies among copies, its nearest at next to no distance, its
        // factor is a thousand times that of others.
        let mut known: Vec<f64> = reaches.into_iter().flatten().collect();
        known.sort_unstable_by(f64::total_cmp);
        let factor = *known.get(known.len() / 2)? as f32;
        (factor >= 1.0 && factor.is_finite()).then_some(Reach { list_size, factor })
    };
    // From the first list size without a reach on there is none.
    LIST_SIZES.into_iter().take_while(|size| *size < grown).map_while(of).collect()
}

/// Rows of the base file in the order of `rows`.
fn gather(base: &VectorFile, rows: &[u32]) -> Result<Rows, FileError> {
    let mut values = Values::zeroed(base.element(), rows.len() * base.dim());
    let places = values.bytes_mut().chunks_exact_mut(base.dim() * base.element().size());
    for (row, place) in rows.iter().zip(places) {
        let row = *row as usize;
        place.copy_from_slice(base.read(row..row + 1)?.values().bytes());
    }
    Ok(Rows::new(base.dim(), values).expect("whole rows of the base's dimension"))
}

/// A query and what is truly near to it.
struct Asked<'a> {
    query: Row<'a>,
    /// Nearest first: distances, and the rows at them.
    near: Vec<(f64, u32)>,
}

/// What one query found with one list size.
struct Counts {
    /// For each of `KS`: how many of the true nearest are in the pool, and how many there are.
    hits: [(u32, u32); KS.len()],
    distances: u32,
}

impl Asked<'_> {
    fn ask(
        &self,
        subject: &Subject<'_>,
        slot: &mut PreviewSlot,
        (list_size, reach): (u32, Option<f32>),
    ) -> Result<Counts, FileError> {
        subject.preview.begin(slot, self.query, (list_size, 1), reach);
        while subject.preview.step(slot) {}
        let distances = slot.counts().0;
        let most = list_size as usize;
        let found = subject.preview.candidates(slot).iter().take(most);
        let mut rows: Vec<u32> = found.map(|found| subject.rows[found.id as usize]).collect();
        rows.sort_unstable();
        let mut hits = [(0, 0); KS.len()];
        for (hits, k) in hits.iter_mut().zip(KS) {
            let wanted = self.near.len().min(k as usize);
            let limit = subject.metric.tie_limit(self.near[wanted - 1].0);
            let ties = self.near.iter().filter(|(distance, _)| *distance <= limit);
            let mut counted =
                ties.clone().filter(|(_, row)| rows.binary_search(row).is_ok()).count();
            // More ties than are known: those of the pool are compared one by one.
            if counted < wanted && ties.count() == KNOWN {
                counted += self.unknown_ties(subject, &rows, limit)?;
            }
            *hits = (counted.min(wanted) as u32, wanted as u32);
        }
        Ok(Counts { hits, distances })
    }

    /// How many of `rows` are no farther than `limit` and not among those known to be near.
    fn unknown_ties(
        &self,
        subject: &Subject<'_>,
        rows: &[u32],
        limit: f64,
    ) -> Result<usize, FileError> {
        let mut count = 0;
        for row in rows.iter().filter(|row| !self.near.iter().any(|near| near.1 == **row)) {
            let row = *row as usize;
            let near = subject.base.read(row..row + 1)?;
            count += usize::from(subject.metric.plain_distance(self.query, near.row(0)) <= limit);
        }
        Ok(count)
    }
}

/// The known true neighbors of each query among the rows that are in the graph.
fn truth_of(
    subject: &Subject<'_>,
    queries: &Rows,
    job: Job<'_>,
) -> Result<Vec<Vec<(f64, u32)>>, ExactError> {
    let n = subject.rows.len();
    let mut absent = subject.rows[n - subject.held_out..].to_vec();
    absent.sort_unstable();
    // Of the nearest, as many are absent as of all rows: a tenth at most, as a rule.
    let k = KNOWN + KNOWN / 2;
    let ask = ExactAsk { metric: subject.metric, k, threads: subject.threads };
    let found = exact::search(subject.base, queries, &ask, job)?;
    let near = found.into_par_iter().enumerate().map(|(q, found)| {
        let keys = found.into_iter().map(|neighbor| neighbor.key as u32);
        let present = keys.filter(|row| absent.binary_search(row).is_err());
        let mut near = Vec::with_capacity(KNOWN);
        for row in present.take(KNOWN) {
            let rows = subject.base.read(row as usize..row as usize + 1)?;
            // Once more, with the same digits on every machine.
            near.push((subject.metric.plain_distance(queries.row(q), rows.row(0)), row));
        }
        near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Ok(near)
    });
    near.collect()
}

/// Means over the queries for the `at`-th of `KS`.
fn point(k: u32, list_size: u32, counts: &[Counts], at: usize) -> FrontierPoint {
    let n = counts.len() as f64;
    let shares =
        || counts.iter().map(|count| f64::from(count.hits[at].0) / f64::from(count.hits[at].1));
    let recall = shares().sum::<f64>() / n;
    let variance = shares().map(|share| (share - recall) * (share - recall)).sum::<f64>() / n;
    let lower = (recall - ONE_SIDED_95 * (variance / n).sqrt()).max(0.0);
    let distances = counts.iter().map(|count| u64::from(count.distances)).sum::<u64>();
    FrontierPoint { k, list_size, recall, lower, distances: distances as f64 / n }
}
