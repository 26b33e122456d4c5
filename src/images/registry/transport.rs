//! One request, one answer: over the right connection, within time, errors in plain words.

use std::cell::RefCell;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioExecutor;
use rustls::{AlertDescription, InvalidMessage};

use super::super::Error;
use super::dial::{Dial, Reach, Refused};
use super::{Failure, Settings, tls};

/// A request's body.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Most bytes read from a connection at once, and of a head.
const READ_AT_ONCE: usize = 128 << 10;

/// The HTTP client for one host.
type Http = Client<HttpsConnector<Dial>, Body>;

/// Connections to registries, kept open for the next request.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) settings: Settings,
    proxies: Arc<Matcher>,
    /// By `host[:port]`, whether TLS is spoken, and what it may reach.
    hosts: RefCell<HashMap<(String, bool, Reach), Http>>,
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// TLS was spoken to somebody who does not speak it.
    NotTls,
    Failure(Error),
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Lost {
        Lost::Failure(failure.into())
    }
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Transport {
        let proxies = &settings.proxies;
        let matcher = Matcher::builder()
            .http(proxies.http.as_str())
            .https(proxies.https.as_str())
            .no(proxies.none.as_str())
            .build();
        Transport { settings, proxies: Arc::new(matcher), hosts: RefCell::default() }
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, request: Request<Body>, reach: Reach) -> Result<Response<Incoming>, Lost> {
        self.send_within(request, reach, self.settings.stall).await
    }

    /// The same with another patience.
    pub(super) async fn send_within(
        &self,
        request: Request<Body>,
        reach: Reach,
        patience: Duration,
    ) -> Result<Response<Incoming>, Lost> {
        let host = authority(request.uri());
        let client = self.client(&host, request.uri().scheme_str() != Some("http"), reach).map_err(Lost::Failure)?;
        match tokio::time::timeout(patience, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(explain(&host, &error)),
            Err(_) => {
                Err(Failure::Stalled { host, doing: "waiting for its answer".to_owned(), after: patience }.into())
            }
        }
    }

    fn client(&self, host: &str, secure: bool, reach: Reach) -> Result<Http, Error> {
        let key = (host.to_owned(), secure, reach);
        if let Some(client) = self.hosts.borrow().get(&key) {
            return Ok(client.clone());
        }
        let config = if secure {
            tls::config(&self.settings, host)?
        } else {
            // Never used: an address with `http` is not given to TLS.
            tls::config(&Settings { insecure: vec![host.to_owned()], ..Settings::default() }, host)?
        };
        let dial = Dial { proxies: Arc::clone(&self.proxies), reach };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(dial);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .http1_max_buf_size(READ_AT_ONCE)
            .build(connector);
        self.hosts.borrow_mut().insert(key, Client::clone(&client));
        Ok(client)
    }
}

/// No body.
pub(super) fn empty() -> Body {
    bytes(Bytes::new())
}

/// A body of these bytes.
pub(super) fn bytes(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// `host[:port]` of an address.
pub(super) fn authority(uri: &Uri) -> String {
    uri.authority().map_or(String::new(), |authority| authority.as_str().to_owned())
}

/// What a failed exchange means.
fn explain(host: &str, error: &(dyn StdError + 'static)) -> Lost {
    let host = host.to_owned();
    let mut text = error.to_string();
    for cause in causes(error) {
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return match refused {
                Refused::Name(name, e) => {
                    Failure::Name { host: name.clone(), source: io::Error::new(e.kind(), e.to_string()) }.into()
                }
                Refused::Near(_) => {
                    let why = "it is on this machine or its link, where a registry elsewhere must not lead";
                    Failure::Redirect { to: host.clone(), host, why }.into()
                }
                Refused::Connect(_, why) => Failure::Connect { host, why: why.clone() }.into(),
            };
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            let not_tls = matches!(
                tls,
                rustls::Error::InvalidMessage(
                    InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion
                )
            );
            if not_tls {
                return Lost::NotTls;
            }
            let why = match tls {
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                    "it wants a certificate of ours: put client.cert and client.key beside its CA".to_owned()
                }
                other => other.to_string(),
            };
            return Failure::Tls { host, why }.into();
        }
        text = cause.to_string();
    }
    Failure::Broken { host, doing: "waiting for its answer".to_owned(), why: text }.into()
}

/// An error and what caused it, what an `io::Error` wraps included.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| error.source())
    })
}

/// The innermost cause as text.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}
