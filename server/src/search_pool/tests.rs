use std::sync::atomic::AtomicUsize;
use std::sync::{OnceLock, mpsc};

use foveal_datasets::{Metric, Values};

use super::*;
use crate::service::tests::{build, row};

const LONG: Duration = Duration::from_secs(60);

fn pool(threads: usize, max_pending: usize) -> Arc<SearchPool> {
    let limits = PoolLimits { threads, max_pending, max_pending_bytes: 1_000 };
    Arc::new(SearchPool::start(limits).unwrap())
}

fn task(
    parts: usize,
    run: impl Fn(usize, &Stop<'_>) -> Result<Vec<Found>, PartError> + Send + Sync + 'static,
) -> Task<Found> {
    let run = Box::new(move |_: &mut Searchers, part: usize, stop: &Stop<'_>| run(part, stop));
    Task { bytes: 10, deadline: Instant::now() + LONG, work: Work::Parts(parts, run) }
}

fn found(certified: u32) -> Found {
    let mut answer = Answer::default();
    answer.certified = certified;
    Found { answer, payloads: Vec::new() }
}

/// A task that holds its worker until the sender is dropped, and a receiver that says it began.
pub(crate) fn gate() -> (Task<Found>, mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (open, opened) = mpsc::channel::<()>();
    let (begun, began) = mpsc::channel();
    let opened = Mutex::new(opened);
    let run = move |_: usize, _: &Stop<'_>| {
        begun.send(()).unwrap();
        let _ = opened.lock().unwrap().recv();
        Ok(Vec::new())
    };
    (task(1, run), open, began)
}

fn spawn(
    pool: &Arc<SearchPool>,
    task: Task<Found>,
) -> tokio::task::JoinHandle<Result<Done<Found>, PoolError>> {
    let pool = Arc::clone(pool);
    tokio::spawn(async move { pool.run(task).await })
}

/// Waits, for a while, until something holds.
pub(crate) async fn until(mut what: impl FnMut() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(10), "it never came to pass");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn results_keep_the_order_of_parts() {
    for threads in [1, 3] {
        let run = |part: usize, _: &Stop<'_>| {
            // Later parts finish first.
            std::thread::sleep(Duration::from_millis(8 - part as u64));
            Ok(vec![found(2 * part as u32), found(2 * part as u32 + 1)])
        };
        let done = pool(threads, 9).run(task(8, run)).await.unwrap();
        let order: Vec<u32> = done.found.iter().map(|found| found.answer.certified).collect();
        assert_eq!(order, (0..16).collect::<Vec<u32>>(), "{threads} threads");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_and_recovers() {
    let pool = pool(1, 2);
    let (holder, open, began) = gate();
    let held = spawn(&pool, holder);
    until(|| began.try_recv().is_ok()).await;
    let waiting = spawn(&pool, task(1, |_, _| Ok(vec![found(7)])));
    until(|| pool.pending() == 2).await;

    let refused = pool.run(task(1, |_, _| Ok(Vec::new()))).await;
    assert!(matches!(refused, Err(PoolError::Full { pending: 2 })), "{refused:?}");

    drop(open);
    held.await.unwrap().unwrap();
    let done = waiting.await.unwrap().unwrap();
    assert_eq!(done.found[0].answer.certified, 7);
    assert!(done.queued > Duration::ZERO);
    until(|| pool.pending() == 0).await;
    pool.run(task(1, |_, _| Ok(Vec::new()))).await.unwrap();
}

#[tokio::test]
async fn bytes_count_as_well() {
    let heavy = Task { bytes: 1_001, ..task(1, |_, _| Ok(Vec::new())) };
    let refused = pool(1, 100).run(heavy).await;
    assert!(matches!(refused, Err(PoolError::Full { pending: 0 })), "{refused:?}");
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_worker_lives_on() {
    let pool = pool(1, 9);
    for _ in 0..3 {
        let result = pool.run(task(2, |_, _| panic!("on purpose"))).await;
        assert!(matches!(result, Err(PoolError::Panicked)), "{result:?}");
    }
    let done = pool.run(task(1, |_, _| Ok(vec![found(1)]))).await.unwrap();
    assert_eq!(done.found.len(), 1);
}

#[tokio::test]
async fn the_first_failure_ends_the_other_parts() {
    let pool = pool(2, 9);
    let result = pool
        .run(task(2, |part, stop| {
            if part == 0 {
                return Err(PartError::PayloadTooLarge { limit: 5 });
            }
            while stop.now().is_none() {
                std::thread::yield_now();
            }
            Err(SearchError::Stopped(Stopped::Cancelled).into())
        }))
        .await;
    let limit = PoolError::Part(PartError::PayloadTooLarge { limit: 5 }).to_string();
    assert_eq!(result.unwrap_err().to_string(), limit);
    until(|| pool.pending() == 0).await;
}

#[tokio::test]
async fn the_deadline_ends_a_search_that_runs_and_one_that_waits() {
    let pool = pool(1, 9);
    let (ended, end) = mpsc::channel();
    let soon = || Instant::now() + Duration::from_millis(30);
    let endless = task(1, move |_, stop| {
        loop {
            if let Some(why) = stop.now() {
                ended.send(why).unwrap();
                return Err(SearchError::Stopped(why).into());
            }
        }
    });
    let result = pool.run(Task { deadline: soon(), ..endless }).await;
    assert!(matches!(result, Err(PoolError::Stopped(Stopped::Deadline))), "{result:?}");
    until(|| end.try_recv().is_ok()).await;

    let (holder, open, began) = gate();
    let held = spawn(&pool, holder);
    until(|| began.try_recv().is_ok()).await;
    let late = task(1, |_, _| panic!("nobody waits for it"));
    let result = pool.run(Task { deadline: soon(), ..late }).await;
    assert!(matches!(result, Err(PoolError::Stopped(Stopped::Deadline))), "{result:?}");
    assert_eq!(pool.pending(), 1, "a task past its deadline left the queue");
    drop(open);
    held.await.unwrap().unwrap();
}

#[tokio::test]
async fn leaving_ends_the_search_and_frees_its_place() {
    let pool = pool(1, 9);
    let (begun, began) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let endless = task(1, move |_, stop| {
        begun.send(()).unwrap();
        loop {
            if let Some(why) = stop.now() {
                ended.send(why).unwrap();
                return Err(SearchError::Stopped(why).into());
            }
        }
    });
    let running = spawn(&pool, endless);
    until(|| began.try_recv().is_ok()).await;
    let waiting = spawn(&pool, task(1, |_, _| panic!("nobody waits for it")));
    until(|| pool.pending() == 2).await;

    waiting.abort();
    until(|| pool.pending() == 1).await;
    running.abort();
    let mut why = None;
    until(|| end.try_recv().map(|reason| why = Some(reason)).is_ok()).await;
    assert_eq!(why, Some(Stopped::Cancelled));
    until(|| pool.pending() == 0).await;
}

#[tokio::test]
async fn a_single_query_overtakes_the_rest_of_a_batch() {
    let pool = pool(1, 9);
    let (holder, open, began) = gate();
    let held = spawn(&pool, holder);
    until(|| began.try_recv().is_ok()).await;

    let order = Arc::new(Mutex::new(Vec::new()));
    let log = |name: &'static str| {
        let order = Arc::clone(&order);
        move |_: usize, _: &Stop<'_>| {
            order.lock().unwrap().push(name);
            Ok(Vec::new())
        }
    };
    let batch = spawn(&pool, task(50, log("batch")));
    until(|| pool.pending() == 2).await;
    let single = spawn(&pool, task(1, log("single")));
    until(|| pool.pending() == 3).await;
    drop(open);
    for task in [held, batch, single] {
        task.await.unwrap().unwrap();
    }
    let at = order.lock().unwrap().iter().position(|name| *name == "single");
    assert_eq!(at, Some(1), "after one part of the batch");
}

/// A search for row 7 of `index`, and what its result becomes.
fn single(
    (slot, index): (usize, &Segment),
    in_flight: usize,
    finish: impl Fn(Answer) -> Found + Send + Sync + 'static,
) -> Task<Found> {
    let query = Rows::new(index.dim(), Values::F32(row(7))).unwrap();
    let finish = Box::new(move |answer, _: &Stop<'_>| Ok(finish(answer)));
    let (index, params) = (index.clone(), SearchParams::new(3));
    let work = Work::Single(Single { slot, index, query, params, in_flight, finish });
    Task { bytes: 10, deadline: Instant::now() + LONG, work }
}

fn whole(answer: Answer) -> Found {
    Found { answer, payloads: Vec::new() }
}

#[tokio::test]
async fn searches_that_need_not_wait_for_rows_are_taken_up_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let index = Segment::open(build(dir.path(), "rows", Metric::L2, false)).unwrap();
    let wanted = index.searcher().search(&row(7)[..], &SearchParams::new(3)).unwrap();
    assert!(wanted.stats.hops > 0, "a search that is over at once takes no turns");
    let wanted = wanted.neighbors;
    // When the first has its answer all others wait, and when the last one has it nothing else is
    // pending.
    for in_flight in [4, 1] {
        let pool = pool(1, 9);
        let (holder, open, began) = gate();
        let held = spawn(&pool, holder);
        until(|| began.try_recv().is_ok()).await;
        let (seen, queue) = (Arc::new(OnceLock::new()), Arc::clone(&pool.queue));
        let (last, mut calls) = (Arc::new(AtomicUsize::new(0)), Vec::new());
        for (i, slot) in [0, 0, 0, 1, 0, 0, 0].into_iter().enumerate() {
            let (seen, queue) = (Arc::clone(&seen), Arc::clone(&queue));
            let (last, load) = (Arc::clone(&last), Arc::clone(&pool.load));
            let finish = move |answer| {
                seen.get_or_init(|| queue.lock().entries.len());
                last.store(load.tasks.load(Ordering::Relaxed), Ordering::Relaxed);
                whole(answer)
            };
            calls.push(spawn(&pool, single((slot, &index), in_flight, finish)));
            until(|| pool.pending() == i + 2).await;
        }
        drop(open);
        held.await.unwrap().unwrap();
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap().found[0].answer.neighbors, wanted);
        }
        assert_eq!(seen.get(), Some(&6), "{in_flight} in flight");
        assert_eq!(last.load(Ordering::Relaxed), 1, "{in_flight} in flight");
    }
}

