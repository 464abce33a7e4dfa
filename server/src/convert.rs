//! Messages to what the engine takes, answers to messages, and in `status` errors to statuses: the
//! only place that knows both the wire and the engine. Whatever it lets through, the engine can
//! search for, or decode.

mod decode;
mod status;

use std::time::Duration;

use foveal_datasets::{Element, Metric, Row, Rows, Values};
use foveal_index::{
    Frontier, Neighbor, ParamsError, QueryStats, SearchError, SearchParams, Segment,
};
use foveal_proto::v1 as pb;
use half::{bf16, f16};
use tonic::Status;

use crate::config::Limits;
use crate::search_pool::{Done, Found};

pub use decode::{
    decode_batch_response, decode_params, decode_response, requested_tokens, token_filter,
};
pub use status::{
    DOMAIN, deadline_exceeded, invalid, no_collection, search_status, unavailable, with_error_info,
};

/// Results of a query that does not say how many it wants.
pub const DEFAULT_K: u32 = 10;

/// The search parameters that a request resolves to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestedParams {
    /// Every default filled in.
    pub params: SearchParams,
    /// The recall wanted and the recall to expect, where the request names a recall.
    pub recall: Option<(f64, f64)>,
}

/// The parameters of a request, with every default filled in, within the server's limits;
/// `frontier` is that of the index searched.
///
/// # Errors
/// INVALID_ARGUMENT naming the field of the first value out of range.
pub fn search_params(
    given: Option<&pb::SearchParams>,
    limits: &Limits,
    frontier: &Frontier,
) -> Result<RequestedParams, Status> {
    let given = given.copied().unwrap_or_default();
    let k = given.k.unwrap_or(DEFAULT_K);
    at_most("params.k", k, limits.max_k)?;
    if let Some(target) = given.target_recall {
        if given.list_size.is_some() || given.rerank_size.is_some() {
            let what = format!("is {target} beside a size; wanted one or the other");
            return Err(invalid("params.target_recall", &what));
        }
        let (chosen, expected) = frontier.choose(k, target).map_err(refused)?;
        at_most("params.list_size", chosen.list_size, limits.max_list_size)?;
        let params = SearchParams { max_reads: given.max_reads, ..chosen };
        params.check().map_err(refused)?;
        return Ok(RequestedParams { params, recall: Some((target, expected)) });
    }
    let default_list_size = SearchParams::new(k)
        .list_size
        .max(given.rerank_size.unwrap_or(0))
        .min(limits.max_list_size)
        .max(k);
    let list_size = given.list_size.unwrap_or(default_list_size);
    at_most("params.list_size", list_size, limits.max_list_size)?;
    let params = SearchParams {
        k,
        list_size,
        rerank_size: given.rerank_size.unwrap_or(list_size),
        max_reads: given.max_reads,
    };
    params.check().map_err(refused)?;
    Ok(RequestedParams { params, recall: None })
}

/// INVALID_ARGUMENT for a value that the engine refuses.
fn refused(error: ParamsError) -> Status {
    let what = format!("is {}; wanted {}", error.found, error.wanted);
    invalid(&format!("params.{}", error.name), &what)
}

fn at_most(field: &str, found: u32, limit: u32) -> Result<(), Status> {
    if found <= limit {
        return Ok(());
    }
    Err(invalid(field, &format!("is {found}; wanted at most {limit}")))
}

/// What a query must be like for a collection to be searched with it.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Numbers in a vector.
    pub dim: usize,
    /// Under cosine a query must not be zero.
    pub metric: Metric,
    /// The type of the stored vectors.
    pub element: Element,
}

impl Expected {
    /// What `index` expects.
    pub fn by(index: &Segment) -> Expected {
        let manifest = index.manifest();
        Expected { dim: index.dim(), metric: manifest.metric, element: manifest.element }
    }

    /// What `index` expects of a hidden state.
    pub fn of_hidden(index: &Segment) -> Expected {
        Expected { dim: index.hidden_dim(), ..Expected::by(index) }
    }

