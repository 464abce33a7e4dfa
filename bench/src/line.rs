//! What was measured, one JSON object a line: written by every verb, read by `report`.
//!
//! A line names what was measured (system, data set, parameters), where and how (machine, commit,
//! command), and holds the figures of its kind. What another program does not tell stays out.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, bail};
use foveal_datasets::Metric;
pub use foveal_measure::Latency;
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// One measured point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Who was measured: `foveal 4-bit`, `faiss HNSW16`, `scann`.
    pub system: String,
    /// On what.
    pub dataset: Dataset,
    /// With which parameters, as its users would write them: `L=48`.
    pub params: String,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Where, when and by which command.
    pub origin: Origin,
}

/// The data of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// What it is called.
    pub name: String,
    /// Rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// Numbers a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim: Option<u32>,
    /// What near means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// xxh3-128 of the base file, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Where a line comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The machine, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// The version of the measured system: a commit, a release, compile options.
    pub version: String,
    /// When: UTC, RFC 3339.
    pub date: String,
    /// The command that was run.
    pub command: String,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Figures {
    /// How an index answers queries from its own process.
    Recall(Box<Recall>),
    /// What an index takes to build and to hold.
    Build(Build),
    /// How a server answers queries sent over the network.
    Load(Box<Load>),
}

/// How an index answers: one point of a recall curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Results wanted of a query.
    pub k: u32,
    /// Queries of a pass.
    pub queries: u64,
    /// Threads that searched.
    pub threads: u32,
    /// Queries that a thread had begun at a time.
    pub in_flight: u32,
    /// How full vectors were read; `None` where all of them are in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io: Option<String>,
    /// Whether every cache of full vectors was passed by.
    pub cold: bool,
    /// Share of the true `k` nearest found, ties by distance counted.
    pub recall: f64,
    /// The same at 1, 10 and 100, as far as `k` goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall_at: Option<RecallAt>,
    /// As ann-benchmarks counts: results no farther than the true `k`-th plus 1e-3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall_ann_benchmarks: Option<f64>,
    /// Queries a second in the median pass.
    pub qps: f64,
    /// Queries a second in the slowest and the fastest pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qps_spread: Option<[f64; 2]>,
    /// Timed passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passes: Option<u32>,
    /// Latency of a query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Latency>,
    /// What a query cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Growth of resident memory over the loaded vectors, per vector, the full store left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes_per_vector: Option<f64>,
    /// Bytes of the full store in memory, whoever caches them, per vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_store_cached_bytes_per_vector: Option<f64>,
}

/// Recall at customary cuts; only those that `k` reaches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecallAt {
    /// Of the nearest.
    #[serde(rename = "1")]
    pub one: f64,
    /// Of the 10 nearest.
    #[serde(rename = "10", skip_serializing_if = "Option::is_none")]
    pub ten: Option<f64>,
    /// Of the 100 nearest.
    #[serde(rename = "100", skip_serializing_if = "Option::is_none")]
    pub hundred: Option<f64>,
}

/// What the mean query cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Preview distances.
    pub distances: f64,
    /// Nodes expanded.
    pub hops: f64,
    /// Distinct 4 KiB blocks that fullview read.
    pub reads: f64,
    /// Of those, the ones read from the operating system.
    pub device_reads: f64,
    /// Bytes read from the operating system.
    pub read_bytes: f64,
}

/// What an index takes to build and to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// Threads that built.
    pub threads: u32,
    /// Seconds, from the opened file to the finished index.
    pub build_seconds: f64,
    /// The most memory held at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// Memory to answer queries, per vector, the full store left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes_per_vector: Option<f64>,
    /// Bytes of all files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Digest of the index, where equal builds have equal ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// How a server answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Results wanted of a query.
    pub k: u32,
    /// The call.
    pub call: Call,
    /// Queries of a call.
    pub batch: u32,
    /// Network connections.
    pub connections: u32,
    /// Calls that wait for an answer on all connections: exactly (closed loop) or at most (open).
    pub in_flight: u32,
    /// Calls a second that were meant to arrive; `None`: each waits for the one before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intended_calls_per_second: Option<f64>,
    /// Seconds of load that were measured.
    pub seconds: f64,
    /// Calls meant to start in them that were answered, sooner or later.
    pub calls: u64,
    /// Calls meant to start in them that failed, by gRPC code; `UNANSWERED`: given up after the
    /// drain.
    pub failed: std::collections::BTreeMap<String, u64>,
    /// Open loop: calls that were due and not sent when the measured time ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<u64>,
    /// Queries whose answers arrived in them, a second.
    pub qps: f64,
    /// Share of the true nearest found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Latency of a call, from the moment it was meant to start. Refused calls have none; those
    /// that were given up count with the time they had waited, a lower bound.
    pub latency_us: Latency,
    /// The worst latency.
    pub max_us: f64,
    /// Median latency of the calls meant for each tenth of the time: what grows is overload. Where
    /// calls were given up it falls again, for the last of them waited least.
    pub p50_over_time_us: Vec<f64>,
}

/// A call of the search service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// One query.
    Search,
    /// Many.
    SearchBatch,
}

/// Appends lines to a file, or prints them, each as soon as it is measured.
pub struct Sink {
    out: Box<dyn Write>,
    name: String,
}

impl Sink {
    /// Appends to `path`; prints to standard output where there is none.
    ///
    /// # Errors
    /// The file cannot be opened for writing.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Sink> {
        let Some(path) = path else {
            return Ok(Sink { out: Box::new(std::io::stdout()), name: "standard output".into() });
        };
        let name = path.display().to_string();
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Sink { out: Box::new(file.with_context(|| name.clone())?), name })
    }

    /// Writes one line, whole or not at all as far as the system goes.
    ///
    /// # Errors
    /// It cannot be written: a full disk, a closed pipe.
    pub fn write(&mut self, line: &Line) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.with_context(|| self.name.clone())
    }
}

/// All lines of a file.
///
/// # Errors
/// The file cannot be read; a line is none of ours, named with its number.
pub fn read(path: &Path) -> anyhow::Result<Vec<Line>> {
    let shown = path.display();
    let file = File::open(path).with_context(|| shown.to_string())?;
    let mut lines = Vec::new();
    for (number, text) in BufReader::new(file).lines().enumerate() {
        let text = text.with_context(|| shown.to_string())?;
        if text.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(&text) {
            Ok(line) => lines.push(line),
            Err(error) => bail!("{shown}: line {}: {error}", number + 1),
        }
    }
    Ok(lines)
}
