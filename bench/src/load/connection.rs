//! The server as a client sees it: connections, the collection, one call.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use foveal_proto::v1 as pb;
use foveal_proto::v1::admin_service_client::AdminServiceClient;
use foveal_proto::v1::collection_service_client::CollectionServiceClient;
use foveal_proto::v1::search_service_client::SearchServiceClient;
use tokio::runtime::{Builder, Runtime};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::requests::Request;

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a request was answered with.
pub enum Answer {
    /// To one query.
    Search(pb::SearchResponse),
    /// To many.
    SearchBatch(pb::SearchBatchResponse),
}

impl Answer {
    /// Keys and distances, a list for each query in their order.
    pub fn lists(self) -> Vec<Vec<(u64, f32)>> {
        match self {
            Answer::Search(response) => {
                vec![response.hits.iter().map(|hit| (hit.key, hit.distance)).collect()]
            }
            Answer::SearchBatch(response) => {
                let list = |hits: pb::BatchHits| hits.keys.into_iter().zip(hits.distances);
                response.results.into_iter().map(|hits| list(hits).collect()).collect()
            }
        }
    }

    /// The candidate pool that the server worked with.
    pub fn list_size(&self) -> Option<u32> {
        let params = match self {
            Answer::Search(response) => &response.params,
            Answer::SearchBatch(response) => &response.params,
        };
        params.as_ref().and_then(|params| params.list_size)
    }
}

/// One connection, which copies share.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    search: SearchServiceClient<Channel>,
}

impl Client {
    async fn connect(addr: &str) -> anyhow::Result<Client> {
        let uri = if addr.contains("://") { addr.into() } else { format!("http://{addr}") };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| anyhow!("--addr {addr}: {error}; wanted HOST:PORT"))?;
        let channel = endpoint.connect_timeout(CONNECT_TIMEOUT).connect().await;
        let channel = channel.map_err(|error| {
            let hint = "start one: foveal serve --index NAME=DIR --listen";
            anyhow!("no server answers at {addr} ({hint} {addr}): {}", cause(&error))
        })?;
        let search = SearchServiceClient::new(channel.clone());
        Ok(Client { channel, search: search.max_decoding_message_size(usize::MAX) })
    }

    /// What the server is, and what it has.
    async fn server(
        &self,
    ) -> Result<(pb::ServerInfoResponse, pb::ListCollectionsResponse), Status> {
        let mut admin = AdminServiceClient::new(self.channel.clone());
        let info = admin.server_info(pb::ServerInfoRequest {}).await?;
        let mut collections = CollectionServiceClient::new(self.channel.clone());
        let list = collections.list(pb::ListCollectionsRequest {}).await?;
        Ok((info.into_inner(), list.into_inner()))
    }

    /// Asks and waits for the whole answer.
    ///
    /// # Errors
    /// Those of the server and of the connection.
    pub async fn send(&mut self, request: Request) -> Result<Answer, Status> {
        match request {
            Request::Search(request) => {
                self.search.search(request).await.map(|found| Answer::Search(found.into_inner()))
            }
            Request::SearchBatch(request) => {
                let found = self.search.search_batch(request).await;
                found.map(|found| Answer::SearchBatch(found.into_inner()))
            }
        }
    }
}

/// A thread's share of the connections, with what drives them.
pub struct Driver {
    pub(super) runtime: Runtime,
    pub(super) clients: Vec<Client>,
}

/// Opens `connections` to a server, dealt out to one driver for each thread.
///
/// A connection never changes its thread: an answer wakes nobody on another core.
///
/// # Errors
/// No server answers there; there is nothing to open.
pub fn connect(addr: &str, connections: u32, threads: u32) -> anyhow::Result<Vec<Driver>> {
    let mut drivers = Vec::new();
    for _ in 0..threads.min(connections) {
        let runtime = Builder::new_current_thread().enable_all().build();
        drivers.push(Driver { runtime: runtime.context("runtime")?, clients: Vec::new() });
    }
    if drivers.is_empty() {
        bail!("{connections} connections of {threads} threads; wanted at least 1 of each");
    }
    for connection in 0..connections as usize {
        let turn = connection % drivers.len();
        let driver = &mut drivers[turn];
        driver.clients.push(driver.runtime.block_on(Client::connect(addr))?);
    }
    Ok(drivers)
}

impl Driver {
    /// The version that the server tells, and its collection of that name.
    ///
    /// # Errors
    /// It has none, or is no server of ours.
    pub fn collection(&self, name: &str) -> anyhow::Result<(String, pb::Collection)> {
        let told_of = self.runtime.block_on(self.clients[0].server());
        let (info, list) = told_of
            .map_err(|status| anyhow!("the server does not tell what it has: {}", told(&status)))?;
        let names: Vec<&str> = list.collections.iter().map(|it| it.name.as_str()).collect();
        let names = if names.is_empty() { "none".into() } else { names.join(", ") };
        let found = list.collections.iter().find(|collection| collection.name == name);
        let found = found.with_context(|| format!("no collection {name:?}; there is {names}"))?;
        Ok((info.version, found.clone()))
    }

    /// Asks outside of any measurement.
    ///
    /// # Errors
    /// Those of the server, as it tells them; no answer within `patience`.
    pub fn send(&self, request: Request, patience: Duration) -> anyhow::Result<Answer> {
        let mut client = self.clients[0].clone();
        // A timer belongs to the runtime it is made in.
        let sent = async { tokio::time::timeout(patience, client.send(request)).await };
        let answer = self.runtime.block_on(sent);
        let answer = answer.map_err(|_| anyhow!("the server does not answer in {patience:?}"))?;
        answer.map_err(|status| anyhow!("the server refuses: {}", told(&status)))
    }
}

/// The name of a code as gRPC spells it: `NOT_FOUND`.
pub fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

fn told(status: &Status) -> String {
    format!("{}: {}", code_name(status.code()), status.message())
}

/// The innermost reason: the outer ones say `transport error`.
fn cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => cause(source),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn codes_are_spelled_as_grpc_does() {
        assert_eq!(code_name(Code::Unavailable), "UNAVAILABLE");
        assert_eq!(code_name(Code::ResourceExhausted), "RESOURCE_EXHAUSTED");
        assert_eq!(code_name(Code::NotFound), "NOT_FOUND");
    }
}
