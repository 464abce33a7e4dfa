//! `foveal-bench look-ups`: how long does it take to get a row, or its payload, by its key?
//!
//! Keys are drawn at random, and each look-up is timed apart. One JSON object on stdout.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::ensure;
use clap::Args;
use foveal_bench::line::Latency;
use foveal_datasets::KeyedRows;
use foveal_datasets::seeded::Seeded;
use foveal_index::{Io, OpenOptions, Segment};
use serde::Serialize;

/// Measure look-ups of vectors and payloads by key.
#[derive(Args)]
pub(crate) struct LookUpsArgs {
    /// The index.
    #[arg(long, value_name = "DIR")]
    index: PathBuf,
    /// Look-ups of each kind.
    #[arg(long, default_value_t = 100_000)]
    count: usize,
    /// How full vectors are read.
    #[arg(long, default_value = "mapped")]
    io: Io,
    /// Draws the keys.
    #[arg(long, default_value_t = 42)]
    seed: u64,
}

#[derive(Serialize)]
struct LookUps {
    n: u64,
    count: usize,
    io: &'static str,
    /// The first look-up reads the order of all keys.
    first_micros: f64,
    vector: Latency,
    /// None where the index has no payloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Latency>,
}

/// Opens, draws keys, looks them up, prints.
///
/// # Errors
/// No index there, or a read that fails; a count of 0.
pub(crate) fn run(args: &LookUpsArgs) -> anyhow::Result<()> {
    ensure!(args.count > 0, "--count is 0; wanted at least 1");
    let index =
        Segment::open_with(&args.index, &OpenOptions { io: args.io, ..OpenOptions::default() })?;
    let all: Vec<u64> = index.keys().collect();
    let mut random = Seeded::new(args.seed);
    let drawn = (0..args.count).map(|_| all[random.below(all.len() as u64) as usize]);
    let keys: Vec<u64> = drawn.collect();
    let started = Instant::now();
    index.has_key(keys[0])?;
    let first_micros = started.elapsed().as_secs_f64() * 1e6;
    let vector = timed(&keys, |key| {
        let rows = index.rows(&[key])?;
        ensure!(rows.len() == 1, "no row for key {key}");
        Ok(())
    })?;
    let has_payloads = index.payload(keys[0])?.is_some();
    let payload = has_payloads.then(|| {
        timed(&keys, |key| {
            ensure!(index.payload(key)?.is_some(), "no payload for key {key}");
            Ok(())
        })
    });
    let found = LookUps {
        n: all.len() as u64,
        count: args.count,
        io: index.io().name(),
        first_micros,
        vector,
        payload: payload.transpose()?,
    };
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

fn timed(keys: &[u64], look_up: impl Fn(u64) -> anyhow::Result<()>) -> anyhow::Result<Latency> {
    let mut nanos = Vec::with_capacity(keys.len());
    for key in keys {
        let started = Instant::now();
        look_up(*key)?;
        nanos.push(started.elapsed().as_nanos() as u64);
    }
    Ok(Latency::of_nanos(&mut nanos))
}
