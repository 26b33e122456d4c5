//! Published ports that the firewall can't lead to a container: what comes from `::1`, which no interface but `lo` takes,
//! and what comes in one address family for a container that has only the other.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::sockopt::{Linger, RcvBuf, SockType};
use nix::sys::socket::{self, Backlog, SockType as Kind, SockaddrStorage};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::net::error::Error;
use crate::net::firewall::Protocol;

/// How long a client of a UDP port may be silent before it is forgotten, as the kernel does with such a flow.
const SILENCE: Duration = Duration::from_mins(2);
/// Clients of one UDP port at a time.
const FLOWS: usize = 1024;
/// After an error of a socket, such as one about too many open files.
const PAUSE: Duration = Duration::from_millis(50);
/// Room for datagrams that wait.
const RECEIVED: usize = 212_992;

/// Where a published port leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Address and port on the host, the address perhaps unspecified.
    pub host: SocketAddr,
    /// TCP or UDP; others aren't carried.
    pub protocol: Protocol,
    /// Address and port of the container.
    pub container: SocketAddr,
}

/// Carries connections and datagrams until it is dropped. Needs a tokio runtime with IO and time.
#[derive(Debug)]
pub struct Proxy {
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Proxy {
    /// Serves the routes with the sockets that hold their ports; other sockets are closed.
    pub fn start(guards: Vec<OwnedFd>, routes: &[Route]) -> Result<Self, Error> {
        let mut proxy = Self { tasks: Vec::new() };
        let routes: HashMap<_, _> = routes.iter().map(|route| ((route.host, route.protocol), route)).collect();
        for guard in guards {
            let (address, protocol) = name(&guard).map_err(Error::system("look at a published port"))?;
            if let Some(route) = routes.get(&(address, protocol)) {
                let task = serve(guard, **route).map_err(Error::system(format!("serve {address}/{protocol}")))?;
                proxy.tasks.push(task);
            }
        }
        Ok(proxy)
    }
}

fn name(guard: &OwnedFd) -> io::Result<(SocketAddr, Protocol)> {
    let bound: SockaddrStorage = socket::getsockname(guard.as_raw_fd())?;
    let v4 = bound.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
    let v6 = || bound.as_sockaddr_in6().map(|address| SocketAddr::from((address.ip(), address.port())));
    let address = v4.or_else(v6).ok_or(io::ErrorKind::Unsupported)?;
    let datagrams = socket::getsockopt(guard, SockType)? == Kind::Datagram;
    Ok((address, if datagrams { Protocol::Udp } else { Protocol::Tcp }))
}

fn serve(guard: OwnedFd, route: Route) -> io::Result<JoinHandle<()>> {
    if route.protocol == Protocol::Udp {
        socket::setsockopt(&guard, RcvBuf, &RECEIVED)?;
        let socket = UdpSocket::from(guard);
        socket.set_nonblocking(true)?;
        return Ok(tokio::spawn(datagrams(Arc::new(tokio::net::UdpSocket::from_std(socket)?), route.container)));
    }
    socket::listen(&guard, Backlog::MAXALLOWABLE)?;
    let listener = TcpListener::from(guard);
    listener.set_nonblocking(true)?;
    Ok(tokio::spawn(streams(tokio::net::TcpListener::from_std(listener)?, route.container)))
}

/// The connections end with this task.
async fn streams(listener: tokio::net::TcpListener, container: SocketAddr) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(open.spawn(carry(client, container))),
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Carries a connection to its end. Where the container refuses, the client is reset.
async fn carry(mut client: TcpStream, container: SocketAddr) {
    let Ok(mut server) = TcpStream::connect(container).await else {
        let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        let _ = socket::setsockopt(&client, Linger, &reset);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

/// Carries datagrams, each client's by a socket of its own, so that answers find their way back.
async fn datagrams(socket: Arc<tokio::net::UdpSocket>, container: SocketAddr) {
    let mut flows: HashMap<SocketAddr, Arc<tokio::net::UdpSocket>> = HashMap::new();
    let mut answering = JoinSet::new();
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        tokio::select! {
            Some(ended) = answering.join_next() => {
                if let Ok(client) = ended {
                    flows.remove(&client);
                }
            }
            received = socket.recv_from(&mut buffer) => {
                let Ok((length, client)) = received else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                if !flows.contains_key(&client) && flows.len() < FLOWS
                    && let Ok(flow) = connected(container).await
                {
                    answering.spawn(answers(socket.clone(), flow.clone(), client));
                    flows.insert(client, flow);
                }
                if let Some(flow) = flows.get(&client) {
                    let _ = flow.send(&buffer[..length]).await;
                }
            }
        }
    }
}

async fn connected(container: SocketAddr) -> io::Result<Arc<tokio::net::UdpSocket>> {
    let any = if container.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let flow = tokio::net::UdpSocket::bind(any).await?;
    flow.connect(container).await?;
    Ok(Arc::new(flow))
}

/// Sends what the container answers back to the client, until it falls silent. Returns the client.
async fn answers(
    socket: Arc<tokio::net::UdpSocket>,
    flow: Arc<tokio::net::UdpSocket>,
    client: SocketAddr,
) -> SocketAddr {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    while let Ok(Ok(length)) = timeout(SILENCE, flow.recv(&mut buffer)).await {
        if socket.send_to(&buffer[..length], client).await.is_err() {
            break;
        }
    }
    client
}
