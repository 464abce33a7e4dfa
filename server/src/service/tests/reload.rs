//! Collections that cannot be opened, and those that are opened again.

use super::*;

async fn health_of(served: &Served, name: &str) -> Result<ServingStatus, Code> {
    let mut client = HealthClient::new(served.channel.clone());
    let request = tonic_health::pb::HealthCheckRequest { service: name.into() };
    let response = client.check(request).await.map_err(|status| status.code())?;
    Ok(response.into_inner().status())
}

async fn list(served: &Served) -> pb::ListCollectionsResponse {
    let mut client = CollectionServiceClient::new(served.channel.clone());
    client.list(pb::ListCollectionsRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_collection_that_cannot_be_opened_keeps_no_other_from_being_served() {
    let served = start(|config| {
        let dir = config.collections["rows"].parent().unwrap().to_path_buf();
        let bad = build(&dir, "bad", Metric::L2, false);
        std::fs::write(bad.join("graph.bin"), "x").unwrap();
        config.collections.insert("bad".into(), bad);
        config.collections.insert("gone".into(), dir.join("gone"));
    })
    .await;
    assert!(served.search().search(one("rows", row(0))).await.is_ok());
    for (name, why) in [("bad", "is damaged on disk"), ("gone", "is not where it should be")] {
        let status = served.search().search(one(name, row(0))).await.unwrap_err();
        assert_reason(&status, Code::Unavailable, "COLLECTION_UNAVAILABLE");
        assert_eq!(status.get_details_resource_info().unwrap().resource_name, name);
        assert!(status.message().contains(why), "{status}");
        let path = served.dir.path().to_str().unwrap();
        assert!(!status.message().contains(path), "{status}");
        assert_eq!(health_of(&served, name).await, Ok(ServingStatus::NotServing));
    }
    for name in ["", "foveal.v1.SearchService", "rows", "angles"] {
        assert_eq!(health_of(&served, name).await, Ok(ServingStatus::Serving), "{name}");
    }
    let list = list(&served).await;
    let open: Vec<_> = list.collections.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(open, ["angles", "rows"]);
    let missing: Vec<_> = list.unavailable.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(missing, ["bad", "gone"]);
}

/// Has the collections opened again, and waits until they are.
async fn reload(served: &Served) {
    let before = Arc::as_ptr(&served.shared.catalog());
    served.stop.send(Command::Reload).await.unwrap();
    until(|| Arc::as_ptr(&served.shared.catalog()) != before).await;
}

/// Whether this process has a file of a directory open.
fn is_open(dir: &Path) -> bool {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .any(|target| target.starts_with(dir))
}

#[tokio::test]
async fn a_reload_opens_what_changed_and_keeps_what_did_not() {
    let served = start(|config| {
        let dir = config.collections["rows"].parent().unwrap().to_path_buf();
        config.collections.insert("late".into(), dir.join("late"));
    })
    .await;
    assert_eq!(health_of(&served, "late").await, Ok(ServingStatus::NotServing));
    served.search().search(one("angles", row(0))).await.unwrap();
    served.search().search(one("rows", row(0))).await.unwrap();
    let before = served.shared.catalog();
    let slot = |catalog: &Catalog, name: &str| catalog.get("name", name).unwrap().slot;

    // One comes late, and one is replaced.
    build(served.dir.path(), "late", Metric::L2, false);
    let rows = served.dir.path().join("rows");
    std::fs::rename(&rows, served.dir.path().join("old")).unwrap();
    build(served.dir.path(), "rows", Metric::InnerProduct, true);
    reload(&served).await;
    let now = served.shared.catalog();
    assert_eq!(slot(&now, "angles"), slot(&before, "angles"));
    assert_ne!(slot(&now, "rows"), slot(&before, "rows"));
    assert_eq!(now.get("name", "rows").unwrap().index.manifest().metric, Metric::InnerProduct);
    served.search().search(one("late", row(0))).await.unwrap();
    let mut status = Err(Code::Unknown);
    for _ in 0..200 {
        status = health_of(&served, "late").await;
        if status == Ok(ServingStatus::Serving) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status, Ok(ServingStatus::Serving));

    // Workers let go of what is searched no more, and so does everyone else.
    drop((before, now));
    until(|| !is_open(&served.dir.path().join("old"))).await;

    // What cannot be opened again goes on as it was.
    std::fs::remove_dir_all(&rows).unwrap();
    reload(&served).await;
    let request = pb::SearchRequest { with_payload: true, ..one("rows", row(17)) };
    let response = served.search().search(request).await.unwrap().into_inner();
    assert!(response.hits.iter().all(|hit| hit.payload.is_some()));
    assert!(list(&served).await.unavailable.is_empty());
}

/// All of the budget keeps blocks of the collections there are: a new one takes some of it.
#[tokio::test]
async fn a_reload_shares_the_budget_again() {
    let served = start(|config| {
        let dir = config.collections["rows"].parent().unwrap().to_path_buf();
        config.collections.insert("late".into(), dir.join("late"));
        config.memory = Some(1 << 20);
    })
    .await;
    served.search().search(one("late", row(0))).await.unwrap_err();
    build(served.dir.path(), "late", Metric::L2, false);
    reload(&served).await;
    for name in ["late", "rows", "angles"] {
        served.search().search(one(name, row(0))).await.unwrap();
    }
    let before = served.shared.catalog();
    reload(&served).await;
    let now = served.shared.catalog();
    let slots = (before.slots(), now.slots());
    assert_eq!(slots.0, slots.1, "nothing changed");
}

#[tokio::test]
async fn a_reload_without_a_configuration_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.listen.set_port(0);
    let (commands, received) = mpsc::channel(2);
    let (tell, told) = tokio::sync::oneshot::channel();
    let (count, counted) = (Arc::new(std::sync::atomic::AtomicUsize::new(0)), Instant::now());
    let loads = Arc::clone(&count);
    let load = move || {
        loads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Config::load(Some(Path::new("/no/such.toml")), [], toml::Table::new())
    };
    let ready = move |address| tell.send(address).unwrap();
    let running = tokio::spawn(run(config, Box::new(load), ready, received));
    let address = within(told).await.unwrap();
    let mut client = SearchServiceClient::connect(format!("http://{address}")).await.unwrap();
    commands.send(Command::Reload).await.unwrap();
    until(|| count.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    client.search(one("rows", row(9))).await.unwrap();
    commands.send(Command::Stop).await.unwrap();
    within(running).await.unwrap().unwrap();
    assert!(counted.elapsed() < Duration::from_secs(60));
}
