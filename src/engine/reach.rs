//! Where published ports are found: at the host's addresses, or, on routed networks, at the container's own.

use std::net::IpAddr;

use super::networks;
use super::options::Options;
use super::paths::Paths;
use super::ports::targets;
use super::state::Record;
use crate::net::{Gateway, Outward};
use crate::spec::model::{Project, Service};

/// Whether a container's ports are the host's, by address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reach {
    ipv4: bool,
    ipv6: bool,
}

impl Reach {
    /// Of a service, by the networks that its containers will be on.
    pub(crate) fn planned(paths: &Paths, project: &Project, service: &Service) -> Self {
        let networks = networks_of(paths, project, service);
        let is_hosts = |ipv4: bool| {
            let leads = |network: &&Network| !network.internal && if ipv4 { network.ipv4 } else { network.ipv6 };
            let gateway = networks.iter().enumerate().filter(|(_, network)| leads(network));
            let gateway = gateway.max_by_key(|(index, network)| (network.priority, std::cmp::Reverse(*index)));
            let mode = |network: &Network| if ipv4 { network.outward.ipv4 } else { network.outward.ipv6 };
            gateway.is_none_or(|(_, network)| mode(network) != Gateway::Routed)
        };
        Self { ipv4: is_hosts(true), ipv6: is_hosts(false) }
    }

    /// Of a container.
    pub(crate) fn of(record: &Record) -> Self {
        let targets = targets(record);
        let is_hosts = |ipv4: bool| {
            let target = targets.iter().find(|target| target.is_ipv4() == ipv4);
            !target.is_some_and(|target| record.endpoints.iter().any(|endpoint| endpoint.routed.contains(target)))
        };
        Self { ipv4: is_hosts(true), ipv6: is_hosts(false) }
    }

    /// Whether ports on an address of the host lead to the container.
    pub(crate) fn includes(self, host: &IpAddr) -> bool {
        if host.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// A network before it is made, or one that is there.
struct Network {
    priority: i64,
    internal: bool,
    ipv4: bool,
    ipv6: bool,
    outward: Outward,
}

/// In the order in which containers are attached.
fn networks_of(paths: &Paths, project: &Project, service: &Service) -> Vec<Network> {
    let attachment = |key: &str| service.networks.get(key).cloned().flatten().unwrap_or_default();
    let mut keys: Vec<&String> = service.networks.keys().collect();
    keys.sort_by_key(|key| std::cmp::Reverse(attachment(key).priority.unwrap_or(0)));
    let network = |key: &String| {
        let priority = attachment(key).gw_priority.unwrap_or(0);
        let wanted = project.networks.get(key)?;
        if wanted.external {
            let bridge = networks::find(paths, &wanted.name).ok()??.bridge;
            let has = |ipv4: bool| bridge.subnets.iter().any(|(subnet, _)| subnet.addr().is_ipv4() == ipv4);
            return Some(Network {
                priority,
                internal: bridge.internal,
                ipv4: has(true),
                ipv6: has(false),
                outward: bridge.outward,
            });
        }
        let options = Options::parse(key, &wanted.driver_opts, wanted.internal).ok()?;
        let pools = wanted.ipam.iter().flat_map(|ipam| &ipam.config);
        let ipv6 = pools.filter_map(|pool| pool.subnet.as_ref()).any(|subnet| subnet.contains(':'));
        Some(Network {
            priority,
            internal: wanted.internal,
            ipv4: wanted.enable_ipv4.or(options.enable_ipv4).unwrap_or(true),
            ipv6: ipv6 || wanted.enable_ipv6.or(options.enable_ipv6).unwrap_or(false),
            outward: options.outward,
        })
    };
    keys.into_iter().filter_map(network).collect()
}
