//! The configuration of a server: defaults, then a TOML file, then the environment, then flags; the
//! later wins. Unknown keys are errors in each of them. Limits live here.
//!
//! A key of the file `[limits] max_k = 100` is the variable `FOVEAL_SERVE_LIMITS__MAX_K=100`.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use foveal_datasets::ErrorKind;
use foveal_datasets::regular_file::{self, NotOpened};
use foveal_index::{Io, MAX_K, MAX_LIST_SIZE, MAX_THREADS};
use rustix::fs::OFlags;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};

use crate::size;

mod variables;

pub use variables::VARIABLE_PREFIX;

/// The most queries a batch may ever have, whatever the configuration says.
pub const MAX_BATCH_QUERIES: u32 = 4_096;

const MIB: u64 = 1 << 20;

/// The whole configuration of a server.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Whether to listen beyond this machine although nothing is encrypted and nobody is asked
    /// who they are.
    pub insecure: bool,
    /// Threads that search; 0 takes every core.
    pub threads: usize,
    /// The most bytes that compressed vectors, graphs, keys and full vectors of all collections
    /// may take in memory. Without it full vectors are loaded that fit into free memory; others
    /// stay on disk and in the page cache.
    #[serde(deserialize_with = "memory")]
    pub memory: Option<u64>,
    /// How full vectors are read; `Auto` decides by `memory`.
    #[serde(deserialize_with = "io")]
    pub io: Io,
    /// Names of collections and the directories of their indexes.
    pub collections: BTreeMap<String, PathBuf>,
    /// The limits of a request.
    pub limits: Limits,
    /// What a connection may do.
    pub transport: Transport,
}

/// The limits of a request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest `k`.
    pub max_k: u32,
    /// The largest list size.
    pub max_list_size: u32,
    /// The most queries in a batch.
    pub max_batch_queries: u32,
    /// The most hits a batch may request: its queries times `k`.
    pub max_batch_hits: u64,
    /// The most bytes a request to the search service may have.
    pub max_request_bytes: usize,
    /// The most bytes of payload a response brings along.
    pub max_payload_bytes: u64,
    /// The most requests that wait or are being answered.
    pub max_pending_requests: usize,
    /// The most bytes their queries may take.
    pub max_pending_bytes: usize,
    /// Milliseconds after which a request is given up, whatever deadline the caller set.
    pub request_timeout_millis: u64,
}

/// What a connection may do, and how long the server waits for it at the end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transport {
    /// Calls in flight on a connection.
    pub max_concurrent_streams: u32,
    /// Seconds of silence after which a client is asked whether it is there.
    pub keepalive_seconds: u64,
    /// Seconds it has to answer.
    pub keepalive_timeout_seconds: u64,
    /// Seconds after which a connection is asked to reconnect, so that load spreads.
    pub max_connection_age_seconds: u64,
    /// Seconds its calls then have to finish.
    pub max_connection_age_grace_seconds: u64,
    /// The most bytes of headers a request may have.
    pub max_header_list_bytes: u32,
    /// Streams that a client may have opened and reset before the server has seen to them, or made
    /// the server reset; not below `max_concurrent_streams`. Without it four times as many.
    pub max_pending_reset_streams: Option<usize>,
    /// Connections at a time; fewer where there are not so many file descriptors.
    pub max_connections: usize,
    /// Seconds a client has to say that it speaks HTTP/2.
    pub handshake_seconds: u64,
    /// Seconds that calls in flight have to finish when the server must stop.
    pub drain_seconds: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_151),
            insecure: false,
            threads: 0,
            memory: None,
            io: Io::Auto,
            collections: BTreeMap::new(),
            limits: Limits::default(),
            transport: Transport::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_k: MAX_K,
            max_list_size: MAX_LIST_SIZE,
            max_batch_queries: MAX_BATCH_QUERIES,
            max_batch_hits: MIB,
            max_request_bytes: 16 * MIB as usize,
            max_payload_bytes: 16 * MIB,
            max_pending_requests: 1_024,
            max_pending_bytes: 256 * MIB as usize,
            request_timeout_millis: 60_000,
        }
    }
}

impl Default for Transport {
    fn default() -> Transport {
        Transport {
            max_concurrent_streams: 256,
            keepalive_seconds: 30,
            keepalive_timeout_seconds: 10,
            max_connection_age_seconds: 3_600,
            max_connection_age_grace_seconds: 120,
            max_header_list_bytes: 16 << 10,
            max_pending_reset_streams: None,
            max_connections: 4_096,
            handshake_seconds: 5,
            drain_seconds: 10,
        }
    }
}

