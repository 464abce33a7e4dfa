//! Scans everything: the oracle, and the maker of ground truth.

use std::collections::BinaryHeap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use foveal_datasets::row_source::chunks;
use foveal_datasets::{ErrorKind, FileError, Metric, RowSource, Rows};
use rayon::prelude::*;

use crate::distance::{
    ExactQuery, MIN_SQUARE, TOO_SMALL, VANISHING_ROWS, is_too_long, typical_square, vanishing,
};
use crate::neighbor::Neighbor;
use crate::params::{MAX_K, ParamsError, check_threads, out_of_range};
use crate::stats::Job;

/// Bytes of rows read at once.
const CHUNK_BYTES: usize = 8 << 20;
/// Bytes of rows that one query meets before the next one does: they stay in the cache.
const TILE_BYTES: usize = 256 << 10;
/// Queries of a task.
const QUERIES_A_TASK: usize = 16;

/// Why an exact search failed.
#[derive(Debug, thiserror::Error)]
pub enum ExactError {
    /// A parameter cannot be used.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// The base file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Base and queries have different dimensions.
    #[error("queries have dimension {found}; the base file has {wanted}")]
    Dim {
        /// The queries' dimension.
        found: usize,
        /// The base's dimension.
        wanted: usize,
    },
    /// A row of zeros has no direction.
    #[error("{}: row {row} is all zeros, which has no cosine", path.display())]
    ZeroRow {
        /// The base file.
        path: PathBuf,
        /// The row.
        row: usize,
    },
    /// A row whose distances pass the range of f32.
    #[error("{}: row {row} is too long: its squared norm passes the range of f32", path.display())]
    LongRow {
        /// The base file.
        path: PathBuf,
        /// The row.
        row: usize,
    },
    /// A query whose distances do.
    #[error("query {row} is too long: its squared norm passes the range of f32")]
    LongQuery {
        /// Its number among the queries.
        row: usize,
    },
    /// Values so small that distances pass under the range of f32.
    #[error("{}: typical squared distances are about {square:.1e}, {TOO_SMALL}", path.display())]
    TooSmall {
        /// The base file.
        path: PathBuf,
        /// The typical squared distance.
        square: f64,
    },
    /// Nor has a query of zeros.
    #[error("query {row} is all zeros, which has no cosine")]
    ZeroQuery {
        /// Its number among the queries.
        row: usize,
    },
    /// A query holds NaN or infinity.
    #[error("query {row} holds a number that is not finite")]
    NotFinite {
        /// Its number among the queries.
        row: usize,
    },
    /// Threads could not be had.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The caller cancelled.
    #[error("interrupted")]
    Interrupted,
}

impl ExactError {
    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ExactError::Params(_) => ErrorKind::Usage,
            ExactError::File(error) => error.kind(),
            ExactError::Dim { .. } | ExactError::NotFinite { .. } => ErrorKind::BadData,
            ExactError::ZeroRow { .. } | ExactError::ZeroQuery { .. } => ErrorKind::BadData,
            ExactError::LongRow { .. } | ExactError::LongQuery { .. } => ErrorKind::BadData,
            ExactError::TooSmall { .. } => ErrorKind::BadData,
            ExactError::Threads(_) => ErrorKind::Io,
            ExactError::Interrupted => ErrorKind::Interrupted,
        }
    }
}

/// The `k` nearest rows of `base` to each of `queries` (`[q x dim]`), nearest first, equal
/// distances smaller key first; the key is the row number. All rows where there are fewer than `k`.
///
/// `O(n q dim)` on `threads` threads (0: every core), reading the base once.
///
/// # Errors
/// `k` of 0 or above [`MAX_K`]; dimensions that differ; a vector of zeros under cosine; what the
/// base file holds against it; an interrupt.
pub fn search(
    base: &dyn RowSource,
    queries: &Rows,
    request: &ExactRequest,
    job: Job<'_>,
) -> Result<Vec<Vec<Neighbor>>, ExactError> {
    search_by(base, queries, (request, Sums::Fastest, None), job)
}

