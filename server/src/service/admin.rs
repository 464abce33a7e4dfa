//! What the calls of `AdminService` do.

use std::sync::Arc;

use foveal_proto::v1 as pb;
use foveal_proto::v1::admin_service_server::AdminService;
use tonic::{Request, Response, Status};

use super::Shared;
use crate::convert;

/// `AdminService` of this server.
pub(super) struct Admin(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl AdminService for Admin {
    async fn server_info(
        &self,
        _request: Request<pb::ServerInfoRequest>,
    ) -> Result<Response<pb::ServerInfoResponse>, Status> {
        let pool = self.0.pool.limits();
        Ok(Response::new(pb::ServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.0.started.elapsed().as_secs(),
            search_threads: pool.threads as u32,
            pending_requests: self.0.pool.pending() as u32,
            max_pending_requests: pool.max_pending as u32,
            limits: Some(convert::limits(&self.0.limits)),
        }))
    }
}
