//! Where async ends: a bounded queue, and the threads that search.
//!
//! A task has parts. Tasks take turns: a worker takes the next part of the task at the head of the
//! queue and puts the task back at its end, so that a batch of thousands of queries keeps a single
//! query waiting for no longer than its parts take, one per task ahead.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use foveal_index::{Answer, Decoder, Index, SearchError, Searcher, Stop, Stopped};
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
    /// The payload of each neighbor; empty where none was asked for.
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
    Part(#[from] PartError),
    /// A part panicked: a defect of the program.
    #[error("the search panicked")]
    Panicked,
    /// The pool is closing.
    #[error("the server is stopping")]
    Closed,
}

/// What computes part `i` of a task: the results of its queries, in their order.
pub type Run<R> =
    dyn Fn(&mut Searchers, usize, &Stop<'_>) -> Result<Vec<R>, PartError> + Send + Sync;

/// Work for the pool; `R` is what one query has for a result.
pub struct Task<R> {
    /// How many parts it has, at least 1. They run on any worker, in any order, at once.
    pub parts: usize,
    /// Bytes it holds.
    pub bytes: usize,
    /// When nobody will want the result any more.
    pub deadline: Instant,
    /// Computes a part; looks at its `Stop` often.
    pub run: Box<Run<R>>,
}

/// A task's result.
#[derive(Debug)]
pub struct Done<R> {
    /// What the parts found, in the order of parts.
    pub found: Vec<R>,
    /// From the task's arrival until a worker first took it up.
    pub queued: Duration,
}

/// The searchers and decoders of one worker, one of each a collection, made when first needed and
/// then kept.
#[derive(Default)]
pub struct Searchers {
    by_slot: Vec<Option<Searcher>>,
    decoders: Vec<Option<Decoder>>,
}

impl Searchers {
    /// The searcher of the collection number `slot`, which is over `index`.
    pub fn of(&mut self, slot: usize, index: &Index) -> &mut Searcher {
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, || None);
        }
        self.by_slot[slot].get_or_insert_with(|| index.searcher())
    }

    /// The decoder of the collection number `slot`, which is over `index`.
    ///
    /// # Errors
    /// The index is no head.
    pub fn decoder_of(&mut self, slot: usize, index: &Index) -> Result<&mut Decoder, SearchError> {
        if self.decoders.len() <= slot {
            self.decoders.resize_with(slot + 1, || None);
        }
        match &mut self.decoders[slot] {
            Some(decoder) => Ok(decoder),
            empty => Ok(empty.insert(index.decoder()?)),
        }
    }
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
            pool.workers.push(std::thread::Builder::new().name(name).spawn(move || work(&queue))?);
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
        let (flight, reply) = self.admit(task)?;
        let _abandon = Abandon { queue: &self.queue, flight };
        match tokio::time::timeout_at(deadline, reply).await {
            Ok(Ok(result)) => result,
            // The flight went down with the queue.
            Ok(Err(_)) => Err(PoolError::Closed),
            Err(_) => Err(PoolError::Stopped(Stopped::Deadline)),
        }
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
        let flight: Arc<dyn Work> = Arc::new(Flight::new(task, sender, &self.load));
        waiting.entries.push_back(Entry { flight: Arc::clone(&flight), next: 0 });
        drop(waiting);
        if flight.parts() == 1 {
            self.queue.arrived.notify_one();
        } else {
            self.queue.arrived.notify_all();
        }
        Ok((flight, reply))
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
            entry.flight.fail(PoolError::Closed);
        }
        self.queue.arrived.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of searches; it has nothing else to report.
            let _ = worker.join();
        }
    }
}

/// A task on its way, and where its result will come.
type Admitted<R> = (Arc<dyn Work>, oneshot::Receiver<Result<Done<R>, PoolError>>);

/// What admitted tasks hold, from admission until their last part let go.
#[derive(Default)]
struct Load {
    tasks: AtomicUsize,
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    closing: bool,
}

/// A task with parts that nobody has taken yet.
struct Entry {
    flight: Arc<dyn Work>,
    next: usize,
}

