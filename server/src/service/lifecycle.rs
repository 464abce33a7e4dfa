//! How a server starts, says that it is ready, reloads, and drains.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foveal_index::Io;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{error, info, warn};

use super::accept::Connections;
use super::call::Call;
use super::search_job::IN_FLIGHT_READING;
use super::{Catalog, ServeError, Shared, descriptors, transport};
use crate::config::{Config, ConfigError, Transport};
use crate::search_pool::{PoolLimits, SearchPool};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// How long those who watch health have to hear that the server is leaving.
const FAREWELL: Duration = Duration::from_millis(100);

/// Commands to a running server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Drain and end; a second time: end at once.
    Stop,
    /// Read the configuration again and open the collections that changed.
    Reload,
}

/// The configuration, read again. Called on a thread that may wait.
pub type LoadConfig = dyn Fn() -> Result<Config, ConfigError> + Send + Sync;

/// Opens every collection, listens, calls `ready` with the address, and serves until `commands`
/// has a stop: then it drains, and a second time it cuts what is still in flight. A reload takes
/// the configuration from `load`.
///
/// # Errors
/// None of the indexes, an address or a thread cannot be had; a stop before the server was ready.
pub async fn run(
    config: Config,
    load: Box<LoadConfig>,
    ready: impl FnOnce(SocketAddr),
    mut commands: mpsc::Receiver<Command>,
) -> Result<(), ServeError> {
    config.check()?;
    descriptors::raise_limit();
    // The address is taken at once and listened on when there is something to say.
    let listen = config.listen;
    let socket = bind(listen)?;
    let transport = config.transport.clone();
    let opened = config.clone();
    let mut opening = tokio::task::spawn_blocking(move || open(&opened));
    let opened = loop {
        tokio::select! {
            // A stop that came first counts, however quickly the collections opened.
            biased;
            Some(command) = commands.recv() => match command {
                Command::Stop => return Err(ServeError::Interrupted),
                // What is being opened is as new as can be.
                Command::Reload => info!("nothing to reload: the server is starting"),
            },
            opened = &mut opening => break opened.map_err(|error| ServeError::System {
                what: "a thread that opens collections",
                source: std::io::Error::other(error),
            })??,
        }
    };
    let refused = |source| ServeError::Listen { address: listen, source };
    let listener = socket.listen(BACKLOG).map_err(refused)?;
    ready(listener.local_addr().map_err(refused)?);
    let shared = Arc::new(opened);
    let reload = Reload::new(config, load);
    serve(listener, shared, &transport, reload, commands).await;
    Ok(())
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
    Ok(Shared::new(catalog, pool, config.limits.clone()))
}

/// Serves `shared` on `listener` until `commands` has a stop, then drains: health says NOT_SERVING,
/// no connection is accepted, connections without calls end, calls in flight have `drain_seconds`
/// to finish. A second stop ends the wait. Closed `commands` never stop.
pub async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    limits: &Transport,
    mut reload: Reload,
    mut commands: mpsc::Receiver<Command>,
) {
    let (routes, mut health) = transport::routes(&shared);
    transport::report(&health, ServingStatus::Serving, &shared.catalog()).await;
    let timeout = Duration::from_millis(shared.limits.request_timeout_millis);
    let (drain, draining) = watch::channel(false);
    let calls = Arc::new(AtomicUsize::new(0));
    let service = Call { inner: routes.prepare(), timeout };
    let most = descriptors::most_connections(limits.max_connections, rings(&shared));
    if most < limits.max_connections {
        info!(most, "fewer connections at a time than configured: file descriptors are limited");
    }
    let rules = transport::rules(limits);
    let connections = Connections::new(service, rules, most, Arc::clone(&calls), draining);
    let mut serving = pin!(connections.serve(listener));
    loop {
        tokio::select! {
            () = &mut serving => return,
            Some(command) = commands.recv() => match command {
                Command::Stop => break,
                Command::Reload => reload.begin(&shared),
            },
            before = reload.done() => {
                transport::report_change(&mut health, &before, &shared.catalog()).await;
                if std::mem::take(&mut reload.again) {
                    reload.begin(&shared);
                }
            }
        }
    }

    let waited = Duration::from_secs(limits.drain_seconds);
    let open = || calls.load(Ordering::Relaxed);
    info!(calls = open(), searches = shared.pool.pending(), seconds = waited.as_secs(), "draining");
    transport::report(&health, ServingStatus::NotServing, &shared.catalog()).await;
    // Whoever has ended already needs no telling.
    let _ = drain.send(true);
    let stopped = async {
        loop {
            match commands.recv().await {
                Some(Command::Stop) => return,
                Some(Command::Reload) => info!("nothing is reloaded: the server is stopping"),
                None => pending().await,
            }
        }
    };
    tokio::select! {
        () = &mut serving => info!("stopped"),
        () = farewell(health, &shared) => {}
        () = tokio::time::sleep(waited) => cut(open(), &shared),
        () = stopped => cut(open(), &shared),
    }
}

