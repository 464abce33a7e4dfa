//! Errors to statuses of the rich model: a code, an `ErrorInfo` always, and what helps the caller.

use std::collections::HashMap;
use std::time::Duration;

use foveal_datasets::ErrorKind;
use foveal_index::{SearchError, Stopped};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::config::check_name;
use crate::search_pool::{PartError, PoolError};

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "foveal";

/// After this a client refused by a full queue may try again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

fn details(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new())
}

/// A status with an `ErrorInfo` and nothing else.
fn plain_status(code: Code, reason: &str, message: &str) -> Status {
    Status::with_error_details(code, message, details(reason))
}

/// INVALID_ARGUMENT: `field` of the request, and what is wrong with it.
pub fn invalid(field: &str, what: &str) -> Status {
    let mut details = details("INVALID_REQUEST");
    details.add_bad_request_violation(field, what);
    Status::with_error_details(Code::InvalidArgument, format!("{field} {what}"), details)
}

/// NOT_FOUND: no collection has the name. INVALID_ARGUMENT: none could have it.
pub fn no_collection(field: &str, name: &str) -> Status {
    if check_name(name).is_err() {
        let shown: String = name.chars().take(64).collect();
        let what = format!(
            "is {shown:?}, which names no collection; wanted 1 to 63 of a-z 0-9 . _ - \
             beginning with a letter or digit"
        );
        return invalid(field, &what);
    }
    let what = "the server has no collection of this name; CollectionService.List tells all";
    let mut details = details("COLLECTION_NOT_FOUND");
    details.set_resource_info("foveal.v1.Collection", name, "", what);
    Status::with_error_details(Code::NotFound, format!("collection {name}: {what}"), details)
}

/// UNAVAILABLE: the server is to serve a collection, and cannot, for a reason that is in its log in
/// full.
pub fn unavailable(name: &str, why: &str) -> Status {
    let mut details = details("COLLECTION_UNAVAILABLE");
    details.set_resource_info("foveal.v1.Collection", name, "", why);
    let message = format!("collection {name} {why}; the server's log tells more");
    Status::with_error_details(Code::Unavailable, message, details)
}

/// The status of a search in `collection` that has no result. Names of files stay in the log.
pub fn search_status(error: &PoolError, collection: &str) -> Status {
    match error {
        PoolError::Full { pending } => queue_full(*pending),
        PoolError::Stopped(why) => stopped(*why),
        PoolError::Closed => {
            plain_status(Code::Unavailable, "SHUTTING_DOWN", "the server is stopping")
        }
        PoolError::Panicked => {
            let message = "the search failed by a defect of the server; its log has the trace";
            plain_status(Code::Internal, "PANIC", message)
        }
        PoolError::Part(PartError::PayloadTooLarge { limit }) => {
            let message = format!(
                "the payloads of the hits exceed the {limit} bytes a response may bring along; \
                 ask for fewer hits or queries, or without payload"
            );
            plain_status(Code::ResourceExhausted, "PAYLOAD_TOO_LARGE", &message)
        }
        PoolError::Part(PartError::Search(error)) => engine_status(error, collection),
    }
}

fn engine_status(error: &SearchError, collection: &str) -> Status {
    match error {
        SearchError::Stopped(why) => return stopped(*why),
        SearchError::Params(error) => {
            let what = format!("is {}; wanted {}", error.found, error.wanted);
            return invalid(&format!("params.{}", error.name), &what);
        }
        SearchError::Dim { .. }
        | SearchError::NotFinite { .. }
        | SearchError::TooLong
        | SearchError::TooShort
        | SearchError::NoHead { .. }
        | SearchError::Metrics { .. }
        | SearchError::NoToken
        | SearchError::UnknownKey { .. }
        | SearchError::ZeroQuery => {
            // Requests are looked through before they reach the engine, and name the field then.
            let message = error.to_string();
            return plain_status(Code::InvalidArgument, "INVALID_REQUEST", &message);
        }
        _ => {}
    }
    let (code, reason, what) = match error.kind() {
        ErrorKind::Usage => (Code::InvalidArgument, "INVALID_REQUEST", "refused the request"),
        ErrorKind::BadData | ErrorKind::NoInput => {
            (Code::DataLoss, "COLLECTION_DAMAGED", "is damaged on disk")
        }
        ErrorKind::Interrupted => (Code::Cancelled, "CANCELLED", "was interrupted"),
        ErrorKind::CannotCreate | ErrorKind::Io => {
            (Code::Internal, "READ_FAILED", "cannot be read from disk")
        }
    };
    let message = format!("collection {collection} {what}; the server's log tells more");
    let mut details = details(reason);
    details.set_resource_info("foveal.v1.Collection", collection, "", what);
    Status::with_error_details(code, message, details)
}

fn queue_full(pending: usize) -> Status {
    let message = format!("the queue is full: {pending} requests are pending");
    let mut details = details("QUEUE_FULL");
    details.add_quota_failure_violation("server", message.clone());
    details.set_retry_info(Some(RETRY_DELAY));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

fn stopped(why: Stopped) -> Status {
    match why {
        Stopped::Deadline => deadline_exceeded(),
        Stopped::Cancelled => plain_status(Code::Cancelled, "CANCELLED", "the caller went away"),
    }
}

/// DEADLINE_EXCEEDED.
pub fn deadline_exceeded() -> Status {
    plain_status(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "the deadline of the request passed before its answer was ready",
    )
}

/// `status` with an `ErrorInfo`, which statuses that arose outside of this file lack.
pub fn with_error_info(status: Status) -> Status {
    if status.get_details_error_info().is_some() {
        return status;
    }
    let reason = match status.code() {
        Code::OutOfRange => "MESSAGE_TOO_LARGE",
        Code::Unimplemented => "METHOD_UNKNOWN",
        Code::NotFound => "NOT_FOUND",
        Code::InvalidArgument => "INVALID_REQUEST",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::Cancelled => "CANCELLED",
        Code::ResourceExhausted => "LIMIT_EXCEEDED",
        _ => "CALL_FAILED",
    };
    Status::with_error_details_and_metadata(
        status.code(),
        status.message(),
        details(reason),
        status.metadata().clone(),
    )
}
