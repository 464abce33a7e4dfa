//! What every call passes through: a deadline, an `ErrorInfo` on every error, a line in the log.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tracing::debug;

use crate::convert;

/// When the answer to a call is of no use any more.
#[derive(Clone, Copy, Debug)]
struct Deadline(Instant);

/// The deadline of the answer to `request`.
///
/// # Panics
/// If the call did not pass through [`Call`].
pub(super) fn deadline_of<T>(request: &tonic::Request<T>) -> Instant {
    let deadline = request.extensions().get::<Deadline>();
    deadline.expect("every call passes through the layer that sets its deadline").0
}

/// The services behind it, each call with a deadline that covers the reading of its body as well:
/// the caller's (`grpc-timeout`) or the server's, whichever is earlier.
#[derive(Clone)]
pub(super) struct Call<S> {
    /// The services.
    pub inner: S,
    /// The server's own limit.
    pub timeout: Duration,
}

impl<S> Service<Request<Body>> for Call<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let begun = Instant::now();
        let wanted = caller_timeout(request.headers()).unwrap_or(self.timeout);
        let deadline = begun + wanted.min(self.timeout);
        request.extensions_mut().insert(Deadline(deadline));
        let method = request.uri().path().to_owned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = tokio::time::timeout_at(deadline.into(), answer).await;
            let response = match answer {
                Ok(response) => named(response?),
                Err(_) => convert::deadline_exceeded().into_http(),
            };
            let code = Status::from_header_map(response.headers()).map(|status| status.code());
            debug!(method, ?code, micros = begun.elapsed().as_micros() as u64, "call");
            Ok(response)
        })
    }
}

/// The response; if it is an error without an `ErrorInfo`, with one.
fn named(response: Response<Body>) -> Response<Body> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != tonic::Code::Ok => {
            convert::with_error_info(status).into_http()
        }
        _ => response,
    }
}

/// The time a caller gives, of which `grpc-timeout` tells: at most 8 digits and a unit.
fn caller_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Code;
    use tonic_types::StatusExt;

    use super::*;

    /// A service whose body never arrives.
    #[derive(Clone)]
    struct Never;

    impl Service<Request<Body>> for Never {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = std::future::Pending<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            std::future::pending()
        }
    }

    #[tokio::test]
    async fn the_earlier_of_two_deadlines_ends_a_call_however_slow_its_body() {
        for (callers, servers) in [(Some("20m"), 3_600_000), (Some("1H"), 20), (None, 20)] {
            let mut request = Request::new(Body::empty());
            if let Some(text) = callers {
                request.headers_mut().insert("grpc-timeout", text.parse().unwrap());
            }
            let begun = Instant::now();
            let mut call = Call { inner: Never, timeout: Duration::from_millis(servers) };
            let response = call.call(request).await.unwrap();
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), Code::DeadlineExceeded);
            assert!(status.get_details_error_info().is_some());
            let waited = begun.elapsed();
            assert!(waited >= Duration::from_millis(20), "{waited:?}");
            assert!(waited < Duration::from_secs(10), "{waited:?}");
        }
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7_200))),
            ("3M", Some(Duration::from_secs(180))),
            ("4S", Some(Duration::from_secs(4))),
            ("50m", Some(Duration::from_millis(50))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("0n", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("", None),
            ("m", None),
            ("5", None),
            ("5x", None),
            ("-5m", None),
            ("+5m", None),
            ("123456789m", None),
        ] {
            let headers = HeaderMap::from_iter([(
                tonic::codegen::http::HeaderName::from_static("grpc-timeout"),
                text.parse().unwrap(),
            )]);
            assert_eq!(caller_timeout(&headers), expected, "{text:?}");
        }
        assert_eq!(caller_timeout(&HeaderMap::new()), None);
    }
}