/// A task, whatever its results are.
trait Work: Send + Sync {
    fn parts(&self) -> usize;
    fn is_cancelled(&self) -> bool;
    fn cancel(&self);
    /// Computes a part and keeps its result.
    fn run_part(&self, part: usize, searchers: &mut Searchers);
    /// Reports the first error and ends the other parts.
    fn fail(&self, error: PoolError);
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic runs under the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a part to compute; `None` once the pool closes.
    fn next_part(&self) -> Option<(Arc<dyn Work>, usize)> {
        let mut waiting = self.lock();
        loop {
            if waiting.closing {
                return None;
            }
            if let Some(Entry { flight, next }) = waiting.entries.pop_front() {
                if next + 1 < flight.parts() && !flight.is_cancelled() {
                    let flight = Arc::clone(&flight);
                    waiting.entries.push_back(Entry { flight, next: next + 1 });
                }
                return Some((flight, next));
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn work(queue: &Queue) {
    let mut searchers = Searchers::default();
    while let Some((flight, part)) = queue.next_part() {
        flight.run_part(part, &mut searchers);
    }
}

/// A task on its way.
struct Flight<R> {
    task: Task<R>,
    arrived: Instant,
    queued: OnceLock<Duration>,
    cancelled: AtomicBool,
    landed: Mutex<Landed<R>>,
    load: Arc<Load>,
}

/// The parts that are done, and whom to tell when all are.
struct Landed<R> {
    parts: Vec<Vec<R>>,
    missing: usize,
    reply: Option<oneshot::Sender<Result<Done<R>, PoolError>>>,
}

impl<R> Flight<R> {
    fn new(
        task: Task<R>,
        reply: oneshot::Sender<Result<Done<R>, PoolError>>,
        load: &Arc<Load>,
    ) -> Flight<R> {
        load.tasks.fetch_add(1, Ordering::Relaxed);
        load.bytes.fetch_add(task.bytes, Ordering::Relaxed);
        let parts = (0..task.parts).map(|_| Vec::new()).collect();
        Flight {
            arrived: Instant::now(),
            queued: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            landed: Mutex::new(Landed { parts, missing: task.parts, reply: Some(reply) }),
            load: Arc::clone(load),
            task,
        }
    }

    fn land(&self, part: usize, found: Vec<R>) {
        let mut landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        landed.parts[part] = found;
        landed.missing -= 1;
        if landed.missing > 0 {
            return;
        }
        let found = std::mem::take(&mut landed.parts).into_iter().flatten().collect();
        if let Some(reply) = landed.reply.take() {
            let queued = self.queued.get().copied().unwrap_or_default();
            // The receiver may have left at its deadline.
            let _ = reply.send(Ok(Done { found, queued }));
        }
    }
}

impl<R: Send> Work for Flight<R> {
    fn parts(&self) -> usize {
        self.task.parts
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn run_part(&self, part: usize, searchers: &mut Searchers) {
        self.queued.get_or_init(|| self.arrived.elapsed());
        let stop = Stop { deadline: Some(self.task.deadline), cancelled: Some(&self.cancelled) };
        if let Some(why) = stop.now() {
            return self.fail(PoolError::Stopped(why));
        }
        match catch_unwind(AssertUnwindSafe(|| (self.task.run)(searchers, part, &stop))) {
            Ok(Ok(found)) => self.land(part, found),
            Ok(Err(PartError::Search(SearchError::Stopped(why)))) => {
                self.fail(PoolError::Stopped(why));
            }
            Ok(Err(error)) => self.fail(error.into()),
            Err(_) => {
                // What the panic left behind is not to be searched with again.
                *searchers = Searchers::default();
                self.fail(PoolError::Panicked);
            }
        }
    }

    fn fail(&self, error: PoolError) {
        self.cancel();
        let mut landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = landed.reply.take() {
            let _ = reply.send(Err(error));
        }
    }
}

impl<R> Drop for Flight<R> {
    fn drop(&mut self) {
        self.load.tasks.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.task.bytes, Ordering::Relaxed);
    }
}

/// Ends the search when nobody waits for it any more, whether or not it has begun.
struct Abandon<'a> {
    queue: &'a Queue,
    flight: Arc<dyn Work>,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.flight.cancel();
        let mine = Arc::as_ptr(&self.flight);
        let same = |entry: &Entry| std::ptr::addr_eq(Arc::as_ptr(&entry.flight), mine);
        let mut waiting = self.queue.lock();
        if let Some(at) = waiting.entries.iter().position(same) {
            waiting.entries.remove(at);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
