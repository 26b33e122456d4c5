//! Asking the host's servers, by datagram or stream as the client asked.
//!
//! Each question by datagram has a socket, and so a port, of its own, a random id, and letters of random case; an answer
//! counts only if it comes from the server asked and repeats the id and the question to the letter. A server that doesn't
//! keep the case is asked by stream, if it can be: nobody else can answer there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::answer::{HEADER, question};

const PORT: u16 = 53;
/// For each server; the C library's patience of 5 seconds leaves room for two.
const PATIENCE: Duration = Duration::from_secs(2);
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;
/// Bytes of a question behind its name.
const TYPE_AND_CLASS: usize = 4;

/// The first good answer of the servers in order; without one the last bad one, or nothing.
pub(super) async fn ask(servers: &[IpAddr], request: &[u8], stream: bool) -> Option<Vec<u8>> {
    let asked = question(request)?;
    let id = [request[0], request[1]];
    let mut bad = None;
    for server in servers {
        let server = SocketAddr::new(*server, PORT);
        let mut sent = request.to_vec();
        getrandom(&mut sent[..2], GetRandomFlags::empty()).ok()?;
        let answer = async {
            if stream { by_stream(server, &sent).await } else { by_datagram(server, &sent, asked.len()).await }
        };
        let Ok(Ok(mut answer)) = timeout(PATIENCE, answer).await else { continue };
        if !belongs(&answer, &sent) || !has_question(&answer, |own| own.eq_ignore_ascii_case(asked)) {
            continue;
        }
        answer[..2].copy_from_slice(&id);
        answer[HEADER..HEADER + asked.len()].copy_from_slice(asked);
        if !matches!(answer[3] & 0x0f, SERVER_FAILURE | REFUSED) {
            return Some(answer);
        }
        bad = Some(answer);
    }
    bad
}

async fn by_datagram(server: SocketAddr, request: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut sent = request.to_vec();
    mix_case(&mut sent[HEADER..HEADER + length - TYPE_AND_CLASS])?;
    let question = &sent[HEADER..HEADER + length];
    socket.send(&sent).await?;
    let mut answer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut answer).await?;
        let answer = &answer[..length];
        if !belongs(answer, &sent) {
            continue;
        }
        if has_question(answer, |own| own == question) {
            return Ok(answer.to_vec());
        }
        if has_question(answer, |own| own.eq_ignore_ascii_case(question)) {
            return by_stream(server, request).await.or_else(|_| Ok(answer.to_vec()));
        }
    }
}

/// Gives each letter of a name a case by chance: the lengths of its labels are below any letter.
fn mix_case(name: &mut [u8]) -> io::Result<()> {
    let mut chance = vec![0; name.len()];
    getrandom(&mut chance, GetRandomFlags::empty())?;
    for (byte, chance) in name.iter_mut().zip(chance).filter(|(byte, _)| byte.is_ascii_alphabetic()) {
        *byte ^= chance & 0x20;
    }
    Ok(())
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

fn belongs(answer: &[u8], sent: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x80 != 0) && answer[..2] == sent[..2]
}

fn has_question(answer: &[u8], is_it: impl Fn(&[u8]) -> bool) -> bool {
    question(answer).is_some_and(is_it)
}
