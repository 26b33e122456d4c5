//! A container's attachments to networks: addresses leased, interfaces made, names answered.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use data_encoding::HEXLOWER;
use ipnet::IpNet;
use sha2::{Digest, Sha256};

use super::control::Failure;
use super::hosts::{addresses, reaches_host};
use super::intent::Desired;
use super::networks;
use super::options;
use super::record::Identity;
use super::state::{Endpoint, Record};
use super::supervisor::{Supervisor, blocking};
use crate::net::ipam::LeaseRequest;
use crate::net::{Endpoint as Wire, Gateway};
use crate::spec::model::{Attachment, Service};

impl Supervisor {
    /// Leases addresses on the service's networks, those of high priority first.
    pub(crate) fn endpoints(
        &self,
        desired: &Desired,
        identity: &Identity,
        service: &Service,
    ) -> Result<Vec<Endpoint>, Failure> {
        let priority = |key: &str| service.networks.get(key).and_then(|a| a.as_ref()?.priority).unwrap_or(0);
        let mut keys: Vec<&String> = service.networks.keys().collect();
        keys.sort_by_key(|key| std::cmp::Reverse(priority(key)));
        let mut endpoints = Vec::new();
        for (index, key) in keys.into_iter().enumerate() {
            let mut attachment = service.networks.get(key).cloned().flatten().unwrap_or_default();
            attachment.mac_address = attachment.mac_address.or_else(|| service.mac_address.clone());
            if identity.discoverable {
                attachment.aliases.insert(0, identity.service.clone());
            } else {
                attachment.aliases.clear();
            }
            let name = crate::planner::network_name(&desired.project, key);
            let endpoint = self.endpoint(&identity.id, key, &name, attachment, index);
            endpoints.push(endpoint.map_err(|failure| Failure {
                message: format!("service {}: {}", identity.service, failure.message),
                ..failure
            })?);
        }
        keep_one_gateway(service, &mut endpoints, true);
        keep_one_gateway(service, &mut endpoints, false);
        Ok(endpoints)
    }

    /// Leases a container's addresses on a network; it is the `index`-th that the container is on.
    pub(crate) fn endpoint(
        &self,
        id: &str,
        key: &str,
        name: &str,
        attachment: Attachment,
        index: usize,
    ) -> Result<Endpoint, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(e.to_string());
        let network = networks::find(&self.paths, name).map_err(|e| failed(&e))?;
        let network = network.ok_or_else(|| failed(&format!("network {name} is gone")))?;
        let static_address = |text: &Option<String>| -> Result<Option<IpAddr>, Failure> {
            let parse = |text: &String| {
                text.parse().map_err(|_| failed(&format!("invalid address {text:?} on network {name}")))
            };
            text.as_ref().map(parse).transpose()
        };
        let request = LeaseRequest {
            owner: id.to_owned(),
            ipv4: static_address(&attachment.ipv4_address)?,
            ipv6: static_address(&attachment.ipv6_address)?,
        };
        let link_local = attachment.link_local_ips.iter().map(|text| {
            link_local(text).ok_or_else(|| failed(&format!("invalid link-local address {text:?} on network {name}")))
        });
        let link_local = link_local.collect::<Result<_, _>>()?;
        let interface = options::of_interface(&attachment.driver_opts)?;
        let prefix = network.bridge.interface_prefix.as_deref().unwrap_or("eth");
        let ifname = attachment.interface_name.or(interface.name).unwrap_or_else(|| format!("{prefix}{index}"));
        let addresses = self.ipam.lease(name, &request).map_err(|e| failed(&e))?;
        let outward = &network.bridge.outward;
        let mode = |address: &IpAddr| if address.is_ipv4() { outward.ipv4 } else { outward.ipv6 };
        let routed = addresses.iter().map(IpNet::addr).filter(|address| mode(address) == Gateway::Routed).collect();
        Ok(Endpoint {
            key: key.to_owned(),
            network: name.to_owned(),
            network_id: network.id,
            gateways: gateways(&network.bridge, &addresses),
            bridge: network.bridge.name,
            ifname,
            mac: attachment.mac_address.unwrap_or_else(|| mac_of(&addresses)),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            link_local,
            aliases: attachment.aliases,
            internal: network.bridge.internal,
            foreign: network.project != self.project,
            routed,
            settings: interface.settings,
        })
    }

    pub(crate) async fn attach_network(self: &Rc<Self>, record: &Record, netns: OwnedFd) -> Result<(), Failure> {
        let wires = wires(record);
        let host = self.host.clone();
        let users = if reaches_host(record) { addresses(record) } else { Vec::new() };
        // Before anything is held: who leaves waits for whoever puts the network right, and that one for who comes.
        self.departed().await;
        let _change = self.network.read().await;
        let attached = blocking(move || {
            let attached = host.attach(netns.as_fd(), &wires, true)?;
            if !users.is_empty() {
                host.firewall().allow_host(&users, true)?;
            }
            Ok::<_, crate::net::Error>(attached)
        });
        let attached = attached.await?;
        let attached = attached.map_err(|e| Failure::new(format!("container {}: {e}", record.name)))?;
        match attached.dns {
            Some(sockets) => self.keep_resolver(record, sockets).await,
            None => Ok(()),
        }
    }
}

