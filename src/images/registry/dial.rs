//! Connections: names resolved, forbidden addresses left out, proxies asked, and each step bounded in time.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::settings::{host_of, is_loopback};

/// Time to connect to one address.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer of a proxy to CONNECT.
const MAX_ANSWER: usize = 16 << 10;

/// Opens TCP connections for the HTTP client.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) proxies: Arc<Matcher>,
    pub(super) reach: Reach,
}

/// What addresses may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// All: the user named the host.
    Any,
    /// All but this machine's link, where clouds keep what they know of it: a registry on loopback named the host.
    Loopback,
    /// Neither link nor loopback: a registry elsewhere named the host.
    Far,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("cannot find the address of {0}: {1}")]
    Name(String, #[source] io::Error),
    #[error("{1}")]
    Connect(String, String),
    #[error("{0} is an address of this machine or its link, where a registry elsewhere must not lead")]
    Near(IpAddr),
}

impl tower_service::Service<Uri> for Dial {
    type Response = TokioIo<TcpStream>;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let dial = self.clone();
        Box::pin(async move { dial.connect(&to).await.map(TokioIo::new) })
    }
}

impl Dial {
    async fn connect(&self, to: &Uri) -> Result<TcpStream, Refused> {
        let host = host_of(to.authority().map_or("", hyper::http::uri::Authority::as_str));
        let port = to.port_u16().unwrap_or(if to.scheme_str() == Some("http") { 80 } else { 443 });
        if let Ok(address) = host.parse()
            && !self.reach.allows(address)
        {
            return Err(Refused::Near(address));
        }
        let proxy = self.proxies.intercept(to).filter(|_| !is_loopback(host));
        let Some(proxy) = proxy else { return direct(host, port, self.reach).await };
        let at = proxy.uri();
        let (proxy_host, proxy_port) = (at.host().unwrap_or_default(), at.port_u16().unwrap_or(80));
        let failed =
            |why: String| Refused::Connect(host.to_owned(), format!("the proxy {proxy_host}:{proxy_port} {why}"));
        let mut stream = direct(host_of(proxy_host), proxy_port, Reach::Any)
            .await
            .map_err(|e| failed(format!("cannot be reached: {e}")))?;
        let rights = proxy.basic_auth().and_then(|value| value.to_str().ok().map(str::to_owned)).or_else(|| {
            let (user, password) = proxy.raw_auth()?;
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            Some(format!("Basic {encoded}"))
        });
        let rights = rights.map_or(String::new(), |value| format!("Proxy-Authorization: {value}\r\n"));
        let name = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let ask = format!("CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n{rights}\r\n");
        let answer = tokio::time::timeout(PATIENCE, async {
            stream.write_all(ask.as_bytes()).await?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") && answer.len() < MAX_ANSWER {
                answer.push(stream.read_u8().await?);
            }
            io::Result::Ok(answer)
        });
        let answer = match answer.await {
            Ok(Ok(answer)) => String::from_utf8_lossy(&answer).into_owned(),
            Ok(Err(e)) => return Err(failed(format!("broke off: {e}"))),
            Err(_) => return Err(failed("does not answer".to_owned())),
        };
        let status = answer.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) == Some("200") {
            Ok(stream)
        } else {
            let status = super::super::error::printable(status.as_bytes());
            Err(failed(format!("answered `{status}`")))
        }
    }
}

async fn direct(host: &str, port: u16, reach: Reach) -> Result<TcpStream, Refused> {
    let name = |e| Refused::Name(host.to_owned(), e);
    let found = tokio::time::timeout(2 * PATIENCE, tokio::net::lookup_host((host, port)));
    let found = found.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(name)?;
    let mut last = None;
    for address in found {
        if !reach.allows(address.ip()) {
            last = Some(Refused::Near(address.ip()));
            continue;
        }
        match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests are small and wait for their answers.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(e)) => last = Some(Refused::Connect(host.to_owned(), at(address, &e.to_string()))),
            Err(_) => last = Some(Refused::Connect(host.to_owned(), at(address, "no answer"))),
        }
    }
    Err(last.unwrap_or_else(|| name(io::ErrorKind::NotFound.into())))
}

fn at(address: SocketAddr, why: &str) -> String {
    format!("{address}: {why}")
}

impl Reach {
    fn allows(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let link = match address {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        };
        match self {
            Reach::Any => true,
            Reach::Loopback => !link,
            Reach::Far => !link && !address.is_loopback() && !address.is_unspecified(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_may_lead_to() {
        let table = [
            ("93.184.216.34", true, true),
            ("10.0.0.1", true, true),
            ("127.0.0.1", true, false),
            ("::1", true, false),
            ("::ffff:127.0.0.1", true, false),
            ("0.0.0.0", true, false),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("fe80::1", false, false),
        ];
        for (address, loopback, far) in table {
            let address: IpAddr = address.parse().unwrap();
            let allowed = [Reach::Any, Reach::Loopback, Reach::Far].map(|reach| reach.allows(address));
            assert_eq!(allowed, [true, loopback, far], "{address}");
        }
    }
}
