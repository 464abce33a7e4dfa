//! What the calls of `SearchService` do.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foveal_index::{Decoded, IdSet, SearchError};
use foveal_proto::v1 as pb;
use foveal_proto::v1::search_service_server::SearchService;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing::error;

use super::call::deadline_of;
use super::decode_job::DecodeJob;
use super::search_job::SearchJob;
use super::{Collection, Shared};
use crate::convert::{self, Expected, RequestedParams};
use crate::search_pool::{Done, Found, PartError, PoolError, Task};

/// `SearchService` over the open collections.
pub(super) struct Search(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl SearchService for Search {
    async fn search(
        &self,
        request: Request<pb::SearchRequest>,
    ) -> Result<Response<pb::SearchResponse>, Status> {
        let deadline = deadline_of(&request);
        let request = request.into_inner();
        let collection = Arc::clone(self.0.catalog().get("collection", &request.collection)?);
        let requested = self.requested_params(request.params.as_ref(), &collection)?;
        let params = requested.params;
        let expected = Expected::by(&collection.index);
        let queries = convert::query("vector", request.vector, &expected)?;
        convert::accepted("vector", &queries, |row| collection.index.check_query(row))?;

        let payload_limit = self.payload_limit(request.with_payload);
        let done = self.submit(SearchJob { collection, queries, params, payload_limit }, deadline);
        Ok(Response::new(convert::search_response(done.await?, &requested, expected.metric)))
    }

    async fn search_batch(
        &self,
        request: Request<pb::SearchBatchRequest>,
    ) -> Result<Response<pb::SearchBatchResponse>, Status> {
        let deadline = deadline_of(&request);
        let request = request.into_inner();
        let collection = Arc::clone(self.0.catalog().get("collection", &request.collection)?);
        let requested = self.requested_params(request.params.as_ref(), &collection)?;
        let params = requested.params;
        let expected = Expected::by(&collection.index);
        // Up to 16 MiB are looked through: too long for a thread that others' calls wait for.
        let limits = self.0.limits.clone();
        let index = collection.index.clone();
        let queries = move || {
            let vectors = request.queries;
            let rows = convert::queries("queries", vectors, &expected, (params.k, &limits))?;
            convert::all_accepted("queries", &rows, |row| index.check_query(row))?;
            Ok(rows)
        };
        let queries = validated(queries, &collection).await?;

        let payload_limit = self.payload_limit(request.with_payload);
        let done = self.submit(SearchJob { collection, queries, params, payload_limit }, deadline);
        Ok(Response::new(convert::batch_response(done.await?, &requested, expected.metric)))
    }

    async fn decode(
        &self,
        request: Request<pb::DecodeRequest>,
    ) -> Result<Response<pb::DecodeResponse>, Status> {
        let deadline = deadline_of(&request);
        Ok(Response::new(self.decode_one(request.into_inner(), deadline).await?))
    }

    async fn decode_batch(
        &self,
        request: Request<pb::DecodeBatchRequest>,
    ) -> Result<Response<pb::DecodeBatchResponse>, Status> {
        let deadline = deadline_of(&request);
        let request = request.into_inner();
        let collection = self.head("collection", &request.collection)?;
        let params = convert::decode_params(request.params.as_ref(), &self.0.limits)?;
        let allowed = allowed_tokens(request.filter, Vec::new(), &collection).await?;
        let expected = Expected::of_hidden(&collection.index);
        let limits = self.0.limits.clone();
        let index = collection.index.clone();
        let hidden = move || {
            let rows = convert::queries("hidden", request.hidden, &expected, (params.k, &limits))?;
            convert::all_accepted("hidden", &rows, |row| index.check_hidden(row))?;
            Ok(rows)
        };
        let hidden = validated(hidden, &collection).await?;
        let job = DecodeJob { collection, hidden, params, allowed, requested: Vec::new() };
        let done = self.submit_decode(job, deadline).await?;
        Ok(Response::new(convert::decode_batch_response(done, &params)))
    }

    type DecodeStreamStream =
        Pin<Box<dyn Stream<Item = Result<pb::DecodeResponse, Status>> + Send + 'static>>;

    async fn decode_stream(
        &self,
        request: Request<Streaming<pb::DecodeRequest>>,
    ) -> Result<Response<Self::DecodeStreamStream>, Status> {
        let search = Search(Arc::clone(&self.0));
        let timeout = Duration::from_millis(self.0.limits.request_timeout_millis);
        // One after the other: answers keep the order of the requests, and a client that is gone
        // takes the decode under way with it.
        let responses = request.into_inner().then(move |request| {
            let search = Search(Arc::clone(&search.0));
            async move { search.decode_one(request?, Instant::now() + timeout).await }
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

impl Search {
    fn requested_params(
        &self,
        given: Option<&pb::SearchParams>,
        collection: &Collection,
    ) -> Result<RequestedParams, Status> {
        convert::search_params(given, &self.0.limits, collection.index.frontier())
    }

    async fn decode_one(
        &self,
        request: pb::DecodeRequest,
        deadline: Instant,
    ) -> Result<pb::DecodeResponse, Status> {
        let collection = self.head("collection", &request.collection)?;
        let params = convert::decode_params(request.params.as_ref(), &self.0.limits)?;
        let allowed = allowed_tokens(request.filter, request.asked.clone(), &collection).await?;
        let expected = Expected::of_hidden(&collection.index);
        let hidden = convert::query("hidden", request.hidden, &expected)?;
        convert::accepted("hidden", &hidden, |row| collection.index.check_hidden(row))?;
        let job = DecodeJob { collection, hidden, params, allowed, requested: request.asked };
        let done = self.submit_decode(job, deadline).await?;
        Ok(convert::decode_response(done, &params))
    }

    /// The collection of a name, if it can be decoded with.
    fn head(&self, field: &str, name: &str) -> Result<Arc<Collection>, Status> {
        let collection = Arc::clone(self.0.catalog().get(field, name)?);
        let metric = collection.index.manifest().metric;
        if !metric.is_product() {
            let what = format!("has metric {metric}; wanted ip, whose distances are logits");
            return Err(convert::invalid(field, &what));
        }
        Ok(collection)
    }

    async fn submit_decode(
        &self,
        job: DecodeJob,
        deadline: Instant,
    ) -> Result<Done<Decoded>, Status> {
        let collection = Arc::clone(&job.collection);
        let task = job.into_task(deadline, self.0.pool.limits().threads);
        self.run(task, &collection).await
    }

    fn payload_limit(&self, with_payload: bool) -> Option<u64> {
        with_payload.then_some(self.0.limits.max_payload_bytes)
    }

    async fn submit(&self, job: SearchJob, deadline: Instant) -> Result<Done<Found>, Status> {
        let collection = Arc::clone(&job.collection);
        let task = job.into_task(deadline, self.0.pool.limits().threads);
        self.run(task, &collection).await
    }

    async fn run<R: Send + 'static>(
        &self,
        task: Task<R>,
        collection: &Collection,
    ) -> Result<Done<R>, Status> {
        self.0.pool.run(task).await.map_err(|error| {
            log(&error, collection);
            convert::search_status(&error, &collection.name)
        })
    }
}

/// The tokens that count, once the requested ones are known to be among them.
async fn allowed_tokens(
    filter: Option<pb::TokenFilter>,
    requested: Vec<u64>,
    collection: &Arc<Collection>,
) -> Result<Option<IdSet>, Status> {
    if filter.is_none() && requested.is_empty() {
        return Ok(None);
    }
    let shared = Arc::clone(collection);
    let check = move || {
        let failed = |error: SearchError| {
            let error = PoolError::Part(error.into());
            log(&error, &shared);
            convert::search_status(&error, &shared.name)
        };
        let allowed = convert::token_filter(filter.as_ref(), &shared.index, &failed)?;
        convert::requested_tokens(&requested, allowed.as_ref(), &shared.index, &failed)?;
        Ok(allowed)
    };
    validated(check, collection).await
}

/// What a long look through a request gives, on a thread that no others' calls wait for.
async fn validated<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, Status> + Send + 'static,
    collection: &Collection,
) -> Result<T, Status> {
    tokio::task::spawn_blocking(look).await.map_err(|error| {
        error!(%error, "validation of a request failed");
        convert::search_status(&PoolError::Panicked, &collection.name)
    })?
}

/// What an operator must hear of, with the names of files, which clients do not see.
fn log(error: &PoolError, collection: &Collection) {
    match error {
        PoolError::Panicked => error!(collection = collection.name, "a search panicked"),
        PoolError::Part(PartError::Search(error)) => {
            error!(collection = collection.name, %error, "a search failed");
        }
        _ => {}
    }
}
