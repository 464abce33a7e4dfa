//! `foveal serve` as a process of its own, called by the generated clients.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use foveal_proto::v1 as pb;
use foveal_proto::v1::admin_service_client::AdminServiceClient;
use foveal_proto::v1::collection_service_client::CollectionServiceClient;
use foveal_proto::v1::search_service_client::SearchServiceClient;
use rustix::process::Signal;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::program::{PATIENCE, Place, Ran, Running};
use crate::vectors::{bytes, fbin, ibin, noise};

const ROWS: usize = 700;
/// Numbers in a row of [`place`].
pub const DIM: usize = 12;
/// The key of its first row.
pub const FIRST_KEY: u64 = 700;

/// A server, killed when it is forgotten.
pub struct Server {
    running: Running,
    /// Where it listens.
    pub address: String,
}

impl Server {
    /// Starts `foveal LINE` with more environment and waits until it prints its address.
    pub fn start(place: &Place, line: &str, environment: &[(&str, &str)]) -> Server {
        Server::announced(place.start_with(line, environment), line)
    }

    /// As [`Server::start`], by a line of sh that runs it as "$0" "$@".
    pub fn start_under(place: &Place, shell: &str, line: &str) -> Server {
        Server::announced(place.start_under(shell, line), line)
    }

    fn announced(mut running: Running, line: &str) -> Server {
        let out = running.child().stdout.take().expect("it is piped");
        let mut told = String::new();
        let mut out = BufReader::new(out);
        out.read_line(&mut told).unwrap();
        let Some(address) = told.trim().strip_prefix("listening on ") else {
            panic!("foveal {line}: {told}{}", running.end().err);
        };
        Server { running, address: address.to_string() }
    }

    /// Waits for its end.
    pub fn end(self) -> Ran {
        self.running.end()
    }

    /// A connection to it.
    pub async fn channel(&self) -> Channel {
        let address = format!("http://{}", self.address);
        Channel::from_shared(address).unwrap().connect().await.unwrap()
    }

    /// A client with a connection of its own.
    pub async fn search(&self) -> SearchServiceClient<Channel> {
        SearchServiceClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Asks it to stop, as ctrl-c does, and waits for its end.
    pub fn stop(mut self) -> Ran {
        self.running.signal(Signal::INT);
        self.running.end()
    }
}

/// The numbers of its rows.
pub fn rows() -> Vec<f32> {
    noise(ROWS * DIM, 21)
}

/// A place with `base.fbin`, `q.fbin` (50 other rows) and `index` with payloads.
pub fn place() -> Place {
    let place = Place::new();
    place.write("base.fbin", fbin(DIM, &rows()));
    place.write("q.fbin", fbin(DIM, &noise(50 * DIM, 22)));
    let lines: String = (0..ROWS).map(|row| format!("{{\"name\":\"row {row}\"}}\n")).collect();
    place.write("rows.jsonl", lines);
    place.ok(&format!(
        "build --base base.fbin --metric l2 --out index --payload rows.jsonl \
         --first-key {FIRST_KEY}"
    ));
    place
}

/// Serves it.
pub const SERVE: &str = "serve --listen 127.0.0.1:0 --index rows=index --threads 2";

/// A search for one query in `rows`.
pub fn one(query: &[f32], k: u32) -> pb::SearchRequest {
    let values = query.to_vec();
    pb::SearchRequest {
        collection: "rows".into(),
        vector: Some(pb::Vector { data: Some(pb::vector::Data::F32(pb::PackedFloat { values })) }),
        params: Some(pb::SearchParams { k: Some(k), ..Default::default() }),
        with_payload: false,
    }
}

fn batch(queries: &[f32], k: u32) -> pb::SearchBatchRequest {
    let raw = pb::Raw { dtype: pb::DType::F32.into(), values: bytes(queries).into() };
    let data = Some(pb::vectors::Data::Raw(raw));
    pb::SearchBatchRequest {
        collection: "rows".into(),
        queries: Some(pb::Vectors { dim: DIM as u32, data }),
        params: Some(pb::SearchParams { k: Some(k), ..Default::default() }),
        with_payload: false,
    }
}

/// What takes no longer than anything may.
pub async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("an answer in time")
}

#[track_caller]
fn is_error(status: &Status, code: Code, reason: &str) {
    assert_eq!(status.code(), code, "{status}");
    let info = status.get_details_error_info().expect("every error has an ErrorInfo");
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("foveal", reason), "{status}");
}