    /// What is wrong with `row`, or nothing.
    fn fault(&self, row: Row<'_>) -> Option<String> {
        if !row.is_finite() {
            let position = match row {
                Row::F32(values) => values.iter().position(|x| !x.is_finite()),
                Row::F16(values) => values.iter().position(|x| !x.is_finite()),
                Row::Bf16(values) => values.iter().position(|x| !x.is_finite()),
                Row::U8(_) | Row::I8(_) => None,
            };
            let position = position.unwrap_or_default();
            return Some(format!("value {position} is NaN or infinite; wanted finite numbers"));
        }
        if self.metric.needs_direction() && row.is_zero() {
            return Some("is zero, which has no direction; wanted another for cosine".into());
        }
        None
    }

    /// Integer queries of another type than the stored one are searched as floats: widening is
    /// exact.
    fn suited(&self, values: Values) -> Values {
        match values {
            Values::U8(bytes) if self.element != Element::U8 => {
                Values::F32(bytes.into_iter().map(f32::from).collect())
            }
            Values::I8(bytes) if self.element != Element::I8 => {
                Values::F32(bytes.into_iter().map(f32::from).collect())
            }
            other => other,
        }
    }
}

/// The query in a field of a request as `[1 x dim]` rows. Copies raw values once, floats not at
/// all.
///
/// # Errors
/// INVALID_ARGUMENT naming the field: no vector, another dimension, bytes that are no whole
/// numbers, a number that is not finite, zero under cosine.
pub fn query(field: &str, vector: Option<pb::Vector>, expected: &Expected) -> Result<Rows, Status> {
    let values = match vector.and_then(|vector| vector.data) {
        None => return Err(invalid(field, "is missing")),
        Some(pb::vector::Data::F32(packed)) => Values::F32(packed.values),
        Some(pb::vector::Data::Raw(raw)) => raw_values(&raw, field)?,
    };
    let (found, wanted) = (values.len(), expected.dim);
    if found != wanted {
        let what = format!("has {found} dimensions; wanted {wanted}, as the collection has");
        return Err(invalid(field, &what));
    }
    let rows = rows(field, expected.dim, expected.suited(values))?;
    match expected.fault(rows.row(0)) {
        Some(what) => Err(invalid(field, &what)),
        None => Ok(rows),
    }
}

/// The queries in a field of a batch as `[n x dim]` rows, all of them validated. Linear in their
/// values.
///
/// # Errors
/// INVALID_ARGUMENT naming the field (`queries[17]` for one query): as for [`query`], and no
/// queries, too many of them, or too many hits with `k` for each.
pub fn queries(
    field: &str,
    vectors: Option<pb::Vectors>,
    expected: &Expected,
    (k, limits): (u32, &Limits),
) -> Result<Rows, Status> {
    let vectors = vectors.ok_or_else(|| invalid(field, "is missing"))?;
    if vectors.dim as usize != expected.dim {
        let (found, wanted) = (vectors.dim, expected.dim);
        let what = format!("is {found}; wanted {wanted}, as the collection has");
        return Err(invalid(&format!("{field}.dim"), &what));
    }
    let values = match vectors.data {
        None => return Err(invalid(field, "has no vectors")),
        Some(pb::vectors::Data::F32(packed)) => Values::F32(packed.values),
        Some(pb::vectors::Data::Raw(raw)) => raw_values(&raw, field)?,
    };
    let count = values.len() / expected.dim;
    let most = limits.max_batch_queries as usize;
    if count == 0 && values.is_empty() {
        return Err(invalid(field, "has no vectors"));
    }
    if count > most {
        return Err(invalid(field, &format!("has {count} vectors; wanted at most {most}")));
    }
    let hits = count as u64 * u64::from(k);
    if hits > limits.max_batch_hits {
        let most = limits.max_batch_hits;
        let what = format!("{count} queries times k = {k} is {hits} hits; wanted at most {most}");
        return Err(invalid("params.k", &what));
    }
    let rows = rows(field, expected.dim, expected.suited(values))?;
    for (i, row) in rows.iter().enumerate() {
        if let Some(what) = expected.fault(row) {
            return Err(invalid(&format!("{field}[{i}]"), &what));
        }
    }
    Ok(rows)
}

