//! What a connection may do, and which services it meets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foveal_proto::FILE_DESCRIPTOR_SET;
use foveal_proto::v1::admin_service_server::AdminServiceServer;
use foveal_proto::v1::collection_service_server::CollectionServiceServer;
use foveal_proto::v1::search_service_server::SearchServiceServer;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::admin::Admin;
use super::collection::Collections;
use super::connection::Rules;
use super::search::Search;
use super::{Catalog, Shared};
use crate::config::Transport;

/// Bytes of a message that carries no vectors, health and reflection included.
const MAX_SMALL_MESSAGE: usize = 4 << 20;

/// What a client may send before the server has taken it up: enough for a batch without a pause.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The names under which health is reported: each service, and all of them as "". Those of
/// collections have no upper case.
const SERVICES: [&str; 4] = [
    "",
    SearchServiceServer::<Search>::NAME,
    CollectionServiceServer::<Collections>::NAME,
    AdminServiceServer::<Admin>::NAME,
];

/// What holds for every connection: every limit that the library leaves open.
pub(super) fn rules(transport: &Transport) -> Rules {
    let seconds = Duration::from_secs;
    let resets = transport.pending_reset_streams();
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(transport.max_concurrent_streams)
        .keep_alive_interval(seconds(transport.keepalive_seconds))
        .keep_alive_timeout(seconds(transport.keepalive_timeout_seconds))
        .max_header_list_size(transport.max_header_list_bytes)
        .max_pending_accept_reset_streams(resets)
        .max_local_error_reset_streams(resets)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    Rules {
        http2,
        handshake: seconds(transport.handshake_seconds),
        age: seconds(transport.max_connection_age_seconds),
        grace: seconds(transport.max_connection_age_grace_seconds),
    }
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

/// Tells everyone who asks, or watches, how the services are, and under the name of each collection
/// whether it is served.
pub(super) async fn report(reporter: &HealthReporter, status: ServingStatus, catalog: &Catalog) {
    for name in SERVICES {
        reporter.set_service_status(name, status).await;
    }
    for collection in catalog.iter() {
        reporter.set_service_status(&collection.name, status).await;
    }
    for (name, _) in catalog.unavailable() {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
}

/// Tells how the collections are by now.
pub(super) async fn report_change(reporter: &mut HealthReporter, before: &Catalog, now: &Catalog) {
    let names = |catalog: &Catalog| -> BTreeSet<String> {
        let open = catalog.iter().map(|collection| collection.name.clone());
        open.chain(catalog.unavailable().map(|(name, _)| name.into())).collect()
    };
    for gone in names(before).difference(&names(now)) {
        reporter.clear_service_status(gone).await;
    }
    report(reporter, ServingStatus::Serving, now).await;
}

/// Ends the streams of those who watch; they would outlive every call.
pub(super) async fn end_watches(mut reporter: HealthReporter, catalog: &Catalog) {
    for name in SERVICES {
        reporter.clear_service_status(name).await;
    }
    for collection in catalog.iter() {
        reporter.clear_service_status(&collection.name).await;
    }
    for (name, _) in catalog.unavailable() {
        reporter.clear_service_status(name).await;
    }
}
