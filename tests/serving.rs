//! A server among signals, clients that say nothing or give up, and collections that come and go.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::program::{PATIENCE, Place, Ran};
use crate::service::{DIM, FIRST_KEY, SERVE, Server, one, place, rows, within};

/// Asks a server for its first row, on a connection of its own.
async fn query_all(server: &Server) {
    let mut client = server.search().await;
    let response = within(client.search(one(&rows()[..DIM], 1))).await.unwrap().into_inner();
    assert_eq!(response.hits[0].key, FIRST_KEY);
}

/// How a server ends when it drains.
async fn drained(mut server: Server) -> (Ran, Duration) {
    server.signal(Signal::TERM);
    let signalled = Instant::now();
    let ran = tokio::task::spawn_blocking(move || server.end()).await.unwrap();
    (ran, signalled.elapsed())
}

#[tokio::test]
async fn a_drain_is_over_at_once_where_nothing_is_in_flight() {
    let place = place();
    let patient = [("FOVEAL_SERVE_TRANSPORT__DRAIN_SECONDS", "3600")];
    let server = Server::start(&place, SERVE, &patient);
    let _raw = TcpStream::connect(&server.address).unwrap();
    let mut half = TcpStream::connect(&server.address).unwrap();
    half.write_all(b"PRI * HTTP/2.0").unwrap();
    query_all(&server).await;
    let (ran, took) = drained(server).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(took < PATIENCE / 4, "{took:?}");
    assert!(ran.err.contains("calls=0") && !ran.err.contains("in flight"), "{}", ran.err);
}

/// The server is stopped while some calls wait and others are given up, as behind a proxy.
#[tokio::test]
async fn calls_that_are_given_up_take_no_others_along() {
    let place = place();
    let mut server = Server::start(&place, SERVE, &[]);
    let client = server.search().await;
    let call = || {
        let mut client = client.clone();
        tokio::spawn(async move { client.search(one(&rows()[..DIM], 1)).await })
    };
    within(call()).await.unwrap().unwrap();
    server.signal(Signal::STOP);
    let waiting: Vec<_> = (0..20).map(|_| call()).collect();
    let given_up: Vec<_> = (0..30).map(|_| call()).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    given_up.iter().for_each(tokio::task::JoinHandle::abort);
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.signal(Signal::CONT);
    for call in waiting {
        let response = within(call).await.unwrap().unwrap().into_inner();
        assert_eq!(response.hits[0].key, FIRST_KEY);
    }
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let place = place();
    let line = "ulimit -n 64; exec \"$0\" \"$@\"";
    let server = Server::start_under(&place, line, SERVE);
    let silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    query_all(&server).await;
    query_all(&server).await;
    drop(silent);
    let ran = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let warnings = ran.err.matches("WARN").count();
    assert!((1..=3).contains(&warnings), "said once, and no more: {}", ran.err);
}

async fn health_of(server: &Server, name: &str) -> Result<ServingStatus, Code> {
    let mut client = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest { service: name.into() };
    let response = within(client.check(request)).await.map_err(|status| status.code())?;
    Ok(response.into_inner().status())
}

#[tokio::test]
async fn one_bad_collection_keeps_no_other_from_being_served() {
    let place = place();
    let line = format!("{SERVE} --index bad=nope");
    let server = Server::start(&place, &line, &[]);
    query_all(&server).await;
    assert_eq!(health_of(&server, "bad").await, Ok(ServingStatus::NotServing));
    for name in ["", "rows"] {
        assert_eq!(health_of(&server, name).await, Ok(ServingStatus::Serving));
    }
    let mut request = one(&rows()[..DIM], 1);
    request.collection = "bad".into();
    let status = within(server.search().await.search(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("bad"), "{status}");
    let ran = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    let line = ran.err.lines().find(|line| line.contains("ERROR")).unwrap();
    assert!(line.contains("bad") && line.contains("nope"), "{line}");
}

async fn until_health(server: &Server, name: &str, wanted: Result<ServingStatus, Code>) {
    let begun = Instant::now();
    while health_of(server, name).await != wanted {
        assert!(begun.elapsed() < PATIENCE, "{name}: {:?}", health_of(server, name).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn sighup_reads_the_configuration_again() {
    let place = place();
    let config = |more: &str| {
        let text = format!("listen = \"127.0.0.1:0\"\n[collections]\nrows = \"index\"\n{more}");
        place.write("foveal.toml", text);
    };
    config("old = \"index\"\n");
    let mut server = Server::start(&place, "serve --config foveal.toml --threads 1", &[]);
    assert_eq!(health_of(&server, "old").await, Ok(ServingStatus::Serving));
    config("more = \"index\"\nbad = \"nope\"\n[limits]\nmax_k = 5\n");
    server.signal(Signal::HUP);
    until_health(&server, "more", Ok(ServingStatus::Serving)).await;
    assert_eq!(health_of(&server, "bad").await, Ok(ServingStatus::NotServing));
    assert_eq!(health_of(&server, "old").await, Err(Code::NotFound));
    // A configuration that makes no sense changes nothing, and ends nothing.
    place.write("foveal.toml", "listen = ");
    server.signal(Signal::HUP);
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal(Signal::HUP);
    query_all(&server).await;
    let (ran, _) = drained(server).await;
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in ["reloaded", "take a restart", "not reloaded", "foveal.toml"] {
        assert!(ran.err.contains(part), "{part:?} is not in {}", ran.err);
    }
}

#[test]
fn damage_is_no_lack_of_io_uring() {
    let place = place();
    let mut bytes = std::fs::read(place.path("index/graph.bin")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(place.path("index/graph.bin"), bytes).unwrap();
    for flags in ["", "--io uring", "--memory 1GiB"] {
        let ran = place.run(&format!("{SERVE} {flags}"));
        assert_eq!(ran.code, 65, "{}", ran.err);
        assert!(ran.err.contains("graph.bin: damaged") && !ran.err.contains("io_uring"));
    }
}

/// The budget counts what will be in memory: payloads and their offsets stay on disk.
#[tokio::test]
async fn a_budget_counts_no_file_that_stays_on_disk() {
    let place = Place::new();
    place.write("base.fbin", crate::vectors::fbin(2, &crate::vectors::noise(2 * 4_000, 3)));
    place.write("rows.jsonl", "{}\n".repeat(4_000));
    place.ok("build --base base.fbin --metric l2 --out index --max-degree 4 --list-size 8 \
              --payload rows.jsonl");
    let bytes = |name: &str| place.path("index").join(name).metadata().unwrap().len();
    // 8 bytes a row: a little more than all else that is allowed for here.
    assert!(bytes("payload_offsets.bin") > 30_000);
    // The budget counts the order of the keys, which the first look-up by key reads.
    let resident = ["codes.bin", "graph.bin", "keys.bin", "key_order.bin", "meta.rkyv"];
    let needed: u64 = resident.into_iter().map(bytes).sum();
    let line = format!("{SERVE} --memory {}", needed + 2_000);
    let server = Server::start(&place, &line, &[]);
    assert_eq!(tokio::task::spawn_blocking(move || server.stop()).await.unwrap().code, 0);
    let ran = place.run(&format!("{SERVE} --memory {}", needed - 1_000));
    assert!(ran.code == 2 && ran.err.contains("--memory"), "{}", ran.err);
}
