//! Sends the calls: closed loop, where each waits for the one before it, or open loop, where
//! they start when they are meant to.
//!
//! An open loop keeps its promise however slow the server is: a call that finds every place taken
//! waits here, and its latency goes on counting from the moment at which it was meant to start.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::connection::{Client, Driver};
use super::requests::Requests;
use super::schedule::{Arrivals, Schedule};
use super::tally::{DAY, End, Tally, Timed, Window};
use crate::progress::Bars;

/// Pause of a closed loop after a call that failed: refusals would come as fast as they are
/// asked for.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the bar, which counts seconds, is looked after.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// What sets the pace.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The server: as soon as a call is answered, the next one starts.
    Closed,
    /// The clock.
    Open {
        /// Calls a second.
        rate: f64,
        /// How they follow each other.
        arrivals: Arrivals,
        /// Seed of their moments.
        seed: u64,
    },
}

/// How a run goes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What sets the pace.
    pub pace: Pace,
    /// Calls that wait for an answer on each connection: always (closed) or at most (open).
    pub in_flight: u32,
    /// Load before the measured one.
    pub warm_up: Duration,
    /// Load that is measured.
    pub length: Duration,
    /// How long calls may go on after it.
    pub drain: Duration,
}

impl Plan {
    /// Checks what a run could not be made of.
    ///
    /// # Errors
    /// Names the flag, what was found and what is wanted.
    pub fn check(&self) -> anyhow::Result<()> {
        if let Pace::Open { rate, .. } = self.pace
            && !(rate.is_finite() && rate > 0.0)
        {
            bail!("--rate {rate}; wanted a number of calls a second above 0");
        }
        if self.in_flight == 0 {
            bail!("--in-flight 0; wanted at least 1");
        }
        if self.length.is_zero() {
            bail!("--seconds 0; wanted more");
        }
        let together = self.warm_up.checked_add(self.length);
        if together.and_then(|sum| sum.checked_add(self.drain)).is_none_or(|sum| sum > DAY) {
            bail!("--warm-up, --seconds and --drain: more than a day; wanted less");
        }
        Ok(())
    }
}

/// What a run came to.
pub struct Driven {
    /// What became of the calls.
    pub tally: Tally,
    /// Cores that this program kept busy while it measured, in the mean.
    pub busy_cores: f64,
    /// Calls that were due and had not left when the measured time ended.
    pub backlog: u64,
}

/// What all workers of a run share.
struct Run {
    requests: Arc<Requests>,
    tally: Mutex<Tally>,
    queue: Queue,
    /// When no further call is meant to start.
    end: Instant,
    /// When nobody waits for an answer any longer.
    give_up: Instant,
}

/// Puts load on the server through every connection of `drivers`.
///
/// # Errors
/// A plan that cannot be: see [`Plan::check`].
pub fn drive(drivers: &[Driver], requests: &Arc<Requests>, plan: &Plan) -> anyhow::Result<Driven> {
    plan.check()?;
    let begun = Instant::now();
    let window = Window { from: begun + plan.warm_up, length: plan.length };
    let end = window.from + plan.length;
    let run = Arc::new(Run {
        requests: requests.clone(),
        tally: Mutex::new(Tally::new(window, requests.queries())?),
        queue: Queue::new(),
        end,
        give_up: end + plan.drain,
    });
    let bars = Bars::start();
    let connections: usize = drivers.iter().map(|driver| driver.clients.len()).sum();
    let (busy_cores, backlog) = std::thread::scope(|scope| {
        for driver in drivers {
            let run = run.clone();
            scope.spawn(move || driver.runtime.block_on(work(driver, &run, plan)));
        }
        if let Pace::Open { rate, arrivals, seed } = plan.pace {
            let run = run.clone();
            scope.spawn(move || {
                pace(Schedule::new(arrivals, rate, seed), begun, &run);
                run.queue.close(connections * plan.in_flight as usize);
            });
        }
        (busy_cores(begun, window, &bars), run.queue.waiting())
    });
    bars.finish();
    let run = Arc::into_inner(run).context("a worker outlived its run")?;
    let tally = run.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Driven { tally, busy_cores, backlog })
}