/// Why a configuration cannot be used: where it was said, what was found, what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no regular one, such as a pipe, which might never say anything.
    #[error("{}: is {found}; wanted a regular file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A source says something that cannot be understood, or under a key that is unknown.
    #[error("{origin}: {what}")]
    Source {
        /// The file, the environment or the flags.
        origin: String,
        /// What is wrong.
        what: String,
    },
    /// A value that is understood and cannot be used.
    #[error("{key} is {found}; wanted {wanted}")]
    Value {
        /// The key.
        key: String,
        /// What it was.
        found: String,
        /// What would do.
        wanted: String,
    },
}

impl ConfigError {
    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                ErrorKind::NoInput
            }
            ConfigError::NotAFile { .. } => ErrorKind::NoInput,
            ConfigError::Read { .. } => ErrorKind::Io,
            ConfigError::Source { .. } | ConfigError::Value { .. } => ErrorKind::Usage,
        }
    }
}

fn value_error(key: &str, found: impl ToString, wanted: &str) -> ConfigError {
    ConfigError::Value { key: key.into(), found: found.to_string(), wanted: wanted.into() }
}

impl Config {
    /// The configuration out of its sources: a file if there is one, the variables of the
    /// environment whose names start with [`VARIABLE_PREFIX`], and the flags as a table of the same
    /// shape as the file. Variables that platforms set for a service called `foveal` or
    /// `foveal-serve` are ignored; any other `FOVEAL_` that is unknown is an error.
    ///
    /// # Errors
    /// The first source that cannot be read or says something unknown; then the first value that
    /// cannot be used.
    pub fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: Table,
    ) -> Result<Config, ConfigError> {
        let mut merged = Table::new();
        if let Some(path) = file {
            merge(&mut merged, checked(file_table(path)?, &path.display().to_string())?);
        }
        merge(&mut merged, variables::table_of(variables)?);
        merge(&mut merged, checked(flags, "flags")?);

        let config = understood(merged, "configuration")?;
        config.check()?;
        Ok(config)
    }

    /// Whether every value can be used, and the server may listen on its address.
    ///
    /// # Errors
    /// The first value that cannot be used, named.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && !self.insecure {
            let wanted = "a loopback address, or --insecure, for nothing is encrypted \
                          and nobody is asked who they are";
            return Err(value_error("listen", self.listen, wanted));
        }
        if self.threads > MAX_THREADS {
            let wanted = format!("0 (every core) to {MAX_THREADS}");
            return Err(value_error("threads", self.threads, &wanted));
        }
        if matches!(self.io, Io::Mapped | Io::None) {
            let wanted = "auto, memory, pread or uring: a server never maps full vectors, \
                          because a mapped row is verified only once";
            return Err(value_error("io", self.io, wanted));
        }
        if self.collections.is_empty() {
            return Err(value_error("collections", "empty", "at least one --index NAME=DIR"));
        }
        self.collections.keys().try_for_each(|name| check_name(name))?;
        self.limits.check()?;
        self.transport.check()
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        for (key, found, high) in [
            ("limits.max_k", u64::from(self.max_k), u64::from(MAX_K)),
            ("limits.max_list_size", u64::from(self.max_list_size), u64::from(MAX_LIST_SIZE)),
            (
                "limits.max_batch_queries",
                u64::from(self.max_batch_queries),
                u64::from(MAX_BATCH_QUERIES),
            ),
            ("limits.max_batch_hits", self.max_batch_hits, 16 * MIB),
            ("limits.max_request_bytes", self.max_request_bytes as u64, 16 * MIB),
            ("limits.max_payload_bytes", self.max_payload_bytes, 256 * MIB),
            ("limits.max_pending_requests", self.max_pending_requests as u64, 1 << 20),
            ("limits.max_pending_bytes", self.max_pending_bytes as u64, 1 << 40),
            ("limits.request_timeout_millis", self.request_timeout_millis, 3_600_000),
        ] {
            in_range(key, found, high)?;
        }
        // Bytes become floats; what never fits would be told to come back for ever.
        let least = self.max_request_bytes.saturating_mul(4);
        if self.max_pending_bytes < least {
            let wanted = format!("at least four times limits.max_request_bytes, {least}");
            return Err(value_error("limits.max_pending_bytes", self.max_pending_bytes, &wanted));
        }
        Ok(())
    }
}