#[tokio::test]
async fn answers_are_those_of_the_command_line() {
    let place = place();
    place.ok("search --index index --queries q.fbin --k 10 --ids-out found.ibin");
    let found = ibin(&place.path("found.ibin"));
    let wanted: Vec<Vec<(u64, u32)>> = found
        .keys
        .iter()
        .zip(&found.distances)
        .map(|(keys, bits)| keys.iter().map(|key| *key as u64).zip(bits.iter().copied()).collect())
        .collect();

    for flags in ["", "--io pread", "--memory 1GiB"] {
        let server = Server::start(&place, &format!("{SERVE} {flags}"), &[]);
        let mut client = server.search().await;
        let queries = noise(50 * DIM, 22);
        for (query, wanted) in queries.chunks(DIM).zip(&wanted) {
            let response = within(client.search(one(query, 10))).await.unwrap().into_inner();
            let told: Vec<(u64, u32)> =
                response.hits.iter().map(|hit| (hit.key, hit.distance.to_bits())).collect();
            assert_eq!(told, *wanted);
            assert!(response.hits.iter().all(|hit| hit.score == 0.0 - hit.distance));
            assert!(!response.exhausted && !response.partial);
            let usage = response.usage.unwrap();
            assert!(usage.distances > 0 && usage.hops > 0, "{usage:?}");
        }
        let response = within(client.search_batch(batch(&queries, 10))).await.unwrap().into_inner();
        let told: Vec<Vec<(u64, u32)>> = response
            .results
            .iter()
            .map(|hits| {
                let bits = hits.distances.iter().map(|distance| distance.to_bits());
                hits.keys.iter().copied().zip(bits).collect()
            })
            .collect();
        assert_eq!(told, wanted, "{flags}");
        assert_eq!(response.params.unwrap().list_size, Some(64));
        let ended = server.stop();
        assert_eq!(ended.code, 0, "{}", ended.err);
    }
}

#[tokio::test]
async fn payloads_and_everything_there_is_on_request() {
    let place = place();
    let server = Server::start(&place, SERVE, &[]);
    let mut client = server.search().await;
    let request = pb::SearchRequest { with_payload: true, ..one(&rows()[..DIM], 1_000) };
    let response = within(client.search(request)).await.unwrap().into_inner();
    assert!(response.exhausted);
    assert_eq!(response.hits.len(), ROWS);
    assert_eq!((response.hits[0].key, response.hits[0].distance), (FIRST_KEY, 0.0));
    for hit in &response.hits {
        let wanted = format!("{{\"name\":\"row {}\"}}", hit.key - FIRST_KEY);
        assert_eq!(hit.payload.as_deref(), Some(wanted.as_str()));
    }
}

#[tokio::test]
async fn a_server_tells_of_itself() {
    let place = place();
    let server = Server::start(&place, SERVE, &[("FOVEAL_SERVE_LIMITS__MAX_K", "77")]);
    let channel = server.channel().await;
    let list = CollectionServiceClient::new(channel.clone())
        .list(pb::ListCollectionsRequest {})
        .await
        .unwrap()
        .into_inner();
    let [collection] = &list.collections[..] else { panic!("{list:?}") };
    assert_eq!((collection.name.as_str(), collection.count), ("rows", ROWS as u64));
    assert_eq!((collection.dim, collection.metric()), (DIM as u32, pb::Metric::L2));
    assert_eq!(collection.digest, place.json("inspect index")["digest"].as_str().unwrap());
    let info = AdminServiceClient::new(channel)
        .server_info(pb::ServerInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.search_threads, 2);
    assert_eq!(place.ok("--version").out.trim(), format!("foveal {}", info.version));
    assert_eq!(info.limits.unwrap().max_k, 77);
}

#[tokio::test]
async fn health_changes_when_the_server_drains() {
    let place = place();
    let server = Server::start(&place, SERVE, &[]);
    let mut health = HealthClient::new(server.channel().await);
    let service = "foveal.v1.SearchService".to_string();
    let request = HealthCheckRequest { service };
    let status = within(health.check(request.clone())).await.unwrap().into_inner().status();
    assert_eq!(status, ServingStatus::Serving);
    let mut watch = within(health.watch(request)).await.unwrap().into_inner();
    let status = within(watch.next()).await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::Serving);
    // Stopping blocks this thread; the stream is looked at afterwards.
    let address = server.address.clone();
    let ended = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert_eq!(ended.code, 0, "{}", ended.err);
    let status = within(watch.next()).await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::NotServing);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let place = place();
    let server = Server::start(&place, SERVE, &[]);
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let question = ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(server.channel().await);
    let answers = client.server_reflection_info(tokio_stream::iter([question]));
    let mut answers = within(answers).await.unwrap().into_inner();
    let answer = within(answers.next()).await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["foveal.v1.SearchService", "foveal.v1.CollectionService", "grpc.health.v1.Health"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
}

