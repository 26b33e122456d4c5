//! The resolver of containers: names of their networks from a table, everything else from the host's servers.
//!
//! One server per stack answers on the sockets of all its containers. Own names are answered in place; what must be asked
//! outside goes to a task of its own, of which there is a bounded number, so that neither a slow server nor a container
//! that floods it holds up the others.

mod answer;
mod names;
mod relay;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::answer::{Asker, Decision, decide, fit};
use super::attach::DnsSockets;
use super::error::Error;

pub use names::{Names, Record};

/// Questions being asked outside at a time, for all containers and for one.
const OUTSTANDING: usize = 1024;
const OUTSTANDING_PER_CLIENT: usize = 128;
/// Streams that a container may have open, and how long they may be silent.
const STREAMS_PER_CLIENT: usize = 32;
const SILENCE: Duration = Duration::from_secs(10);
/// After an error of a socket, such as one about too many open files.
const PAUSE: Duration = Duration::from_millis(50);

/// A container that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The container's id.
    pub id: String,
    /// Networks whose names it may see.
    pub networks: Vec<String>,
    /// Names that only it knows, in lower case, and what they stand for.
    pub links: BTreeMap<String, String>,
    /// Servers for names that no network knows, in order; empty = none (only internal networks): such names don't exist
    /// for it, and its questions never leave the host.
    pub upstream: Vec<IpAddr>,
}

/// The resolver of one stack. Cheap to clone; needs a tokio runtime with IO and time.
#[derive(Debug, Clone, Default)]
pub struct Server {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    names: Mutex<Arc<Names>>,
    sessions: Mutex<HashMap<String, Session>>,
    outstanding: Arc<Semaphore>,
    turn: AtomicUsize,
}

/// A container being answered. Its tasks end with it.
#[derive(Debug)]
struct Session {
    desk: Arc<Desk>,
    tasks: [JoinHandle<()>; 2],
}

/// What the tasks of one container share.
#[derive(Debug)]
struct Desk {
    shared: Arc<Shared>,
    client: Mutex<Arc<Client>>,
    outstanding: Arc<Semaphore>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            names: Mutex::default(),
            sessions: Mutex::default(),
            outstanding: Arc::new(Semaphore::new(OUTSTANDING)),
            turn: AtomicUsize::new(0),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    /// A resolver that knows no names yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces all names at once.
    pub fn set_names(&self, names: Names) {
        *lock(&self.shared.names) = Arc::new(names);
    }

    /// Answers a container's questions until [`Server::remove`]. A client of the same id is replaced.
    pub fn serve(&self, client: Client, sockets: DnsSockets) -> Result<(), Error> {
        let convert = || -> io::Result<_> {
            let (udp, tcp) = (UdpSocket::from(sockets.udp), TcpListener::from(sockets.tcp));
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((tokio::net::UdpSocket::from_std(udp)?, tokio::net::TcpListener::from_std(tcp)?))
        };
        let (udp, tcp) = convert().map_err(Error::system(format!("answer names for {}", client.id)))?;
        let id = client.id.clone();
        let desk = Arc::new(Desk {
            shared: self.shared.clone(),
            client: Mutex::new(Arc::new(client)),
            outstanding: Arc::new(Semaphore::new(OUTSTANDING_PER_CLIENT)),
        });
        let tasks = [tokio::spawn(datagrams(desk.clone(), Arc::new(udp))), tokio::spawn(streams(desk.clone(), tcp))];
        lock(&self.shared.sessions).insert(id, Session { desk, tasks });
        Ok(())
    }

    /// Changes what a client may see, keeping its sockets; `false` if there is no such client.
    pub fn update(&self, client: Client) -> bool {
        match lock(&self.shared.sessions).get(&client.id) {
            Some(session) => {
                *lock(&session.desk.client) = Arc::new(client);
                true
            }
            None => false,
        }
    }

    /// Stops answering a container.
    pub fn remove(&self, id: &str) {
        lock(&self.shared.sessions).remove(id);
    }
}

impl Desk {
    fn client(&self) -> Arc<Client> {
        lock(&self.client).clone()
    }

    fn decide(&self, request: &[u8], stream: bool) -> Decision {
        let (client, names) = (self.client(), lock(&self.shared.names).clone());
        let turn = self.shared.turn.fetch_add(1, Ordering::Relaxed);
        let relay = !client.upstream.is_empty();
        decide(request, &names, Asker { networks: &client.networks, links: &client.links, relay, stream, turn })
    }
}

/// Answers datagrams. Relayed ones are given up with the socket that waits for them.
async fn datagrams(desk: Arc<Desk>, socket: Arc<tokio::net::UdpSocket>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        match desk.decide(&buffer[..length], false) {
            Decision::Reply(reply) => {
                let _ = socket.send_to(&reply, peer).await;
            }
            Decision::Relay { failure, limit } => {
                let request = buffer[..length].to_vec();
                relay_datagram(&desk, &socket, peer, request, failure, limit).await;
            }
            Decision::Ignore => {}
        }
    }
}

async fn relay_datagram(
    desk: &Arc<Desk>,
    socket: &Arc<tokio::net::UdpSocket>,
    peer: SocketAddr,
    request: Vec<u8>,
    failure: Vec<u8>,
    limit: usize,
) {
    let own = desk.outstanding.clone().try_acquire_owned();
    let all = desk.shared.outstanding.clone().try_acquire_owned();
    let (Ok(own), Ok(all)) = (own, all) else {
        let _ = socket.send_to(&failure, peer).await;
        return;
    };
    let (client, socket) = (desk.client(), socket.clone());
    tokio::spawn(async move {
        let answer = relay::ask(&client.upstream, &request, false).await;
        let answer = answer.map_or(failure, |answer| fit(answer, limit));
        let _ = socket.send_to(&answer, peer).await;
        drop((own, all));
    });
}

async fn streams(desk: Arc<Desk>, listener: tokio::net::TcpListener) {
    let slots = Arc::new(Semaphore::new(STREAMS_PER_CLIENT));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let desk = desk.clone();
                tokio::spawn(async move {
                    let _ = converse(&desk, stream).await;
                    drop(slot);
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Answers the questions of one stream in turn, until it ends or falls silent.
async fn converse(desk: &Desk, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let request = timeout(SILENCE, relay::receive(&mut stream)).await??;
        let answer = match desk.decide(&request, true) {
            Decision::Reply(reply) => reply,
            Decision::Relay { failure, .. } => {
                let client = desk.client();
                relay::ask(&client.upstream, &request, true).await.unwrap_or(failure)
            }
            Decision::Ignore => return Ok(()),
        };
        timeout(SILENCE, relay::send(&mut stream, &answer)).await??;
    }
}

/// Nothing panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
