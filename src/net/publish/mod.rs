//! Host ports: found free before anything starts, and held against other programs.

mod holder;
mod proxy;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, sockopt,
};

use super::error::Error;
use super::firewall::Protocol;
use super::forwarding;
use super::host::Host;

pub use proxy::{Proxy, Route};

/// How often a random port is tried that must be free for IPv4 and IPv6.
const RANDOM_TRIES: usize = 64;

/// A wish for one host port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Host addresses, perhaps unspecified ones as [`everywhere`] gives them.
    pub addresses: Vec<IpAddr>,
    /// Ports of which any free one will do; `None` = any of the ephemeral range.
    pub ports: Option<RangeInclusive<u16>>,
    /// Protocol.
    pub protocol: Protocol,
}

/// A host port that is ours as long as the guards stay open.
#[derive(Debug)]
pub struct Reserved {
    /// Host addresses.
    pub addresses: Vec<IpAddr>,
    /// The port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Bound sockets, one for each address, that keep other programs off the port. They receive nothing but what a
    /// [`Proxy`] carries: the firewall redirects before.
    pub guards: Vec<OwnedFd>,
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A published port of another stack.
    Stack {
        /// Its project name.
        project: String,
    },
    /// Any other program.
    Process {
        /// Process id.
        pid: i32,
        /// Command name.
        comm: String,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stack { project } => write!(f, "stack `{project}`"),
            Self::Process { pid, comm } => write!(f, "process {pid} ({comm})"),
        }
    }
}

/// All addresses of the host, of each family that it speaks.
pub fn everywhere() -> Vec<IpAddr> {
    let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    all[..if forwarding::has_ipv6() { 2 } else { 1 }].to_vec()
}

