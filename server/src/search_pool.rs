//! Where async ends: a bounded queue, and the threads that search.
//!
//! A task has parts. Tasks take turns: a worker takes the next part of the task at the head of the
//! queue and puts the task back at its end, so that a batch of thousands of queries keeps a single
//! query waiting for no longer than its parts take, one per task ahead. Searches for one query each
//! that wait may be answered together: one's rows are read while another walks.

mod in_flight;
mod worker;

pub use worker::Searchers;

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use foveal_datasets::Rows;
use foveal_index::{Answer, SearchError, SearchParams, Segment, Stop, Stopped};
use in_flight::{ErasedTask, Load, TaskInFlight};
use tokio::sync::oneshot;

/// How much a pool takes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Threads that search, at least 1.
    pub threads: usize,
    /// The most tasks that wait or run.
    pub max_pending: usize,
    /// The most bytes that they hold.
    pub max_pending_bytes: usize,
}

/// What one query found.
#[derive(Debug)]
pub struct Found {
    /// The engine's answer.
    pub answer: Answer,
    /// The payload of each neighbor; empty where none was requested.
    pub payloads: Vec<Option<String>>,
}

/// Why a part has no result.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// The engine says why.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The payloads of the hits are more than one response may bring along.
    #[error("the payloads of the hits are larger than {limit} bytes together")]
    PayloadTooLarge {
        /// The most bytes they may have.
        limit: u64,
    },
}

/// Why a task has no result.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The queue is full; nothing was done.
    #[error("{pending} requests are pending already")]
    Full {
        /// How many tasks wait or run.
        pending: usize,
    },
    /// It ended early.
    #[error("stopped: {0:?}")]
    Stopped(Stopped),
    /// A part failed.
    #[error(transparent)]
    Part(PartError),
    /// A part panicked: a defect of the program.
    #[error("the search panicked")]
    Panicked,
    /// The pool is closing.
    #[error("the server is stopping")]
    Closed,
}

impl From<PartError> for PoolError {
    fn from(error: PartError) -> PoolError {
        match error {
            PartError::Search(SearchError::Stopped(why)) => PoolError::Stopped(why),
            error => PoolError::Part(error),
        }
    }
}

/// Work for the pool; `R` is what one query has for a result.
pub struct Task<R> {
    /// Bytes it holds.
    pub bytes: usize,
    /// The deadline of the result.
    pub deadline: Instant,
    /// What there is to do.
    pub work: Work<R>,
}

/// What there is to do.
pub enum Work<R> {
    /// So many parts, at least 1. They run on any worker, in any order, at once.
    Parts(usize, Box<RunPart<R>>),
    /// A search for one query.
    Single(Single<R>),
}

/// What computes part `i` of a task: the results of its queries, in their order. It looks at its
/// `Stop` often.
pub type RunPart<R> =
    dyn Fn(&mut Searchers, usize, &Stop<'_>) -> Result<Vec<R>, PartError> + Send + Sync;

/// A search for one query.
pub struct Single<R> {
    /// The number of the collection.
    pub slot: usize,
    /// The collection's index.
    pub index: Segment,
    /// The query, on its own.
    pub query: Rows,
    /// How it is answered.
    pub params: SearchParams,
    /// How many of the collection's a worker answers in turns; 1 leaves it alone.
    pub in_flight: usize,
    /// What the answer becomes.
    pub finish: Box<Finish<R>>,
}

/// What makes a result of an answer.
pub type Finish<R> = dyn Fn(Answer, &Stop<'_>) -> Result<R, PartError> + Send + Sync;

/// A task's result.
#[derive(Debug)]
pub struct Done<R> {
    /// What the parts found, in the order of parts.
    pub found: Vec<R>,
    /// From the task's arrival until a worker first took it up.
    pub queued: Duration,
}

/// The queue and its workers. Dropping it refuses what waits and joins the workers.
pub struct SearchPool {
    queue: Arc<Queue>,
    limits: PoolLimits,
    load: Arc<Load>,
    workers: Vec<JoinHandle<()>>,
}

impl SearchPool {
    /// Starts the workers.
    ///
    /// # Errors
    /// The operating system has no thread left.
    pub fn start(limits: PoolLimits) -> std::io::Result<SearchPool> {
        let queue = Arc::new(Queue::default());
        let mut pool =
            SearchPool { queue, limits, load: Arc::new(Load::default()), workers: Vec::new() };
        for number in 0..limits.threads.max(1) {
            let queue = Arc::clone(&pool.queue);
            let name = format!("search-{number}");
            pool.workers
                .push(std::thread::Builder::new().name(name).spawn(move || worker::work(&queue))?);
        }
        Ok(pool)
    }

    /// How much it takes on.
    pub fn limits(&self) -> PoolLimits {
        self.limits
    }

    /// How many tasks wait or run.
    pub fn pending(&self) -> usize {
        self.load.tasks.load(Ordering::Relaxed)
    }

    /// Queues `task` and waits for its result. Dropping the future ends the search.
    ///
    /// # Errors
    /// The queue is full, the deadline passed, a part failed or panicked, or the pool closes.
    pub async fn run<R: Send + 'static>(&self, task: Task<R>) -> Result<Done<R>, PoolError> {
        let deadline = tokio::time::Instant::from_std(task.deadline);
        let (task, reply) = self.admit(task)?;
        let _cancel = CancelOnDrop { queue: &self.queue, task };
        match tokio::time::timeout_at(deadline, reply).await {
            Ok(Ok(result)) => result,
            // The task was dropped with the queue.
            Ok(Err(_)) => Err(PoolError::Closed),
            Err(_) => Err(PoolError::Stopped(Stopped::Deadline)),
        }
    }

    /// Only the collections of these numbers are searched from now on: workers drop what they hold
    /// of others, once the tasks have ended that still search them.
    pub fn keep(&self, slots: BTreeSet<usize>) {
        self.queue.lock().kept = Some(Arc::new(slots));
        self.queue.arrived.notify_all();
    }

    fn admit<R: Send + 'static>(&self, task: Task<R>) -> Result<Admitted<R>, PoolError> {
        let mut waiting = self.queue.lock();
        if waiting.closing {
            return Err(PoolError::Closed);
        }
        let (pending, bytes) = (self.pending(), self.load.bytes.load(Ordering::Relaxed));
        if pending >= self.limits.max_pending
            || bytes.saturating_add(task.bytes) > self.limits.max_pending_bytes
        {
            return Err(PoolError::Full { pending });
        }
        let (sender, reply) = oneshot::channel();
        let task: Arc<dyn ErasedTask> = Arc::new(TaskInFlight::new(task, sender, &self.load));
        waiting.entries.push_back(Entry { task: Arc::clone(&task), next: 0 });
        drop(waiting);
        if task.parts() == 1 {
            self.queue.arrived.notify_one();
        } else {
            self.queue.arrived.notify_all();
        }
        Ok((task, reply))
    }
}

