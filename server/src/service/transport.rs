//! What a connection may do, and which services it meets.

use std::sync::Arc;
use std::time::Duration;

use foveal_proto::FILE_DESCRIPTOR_SET;
use foveal_proto::v1::admin_service_server::AdminServiceServer;
use foveal_proto::v1::collection_service_server::CollectionServiceServer;
use foveal_proto::v1::search_service_server::SearchServiceServer;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::Shared;
use super::admin::Admin;
use super::collection::Collections;
use super::search::Search;
use crate::config::{Limits, Transport};

/// Bytes of a message that carries no vectors, health and reflection included.
const MAX_SMALL_MESSAGE: usize = 4 << 20;

/// What a client may send before the server has taken it up: enough for a batch without a pause.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// How long the transport waits beyond the deadline of a call, which answers in better words.
const TIMEOUT_SLACK: Duration = Duration::from_secs(1);

/// The names under which health is reported: each service, and all of them as "".
const HEALTH_NAMES: [&str; 4] = [
    "",
    SearchServiceServer::<Search>::NAME,
    CollectionServiceServer::<Collections>::NAME,
    AdminServiceServer::<Admin>::NAME,
];

/// A server with every limit that the library leaves open.
pub(super) fn server(transport: &Transport, limits: &Limits) -> Server {
    let seconds = Duration::from_secs;
    Server::builder()
        .timeout(Duration::from_millis(limits.request_timeout_millis) + TIMEOUT_SLACK)
        .max_concurrent_streams(transport.max_concurrent_streams)
        .http2_keepalive_interval(Some(seconds(transport.keepalive_seconds)))
        .http2_keepalive_timeout(Some(seconds(transport.keepalive_timeout_seconds)))
        .max_connection_age(seconds(transport.max_connection_age_seconds))
        .max_connection_age_grace(seconds(transport.max_connection_age_grace_seconds))
        .http2_max_header_list_size(transport.max_header_list_bytes)
        .http2_max_pending_accept_reset_streams(Some(transport.max_pending_reset_streams))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// Every service, and the reporter of their health.
pub(super) fn routes(shared: &Arc<Shared>) -> (Routes, HealthReporter) {
    let reporter = HealthReporter::new();
    let health = tonic_health::server::HealthService::from_health_reporter(reporter.clone());
    let health = tonic_health::pb::health_server::HealthServer::new(health);

    let search = SearchServiceServer::new(Search(Arc::clone(shared)))
        .max_decoding_message_size(shared.limits.max_request_bytes);
    let collections = CollectionServiceServer::new(Collections(Arc::clone(shared)))
        .max_decoding_message_size(MAX_SMALL_MESSAGE);
    let admin = AdminServiceServer::new(Admin(Arc::clone(shared)))
        .max_decoding_message_size(MAX_SMALL_MESSAGE);

    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    const OURS: &str = "the descriptors were encoded by the build";
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(health)
        .add_service(search)
        .add_service(collections)
        .add_service(admin)
        .add_service(reflection().build_v1().expect(OURS))
        .add_service(reflection().build_v1alpha().expect(OURS));
    (routes.routes(), reporter)
}

/// Tells everyone who asks, or watches, how the services are.
pub(super) async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        reporter.set_service_status(name, status).await;
    }
}

/// Ends the streams of those who watch; they would outlive every call.
pub(super) async fn end_watches(mut reporter: HealthReporter) {
    for name in HEALTH_NAMES {
        reporter.clear_service_status(name).await;
    }
}
