//! How fast an index answers: passes over all queries, on pinned threads, timed.
//!
//! What is timed reaches from the query in memory to the final answer in memory. One untimed pass
//! warms caches and branch predictors; then passes follow until they took a second in all (passes
//! so short that waking the threads takes longer: until two have gone by) and are at least three.
//! The only definition of it: the command line and the benchmarks call it.

mod decodes;
mod latency;
mod memory_reading;

pub use decodes::DecodePlan;
pub use latency::{Latency, median};
pub use memory_reading::anonymous_bytes;

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use foveal_datasets::{ErrorKind, Rows};
use rustix::thread::CpuSet;

use foveal_index::{
    Answer, Decoded, IdSet, Job, Neighbor, Query, QueryStats, SearchError, SearchParams, Searcher,
    Segment, Stop,
};

const MIN_PASSES: usize = 3;
const MIN_SECONDS: f64 = 1.0;
/// By then the passes are many, however little they took in all.
const MAX_ELAPSED: Duration = Duration::from_secs(2);

/// Why an index could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// A query failed, or the job was interrupted.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The kernel does not report how much memory the process holds.
    #[error("memory of this process: {0}")]
    Memory(#[source] std::io::Error),
}

impl MeasureError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            MeasureError::Search(error) => error.kind(),
            MeasureError::Memory(_) => ErrorKind::Io,
        }
    }
}

/// What to measure.
pub struct Plan<'a> {
    /// Searched by every thread.
    pub index: &'a Segment,
    /// All queries, `[n x dim]`; split evenly among the threads.
    pub queries: &'a Rows,
    /// How each is answered.
    pub params: SearchParams,
    /// The only rows that count; none where all do.
    pub allowed: Option<&'a IdSet>,
    /// Threads, each with a searcher of its own; at least 1.
    pub threads: usize,
    /// Queries that a thread has begun at a time; at least 1.
    pub in_flight: usize,
    /// Told after each pass; its interrupt ends the measurement.
    pub job: Job<'a>,
}

/// What is measured again and again: searches, or decodes.
trait Workload: Sync {
    /// What a thread owns.
    type Worker;
    /// What one query finds.
    type Found: Default + Send;

    /// How many queries there are.
    fn queries(&self) -> usize;
    /// How many threads run them.
    fn threads(&self) -> usize;
    /// The job that hears of each pass.
    fn job(&self) -> Job<'_>;
    /// What a thread needs.
    ///
    /// # Errors
    /// The index cannot run such queries.
    fn worker(&self) -> Result<Self::Worker, SearchError>;
    /// One pass over the rows of a share.
    ///
    /// # Errors
    /// The first query that failed.
    fn run(
        &self,
        worker: &mut Self::Worker,
        share: &mut Share<Self::Found>,
    ) -> Result<(), SearchError>;
    /// Bytes that a finding holds on the heap.
    fn held_bytes(found: &Self::Found) -> usize;
}

/// What was measured.
pub struct Measurement<Found = Vec<Neighbor>> {
    /// Timed passes.
    pub passes: usize,
    /// What they took in all.
    pub seconds: f64,
    /// Queries a second in the median pass.
    pub qps: f64,
    /// Queries a second in the slowest and the fastest pass.
    pub qps_spread: [f64; 2],
    /// From start to finish of each query, over all timed passes.
    pub latency: Latency,
    /// What the queries of all timed passes cost.
    pub totals: Totals,
    /// The answers of the last pass, in query order.
    pub found: Vec<Found>,
    /// Anonymous memory after the last query, less what this measurement holds of answers.
    pub anonymous_bytes: u64,
}

impl<Found> Measurement<Found> {
    /// How much anonymous memory has grown since there were `before` bytes of it, full vectors of
    /// the index left out, wherever they are.
    pub fn resident_bytes(&self, index: &Segment, before: u64) -> u64 {
        self.anonymous_bytes.saturating_sub(before + index.full_store_own_bytes())
    }
}

/// Sums over queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Queries answered.
    pub queries: u64,
    /// Neighbors returned.
    pub results: u64,
    /// Of those, the ones proven to precede every other candidate; of decodes, those whose order
    /// is proved.
    pub certified: u64,
    /// Answers cut short by the limit on reads.
    pub partial: u64,
    /// What the queries cost.
    pub stats: QueryStats,
}

impl Totals {
    fn count(&mut self, answer: &Answer) {
        self.results += answer.neighbors.len() as u64;
        self.certified += u64::from(answer.certified);
        self.partial += u64::from(answer.partial);
        self.count_query(&answer.stats);
    }

    fn count_query(&mut self, stats: &QueryStats) {
        self.queries += 1;
        self.stats += *stats;
    }

    fn add(&mut self, other: &Totals) {
        self.queries += other.queries;
        self.results += other.results;
        self.certified += other.certified;
        self.partial += other.partial;
        self.stats += other.stats;
    }
}

/// The share of one thread and what it found: sent to it for a pass, sent back after it.
struct Share<Found> {
    rows: Range<usize>,
    found: Vec<Found>,
    nanos: Vec<u64>,
    totals: Totals,
    span: (Instant, Instant),
    failed: Option<SearchError>,
}