#[tokio::test]
async fn a_panic_among_searches_leaves_none_without_a_result() {
    let dir = tempfile::tempdir().unwrap();
    let index = Segment::open(build(dir.path(), "rows", Metric::L2, false)).unwrap();
    let pool = pool(1, 9);
    let (holder, open, began) = gate();
    let held = spawn(&pool, holder);
    until(|| began.try_recv().is_ok()).await;
    let mut calls = Vec::new();
    for i in 0..7 {
        let finish = move |answer| if i == 3 { panic!("a defect") } else { whole(answer) };
        calls.push(spawn(&pool, single((0, &index), 4, finish)));
        until(|| pool.pending() == i + 2).await;
    }
    drop(open);
    held.await.unwrap().unwrap();
    for (i, call) in calls.into_iter().enumerate() {
        match call.await.unwrap() {
            Ok(done) => assert!(i != 3 && done.found.len() == 1),
            Err(error) => assert!(matches!(error, PoolError::Panicked), "{i}: {error}"),
        }
    }
    until(|| pool.pending() == 0).await;
    assert!(pool.run(single((0, &index), 4, whole)).await.is_ok());
}

#[tokio::test]
async fn closing_refuses_what_waits() {
    let (holder, open, began) = gate();
    let limits = PoolLimits { threads: 1, max_pending: 9, max_pending_bytes: 1_000 };
    let pool = SearchPool::start(limits).unwrap();
    let (held, _reply) = pool.admit(holder).ok().unwrap();
    until(|| began.try_recv().is_ok()).await;
    let (_, reply) = pool.admit(task(1, |_, _| panic!("it is closed"))).ok().unwrap();
    let closing = std::thread::spawn(move || drop(pool));
    assert!(matches!(reply.await, Ok(Err(PoolError::Closed))));
    drop(open);
    closing.join().unwrap();
    assert_eq!(Arc::strong_count(&held), 1, "the worker let go of it");
}
