//! The namespace in which bridges and firewall tables live.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use ipnet::IpNet;

use super::attach::{Attached, Endpoint};
use super::bridge::Bridge;
use super::error::Error;
use super::firewall::Firewall;

/// A network namespace in the role of the host: bridges, firewall tables and published ports live there.
#[derive(Debug, Clone)]
pub struct Host {
    /// `None`: the namespace of the calling thread.
    netns: Option<Arc<OwnedFd>>,
}

/// A range of addresses that the host uses already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// The range.
    pub cidr: IpNet,
    /// Interface that it belongs to.
    pub interface: String,
}

impl Host {
    /// The namespace of the calling thread, whatever that is at each call.
    pub fn current() -> Self {
        Self { netns: None }
    }

    /// The namespace behind a descriptor (rootless: the one that the stacks share).
    pub fn of(netns: OwnedFd) -> Self {
        Self { netns: Some(Arc::new(netns)) }
    }

    /// Makes a bridge and its firewall rules, or repairs what is there: addresses, state, alias, forwarding.
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        Err(unwritten(&bridge.name))
    }

    /// Removes a bridge and its firewall rules; a missing one is no error. Waits some 36 ms for the kernel, so do it last.
    pub fn remove_bridge(&self, name: &str) -> Result<(), Error> {
        Err(unwritten(name))
    }

    /// Names and aliases of the bridges that `stack` made, of all stacks.
    pub fn bridges(&self) -> Result<Vec<(String, String)>, Error> {
        Err(unwritten("bridges"))
    }

    /// Gives the namespace `netns` its interfaces: loopback up, a veth pair per endpoint, addresses, routes; with `dns`
    /// also the resolver's sockets and the redirection of 127.0.0.11:53 to them. An endpoint that exists is made anew.
    pub fn attach(&self, netns: BorrowedFd<'_>, endpoints: &[Endpoint], dns: bool) -> Result<Attached, Error> {
        let _ = (netns, dns);
        Err(unwritten(&format!("{endpoints:?}")))
    }

    /// Forgets what the firewall knows of attachments, by [`Endpoint::host_ifname`]. The interfaces themselves go with
    /// their namespace; deleting them would wait 16 ms each.
    pub fn detach(&self, host_ifnames: &[String]) -> Result<(), Error> {
        Err(unwritten(&format!("{host_ifnames:?}")))
    }

    /// Ranges of addresses that interfaces and routes of the host use (default routes aside).
    pub fn busy(&self) -> Result<Vec<Busy>, Error> {
        Err(unwritten("routes"))
    }

    /// The host's firewall tables.
    pub fn firewall(&self) -> Firewall {
        Firewall::new(self.clone())
    }

    /// Runs `f` in the host's namespace.
    pub(super) fn run<T: Send>(&self, f: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        use std::os::fd::AsFd as _;
        match &self.netns {
            None => f(),
            Some(netns) => crate::sys::netns::with_netns(netns.as_fd(), f)
                .map_err(Error::system("enter the host's network namespace"))?,
        }
    }
}

fn unwritten(what: &str) -> Error {
    Error::system(format!("handle {what}"))(std::io::ErrorKind::Unsupported.into())
}
