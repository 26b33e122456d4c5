//! Rules for bridges and published ports, in two tables of our own that all stacks share.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::conntrack::{self, Stale};
use super::error::Error;
use super::host::Host;
use super::nft::{Element, Set};
use super::ruleset::{self, octets};

/// A transport protocol that can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            other => Err(format!("unknown protocol `{other}`; one of tcp, udp, sctp")),
        }
    }
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// Host address that answers; `None` = every address of the container address's family.
    pub host_ip: Option<IpAddr>,
    /// Port on the host; 0: the container answers at its own address, on a network that is [`super::Gateway::Routed`].
    pub host_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address of the container.
    pub container_ip: IpAddr,
    /// Port in the container.
    pub container_port: u16,
}

impl PortMapping {
    /// What must be in the tables; none if the families differ.
    pub(super) fn expected(&self) -> Option<ruleset::Expected> {
        self.is_of_one_family().then(|| {
            let (set, element) = self.element();
            (ruleset::INET, set, element)
        })
    }

    fn is_of_one_family(&self) -> bool {
        self.host_ip.is_none_or(|host| host.is_ipv4() == self.container_ip.is_ipv4())
    }

    /// The map that the mapping belongs to, and its element there.
    fn element(&self) -> (Set, Element) {
        let mut key = vec![self.protocol.number(), 0, 0, 0];
        if self.host_port == 0 {
            key.extend(octets(self.container_ip));
            key.extend_from_slice(&padded(self.container_port));
            let set = if self.container_ip.is_ipv4() { ruleset::OPENED_4 } else { ruleset::OPENED_6 };
            return (set, Element::member(key));
        }
        let set = match (self.host_ip, self.container_ip) {
            (None, IpAddr::V4(_)) => ruleset::EVERYWHERE_4,
            (None, IpAddr::V6(_)) => ruleset::EVERYWHERE_6,
            (Some(IpAddr::V4(host)), _) => {
                key.extend_from_slice(&host.octets());
                ruleset::PUBLISHED_4
            }
            (Some(IpAddr::V6(host)), _) => {
                key.extend_from_slice(&host.octets());
                ruleset::PUBLISHED_6
            }
        };
        key.extend_from_slice(&padded(self.host_port));
        let mut data = octets(self.container_ip);
        data.extend_from_slice(&padded(self.container_port));
        (set, Element { key, data })
    }
}

/// The firewall of a [`Host`].
#[derive(Debug, Clone)]
pub struct Firewall {
    host: Host,
}

impl Firewall {
    pub(super) fn new(host: Host) -> Self {
        Self { host }
    }

    /// Leads host ports to containers; what is there already is replaced. One transaction. The host address and the
    /// container's must be of one family: other mappings are skipped, they need a proxy.
    pub fn publish(&self, mappings: &[PortMapping]) -> Result<(), Error> {
        self.change(mappings, true)
    }

    /// Takes host ports back; missing ones are no error. One transaction.
    pub fn unpublish(&self, mappings: &[PortMapping]) -> Result<(), Error> {
        self.change(mappings, false)
    }

    fn change(&self, mappings: &[PortMapping], publish: bool) -> Result<(), Error> {
        let mut by_set: BTreeMap<&str, (Set, Vec<Element>)> = BTreeMap::new();
        for mapping in mappings {
            if mapping.is_of_one_family() {
                let (set, element) = mapping.element();
                by_set.entry(set.name).or_insert_with(|| (set, Vec::new())).1.push(element);
            }
        }
        let changes: Vec<_> = by_set.into_values().collect();
        let datagrams = mappings.iter().filter(|mapping| mapping.protocol == Protocol::Udp);
        let ports = datagrams.map(|mapping| (mapping.protocol.number(), mapping.host_port)).collect();
        self.host.with_firewall(|channel| {
            let change = if publish { ruleset::map_ports } else { ruleset::unmap_ports };
            change(channel, &changes)?;
            conntrack::forget(channel, &Stale { ports, ..Stale::default() })
        })
    }

    /// Lets containers (by their addresses) reach services of the host: they asked with `host-gateway`.
    pub fn allow_host(&self, addresses: &[IpAddr], allowed: bool) -> Result<(), Error> {
        self.host.with_firewall(|channel| ruleset::allow_host(channel, addresses, allowed))
    }
}

/// A port as a part of a concatenation.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