impl<Found: Default> Share<Found> {
    fn of(rows: Range<usize>) -> Share<Found> {
        let now = Instant::now();
        let found = rows.clone().map(|_| Found::default()).collect();
        let (nanos, totals) = (Vec::new(), Totals::default());
        Share { rows, found, nanos, totals, span: (now, now), failed: None }
    }

    /// One timed pass; the worker is made for the first one.
    fn run<A: Workload<Found = Found>>(
        &mut self,
        workload: &A,
        worker: &mut Option<A::Worker>,
    ) -> Result<(), SearchError> {
        let worker = match worker {
            Some(worker) => worker,
            None => worker.insert(workload.worker()?),
        };
        self.nanos.reserve(self.rows.len());
        let started = Instant::now();
        workload.run(worker, self)?;
        self.span = (started, Instant::now());
        Ok(())
    }

    /// Bytes on the heap.
    fn held_bytes(&self, of: fn(&Found) -> usize) -> usize {
        self.found.iter().map(of).sum::<usize>()
            + self.found.capacity() * size_of::<Found>()
            + self.nanos.capacity() * size_of::<u64>()
    }
}

impl Workload for Plan<'_> {
    type Worker = Searcher;
    type Found = Vec<Neighbor>;

    fn queries(&self) -> usize {
        self.queries.len()
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn job(&self) -> Job<'_> {
        self.job
    }

    fn worker(&self) -> Result<Searcher, SearchError> {
        Ok(self.index.searcher())
    }

    fn run(
        &self,
        searcher: &mut Searcher,
        share: &mut Share<Vec<Neighbor>>,
    ) -> Result<(), SearchError> {
        let Share { rows, found, nanos, totals, .. } = share;
        let stop = Stop { deadline: None, cancelled: self.job.interrupt };
        let params = self.params;
        let query = |i| Query { row: self.queries.row(i), params, allowed: self.allowed, stop };
        searcher.search_batch(&mut rows.clone().map(query), self.in_flight, &mut |i, answer| {
            let answer = answer?;
            totals.count(&answer);
            nanos.push(answer.nanos);
            found[i] = answer.neighbors;
            Ok(())
        })
    }

    fn held_bytes(found: &Vec<Neighbor>) -> usize {
        found.capacity() * size_of::<Neighbor>()
    }
}

/// A thread that runs each share it is handed.
struct Worker<Found> {
    give: Sender<Share<Found>>,
    take: Receiver<Share<Found>>,
}

/// Answers all queries again and again and measures.
///
/// # Errors
/// The first query that failed; the plan was cancelled; the memory of the process is unknown; full
/// vectors that were written to meanwhile.
///
/// # Panics
/// If a searcher panicked.
pub fn run(plan: &Plan<'_>) -> Result<Measurement, MeasureError> {
    let measured = measured(plan)?;
    plan.index.check_unchanged().map_err(SearchError::from)?;
    Ok(measured)
}

/// Decodes all hidden states again and again and measures.
///
/// # Errors
/// The first decode that failed; the plan was cancelled; the memory of the process is unknown.
///
/// # Panics
/// If a decoder panicked.
pub fn run_decodes(plan: &DecodePlan<'_>) -> Result<Measurement<Decoded>, MeasureError> {
    let measured = measured(plan)?;
    plan.index.check_unchanged().map_err(SearchError::from)?;
    Ok(measured)
}

fn measured<A: Workload>(workload: &A) -> Result<Measurement<A::Found>, MeasureError> {
    let cpus = cpus_for(workload.threads());
    std::thread::scope(|scope| {
        let start = |i: usize| {
            let (give, handed) = channel::<Share<A::Found>>();
            let (done, take) = channel();
            let cpu = cpus.get(i).copied();
            scope.spawn(move || {
                cpu.inspect(|cpu| pin_to(*cpu));
                let mut worker = None;
                for mut share in handed {
                    share.failed = share.run(workload, &mut worker).err();
                    if done.send(share).is_err() {
                        break;
                    }
                }
            });
            Worker { give, take }
        };
        let workers: Vec<Worker<A::Found>> = (0..workload.threads()).map(start).collect();
        measure(workload, &workers)
    })
}

