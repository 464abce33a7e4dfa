use std::time::Duration;

use foveal_index::{Answer, FrontierPoint, QueryStats, SearchError, Stopped};
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::search_pool::{PartError, PoolError};

const DIM: usize = 3;

fn expected(metric: Metric, element: Element) -> Expected {
    Expected { dim: DIM, metric, element }
}

fn l2() -> Expected {
    expected(Metric::L2, Element::F32)
}

fn floats(values: &[f32]) -> Option<pb::Vector> {
    let packed = pb::PackedFloat { values: values.to_vec() };
    Some(pb::Vector { data: Some(pb::vector::Data::F32(packed)) })
}

fn raw(dtype: pb::DType, bytes: &[u8]) -> Option<pb::Vector> {
    let raw = pb::Raw { dtype: dtype.into(), values: bytes.to_vec().into() };
    Some(pb::Vector { data: Some(pb::vector::Data::Raw(raw)) })
}

fn query(vector: Option<pb::Vector>, expected: &Expected) -> Result<Rows, Status> {
    super::query("vector", vector, expected)
}

fn queries(
    vectors: Option<pb::Vectors>,
    expected: &Expected,
    k: u32,
    limits: &Limits,
) -> Result<Rows, Status> {
    super::queries("queries", vectors, expected, (k, limits))
}

fn many(dim: u32, values: &[f32]) -> Option<pb::Vectors> {
    let packed = pb::PackedFloat { values: values.to_vec() };
    Some(pb::Vectors { dim, data: Some(pb::vectors::Data::F32(packed)) })
}

fn params(k: u32) -> pb::SearchParams {
    pb::SearchParams { k: Some(k), ..Default::default() }
}

#[track_caller]
fn assert_invalid<T: std::fmt::Debug>(result: Result<T, Status>, field: &str) {
    let status = result.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let request = status.get_details_bad_request().unwrap();
    let fields: Vec<_> = request.field_violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, [field], "{status}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_REQUEST", "foveal"));
}

/// An index that reaches 0.9 and 0.99 of 10 with lists of 20 and 50.
fn frontier() -> Frontier {
    let point = |list_size, recall| {
        let lower = recall - 0.01;
        FrontierPoint { k: 10, list_size, recall, lower, distances: 100.0 }
    };
    let points = vec![point(20, 0.9), point(50, 0.99)];
    Frontier { queries: 1000, learned: false, points, stop_radii: Vec::new() }
}

#[test]
fn a_target_recall_takes_the_place_of_sizes() {
    let limits = Limits::default();
    let with = |target| pb::SearchParams { target_recall: Some(target), ..params(10) };
    let chosen = |target| search_params(Some(&with(target)), &limits, &frontier()).unwrap();
    let wanted = |list_size, recall| RequestedParams {
        params: SearchParams::with_list_size(10, list_size),
        recall: Some(recall),
    };
    assert_eq!(chosen(0.89), wanted(20, (0.89, 0.9)));
    assert_eq!(chosen(0.895), wanted(50, (0.895, 0.99)), "0.9 is not sure to be above it");
    assert_eq!(chosen(0.995), wanted(50, (0.995, 0.99)), "the best there is, and it says so");
    let response = batch_response(done(&[1.0], vec![None]), &chosen(0.89), Metric::L2);
    assert_eq!(response.expected_recall, Some(0.9));
    let said = response.params.unwrap();
    assert_eq!((said.list_size, said.target_recall), (Some(20), Some(0.89)));

    let check = |given, field| {
        assert_invalid(search_params(Some(&given), &limits, &frontier()), field);
    };
    check(with(1.0), "params.target_recall");
    check(with(-0.1), "params.target_recall");
    check(with(f64::NAN), "params.target_recall");
    check(pb::SearchParams { list_size: Some(50), ..with(0.9) }, "params.target_recall");
    check(pb::SearchParams { rerank_size: Some(50), ..with(0.9) }, "params.target_recall");
    check(pb::SearchParams { k: Some(101), ..with(0.9) }, "params.k");
    let small = Limits { max_list_size: 30, ..Limits::default() };
    assert_invalid(search_params(Some(&with(0.95)), &small, &frontier()), "params.list_size");
}

