//! A network's bridge: made, healed, listed and removed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::beside::{self, Guest};
use super::error::Error;
use super::link::{self, Link, Reach};
use super::netlink::{Batch, Channel};
use super::ruleset::Surroundings;
use super::{forwarding, ruleset};

/// What the alias of each of our bridges starts with, whoever owns the network.
const ALIAS_PREFIX: &str = "stack:";
/// The same where members may not talk to each other, so that whoever attaches one knows.
const APART_PREFIX: &str = "stack-apart:";
const DEFAULT_MTU: u32 = 1500;

/// A network as the host sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Stored (behind `stack:`) as the interface's alias: says whose the bridge is, and survives any loss of files.
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
    /// How it and the world meet besides.
    pub outward: Outward,
}

/// How a network and other machines meet, as the options of Docker's bridge driver have it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outward {
    /// For IPv4.
    pub ipv4: Gateway,
    /// For IPv6.
    pub ipv6: Gateway,
    /// Addresses that traffic to outside gets, at most one of each family; else that of the interface it leaves by.
    pub sources: Vec<IpAddr>,
    /// Interfaces of the host through which others reach all ports of containers directly.
    pub trusted: Vec<String>,
}

/// The host as the gateway of a network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// Containers leave with the host's address; others reach the ports of the host that they publish.
    #[default]
    Nat,
    /// The same, and other machines with a route reach all ports of containers.
    Unprotected,
    /// Containers leave with their own addresses, and answer there for the ports that they publish.
    Routed,
}

/// A subnet of a [`Bridge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// The subnet.
    pub cidr: IpNet,
    /// The bridge's own address in it; `None` gives the bridge no address (internal networks without a gateway).
    pub gateway: Option<IpAddr>,
}

impl Bridge {
    fn has_ipv6(&self) -> bool {
        self.subnets.iter().any(|subnet| matches!(subnet.cidr, IpNet::V6(_)))
    }
}

/// Makes the bridge or repairs it, with forwarding and rules.
pub(super) fn ensure(firewall: &Channel, bridge: &Bridge) -> Result<(), Error> {
    let channel = Channel::route()?;
    let (mut links, routes) = (link::links(&channel)?, link::routes(&channel)?);
    let mtu = bridge.mtu.or_else(|| default_mtu(&links, &routes)).unwrap_or(DEFAULT_MTU);
    if !links.iter().any(|link| link.name == bridge.name) {
        let mut batch = Batch::default();
        link::make_bridge(&mut batch, &bridge.name, mtu);
        match channel.execute(&batch) {
            Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {}
            other => other?,
        }
        links = link::links(&channel)?;
    }
    let found = links.iter_mut().find(|link| link.name == bridge.name).ok_or_else(|| vanished(&bridge.name))?;
    check_ours(bridge, found)?;
    found.alias = configure(&channel, bridge, found.index, mtu)?;
    let around = surroundings(&links, &routes, !bridge.internal)?;
    forward_ipv6(bridge, &links, &routes)?;
    ruleset::add_network(firewall, bridge, &around)?;
    beside::admit(firewall, &[guest(bridge)]).map(drop)
}

/// Lets a bridge that needs it, and the interfaces that lead out, forward IPv6.
pub(super) fn forward_ipv6(bridge: &Bridge, links: &[Link], routes: &[Reach]) -> Result<(), Error> {
    if !bridge.has_ipv6() || bridge.internal {
        return Ok(());
    }
    forwarding::forward_ipv6(&bridge.name, &forwarding::uplinks(links, routes, is_ours))
}

/// What the host's other interfaces are to us; with `forward`, those that lead out forward IPv4 from now on.
pub(super) fn surroundings(links: &[Link], routes: &[Reach], forward: bool) -> Result<Surroundings, Error> {
    let uplinks = forwarding::uplinks(links, routes, is_ours);
    let uplinks = if forward { forwarding::forward_ipv4(&uplinks)? } else { forwarding::borrowed_ipv4(&uplinks)? };
    Ok(Surroundings { uplinks, neighbours: neighbours(links, routes) })
}

/// The bridge as others' rules shall know it.
pub(super) fn guest(bridge: &Bridge) -> Guest<'_> {
    let owner = bridge.alias.strip_prefix(ALIAS_PREFIX).unwrap_or(&bridge.alias);
    Guest { bridge: &bridge.name, owner }
}

