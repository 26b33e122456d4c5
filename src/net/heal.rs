//! Putting back what others took away: bridges, their addresses and ports, the firewall's tables.

use std::net::IpAddr;

use super::attach::Endpoint;
use super::bridge::{self, Bridge};
use super::conntrack::{self, Stale};
use super::error::Error;
use super::firewall::PortMapping;
use super::link::{self, Link, Reach};
use super::netlink::{Batch, Channel};
use super::ruleset::{self, Expected};
use super::{beside, forwarding};

/// What a stack has on the host.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Its networks.
    pub bridges: Vec<Bridge>,
    /// The attachments of containers whose network is up.
    pub endpoints: Vec<Endpoint>,
    /// Their published ports.
    pub ports: Vec<PortMapping>,
    /// Containers that may reach the host's services, by their addresses.
    pub host_users: Vec<IpAddr>,
}

/// Compares, and puts back what is missing. Says what that was.
pub(super) fn heal(firewall: &Channel, wanted: &Wanted) -> Result<Vec<String>, Error> {
    if wanted.bridges.is_empty() {
        return Ok(Vec::new());
    }
    let channel = Channel::route()?;
    let (links, addresses) = (link::links(&channel)?, link::addresses(&channel)?);
    let mut healed = Vec::new();
    for bridge in wanted.bridges.iter().filter(|bridge| !is_whole(bridge, &links, &addresses)) {
        bridge::ensure(firewall, bridge)?;
        healed.push(format!("bridge {}", bridge.name));
    }
    let links = if healed.is_empty() { links } else { link::links(&channel)? };
    healed.extend(reconnect(&channel, wanted, &links)?.into_iter().map(|name| format!("link {name}")));
    let outward = wanted.bridges.iter().any(|bridge| !bridge.internal);
    let routes = link::routes(&channel)?;
    wanted.bridges.iter().try_for_each(|bridge| bridge::forward_ipv6(bridge, &links, &routes))?;
    let around = bridge::surroundings(&links, &routes, outward)?;
    let bridges = || Ok(bridge::list()?.into_iter().map(|(name, _)| name).collect());
    if ruleset::restore(firewall, expected(wanted), &around, bridges)? {
        healed.push("firewall tables".to_owned());
        // Who came in meanwhile must not stay.
        let closed = bridge::subnets(&links, &link::addresses(&channel)?);
        conntrack::forget(firewall, &Stale { closed, ..Stale::default() })?;
    }
    let guests: Vec<_> = wanted.bridges.iter().map(bridge::guest).collect();
    if beside::admit(firewall, &guests)? {
        healed.push("rules among those of the host's firewall".to_owned());
    }
    Ok(healed)
}

/// Whether a bridge is there, up, and has its addresses.
fn is_whole(bridge: &Bridge, links: &[Link], addresses: &[Reach]) -> bool {
    let Some(link) = links.iter().find(|link| link.name == bridge.name) else { return false };
    let mut gateways = bridge.subnets.iter().filter(|subnet| subnet.gateway.is_some());
    link.up && gateways.all(|subnet| addresses.iter().any(|a| a.index == link.index && a.cidr == subnet.cidr.trunc()))
}

/// Makes the host's ends of attachments ports of their bridges again.
fn reconnect<'w>(channel: &Channel, wanted: &'w Wanted, links: &[Link]) -> Result<Vec<&'w str>, Error> {
    let index = |name: &str| links.iter().find(|link| link.name == name);
    let mut batch = Batch::default();
    let mut reconnected = Vec::new();
    for endpoint in &wanted.endpoints {
        let (Some(port), Some(master)) = (index(&endpoint.host_ifname), index(&endpoint.bridge)) else { continue };
        if port.master == master.index {
            continue;
        }
        link::set_master(&mut batch, &port.name, master.index);
        link::set_port(&mut batch, &port.name, bridge::keeps_apart(master), forwarding::bridges_are_filtered());
        reconnected.push(endpoint.host_ifname.as_str());
    }
    channel.execute(&batch)?;
    Ok(reconnected)
}

/// The elements that the tables must have.
fn expected(wanted: &Wanted) -> Vec<Expected> {
    let mut expected: Vec<Expected> = wanted.bridges.iter().flat_map(ruleset::network_elements).collect();
    for endpoint in &wanted.endpoints {
        expected.extend(ruleset::member_elements(&endpoint.member(endpoint.hardware())));
    }
    expected.extend(wanted.ports.iter().filter_map(PortMapping::expected));
    expected.extend(wanted.host_users.iter().map(|address| ruleset::host_user(*address)));
    expected
}
