//! `foveal-bench load`: how a server answers queries sent over the network.
//!
//! Requests are put together and connections are open before the first call is timed. Latency
//! counts from the moment at which a call was *meant* to start to its complete answer, so that a
//! server which stalls is charged for the calls that would have started meanwhile.
//!
//! A thread drives a fixed share of the connections, so with one connection there is one thread.
//! A unary call costs it about 30 us of a core with many calls in flight and twice that with one,
//! a quarter to a third of what the call costs the server; tens of thousands of calls a second
//! need more connections. The summary tells how many cores this program kept busy: where client
//! and server share a machine, what the client takes the server has not got, and the figures are
//! of both together.

mod connection;
mod drive;
mod requests;
mod schedule;
mod summary;
mod tally;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use foveal_datasets::recall::recall;
use foveal_datasets::{Metric, RowSource};
use foveal_proto::v1 as pb;

use crate::data::{Data, DataArgs};
use crate::line::{Call, Figures, Line, Load, Sink};
use crate::machine;
use connection::{Answer, connect};
use drive::{Driven, Pace, Plan, drive};
use requests::{Request, RequestParams, Requests};
use schedule::Arrivals;
use tally::Tally;

/// Queries of a batch, where none is given.
const DEFAULT_BATCH: u32 = 64;

/// How long the first call may take, before anything is measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// Put load on a running server and measure what its callers see.
///
/// Closed loop: calls in flight always wait for an answer, and the next starts when one arrives.
/// Open loop (--rate): calls start when they are meant to, however slow the server is, and
/// latency counts from that moment.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Where the server listens.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50151")]
    addr: String,
    /// The collection to search, made of the base of --data.
    #[arg(long, value_name = "NAME")]
    collection: String,
    /// Results wanted of a query.
    #[arg(long, default_value_t = 10)]
    k: u32,
    /// Candidates kept in a search [default: the server's]
    #[arg(long, value_name = "L")]
    list_size: Option<u32>,
    /// The call: one query, or many.
    #[arg(long, value_enum, default_value_t = CallName::Search)]
    call: CallName,
    /// Queries of a call, up to 4096, with --call searchbatch [default: 64]
    #[arg(long, value_name = "N")]
    batch: Option<u32>,
    /// Network connections, dealt out to as many threads, at most one a core.
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: u32,
    /// Calls that wait for an answer on each connection: always, or with --rate at most.
    #[arg(long, value_name = "N", default_value_t = 16)]
    in_flight: u32,
    /// Calls a second that start whatever the server does [default: closed loop]
    #[arg(long, value_name = "CALLS_PER_SECOND", allow_negative_numbers = true)]
    rate: Option<f64>,
    /// How they follow each other.
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    arrivals: Arrivals,
    /// Seed of their moments.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Seconds that are measured.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Seconds of load before them.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    warm_up: Duration,
    /// Seconds that calls may go on after them; those still unanswered are failures.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    drain: Duration,
    /// Append the line to this file [default: standard output]
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

