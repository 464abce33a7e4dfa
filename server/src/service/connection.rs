//! One connection: it must say something soon, it ends politely at a certain age, and at once when
//! the server drains and nothing is left to do for it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tracing::debug;

/// What a client of HTTP/2 sends before everything else, in bytes.
const PREFACE: usize = 24;

/// How long a connection without calls has to take its leave when the server drains.
const FAREWELL: Duration = Duration::from_millis(100);

/// How long the last bytes of an answer may be on their way when the server drains.
const LINGER: Duration = Duration::from_secs(1);

/// What holds for every connection.
pub(super) struct Rules {
    /// The transport, with its limits.
    pub(super) http2: http2::Builder<TokioExecutor>,
    /// How long a client may take until it has said that it speaks HTTP/2.
    pub(super) handshake: Duration,
    /// When a connection is asked to end, so that load spreads.
    pub(super) age: Duration,
    /// How long its calls then have to finish.
    pub(super) grace: Duration,
}

/// What a connection does, as those see it who decide about its end.
pub(super) struct Activity {
    read: AtomicUsize,
    calls: AtomicUsize,
    /// Calls of all connections.
    all_calls: Arc<AtomicUsize>,
    started: Instant,
    /// Milliseconds from `started` to the end of the last call.
    last_call_millis: AtomicUsize,
}

impl Activity {
    pub(super) fn new(all_calls: &Arc<AtomicUsize>) -> Arc<Activity> {
        Arc::new(Activity {
            read: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            all_calls: Arc::clone(all_calls),
            started: Instant::now(),
            last_call_millis: AtomicUsize::new(0),
        })
    }

    /// Whether the client has not yet said that it speaks HTTP/2.
    pub(super) fn is_silent(&self) -> bool {
        self.read.load(Ordering::Relaxed) < PREFACE
    }

    /// Whether nothing is left to do for the client.
    fn is_done(&self) -> bool {
        let millis = self.last_call_millis.load(Ordering::Relaxed) as u64;
        let never = millis == 0;
        let since = self.started + Duration::from_millis(millis);
        self.calls.load(Ordering::Relaxed) == 0 && (never || since.elapsed() >= LINGER)
    }
}

/// A call in flight: from its arrival until its answer has left or was given up.
struct InFlight(Arc<Activity>);

impl InFlight {
    fn begin(activity: &Arc<Activity>) -> InFlight {
        activity.calls.fetch_add(1, Ordering::Relaxed);
        activity.all_calls.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(activity))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let InFlight(activity) = self;
        let millis = activity.started.elapsed().as_millis().max(1) as usize;
        activity.last_call_millis.store(millis, Ordering::Relaxed);
        activity.calls.fetch_sub(1, Ordering::Relaxed);
        activity.all_calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(
    stream: TcpStream,
    service: S,
    rules: &Rules,
    activity: &Arc<Activity>,
    mut draining: watch::Receiver<bool>,
) where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
{
    let io = TokioIo::new(Watched { stream, activity: Arc::clone(activity) });
    let service = Counted { inner: service, activity: Arc::clone(activity) };
    let mut connection = pin!(rules.http2.serve_connection(io, TowerToHyperService::new(service)));
    let greeting = poll_fn(|context| match connection.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(false),
        Poll::Pending if activity.is_silent() => Poll::Pending,
        Poll::Pending => Poll::Ready(true),
    });
    let goes_on = tokio::select! {
        goes_on = greeting => goes_on,
        () = sleep_until(activity.started + rules.handshake) => {
            debug!("closed a connection on which nothing was said");
            false
        }
        _ = draining.wait_for(|drains| *drains) => false,
    };
    if !goes_on {
        return;
    }

    let aged = activity.started + rules.age;
    let (mut is_aged, mut drains, mut look) = (false, false, aged);
    loop {
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(%error, "a connection ended");
                }
                return;
            }
            () = sleep_until(aged), if !is_aged => {
                is_aged = true;
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(aged + rules.grace), if is_aged => return,
            // A sender that is gone says the same.
            _ = draining.wait_for(|drains| *drains), if !drains => {
                (drains, look) = (true, Instant::now() + FAREWELL);
                connection.as_mut().graceful_shutdown();
            }
            () = sleep_until(look), if drains => {
                if activity.is_done() {
                    return;
                }
                look = Instant::now() + FAREWELL;
            }
        }
    }
}

/// A stream that counts the bytes read from it.
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len() - before;
        if self.activity.is_silent() {
            self.activity.read.fetch_add(read, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The services of one connection, with its calls counted.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    activity: Arc<Activity>,
}

impl<S> Service<Request<Incoming>> for Counted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::begin(&self.activity);
        let answer = self.inner.call(request.map(Body::new));
        Box::pin(async move {
            let response = answer.await?;
            // The call lasts as long as its body.
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let _ = &in_flight;
                    frame
                }))
            }))
        })
    }
}
