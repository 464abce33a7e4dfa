//! `foveal serve`: collections over gRPC until told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use foveal_index::Io;
use foveal_server::config::{self, Config, ConfigError};
use foveal_server::service::{self, Command, ServeError};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use toml::{Table, Value};

use super::size;

/// Serve indexes over gRPC.
///
/// Each setting is taken from the flags, else from the environment (FOVEAL_SERVE_LISTEN,
/// FOVEAL_SERVE_LIMITS__MAX_K, ...), else from the configuration file, else from the defaults.
///
/// SIGTERM and SIGINT drain. SIGHUP reads the configuration again: collections that are new, or
/// whose files changed, are opened and take the place of those before; one that cannot be opened
/// leaves the one before in its place. Other settings take a restart.
#[derive(clap::Args)]
pub(crate) struct ServeArgs {
    /// Configuration file (TOML); its keys are those of the flags, `[collections]`, `[limits]`
    /// and `[transport]`.
    #[arg(long, value_name = "FILE", env = "FOVEAL_CONFIG")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:50151]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// A collection to serve: its name (`[a-z0-9][a-z0-9._-]*`) and the index; may be repeated.
    #[arg(long = "index", value_name = "NAME=DIR", value_parser = config::parse_collection)]
    indexes: Vec<(String, PathBuf)>,
    /// Threads that search; 0 takes every core [default: 0].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory for compressed and full vectors together, such as 8GiB: full vectors that do not
    /// fit are read from disk, and blocks of them kept. Without it those are loaded that fit into
    /// free memory; the page cache keeps others.
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    memory: Option<u64>,
    /// How full vectors are read [default: auto, which decides by --memory].
    #[arg(long, value_parser = served_io())]
    io: Option<Io>,
    /// Listen beyond this machine, unencrypted and open to everyone.
    #[arg(long)]
    insecure: bool,
}

/// Serves until SIGINT or SIGTERM, then drains. SIGHUP has the configuration read again.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let flags = args.table().map_err(ServeError::from)?;
    let file = args.config;
    let load = move || Config::load(file.as_deref(), variables()?, flags.clone());
    let config = load().map_err(ServeError::from)?;

    let runtime = runtime()?;
    let served = runtime.block_on(async {
        let commands = commands()?;
        service::run(config, Box::new(load), announce, commands).await
    });
    // An index that is still being loaded must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    Ok(served?)
}

/// The environment, as far as it is text.
///
/// # Errors
/// A `FOVEAL_` variable is not valid UTF-8.
fn variables() -> Result<Vec<(String, String)>, ConfigError> {
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        // A name that is not UTF-8 is not a FOVEAL_ name.
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => variables.push((name, value)),
            Err(_) if name.starts_with("FOVEAL_") => {
                return Err(ConfigError::Source { origin: name, what: "is not UTF-8".into() });
            }
            Err(_) => {}
        }
    }
    Ok(variables)
}

impl ServeArgs {
    /// The flags given, as the file would say them.
    fn table(&self) -> Result<Table, ConfigError> {
        let mut table = Table::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                table.insert(key.into(), value);
            }
        };
        set("listen", self.listen.map(|address| Value::String(address.to_string())));
        let threads = self.threads.map(|threads| i64::try_from(threads).unwrap_or(i64::MAX));
        set("threads", threads.map(Value::Integer));
        set("memory", self.memory.map(|bytes| Value::String(bytes.to_string())));
        set("io", self.io.map(|io| Value::String(io.to_string())));
        set("insecure", self.insecure.then_some(Value::Boolean(true)));
        let collections = self.collections()?;
        set("collections", (!collections.is_empty()).then_some(Value::Table(collections)));
        Ok(table)
    }

    fn collections(&self) -> Result<Table, ConfigError> {
        let mut collections = Table::new();
        for (name, dir) in &self.indexes {
            let refused = |wanted: &str| ConfigError::Value {
                key: "--index".into(),
                found: format!("{name}={}", dir.display()),
                wanted: wanted.into(),
            };
            let text = dir.to_str().ok_or_else(|| refused("a directory named in UTF-8"))?;
            if collections.insert(name.clone(), Value::String(text.into())).is_some() {
                return Err(refused("another name, for this one is given twice"));
            }
        }
        Ok(collections)
    }
}

/// As the other verbs take it, less `mapped`: a mapped row is verified only once.
fn served_io() -> impl TypedValueParser<Value = Io> {
    let names = ["auto", "memory", "pread", "uring"];
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Io>())
}

/// Searching has its own threads; these only move bytes.
fn runtime() -> Result<Runtime, ServeError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Builder::new_multi_thread()
        .worker_threads(cores.div_ceil(4).clamp(1, 8))
        .max_blocking_threads(cores.clamp(2, 16))
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(|source| ServeError::System { what: "threads that serve", source })
}

/// What signals say: SIGINT and SIGTERM to stop, SIGHUP to reload. None of them ends the process by
/// itself from now on.
fn commands() -> Result<mpsc::Receiver<Command>, ServeError> {
    let caught =
        |kind| signal(kind).map_err(|source| ServeError::System { what: "signals", source });
    let mut interrupt = caught(SignalKind::interrupt())?;
    let mut terminate = caught(SignalKind::terminate())?;
    let mut hang_up = caught(SignalKind::hangup())?;
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            let command = tokio::select! {
                _ = interrupt.recv() => Command::Stop,
                _ = terminate.recv() => Command::Stop,
                _ = hang_up.recv() => Command::Reload,
            };
            // Whoever has stopped listening is stopping already.
            if sender.send(command).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Tells scripts where to connect.
fn announce(address: SocketAddr) {
    let mut stdout = std::io::stdout().lock();
    // A reader that closed the pipe does not want to know.
    let _ = writeln!(stdout, "listening on {address}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn load(line: &str) -> Result<Config, String> {
        let words = std::iter::once("serve").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let table = line.args.table().map_err(|error| error.to_string())?;
        Config::load(None, [], table).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_the_configuration() {
        let config = load(
            "--listen 127.0.0.1:0 --index a=/x --index b=/y=z --threads 3 --memory 2GiB --io pread",
        )
        .unwrap();
        assert_eq!(config.listen.port(), 0);
        assert_eq!(config.collections["a"], PathBuf::from("/x"));
        assert_eq!(config.collections["b"], PathBuf::from("/y=z"));
        assert_eq!((config.threads, config.memory, config.io), (3, Some(2 << 30), Io::Pread));
        assert_eq!(load("--index a=/x").unwrap().listen, Config::default().listen);
    }

    #[test]
    fn mistakes_are_refused_with_what_to_do() {
        for (line, said) in [
            ("--index a=/x --listen 0.0.0.0:0", "--insecure"),
            ("--index A=/x", "a-z"),
            ("--index nothing", "NAME=DIR"),
            ("--index a=/x --io mapped", "mapped"),
            ("--index a=/x --index a=/y", "given twice"),
            ("", "--index"),
            ("--index a=/x --listen nowhere", "nowhere"),
        ] {
            let error = load(line).expect_err(line);
            assert!(error.contains(said), "{line}: {error}");
        }
        assert!(load("--index a=/x --listen 0.0.0.0:0 --insecure").is_ok());
    }
}