#[test]
fn unset_parameters_take_defaults_that_fit_the_set_ones() {
    let limits = Limits::default();
    let chosen =
        |given: &pb::SearchParams| search_params(Some(given), &limits, &frontier()).unwrap().params;
    assert_eq!(
        search_params(None, &limits, &frontier()).unwrap().params,
        SearchParams::new(DEFAULT_K)
    );
    assert_eq!(chosen(&params(100)), SearchParams::new(100));
    assert_eq!(chosen(&params(16_384)).list_size, 32_768);

    let set = pb::SearchParams { list_size: Some(200), ..params(5) };
    assert_eq!(chosen(&set), SearchParams::with_list_size(5, 200));
    let set = pb::SearchParams { rerank_size: Some(300), max_reads: Some(9), ..params(5) };
    let wanted = SearchParams { k: 5, list_size: 300, rerank_size: 300, max_reads: Some(9) };
    assert_eq!(chosen(&set), wanted);

    // A default never exceeds what the server allows.
    let small = Limits { max_list_size: 70, ..Limits::default() };
    assert_eq!(search_params(Some(&params(60)), &small, &frontier()).unwrap().params.list_size, 70);
}

#[test]
fn parameters_out_of_range_name_their_field() {
    let limits = Limits::default();
    let check = |given: pb::SearchParams, field| {
        assert_invalid(search_params(Some(&given), &limits, &frontier()), field);
    };
    check(params(0), "params.k");
    check(params(16_385), "params.k");
    check(params(u32::MAX), "params.k");
    check(pb::SearchParams { list_size: Some(9), ..params(10) }, "params.list_size");
    check(pb::SearchParams { list_size: Some(65_537), ..params(10) }, "params.list_size");
    check(pb::SearchParams { list_size: Some(u32::MAX), ..params(10) }, "params.list_size");
    check(pb::SearchParams { rerank_size: Some(9), ..params(10) }, "params.rerank_size");
    check(pb::SearchParams { rerank_size: Some(u32::MAX), ..params(10) }, "params.rerank_size");
    check(pb::SearchParams { max_reads: Some(0), ..params(10) }, "params.max_reads");
    let small = Limits { max_k: 20, max_list_size: 50, ..Limits::default() };
    assert_invalid(search_params(Some(&params(21)), &small, &frontier()), "params.k");
    let listed = pb::SearchParams { list_size: Some(51), ..params(10) };
    assert_invalid(search_params(Some(&listed), &small, &frontier()), "params.list_size");
}

#[test]
fn vectors_arrive_bit_by_bit_in_every_type() {
    let values = [1.5_f32, -0.0, 3e38];
    let rows = query(floats(&values), &l2()).unwrap();
    assert_eq!(rows.values(), &Values::F32(values.to_vec()));
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(query(raw(pb::DType::F32, &bytes), &l2()).unwrap(), rows);

    let halves = [0.5, -2.0, 65_504.0].map(f16::from_f32);
    let bytes: Vec<u8> = halves.iter().flat_map(|x| x.to_le_bytes()).collect();
    let rows = query(raw(pb::DType::F16, &bytes), &l2()).unwrap();
    assert_eq!(rows.values(), &Values::F16(halves.to_vec()));

    let bytes = [0, 128, 255];
    let of = |element| expected(Metric::L2, element);
    let rows = query(raw(pb::DType::U8, &bytes), &of(Element::U8)).unwrap();
    assert_eq!(rows.values(), &Values::U8(bytes.to_vec()));
    let rows = query(raw(pb::DType::I8, &bytes), &of(Element::I8)).unwrap();
    assert_eq!(rows.values(), &Values::I8(vec![0, -128, -1]));
    // Another type than the stored one: as floats.
    let rows = query(raw(pb::DType::U8, &bytes), &of(Element::I8)).unwrap();
    assert_eq!(rows.values(), &Values::F32(vec![0.0, 128.0, 255.0]));
    let rows = query(raw(pb::DType::I8, &bytes), &of(Element::F32)).unwrap();
    assert_eq!(rows.values(), &Values::F32(vec![0.0, -128.0, -1.0]));
}

