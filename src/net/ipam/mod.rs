//! Address management: subnets of networks and leases of containers, in one locked file shared by all stacks.

mod pool;
mod state;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fs_err as fs;
use ipnet::IpNet;

use self::state::{Network, State};
use super::bridge::Subnet;
use super::error::Error;
use super::host::Busy;
use crate::sys::file::Lock;

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
        fs::create_dir_all(dir).map_err(Error::system("make the directory of networks"))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Subnets for a network. Asking again with wishes that its subnets fulfil gives the same subnets.
    ///
    /// A subnet that was asked for may not overlap another network's, nor hold an interface's or route's range; one that
    /// is chosen here overlaps nothing at all in `busy`.
    pub fn allocate(&self, request: &NetworkRequest, busy: &[Busy]) -> Result<Vec<Subnet>, Error> {
        self.change(|state| {
            if let Some(known) = state.networks.get(&request.name).filter(|known| known.fulfils(request)) {
                return Ok(known.subnets());
            }
            let network = Network::choose(state, request, busy)?;
            let subnets = network.subnets();
            state.networks.insert(request.name.clone(), network);
            Ok(subnets)
        })
    }

    /// An address of each of the network's families. The owner's earlier lease is given again, unless another address
    /// is asked for.
    pub fn lease(&self, network: &str, request: &LeaseRequest) -> Result<Vec<IpNet>, Error> {
        self.change(|state| state.network(network)?.lease(network, request))
    }

    /// Gives back what an owner has on a network; nothing there is no error.
    pub fn release(&self, network: &str, owner: &str) -> Result<(), Error> {
        self.change(|state| {
            if let Some(network) = state.networks.get_mut(network) {
                network.leases.remove(owner);
            }
            Ok(())
        })
    }

    /// Forgets a network and its leases; an unknown one is no error.
    pub fn release_network(&self, network: &str) -> Result<(), Error> {
        self.change(|state| {
            state.networks.remove(network);
            Ok(())
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let _lock = Lock::exclusive(&self.dir.join("leases.lock")).map_err(Error::system("lock the leases"))?;
        let path = self.dir.join("leases.json");
        let before = State::read(&path)?;
        let mut state = before.clone();
        let result = change(&mut state)?;
        if state != before {
            state.write(&path)?;
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests;
