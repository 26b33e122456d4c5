//! Asking one repository of one registry: rights, redirections, retries.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use jiff::Timestamp;
use jiff::fmt::rfc2822;

use super::super::error::{Error, printable};
use super::credentials::Credentials;
use super::dial::Reach;
use super::settings::{host_of, is_loopback};
use super::transport::{self, Body, Lost, Transport, authority};
use super::{Failure, answer};

/// Tries of one request, and the time in which they start.
const TRIES: u32 = 5;
const TRYING: Duration = Duration::from_secs(45);
/// Longest wait that a registry may ask for.
const MAX_WAIT: Duration = Duration::from_mins(1);
const MAX_REDIRECTS: usize = 10;
/// Bytes per second below which sending is taken for stuck.
const SLOWEST: u64 = 16 << 10;

/// What this program calls itself.
const AGENT: &str = concat!("stack/", env!("CARGO_PKG_VERSION"));

/// A repository at the registry that its name says, or at a mirror of that.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) net: &'a Transport,
    /// The registry as references name it.
    pub(super) domain: String,
    /// Where it is: `host[:port]`.
    authority: String,
    /// What stands before `/v2/` at a mirror.
    prefix: String,
    /// Plain HTTP turned out to be what it speaks.
    plain: Cell<bool>,
    /// The repository.
    pub(super) path: String,
    /// Rights to ask for: `repository:library/nginx:pull`.
    pub(super) scopes: Vec<String>,
    pub(super) credentials: Option<Credentials>,
    authorization: RefCell<Option<HeaderValue>>,
}

/// A request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    /// What follows `/v2/`, or a whole address that the registry gave.
    pub(super) target: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Bytes>,
    /// For errors: `fetching the manifest of x`.
    pub(super) doing: &'a str,
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, target: String, doing: &'a str) -> Ask<'a> {
        Ask { method, target, headers: Vec::new(), body: None, doing }
    }
}

