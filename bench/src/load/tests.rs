//! Whole runs against servers of known slowness, in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use foveal_datasets::{Rows, Truth, Values, VectorWriter};
use foveal_proto::v1::admin_service_server::{AdminService, AdminServiceServer};
use foveal_proto::v1::collection_service_server::{CollectionService, CollectionServiceServer};
use foveal_proto::v1::search_service_server::{SearchService, SearchServiceServer};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request as TonicRequest, Response, Status};

use super::tally::UNANSWERED;
use super::*;
use crate::line;

/// How long the slow server takes for a call, one call at a time.
const DELAY: Duration = Duration::from_millis(10);

/// What a server does with a call.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    /// Answers at once.
    Quick,
    /// Answers after `DELAY`, one call after the other.
    Slow,
    /// Refuses two of three.
    Refusing,
    /// Answers the first calls, then nothing.
    Silent,
}

#[derive(Clone)]
struct Fake {
    way: Way,
    turn: Arc<Mutex<()>>,
    calls: Arc<AtomicU64>,
}

impl Fake {
    async fn behave(&self) -> Result<(), Status> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.way {
            Way::Quick => Ok(()),
            Way::Slow => {
                let _turn = self.turn.lock().await;
                tokio::time::sleep(DELAY).await;
                Ok(())
            }
            Way::Refusing if call.is_multiple_of(3) => Ok(()),
            Way::Refusing => Err(Status::resource_exhausted("full")),
            Way::Silent if call < 20 => Ok(()),
            Way::Silent => std::future::pending().await,
        }
    }
}

/// Query `[q]` has the neighbors `q` and `q + 1`; a row farther away takes the place of the latter.
fn hits(query: u8) -> [(u64, f32); 2] {
    [(query.into(), 0.0), (u64::from(query) + 3, 9.0)]
}

fn bytes(data: Option<pb::vectors::Data>) -> Vec<u8> {
    match data.unwrap() {
        pb::vectors::Data::Raw(raw) => raw.values.to_vec(),
        pb::vectors::Data::F32(_) => panic!("bytes are raw"),
    }
}

#[tonic::async_trait]
impl SearchService for Fake {
    async fn search(
        &self,
        request: TonicRequest<pb::SearchRequest>,
    ) -> Result<Response<pb::SearchResponse>, Status> {
        self.behave().await?;
        let Some(pb::vector::Data::Raw(raw)) = request.into_inner().vector.unwrap().data else {
            panic!("bytes are raw")
        };
        let hit = |(key, distance)| pb::Hit { key, distance, ..pb::Hit::default() };
        let hits = hits(raw.values[0]).map(hit).into();
        let params = Some(pb::SearchParams { list_size: Some(64), ..Default::default() });
        Ok(Response::new(pb::SearchResponse { hits, params, ..Default::default() }))
    }

    async fn search_batch(
        &self,
        request: TonicRequest<pb::SearchBatchRequest>,
    ) -> Result<Response<pb::SearchBatchResponse>, Status> {
        self.behave().await?;
        let queries = bytes(request.into_inner().queries.unwrap().data);
        let list = |query: u8| {
            let (keys, distances) = hits(query).into_iter().unzip();
            pb::BatchHits { keys, distances, ..pb::BatchHits::default() }
        };
        let results = queries.into_iter().map(list).collect();
        Ok(Response::new(pb::SearchBatchResponse { results, ..Default::default() }))
    }

    async fn decode(
        &self,
        _: TonicRequest<pb::DecodeRequest>,
    ) -> Result<Response<pb::DecodeResponse>, Status> {
        Err(Status::unimplemented("no test calls it"))
    }

    async fn decode_batch(
        &self,
        _: TonicRequest<pb::DecodeBatchRequest>,
    ) -> Result<Response<pb::DecodeBatchResponse>, Status> {
        Err(Status::unimplemented("no test calls it"))
    }

    type DecodeStreamStream = tokio_stream::Empty<Result<pb::DecodeResponse, Status>>;

    async fn decode_stream(
        &self,
        _: TonicRequest<tonic::Streaming<pb::DecodeRequest>>,
    ) -> Result<Response<Self::DecodeStreamStream>, Status> {
        Err(Status::unimplemented("no test calls it"))
    }
}

#[tonic::async_trait]
impl CollectionService for Fake {
    async fn list(
        &self,
        _: TonicRequest<pb::ListCollectionsRequest>,
    ) -> Result<Response<pb::ListCollectionsResponse>, Status> {
        let collection = |name: &str, dim, metric: pb::Metric| pb::Collection {
            name: name.into(),
            count: 40,
            dim,
            metric: metric.into(),
            bits: 4,
            ..pb::Collection::default()
        };
        let collections = vec![
            collection("cosine", 1, pb::Metric::Cosine),
            collection("lines", 1, pb::Metric::L2),
            collection("planes", 2, pb::Metric::L2),
        ];
        Ok(Response::new(pb::ListCollectionsResponse { collections, unavailable: Vec::new() }))
    }

