//! A network's bridge: made, healed, listed and removed.

use std::net::IpAddr;

use ipnet::IpNet;

/// A network as the host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Stored as the interface's alias: says whose the bridge is, and survives any loss of files.
    pub alias: String,
    /// Its subnets, IPv4 and IPv6.
    pub subnets: Vec<Subnet>,
    /// No way out or in: its members see only each other.
    pub internal: bool,
    /// Largest packet; `None` takes that of the host's default route.
    pub mtu: Option<u32>,
    /// Whether its members may talk to each other (Docker's `enable_icc`).
    pub icc: bool,
    /// Whether traffic to outside gets the host's address.
    pub masquerade: bool,
}

/// A subnet of a [`Bridge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet.
    pub cidr: IpNet,
    /// The bridge's own address in it; `None` gives the bridge no address (internal networks without a gateway).
    pub gateway: Option<IpAddr>,
}
