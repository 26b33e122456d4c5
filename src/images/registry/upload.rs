//! One blob to a registry: not sent where it is there or can be mounted, gone on with where a connection breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fs_err as fs;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE};
use hyper::{Method, Response, StatusCode, Uri};

use super::super::Digest;
use super::super::error::{Doing as _, Error};
use super::LayerState;
use super::auth::encode;
use super::body::FileBody;
use super::client::{Ask, Client, Patience};

/// Between two reports of how much went.
const REPORT: Duration = Duration::from_millis(100);

/// A blob's bytes.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) file: fs::File,
}

/// A blob on its way.
pub(super) struct Upload<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) content: &'a Content,
    /// Another repository that has it.
    pub(super) from: Option<&'a String>,
    pub(super) progress: &'a dyn Fn(LayerState),
}

/// Why sending stopped.
enum Stopped {
    /// Another try may help.
    Broken(Error),
    Failed(Error),
}

impl Upload<'_> {
    /// Brings it there; whether it had to be sent.
    pub(super) async fn run(&self) -> Result<bool, Error> {
        if exists(self.client, &self.content.digest).await? {
            return Ok(false);
        }
        let mut patience = Patience::new();
        loop {
            let Some(place) = begin(self.client, &self.content.digest, self.from).await? else { return Ok(false) };
            match self.send(place, &mut patience).await {
                Ok(()) => return Ok(true),
                Err(Stopped::Failed(error)) => return Err(error),
                Err(Stopped::Broken(error)) => {
                    let Some(wait) = patience.next(None) else { return Err(error) };
                    (self.progress)(LayerState::Retrying(error.to_string()));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Sends all of it, going on where the connection breaks, and closes it.
    async fn send(&self, mut place: Uri, patience: &mut Patience) -> Result<(), Stopped> {
        let (client, doing) = (self.client, doing(&self.content.digest));
        let sent = Arc::new(AtomicU64::new(0));
        let mut begin = 0;
        while begin < self.content.size {
            match self.patch(&place, begin, &sent).await {
                Ok(response) if response.status() == StatusCode::ACCEPTED => {
                    place = location(client, &response, &doing).map_err(Stopped::Failed)?;
                    begin = self.content.size;
                }
                Ok(response) if response.status().is_server_error() => {
                    return Err(Stopped::Broken(client.refused(response, &doing).await));
                }
                Ok(response) => return Err(Stopped::Failed(client.refused(response, &doing).await)),
                Err(error) => {
                    let Some(wait) = patience.next(None) else { return Err(Stopped::Failed(error)) };
                    (self.progress)(LayerState::Retrying(error.to_string()));
                    tokio::time::sleep(wait).await;
                    // How much of it came?
                    let status = client.send(&Ask::new(Method::GET, place.to_string(), &doing)).await;
                    let status = status.map_err(Stopped::Broken)?;
                    if status.status() != StatusCode::NO_CONTENT {
                        return Err(Stopped::Broken(error));
                    }
                    begin = received(&status);
                    place = location(client, &status, &doing).map_err(Stopped::Failed)?;
                }
            }
        }
        let joint = if place.query().is_some() { '&' } else { '?' };
        let close = format!("{place}{joint}{}", encode(&[("digest", &self.content.digest.to_string())]));
        let mut ask = Ask::new(Method::PUT, close, &doing);
        ask.body = Some(bytes::Bytes::new());
        let response = client.send(&ask).await.map_err(Stopped::Broken)?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK => Ok(()),
            _ => Err(Stopped::Failed(client.refused(response, &doing).await)),
        }
    }

    /// Sends from `begin` to the end in one request.
    async fn patch(&self, place: &Uri, begin: u64, sent: &Arc<AtomicU64>) -> Result<Response<Incoming>, Error> {
        let reading = || format!("reading blob {}", self.content.digest);
        let size = self.content.size;
        let file = self.content.file.try_clone().doing(reading)?;
        let body = FileBody::new(file, begin, size, sent).doing(reading)?;
        let mut headers: Vec<(HeaderName, HeaderValue)> =
            vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
        if begin > 0
            && let Ok(range) = HeaderValue::from_str(&format!("{begin}-{}", size - 1))
        {
            headers.push((CONTENT_RANGE, range));
        }
        let place = place.to_string();
        let sending = self.client.send_once(Method::PATCH, &place, &headers, body.boxed_unsync(), size - begin);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                response = &mut sending => return response,
                () = tokio::time::sleep(REPORT) => {
                    let done = sent.load(Ordering::Relaxed);
                    (self.progress)(LayerState::Transferring { done, total: size });
                }
            }
        }
    }
}

/// Asks for a place to upload a blob to; none when it was mounted from the other repository.
pub(super) async fn begin(client: &Client<'_>, digest: &Digest, from: Option<&String>) -> Result<Option<Uri>, Error> {
    let doing = doing(digest);
    let mount =
        from.map_or(String::new(), |from| format!("?{}", encode(&[("mount", &digest.to_string()), ("from", from)])));
    let mut ask = Ask::new(Method::POST, format!("{}/blobs/uploads/{mount}", client.path), &doing);
    ask.body = Some(bytes::Bytes::new());
    let response = client.send(&ask).await?;
    match response.status() {
        StatusCode::CREATED if from.is_some() => Ok(None),
        StatusCode::ACCEPTED => location(client, &response, &doing).map(Some),
        _ => Err(client.refused(response, &doing).await),
    }
}

fn doing(digest: &Digest) -> String {
    format!("pushing blob {}", digest.short())
}

/// Where an upload goes on.
fn location(client: &Client<'_>, response: &Response<Incoming>, doing: &str) -> Result<Uri, Error> {
    let missing = || client.protocol(doing, "it gives no place to upload to".to_owned());
    let location = response.headers().get(LOCATION).ok_or_else(missing)?;
    Ok(client.redirected(&client.base()?, location)?)
}

/// Whether a registry has a blob.
pub(super) async fn exists(client: &Client<'_>, digest: &Digest) -> Result<bool, Error> {
    let doing = format!("looking for blob {}", digest.short());
    let response = client.send(&Ask::new(Method::HEAD, format!("{}/blobs/{digest}", client.path), &doing)).await?;
    match response.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(client.refused(response, &doing).await),
    }
}

/// Bytes that a registry has of an upload: `Range: 0-99` are 100.
fn received(status: &Response<Incoming>) -> u64 {
    let range = status.headers().get(RANGE).and_then(|value| value.to_str().ok());
    let last = range.and_then(|range| range.trim_start_matches("bytes=").split_once('-')?.1.parse::<u64>().ok());
    last.filter(|last| *last > 0).map_or(0, |last| last + 1)
}