/// Bridges of others, those aside that lead the host itself to the world.
fn neighbours(links: &[Link], routes: &[Reach]) -> BTreeSet<String> {
    let leads_out = |link: &Link| routes.iter().any(|route| route.index == link.index && route.cidr.prefix_len() == 0);
    let neighbours = links.iter().filter(|link| link.kind == "bridge" && !is_ours(link) && !leads_out(link));
    neighbours.map(|link| link.name.clone()).collect()
}

/// Returns the bridge's alias.
fn configure(channel: &Channel, bridge: &Bridge, index: u32, mtu: u32) -> Result<String, Error> {
    let mut batch = Batch::default();
    let alias = format!("{}{}", if bridge.icc { ALIAS_PREFIX } else { APART_PREFIX }, bridge.alias);
    let link_local = bridge.has_ipv6() || !forwarding::has_ipv6();
    link::set_bridge(&mut batch, index, &bridge.name, &alias, mtu, link_local);
    for subnet in &bridge.subnets {
        if let Some(gateway) = subnet.gateway.and_then(|gateway| IpNet::new(gateway, subnet.cidr.prefix_len()).ok()) {
            link::add_address(&mut batch, index, gateway);
        }
    }
    channel.execute(&batch)?;
    Ok(alias)
}

/// Removes the bridge; a missing one is no error. Its rules go after it, by [`forget`]: whoever puts them back for all
/// bridges that are there must not find this one then.
pub(super) fn remove(name: &str) -> Result<(), Error> {
    let channel = Channel::route()?;
    match link::links(&channel)?.into_iter().find(|link| link.name == name) {
        Some(found) if !is_ours(&found) && !is_half_made(&found) => Err(foreign(&found)),
        Some(found) => link::remove_links(&channel, [&found.name]),
        None => Ok(()),
    }
}

/// Removes the rules of a bridge.
pub(super) fn forget(firewall: &Channel, name: &str) -> Result<(), Error> {
    ruleset::remove_network(firewall, name)?;
    beside::dismiss(firewall, name)
}

/// Names and aliases of our bridges.
pub(super) fn list() -> Result<Vec<(String, String)>, Error> {
    let links = link::links(&Channel::route()?)?;
    Ok(links.iter().filter_map(|link| Some((link.name.clone(), owner(link)?.to_owned()))).collect())
}

/// The subnets of our bridges, of all stacks.
pub(super) fn subnets(links: &[Link], addresses: &[Reach]) -> Vec<IpNet> {
    let ours = |address: &&Reach| links.iter().any(|link| link.index == address.index && is_ours(link));
    let subnets = addresses.iter().filter(ours).map(|address| address.cidr.trunc());
    subnets.filter(|subnet| !is_link_local(subnet)).collect()
}

/// What every interface has, and tells none from the other.
fn is_link_local(subnet: &IpNet) -> bool {
    matches!(subnet, IpNet::V6(v6) if v6.addr().is_unicast_link_local())
}

/// Whether the members of this bridge of ours may not talk to each other.
pub(super) fn keeps_apart(link: &Link) -> bool {
    link.alias.starts_with(APART_PREFIX)
}

/// The alias as it was asked for, if the bridge is ours.
fn owner(link: &Link) -> Option<&str> {
    let owner = link.alias.strip_prefix(ALIAS_PREFIX).or_else(|| link.alias.strip_prefix(APART_PREFIX));
    owner.filter(|_| link.kind == "bridge")
}

fn is_ours(link: &Link) -> bool {
    owner(link).is_some()
}

/// A bridge without an alias is one that a killed process left half made.
fn is_half_made(link: &Link) -> bool {
    link.kind == "bridge" && link.alias.is_empty()
}

fn check_ours(bridge: &Bridge, found: &Link) -> Result<(), Error> {
    let ours = is_half_made(found) || owner(found) == Some(bridge.alias.as_str());
    if ours { Ok(()) } else { Err(foreign(found)) }
}

fn foreign(link: &Link) -> Error {
    let found = if link.alias.is_empty() { format!("a {} link", link.kind) } else { link.alias.clone() };
    Error::ForeignDevice { name: link.name.clone(), found }
}

fn vanished(name: &str) -> Error {
    Error::System {
        action: format!("find the bridge {name} just made; another program removed it"),
        source: std::io::Error::from_raw_os_error(libc::ENODEV),
    }
}

/// The MTU of the interface that the best default route leads through.
fn default_mtu(links: &[Link], routes: &[Reach]) -> Option<u32> {
    let best = routes.iter().filter(|route| route.cidr.prefix_len() == 0).min_by_key(|route| route.metric)?;
    links.iter().find(|link| link.index == best.index).map(|link| link.mtu)
}