/// Ends the streams of those who watch health, once they have had time to hear of it.
async fn farewell(health: HealthReporter, shared: &Shared) {
    tokio::time::sleep(FAREWELL).await;
    transport::end_watches(health, &shared.catalog()).await;
    pending().await
}

fn cut(calls: usize, shared: &Shared) {
    let searches = shared.pool.pending();
    match calls {
        0 => info!("stopped; connections without calls were cut"),
        _ => warn!(calls, searches, "stopped with calls in flight"),
    }
}

/// Descriptors that readers of full vectors may take beside those that are open: each has a ring.
fn rings(shared: &Shared) -> usize {
    let reading = shared.catalog().iter().filter(|one| one.index.io() == Io::Uring).count();
    reading * shared.pool.limits().threads * IN_FLIGHT_READING
}

/// What reloading takes.
pub struct Reload {
    config: Arc<Config>,
    load: Arc<LoadConfig>,
    /// The reload under way, and the collections before it.
    running: Option<(JoinHandle<Option<Config>>, Arc<Catalog>)>,
    /// Whether another one was wanted meanwhile: what it is to see may have come too late for the
    /// one under way.
    again: bool,
}

impl Reload {
    /// Of a server that was started with `config`, whose sources `load` reads again.
    pub fn new(config: Config, load: Box<LoadConfig>) -> Reload {
        Reload { config: Arc::new(config), load: load.into(), running: None, again: false }
    }

    /// Begins a reload, or notes that one is to follow the one under way.
    fn begin(&mut self, shared: &Arc<Shared>) {
        if self.running.is_some() {
            self.again = true;
            return info!("a reload is under way; another one follows");
        }
        info!("reloading");
        let (before, load) = (Arc::clone(&self.config), Arc::clone(&self.load));
        let (catalog, shared) = (shared.catalog(), Arc::clone(shared));
        let task = tokio::task::spawn_blocking(move || reloaded(&shared, &before, &*load));
        self.running = Some((task, catalog));
    }

    /// Waits for the reload under way; the collections before it. Without one it waits for ever.
    async fn done(&mut self) -> Arc<Catalog> {
        let Some((task, _)) = &mut self.running else { return pending().await };
        let config = task.await.unwrap_or_else(|error| {
            error!(%error, "the reload failed by a defect of the server");
            None
        });
        self.config = config.map_or_else(|| Arc::clone(&self.config), Arc::new);
        self.running.take().map(|(_, before)| before).unwrap_or_default()
    }
}

/// Reads the configuration and opens the collections that changed; the configuration that holds
/// from now on, unless nothing was changed. The log tells.
fn reloaded(shared: &Shared, before: &Config, load: &LoadConfig) -> Option<Config> {
    let config = match load() {
        Ok(config) => config,
        Err(error) => {
            error!(%error, "not reloaded: the configuration cannot be used; all is as before");
            return None;
        }
    };
    if let Err(error) = shared.reload(&config) {
        error!(%error, "not reloaded; all is as before");
        return None;
    }
    let Config { collections, io, memory, .. } = config;
    let kept = Config { collections: collections.clone(), io, memory, ..before.clone() };
    let fresh = Config { collections, io, memory, ..config };
    if kept != fresh {
        warn!("settings other than collections, io and memory changed: they take a restart");
    }
    let catalog = shared.catalog();
    let (open, unavailable) = (catalog.iter().count(), catalog.unavailable().count());
    info!(open, unavailable, "reloaded");
    Some(kept)
}