/// A call as flags name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lowercase")]
enum CallName {
    Search,
    SearchBatch,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "wanted a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Puts load on a server for some seconds, writes one line and tells in words what it means.
///
/// # Errors
/// Flags that contradict each other; data that cannot be used; no server, another collection than
/// that of the data, a refused request; no call answered.
pub fn run(args: &LoadArgs) -> anyhow::Result<()> {
    let (params, plan) = (args.request_params()?, args.plan()?);
    let mut sink = Sink::open(args.out.as_deref())?;
    let data = Data::open(&args.data)?;
    data.check_k(args.k)?;
    let requests = Arc::new(Requests::new(&data.queries, &params)?);

    let drivers = connect(&args.addr, args.connections, machine::cores())?;
    let addr = || args.addr.clone();
    let (version, collection) = drivers[0].collection(&args.collection).with_context(addr)?;
    is_of(&collection, &data)?;
    // What the server refuses it refuses now.
    let answer = drivers[0].send(requests.of(0), PATIENCE).with_context(addr)?;
    let list_size = answer.list_size();
    for (query, list) in requests.queries_of(0).zip(answer.lists()) {
        data.check_answer(query, &list).with_context(addr)?;
    }

    let mut driven = drive(&drivers, &requests, &plan)?;
    let tally = &mut driven.tally;
    // Far above its capacity a server answers calls from before the measured time all through it.
    if tally.calls() == 0 && tally.answered_per_second() == 0.0 {
        let (failed, took) = (tally.failed(), plan.length + plan.drain);
        bail!("no call was answered in {took:?}; failed: {failed:?}; {} waited", driven.backlog);
    }
    let rest = |request| drivers[0].send(request, plan.drain);
    let recall = match send_the_rest(tally, rest, &requests) {
        Ok(()) => Some(recall_of(tally, &data, args.k)?),
        Err(error) => {
            summary::tell(&format!("no recall, for some queries were never answered: {error:#}"));
            None
        }
    };
    let load = load(args, &params, &driven, recall);
    summary::tell(&summary::of(&load, &driven, &plan));
    let list_size = list_size.map_or("default".into(), |size| size.to_string());
    sink.write(&Line {
        system: format!("foveal {}-bit", collection.bits),
        dataset: data.dataset(),
        params: match plan.pace {
            Pace::Closed => format!("L={list_size}"),
            Pace::Open { arrivals, .. } => format!("L={list_size} arrivals={}", arrivals.name()),
        },
        figures: Figures::Load(Box::new(load)),
        origin: machine::origin(format!("{version}, client {}", machine::commit())),
    })
}

impl LoadArgs {
    fn request_params(&self) -> anyhow::Result<RequestParams> {
        let (call, batch) = match (self.call, self.batch) {
            (CallName::Search, Some(batch)) if batch != 1 => {
                bail!(
                    "--batch {batch} with --call search, which asks one query; wanted searchbatch"
                )
            }
            (CallName::Search, _) => (Call::Search, 1),
            (CallName::SearchBatch, batch) => (Call::SearchBatch, batch.unwrap_or(DEFAULT_BATCH)),
        };
        if !(1..=requests::MAX_BATCH).contains(&batch) {
            bail!("--batch {batch}; wanted 1 to {}", requests::MAX_BATCH);
        }
        if let Some(list_size) = self.list_size.filter(|list_size| *list_size < self.k) {
            bail!("--list-size {list_size}; wanted at least k = {}", self.k);
        }
        if self.connections == 0 {
            bail!("--connections 0; wanted at least 1");
        }
        let (collection, list_size) = (self.collection.clone(), self.list_size);
        Ok(RequestParams { call, collection, k: self.k, list_size, batch })
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let (arrivals, seed) = (self.arrivals, self.seed);
        let pace = self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate, arrivals, seed });
        let (warm_up, length, drain) = (self.warm_up, self.seconds, self.drain);
        let plan = Plan { pace, in_flight: self.in_flight, warm_up, length, drain };
        plan.check().map(|()| plan)
    }
}

/// Whether a collection can hold the rows of the data.
fn is_of(collection: &pb::Collection, data: &Data) -> anyhow::Result<()> {
    let name = &collection.name;
    let metric = match collection.metric() {
        pb::Metric::L2 => Some(Metric::L2),
        pb::Metric::InnerProduct => Some(Metric::InnerProduct),
        pb::Metric::Cosine => Some(Metric::Cosine),
        pb::Metric::Unspecified => None,
    };
    let (dim, wanted) = (collection.dim as usize, data.base.dim());
    if dim != wanted {
        bail!("collection {name} has dimension {dim}; the data has {wanted}");
    }
    if metric != Some(data.metric) {
        let found = collection.metric().as_str_name();
        bail!("collection {name} has {found}; the truth is of {}", data.metric);
    }
    let (count, wanted) = (collection.count, data.base.len() as u64);
    if count != wanted {
        bail!("collection {name} has {count} vectors; the data has {wanted}");
    }
    Ok(())
}

/// Sends, untimed, the queries that a short run did not come to.
fn send_the_rest(
    tally: &mut Tally,
    send: impl Fn(Request) -> anyhow::Result<Answer>,
    requests: &Requests,
) -> anyhow::Result<()> {
    for number in requests.round() {
        let mut queries = requests.queries_of(number);
        if queries.any(|query| tally.answers()[query].is_none()) {
            tally.keep(number, send(requests.of(number))?, requests);
        }
    }
    Ok(())
}

fn recall_of(tally: &Tally, data: &Data, k: u32) -> anyhow::Result<f64> {
    let found: Option<Vec<_>> = tally.answers().iter().cloned().collect();
    let found = found.context("a batch was answered with fewer lists than it has queries")?;
    Ok(recall(&data.truth, &found, k as usize, data.metric)?)
}

fn load(args: &LoadArgs, params: &RequestParams, driven: &Driven, recall: Option<f64>) -> Load {
    let tally = &driven.tally;
    Load {
        k: params.k,
        call: params.call,
        batch: params.batch,
        connections: args.connections,
        in_flight: args.connections.saturating_mul(args.in_flight),
        intended_calls_per_second: args.rate,
        seconds: args.seconds.as_secs_f64(),
        calls: tally.calls(),
        failed: tally.failed().clone(),
        backlog: args.rate.map(|_| driven.backlog),
        qps: tally.answered_per_second() * f64::from(params.batch),
        recall,
        latency_us: tally.latency(),
        max_us: tally.max_us(),
        p50_over_time_us: tally.p50_over_time_us(),
    }
}
