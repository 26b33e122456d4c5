//! Host ports: found free before anything starts, and held against other programs.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use super::error::Error;
use super::firewall::Protocol;
use super::host::Host;

/// A wish for one host port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Host address; `None` = all.
    pub host_ip: Option<IpAddr>,
    /// Ports of which any free one will do; `None` = any of the ephemeral range.
    pub ports: Option<RangeInclusive<u16>>,
    /// Protocol.
    pub protocol: Protocol,
}

/// A host port that is ours as long as the guards stay open.
#[derive(Debug)]
pub struct Reserved {
    /// Host address; `None` = all.
    pub host_ip: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Bound sockets that keep other programs off the port. They receive nothing: the firewall redirects before.
    pub guards: Vec<OwnedFd>,
}

/// Who has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A published port of another stack.
    Stack {
        /// Its project name.
        project: String,
    },
    /// Any other program.
    Process {
        /// Process id.
        pid: i32,
        /// Command name.
        comm: String,
    },
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stack { project } => write!(f, "stack `{project}`"),
            Self::Process { pid, comm } => write!(f, "process {pid} ({comm})"),
        }
    }
}

/// Finds a free port and holds it, or says who has it.
pub fn reserve(host: &Host, request: &Request) -> Result<Reserved, Error> {
    host.run(|| Err(Error::system(format!("reserve {request:?}"))(std::io::ErrorKind::Unsupported.into())))
}
