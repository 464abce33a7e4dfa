//! The service as a client sees it: a real server on a free port, the generated clients.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foveal_datasets::{Metric, VectorFile};
use foveal_index::{BuildInput, BuildParams, Job, Keys};
use foveal_proto::v1 as pb;
use foveal_proto::v1::admin_service_client::AdminServiceClient;
use foveal_proto::v1::collection_service_client::CollectionServiceClient;
use foveal_proto::v1::search_service_client::SearchServiceClient;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

mod connections;
mod decode;
mod lifecycle;
mod reload;

use super::*;
use crate::config::Config;
use crate::search_pool::PoolLimits;
use crate::search_pool::tests::{gate, until};

/// So many that searches walk the graph.
const N: usize = 600;
const DIM: usize = 8;
const FIRST_KEY: u64 = 1_000;

/// `[N x DIM]` values from -1 to 1, the same in every run.
fn rows() -> Vec<f32> {
    let mut state = 42_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(N * DIM).collect()
}

pub(crate) fn row(i: usize) -> Vec<f32> {
    rows()[i * DIM..(i + 1) * DIM].to_vec()
}

pub(crate) fn build(dir: &Path, name: &str, metric: Metric, payload: bool) -> std::path::PathBuf {
    let base = dir.join(format!("{name}.fbin"));
    let mut bytes = Vec::new();
    bytes.extend((N as u32).to_le_bytes());
    bytes.extend((DIM as u32).to_le_bytes());
    bytes.extend(rows().iter().flat_map(|x| x.to_le_bytes()));
    std::fs::write(&base, bytes).unwrap();
    let payloads: Vec<String> = (0..N).map(|i| format!("{{\"name\":\"row {i}\"}}")).collect();

    let base = VectorFile::open(&base).unwrap();
    let payload = payload.then_some(&payloads as &dyn foveal_index::PayloadSource);
    let input = BuildInput { keys: Keys::From(FIRST_KEY), payload, ..BuildInput::of(&base) };
    let out = dir.join(name);
    foveal_index::build(&input, &out, &BuildParams::new(metric), Job::default()).unwrap();
    out
}

/// Two collections: `rows` (L2, with payloads) and `angles` (cosine, without).
fn config(dir: &Path) -> Config {
    let mut config = Config { threads: 1, ..Config::default() };
    config.io = foveal_index::Io::Pread;
    config.collections.insert("rows".into(), build(dir, "rows", Metric::L2, true));
    config.collections.insert("angles".into(), build(dir, "angles", Metric::Cosine, false));
    config
}

struct Served {
    shared: Arc<Shared>,
    channel: Channel,
    address: std::net::SocketAddr,
    stop: mpsc::Sender<Command>,
    task: JoinHandle<()>,
    dir: tempfile::TempDir,
}

async fn start(change: impl FnOnce(&mut Config)) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let limits = PoolLimits {
        threads: config.threads,
        max_pending: config.limits.max_pending_requests,
        max_pending_bytes: config.limits.max_pending_bytes,
    };
    let catalog = Catalog::open(&config).unwrap();
    let pool = SearchPool::start(limits).unwrap();
    let shared = Arc::new(Shared::new(catalog, pool, config.limits.clone()));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = mpsc::channel(2);
    let serving = Arc::clone(&shared);
    let transport = config.transport.clone();
    let again = config.clone();
    let reload = Reload::new(config, Box::new(move || Ok(again.clone())));
    let task =
        tokio::spawn(async move { serve(listener, serving, &transport, reload, stopped).await });
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let channel = channel.connect().await.unwrap();
    Served { shared, channel, address, stop, task, dir }
}

impl Served {
    fn search(&self) -> SearchServiceClient<Channel> {
        SearchServiceClient::new(self.channel.clone())
    }

    /// Keeps the only search thread busy until the sender is dropped.
    async fn hold(&self) -> (std::sync::mpsc::Sender<()>, JoinHandle<()>) {
        let (task, open, began) = gate();
        let shared = Arc::clone(&self.shared);
        let held = tokio::spawn(async move {
            shared.pool.run(task).await.unwrap();
        });
        until(|| began.try_recv().is_ok()).await;
        (open, held)
    }
}

