//! What the calls of `CollectionService` do.

use std::sync::Arc;

use foveal_proto::v1 as pb;
use foveal_proto::v1::collection_service_server::CollectionService;
use tonic::{Request, Response, Status};

use super::Shared;
use crate::convert;

/// `CollectionService` over the open collections.
pub(super) struct Collections(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl CollectionService for Collections {
    async fn list(
        &self,
        _request: Request<pb::ListCollectionsRequest>,
    ) -> Result<Response<pb::ListCollectionsResponse>, Status> {
        let describe = |collection: &Arc<super::Collection>| {
            convert::collection(&collection.name, &collection.index)
        };
        let catalog = self.0.catalog();
        let collections = catalog.iter().map(describe).collect();
        let unavailable = catalog.unavailable().map(|(name, reason)| pb::UnavailableCollection {
            name: name.into(),
            reason: reason.into(),
        });
        let unavailable = unavailable.collect();
        Ok(Response::new(pb::ListCollectionsResponse { collections, unavailable }))
    }

    async fn get(
        &self,
        request: Request<pb::GetCollectionRequest>,
    ) -> Result<Response<pb::GetCollectionResponse>, Status> {
        let catalog = self.0.catalog();
        let collection = catalog.get("name", &request.get_ref().name)?;
        let collection = Some(convert::collection(&collection.name, &collection.index));
        Ok(Response::new(pb::GetCollectionResponse { collection }))
    }
}
