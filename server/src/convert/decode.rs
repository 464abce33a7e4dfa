//! Messages about decoding, to and from the types of the engine.

use foveal_index::{
    DecodeMode, DecodeParams, Decoded, IdSet, LogZ, LogZMode, ParamsError, SearchError, Segment,
    Token,
};
use foveal_proto::v1 as pb;
use tonic::Status;

use super::status::invalid;
use super::{DEFAULT_K, at_most, refused, usage};
use crate::config::Limits;
use crate::search_pool::Done;

/// The most tokens that a request may name by key.
const MAX_REQUESTED: usize = 1024;

/// The parameters of a request, with every default filled in, within the server's limits.
///
/// # Errors
/// INVALID_ARGUMENT naming the field of the first value out of range, or of two that contradict
/// each other.
pub fn decode_params(
    given: Option<&pb::DecodeParams>,
    limits: &Limits,
) -> Result<DecodeParams, Status> {
    let given = given.copied().unwrap_or_default();
    let k = given.k.unwrap_or(DEFAULT_K);
    at_most("params.k", k, limits.max_k)?;
    let defaults = DecodeParams::new(k);
    if let (Some(target), Some(_)) = (given.target_recall, given.rerank_size) {
        let what = format!("is {target} beside a rerank size; wanted one or the other");
        return Err(invalid("params.target_recall", &what));
    }
    let list_size = given.list_size.unwrap_or(defaults.list_size.min(limits.max_list_size).max(k));
    at_most("params.list_size", list_size, limits.max_list_size)?;
    at_most("params.rerank_size", given.rerank_size.unwrap_or(0), limits.max_list_size)?;
    let unknown = |name: &'static str, found: i32| {
        let wanted = "a value that the enumeration has".into();
        refused(ParamsError { name, found: found.to_string(), wanted })
    };
    let mode = pb::DecodeMode::try_from(given.mode).map_err(|_| unknown("mode", given.mode))?;
    let log_z = pb::LogZMode::try_from(given.log_z).map_err(|_| unknown("log_z", given.log_z))?;
    let params = DecodeParams {
        k,
        mode: match mode {
            pb::DecodeMode::Unspecified => DecodeMode::Auto,
            pb::DecodeMode::Scan => DecodeMode::Scan,
            pb::DecodeMode::Graph => DecodeMode::Graph,
            pb::DecodeMode::Exact => DecodeMode::Exact,
        },
        precision: given.target_recall.unwrap_or(defaults.precision),
        rerank_size: given.rerank_size,
        list_size,
        temperature: given.temperature.unwrap_or(defaults.temperature),
        top_p: given.top_p.unwrap_or(defaults.top_p),
        log_z: match log_z {
            pb::LogZMode::Off => LogZMode::Off,
            pb::LogZMode::Unspecified | pb::LogZMode::Interval => LogZMode::Interval,
            pb::LogZMode::Exact => LogZMode::Exact,
        },
    };
    params.check().map_err(|error| match error.name {
        // The engine has another word for it.
        "precision" => refused(ParamsError { name: "target_recall", ..error }),
        _ => refused(error),
    })?;
    Ok(params)
}

/// The only tokens that count; none where all do.
///
/// # Errors
/// INVALID_ARGUMENT: both lists are given, or they leave no token. What `failed` makes of a look-up
/// that fails.
pub fn token_filter(
    given: Option<&pb::TokenFilter>,
    index: &Segment,
    failed: &dyn Fn(SearchError) -> Status,
) -> Result<Option<IdSet>, Status> {
    let Some(pb::TokenFilter { allow, deny }) = given else { return Ok(None) };
    let allowed = match (allow.is_empty(), deny.is_empty()) {
        (true, true) => return Ok(None),
        (false, true) => index.id_set(allow).map_err(failed)?,
        (true, false) => index.id_set(deny).map_err(failed)?.complement(),
        (false, false) => {
            return Err(invalid("filter", "has an allow and a deny list; wanted one of them"));
        }
    };
    if allowed.is_empty() {
        return Err(invalid("filter", "leaves no token; wanted at least one that counts"));
    }
    Ok(Some(allowed))
}