impl<'a> Client<'a> {
    /// For a repository at `place`: `host[:port]`, or the address of a mirror.
    pub(super) fn new(
        net: &'a Transport,
        domain: &str,
        place: &str,
        path: &str,
        credentials: Option<Credentials>,
    ) -> Client<'a> {
        let (scheme, rest) = place.split_once("://").unwrap_or(("https", place));
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        Client {
            net,
            domain: domain.to_owned(),
            authority: authority.to_owned(),
            prefix: if prefix.is_empty() { String::new() } else { format!("/{prefix}") },
            // A mirror given with http is meant so.
            plain: Cell::new(scheme == "http"),
            path: path.to_owned(),
            scopes: vec![format!("repository:{path}:pull")],
            credentials,
            authorization: RefCell::default(),
        }
    }

    /// Where it is.
    pub(super) fn host(&self) -> String {
        self.authority.clone()
    }

    pub(super) fn is_plain(&self) -> bool {
        self.plain.get()
    }

    /// What redirections and token services may lead to.
    pub(super) fn reach_of_others(&self) -> Reach {
        if is_loopback(host_of(&self.authority)) { Reach::Loopback } else { Reach::Far }
    }

    /// Sends a request until there is an answer that another try would not change.
    pub(super) async fn send(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Error> {
        let mut patience = Patience::new();
        let mut renewed = false;
        loop {
            // Another request may find out meanwhile.
            let was_plain = self.is_plain();
            let response = match self.follow(ask).await {
                Ok(response) => response,
                Err(Lost::NotTls) if !was_plain && self.net.settings.may_be_plain(&self.authority) => {
                    self.plain.set(true);
                    continue;
                }
                Err(Lost::NotTls) => {
                    let why = "it speaks plain HTTP, which is for loopback and insecure registries only".to_owned();
                    return Err(Failure::Tls { host: self.host(), why }.into());
                }
                Err(Lost::Failure(Error::Registry(failure))) if failure.is_passing() => match patience.next(None) {
                    Some(wait) => {
                        tokio::time::sleep(wait).await;
                        continue;
                    }
                    None => return Err(failure.during(ask.doing).into()),
                },
                Err(Lost::Failure(error)) => return Err(error),
            };
            let wait = match response.status() {
                StatusCode::UNAUTHORIZED if !renewed => {
                    renewed = true;
                    let authorization = self.authorize(response.headers()).await?;
                    *self.authorization.borrow_mut() = Some(authorization);
                    continue;
                }
                StatusCode::TOO_MANY_REQUESTS => {
                    let after = retry_after(response.headers());
                    let wait = patience.next(after);
                    if wait.is_none() {
                        return Err(Failure::RateLimited { host: self.host(), after }.into());
                    }
                    wait
                }
                StatusCode::INTERNAL_SERVER_ERROR
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => patience.next(retry_after(response.headers())),
                _ => None,
            };
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Ok(response),
            }
        }
    }

    /// Sends once, following redirections. Our rights go to the registry only.
    async fn follow(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Lost> {
        let mut uri = self.uri(&ask.target)?;
        for hop in 0..=MAX_REDIRECTS {
            let body = ask.body.clone().map_or_else(transport::empty, transport::bytes);
            let request = self.request(&ask.method, &uri, &ask.headers, body)?;
            let reach = if hop == 0 { Reach::Any } else { self.reach_of_others() };
            let response = self.net.send(request, reach).await.map_err(|lost| self.blamed(lost))?;
            let moved = response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED;
            if !moved || !matches!(ask.method, Method::GET | Method::HEAD) {
                return Ok(response);
            }
            let Some(location) = response.headers().get(LOCATION) else { return Ok(response) };
            uri = self.redirected(&uri, location)?;
        }
        let why = "there are too many redirections";
        Err(Failure::Redirect { host: self.host(), to: printable(uri.to_string().as_bytes()), why }.into())
    }

    /// Sends one request with a body of `size` bytes once, to a place that the registry gave.
    pub(super) async fn send_once(
        &self,
        method: Method,
        place: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Body,
        size: u64,
    ) -> Result<Response<Incoming>, Error> {
        let lost = |lost| match lost {
            Lost::NotTls => Failure::Tls { host: self.host(), why: "it speaks no TLS".to_owned() }.into(),
            Lost::Failure(error) => error,
        };
        let uri = self.uri(place).map_err(lost)?;
        let request = self.request(&method, &uri, headers, body).map_err(lost)?;
        let reach = if self.is_ours(&uri) { Reach::Any } else { self.reach_of_others() };
        let slowest = Duration::from_secs(size / SLOWEST);
        self.net.send_within(request, reach, self.net.settings.stall + slowest).await.map_err(lost)
    }

    /// Its own address.
    pub(super) fn base(&self) -> Result<Uri, Error> {
        self.uri("").map_err(|lost| match lost {
            Lost::NotTls => self.protocol("making a request", "it speaks no TLS".to_owned()),
            Lost::Failure(error) => error,
        })
    }

    fn request(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &[(HeaderName, HeaderValue)],
        body: Body,
    ) -> Result<Request<Body>, Lost> {
        let mut request = Request::builder().method(method).uri(uri).header(USER_AGENT, AGENT);
        // Digests are over the bytes as they are stored.
        request = request.header(ACCEPT_ENCODING, "identity");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if self.is_ours(uri)
            && let Some(value) = &*self.authorization.borrow()
        {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(body).map_err(|e| {
            Failure::Protocol { host: self.host(), doing: "making a request".to_owned(), why: e.to_string() }.into()
        })
    }

    /// The address of what follows `/v2/`; an address stays as it is, where it is the registry's own.
    fn uri(&self, target: &str) -> Result<Uri, Lost> {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let text = if target.contains("://") {
            target.to_owned()
        } else {
            format!("{scheme}://{}{}/v2/{target}", self.authority, self.prefix)
        };
        text.parse().map_err(|_| {
            let why = format!("`{}` is no address", printable(text.as_bytes()));
            Failure::Protocol { host: self.host(), doing: "making a request".to_owned(), why }.into()
        })
    }

    /// Whether an address is the registry's own.
    pub(super) fn is_ours(&self, uri: &Uri) -> bool {
        let scheme = if self.is_plain() { "http" } else { "https" };
        authority(uri) == self.authority && uri.scheme_str() == Some(scheme)
    }

    /// Where a `Location` leads.
    pub(super) fn redirected(&self, from: &Uri, location: &HeaderValue) -> Result<Uri, Failure> {
        let to = String::from_utf8_lossy(location.as_bytes()).into_owned();
        let refused = |why| Failure::Redirect { host: self.host(), to: printable(to.as_bytes()), why };
        let (scheme, origin) = (from.scheme_str().unwrap_or("https"), authority(from));
        let text = if to.starts_with("//") {
            format!("{scheme}:{to}")
        } else if to.starts_with('/') {
            format!("{scheme}://{origin}{to}")
        } else if to.contains("://") {
            to.clone()
        } else {
            let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{origin}{folder}/{to}")
        };
        match text.split_once("://") {
            Some(("http", _)) if scheme == "https" => return Err(refused("it leads from https to plain http")),
            Some(("http" | "https", _)) => {}
            _ => return Err(refused("only http and https are")),
        }
        text.parse().map_err(|_| refused("it is no address"))
    }

    /// A redirection that is not followed is the registry's doing, not that of the place it leads to.
    pub(super) fn blamed(&self, lost: Lost) -> Lost {
        match lost {
            Lost::Failure(Error::Registry(failure)) => match *failure {
                Failure::Redirect { to, why, .. } => Failure::Redirect { host: self.host(), to, why }.into(),
                other => other.into(),
            },
            other => other,
        }
    }

    /// The failure that an answer stands for.
    pub(super) async fn refused(&self, response: Response<Incoming>, doing: &str) -> Error {
        let status = response.status();
        let after = retry_after(response.headers());
        let detail = answer::detail(response, self.net.settings.stall).await;
        let (host, name) = (self.host(), self.path.clone());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(detail),
            StatusCode::NOT_FOUND => Failure::NotFound { host: self.domain.clone(), name, detail }.into(),
            StatusCode::TOO_MANY_REQUESTS => Failure::RateLimited { host, after }.into(),
            _ => Failure::Status { host, status: status.to_string(), doing: doing.to_owned(), detail }.into(),
        }
    }

    pub(super) fn denied(&self, detail: String) -> Error {
        let logged_in = self.credentials.is_some();
        Failure::Denied { host: self.domain.clone(), name: self.path.clone(), logged_in, detail }.into()
    }

    /// The failure for an answer that breaks the rules.
    pub(super) fn protocol(&self, doing: &str, why: String) -> Error {
        Failure::Protocol { host: self.host(), doing: doing.to_owned(), why }.into()
    }
}

/// How long to wait before the next try, and when to give up.
#[derive(Debug)]
pub(super) struct Patience {
    begun: Instant,
    tries: u32,
}

impl Patience {
    pub(super) fn new() -> Patience {
        Patience { begun: Instant::now(), tries: 0 }
    }

    /// The wait before another try, of which the registry may have said `asked`; none when it is time to give up.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.tries += 1;
        if self.tries >= TRIES || self.begun.elapsed() > TRYING || asked.is_some_and(|asked| asked > MAX_WAIT) {
            return None;
        }
        let wait = Duration::from_millis(250) * 2u32.pow(self.tries);
        // Clients that failed together must not come back together.
        Some(asked.unwrap_or_default().max(wait.mul_f64(0.5 + 0.5 * random())))
    }
}

/// Between 0 and 1.
fn random() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness the waits are only more alike.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    f64::from(u16::from_ne_bytes(bytes)) / f64::from(u16::MAX)
}

/// `Retry-After`: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = rfc2822::parse(text).ok()?.timestamp();
    Some(then.duration_since(Timestamp::now()).try_into().unwrap_or_default())
}