    async fn get(
        &self,
        _: TonicRequest<pb::GetCollectionRequest>,
    ) -> Result<Response<pb::GetCollectionResponse>, Status> {
        Err(Status::unimplemented("get"))
    }
}

#[tonic::async_trait]
impl AdminService for Fake {
    async fn server_info(
        &self,
        _: TonicRequest<pb::ServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfoResponse>, Status> {
        let version = "0.0.1".into();
        Ok(Response::new(pb::ServerInfoResponse { version, ..Default::default() }))
    }
}

/// A server on threads of its own, and a data set of 40 rows and 30 queries.
struct Place {
    dir: TempDir,
    addr: String,
    _runtime: Runtime,
}

impl Place {
    fn new(way: Way) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let write = |part: &str, n: u8| {
            let path = dir.path().join(format!("set.{part}.u8bin"));
            let rows = Rows::new(1, Values::U8((0..n).collect())).unwrap();
            let mut writer = VectorWriter::create(path, foveal_datasets::Element::U8, 1).unwrap();
            writer.append(&rows).unwrap();
            writer.finish().unwrap();
        };
        write("base", 40);
        write("query", 30);
        let keys = (0..30).flat_map(|query| [query, query + 1]).collect();
        let distances = [0.0, 1.0].repeat(30);
        let truth = Truth::new(30, 2, keys, Some(distances)).unwrap();
        truth.write(dir.path().join("set.gt.ibin")).unwrap();

        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let fake = Fake { way, turn: Arc::default(), calls: Arc::default() };
        let server = tonic::transport::Server::builder()
            .add_service(SearchServiceServer::new(fake.clone()))
            .add_service(CollectionServiceServer::new(fake.clone()))
            .add_service(AdminServiceServer::new(fake));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Place { dir, addr, _runtime: runtime }
    }