/// Finds a free port and holds it, or says who has it.
pub fn reserve(host: &Host, request: &Request) -> Result<Reserved, Error> {
    host.run(|| {
        let ports = request.ports.clone().unwrap_or(0..=0);
        let (first, last) = (*ports.start(), *ports.end());
        let mut refused = None;
        for port in ports {
            match hold(request, port) {
                Ok(reserved) => return Ok(reserved),
                Err(error @ Error::PortInUse { .. }) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(match refused {
            Some(in_use) if first == last => in_use,
            _ => Error::NoPort { ip: shown(request), first, last, protocol: request.protocol },
        })
    })
}

/// Takes `port` (0: any) on every wanted address, or on none.
fn hold(request: &Request, port: u16) -> Result<Reserved, Error> {
    for _ in 0..RANDOM_TRIES {
        let mut guards = Vec::new();
        let mut chosen = port;
        let refusal = request.addresses.iter().find_map(|address| match guard(*address, chosen, request.protocol) {
            Ok((socket, bound)) => {
                chosen = bound;
                guards.push(socket);
                None
            }
            Err(errno) => Some((*address, errno)),
        });
        match refusal {
            None => {
                let (addresses, protocol) = (request.addresses.clone(), request.protocol);
                return Ok(Reserved { addresses, port: chosen, protocol, guards });
            }
            // Free in one family and taken in the other: another random port will do.
            Some((_, Errno::EADDRINUSE)) if port == 0 => {}
            Some((ip, Errno::EADDRINUSE)) => {
                let holder = holder::find(ip, port, request.protocol);
                return Err(Error::PortInUse { ip: shown(request), port, protocol: request.protocol, holder });
            }
            Some((ip, Errno::EADDRNOTAVAIL)) => return Err(Error::NoSuchHostAddress { ip }),
            Some((ip, errno)) => {
                return Err(Error::system(format!("reserve port {ip}:{port}/{}", request.protocol))(errno.into()));
            }
        }
    }
    Err(Error::NoPort { ip: shown(request), first: 0, last: u16::MAX, protocol: request.protocol })
}

fn shown(request: &Request) -> IpAddr {
    request.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// A socket bound to the port, and the port. Unless a [`Proxy`] serves it, it never listens: should the firewall's rules
/// be missing, a connection is refused rather than swallowed.
fn guard(address: IpAddr, port: u16, protocol: Protocol) -> Result<(OwnedFd, u16), Errno> {
    match bind(address, port, protocol, false) {
        // Connections of an earlier program in TIME_WAIT block a plain bind; a listener blocks this one too.
        Err(Errno::EADDRINUSE) if protocol == Protocol::Tcp => bind(address, port, protocol, true),
        other => other,
    }
}

fn bind(address: IpAddr, port: u16, protocol: Protocol, reuse: bool) -> Result<(OwnedFd, u16), Errno> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Protocol::Udp => (SockType::Datagram, SockProtocol::Udp),
        Protocol::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, number)?;
    if address.is_ipv6() {
        socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    socket::setsockopt(&socket, sockopt::ReuseAddr, &reuse)?;
    if protocol != Protocol::Tcp {
        // What comes in while no rule leads it on is not worth memory.
        socket::setsockopt(&socket, sockopt::RcvBuf, &0)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(address, port)))?;
    let bound: SockaddrStorage = socket::getsockname(socket.as_raw_fd())?;
    let bound = bound.as_sockaddr_in().map(SockaddrIn::port).or_else(|| bound.as_sockaddr_in6().map(SockaddrIn6::port));
    Ok((socket, bound.unwrap_or(port)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::net::testbed;

    fn wish(host_ip: Option<&str>, ports: Option<RangeInclusive<u16>>, protocol: Protocol) -> Request {
        let addresses = host_ip.map_or_else(everywhere, |ip| vec![ip.parse().unwrap()]);
        Request { addresses, ports, protocol }
    }

    #[test]
    fn a_reserved_port_is_closed_to_others() {
        testbed::host(|host| {
            let held = reserve(host, &wish(None, Some(8080..=8080), Protocol::Tcp)).unwrap();
            assert_eq!(held.port, 8080);
            assert!(TcpListener::bind("127.0.0.1:8080").is_err());
            assert!(TcpListener::bind("[::1]:8080").is_err());
            assert!(reserve(host, &wish(Some("127.0.0.1"), Some(8080..=8080), Protocol::Tcp)).is_err());
            drop(held);
            TcpListener::bind("127.0.0.1:8080").unwrap();
        });
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        testbed::host(|host| {
            let _tcp = TcpListener::bind("0.0.0.0:8080").unwrap();
            let _udp = UdpSocket::bind("127.0.0.1:53").unwrap();
            let error = reserve(host, &wish(Some("127.0.0.1"), Some(8080..=8080), Protocol::Tcp)).unwrap_err();
            let text = error.to_string();
            let me = format!("already in use by process {} (", std::process::id());
            assert!(text.starts_with("port 127.0.0.1:8080/tcp is ") && text.contains(&me), "{text}");
            let error = reserve(host, &wish(None, Some(53..=53), Protocol::Udp)).unwrap_err().to_string();
            assert!(error.contains(&me), "{error}");
        });
    }

    #[test]
    fn ranges_and_random_ports_give_a_free_one() {
        testbed::host(|host| {
            let first = reserve(host, &wish(None, Some(9000..=9001), Protocol::Udp)).unwrap();
            let second = reserve(host, &wish(None, Some(9000..=9001), Protocol::Udp)).unwrap();
            assert_eq!((first.port, second.port), (9000, 9001));
            let error = reserve(host, &wish(None, Some(9000..=9001), Protocol::Udp)).unwrap_err().to_string();
            assert_eq!(error, "no free port among 0.0.0.0:9000-9001/udp");
            let random = reserve(host, &wish(None, None, Protocol::Tcp)).unwrap();
            assert!(random.port > 1024);
            assert_eq!(random.guards.len(), 2);
            let error = reserve(host, &wish(Some("203.0.113.9"), Some(80..=80), Protocol::Tcp)).unwrap_err();
            assert!(matches!(error, Error::NoSuchHostAddress { .. }), "{error}");
        });
    }

    #[test]
    fn connections_that_just_ended_are_no_obstacle() {
        testbed::host(|host| {
            let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
            let client = std::net::TcpStream::connect("127.0.0.1:8080").unwrap();
            drop(listener.accept().unwrap());
            drop((listener, client));
            reserve(host, &wish(None, Some(8080..=8080), Protocol::Tcp)).unwrap();
        });
    }
}
