//! Talking to what listens in the calling thread's network namespace.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a server says first, without being asked.
pub(crate) fn greeting(address: &str) -> Option<String> {
    let mut text = String::new();
    connect(address)?.read_to_string(&mut text).ok()?;
    Some(text.trim_end().to_owned())
}

/// The body of a good HTTP answer.
pub(crate) fn http(address: &str, path: &str) -> Option<String> {
    ask(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// The body of a good HTTP answer to a form that was sent.
pub(crate) fn post(address: &str, path: &str, form: &str) -> Option<String> {
    let length = form.len();
    let kind = "application/x-www-form-urlencoded";
    ask(
        address,
        &format!(
            "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{form}"
        ),
    )
}

fn ask(address: &str, request: &str) -> Option<String> {
    let mut stream = connect(address)?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 20").then(|| body.to_owned())
}

fn connect(address: &str) -> Option<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    Some(stream)
}