#[test]
fn queries_that_cannot_be_searched_for_name_their_field() {
    let check = |vector, field| assert_invalid(query(vector, &l2()), field);
    check(None, "vector");
    check(Some(pb::Vector { data: None }), "vector");
    check(floats(&[]), "vector");
    check(floats(&[1.0, 2.0]), "vector");
    check(floats(&[1.0, 2.0, 3.0, 4.0]), "vector");
    check(floats(&[1.0, f32::NAN, 3.0]), "vector");
    check(floats(&[1.0, 2.0, f32::NEG_INFINITY]), "vector");
    check(raw(pb::DType::F32, &[0; 11]), "vector.raw.values");
    check(raw(pb::DType::F32, &[0; 16]), "vector");
    check(raw(pb::DType::Unspecified, &[0; 12]), "vector.raw.dtype");
    let unknown = pb::Raw { dtype: 77, values: vec![0; 12].into() };
    check(Some(pb::Vector { data: Some(pb::vector::Data::Raw(unknown)) }), "vector.raw.dtype");
    let half_nan: Vec<u8> = [0, 0, 0x7e00_u16].iter().flat_map(|x| x.to_le_bytes()).collect();
    check(raw(pb::DType::F16, &half_nan), "vector");

    let cosine = expected(Metric::Cosine, Element::F32);
    assert_invalid(query(floats(&[0.0, -0.0, 0.0]), &cosine), "vector");
    assert!(query(floats(&[0.0; 3]), &l2()).is_ok());
    let text = query(floats(&[1.0, f32::NAN, 3.0]), &l2()).unwrap_err().to_string();
    assert!(text.contains("value 1"), "{text}");
}

