//! One request for what is missing, and which bytes the server sends back.

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body};

use super::part::{Of, Part};
use super::{DownloadError, Wanted};

/// Bytes on their way, and what they are of.
pub(super) struct Answer {
    /// The number of the first byte that comes: the length of the part, or 0 to start anew.
    pub(super) from: u64,
    pub(super) of: Of,
    pub(super) body: Body,
}

impl Answer {
    /// Asks for the rest of `part`, or for everything if the file changed meanwhile.
    pub(super) fn to(
        agent: &Agent,
        wanted: &Wanted<'_>,
        part: &Part,
    ) -> Result<Answer, DownloadError> {
        if let Some(of) = part.of()
            && let Some(answer) = rest(agent, wanted, part, of)?
        {
            return Ok(answer);
        }
        let range = wanted.first.map(|first| format!("bytes=0-{}", first.bytes - 1));
        let response = send_request(agent, wanted.url, range.as_deref(), None)?;
        match response.status() {
            StatusCode::OK => whole(wanted, response),
            StatusCode::PARTIAL_CONTENT if wanted.first.is_some() => {
                let (from, total) = content_range(wanted.url, response.headers())?;
                if from != 0 {
                    return Err(other(wanted.url, format!("bytes from {from} on"), "all of them"));
                }
                accept(wanted, 0, total, response)
            }
            status => Err(DownloadError::Status { url: wanted.url.into(), status }),
        }
    }
}

/// The bytes after those of `part`, or all from a server that does not know parts; `None` if they
/// are of another file.
fn rest(
    agent: &Agent,
    wanted: &Wanted<'_>,
    part: &Part,
    of: &Of,
) -> Result<Option<Answer>, DownloadError> {
    let last = wanted.first.map_or(String::new(), |first| (first.bytes - 1).to_string());
    let range = format!("bytes={}-{last}", part.len());
    let condition = Some(of.validator.as_str()).filter(|validator| !validator.is_empty());
    let response = send_request(agent, wanted.url, Some(&range), condition)?;
    match response.status() {
        StatusCode::OK => whole(wanted, response).map(Some),
        StatusCode::RANGE_NOT_SATISFIABLE => Ok(None),
        StatusCode::PARTIAL_CONTENT => {
            let (from, total) = content_range(wanted.url, response.headers())?;
            let answer = accept(wanted, from, total, response)?;
            let same = of.validator == answer.of.validator || answer.of.validator.is_empty();
            let as_long = of.total.is_none() || of.total == answer.of.total;
            Ok(Some(answer).filter(|_| from == part.len() && same && as_long))
        }
        status => Err(DownloadError::Status { url: wanted.url.into(), status }),
    }
}

fn send_request(
    agent: &Agent,
    url: &str,
    range: Option<&str>,
    condition: Option<&str>,
) -> Result<Response<Body>, DownloadError> {
    let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
    if let Some(range) = range {
        request = request.header(header::RANGE, range);
    }
    if let Some(condition) = condition {
        request = request.header(header::IF_RANGE, condition);
    }
    request
        .call()
        .map_err(|reason| DownloadError::Unreachable { url: url.into(), reason: Box::new(reason) })
}

/// An answer with the file from its first byte on.
fn whole(wanted: &Wanted<'_>, response: Response<Body>) -> Result<Answer, DownloadError> {
    let total = response.body().content_length();
    accept(wanted, 0, total, response)
}

/// An answer with the bytes from `from` on of `total`.
fn accept(
    wanted: &Wanted<'_>,
    from: u64,
    total: Option<u64>,
    response: Response<Body>,
) -> Result<Answer, DownloadError> {
    if let (Some(total), Some(first)) = (total, wanted.first)
        && total < first.bytes
    {
        let found = format!("a file of {total} bytes");
        return Err(other(wanted.url, found, &format!("the first {}", first.bytes)));
    }
    let total = wanted.first.map_or(total, |first| Some(first.bytes));
    let of = Of { validator: validator(response.headers()), total };
    Ok(Answer { from, of, body: response.into_body() })
}

/// What a server calls a file: a strong ETag, or the date of its last change.
fn validator(headers: &HeaderMap) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let strong = text(header::ETAG).filter(|tag| !tag.starts_with("W/"));
    strong.or(text(header::LAST_MODIFIED)).unwrap_or_default().into()
}

/// The first byte and the length of the whole, out of `bytes FIRST-LAST/TOTAL`.
fn content_range(url: &str, headers: &HeaderMap) -> Result<(u64, Option<u64>), DownloadError> {
    let text = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let parsed = text.and_then(|text| {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
    });
    parsed.ok_or_else(|| {
        let found = format!("a part without a place: {text:?}");
        other(url, found, "content-range: bytes FIRST-LAST/TOTAL")
    })
}

fn other(url: &str, found: String, wanted: &str) -> DownloadError {
    DownloadError::Answer { url: url.into(), found, wanted: wanted.into() }
}
