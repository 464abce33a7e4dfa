//! Which connections there are: accepted up to a limit, each served by a task of its own, and ended
//! when the server drains.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tracing::warn;

use super::connection::{self, Activity, Rules};

/// How long nothing is accepted after the system refused a connection.
const BACK_OFF: Duration = Duration::from_millis(100);

/// How long a warning stays quiet after it was given.
const QUIET: Duration = Duration::from_secs(60);

/// The connections of a listener.
pub(super) struct Connections<S> {
    service: S,
    rules: Arc<Rules>,
    /// The most at a time.
    most: usize,
    /// Calls in flight on all of them.
    calls: Arc<AtomicUsize>,
    draining: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    /// Those that have said nothing yet, the oldest one first; and some that have by now.
    silent: VecDeque<(Arc<Activity>, AbortHandle)>,
    refused: Seldom,
}

impl<S> Connections<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
{
    /// None as yet; `draining` turns true when they are to end.
    pub(super) fn new(
        service: S,
        rules: Rules,
        most: usize,
        calls: Arc<AtomicUsize>,
        draining: watch::Receiver<bool>,
    ) -> Connections<S> {
        let (tasks, silent) = (JoinSet::new(), VecDeque::new());
        let refused = Seldom::default();
        let rules = Arc::new(rules);
        Connections { service, rules, most, calls, draining, tasks, silent, refused }
    }

    /// Accepts connections until the server drains; returns once all of them have ended. Those that
    /// are left when the future is dropped are cut.
    pub(super) async fn serve(mut self, listener: TcpListener) {
        let mut draining = self.draining.clone();
        let mut resume = None;
        loop {
            tokio::select! {
                _ = draining.wait_for(|drains| *drains) => break,
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(resume.unwrap_or_else(Instant::now)), if resume.is_some() => {
                    resume = None;
                }
                accepted = listener.accept(), if resume.is_none() => match accepted {
                    Ok((stream, _)) => self.begin(stream),
                    Err(error) if is_of_the_client(&error) => {}
                    Err(error) => {
                        // Out of descriptors or memory: what says nothing makes way.
                        self.end_a_silent_one();
                        self.refused.tell(|times| {
                            warn!(%error, times, "the system refuses connections");
                        });
                        resume = Some(Instant::now() + BACK_OFF);
                    }
                }
            }
        }
        drop(listener);
        while self.tasks.join_next().await.is_some() {}
    }

    fn begin(&mut self, stream: TcpStream) {
        let is_over = |(activity, task): &(Arc<Activity>, AbortHandle)| {
            task.is_finished() || !activity.is_silent()
        };
        while self.silent.front().is_some_and(is_over) {
            self.silent.pop_front();
        }
        if self.tasks.len() >= self.most {
            let most = self.most;
            self.refused.tell(|times| {
                warn!(
                    most,
                    times,
                    "as many connections as are allowed; a silent one, or else the \
                                    new one, is closed"
                );
            });
            if !self.end_a_silent_one() {
                return;
            }
        }
        // Answers leave at once; where that is refused they leave a little later.
        let _ = stream.set_nodelay(true);
        let activity = Activity::new(&self.calls);
        let (service, rules) = (self.service.clone(), Arc::clone(&self.rules));
        let (draining, of_task) = (self.draining.clone(), Arc::clone(&activity));
        let task = self.tasks.spawn(async move {
            connection::serve(stream, service, &rules, &of_task, draining).await;
        });
        self.silent.push_back((activity, task));
    }

    /// Ends the connection that has said nothing for longest; whether there is one.
    fn end_a_silent_one(&mut self) -> bool {
        while let Some((activity, task)) = self.silent.pop_front() {
            if activity.is_silent() && !task.is_finished() {
                task.abort();
                return true;
            }
        }
        false
    }
}

/// Whether a connection ended before it was accepted, which tells nothing of the next one.
fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A warning that is given at most once a minute.
#[derive(Default)]
struct Seldom {
    last: Option<Instant>,
    times: u64,
}

impl Seldom {
    /// Gives it, with how often there was reason to since it was last given, or stays quiet.
    fn tell(&mut self, give: impl FnOnce(u64)) {
        self.times += 1;
        if self.last.is_none_or(|last| last.elapsed() >= QUIET) {
            give(self.times);
            (self.last, self.times) = (Some(Instant::now()), 0);
        }
    }
}
