//! Decoding as a client meets it.

use foveal_index::{DecodeParams, DecodeRequest, LogZMode, Segment};

use super::*;

async fn served() -> Served {
    start(|config| {
        let dir = config.collections["rows"].parent().unwrap().to_path_buf();
        let head = build(&dir, "head", Metric::InnerProduct, false);
        config.collections.insert("head".into(), head);
    })
    .await
}

fn request(hidden: Vec<f32>, params: pb::DecodeParams) -> pb::DecodeRequest {
    pb::DecodeRequest {
        collection: "head".into(),
        hidden: floats(hidden),
        params: Some(params),
        ..Default::default()
    }
}

fn five() -> pb::DecodeParams {
    pb::DecodeParams { k: Some(5), ..Default::default() }
}

/// What the engine says of the same.
fn wanted(served: &Served, state: usize, params: DecodeParams) -> foveal_index::Decoded {
    let index = Segment::open(served.dir.path().join("head")).unwrap();
    let request = DecodeRequest { params, ..DecodeRequest::new(1) };
    index.decoder().unwrap().decode(&row(state), &request).unwrap()
}

/// Options that contradict each other when they meet, though each is right on its own.
#[tokio::test]
async fn a_token_that_does_not_count_is_not_told_of() {
    let served = served().await;
    let best = served.search().decode(request(row(3), five())).await.unwrap().into_inner();
    let (best, other) = (best.tokens[0].key, best.tokens[1].key);
    let with = |allow: &[u64], deny: &[u64], asked: &[u64]| pb::DecodeRequest {
        filter: Some(pb::TokenFilter { allow: allow.into(), deny: deny.into() }),
        asked: asked.into(),
        ..request(row(3), five())
    };
    for (request, field) in [
        (with(&[], &[best], &[best]), "asked[0]"),
        (with(&[], &[best], &[other, best]), "asked[1]"),
        (with(&[other], &[], &[best]), "asked[0]"),
        (with(&[other], &[best], &[other]), "filter"),
        (with(&[], &[best], &[1]), "asked[0]"),
    ] {
        assert_field(served.search().decode(request).await, field);
    }
    for request in [with(&[], &[best], &[other]), with(&[other], &[], &[other])] {
        let response = served.search().decode(request).await.unwrap().into_inner();
        assert!(response.asked[0].log_prob <= 1e-9, "{}", response.asked[0].log_prob);
        assert_eq!(response.tokens[0].key, other);
    }
}

#[tokio::test]
async fn hidden_states_that_cannot_be_used_are_named() {
    let served = served().await;
    let mut client = served.search();
    let five_of = |hidden: Vec<f32>| request(hidden, five());
    assert_field(client.decode(five_of(vec![2e19; DIM])).await, "hidden");
    assert_field(client.decode(five_of(vec![f32::NAN; DIM])).await, "hidden");
    let mut values = rows();
    values[5 * DIM] = 2e19;
    let states = pb::DecodeBatchRequest {
        collection: "head".into(),
        hidden: batch("head", &values).queries,
        params: Some(five()),
        filter: None,
    };
    assert_field(client.decode_batch(states).await, "hidden[5]");
    for params in [
        pb::DecodeParams { temperature: Some(f64::NAN), ..five() },
        pb::DecodeParams { temperature: Some(0.0), ..five() },
        pb::DecodeParams { temperature: Some(f64::INFINITY), ..five() },
    ] {
        assert_field(client.decode(request(row(3), params)).await, "params.temperature");
    }
    let params = pb::DecodeParams { top_p: Some(f64::NAN), ..five() };
    assert_field(client.decode(request(row(3), params)).await, "params.top_p");
    let params = pb::DecodeParams { target_recall: Some(f64::NAN), ..five() };
    assert_field(client.decode(request(row(3), params)).await, "params.target_recall");
}

fn told(tokens: &[pb::Token]) -> Vec<(u64, f32, f64)> {
    tokens.iter().map(|token| (token.key, token.logit, token.log_prob)).collect()
}

fn known(tokens: &[foveal_index::Token]) -> Vec<(u64, f32, f64)> {
    tokens.iter().map(|token| (token.key, token.logit, token.log_prob)).collect()
}

#[tokio::test]
async fn a_decode_is_the_engines() {
    let served = served().await;
    let exact = pb::DecodeParams { log_z: pb::LogZMode::Exact.into(), ..five() };
    let key = FIRST_KEY + 17;
    let request = pb::DecodeRequest { asked: vec![key], ..request(row(3), exact) };
    let response = served.search().decode(request).await.unwrap().into_inner();
    let params = DecodeParams { log_z: LogZMode::Exact, ..DecodeParams::new(5) };
    let wanted = wanted(&served, 3, params);
    assert_eq!(told(&response.tokens), known(&wanted.tokens));
    let log_z = response.log_z.unwrap();
    assert_eq!((log_z.value, log_z.low), (wanted.log_z.unwrap().value, log_z.value));
    assert!(response.order_proved);
    assert_eq!(response.asked[0].key, key);
    let ran = response.params.unwrap();
    assert_eq!((ran.k, ran.mode()), (Some(5), pb::DecodeMode::Exact));
    assert_eq!((ran.temperature, ran.top_p), (Some(1.0), Some(1.0)));
    assert_eq!(response.usage.unwrap().reranked, N as u64 + 1);
}

