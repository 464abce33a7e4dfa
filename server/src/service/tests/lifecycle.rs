//! A server starts, describes itself, drains and stops.

use super::*;

fn no_reload() -> Box<LoadConfig> {
    Box::new(|| panic!("nobody asks for it"))
}

#[tokio::test]
async fn reflection_describes_every_service() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let served = start(|_| {}).await;
    let request = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let questions = tokio_stream::iter([
        request(MessageRequest::ListServices(String::new())),
        request(MessageRequest::FileContainingSymbol("foveal.v1.SearchService".into())),
    ]);
    let mut client = ServerReflectionClient::new(served.channel.clone());
    let mut answers = client.server_reflection_info(questions).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["SearchService", "CollectionService", "AdminService"] {
        assert!(names.contains(&format!("foveal.v1.{name}").as_str()), "{names:?}");
    }
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::FileDescriptorResponse(files) = answer else { panic!("{answer:?}") };
    assert!(!files.file_descriptor_proto.is_empty());
}

#[tokio::test]
async fn reflection_answers_older_clients_too() {
    use tonic_reflection::pb::v1alpha as old;

    let served = start(|_| {}).await;
    let question = old::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(old::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client =
        old::server_reflection_client::ServerReflectionClient::new(served.channel.clone());
    let questions = tokio_stream::iter([question]);
    let mut answers = client.server_reflection_info(questions).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
}

#[tokio::test]
async fn health_is_told_for_each_service_and_for_all() {
    let served = start(|_| {}).await;
    let mut client = HealthClient::new(served.channel.clone());
    let request = |service: &str| tonic_health::pb::HealthCheckRequest { service: service.into() };
    for service in
        ["", "foveal.v1.SearchService", "foveal.v1.CollectionService", "foveal.v1.AdminService"]
    {
        let status = client.check(request(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let status = client.check(request("foveal.v1.NoService")).await.unwrap_err();
    assert_reason(&status, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    let served = start(|_| {}).await;
    let mut health = HealthClient::new(served.channel.clone());
    let everything = tonic_health::pb::HealthCheckRequest::default();
    let mut watch = health.watch(everything).await.unwrap().into_inner();
    let status = within(watch.message()).await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::Serving);

    let (open, held) = served.hold().await;
    let mut client = served.search();
    let call = tokio::spawn(async move { client.search(one("rows", row(3))).await });
    until(|| served.shared.pool.pending() == 2).await;

    served.stop.send(Command::Stop).await.unwrap();
    let status = within(watch.message()).await.unwrap().unwrap().status();
    assert_eq!(status, ServingStatus::NotServing);
    let refused = || std::net::TcpStream::connect(served.address).is_err();
    until(refused).await;
    assert!(!served.task.is_finished(), "a call is in flight");

    drop(open);
    held.await.unwrap();
    let response = within(call).await.unwrap().unwrap().into_inner();
    assert_eq!(response.hits[0].key, FIRST_KEY + 3);
    // Nor does a client that watches, or one that stays connected, hold up the end.
    within(served.task).await.unwrap();
}

#[tokio::test]
async fn a_drain_does_not_wait_for_ever() {
    let served = start(|config| config.transport.drain_seconds = 1).await;
    let (open, held) = served.hold().await;
    let mut client = served.search();
    let _call = tokio::spawn(async move { client.search(one("rows", row(3))).await });
    until(|| served.shared.pool.pending() == 2).await;
    served.stop.send(Command::Stop).await.unwrap();
    within(served.task).await.unwrap();
    drop(open);
    held.await.unwrap();
}

#[tokio::test]
async fn a_second_stop_ends_a_drain() {
    let served = start(|config| config.transport.drain_seconds = 3_600).await;
    let (open, held) = served.hold().await;
    let mut client = served.search();
    let _call = tokio::spawn(async move { client.search(one("rows", row(3))).await });
    until(|| served.shared.pool.pending() == 2).await;
    served.stop.send(Command::Stop).await.unwrap();
    served.stop.send(Command::Stop).await.unwrap();
    within(served.task).await.unwrap();
    drop(open);
    held.await.unwrap();
}

#[tokio::test]
async fn a_run_says_where_it_listens_and_stops_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.listen.set_port(0);
    config.memory = Some(1 << 30);
    config.io = foveal_index::Io::Auto;
    let (stop, stopped) = mpsc::channel(1);
    let (tell, told) = tokio::sync::oneshot::channel();
    let ready = move |address| tell.send(address).unwrap();
    let running = tokio::spawn(run(config, no_reload(), ready, stopped));
    let address = within(told).await.unwrap();
    assert_ne!(address.port(), 0);
    let mut client = SearchServiceClient::connect(format!("http://{address}")).await.unwrap();
    let response = client.search(one("rows", row(9))).await.unwrap().into_inner();
    assert_eq!(response.hits[0].key, FIRST_KEY + 9);
    stop.send(Command::Stop).await.unwrap();
    within(running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = async |config: Config| {
        let (_stop, stopped) = mpsc::channel(1);
        run(config, no_reload(), |_| panic!("it is not ready"), stopped).await.unwrap_err()
    };
    let good = config(dir.path());

    let mut open = good.clone();
    open.listen = "0.0.0.0:0".parse().unwrap();
    let error = attempt(open).await;
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("--insecure"), "{error}");

    let mut missing = good.clone();
    missing.listen.set_port(0);
    missing.collections = [("gone".to_string(), dir.path().join("gone"))].into();
    let error = attempt(missing).await;
    assert_eq!(error.kind(), ErrorKind::NoInput, "{error}");
    assert!(error.to_string().contains("collection gone"), "{error}");

    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut taken = good.clone();
    taken.listen = holder.local_addr().unwrap();
    let error = attempt(taken.clone()).await;
    assert!(matches!(error, ServeError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&taken.listen.to_string()), "{error}");

    let mut small = good;
    small.listen.set_port(0);
    small.memory = Some(1);
    let error = attempt(small).await;
    assert!(matches!(error, ServeError::Memory { .. }), "{error}");
}

#[tokio::test]
async fn a_stop_before_it_is_ready_is_an_interruption() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.listen.set_port(0);
    let (stop, stopped) = mpsc::channel(1);
    stop.send(Command::Stop).await.unwrap();
    let error =
        run(config, no_reload(), |_| panic!("it was told to stop"), stopped).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}
