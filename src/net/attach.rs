//! A container's interfaces: veth pairs, addresses, routes and the sockets of its resolver.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use ipnet::IpNet;

/// One attachment of a network namespace to a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the bridge.
    pub bridge: String,
    /// Name inside, such as `eth0`.
    pub ifname: String,
    /// Name of the other end on the host, at most 15 bytes; unique on the host, stable for the attachment.
    pub host_ifname: String,
    /// Addresses inside, each with the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
    /// Gateways of the default routes (at most one per address family); empty on internal networks and on all but the
    /// attachment that leads outside.
    pub gateways: Vec<IpAddr>,
    /// Hardware address inside; `None` derives one from the first address.
    pub mac: Option<[u8; 6]>,
}

/// What [`super::Host::attach`] made.
#[derive(Debug)]
pub struct Attached {
    /// The resolver's sockets, if asked for.
    pub dns: Option<DnsSockets>,
    /// The hardware address of each endpoint, in order.
    pub macs: Vec<[u8; 6]>,
}

/// Sockets inside a container's network namespace that receive what is sent to 127.0.0.11:53.
#[derive(Debug)]
pub struct DnsSockets {
    /// Bound UDP socket.
    pub udp: OwnedFd,
    /// Listening TCP socket.
    pub tcp: OwnedFd,
}
