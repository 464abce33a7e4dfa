//! A task in flight: what its parts found, and where its reply goes.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use foveal_index::{Answer, Query, SearchError, Segment, Stop};
use tokio::sync::oneshot;

use super::worker::Searchers;
use super::{Done, PartError, PoolError, Single, Task, Work};

/// What admitted tasks hold, from admission until their results are there and their last part let
/// go.
#[derive(Default)]
pub(super) struct Load {
    pub(super) tasks: AtomicUsize,
    pub(super) bytes: AtomicUsize,
}

/// A task, whatever the type of its results.
pub(super) trait ErasedTask: Send + Sync {
    fn parts(&self) -> usize;
    fn is_cancelled(&self) -> bool;
    fn cancel(&self);
    /// A worker takes it up.
    fn begin(&self);
    /// The search for one query that it is, if it is one.
    fn single(&self) -> Option<SingleQuery<'_>>;
    /// Computes a part and keeps its result.
    fn run_part(&self, part: usize, searchers: &mut Searchers);
    /// Keeps the answer to its one query.
    fn finish(&self, answer: Result<Answer, SearchError>);
    /// Reports the first error and ends the other parts.
    fn fail(&self, error: PoolError);
}

/// A search for one query, whatever becomes of its answer.
pub(super) struct SingleQuery<'a> {
    pub(super) slot: usize,
    pub(super) index: &'a Segment,
    pub(super) query: Query<'a>,
    pub(super) in_flight: usize,
}

/// A task in flight.
pub(super) struct TaskInFlight<R> {
    task: Task<R>,
    arrived: Instant,
    queued: OnceLock<Duration>,
    cancelled: AtomicBool,
    completed: Mutex<Completed<R>>,
}

/// The completed parts, and the reply that is sent when all are.
struct Completed<R> {
    parts: Vec<Vec<R>>,
    missing: usize,
    reply: Option<oneshot::Sender<Result<Done<R>, PoolError>>>,
    held: Option<Held>,
}

/// What one task adds to the load.
struct Held {
    load: Arc<Load>,
    bytes: usize,
}

impl Held {
    fn new(load: &Arc<Load>, bytes: usize) -> Held {
        load.tasks.fetch_add(1, Ordering::Relaxed);
        load.bytes.fetch_add(bytes, Ordering::Relaxed);
        Held { load: Arc::clone(load), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load.tasks.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl<R> TaskInFlight<R> {
    pub(super) fn new(
        task: Task<R>,
        reply: oneshot::Sender<Result<Done<R>, PoolError>>,
        load: &Arc<Load>,
    ) -> TaskInFlight<R> {
        let held = Some(Held::new(load, task.bytes));
        let missing = match task.work {
            Work::Parts(parts, _) => parts,
            Work::Single(_) => 1,
        };
        let parts = (0..missing).map(|_| Vec::new()).collect();
        TaskInFlight {
            arrived: Instant::now(),
            queued: OnceLock::new(),
            cancelled: AtomicBool::new(false),
            completed: Mutex::new(Completed { parts, missing, reply: Some(reply), held }),
            task,
        }
    }

    fn stop(&self) -> Stop<'_> {
        Stop { deadline: Some(self.task.deadline), cancelled: Some(&self.cancelled) }
    }

    fn completed(&self) -> MutexGuard<'_, Completed<R>> {
        self.completed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self, part: usize, found: Vec<R>) {
        let mut completed = self.completed();
        completed.parts[part] = found;
        completed.missing -= 1;
        if completed.missing > 0 {
            return;
        }
        completed.held = None;
        let found = std::mem::take(&mut completed.parts).into_iter().flatten().collect();
        if let Some(reply) = completed.reply.take() {
            let queued = self.queued.get().copied().unwrap_or_default();
            // The receiver may have left at its deadline.
            let _ = reply.send(Ok(Done { found, queued }));
        }
    }
}

impl<R: Send> ErasedTask for TaskInFlight<R> {
    fn parts(&self) -> usize {
        match self.task.work {
            Work::Parts(parts, _) => parts,
            Work::Single(_) => 1,
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    fn begin(&self) {
        self.queued.get_or_init(|| self.arrived.elapsed());
    }

    fn single(&self) -> Option<SingleQuery<'_>> {
        let Work::Single(Single { slot, index, query, params, in_flight, .. }) = &self.task.work
        else {
            return None;
        };
        let query = Query { row: query.row(0), params: *params, allowed: None, stop: self.stop() };
        Some(SingleQuery { slot: *slot, index, query, in_flight: *in_flight })
    }

    fn run_part(&self, part: usize, searchers: &mut Searchers) {
        let Work::Parts(_, run) = &self.task.work else { return };
        let stop = self.stop();
        if let Some(why) = stop.now() {
            return self.fail(PoolError::Stopped(why));
        }
        match run(searchers, part, &stop) {
            Ok(found) => self.complete(part, found),
            Err(error) => self.fail(error.into()),
        }
    }

    fn finish(&self, answer: Result<Answer, SearchError>) {
        let Work::Single(Single { finish, .. }) = &self.task.work else { return };
        let found = answer.map_err(PartError::from).and_then(|answer| finish(answer, &self.stop()));
        match found {
            Ok(found) => self.complete(0, vec![found]),
            Err(error) => {
                self.fail(error.into());
                self.completed().held = None;
            }
        }
    }

    fn fail(&self, error: PoolError) {
        self.cancel();
        let mut completed = self.completed();
        if let Some(reply) = completed.reply.take() {
            let _ = reply.send(Err(error));
        }
    }
}
