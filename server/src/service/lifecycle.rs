//! How a server starts, says that it is ready, and drains.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tower::layer::layer_fn;
use tracing::{info, warn};

use super::call::Call;
use super::{Catalog, ServeError, Shared, transport};
use crate::config::{Config, Transport};
use crate::search_pool::{PoolLimits, SearchPool};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// How long those who watch health have to hear that the server is leaving.
const FAREWELL: Duration = Duration::from_millis(100);

/// Opens every collection, listens, calls `ready` with the address, and serves until `stop`
/// receives: then it drains, and a second time it cuts what is still in flight.
///
/// # Errors
/// An index, an address or a thread cannot be had; a stop before the server was ready.
pub async fn run(
    config: Config,
    ready: impl FnOnce(SocketAddr),
    mut stop: mpsc::Receiver<()>,
) -> Result<(), ServeError> {
    config.check()?;
    // The address is taken at once and listened on when there is something to say.
    let listen = config.listen;
    let socket = bind(listen)?;
    let transport = config.transport.clone();
    let opening = tokio::task::spawn_blocking(move || open(&config));
    let opened = tokio::select! {
        // A stop that came first counts, however quickly the collections opened.
        biased;
        Some(()) = stop.recv() => return Err(ServeError::Interrupted),
        opened = opening => opened.map_err(|error| ServeError::System {
            what: "a thread that opens collections",
            source: std::io::Error::other(error),
        })??,
    };
    let refused = |source| ServeError::Listen { address: listen, source };
    let listener = socket.listen(BACKLOG).map_err(refused)?;
    ready(listener.local_addr().map_err(refused)?);
    serve(listener, Arc::new(opened), &transport, stop).await
}

fn bind(listen: SocketAddr) -> Result<TcpSocket, ServeError> {
    let bound = || {
        let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted server must not wait for the connections of the one before.
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        Ok(socket)
    };
    bound().map_err(|source| ServeError::Listen { address: listen, source })
}

fn open(config: &Config) -> Result<Shared, ServeError> {
    let catalog = Catalog::open(config)?;
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let limits = PoolLimits {
        threads: if config.threads == 0 { cores() } else { config.threads },
        max_pending: config.limits.max_pending_requests,
        max_pending_bytes: config.limits.max_pending_bytes,
    };
    let pool = SearchPool::start(limits)
        .map_err(|source| ServeError::System { what: "threads that search", source })?;
    info!(threads = limits.threads, "search threads started");
    let limits = config.limits.clone();
    Ok(Shared { catalog, pool, limits, started: Instant::now() })
}

/// Serves `shared` on `listener` until `stop` receives, then drains: health says NOT_SERVING, no
/// connection is accepted, calls in flight have `drain_seconds` to finish. A second `stop` ends
/// the wait. A closed `stop` never stops.
///
/// # Errors
/// The transport failed.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    limits: &Transport,
    mut stop: mpsc::Receiver<()>,
) -> Result<(), ServeError> {
    let (routes, health) = transport::routes(&shared);
    transport::report(&health, ServingStatus::Serving).await;
    let timeout = Duration::from_millis(shared.limits.request_timeout_millis);
    let (drain, draining) = oneshot::channel::<()>();
    let serving = transport::server(limits, &shared.limits)
        .layer(layer_fn(move |inner| Call { inner, timeout }))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async move {
                // A sender that is gone says the same.
                let _ = draining.await;
            },
        );
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        Some(()) = stop.recv() => {}
    }

    let waited = Duration::from_secs(limits.drain_seconds);
    info!(pending = shared.pool.pending(), seconds = waited.as_secs(), "draining");
    transport::report(&health, ServingStatus::NotServing).await;
    let _ = drain.send(());
    let farewell = async {
        tokio::time::sleep(FAREWELL).await;
        transport::end_watches(health).await;
        std::future::pending().await
    };
    tokio::select! {
        ended = &mut serving => {
            info!("stopped");
            return Ok(ended?);
        }
        () = farewell => {}
        () = tokio::time::sleep(waited) => {}
        Some(()) = stop.recv() => {}
    }
    warn!(pending = shared.pool.pending(), "stopped with calls in flight");
    Ok(())
}
