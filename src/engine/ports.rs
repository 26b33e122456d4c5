//! Published ports: found free before anything starts, held, and led to containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::control::Failure;
use super::reach::Reach;
use super::state::{Published, Record};
use super::supervisor::{Supervisor, blocking, tracing_line};
use crate::net::publish::{self, Proxy, Request, Reserved, Route};
use crate::net::{Host, PortMapping, Protocol};
use crate::spec::model::Port;

/// A message carries no more than 253 descriptors (`SCM_MAX_FD`).
const GUARDS_PER_KEY: usize = 200;

impl Supervisor {
    pub(crate) async fn publish_ports(self: &Rc<Self>, record: &Record) -> Result<Vec<Published>, Failure> {
        if record.config.ports.is_empty() || record.endpoints.is_empty() {
            return Ok(Vec::new());
        }
        let mut reserved = self.reserved.borrow_mut().remove(&record.name).unwrap_or_default();
        let (host, owned) = (self.host.clone(), record.clone());
        let (addresses, reach) = (targets(record), Reach::of(record));
        let _change = self.network.read().await;
        let (published, guards) = blocking(move || -> Result<_, Failure> {
            let (name, ports) = (&owned.name, &owned.config.ports);
            if reserved.is_empty() {
                reserved = reserve(&host, name, &owned.service, ports, reach)?;
            }
            let published: Vec<Published> =
                reserved.iter().zip(ports).flat_map(|(held, port)| published(held, port, reach)).collect();
            let mappings = mappings(&published, &addresses);
            host.firewall().publish(&mappings).map_err(|e| Failure::new(format!("container {name}: {e}")))?;
            Ok((published, reserved.into_iter().flat_map(|held| held.guards).collect::<Vec<_>>()))
        })
        .await??;
        self.carry_ports(record, &published, &guards);
        // The shim holds the guards, so that no program takes the port while a supervisor restarts.
        let mut guards = guards.into_iter();
        for key in ports_keys(&record.id, published.len()) {
            let kept = self.keep(&key, guards.by_ref().take(GUARDS_PER_KEY).collect()).await;
            if let Err(failure) = kept {
                // Who takes the failed start apart takes these out of the firewall.
                self.change(&record.id, |state| state.ports = published)?;
                return Err(failure);
            }
        }
        Ok(published)
    }

    /// Serves the published ports that the firewall can't lead to the container.
    pub(crate) fn carry_ports(&self, record: &Record, published: &[Published], guards: &[OwnedFd]) {
        let routes = routes(published, &targets(record));
        if routes.is_empty() {
            return;
        }
        let guards = guards.iter().filter_map(|guard| guard.try_clone().ok()).collect();
        match Proxy::start(guards, &routes) {
            Ok(proxy) => drop(self.proxies.borrow_mut().insert(record.id.clone(), proxy)),
            Err(e) => tracing_line(&format!("container {}: {e}", record.name)),
        }
    }

