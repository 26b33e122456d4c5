//! Published ports: found free before anything starts, held, and led to containers.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::control::Failure;
use super::state::{Published, Record};
use super::supervisor::{Supervisor, blocking};
use crate::net::publish::{self, Request, Reserved};
use crate::net::{Host, PortMapping, Protocol};
use crate::spec::model::Port;

impl Supervisor {
    pub(crate) async fn publish_ports(self: &Rc<Self>, record: &Record) -> Result<Vec<Published>, Failure> {
        if record.config.ports.is_empty() || record.endpoints.is_empty() {
            return Ok(Vec::new());
        }
        let mut reserved = self.reserved.borrow_mut().remove(&record.name).unwrap_or_default();
        let addresses = super::hosts::addresses(record);
        let (host, service, name) = (self.host.clone(), record.config.ports.clone(), record.name.clone());
        let asked_by = record.service.clone();
        let _change = self.network.read().await;
        let (published, guards) = blocking(move || -> Result<_, Failure> {
            if reserved.is_empty() {
                reserved = reserve(&host, &name, &asked_by, &service)?;
            }
            let published: Vec<Published> =
                reserved.iter().zip(&service).map(|(held, port)| published(held, port)).collect();
            let mappings = mappings(&published, &addresses);
            host.firewall().publish(&mappings).map_err(|e| Failure::new(format!("container {name}: {e}")))?;
            Ok((published, reserved.into_iter().flat_map(|held| held.guards).collect::<Vec<_>>()))
        })
        .await??;
        // The shim holds the guards, so that no program takes the port while a supervisor restarts.
        self.keep(&ports_key(&record.id), guards).await?;
        Ok(published)
    }

    /// Finds every port that the project's new containers publish, before anything starts. Ports of containers that
    /// run already are theirs to give.
    pub(crate) async fn reserve_ports(&self, wanted: Vec<(String, String, Vec<Port>)>) -> Result<(), Failure> {
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
            .filter(|(_, _, ports)| {
                !ports.is_empty() && !ports.iter().any(|port| is_ours(port) || port.published.is_none())
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let host = self.host.clone();
        let held = blocking(move || {
            let hold = |(name, service, ports): (String, String, Vec<Port>)| {
                reserve(&host, &name, &service, &ports).map(|held| (name, held))
            };
            wanted.into_iter().map(hold).collect::<Result<Vec<_>, _>>()
        });
        let held = held.await??;
        self.reserved.borrow_mut().extend(held);
        Ok(())
    }
}

/// Where the shim keeps what holds a container's host ports.
pub(crate) fn ports_key(id: &str) -> String {
    format!("ports/{id}")
}

/// The firewall's mappings of published ports.
pub(crate) fn mappings(published: &[Published], addresses: &[IpAddr]) -> Vec<PortMapping> {
    let mapping = |port: &Published| {
        let host_ip: Option<IpAddr> = port.host_ip.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified());
        let container_ip = addresses.iter().find(|ip| host_ip.is_none_or(|host| host.is_ipv4() == ip.is_ipv4()));
        Some(PortMapping {
            host_ip,
            host_port: port.host_port,
            protocol: port.protocol.parse::<Protocol>().ok()?,
            container_ip: *container_ip?,
            container_port: port.target,
        })
    };
    published.iter().filter_map(mapping).collect()
}

fn reserve(host: &Host, name: &str, service: &str, ports: &[Port]) -> Result<Vec<Reserved>, Failure> {
    let one = |(index, port): (usize, &Port)| {
        let invalid = |what: &str| Failure::new(format!("container {name}: invalid {what} of port {}", port.target));
        let range = |text: &String| -> Option<RangeInclusive<u16>> {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some(first.parse().ok()?..=last.parse().ok()?)
        };
        let request = Request {
            host_ip: port.host_ip.as_ref().map(|ip| ip.parse().map_err(|_| invalid("host address"))).transpose()?,
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

fn published(held: &Reserved, port: &Port) -> Published {
    Published {
        host_ip: held.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |ip| ip.to_string()),
        host_port: held.port,
        target: port.target,
        protocol: held.protocol.to_string(),
    }
}