/// Whether the engine takes a query, by its own `rule`.
///
/// # Errors
/// INVALID_ARGUMENT naming the field.
pub fn accepted(
    field: &str,
    query: &Rows,
    rule: impl Fn(Row<'_>) -> Result<(), SearchError>,
) -> Result<(), Status> {
    let refused = |error: SearchError| invalid(field, &format!("cannot be used: {error}"));
    rule(query.row(0)).map_err(refused)
}

/// Whether the engine takes each query of a batch, by its own `rule`. Linear in their values.
///
/// # Errors
/// INVALID_ARGUMENT naming the first that it does not take (`queries[17]`).
pub fn all_accepted(
    field: &str,
    queries: &Rows,
    rule: impl Fn(Row<'_>) -> Result<(), SearchError>,
) -> Result<(), Status> {
    for (i, row) in queries.iter().enumerate() {
        let refused = |error: SearchError| {
            invalid(&format!("{field}[{i}]"), &format!("cannot be used: {error}"))
        };
        rule(row).map_err(refused)?;
    }
    Ok(())
}

fn rows(field: &str, dim: usize, values: Values) -> Result<Rows, Status> {
    Rows::new(dim, values).map_err(|error| invalid(field, &error.to_string()))
}

fn raw_values(raw: &pb::Raw, field: &str) -> Result<Values, Status> {
    let element = match raw.dtype() {
        pb::DType::Unspecified => {
            let what = format!("is {}; wanted F32, F16, BF16, U8 or I8", raw.dtype);
            return Err(invalid(&format!("{field}.raw.dtype"), &what));
        }
        pb::DType::F32 => Element::F32,
        pb::DType::F16 => Element::F16,
        pb::DType::Bf16 => Element::Bf16,
        pb::DType::U8 => Element::U8,
        pb::DType::I8 => Element::I8,
    };
    let (bytes, size) = (&raw.values[..], element.size());
    if !bytes.len().is_multiple_of(size) {
        let found = bytes.len();
        let what = format!("has {found} bytes; wanted a multiple of {size}, the size of {element}");
        return Err(invalid(&format!("{field}.raw.values"), &what));
    }
    Ok(match element {
        Element::F32 => {
            Values::F32(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        }
        Element::F16 => {
            Values::F16(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect())
        }
        Element::Bf16 => {
            Values::Bf16(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b)).collect())
        }
        Element::U8 => Values::U8(bytes.to_vec()),
        Element::I8 => Values::I8(bytes.iter().map(|b| b.cast_signed()).collect()),
    })
}

/// The response to a search for one query.
pub fn search_response(
    done: Done<Found>,
    requested: &RequestedParams,
    metric: Metric,
) -> pb::SearchResponse {
    let usage = usage(done.queued, done.found.iter().map(|found| &found.answer.stats));
    let mut response =
        pb::SearchResponse { params: Some(params_message(requested)), ..Default::default() };
    response.usage = Some(usage);
    response.expected_recall = requested.recall.map(|(_, expected)| expected);
    let Some(Found { answer, payloads }) = done.found.into_iter().next() else {
        return response;
    };
    let mut payloads = payloads.into_iter();
    let hit = |&Neighbor { key, distance }: &Neighbor| pb::Hit {
        key,
        distance,
        score: metric.score(distance),
        payload: payloads.next().flatten(),
    };
    response.hits = answer.neighbors.iter().map(hit).collect();
    response.exhausted = answer.exhausted;
    response.partial = answer.partial;
    response.certified = answer.certified;
    response
}

/// The response to a batch. Linear in its hits.
pub fn batch_response(
    done: Done<Found>,
    requested: &RequestedParams,
    metric: Metric,
) -> pb::SearchBatchResponse {
    let usage = usage(done.queued, done.found.iter().map(|found| &found.answer.stats));
    let results = done.found.into_iter().map(|found| batch_hits(found, metric)).collect();
    pb::SearchBatchResponse {
        results,
        params: Some(params_message(requested)),
        usage: Some(usage),
        expected_recall: requested.recall.map(|(_, expected)| expected),
    }
}

fn batch_hits(found: Found, metric: Metric) -> pb::BatchHits {
    let Found { answer, payloads } = found;
    let neighbors = &answer.neighbors;
    // Empty strings keep the arrays in step; an array of nothing but them says nothing.
    let stored = payloads.iter().any(Option::is_some);
    let payloads = payloads.into_iter().map(Option::unwrap_or_default);
    pb::BatchHits {
        keys: neighbors.iter().map(|neighbor| neighbor.key).collect(),
        distances: neighbors.iter().map(|neighbor| neighbor.distance).collect(),
        scores: neighbors.iter().map(|neighbor| metric.score(neighbor.distance)).collect(),
        payloads: if stored { payloads.collect() } else { Vec::new() },
        exhausted: answer.exhausted,
        partial: answer.partial,
        certified: answer.certified,
    }
}

fn params_message(RequestedParams { params, recall }: &RequestedParams) -> pb::SearchParams {
    pb::SearchParams {
        k: Some(params.k),
        list_size: Some(params.list_size),
        rerank_size: Some(params.rerank_size),
        max_reads: params.max_reads,
        target_recall: recall.map(|(target, _)| target),
    }
}

/// What the queries of a task cost together.
fn usage<'a>(queued: Duration, of: impl Iterator<Item = &'a QueryStats>) -> pb::Usage {
    let mut sum = QueryStats::default();
    of.for_each(|stats| sum += *stats);
    pb::Usage {
        queue_micros: queued.as_micros() as u64,
        distances: sum.distances,
        hops: sum.hops,
        reranked: sum.reranked,
        reads: sum.reads,
        device_reads: sum.device_reads,
        read_bytes: sum.read_bytes,
        preview_micros: sum.preview_nanos / 1_000,
        fullview_micros: sum.fullview_nanos / 1_000,
        payload_reads: sum.payload_reads,
        payload_micros: sum.payload_nanos / 1_000,
    }
}