/// The same for builds: row `i` has the key `ids[i]`, so that equal distances are ordered
/// independently of the order of the rows.
pub(crate) fn search_ids(
    base: &dyn RowSource,
    queries: &Rows,
    (request, ids, sums): (&ExactRequest, &[u32], Sums),
    job: Job<'_>,
) -> Result<Vec<Vec<Neighbor>>, ExactError> {
    search_by(base, queries, (request, sums, Some(ids)), job)
}

/// How distances are summed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sums {
    /// As this CPU does it fastest.
    Fastest,
    /// With the same digits on every CPU.
    InFixedOrder,
}

fn search_by(
    base: &dyn RowSource,
    queries: &Rows,
    (request, sums, ids): (&ExactRequest, Sums, Option<&[u32]>),
    job: Job<'_>,
) -> Result<Vec<Vec<Neighbor>>, ExactError> {
    if request.k == 0 || request.k > MAX_K as usize {
        return Err(out_of_range("k", request.k, format!("1 to {MAX_K}")).into());
    }
    check_threads(request.threads)?;
    if queries.dim() != base.dim() {
        return Err(ExactError::Dim { found: queries.dim(), wanted: base.dim() });
    }
    check_scale(base, queries, request.metric)?;
    let mut scans = Vec::with_capacity(queries.len());
    for (row, query) in queries.iter().enumerate() {
        if !query.is_finite() {
            return Err(ExactError::NotFinite { row });
        }
        if request.metric.needs_direction() && query.is_zero() {
            return Err(ExactError::ZeroQuery { row });
        }
        if !request.metric.needs_direction() && is_too_long(query) {
            return Err(ExactError::LongQuery { row });
        }
        let mut exact = match sums {
            Sums::Fastest => ExactQuery::new(request.metric, base.element()),
            Sums::InFixedOrder => ExactQuery::in_fixed_order(request.metric, base.element()),
        };
        exact.set(query);
        scans.push(Scan { query: exact, nearest: BinaryHeap::new(), k: request.k });
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(request.threads).build()?;
    let row_bytes = base.dim() * base.element().size();
    let work = Work { job, done: AtomicU64::new(0), total: (base.len() * queries.len()) as u64 };
    for chunk in chunks(base, (CHUNK_BYTES / row_bytes).max(1)) {
        let (first, rows) = chunk?;
        let zero = rows.first_zero().filter(|_| request.metric.needs_direction());
        if let Some(row) = zero.map(|row| first + row) {
            return Err(ExactError::ZeroRow { path: base.path().into(), row });
        }
        if !request.metric.needs_direction() {
            let long = (0..rows.len()).into_par_iter().find_first(|i| is_too_long(rows.row(*i)));
            if let Some(row) = long.map(|row| first + row) {
                return Err(ExactError::LongRow { path: base.path().into(), row });
            }
        }
        let ids = ids.map(|ids| &ids[first..first + rows.len()]);
        pool.install(|| scan_chunk(&mut scans, (&rows, first, ids), request.metric, &work));
        if job.interrupted() {
            return Err(ExactError::Interrupted);
        }
    }
    Ok(scans.into_iter().map(Scan::into_sorted).collect())
}

/// Refuses rows, under ip rows and queries, so small that their distances are 0 in f32.
fn check_scale(base: &dyn RowSource, queries: &Rows, metric: Metric) -> Result<(), ExactError> {
    let (_, rows) = base.sample(VANISHING_ROWS, 0)?;
    let square = if metric.is_product() {
        // Long queries make up for short rows.
        let typical = |rows: &Rows| typical_square(rows, metric);
        let product = typical(&rows).zip(typical(queries)).map(|(x, q)| (x * q).sqrt());
        product.filter(|product| *product < MIN_SQUARE)
    } else {
        vanishing(&rows, metric)
    };
    square.map_or(Ok(()), |square| Err(ExactError::TooSmall { path: base.path().into(), square }))
}

/// What to look for exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExactRequest {
    /// What "near" means.
    pub metric: Metric,
    /// How many rows a query gets.
    pub k: usize,
    /// Worker threads; 0 takes every core.
    pub threads: usize,
}