fn floats(values: Vec<f32>) -> Option<pb::Vector> {
    Some(pb::Vector { data: Some(pb::vector::Data::F32(pb::PackedFloat { values })) })
}

fn one(collection: &str, query: Vec<f32>) -> pb::SearchRequest {
    pb::SearchRequest {
        collection: collection.into(),
        vector: floats(query),
        params: Some(pb::SearchParams { k: Some(5), list_size: Some(100), ..Default::default() }),
        with_payload: false,
    }
}

fn batch(collection: &str, values: &[f32]) -> pb::SearchBatchRequest {
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    let raw = pb::Raw { dtype: pb::DType::F32.into(), values: bytes.into() };
    let data = Some(pb::vectors::Data::Raw(raw));
    pb::SearchBatchRequest {
        collection: collection.into(),
        queries: Some(pb::Vectors { dim: DIM as u32, data }),
        params: one(collection, Vec::new()).params,
        with_payload: false,
    }
}

#[track_caller]
fn assert_reason(status: &Status, code: Code, reason: &str) {
    assert_eq!(status.code(), code, "{status}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.domain.as_str(), info.reason.as_str()), ("foveal", reason), "{status}");
}

#[track_caller]
fn assert_field<T: std::fmt::Debug>(result: Result<T, Status>, field: &str) {
    let status = result.unwrap_err();
    assert_reason(&status, Code::InvalidArgument, "INVALID_REQUEST");
    let request = status.get_details_bad_request().unwrap();
    assert_eq!(request.field_violations[0].field, field, "{status}");
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.unwrap()
}

#[tokio::test]
async fn a_row_finds_itself_with_its_payload() {
    let served = start(|_| {}).await;
    let request = pb::SearchRequest { with_payload: true, ..one("rows", row(17)) };
    let response = served.search().search(request).await.unwrap().into_inner();
    assert_eq!(response.hits.len(), 5);
    let first = &response.hits[0];
    assert_eq!(first.key, FIRST_KEY + 17);
    assert!(first.distance.abs() < 1e-6, "{}", first.distance);
    assert_eq!(first.score, 0.0 - first.distance);
    assert_eq!(first.payload.as_deref(), Some("{\"name\":\"row 17\"}"));
    assert!(response.hits.is_sorted_by_key(|hit| hit.distance));
    assert!(!response.exhausted && !response.partial);
    let params = response.params.unwrap();
    assert_eq!((params.k, params.list_size, params.rerank_size), (Some(5), Some(100), Some(100)));
    let usage = response.usage.unwrap();
    assert!(usage.distances > 0 && usage.hops > 0, "{usage:?}");
    // An offset and a text for each hit, each in a block, or in two.
    assert!((10..=20).contains(&usage.payload_reads), "{usage:?}");
    assert!(usage.payload_micros > 0, "{usage:?}");

    let response = served.search().search(one("angles", row(17))).await.unwrap().into_inner();
    assert_eq!(response.hits[0].key, FIRST_KEY + 17);
    assert!((response.hits[0].score - 1.0).abs() < 1e-5, "{}", response.hits[0].score);
    assert_eq!(response.hits[0].payload, None);
}

#[tokio::test]
async fn k_above_the_rows_returns_all_of_them() {
    let served = start(|_| {}).await;
    let mut request = one("rows", row(0));
    request.params = Some(pb::SearchParams { k: Some(16_384), ..Default::default() });
    let response = served.search().search(request).await.unwrap().into_inner();
    assert_eq!(response.hits.len(), N);
    assert!(response.exhausted);
}

#[tokio::test]
async fn a_batch_answers_as_its_queries_do_alone() {
    for threads in [1, 3] {
        let served = start(|config| config.threads = threads).await;
        let mut client = served.search();
        let request = pb::SearchBatchRequest { with_payload: true, ..batch("rows", &rows()) };
        let results = client.search_batch(request).await.unwrap().into_inner().results;
        assert_eq!(results.len(), N);
        for (i, hits) in results.into_iter().enumerate() {
            let request = pb::SearchRequest { with_payload: true, ..one("rows", row(i)) };
            let alone = client.search(request).await.unwrap().into_inner();
            let keys: Vec<u64> = alone.hits.iter().map(|hit| hit.key).collect();
            let distances: Vec<f32> = alone.hits.iter().map(|hit| hit.distance).collect();
            let scores: Vec<f32> = alone.hits.iter().map(|hit| hit.score).collect();
            let payloads: Vec<String> =
                alone.hits.into_iter().map(|hit| hit.payload.unwrap()).collect();
            let alone = pb::BatchHits {
                keys,
                distances,
                scores,
                payloads,
                exhausted: alone.exhausted,
                partial: alone.partial,
                certified: alone.certified,
            };
            assert_eq!(hits, alone, "query {i} on {threads} threads");
        }
    }
}

#[tokio::test]
async fn wrong_requests_name_their_field() {
    let served = start(|_| {}).await;
    let mut client = served.search();
    let k = |k| Some(pb::SearchParams { k: Some(k), ..Default::default() });
    let good = || one("rows", row(0));
    for (request, field) in [
        (pb::SearchRequest { params: k(0), ..good() }, "params.k"),
        (pb::SearchRequest { params: k(u32::MAX), ..good() }, "params.k"),
        (pb::SearchRequest { vector: floats(vec![1.0; DIM + 1]), ..good() }, "vector"),
        (pb::SearchRequest { vector: floats(vec![f32::NAN; DIM]), ..good() }, "vector"),
        (pb::SearchRequest { vector: None, ..good() }, "vector"),
        (pb::SearchRequest { collection: "../rows".into(), ..good() }, "collection"),
        (one("angles", vec![0.0; DIM]), "vector"),
        (one("rows", vec![1e19; DIM]), "vector"),
    ] {
        assert_field(client.search(request).await, field);
    }
    let mut values = rows();
    values[17 * DIM + 3] = f32::INFINITY;
    assert_field(client.search_batch(batch("rows", &values)).await, "queries[17]");
    values[17 * DIM + 3] = 1e20;
    assert_field(client.search_batch(batch("rows", &values)).await, "queries[17]");
    let values = vec![0.5; 4_097 * DIM];
    assert_field(client.search_batch(batch("rows", &values)).await, "queries");
    assert_field(client.search_batch(batch("rows", &[])).await, "queries");
    let request = pb::SearchBatchRequest { params: k(u32::MAX), ..batch("rows", &rows()) };
    assert_field(client.search_batch(request).await, "params.k");
    // All or nothing: what was refused reached no worker, and the server goes on.
    assert_eq!(served.shared.pool.pending(), 0);
    assert!(client.search(good()).await.is_ok());
}

#[tokio::test]
async fn a_message_above_16_mib_is_refused_unread() {
    let served = start(|_| {}).await;
    let mut client = served.search();
    let request = batch("rows", &vec![0.5; (16 << 20) / 4 + 1]);
    let status = client.search_batch(request).await.unwrap_err();
    assert_reason(&status, Code::OutOfRange, "MESSAGE_TOO_LARGE");
    assert!(client.search(one("rows", row(0))).await.is_ok());
}

#[tokio::test]
async fn collections_are_listed_and_unknown_ones_not_found() {
    let served = start(|_| {}).await;
    let mut client = CollectionServiceClient::new(served.channel.clone());
    let list = client.list(pb::ListCollectionsRequest {}).await.unwrap().into_inner();
    let names: Vec<_> = list.collections.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["angles", "rows"]);
    let rows = &list.collections[1];
    assert_eq!((rows.count, rows.dim, rows.has_payload), (N as u64, DIM as u32, true));
    assert_eq!((rows.metric(), rows.dtype()), (pb::Metric::L2, pb::DType::F32));
    let got = client.get(pb::GetCollectionRequest { name: "rows".into() }).await.unwrap();
    assert_eq!(got.into_inner().collection.as_ref(), Some(rows));

    let name = "nobody".to_string();
    let status = client.get(pb::GetCollectionRequest { name }).await.unwrap_err();
    assert_reason(&status, Code::NotFound, "COLLECTION_NOT_FOUND");
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, "nobody");
    let status = served.search().search(one("nobody", row(0))).await.unwrap_err();
    assert_reason(&status, Code::NotFound, "COLLECTION_NOT_FOUND");
    let status = served.search().search_batch(batch("nobody", &row(0))).await.unwrap_err();
    assert_reason(&status, Code::NotFound, "COLLECTION_NOT_FOUND");
}

