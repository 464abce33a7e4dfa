//! Connections that say nothing, too many of them, those that grow old, and those at the end.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// What a client says first: the preface, and settings that it leaves as they are.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The type of the frame that asks a client to leave.
const GOAWAY: u8 = 7;

/// Whether the other side ends the connection, whatever it says until then.
async fn ends(stream: &mut TcpStream) -> bool {
    let mut told = [0; 4096];
    let end = async { while stream.read(&mut told).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(Duration::from_secs(20), end).await.is_ok()
}

/// Reads frames until one of a type.
async fn until_frame(stream: &mut TcpStream, wanted: u8) {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
        if head[3] == wanted {
            return;
        }
    }
}

async fn search(address: std::net::SocketAddr) -> u64 {
    let mut client = SearchServiceClient::connect(format!("http://{address}")).await.unwrap();
    let response = within(client.search(one("rows", row(9)))).await.unwrap().into_inner();
    response.hits[0].key
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let served = start(|config| config.transport.handshake_seconds = 1).await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(&HELLO[..23]).await.unwrap();
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(HELLO).await.unwrap();
    assert!(ends(&mut silent).await && ends(&mut slow).await);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    // One that has said hello may stay without a call.
    let quiet = tokio::time::timeout(Duration::from_millis(300), async {
        loop {
            until_frame(&mut idle, GOAWAY).await;
        }
    });
    assert!(quiet.await.is_err());
    assert_eq!(search(served.address).await, FIRST_KEY + 9);
}

#[tokio::test]
async fn silent_connections_make_way_for_those_that_speak() {
    let served = start(|config| {
        config.transport.max_connections = 4;
        config.transport.handshake_seconds = 3_600;
    })
    .await;
    // The client of this test is one.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    assert_eq!(search(served.address).await, FIRST_KEY + 9);
    assert_eq!(search(served.address).await, FIRST_KEY + 9);
    assert!(ends(&mut silent[0]).await, "the oldest one made way");
    // The client that was there first goes on.
    served.search().search(one("rows", row(0))).await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_most_are_closed_at_once() {
    let served = start(|config| config.transport.max_connections = 2).await;
    let mut second = TcpStream::connect(served.address).await.unwrap();
    second.write_all(HELLO).await.unwrap();
    until_frame(&mut second, 4).await;
    let mut third = TcpStream::connect(served.address).await.unwrap();
    // It may be reset before it can speak.
    let _ = third.write_all(HELLO).await;
    assert!(ends(&mut third).await);
    drop(second);
    // A place is free again, soon.
    let mut answered = false;
    for _ in 0..100 {
        let client = SearchServiceClient::connect(format!("http://{}", served.address)).await;
        answered = match client {
            Ok(mut client) => client.search(one("rows", row(0))).await.is_ok(),
            Err(_) => false,
        };
        if answered {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(answered);
}

#[tokio::test]
async fn an_old_connection_is_asked_to_leave_and_its_calls_finish() {
    let served = start(|config| {
        config.transport.max_connection_age_seconds = 1;
        config.transport.max_connection_age_grace_seconds = 3_600;
    })
    .await;
    let mut old = TcpStream::connect(served.address).await.unwrap();
    old.write_all(HELLO).await.unwrap();
    let (open, held) = served.hold().await;
    let mut client = served.search();
    let call = tokio::spawn(async move { client.search(one("rows", row(3))).await });
    within(until_frame(&mut old, GOAWAY)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(open);
    held.await.unwrap();
    let response = within(call).await.unwrap().unwrap().into_inner();
    assert_eq!(response.hits[0].key, FIRST_KEY + 3);
    // The channel connects again.
    served.search().search(one("rows", row(0))).await.unwrap();
}

#[tokio::test]
async fn a_drain_waits_for_no_connection_without_calls() {
    let served = start(|config| config.transport.drain_seconds = 3_600).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(HELLO).await.unwrap();
    until_frame(&mut idle, 4).await;
    served.search().search(one("rows", row(0))).await.unwrap();
    served.stop.send(Command::Stop).await.unwrap();
    // It answers no ping, and need not.
    within(served.task).await.unwrap();
    assert!(ends(&mut silent).await && ends(&mut idle).await);
}

#[tokio::test]
async fn callers_who_give_up_together_take_no_others_along() {
    let served = start(|_| {}).await;
    let (open, _held) = served.hold().await;
    let call = || {
        let mut client = served.search();
        tokio::spawn(async move { client.search(one("rows", row(3))).await })
    };
    let waiting: Vec<_> = (0..20).map(|_| call()).collect();
    until(|| served.shared.pool.pending() == 21).await;
    for _ in 0..5 {
        let given_up: Vec<_> = (0..200).map(|_| call()).collect();
        tokio::task::yield_now().await;
        given_up.iter().for_each(JoinHandle::abort);
    }
    drop(open);
    for call in waiting {
        let response = within(call).await.unwrap().unwrap().into_inner();
        assert_eq!(response.hits[0].key, FIRST_KEY + 3);
    }
}