/// A container's attachments in the words of the network layer.
pub(crate) fn wires(record: &Record) -> Vec<Wire> {
    let wire = |endpoint: &Endpoint| {
        let digest = HEXLOWER.encode(&Sha256::digest(format!("{}\0{}", record.id, endpoint.network)));
        Wire {
            bridge: endpoint.bridge.clone(),
            ifname: endpoint.ifname.clone(),
            host_ifname: format!("sv{}", &digest[..12]),
            addresses: endpoint
                .addresses
                .iter()
                .chain(&endpoint.link_local)
                .filter_map(|text| text.parse().ok())
                .collect(),
            gateways: endpoint.gateways.iter().filter_map(|text| text.parse().ok()).collect(),
            mac: parse_mac(&endpoint.mac),
            settings: endpoint.settings.clone(),
        }
    };
    record.endpoints.iter().map(wire).collect()
}

/// The names of the host's ends of a container's veths.
pub(crate) fn host_ifnames(record: &Record) -> Vec<String> {
    wires(record).into_iter().map(|wire| wire.host_ifname).collect()
}

/// The network's own addresses in the subnets that a container's addresses lie in.
pub(crate) fn gateways(bridge: &networks::Bridge, addresses: &[IpNet]) -> Vec<String> {
    let reached = bridge.subnets.iter().filter(|(subnet, _)| addresses.iter().any(|own| subnet.contains(&own.addr())));
    reached.filter_map(|(_, gateway)| gateway.map(|gateway| gateway.to_string())).collect()
}

/// The default route of an address family goes through the attachment of the highest `gw_priority`, else the first that
/// leads outside.
fn keep_one_gateway(service: &Service, endpoints: &mut [Endpoint], ipv4: bool) {
    let priority = |key: &str| service.networks.get(key).and_then(|a| a.as_ref()?.gw_priority).unwrap_or(0);
    let is_other = |gateway: &str| gateway.contains(':') == ipv4;
    let leads = |endpoint: &Endpoint| !endpoint.internal && !endpoint.gateways.iter().all(|gateway| is_other(gateway));
    let outside = endpoints.iter().enumerate().filter(|(_, endpoint)| leads(endpoint));
    let chosen = outside.max_by_key(|(index, endpoint)| (priority(&endpoint.key), std::cmp::Reverse(*index)));
    let chosen = chosen.map(|(index, _)| index);
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        if Some(index) != chosen {
            endpoint.gateways.retain(|gateway| is_other(gateway));
        }
    }
}

/// An address with the prefix length of link-local ones (RFC 3927, RFC 4291). As with Docker it may be any address.
fn link_local(text: &str) -> Option<String> {
    let address: IpAddr = text.parse().ok()?;
    Some(format!("{address}/{}", if address.is_ipv4() { 16 } else { 64 }))
}

/// Docker's way: 02:42 and the IPv4 address.
fn mac_of(addresses: &[IpNet]) -> String {
    let octets = addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(address) => Some(address.octets()),
        IpAddr::V6(address) => address.octets().last_chunk::<4>().copied(),
    });
    let [a, b, c, d] = octets.unwrap_or_default();
    format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}