impl Drop for SearchPool {
    fn drop(&mut self) {
        let refused = {
            let mut waiting = self.queue.lock();
            waiting.closing = true;
            std::mem::take(&mut waiting.entries)
        };
        for entry in refused {
            entry.task.fail(PoolError::Closed);
        }
        self.queue.arrived.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of searches; it has nothing else to report.
            let _ = worker.join();
        }
    }
}

/// A task in flight, and the receiver of its result.
type Admitted<R> = (Arc<dyn ErasedTask>, oneshot::Receiver<Result<Done<R>, PoolError>>);

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Workers with nothing to do.
    idle: usize,
    /// The collections whose searchers are worth keeping; all, if that was never said.
    kept: Option<Arc<BTreeSet<usize>>>,
    closing: bool,
}

/// A task with parts that no worker has taken yet.
struct Entry {
    task: Arc<dyn ErasedTask>,
    next: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do, a part of a task; none once the pool closes. Meanwhile searchers
    /// of collections that are not kept are dropped.
    fn next(&self, searchers: &mut Searchers) -> Option<(Arc<dyn ErasedTask>, usize)> {
        let mut waiting = self.lock();
        loop {
            if waiting.closing {
                return None;
            }
            if let Some(kept) = waiting.kept.clone().filter(|kept| searchers.has_others(kept)) {
                drop(waiting);
                searchers.keep(&kept);
                waiting = self.lock();
                continue;
            }
            if let Some(Entry { task, next }) = waiting.entries.pop_front() {
                if next + 1 < task.parts() && !task.is_cancelled() {
                    let task = Arc::clone(&task);
                    waiting.entries.push_back(Entry { task, next: next + 1 });
                }
                return Some((task, next));
            }
            waiting.idle += 1;
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }

    /// The search for one query of the collection number `slot` that is next, if one is, and no
    /// idle worker is about to take it up.
    fn next_single(&self, slot: usize) -> Option<Arc<dyn ErasedTask>> {
        let mut waiting = self.lock();
        let single = waiting.entries.front()?.task.single()?;
        if single.slot != slot || waiting.entries.len() <= waiting.idle {
            return None;
        }
        waiting.entries.pop_front().map(|entry| entry.task)
    }
}

/// Cancels the search when its caller stops waiting, whether or not it has begun.
struct CancelOnDrop<'a> {
    queue: &'a Queue,
    task: Arc<dyn ErasedTask>,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.task.cancel();
        let mine = Arc::as_ptr(&self.task);
        let same = |entry: &Entry| std::ptr::addr_eq(Arc::as_ptr(&entry.task), mine);
        let mut waiting = self.queue.lock();
        if let Some(at) = waiting.entries.iter().position(same) {
            waiting.entries.remove(at);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
