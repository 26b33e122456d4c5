//! Reading answers: never more than allowed, never waiting for ever.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use serde::Deserialize;

use super::super::error::{Error, printable};
use super::Failure;
use super::transport::innermost;

/// Most that is read of the answer to a failed request.
const MAX_DETAIL: usize = 16 << 10;

/// The error document of registries.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    errors: Vec<Problem>,
    /// Token services say it so.
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The next bytes of a body; none at its end.
pub(super) async fn piece(
    body: &mut Incoming,
    host: &str,
    doing: &str,
    stall: Duration,
) -> Result<Option<Bytes>, Failure> {
    let (host, doing) = (host.to_owned(), doing.to_owned());
    loop {
        return match tokio::time::timeout(stall, body.frame()).await {
            Err(_) => Err(Failure::Stalled { host, doing, after: stall }),
            Ok(None) => Ok(None),
            Ok(Some(Err(e))) => Err(Failure::Broken { host, doing, why: innermost(&e) }),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Ok(Some(data)),
                // Trailers.
                Err(_) => continue,
            },
        };
    }
}

/// Adds all of a body to `all`, which must not become larger than `limit`; what came stays there if it breaks off.
pub(super) async fn read(
    mut body: Incoming,
    all: &mut Vec<u8>,
    limit: usize,
    host: &str,
    doing: &str,
    stall: Duration,
) -> Result<(), Error> {
    while let Some(data) = piece(&mut body, host, doing, stall).await? {
        if all.len() + data.len() > limit {
            let why = format!("it is larger than {limit} bytes");
            return Err(Failure::Protocol { host: host.to_owned(), doing: doing.to_owned(), why }.into());
        }
        all.extend_from_slice(&data);
    }
    Ok(())
}

/// What a registry says about a failure, as `: text`; nothing where it says nothing of use.
pub(super) async fn detail(response: Response<Incoming>, stall: Duration) -> String {
    let id = ["x-request-id", "x-amz-request-id", "x-ms-request-id", "cf-ray"];
    let id = id.iter().find_map(|name| response.headers().get(*name)?.to_str().ok());
    let id = id.map_or(String::new(), |id| format!(" (request {})", printable(id.as_bytes())));
    let mut body = response.into_body();
    let mut text = Vec::new();
    while text.len() < MAX_DETAIL
        && let Ok(Some(data)) = piece(&mut body, "", "", stall.min(Duration::from_secs(5))).await
    {
        text.extend_from_slice(&data);
    }
    let document: Option<Document> = serde_json::from_slice(&text).ok();
    let said = document.map_or(String::new(), |document| {
        let first = document
            .errors
            .first()
            .map(|problem| if problem.message.is_empty() { problem.code.clone() } else { problem.message.clone() });
        first.unwrap_or(document.details)
    });
    if said.is_empty() { id } else { format!(": {}{id}", printable(said.as_bytes())) }
}