/// How many of all distances are computed, and the job that hears of it.
struct Work<'a> {
    job: Job<'a>,
    done: AtomicU64,
    total: u64,
}

/// Shows every row of a chunk, which starts with row `first`, to every scan. Their keys are `ids`,
/// or the numbers of the rows. An interrupt leaves the scans incomplete.
fn scan_chunk(
    scans: &mut [Scan],
    (rows, first, ids): (&Rows, usize, Option<&[u32]>),
    metric: Metric,
    work: &Work<'_>,
) {
    let inverse_norms: Vec<f32> = match scans.first() {
        Some(Scan { query, .. }) if metric.needs_direction() => {
            (0..rows.len()).into_par_iter().map(|i| query.inverse_norm(rows.row(i))).collect()
        }
        _ => Vec::new(),
    };
    let tile = (TILE_BYTES / (rows.dim() * rows.element().size())).max(1);
    let all: Vec<u32> = (0..rows.len() as u32).collect();
    scans.par_chunks_mut(QUERIES_A_TASK).for_each(|scans| {
        let mut distances = vec![0.0; tile];
        for some in all.chunks(tile).take_while(|_| !work.job.interrupted()) {
            for scan in scans.iter_mut() {
                if inverse_norms.is_empty() {
                    scan.query.distances(rows, some, &mut distances);
                } else {
                    let (rows, limit) = ((rows, &inverse_norms[..]), scan.limit());
                    scan.query.cosines(rows, some, limit, &mut distances);
                }
                match ids {
                    Some(ids) => {
                        scan.meet_all(&distances, some.iter().map(|i| ids[*i as usize].into()))
                    }
                    None => {
                        scan.meet_all(&distances, some.iter().map(|i| first as u64 + u64::from(*i)))
                    }
                }
            }
        }
        let count = (rows.len() * scans.len()) as u64;
        let done = work.done.fetch_add(count, Ordering::Relaxed) + count;
        work.job.tell("computing distances", done, work.total);
    });
}

/// One query and the nearest rows it has met.
struct Scan {
    query: ExactQuery,
    /// Farthest on top.
    nearest: BinaryHeap<Farthest>,
    k: usize,
}

impl Scan {
    /// What a row must be nearer than, to be among the nearest of all met before this tile.
    fn limit(&self) -> f32 {
        match self.nearest.peek() {
            Some(farthest) if self.nearest.len() == self.k => farthest.0.distance,
            _ => f32::INFINITY,
        }
    }

    #[inline(always)]
    fn meet_all(&mut self, distances: &[f32], keys: impl Iterator<Item = u64>) {
        for (distance, key) in distances.iter().zip(keys) {
            // The first comparison is enough for nearly all rows.
            if self.nearest.len() < self.k || *distance <= self.limit() {
                self.meet(Neighbor { key, distance: *distance });
            }
        }
    }

    fn meet(&mut self, neighbor: Neighbor) {
        if self.nearest.len() == self.k {
            let farthest = self.nearest.peek().expect("k is at least 1");
            if Farthest(neighbor) > *farthest {
                return;
            }
            self.nearest.pop();
        }
        self.nearest.push(Farthest(neighbor));
    }

    fn into_sorted(self) -> Vec<Neighbor> {
        self.nearest.into_sorted_vec().into_iter().map(|farthest| farthest.0).collect()
    }
}

/// A neighbor ordered by distance, then key.
#[derive(Clone, Copy, PartialEq)]
struct Farthest(Neighbor);

impl Eq for Farthest {}

impl Ord for Farthest {
    fn cmp(&self, other: &Farthest) -> std::cmp::Ordering {
        self.0.order(&other.0)
    }
}

impl PartialOrd for Farthest {
    fn partial_cmp(&self, other: &Farthest) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
