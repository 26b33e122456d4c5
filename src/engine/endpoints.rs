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
use super::record::Identity;
use super::state::{Endpoint, Record, Status};
use super::supervisor::{Supervisor, blocking};
use crate::net::dns;
use crate::net::ipam::LeaseRequest;
use crate::net::{DnsSockets, Endpoint as Wire};
use crate::spec::model::Service;

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
            let attachment = service.networks.get(key).cloned().flatten().unwrap_or_default();
            let name = crate::planner::network_name(&desired.project, key);
            let failed = |e: &dyn std::fmt::Display| Failure::new(format!("service {}: {e}", identity.service));
            let network = networks::find(&self.paths, &name).map_err(|e| failed(&e))?;
            let network = network.ok_or_else(|| failed(&format!("network {name} is gone")))?;
            let static_address = |text: &Option<String>| -> Result<Option<IpAddr>, Failure> {
                let parse = |text: &String| {
                    text.parse().map_err(|_| failed(&format!("invalid address {text:?} on network {name}")))
                };
                text.as_ref().map(parse).transpose()
            };
            let request = LeaseRequest {
                owner: identity.id.clone(),
                ipv4: static_address(&attachment.ipv4_address)?,
                ipv6: static_address(&attachment.ipv6_address)?,
            };
            let addresses = self.ipam.lease(&name, &request).map_err(|e| failed(&e))?;
            let names = std::iter::once(identity.service.clone()).chain(attachment.aliases.iter().cloned());
            let aliases = names.filter(|_| identity.discoverable).collect();
            endpoints.push(Endpoint {
                key: key.clone(),
                network: name,
                network_id: network.id,
                bridge: network.bridge.name,
                ifname: attachment.interface_name.unwrap_or_else(|| format!("eth{index}")),
                mac: attachment
                    .mac_address
                    .or_else(|| service.mac_address.clone())
                    .unwrap_or_else(|| mac_of(&addresses)),
                addresses: addresses.iter().map(ToString::to_string).collect(),
                gateway: network.bridge.subnets.iter().find_map(|(_, gateway)| gateway.map(|g| g.to_string())),
                aliases,
                internal: network.bridge.internal,
            });
        }
        keep_one_gateway(service, &mut endpoints);
        Ok(endpoints)
    }

    pub(crate) async fn attach_network(self: &Rc<Self>, record: &Record, netns: OwnedFd) -> Result<(), Failure> {
        let wires = wires(record);
        let host = self.host.clone();
        let _change = self.network.read().await;
        let users = if reaches_host(record) { addresses(record) } else { Vec::new() };
        self.departed().await;
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

    /// Leaves a container's resolver sockets with the shim, and answers on them.
    pub(crate) async fn keep_resolver(self: &Rc<Self>, record: &Record, sockets: DnsSockets) -> Result<(), Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::new(format!("container {}: {e}", record.name));
        let kept = [&sockets.udp, &sockets.tcp].map(OwnedFd::try_clone);
        let kept = kept.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| failed(&e))?;
        self.keep(&dns_key(&record.id), kept).await?;
        self.serve_names(record, sockets)
    }

    /// Answers a container's questions for names.
    pub(crate) fn serve_names(&self, record: &Record, sockets: DnsSockets) -> Result<(), Failure> {
        let outside = record.endpoints.iter().any(|endpoint| !endpoint.internal);
        let asked = &record.config.dns;
        let upstream = match (outside, asked.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => super::hosts::host_resolver().servers,
            (true, false) => asked.iter().filter_map(|server| server.parse().ok()).collect(),
        };
        let networks = record.endpoints.iter().map(|endpoint| endpoint.network.clone()).collect();
        let client = dns::Client { id: record.id.clone(), networks, upstream };
        self.dns.serve(client, sockets).map_err(|e| Failure::new(format!("container {}: {e}", record.name)))
    }

    /// Tells the resolver who runs now.
    pub(crate) fn publish_names(&self) {
        let mut records = Vec::new();
        for container in self.containers() {
            let returns = container.state.status == Status::Restarting && self.returns(&container.record.id);
            if !returns && !matches!(container.state.status, Status::Running | Status::Paused) {
                continue;
            }
            let record = container.record;
            for endpoint in &record.endpoints {
                let mut names = vec![record.name.clone(), super::supervisor::short(&record.id).to_owned()];
                names.extend(endpoint.aliases.iter().cloned());
                let addresses =
                    endpoint.addresses.iter().filter_map(|text| text.parse::<IpNet>().ok().map(|net| net.addr()));
                records.push(dns::Record { network: endpoint.network.clone(), names, addresses: addresses.collect() });
            }
        }
        self.dns.set_names(records.into_iter().collect());
    }
}

/// Where the shim keeps a container's resolver sockets.
pub(crate) fn dns_key(id: &str) -> String {
    format!("dns/{id}")
}

/// A container's attachments in the words of the network layer.
pub(crate) fn wires(record: &Record) -> Vec<Wire> {
    let wire = |endpoint: &Endpoint| {
        let digest = HEXLOWER.encode(&Sha256::digest(format!("{}\0{}", record.id, endpoint.network)));
        Wire {
            bridge: endpoint.bridge.clone(),
            ifname: endpoint.ifname.clone(),
            host_ifname: format!("sv{}", &digest[..12]),
            addresses: endpoint.addresses.iter().filter_map(|text| text.parse().ok()).collect(),
            gateways: endpoint.gateway.iter().filter_map(|text| text.parse().ok()).collect(),
            mac: parse_mac(&endpoint.mac),
        }
    };
    record.endpoints.iter().map(wire).collect()
}

/// The names of the host's ends of a container's veths.
pub(crate) fn host_ifnames(record: &Record) -> Vec<String> {
    wires(record).into_iter().map(|wire| wire.host_ifname).collect()
}

/// The default route goes through the attachment of the highest `gw_priority`, else the first that leads outside.
fn keep_one_gateway(service: &Service, endpoints: &mut [Endpoint]) {
    let priority = |key: &str| service.networks.get(key).and_then(|a| a.as_ref()?.gw_priority).unwrap_or(0);
    let outside = endpoints.iter().enumerate().filter(|(_, endpoint)| !endpoint.internal);
    let chosen = outside.max_by_key(|(index, endpoint)| (priority(&endpoint.key), std::cmp::Reverse(*index)));
    let chosen = chosen.map(|(index, _)| index);
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        if Some(index) != chosen {
            endpoint.gateway = None;
        }
    }
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
