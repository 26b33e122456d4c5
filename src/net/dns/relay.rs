//! Asking the host's servers, by datagram or stream as the client asked.
//!
//! Each question has a socket, and so a port, of its own and a random id; an answer counts only if it comes from the
//! server asked and repeats both the id and the question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::question;

const PORT: u16 = 53;
/// For each server; the C library's patience of 5 seconds leaves room for two.
const PATIENCE: Duration = Duration::from_secs(2);
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// The first good answer of the servers in order; without one the last bad one, or nothing.
pub(super) async fn ask(servers: &[IpAddr], request: &[u8], stream: bool) -> Option<Vec<u8>> {
    let question = question(request)?;
    let id = [request[0], request[1]];
    let mut bad = None;
    for server in servers {
        let server = SocketAddr::new(*server, PORT);
        let mut sent = request.to_vec();
        getrandom(&mut sent[..2], GetRandomFlags::empty()).ok()?;
        let asked =
            async { if stream { by_stream(server, &sent).await } else { by_datagram(server, &sent, question).await } };
        let Ok(Ok(mut answer)) = timeout(PATIENCE, asked).await else { continue };
        if !belongs(&answer, &sent, question) {
            continue;
        }
        answer[..2].copy_from_slice(&id);
        if !matches!(answer[3] & 0x0f, SERVER_FAILURE | REFUSED) {
            return Some(answer);
        }
        bad = Some(answer);
    }
    bad
}

async fn by_datagram(server: SocketAddr, request: &[u8], question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        if belongs(&answer[..length], request, question) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_stream(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    send(&mut stream, request).await?;
    receive(&mut stream).await
}

/// Writes a message with its length in front.
pub(super) async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// Reads a message with its length in front.
pub(super) async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn belongs(answer: &[u8], sent: &[u8], asked: &[u8]) -> bool {
    let response = answer.get(2).is_some_and(|flags| flags & 0x80 != 0);
    response && answer[..2] == sent[..2] && question(answer) == Some(asked)
}