#[test]
fn batches_are_refused_whole_and_name_the_query() {
    let limits = Limits::default();
    let check = |vectors, field| assert_invalid(queries(vectors, &l2(), 10, &limits), field);
    let mut values = vec![1.0; 20 * DIM];
    assert_eq!(queries(many(3, &values), &l2(), 10, &limits).unwrap().len(), 20);
    values[17 * DIM + 2] = f32::NAN;
    check(many(3, &values), "queries[17]");
    check(None, "queries");
    check(Some(pb::Vectors { dim: 3, data: None }), "queries");
    check(many(3, &[]), "queries");
    check(many(3, &[1.0; 5]), "queries");
    check(many(3, &[1.0; 2]), "queries");
    // As many values, and another meaning.
    check(many(2, &[1.0; 6]), "queries.dim");
    check(many(0, &[1.0; 6]), "queries.dim");
    check(many(u32::MAX, &[1.0; 6]), "queries.dim");
    check(many(3, &vec![1.0; 4_097 * DIM]), "queries");
    assert_eq!(queries(many(3, &vec![1.0; 4_096 * DIM]), &l2(), 10, &limits).unwrap().len(), 4_096);
    // 65 x 16,384 hits are more than a response may have.
    let values = vec![1.0; 65 * DIM];
    assert_invalid(queries(many(3, &values), &l2(), 16_384, &limits), "params.k");
    let cosine = expected(Metric::Cosine, Element::F32);
    let zero = many(3, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    assert_invalid(queries(zero, &cosine, 10, &limits), "queries[1]");
}

fn done(distances: &[f32], payloads: Vec<Option<String>>) -> Done<Found> {
    let neighbors = (1..).zip(distances).map(|(key, &distance)| Neighbor { key, distance });
    let stats = QueryStats { distances: 5, preview_nanos: 1_600, ..QueryStats::default() };
    let mut answer = Answer::default();
    answer.neighbors = neighbors.collect();
    (answer.exhausted, answer.certified, answer.stats) = (true, 1, stats);
    Done { found: vec![Found { answer, payloads }], queued: Duration::from_micros(42) }
}

#[test]
fn scores_grow_as_distances_shrink() {
    assert_eq!(Metric::L2.score(4.0), -4.0);
    assert_eq!(Metric::L2.score(0.0).to_bits(), 0.0_f32.to_bits());
    assert_eq!(Metric::InnerProduct.score(-7.5), 7.5);
    assert_eq!(Metric::Cosine.score(0.25), 0.75);
}

#[test]
fn payloads_stay_beside_their_hits() {
    let payloads = || vec![None, Some("{\"a\":1}".to_string())];
    let requested = RequestedParams { params: SearchParams::new(3), recall: None };
    let response = search_response(done(&[1.0, 2.0], payloads()), &requested, Metric::L2);
    assert_eq!(response.hits[0].payload, None);
    assert_eq!(response.hits[1].payload.as_deref(), Some("{\"a\":1}"));
    assert_eq!((response.hits[1].key, response.hits[1].score), (2, -2.0));
    assert!(response.exhausted && !response.partial && response.certified == 1);

    let batch = batch_response(done(&[1.0, 2.0], payloads()), &requested, Metric::L2);
    assert_eq!(batch.results[0].payloads, ["", "{\"a\":1}"]);
    let batch = batch_response(done(&[1.0, 2.0], vec![None, None]), &requested, Metric::L2);
    assert!(batch.results[0].payloads.is_empty());
}

#[test]
fn usage_of_a_batch_is_the_sum_of_its_queries() {
    let requested = RequestedParams { params: SearchParams::new(1), recall: None };
    let mut both = done(&[1.0], Vec::new());
    both.found.extend(done(&[2.0], Vec::new()).found);
    let usage = batch_response(both, &requested, Metric::L2).usage.unwrap();
    // 2 x 1.6 microseconds: summed before they are cut.
    assert_eq!((usage.distances, usage.preview_micros, usage.queue_micros), (10, 3, 42));
}

#[test]
fn errors_tell_a_program_what_to_do() {
    let status = search_status(&PoolError::Full { pending: 7 }, "wiki");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_quota_failure().is_some());
    assert!(status.get_details_retry_info().unwrap().retry_delay > Some(Duration::ZERO));

    let reason = |error: &PoolError| {
        let status = search_status(error, "wiki");
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.domain, DOMAIN);
        (status.code(), info.reason)
    };
    for (error, code, name) in [
        (PoolError::Panicked, Code::Internal, "PANIC"),
        (PoolError::Closed, Code::Unavailable, "SHUTTING_DOWN"),
        (PoolError::Stopped(Stopped::Deadline), Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (PoolError::Stopped(Stopped::Cancelled), Code::Cancelled, "CANCELLED"),
        (
            PoolError::Part(PartError::PayloadTooLarge { limit: 1 }),
            Code::ResourceExhausted,
            "PAYLOAD_TOO_LARGE",
        ),
        (
            PoolError::Part(SearchError::Stopped(Stopped::Deadline).into()),
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
        ),
        (
            PoolError::Part(SearchError::Dim { found: 2, wanted: 3 }.into()),
            Code::InvalidArgument,
            "INVALID_REQUEST",
        ),
    ] {
        assert_eq!(reason(&error), (code, name.to_string()), "{error}");
    }
}

#[test]
fn names_of_missing_collections_are_not_echoed_at_length() {
    let status = no_collection("collection", "wiki");
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.get_details_resource_info().unwrap().resource_name, "wiki");
    assert_eq!(status.get_details_error_info().unwrap().reason, "COLLECTION_NOT_FOUND");
    for name in ["", "../etc", "a\0b", &"x".repeat(1 << 20)] {
        let status = no_collection("collection", name);
        assert_invalid(Err::<(), _>(status.clone()), "collection");
        assert!(status.message().len() < 500);
    }
}

#[test]
fn foreign_statuses_gain_a_reason_and_keep_their_words() {
    let status = with_error_info(Status::out_of_range("too long"));
    assert_eq!((status.code(), status.message()), (Code::OutOfRange, "too long"));
    assert_eq!(status.get_details_error_info().unwrap().reason, "MESSAGE_TOO_LARGE");
    let ours = invalid("params.k", "is 0");
    let reason = with_error_info(ours).get_details_error_info().unwrap().reason;
    assert_eq!(reason, "INVALID_REQUEST");
}