/// The description of a collection for clients.
pub fn collection(name: &str, index: &Segment) -> pb::Collection {
    let manifest = index.manifest();
    let metric = match manifest.metric {
        Metric::L2 => pb::Metric::L2,
        Metric::InnerProduct => pb::Metric::InnerProduct,
        Metric::Cosine => pb::Metric::Cosine,
    };
    let dtype = match manifest.element {
        Element::F32 => pb::DType::F32,
        Element::F16 => pb::DType::F16,
        Element::Bf16 => pb::DType::Bf16,
        Element::U8 => pb::DType::U8,
        Element::I8 => pb::DType::I8,
    };
    pb::Collection {
        name: name.into(),
        count: index.len(),
        dim: manifest.dim,
        metric: metric.into(),
        dtype: dtype.into(),
        bits: u32::from(manifest.bits),
        max_degree: manifest.max_degree,
        has_payload: manifest.payload,
        io: index.io().to_string(),
        resident_bytes: index.resident_bytes(),
        digest: manifest.digest.clone(),
    }
}

/// The limits, for clients.
pub fn limits(limits: &Limits) -> pb::Limits {
    pb::Limits {
        max_k: limits.max_k,
        max_list_size: limits.max_list_size,
        max_batch_queries: limits.max_batch_queries,
        max_batch_hits: limits.max_batch_hits,
        max_request_bytes: limits.max_request_bytes as u64,
        max_payload_bytes: limits.max_payload_bytes,
        request_timeout_millis: limits.request_timeout_millis,
    }
}

#[cfg(test)]
mod tests;
