//! What can go wrong with networks.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::firewall::Protocol;
use super::publish::Holder;

/// Anything that [`crate::net`] can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a netlink request.
    #[error("cannot {action}: {source}{}", detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Netlink {
        /// What was asked, in words that follow "cannot".
        action: String,
        /// The kernel's own explanation (extended acknowledgement), if it gave one.
        detail: Option<String>,
        /// The error number.
        source: io::Error,
    },
    /// A system call beside netlink failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried, in words that follow "cannot".
        action: String,
        /// The error.
        source: io::Error,
    },
    /// A device of that name exists, but isn't ours.
    #[error("the network device {name} exists already and is not a bridge of `stack` ({found}); rename or remove it")]
    ForeignDevice {
        /// The device.
        name: String,
        /// Its kind or alias.
        found: String,
    },
    /// A wanted subnet is in use.
    #[error("subnet {subnet} of network {network} overlaps {other}, used by {by}; choose another `subnet`")]
    Overlap {
        /// Name of the network that asked.
        network: String,
        /// The wanted subnet.
        subnet: IpNet,
        /// The subnet in the way.
        other: IpNet,
        /// Network, interface or route that has it.
        by: String,
    },
    /// Every subnet of the pools is in use.
    #[error(
        "no free subnet for network {network}: of the {count} in {pools}, networks use {networks}, and addresses and routes of \
         this host the others; remove networks (`stack network prune`) or set `ipam.config.subnet`"
    )]
    NoSubnet {
        /// Name of the network that asked.
        network: String,
        /// Subnets looked at.
        count: usize,
        /// Those that networks use.
        networks: usize,
        /// The pools, for people.
        pools: String,
    },
    /// A network's addresses are all leased.
    #[error("no free address on network {network}: all {used} of {range} are leased; use a larger subnet")]
    NoAddress {
        /// The network.
        network: String,
        /// The range that was searched.
        range: IpNet,
        /// Number of leases.
        used: usize,
    },
    /// A static address cannot be had.
    #[error("address {address} on network {network} is taken by {by}; choose another address")]
    AddressTaken {
        /// The network.
        network: String,
        /// The address.
        address: IpAddr,
        /// Who has it.
        by: String,
    },
    /// A static address, gateway or range lies outside of the network's subnets.
    #[error("{what} {address} is not inside a subnet of network {network} ({subnets}): invalid address")]
    OutsideSubnet {
        /// The network.
        network: String,
        /// "address", "gateway", …
        what: &'static str,
        /// The address or range.
        address: String,
        /// The subnets, for people.
        subnets: String,
    },
    /// The network has no lease record.
    #[error("network {network} is not known to the address manager; create it first")]
    UnknownNetwork {
        /// The network.
        network: String,
    },
    /// A host port is in use.
    #[error("port {ip}:{port}/{protocol} is already in use{}", holder.as_ref().map(|h| format!(" by {h}")).unwrap_or_default())]
    PortInUse {
        /// Wanted host address.
        ip: IpAddr,
        /// Wanted port.
        port: u16,
        /// tcp, udp or sctp.
        protocol: Protocol,
        /// Who has it, if that could be found out.
        holder: Option<Holder>,
    },
    /// The host has no such address.
    #[error("cannot publish on {ip}: no interface of this host has that address")]
    NoSuchHostAddress {
        /// Wanted host address.
        ip: IpAddr,
    },
    /// Every port of a range is in use.
    #[error("no free port among {ip}:{first}-{last}/{protocol}")]
    NoPort {
        /// Wanted host address.
        ip: IpAddr,
        /// First port of the range.
        first: u16,
        /// Last port of the range.
        last: u16,
        /// tcp, udp or sctp.
        protocol: Protocol,
    },
    /// The lease file is damaged.
    #[error("{}: {problem}; remove the file when no stack is running", path.display())]
    LeaseFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// A mapper for `io::Result`: says what was tried.
    pub(super) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action: action.into(), source }
    }
}