/// Hands out calls at the moments at which they are meant to start.
fn pace(schedule: Schedule, begun: Instant, run: &Run) {
    // A sleep of this thread ends when it should, not up to 50 us later.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    for moment in schedule {
        let intended = begun + moment;
        if intended >= run.end {
            break;
        }
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        run.queue.push(intended);
    }
}

/// Everything that a thread does in a run.
async fn work(driver: &Driver, run: &Arc<Run>, plan: &Plan) {
    let mut workers = JoinSet::new();
    for client in &driver.clients {
        for _ in 0..plan.in_flight {
            let (client, run) = (client.clone(), run.clone());
            match plan.pace {
                Pace::Closed => workers.spawn(async move { run.closed(client).await }),
                Pace::Open { .. } => workers.spawn(async move { run.open(client).await }),
            };
        }
    }
    workers.join_all().await;
}

impl Run {
    async fn closed(&self, mut client: Client) {
        loop {
            let intended = Instant::now();
            if intended >= self.end {
                break;
            }
            if !self.call(&mut client, self.queue.number(), intended).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn open(&self, mut client: Client) {
        while let Some((number, intended)) = self.queue.next().await {
            self.call(&mut client, number, intended).await;
        }
    }

    /// Makes one call and counts it; returns whether it was answered.
    async fn call(&self, client: &mut Client, number: u64, intended: Instant) -> bool {
        let left = Instant::now();
        let end = if left < self.give_up {
            let answer = client.send(self.requests.of(number));
            match timeout_at(self.give_up.into(), answer).await {
                Ok(Ok(answer)) => End::Answered(answer),
                Ok(Err(status)) => End::Failed(status.code()),
                Err(_) => End::Unanswered,
            }
        } else {
            End::Unanswered
        };
        let timed = Timed { number, intended, left, done: Instant::now() };
        let is_answered = matches!(end, End::Answered(_));
        lock(&self.tally).record(timed, end, &self.requests);
        is_answered
    }
}

/// Calls that are due and have not left: first meant, first sent.
struct Queue {
    due: Mutex<VecDeque<Instant>>,
    /// One permit for each of them, and at the end one for each worker.
    ready: Semaphore,
    numbers: AtomicU64,
}

impl Queue {
    fn new() -> Queue {
        let (due, numbers) = (Mutex::default(), AtomicU64::new(0));
        Queue { due, ready: Semaphore::new(0), numbers }
    }

    fn push(&self, intended: Instant) {
        lock(&self.due).push_back(intended);
        self.ready.add_permits(1);
    }

    /// How many calls are due and have not left.
    fn waiting(&self) -> u64 {
        lock(&self.due).len() as u64
    }

    /// Nothing follows; `workers` wait for more at most.
    fn close(&self, workers: usize) {
        self.ready.add_permits(workers);
    }

    /// The next call; `None` after the last.
    async fn next(&self) -> Option<(u64, Instant)> {
        self.ready.acquire().await.ok()?.forget();
        let intended = lock(&self.due).pop_front()?;
        Some((self.number(), intended))
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// Counts are whole after every statement: what a panic leaves behind can be read.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the measured time to pass, shows how far it has come, and reports how many cores this
/// process kept busy in it.
fn busy_cores(begun: Instant, window: Window, bars: &Bars) -> f64 {
    let used = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let sleep_until = |moment: Instant, stage: &'static str, from: Instant| {
        loop {
            let (left, gone) = (moment.saturating_duration_since(Instant::now()), from.elapsed());
            bars.tell(stage, gone.as_secs(), (moment - from).as_secs());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(SHOWN_EVERY));
        }
    };
    sleep_until(window.from, "warm-up", begun);
    let before = used();
    sleep_until(window.from + window.length, "measured", window.from);
    let busy = (used() - before) / window.length.as_secs_f64();
    bars.tell("last answers", 0, 0);
    busy
}
