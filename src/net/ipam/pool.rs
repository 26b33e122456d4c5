//! A subnet: how it is chosen, and what of it can be leased.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::state::State;
use super::{NetworkRequest, PoolRequest};
use crate::net::error::Error;
use crate::net::host::Busy;

/// Private space that others seldom use: Docker starts at 172.17, home routers at 192.168.0.
const SPACES: [([u8; 4], u8); 3] = [([172, 24, 0, 0], 13), ([10, 200, 0, 0], 13), ([192, 168, 128, 0], 17)];
const SUBNET: u8 = 24;
/// Tries for an IPv6 subnet; one collision among 2^40 would be a wonder.
const TRIES: u32 = 16;

/// A subnet of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pool {
    pub(super) subnet: IpNet,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_range: Option<IpNet>,
    pub(super) gateway: IpAddr,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    aux_addresses: BTreeMap<String, IpAddr>,
    /// The address leased last: the next one comes after it, so that a fresh container doesn't inherit the peers of one
    /// that just went.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<IpAddr>,
}

impl NetworkRequest {
    /// The wanted pools, with one of each family added that has none.
    pub(super) fn wishes(&self) -> Vec<PoolRequest> {
        let mut wishes = self.pools.clone();
        let has = |wishes: &[PoolRequest], v4| wishes.iter().any(|wish| wish.is_ipv4() == v4);
        if self.ipv4 && !has(&wishes, true) {
            wishes.push(PoolRequest::default());
        }
        if self.ipv6 && !has(&wishes, false) {
            wishes.push(PoolRequest { gateway: Some(Ipv6Addr::UNSPECIFIED.into()), ..PoolRequest::default() });
        }
        wishes
    }
}

impl PoolRequest {
    /// The family: of whatever is given, else IPv4. An unspecified gateway stands for "any of this family".
    fn is_ipv4(&self) -> bool {
        let subnet = self.subnet.or(self.ip_range).map(|subnet| subnet.addr());
        subnet.or(self.gateway).is_none_or(|address| address.is_ipv4())
    }

    fn gateway(&self) -> Option<IpAddr> {
        self.gateway.filter(|gateway| !gateway.is_unspecified())
    }
}

impl Pool {
    pub(super) fn choose(
        state: &State,
        request: &NetworkRequest,
        wish: &PoolRequest,
        earlier: &[Self],
        busy: &[Busy],
    ) -> Result<Self, Error> {
        let name = &request.name;
        let used: Vec<(String, IpNet)> = state
            .others(name)
            .map(|(other, subnet)| (format!("network {other}"), subnet))
            .chain(earlier.iter().map(|pool| (format!("network {name} itself"), pool.subnet)))
            .collect();
        let reached = busy.iter().filter(|range| range.interface != request.bridge);
        let reached = reached.map(|range| (format!("interface {}", range.interface), range.cidr));
        let subnet = if let Some(subnet) = wish.subnet.map(|subnet| subnet.trunc()) {
            let inside = reached.filter(|(_, range)| subnet.contains(range));
            let mut conflicts = used.into_iter().filter(|(_, other)| overlap(*other, subnet)).chain(inside);
            if let Some((by, other)) = conflicts.next() {
                return Err(Error::Overlap { network: name.clone(), subnet, other, by });
            }
            subnet
        } else {
            let networks = used.len();
            let taken: Vec<_> = used.into_iter().chain(reached).map(|(_, range)| range).collect();
            let free = |subnet: &IpNet| !taken.iter().any(|range| overlap(*range, *subnet));
            let found = if wish.is_ipv4() { candidates_4().find(free) } else { candidates_6(name).find(free) };
            found.ok_or_else(|| exhausted(name, &taken[..networks]))?
        };
        Self::within(name, subnet, wish)
    }

    fn within(name: &str, subnet: IpNet, wish: &PoolRequest) -> Result<Self, Error> {
        let outside = |what, address: String| Error::OutsideSubnet {
            network: name.to_owned(),
            what,
            address,
            subnets: subnet.to_string(),
        };
        if let Some(range) = wish.ip_range.filter(|range| !subnet.contains(range)) {
            return Err(outside("ip_range", range.to_string()));
        }
        for (_, address) in &wish.aux_addresses {
            if !subnet.contains(address) {
                return Err(outside("auxiliary address", address.to_string()));
            }
        }
        let aux_addresses: BTreeMap<_, _> = wish.aux_addresses.iter().cloned().collect();
        let usable = |address: &IpAddr| is_host(subnet, *address) && !aux_addresses.values().any(|aux| aux == address);
        let gateway = match wish.gateway() {
            Some(gateway) if subnet.contains(&gateway) => gateway,
            Some(gateway) => return Err(outside("gateway", gateway.to_string())),
            None => subnet.hosts().find(usable).ok_or_else(|| outside("gateway", subnet.to_string()))?,
        };
        Ok(Self { subnet, ip_range: wish.ip_range.map(|range| range.trunc()), gateway, aux_addresses, last: None })
    }