fn measure<A: Workload>(
    workload: &A,
    workers: &[Worker<A::Found>],
) -> Result<Measurement<A::Found>, MeasureError> {
    let n = workload.queries();
    let threads = workers.len();
    let mut shares: Vec<Share<A::Found>> =
        (0..threads).map(|i| Share::of(i * n / threads..(i + 1) * n / threads)).collect();
    shares = pass(workers, shares)?;
    for share in &mut shares {
        share.nanos.clear();
        share.totals = Totals::default();
    }
    let begun = Instant::now();
    let (mut times, mut taken) = (Vec::new(), 0.0_f64);
    loop {
        shares = pass(workers, shares)?;
        let time = pass_seconds(&shares);
        times.push(time);
        taken += time;
        let done = times.len();
        // Waking the threads is not timed, and takes longer than a pass over a few queries.
        let enough = taken >= MIN_SECONDS || begun.elapsed() >= MAX_ELAPSED;
        if done >= MIN_PASSES && enough {
            break;
        }
        let total = (done as f64 * MIN_SECONDS / taken.max(1e-9)).ceil() as u64;
        let total = total.max(MIN_PASSES as u64);
        workload.job().tell("search", done as u64, total);
    }
    // Read while the searchers still hold their scratch memory: it is part of what search takes.
    let held: usize = shares.iter().map(|share| share.held_bytes(A::held_bytes)).sum();
    let anonymous_bytes =
        anonymous_bytes().map_err(MeasureError::Memory)?.saturating_sub(held as u64);
    Ok(Measurement { anonymous_bytes, ..summary(shares, times) })
}

/// One pass of all threads over their shares.
fn pass<Found>(
    workers: &[Worker<Found>],
    shares: Vec<Share<Found>>,
) -> Result<Vec<Share<Found>>, MeasureError> {
    for (worker, share) in workers.iter().zip(shares) {
        worker.give.send(share).expect(ALIVE);
    }
    let mut shares: Vec<Share<Found>> =
        workers.iter().map(|worker| worker.take.recv().expect(ALIVE)).collect();
    match shares.iter_mut().find_map(|share| share.failed.take()) {
        Some(error) => Err(error.into()),
        None => Ok(shares),
    }
}

const ALIVE: &str = "a worker lives until its channel closes, unless its searcher panicked";

/// From the start of the first thread to the end of the last.
fn pass_seconds<Found>(shares: &[Share<Found>]) -> f64 {
    let start = shares.iter().map(|share| share.span.0).min();
    let end = shares.iter().map(|share| share.span.1).max();
    match (start, end) {
        (Some(start), Some(end)) => end.duration_since(start).as_secs_f64(),
        _ => 0.0,
    }
}

fn summary<Found>(shares: Vec<Share<Found>>, times: Vec<f64>) -> Measurement<Found> {
    let mut totals = Totals::default();
    let (mut nanos, mut found) = (Vec::new(), Vec::new());
    for share in shares {
        totals.add(&share.totals);
        nanos.extend(share.nanos);
        found.extend(share.found);
    }
    let mut rates: Vec<f64> = times.iter().map(|t| found.len() as f64 / t.max(1e-9)).collect();
    Measurement {
        passes: times.len(),
        seconds: times.iter().sum(),
        qps: median(&mut rates),
        qps_spread: [rates.first(), rates.last()].map(|rate| rate.copied().unwrap_or(0.0)),
        latency: Latency::of_nanos(&mut nanos),
        totals,
        found,
        anonymous_bytes: 0,
    }
}

/// A processor for each thread; none at all where there are more threads than processors, since
/// pinned threads that share one would wait for each other.
fn cpus_for(threads: usize) -> Vec<usize> {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    if cpus.len() < threads { Vec::new() } else { cpus }
}

fn pin_to(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu);
    // An unpinned thread measures as well, with a little more noise.
    let _ = rustix::thread::sched_setaffinity(None, &only);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(rows: Range<usize>, start: Instant, millis: [u64; 2]) -> Share<Vec<Neighbor>> {
        let mut share = Share::of(rows);
        let [from, to] = millis.map(Duration::from_millis);
        share.span = (start + from, start + to);
        share
    }

    #[test]
    fn a_pass_lasts_from_the_first_start_to_the_last_end() {
        let now = Instant::now();
        let shares = [share(0..1, now, [5, 20]), share(1..2, now, [0, 10])];
        assert_eq!(pass_seconds(&shares), 0.020);
    }

    #[test]
    fn the_median_pass_makes_the_rate_and_answers_stay_in_order() {
        let now = Instant::now();
        let mut shares = vec![share(0..1, now, [0, 1]), share(1..2, now, [0, 1])];
        for (key, share) in shares.iter_mut().enumerate() {
            share.found[0] = vec![Neighbor { key: key as u64, distance: 0.5 }];
            share.nanos = vec![1000, 3000];
            let stats = QueryStats { reads: 7, ..QueryStats::default() };
            share.totals = Totals { queries: 3, stats, ..Totals::default() };
        }
        let measurement = summary(shares, vec![0.5, 0.001, 0.25]);
        assert_eq!((measurement.passes, measurement.seconds), (3, 0.751));
        assert_eq!(measurement.qps, 8.0);
        assert_eq!(measurement.qps_spread, [4.0, 2000.0]);
        assert_eq!(measurement.latency.mean, 2.0);
        let keys: Vec<u64> = measurement.found.iter().map(|list| list[0].key).collect();
        assert_eq!(keys, [0, 1]);
        assert_eq!((measurement.totals.queries, measurement.totals.stats.reads), (6, 14));
    }

    #[test]
    fn pinned_threads_never_share_a_processor() {
        let one = cpus_for(1);
        assert!(!one.is_empty());
        assert_eq!(cpus_for(one.len() + 1), Vec::<usize>::new());
    }
}