    /// Finds every port that the project's new containers publish, before anything starts. Ports of containers that
    /// run already are theirs to give.
    pub(crate) async fn reserve_ports(&self, wanted: Vec<(String, String, Vec<Port>, Reach)>) -> Result<(), Failure> {
        let ours: Vec<(u16, String)> = self
            .containers()
            .iter()
            .flat_map(|c| c.state.ports.iter().map(|port| (port.host_port, port.protocol.clone())).collect::<Vec<_>>())
            .collect();
        let is_ours = |port: &Port| {
            let number = port.published.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0);
            ours.iter().any(|(held, protocol)| *held == number && Some(protocol) == port.protocol.as_ref())
        };
        let wanted: Vec<_> = wanted
            .into_iter()
            .filter(|(_, _, ports, _)| {
                !ports.is_empty() && !ports.iter().any(|port| is_ours(port) || port.published.is_none())
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let host = self.host.clone();
        let held = blocking(move || {
            let hold = |(name, service, ports, reach): (String, String, Vec<Port>, Reach)| {
                reserve(&host, &name, &service, &ports, reach).map(|held| (name, held))
            };
            wanted.into_iter().map(hold).collect::<Result<Vec<_>, _>>()
        });
        let held = held.await??;
        self.reserved.borrow_mut().extend(held);
        Ok(())
    }
}

/// Where the shim keeps what holds a container's host ports, so many.
pub(crate) fn ports_keys(id: &str, published: usize) -> impl Iterator<Item = String> {
    (0..published.div_ceil(GUARDS_PER_KEY)).map(move |part| format!("{}/{part}", ports_key(id)))
}

/// The key that all these are below.
pub(crate) fn ports_key(id: &str) -> String {
    format!("ports/{id}")
}

/// A container's addresses, those first that it reaches the world by: published ports lead there.
pub(crate) fn targets(record: &Record) -> Vec<IpAddr> {
    let mut endpoints: Vec<_> = record.endpoints.iter().collect();
    endpoints.sort_by_key(|endpoint| (endpoint.internal, endpoint.gateways.is_empty()));
    let parse = |text: &String| text.parse::<ipnet::IpNet>().ok().map(|net| net.addr());
    endpoints.into_iter().flat_map(|endpoint| endpoint.addresses.iter().filter_map(parse)).collect()
}

/// The firewall's mappings of published ports.
pub(crate) fn mappings(published: &[Published], addresses: &[IpAddr]) -> Vec<PortMapping> {
    let mapping = |port: &Published| {
        let host: IpAddr = port.host_ip.parse().ok()?;
        Some(PortMapping {
            host_ip: Some(host).filter(|ip| !ip.is_unspecified()),
            host_port: port.host_port,
            protocol: port.protocol.parse::<Protocol>().ok()?,
            container_ip: *addresses.iter().find(|ip| ip.is_ipv4() == host.is_ipv4())?,
            container_port: port.target,
        })
    };
    published.iter().filter_map(mapping).collect()
}

/// What has to be carried: connections from `::1`, and those to a container without an address of their family.
fn routes(published: &[Published], addresses: &[IpAddr]) -> Vec<Route> {
    let route = |port: &Published| {
        let host: IpAddr = port.host_ip.parse().ok()?;
        let same = addresses.iter().find(|ip| ip.is_ipv4() == host.is_ipv4());
        let from_itself = host == Ipv6Addr::LOCALHOST || host == Ipv6Addr::UNSPECIFIED;
        Some(Route {
            host: SocketAddr::new(host, port.host_port),
            protocol: port.protocol.parse().ok()?,
            container: SocketAddr::new(*same.or(addresses.first())?, port.target),
        })
        .filter(|_| port.host_port != 0 && (from_itself || same.is_none()))
    };
    published.iter().filter_map(route).collect()
}

fn reserve(host: &Host, name: &str, service: &str, ports: &[Port], reach: Reach) -> Result<Vec<Reserved>, Failure> {
    let one = |(index, port): (usize, &Port)| {
        let invalid = |what: &str| Failure::new(format!("container {name}: invalid {what} of port {}", port.target));
        let range = |text: &String| -> Option<RangeInclusive<u16>> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        let address = |ip: &String| ip.parse::<IpAddr>().map_err(|_| invalid("host address"));
        let address = port.host_ip.as_ref().map(address).transpose()?;
        let mut addresses = address.map_or_else(publish::everywhere, |address| vec![address]);
        addresses.retain(|address| reach.includes(address));
        let request = Request {
            addresses,
            ports: match port.published.as_ref().filter(|text| *text != "0") {
                Some(text) => Some(range(text).ok_or_else(|| invalid("host port"))?),
                None => None,
            },
            protocol: port.protocol.as_deref().unwrap_or("tcp").parse().map_err(|_| invalid("protocol"))?,
        };
        publish::reserve(host, &request).map_err(|e| {
            Failure::new(format!("container {name}: {e}"))
                .hint("stop what uses the port, or publish another one")
                .about(service, &["ports", &index.to_string()])
        })
    };
    ports.iter().enumerate().map(one).collect()
}

/// One for each address of the host, and one for each address family in which the container answers itself.
fn published(held: &Reserved, port: &Port, reach: Reach) -> Vec<Published> {
    let published = |ip: IpAddr, host_port: u16| Published {
        host_ip: ip.to_string(),
        host_port,
        target: port.target,
        protocol: held.protocol.to_string(),
    };
    let asked: Option<IpAddr> = port.host_ip.as_ref().and_then(|ip| ip.parse().ok());
    let opens = |own: &IpAddr| {
        !reach.includes(own) && asked.is_none_or(|ip| ip.is_ipv4() == own.is_ipv4() && !ip.is_loopback())
    };
    let opened = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()].into_iter().filter(opens);
    let hosts = held.addresses.iter().map(|ip| published(*ip, held.port));
    hosts.chain(opened.map(|ip| published(ip, 0))).collect()
}