impl Transport {
    fn check(&self) -> Result<(), ConfigError> {
        const YEAR: u64 = 31_536_000;
        for (key, found, high) in [
            (
                "transport.max_concurrent_streams",
                u64::from(self.max_concurrent_streams),
                u64::from(u16::MAX),
            ),
            ("transport.keepalive_seconds", self.keepalive_seconds, YEAR),
            ("transport.keepalive_timeout_seconds", self.keepalive_timeout_seconds, YEAR),
            ("transport.max_connection_age_seconds", self.max_connection_age_seconds, YEAR),
            (
                "transport.max_connection_age_grace_seconds",
                self.max_connection_age_grace_seconds,
                YEAR,
            ),
            ("transport.max_header_list_bytes", u64::from(self.max_header_list_bytes), MIB),
            ("transport.max_connections", self.max_connections as u64, 1 << 20),
            ("transport.handshake_seconds", self.handshake_seconds, YEAR),
            ("transport.drain_seconds", self.drain_seconds, YEAR),
        ] {
            in_range(key, found, high)?;
        }
        let (resets, streams) = (self.pending_reset_streams(), self.max_concurrent_streams);
        if !(streams as usize..=1 << 20).contains(&resets) {
            // Callers behind one proxy may all give up at once.
            let wanted = format!("max_concurrent_streams, {streams}, to 1048576");
            return Err(value_error("transport.max_pending_reset_streams", resets, &wanted));
        }
        Ok(())
    }

    /// Streams that a client may have opened and reset before the server has seen to them.
    pub fn pending_reset_streams(&self) -> usize {
        self.max_pending_reset_streams.unwrap_or(4 * self.max_concurrent_streams as usize)
    }
}

fn in_range(key: &str, found: u64, high: u64) -> Result<(), ConfigError> {
    if (1..=high).contains(&found) {
        return Ok(());
    }
    Err(value_error(key, found, &format!("1 to {high}")))
}

/// Whether `name` can be the name of a collection: `[a-z0-9][a-z0-9._-]{0,62}`.
///
/// # Errors
/// The name and the rule.
pub fn check_name(name: &str) -> Result<(), ConfigError> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|b| alphanumeric(b) || b"._-".contains(&b))
        && name.bytes().next().is_some_and(alphanumeric);
    if fits {
        return Ok(());
    }
    let wanted = "1 to 63 of a-z 0-9 . _ - beginning with a letter or digit";
    Err(value_error("name of a collection", format!("{name:?}"), wanted))
}

/// The name and directory in `NAME=DIR`.
///
/// # Errors
/// No `=`, a name that cannot be one, or an empty directory.
pub fn parse_collection(text: &str) -> Result<(String, PathBuf), ConfigError> {
    let wanted = || value_error("--index", format!("{text:?}"), "NAME=DIR");
    let (name, path) = text.split_once('=').ok_or_else(wanted)?;
    check_name(name)?;
    if path.is_empty() {
        return Err(wanted());
    }
    Ok((name.into(), path.into()))
}

/// The file as a table; directories in it are relative to its own.
fn file_table(path: &Path) -> Result<Table, ConfigError> {
    let refused = |source| ConfigError::Read { path: path.into(), source };
    let file = regular_file::open(path, OFlags::empty()).map_err(|reason| match reason {
        NotOpened::NotRegular(found) => ConfigError::NotAFile { path: path.into(), found },
        NotOpened::Refused(source) => refused(source),
    })?;
    let text = io::read_to_string(file).map_err(refused)?;
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        let what = error.to_string();
        ConfigError::Source { origin: path.display().to_string(), what: one_line(&what) }
    })?;
    if let (Some(parent), Some(Value::Table(collections))) =
        (path.parent(), table.get_mut("collections"))
    {
        for (_, directory) in collections.iter_mut() {
            if let Value::String(text) = directory {
                *text = parent.join(&*text).to_string_lossy().into_owned();
            }
        }
    }
    Ok(table)
}

/// Puts `later` over `base`, table by table.
fn merge(base: &mut Table, later: Table) {
    for (key, value) in later {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// `table` as it is, once it is known to have no unknown key and no value of a wrong type.
fn checked(table: Table, origin: &str) -> Result<Table, ConfigError> {
    understood(table.clone(), origin)?;
    Ok(table)
}

fn understood(table: Table, origin: &str) -> Result<Config, ConfigError> {
    table.try_into().map_err(|error: toml::de::Error| ConfigError::Source {
        origin: origin.into(),
        what: one_line(&error.to_string()),
    })
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number of bytes or an amount such as \"2GiB\"")]
enum Amount {
    Bytes(u64),
    Text(String),
}

fn memory<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    match Amount::deserialize(from)? {
        Amount::Bytes(bytes) => Ok(Some(bytes)),
        Amount::Text(text) => size::parse(&text).map(Some).map_err(serde::de::Error::custom),
    }
}

