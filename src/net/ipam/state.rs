//! The file of leases.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use fs_err as fs;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::pool::Pool;
use super::{LeaseRequest, NetworkRequest};
use crate::net::bridge::Subnet;
use crate::net::error::Error;
use crate::net::host::Busy;
use crate::sys::file::write_atomic;

const VERSION: u32 = 1;

/// Everything that is leased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    pub(super) networks: BTreeMap<String, Network>,
}

/// A network's subnets and leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Network {
    /// Project.
    owner: String,
    pools: Vec<Pool>,
    /// By owner.
    pub(super) leases: BTreeMap<String, Vec<IpAddr>>,
}

impl State {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let damaged = |problem: String| Error::LeaseFile { path: path.to_owned(), problem };
        let text = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { version: VERSION, networks: BTreeMap::new() });
            }
            other => other.map_err(Error::system("read the leases"))?,
        };
        let state: Self = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if state.version > VERSION {
            return Err(damaged(format!("version {} is newer than this program", state.version)));
        }
        Ok(state)
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| Error::system("write the leases")(error.into()))?;
        write_atomic(path, &text, false).map_err(Error::system("write the leases"))
    }

    pub(super) fn network(&mut self, name: &str) -> Result<&mut Network, Error> {
        self.networks.get_mut(name).ok_or_else(|| Error::UnknownNetwork { network: name.to_owned() })
    }

    /// Subnets of all networks but one, with their names.
    pub(super) fn others(&self, name: &str) -> impl Iterator<Item = (&str, IpNet)> {
        let others = self.networks.iter().filter(move |(other, _)| *other != name);
        others.flat_map(|(other, network)| network.pools.iter().map(move |pool| (other.as_str(), pool.subnet)))
    }
}

impl Network {
    pub(super) fn choose(state: &State, request: &NetworkRequest, busy: &[Busy]) -> Result<Self, Error> {
        let mut network = Self { owner: request.owner.clone(), pools: Vec::new(), leases: BTreeMap::new() };
        for wish in request.wishes() {
            let pool = Pool::choose(state, request, &wish, &network.pools, busy)?;
            network.pools.push(pool);
        }
        Ok(network)
    }

    pub(super) fn fulfils(&self, request: &NetworkRequest) -> bool {
        let wishes = request.wishes();
        self.owner == request.owner
            && wishes.len() == self.pools.len()
            && wishes.iter().zip(&self.pools).all(|(wish, pool)| pool.fulfils(wish))
    }

    pub(super) fn subnets(&self) -> Vec<Subnet> {
        self.pools.iter().map(|pool| Subnet { cidr: pool.subnet, gateway: Some(pool.gateway) }).collect()
    }

    pub(super) fn lease(&mut self, name: &str, request: &LeaseRequest) -> Result<Vec<IpNet>, Error> {
        let earlier = self.leases.remove(&request.owner).unwrap_or_default();
        let mut leased = Vec::new();
        for v4 in [true, false] {
            let wanted = if v4 { request.ipv4 } else { request.ipv6 };
            let earlier = earlier.iter().copied().find(|address| address.is_ipv4() == v4);
            let address = match (wanted, earlier) {
                (Some(wanted), _) => Some(self.claim(name, wanted)?),
                (None, Some(earlier)) => self.pool_of(earlier).map(|pool| pool.with_prefix(earlier)),
                (None, None) => self.next(name, v4)?,
            };
            leased.extend(address);
        }
        self.leases.insert(request.owner.clone(), leased.iter().map(IpNet::addr).collect());
        Ok(leased)
    }

    fn claim(&self, name: &str, address: IpAddr) -> Result<IpNet, Error> {
        let Some(pool) = self.pool_of(address).filter(|pool| pool.is_host(address)) else {
            let subnets: Vec<_> = self.pools.iter().map(|pool| pool.subnet.to_string()).collect();
            return Err(Error::OutsideSubnet {
                network: name.to_owned(),
                what: "address",
                address: address.to_string(),
                subnets: subnets.join(", "),
            });
        };
        let holder = self.leases.iter().find(|(_, leased)| leased.contains(&address)).map(|(owner, _)| owner.clone());
        match holder.or_else(|| pool.reserved_by(address)) {
            None => Ok(pool.with_prefix(address)),
            Some(by) => Err(Error::AddressTaken { network: name.to_owned(), address, by }),
        }
    }

    /// The next free address of a family, if the network has that family.
    fn next(&mut self, name: &str, v4: bool) -> Result<Option<IpNet>, Error> {
        let Self { pools, leases, .. } = self;
        let leased = |address: IpAddr| leases.values().any(|addresses| addresses.contains(&address));
        let mut pools = pools.iter_mut().filter(|pool| pool.gateway.is_ipv4() == v4).peekable();
        let Some(first) = pools.peek().map(|pool| pool.range()) else { return Ok(None) };
        match pools.find_map(|pool| pool.next(leased)) {
            Some(address) => Ok(Some(address)),
            None => Err(Error::NoAddress {
                network: name.to_owned(),
                range: first,
                used: leases.values().flatten().filter(|address| address.is_ipv4() == v4).count(),
            }),
        }
    }

    fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.contains(&address))
    }
}
