//! What the calls of `SearchService` do.

use std::sync::Arc;
use std::time::Instant;

use foveal_proto::v1 as pb;
use foveal_proto::v1::search_service_server::SearchService;
use tonic::{Request, Response, Status};
use tracing::error;

use super::call::deadline_of;
use super::search_job::SearchJob;
use super::{Collection, Shared};
use crate::convert::{self, Asked, Expected};
use crate::search_pool::{Done, PartError, PoolError};

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
        let collection = Arc::clone(self.0.catalog.get("collection", &request.collection)?);
        let asked = self.asked(request.params.as_ref(), &collection)?;
        let params = asked.params;
        let expected = Expected::by(&collection.index);
        let queries = convert::query(request.vector, &expected)?;

        let payload_limit = self.payload_limit(request.with_payload);
        let done = self.submit(SearchJob { collection, queries, params, payload_limit }, deadline);
        Ok(Response::new(convert::search_response(done.await?, &asked, expected.metric)))
    }

    async fn search_batch(
        &self,
        request: Request<pb::SearchBatchRequest>,
    ) -> Result<Response<pb::SearchBatchResponse>, Status> {
        let deadline = deadline_of(&request);
        let request = request.into_inner();
        let collection = Arc::clone(self.0.catalog.get("collection", &request.collection)?);
        let asked = self.asked(request.params.as_ref(), &collection)?;
        let params = asked.params;
        let expected = Expected::by(&collection.index);
        // Up to 16 MiB are looked through: too long for a thread that others' calls wait for.
        let limits = self.0.limits.clone();
        let validation = tokio::task::spawn_blocking(move || {
            convert::queries(request.queries, &expected, params.k, &limits)
        });
        let queries = validation.await.map_err(|error| {
            error!(%error, "validation of a batch failed");
            convert::search_status(&PoolError::Panicked, &collection.name)
        })??;

        let payload_limit = self.payload_limit(request.with_payload);
        let done = self.submit(SearchJob { collection, queries, params, payload_limit }, deadline);
        Ok(Response::new(convert::batch_response(done.await?, &asked, expected.metric)))
    }
}

impl Search {
    fn asked(
        &self,
        given: Option<&pb::SearchParams>,
        collection: &Collection,
    ) -> Result<Asked, Status> {
        convert::search_params(given, &self.0.limits, collection.index.frontier())
    }

    fn payload_limit(&self, with_payload: bool) -> Option<u64> {
        with_payload.then_some(self.0.limits.max_payload_bytes)
    }

    async fn submit(&self, job: SearchJob, deadline: Instant) -> Result<Done, Status> {
        let collection = Arc::clone(&job.collection);
        let task = job.into_task(deadline, self.0.pool.limits().threads);
        self.0.pool.run(task).await.map_err(|error| {
            log(&error, &collection);
            convert::search_status(&error, &collection.name)
        })
    }
}

/// What an operator must hear of, with the names of files that clients are not told.
fn log(error: &PoolError, collection: &Collection) {
    match error {
        PoolError::Panicked => error!(collection = collection.name, "a search panicked"),
        PoolError::Part(PartError::Search(error)) => {
            error!(collection = collection.name, %error, "a search failed");
        }
        _ => {}
    }
}