/// Whether the requested tokens exist, count, and are not too many.
///
/// # Errors
/// INVALID_ARGUMENT naming the entry. What `failed` makes of a look-up that fails.
pub fn requested_tokens(
    requested: &[u64],
    allowed: Option<&IdSet>,
    index: &Segment,
    failed: &dyn Fn(SearchError) -> Status,
) -> Result<(), Status> {
    if requested.len() > MAX_REQUESTED {
        let found = requested.len();
        return Err(invalid("asked", &format!("has {found} keys; wanted at most {MAX_REQUESTED}")));
    }
    for (at, key) in requested.iter().enumerate() {
        if index.counts(allowed, *key).map_err(failed)? {
            continue;
        }
        let what = match index.has_key(*key).map_err(failed)? {
            true => format!("is {key}, which the filter leaves out: it has no probability"),
            false => format!("is {key}, which names no token of the collection"),
        };
        return Err(invalid(&format!("asked[{at}]"), &what));
    }
    Ok(())
}

/// The response to one hidden state.
pub fn decode_response(done: Done<Decoded>, params: &DecodeParams) -> pb::DecodeResponse {
    let usage = usage(done.queued, done.found.iter().map(|found| &found.stats));
    let mode = done.found.first().map(|decoded| decoded.mode);
    let decoded = done.found.into_iter().next().unwrap_or_default();
    pb::DecodeResponse {
        tokens: decoded.tokens.iter().map(token).collect(),
        asked: decoded.requested.iter().map(token).collect(),
        log_z: decoded.log_z.as_ref().map(log_z),
        order_proved: decoded.order_proved,
        widened: decoded.widened,
        params: Some(params_message(params, mode)),
        usage: Some(usage),
    }
}

/// The response to a batch. Linear in its tokens.
pub fn decode_batch_response(
    done: Done<Decoded>,
    params: &DecodeParams,
) -> pb::DecodeBatchResponse {
    let usage = usage(done.queued, done.found.iter().map(|found| &found.stats));
    let mode = done.found.first().map(|decoded| decoded.mode);
    let results = done.found.iter().map(|decoded| pb::DecodedTokens {
        keys: decoded.tokens.iter().map(|token| token.key).collect(),
        logits: decoded.tokens.iter().map(|token| token.logit).collect(),
        log_probs: decoded.tokens.iter().map(|token| token.log_prob).collect(),
        log_z: decoded.log_z.as_ref().map(log_z),
        order_proved: decoded.order_proved,
        widened: decoded.widened,
    });
    pb::DecodeBatchResponse {
        results: results.collect(),
        params: Some(params_message(params, mode)),
        usage: Some(usage),
    }
}

fn token(&Token { key, logit, log_prob }: &Token) -> pb::Token {
    pb::Token { key, logit, log_prob }
}

fn log_z(&LogZ { value, low, high }: &LogZ) -> pb::LogZ {
    pb::LogZ { value, low, high }
}

fn params_message(params: &DecodeParams, mode: Option<DecodeMode>) -> pb::DecodeParams {
    let mode = match mode.unwrap_or(params.mode) {
        DecodeMode::Auto => pb::DecodeMode::Unspecified,
        DecodeMode::Scan => pb::DecodeMode::Scan,
        DecodeMode::Graph => pb::DecodeMode::Graph,
        DecodeMode::Exact => pb::DecodeMode::Exact,
    };
    let log_z = match params.log_z {
        LogZMode::Off => pb::LogZMode::Off,
        LogZMode::Interval => pb::LogZMode::Interval,
        LogZMode::Exact => pb::LogZMode::Exact,
    };
    pb::DecodeParams {
        k: Some(params.k),
        mode: mode.into(),
        target_recall: params.rerank_size.is_none().then_some(params.precision),
        rerank_size: params.rerank_size,
        list_size: Some(params.list_size),
        temperature: Some(params.temperature),
        top_p: Some(params.top_p),
        log_z: log_z.into(),
    }
}