fn io<'de, D: Deserializer<'de>>(from: D) -> Result<Io, D::Error> {
    String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> Table {
        text.parse().unwrap()
    }

    fn variables(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    const ONE: &str = "collections.wiki = \"/data/wiki\"";

    #[test]
    fn later_sources_win_key_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("foveal.toml");
        let text = "threads = 1\nmemory = \"2GiB\"\nio = \"pread\"\n\
                    [limits]\nmax_k = 10\nmax_batch_queries = 20\n\
                    [collections]\nwiki = \"wiki.index\"\nnews = \"/data/news\"\n";
        std::fs::write(&path, text).unwrap();
        let environment = variables(&[
            ("FOVEAL_SERVE_THREADS", "2"),
            ("FOVEAL_SERVE_LIMITS__MAX_K", "11"),
            ("FOVEAL_SERVE_COLLECTIONS__NEWS", "/elsewhere"),
            ("FOVEAL_CPU", "portable"),
            ("HOME", "/root"),
        ]);
        let config = Config::load(Some(&path), environment, flags("threads = 3")).unwrap();
        assert_eq!(config.threads, 3);
        assert_eq!((config.memory, config.io), (Some(2 << 30), Io::Pread));
        assert_eq!((config.limits.max_k, config.limits.max_batch_queries), (11, 20));
        assert_eq!(config.collections["wiki"], dir.path().join("wiki.index"));
        assert_eq!(config.collections["news"], Path::new("/elsewhere"));
        assert_eq!(config.transport, Transport::default());
    }

    #[test]
    fn unknown_keys_are_errors_in_every_source() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("foveal.toml");
        std::fs::write(&path, "[limits]\nmax_kk = 1\n").unwrap();
        let error = Config::load(Some(&path), [], flags(ONE)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let text = error.to_string();
        assert!(text.contains("foveal.toml") && text.contains("max_kk"), "{text}");
        assert!(!text.contains('\n'), "{text}");

        let environment = variables(&[("FOVEAL_SERVE_LISTN", "127.0.0.1:1")]);
        let text = Config::load(None, environment, flags(ONE)).unwrap_err().to_string();
        assert!(text.contains("FOVEAL_SERVE_LISTN") && text.contains("listn"), "{text}");

        let text = Config::load(None, [], flags("thread = 1")).unwrap_err().to_string();
        assert!(text.contains("flags") && text.contains("thread"), "{text}");
    }

    #[test]
    fn a_listener_beyond_this_machine_needs_insecure() {
        for (listen, allowed) in [
            ("127.0.0.1:0", true),
            ("127.8.8.8:50151", true),
            ("[::1]:50151", true),
            ("0.0.0.0:50151", false),
            ("[::]:50151", false),
            ("192.0.2.7:50151", false),
        ] {
            let table = flags(&format!("{ONE}\nlisten = \"{listen}\""));
            let plain = Config::load(None, [], table.clone());
            assert_eq!(plain.is_ok(), allowed, "{listen}");
            if let Err(error) = plain {
                assert_eq!(error.kind(), ErrorKind::Usage);
                assert!(error.to_string().contains("--insecure"), "{error}");
            }
            let mut told = table;
            told.insert("insecure".into(), Value::Boolean(true));
            assert!(Config::load(None, [], told).is_ok(), "{listen}");
        }
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (text, key) in [
            ("limits.max_k = 0", "limits.max_k"),
            ("limits.max_k = 16385", "limits.max_k"),
            ("limits.max_batch_queries = 4097", "limits.max_batch_queries"),
            ("limits.max_pending_requests = 0", "limits.max_pending_requests"),
            ("limits.max_pending_bytes = 67108863", "limits.max_pending_bytes"),
            ("transport.drain_seconds = 0", "transport.drain_seconds"),
            ("transport.handshake_seconds = 0", "transport.handshake_seconds"),
            ("transport.max_connections = 0", "transport.max_connections"),
            ("transport.max_pending_reset_streams = 255", "transport.max_pending_reset_streams"),
            ("threads = 9999", "threads"),
            ("io = \"mapped\"", "io"),
            ("io = \"floppy\"", "floppy"),
            ("memory = \"much\"", "much"),
            ("memory = -1", "memory"),
        ] {
            let error = Config::load(None, [], flags(&format!("{ONE}\n{text}"))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
            assert!(error.to_string().contains(key), "{text}: {error}");
        }
        let error = Config::load(None, [], Table::new()).unwrap_err();
        assert!(error.to_string().contains("--index"), "{error}");
        let error = Config::load(Some(Path::new("/no/such.toml")), [], Table::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoInput);
    }

    #[test]
    fn names_of_collections_are_names_and_no_paths() {
        let longest = "a".repeat(63);
        for name in ["a", "0", "wiki-2024.v1_x", "a..b", &longest] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let too_long = "a".repeat(64);
        for name in ["", "A", "-a", ".a", "..", "_a", "a/b", "a\\b", "a\0", "a b", "é", &too_long]
        {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        let (name, path) = parse_collection("wiki=/data/a=b").unwrap();
        assert_eq!((name.as_str(), path.as_path()), ("wiki", Path::new("/data/a=b")));
        for text in ["wiki", "=dir", "wiki=", "../x=dir", "Wiki=dir"] {
            assert!(parse_collection(text).is_err(), "{text}");
        }
    }
}