    fn run(&self, flags: &str) -> anyhow::Result<Line> {
        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: LoadArgs,
        }
        let dir = self.dir.path().display();
        // Later flags win over these.
        let line = format!(
            "load --addr {} --collection lines --data {dir}/set --metric l2 --k 2 --warm-up 0.2 \
             --seconds 1 --out {dir}/out.jsonl {flags}",
            self.addr
        );
        let command = <Cli as clap::CommandFactory>::command().args_override_self(true);
        let matches = command.try_get_matches_from(line.split_whitespace())?;
        run(&<Cli as clap::FromArgMatches>::from_arg_matches(&matches)?.args)?;
        Ok(line::read(&self.dir.path().join("out.jsonl"))?.pop().unwrap())
    }

    fn load(&self, flags: &str) -> Load {
        match self.run(flags).unwrap().figures {
            Figures::Load(load) => *load,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refuses(&self, flags: &str, wanted: &[&str]) {
        let error = format!("{:#}", self.run(flags).unwrap_err());
        for part in wanted {
            assert!(error.contains(part), "{flags}: {part:?} is not in {error}");
        }
    }
}

#[test]
fn a_closed_loop_sees_the_time_of_a_call_and_not_more() {
    let load = Place::new(Way::Slow).load("--in-flight 1");
    let p50 = load.latency_us.p50;
    assert!((9_000.0..100_000.0).contains(&p50), "{p50}");
    assert!((10..=101).contains(&load.calls), "{}", load.calls);
    assert!(load.failed.is_empty() && load.intended_calls_per_second.is_none());
    assert_eq!(load.backlog, None);
    // One after the other: four in flight wait for each other.
    let four = Place::new(Way::Slow).load("--in-flight 2 --connections 2");
    assert_eq!(four.in_flight, 4);
    assert!(four.latency_us.p50 > 35_000.0, "{}", four.latency_us.p50);
}

#[test]
fn an_open_loop_at_twice_the_capacity_tells_of_the_queue() {
    // 100 calls a second can be answered. Of 200 in a second, the last waits for 100 others: a
    // second at least, however few places there are and however slow this machine is.
    for arrivals in ["fixed", "poisson"] {
        let flags =
            format!("--rate 200 --in-flight 2 --warm-up 0 --drain 60 --arrivals {arrivals}");
        let load = Place::new(Way::Slow).load(&flags);
        let medians = &load.p50_over_time_us;
        let (first, last) = (medians[0], medians[9]);
        assert!(load.latency_us.p99 > 700_000.0, "{:?}", load.latency_us);
        assert!(last > 600_000.0 && last > 3.0 * first, "{medians:?}");
        assert!(load.failed.is_empty(), "{:?}", load.failed);
        // All are answered in the end, at most 100 of them in time.
        assert!((150..=250).contains(&load.calls), "{}", load.calls);
        assert!(load.qps < 102.0, "{}", load.qps);
    }
}

#[test]
fn far_above_the_capacity_what_was_answered_and_the_backlog_are_told() {
    // 100 calls a second can be answered: the 2,000 of the warm-up take all the time there is.
    let flags = "--rate 2000 --in-flight 2 --warm-up 1 --drain 0.2 --arrivals fixed";
    let load = Place::new(Way::Slow).load(flags);
    assert_eq!((load.calls, load.failed[UNANSWERED]), (0, 2000));
    assert!((20.0..102.0).contains(&load.qps), "{}", load.qps);
    assert!((3700..=4000).contains(&load.backlog.unwrap()), "{:?}", load.backlog);
    assert_eq!(load.recall, Some(0.5));
}

#[test]
fn an_open_loop_below_the_capacity_is_not_late() {
    let load = Place::new(Way::Quick).load("--rate 100 --arrivals fixed");
    assert!((99..=101).contains(&load.calls), "{}", load.calls);
    assert!(load.latency_us.p50 < 100_000.0, "{:?}", load.latency_us);
}

#[test]
fn recall_is_of_every_query_and_both_calls() {
    let place = Place::new(Way::Quick);
    let line = place.run("--seconds 0.3").unwrap();
    assert_eq!((line.system.as_str(), line.params.as_str()), ("foveal 4-bit", "L=64"));
    let Figures::Load(load) = line.figures else { panic!("{line:?}") };
    // One of two neighbors is right.
    assert_eq!((load.recall, load.batch), (Some(0.5), 1));
    assert!(load.qps > 10.0, "{}", load.qps);
    let load = place.load("--call searchbatch --batch 7 --seconds 0.3");
    assert_eq!((load.recall, load.batch, load.call), (Some(0.5), 7, Call::SearchBatch));
    // A run of few calls sends the rest afterwards.
    let load = place.load("--rate 20 --arrivals fixed --seconds 0.3");
    assert!(load.calls < 10 && load.recall == Some(0.5), "{load:?}");
}

#[test]
fn refusals_are_counted_by_code_and_have_no_latency() {
    let load = Place::new(Way::Refusing).load("--rate 300 --arrivals fixed");
    let refused = load.failed["RESOURCE_EXHAUSTED"];
    assert_eq!(load.calls + refused, 300);
    assert!((150..=250).contains(&refused), "{refused}");
    assert_eq!(load.failed.len(), 1);
}

#[test]
fn calls_that_are_never_answered_are_failures_that_waited() {
    // Of 100 calls at most 19 are answered; two are in flight for ever, the rest behind them.
    let flags = "--rate 100 --arrivals fixed --warm-up 0 --drain 0.5 --in-flight 2";
    let load = Place::new(Way::Silent).load(flags);
    let unanswered = load.failed["UNANSWERED"];
    assert_eq!(load.calls + unanswered, 100);
    assert!(unanswered >= 81, "{unanswered}");
    // Meant for 0.2 s or soon after, given up at 1.5 s.
    assert!(load.max_us > 1_200_000.0, "{}", load.max_us);
    assert!(load.latency_us.p50 > 700_000.0, "{:?}", load.latency_us);
    assert_eq!(load.recall, None);
}

#[test]
fn what_cannot_be_is_refused_and_says_why() {
    let place = Place::new(Way::Quick);
    place.refuses("--rate 0", &["--rate 0", "above 0"]);
    place.refuses("--rate -5", &["--rate -5"]);
    place.refuses("--rate NaN", &["--rate NaN"]);
    place.refuses("--call searchbatch --batch 4097", &["--batch 4097", "1 to 4096"]);
    place.refuses("--call searchbatch --batch 0", &["--batch 0"]);
    place.refuses("--batch 2", &["--batch 2 with --call search"]);
    place.refuses("--connections 0", &["--connections 0"]);
    place.refuses("--in-flight 0", &["--in-flight 0"]);
    place.refuses("--seconds 0", &["--seconds 0"]);
    place.refuses("--seconds=-1", &["--seconds"]);
    place.refuses("--seconds 1e9", &["a day"]);
    place.refuses("--list-size 1", &["--list-size 1", "k = 2"]);
    place.refuses("--k 3", &["k is 3", "1 to 2"]);
    place.refuses("--collection other", &["no collection \"other\"", "cosine, lines, planes"]);
    place.refuses("--collection planes", &["dimension 2", "has 1"]);
    place.refuses("--collection cosine", &["METRIC_COSINE", "l2"]);
    place.refuses("--addr no\\host", &["--addr no\\host", "HOST:PORT"]);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let place = Place::new(Way::Quick);
    // Nobody listens on a port that was just given back.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    place.refuses(&format!("--addr {addr}"), &[&addr, "no server answers", "foveal serve"]);
}