#[tokio::test]
async fn a_collection_that_is_not_there() {
    let place = place();
    let server = Server::start(&place, SERVE, &[]);
    let mut client = server.search().await;
    let mut request = one(&rows()[..DIM], 5);
    request.collection = "nobody".into();
    let status = within(client.search(request)).await.unwrap_err();
    is_error(&status, Code::NotFound, "COLLECTION_NOT_FOUND");
    let info = status.get_details_resource_info().expect("which resource");
    assert_eq!(info.resource_name, "nobody");
    for name in ["", "../index", "a\0b", "/etc", "Rows"] {
        let mut request = batch(&rows()[..DIM], 5);
        request.collection = name.into();
        let status = within(client.search_batch(request)).await.unwrap_err();
        is_error(&status, Code::InvalidArgument, "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn arguments_that_make_no_sense_are_named() {
    let place = place();
    let server = Server::start(&place, SERVE, &[]);
    let mut client = server.search().await;
    let row = &rows()[..DIM];
    let with = |params: pb::SearchParams| {
        let mut request = one(row, 5);
        request.params = Some(params);
        request
    };
    let mut not_finite = row.to_vec();
    not_finite[3] = f32::NAN;
    let unset = pb::SearchParams::default();
    let given = |k, list_size, rerank_size| pb::SearchParams { k, list_size, rerank_size, ..unset };
    let bytes_of = |dtype: pb::DType, len: usize| {
        let raw = pb::Raw { dtype: dtype.into(), values: vec![0; len].into() };
        let vector = Some(pb::Vector { data: Some(pb::vector::Data::Raw(raw)) });
        pb::SearchRequest { vector, ..one(row, 5) }
    };
    for (request, field) in [
        (one(&row[..DIM - 1], 5), "vector"),
        (one(&[], 5), "vector"),
        (one(&not_finite, 5), "vector"),
        (pb::SearchRequest { vector: None, ..one(row, 5) }, "vector"),
        (bytes_of(pb::DType::Unspecified, 48), "vector.raw.dtype"),
        (bytes_of(pb::DType::F32, 47), "vector.raw.values"),
        (bytes_of(pb::DType::F16, 48), "vector"),
        (one(row, 0), "params.k"),
        (one(row, 16_385), "params.k"),
        (one(row, u32::MAX), "params.k"),
        (with(given(Some(10), Some(9), None)), "params.list_size"),
        (with(given(Some(10), Some(65_537), None)), "params.list_size"),
        (with(given(Some(10), Some(64), Some(9))), "params.rerank_size"),
        (with(given(Some(10), Some(64), Some(65))), "params.rerank_size"),
    ] {
        let status = within(client.search(request)).await.unwrap_err();
        is_error(&status, Code::InvalidArgument, "INVALID_REQUEST");
        let told = status.get_details_bad_request().expect("which field");
        assert_eq!(told.field_violations[0].field, field, "{status}");
        assert!(!told.field_violations[0].description.is_empty());
    }

    let mut third_bad = rows()[..5 * DIM].to_vec();
    third_bad[2 * DIM + 1] = f32::INFINITY;
    let mut narrow = batch(row, 5);
    narrow.queries.as_mut().unwrap().dim = DIM as u32 - 1;
    for (request, field) in [
        (batch(&third_bad, 5), "queries[2]"),
        (batch(&[], 5), "queries"),
        (batch(&rows()[..DIM + 1], 5), "queries"),
        (narrow, "queries.dim"),
        (pb::SearchBatchRequest { queries: None, ..batch(row, 5) }, "queries"),
        (batch(row, 0), "params.k"),
        (batch(&noise(DIM * 4_097, 1), 1), "queries"),
        (batch(&noise(DIM * 4_096, 1), 16_384), "params.k"),
    ] {
        let status = within(client.search_batch(request)).await.unwrap_err();
        is_error(&status, Code::InvalidArgument, "INVALID_REQUEST");
        let told = status.get_details_bad_request().expect("which field");
        assert_eq!(told.field_violations[0].field, field, "{status}");
    }
    // After all that the server answers as before.
    assert_eq!(
        within(client.search(one(row, 1))).await.unwrap().into_inner().hits[0].key,
        FIRST_KEY
    );
}

#[tokio::test]
async fn a_message_beyond_the_limit() {
    let place = place();
    let server = Server::start(&place, SERVE, &[]);
    let mut client = server.search().await;
    let huge = noise((17 << 20) / 4 / DIM * DIM, 1);
    let status = within(client.search_batch(batch(&huge, 1))).await.unwrap_err();
    is_error(&status, Code::OutOfRange, "MESSAGE_TOO_LARGE");
    assert!(within(client.search(one(&rows()[..DIM], 1))).await.is_ok());
}

#[tokio::test]
async fn deadlines_are_kept() {
    let place = place();
    // The server's own limit; the batch takes longer than a millisecond.
    let limit = [("FOVEAL_SERVE_LIMITS__REQUEST_TIMEOUT_MILLIS", "1")];
    let server = Server::start(&place, SERVE, &limit);
    let mut client = server.search().await;
    let status = within(client.search_batch(batch(&noise(DIM * 4_096, 1), 200))).await.unwrap_err();
    is_error(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    drop(server);

    // The caller's.
    let server = Server::start(&place, SERVE, &[]);
    let mut client = server.search().await;
    let mut request = Request::new(one(&rows()[..DIM], 5));
    request.set_timeout(Duration::from_nanos(1));
    let status = within(client.search(request)).await.unwrap_err();
    // The client's library does not wait for the server to say so, and has its own word for it.
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()), "{status}");
    let mut request = Request::new(one(&rows()[..DIM], 5));
    request.set_timeout(Duration::from_secs(60));
    assert!(within(client.search(request)).await.is_ok());
}

#[test]
fn servers_that_must_not_start() {
    let place = place();
    place.write("unknown.toml", "lissten = \"127.0.0.1:0\"\n");
    place.write("nested.toml", "[limits]\nmax_kk = 5\n");
    place.write("broken.toml", "listen = \n");
    place.write("range.toml", "[limits]\nmax_k = 0\n");
    for (line, code, wanted) in [
        ("serve --listen 0.0.0.0:0 --index a=index", 2, &["0.0.0.0:0", "--insecure"][..]),
        ("serve --listen [::]:0 --index a=index", 2, &["[::]:0", "--insecure"]),
        ("serve --listen 127.0.0.1:0", 2, &["--index"]),
        ("serve --listen 127.0.0.1:0 --index A=index", 2, &["A"]),
        ("serve --listen 127.0.0.1:0 --index a=gone", 66, &["collection a", "gone"]),
        ("serve --listen 127.0.0.1:0 --index a=index --memory 1KiB", 2, &["collection a"]),
        ("serve --config unknown.toml --index a=index", 2, &["unknown.toml", "lissten"]),
        ("serve --config nested.toml --index a=index", 2, &["nested.toml", "max_kk"]),
        ("serve --config broken.toml --index a=index", 2, &["broken.toml"]),
        ("serve --config range.toml --index a=index", 2, &["limits.max_k is 0"]),
        ("serve --config gone.toml --index a=index", 66, &["gone.toml"]),
    ] {
        let ran = place.run(line);
        assert_eq!(ran.code, code, "foveal {line}: {}", ran.err);
        let last = ran.err.trim_end();
        assert!(ran.out.is_empty() && !last.contains("panicked"), "foveal {line}: {last}");
        for part in wanted {
            assert!(last.contains(part), "foveal {line}: {part:?} is not in {last}");
        }
    }
    // A variable is held to the same rules.
    for name in ["FOVEAL_SERVE_LISSTEN", "FOVEAL_LISTEN"] {
        let output = place.command(SERVE).env(name, "x").output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && told.contains(name), "{told}");
    }
    let output = place.command("inspect index").env("FOVEAL_CPU", "avx3").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let wanted = "FOVEAL_CPU is \"avx3\", but must be one of portable, avx2, ";
    assert!(output.status.code() == Some(2) && told.contains(wanted), "{told}");
    // Those that a platform sets for a service of our name are none of ours.
    let platform = [
        ("FOVEAL_SERVE_PORT", "tcp://10.96.0.1:50151"),
        ("FOVEAL_SERVE_SERVICE_HOST", "10.96.0.1"),
        ("FOVEAL_PORT_50151_TCP_ADDR", "10.96.0.1"),
    ];
    assert_eq!(Server::start(&place, SERVE, &platform).stop().code, 0);
    // With --insecure it listens beyond this machine.
    let open = "serve --listen 0.0.0.0:0 --index a=index --insecure";
    let server = Server::start(&place, open, &[]);
    assert!(server.address.starts_with("0.0.0.0:"), "{}", server.address);
    assert_eq!(server.stop().code, 0);
    // So it does with a file, whose directories are relative to it.
    std::fs::create_dir(place.path("etc")).unwrap();
    place
        .write("etc/foveal.toml", "listen = \"127.0.0.1:0\"\n[collections]\nrows = \"../index\"\n");
    let server = Server::start(&place, "serve --config etc/foveal.toml", &[]);
    assert_eq!(server.stop().code, 0);
}