#[tokio::test]
async fn batches_and_streams_answer_in_order() {
    let served = served().await;
    let states = 0..40;
    let values = states.clone().flat_map(row).collect();
    let batch = pb::DecodeBatchRequest {
        collection: "head".into(),
        hidden: Some(pb::Vectors {
            dim: DIM as u32,
            data: Some(pb::vectors::Data::F32(pb::PackedFloat { values })),
        }),
        params: Some(five()),
        filter: None,
    };
    let batch = served.search().decode_batch(batch).await.unwrap().into_inner();
    assert_eq!(batch.results.len(), states.len());
    let requests = tokio_stream::iter(states.clone().map(|state| request(row(state), five())));
    let mut stream = served.search().decode_stream(requests).await.unwrap().into_inner();
    for state in states {
        let wanted = wanted(&served, state, DecodeParams::new(5));
        let response = stream.message().await.unwrap().unwrap();
        assert_eq!(told(&response.tokens), known(&wanted.tokens), "state {state}");
        let keys: Vec<u64> = wanted.tokens.iter().map(|token| token.key).collect();
        assert_eq!(batch.results[state].keys, keys);
        let probs: Vec<f64> = wanted.tokens.iter().map(|token| token.log_prob).collect();
        assert_eq!(batch.results[state].log_probs, probs);
    }
    assert!(stream.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_stream_ends_with_its_first_error_and_with_its_client() {
    let served = served().await;
    let requests = [request(row(0), five()), request(vec![1.0], five()), request(row(1), five())];
    let requests = tokio_stream::iter(requests);
    let mut stream = served.search().decode_stream(requests).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().is_some());
    let status = stream.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("hidden has 1 dimensions"), "{status}");

    let (open, held) = served.hold().await;
    let (send, receive) = mpsc::channel(1);
    send.send(request(row(0), five())).await.unwrap();
    let requests = tokio_stream::wrappers::ReceiverStream::new(receive);
    let stream = served.search().decode_stream(requests).await.unwrap();
    until(|| served.shared.pool.pending() == 2).await;
    drop((stream, send));
    until(|| served.shared.pool.pending() == 1).await;
    drop(open);
    held.await.unwrap();
}

#[tokio::test]
async fn lists_decide_which_tokens_count() {
    let served = served().await;
    let best = wanted(&served, 5, DecodeParams::new(3)).tokens;
    let keys: Vec<u64> = best.iter().map(|token| token.key).collect();
    let filter = |allow: &[u64], deny: &[u64]| {
        Some(pb::TokenFilter { allow: allow.to_vec(), deny: deny.to_vec() })
    };
    let filtered = |filter| pb::DecodeRequest { filter, ..request(row(5), five()) };
    let allowed = served.search().decode(filtered(filter(&keys, &[]))).await.unwrap().into_inner();
    assert_eq!(allowed.tokens.iter().map(|token| token.key).collect::<Vec<_>>(), keys);
    let sum: f64 = allowed.tokens.iter().map(|token| token.log_prob.exp()).sum();
    assert!((sum - 1.0).abs() < 1e-9);
    let denied = served.search().decode(filtered(filter(&[], &keys))).await.unwrap().into_inner();
    assert!(denied.tokens.iter().all(|token| !keys.contains(&token.key)));
    for (bad, field) in [
        (filter(&keys, &keys), "filter has an allow and a deny list"),
        (filter(&[3], &[]), "filter leaves no token"),
    ] {
        let status = served.search().decode(filtered(bad)).await.unwrap_err();
        assert!(status.message().starts_with(field), "{status}");
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_refused_by_its_field() {
    let served = served().await;
    let mut nan = row(0);
    nan[2] = f32::NAN;
    let with = |params: pb::DecodeParams| request(row(0), params);
    let elsewhere = pb::DecodeRequest { collection: "angles".into(), ..with(five()) };
    let unknown = pb::DecodeRequest { asked: vec![FIRST_KEY, 3], ..with(five()) };
    for (bad, wanted) in [
        (request(nan, five()), "hidden value 2 is NaN"),
        (with(pb::DecodeParams { k: Some(0), ..five() }), "params.k is 0"),
        (with(pb::DecodeParams { k: Some(1 << 20), ..five() }), "params.k is 1048576"),
        (with(pb::DecodeParams { mode: 77, ..five() }), "params.mode is 77"),
        (with(pb::DecodeParams { temperature: Some(0.0), ..five() }), "params.temperature is 0"),
        (with(pb::DecodeParams { top_p: Some(1.5), ..five() }), "params.top_p is 1.5"),
        (
            with(pb::DecodeParams { target_recall: Some(2.0), ..five() }),
            "params.target_recall is 2",
        ),
        (elsewhere, "collection has metric cosine"),
        (unknown, "asked[1] is 3"),
    ] {
        let status = served.search().decode(bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(wanted), "{wanted}: {status}");
        assert!(status.get_details_error_info().is_some());
    }
}
