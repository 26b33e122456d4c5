//! Rules for bridges and published ports, in two tables of our own that all stacks share.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::host::Host;

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
    /// Port on the host.
    pub host_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address of the container.
    pub container_ip: IpAddr,
    /// Port in the container.
    pub container_port: u16,
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

    /// Leads host ports to containers; what is there already is replaced. One transaction.
    pub fn publish(&self, mappings: &[PortMapping]) -> Result<(), Error> {
        self.host.run(|| Err(Error::system(format!("publish {mappings:?}"))(std::io::ErrorKind::Unsupported.into())))
    }

    /// Takes host ports back; missing ones are no error. One transaction.
    pub fn unpublish(&self, mappings: &[PortMapping]) -> Result<(), Error> {
        self.host.run(|| Err(Error::system(format!("unpublish {mappings:?}"))(std::io::ErrorKind::Unsupported.into())))
    }

    /// Lets a container (by its addresses) reach services of the host: it asked with `host-gateway`.
    pub fn allow_host(&self, addresses: &[IpAddr], allowed: bool) -> Result<(), Error> {
        self.host.run(|| {
            Err(Error::system(format!("allow {addresses:?} {allowed}"))(std::io::ErrorKind::Unsupported.into()))
        })
    }
}