#[tokio::test]
async fn the_server_tells_its_limits() {
    let served = start(|config| config.limits.max_k = 77).await;
    let mut client = AdminServiceClient::new(served.channel.clone());
    let info = client.server_info(pb::ServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((info.search_threads, info.pending_requests), (1, 0));
    let limits = info.limits.unwrap();
    assert_eq!((limits.max_k, limits.max_batch_queries), (77, 4_096));
    let mut request = one("rows", row(0));
    request.params = Some(pb::SearchParams { k: Some(78), ..Default::default() });
    assert_field(served.search().search(request).await, "params.k");
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let served = start(|config| config.limits.max_pending_requests = 1).await;
    let (open, held) = served.hold().await;
    let status = served.search().search(one("rows", row(0))).await.unwrap_err();
    assert_reason(&status, Code::ResourceExhausted, "QUEUE_FULL");
    assert!(status.get_details_quota_failure().is_some());
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    drop(open);
    held.await.unwrap();
    until(|| served.shared.pool.pending() == 0).await;
    assert!(served.search().search(one("rows", row(0))).await.is_ok());
}

#[tokio::test]
async fn the_servers_own_limit_ends_a_call() {
    let served = start(|config| config.limits.request_timeout_millis = 50).await;
    let (open, _held) = served.hold().await;
    let status = served.search().search(one("rows", row(0))).await.unwrap_err();
    assert_reason(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    until(|| served.shared.pool.pending() == 1).await;
    drop(open);
}

#[tokio::test]
async fn callers_who_leave_take_their_searches_along() {
    let served = start(|_| {}).await;
    let (open, _held) = served.hold().await;

    // By their own deadline...
    let mut request = tonic::Request::new(one("rows", row(0)));
    request.set_timeout(Duration::from_millis(50));
    served.search().search(request).await.unwrap_err();
    until(|| served.shared.pool.pending() == 1).await;

    // ... and by hanging up.
    let mut client = served.search();
    let call = tokio::spawn(async move { client.search_batch(batch("rows", &rows())).await });
    until(|| served.shared.pool.pending() == 2).await;
    call.abort();
    until(|| served.shared.pool.pending() == 1).await;
    drop(open);
}

#[tokio::test]
async fn payloads_beyond_the_limit_are_refused() {
    let served = start(|config| config.limits.max_payload_bytes = 100).await;
    let mut client = served.search();
    let mut request = pb::SearchRequest { with_payload: true, ..one("rows", row(0)) };
    request.params = Some(pb::SearchParams { k: Some(100), ..Default::default() });
    let status = client.search(request.clone()).await.unwrap_err();
    assert_reason(&status, Code::ResourceExhausted, "PAYLOAD_TOO_LARGE");
    request.params = Some(pb::SearchParams { k: Some(5), ..Default::default() });
    assert!(client.search(request).await.is_ok());
    // The limit holds for a batch as a whole.
    let request = pb::SearchBatchRequest { with_payload: true, ..batch("rows", &rows()) };
    let status = client.search_batch(request).await.unwrap_err();
    assert_reason(&status, Code::ResourceExhausted, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn damage_is_data_loss_and_keeps_paths_to_itself() {
    let served = start(|_| {}).await;
    for entry in std::fs::read_dir(served.dir.path().join("rows")).unwrap() {
        let path = entry.unwrap().path();
        let flipped: Vec<u8> = std::fs::read(&path).unwrap().iter().map(|byte| !byte).collect();
        // In place: an open file is damaged as well.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &flipped, 0).unwrap();
    }
    let request = pb::SearchRequest { with_payload: true, ..one("rows", row(0)) };
    let status = served.search().search(request).await.unwrap_err();
    assert_reason(&status, Code::DataLoss, "COLLECTION_DAMAGED");
    let path = served.dir.path().to_str().unwrap();
    assert!(!status.message().contains(path), "{status}");
    assert!(served.search().search(one("angles", row(0))).await.is_ok());
}