    pub(super) fn fulfils(&self, wish: &PoolRequest) -> bool {
        let aux: BTreeMap<_, _> = wish.aux_addresses.iter().cloned().collect();
        wish.is_ipv4() == self.gateway.is_ipv4()
            && wish.subnet.is_none_or(|subnet| subnet.trunc() == self.subnet)
            && wish.ip_range.map(|range| range.trunc()) == self.ip_range
            && wish.gateway().is_none_or(|gateway| gateway == self.gateway)
            && aux == self.aux_addresses
    }

    /// Where leases come from.
    pub(super) fn range(&self) -> IpNet {
        self.ip_range.unwrap_or(self.subnet)
    }

    pub(super) fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.subnet.prefix_len()).unwrap_or(self.subnet)
    }

    /// Whether a container may have that address.
    pub(super) fn is_host(&self, address: IpAddr) -> bool {
        is_host(self.subnet, address)
    }

    pub(super) fn reserved_by(&self, address: IpAddr) -> Option<String> {
        if address == self.gateway {
            return Some("the gateway".to_owned());
        }
        let aux = self.aux_addresses.iter().find(|(_, aux)| **aux == address);
        aux.map(|(name, _)| format!("the auxiliary address {name}"))
    }

    /// The first free address after the one leased last, going round.
    pub(super) fn next(&mut self, leased: impl Fn(IpAddr) -> bool) -> Option<IpNet> {
        let range = self.range();
        let (first, end) = (number(range.network()), number(range.broadcast()));
        let start = self.last.map_or(first, |last| number(last).saturating_add(1)).clamp(first, end);
        let v4 = self.gateway.is_ipv4();
        let free = |number: &u128| {
            let address = address(*number, v4);
            self.is_host(address) && self.reserved_by(address).is_none() && !leased(address)
        };
        let found = (start..=end).chain(first..start).find(free)?;
        self.last = Some(address(found, v4));
        Some(self.with_prefix(address(found, v4)))
    }
}

/// Whether the address is in the subnet, and neither its own nor its broadcast address.
fn is_host(subnet: IpNet, address: IpAddr) -> bool {
    let small = subnet.max_prefix_len() - subnet.prefix_len() < 2;
    let edge = address == subnet.network() || (address.is_ipv4() && address == subnet.broadcast());
    subnet.contains(&address) && (small || !edge)
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn candidates_4() -> impl Iterator<Item = IpNet> {
    let spaces = SPACES.into_iter().filter_map(|(address, prefix)| Ipv4Net::new(address.into(), prefix).ok());
    spaces.filter_map(|space| space.subnets(SUBNET).ok()).flatten().map(IpNet::V4)
}

/// Unique local subnets (RFC 4193) made from the network's name, so that they return.
fn candidates_6(name: &str) -> impl Iterator<Item = IpNet> {
    let name = name.to_owned();
    (0..TRIES).filter_map(move |attempt| {
        let digest = Sha256::new().chain_update(&name).chain_update(attempt.to_be_bytes()).finalize();
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..8].copy_from_slice(&digest[..7]);
        Ipv6Net::new(octets.into(), 64).ok().map(IpNet::V6)
    })
}

fn exhausted(name: &str, networks: &[IpNet]) -> Error {
    let pools: Vec<_> =
        SPACES.iter().map(|(address, prefix)| format!("{}/{prefix}", Ipv4Addr::from(*address))).collect();
    let in_use = |subnet: &IpNet| networks.iter().any(|network| overlap(*network, *subnet));
    Error::NoSubnet {
        network: name.to_owned(),
        count: candidates_4().count(),
        networks: candidates_4().filter(in_use).count(),
        pools: pools.join(", "),
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(number: u128, v4: bool) -> IpAddr {
    match u32::try_from(number) {
        Ok(bits) if v4 => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(number).into(),
    }
}
