//! The namespace in which bridges and firewall tables live.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

use super::attach::{self, Attached, Endpoint};
use super::bridge::{self, Bridge};
use super::conntrack::Stale;
use super::error::Error;
use super::firewall::Firewall;
use super::heal::{self, Wanted};
use super::netlink::Channel;
use super::{beside, conntrack, link, ruleset};
use crate::sys::netns::with_netns;

/// A network namespace in the role of the host: bridges, firewall tables and published ports live there.
#[derive(Debug, Clone)]
pub struct Host {
    /// `None`: the namespace of the calling threads.
    netns: Option<Arc<OwnedFd>>,
    firewall: Arc<Mutex<Option<Channel>>>,
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
    /// The namespace of the calling threads, which must be one and the same.
    pub fn current() -> Self {
        Self { netns: None, firewall: Arc::default() }
    }

    /// The namespace behind a descriptor (rootless: the one that the stacks share).
    pub fn of(netns: OwnedFd) -> Self {
        Self { netns: Some(Arc::new(netns)), firewall: Arc::default() }
    }

    /// Makes a bridge and its firewall rules, or repairs what is there: addresses, state, alias, forwarding.
    pub fn ensure_bridge(&self, bridge: &Bridge) -> Result<(), Error> {
        self.with_firewall(|firewall| bridge::ensure(firewall, bridge))
    }

    /// Removes a bridge and its firewall rules; a missing one is no error. Waits some 36 ms for the kernel, so do it last.
    pub fn remove_bridge(&self, name: &str) -> Result<(), Error> {
        // Several may wait at once.
        let removed = self.run(|| bridge::remove(name));
        if matches!(removed, Ok(()) | Err(Error::ForeignDevice { .. })) {
            self.with_firewall(|firewall| bridge::forget(firewall, name))?;
        }
        removed
    }

    /// Puts back what others took away of what a stack has here, and says what that was; nothing, if nothing was missing.
    pub fn heal(&self, wanted: &Wanted) -> Result<Vec<String>, Error> {
        self.with_firewall(|firewall| heal::heal(firewall, wanted))
    }

    /// Chains of other firewalls that drop what the bridge forwards, and cannot be told to let it pass.
    pub fn obstacles(&self, bridge: &str) -> Result<Vec<String>, Error> {
        self.with_firewall(|firewall| beside::obstacles(firewall, bridge))
    }

    /// Names and aliases of the bridges that `stack` made, of all stacks.
    pub fn bridges(&self) -> Result<Vec<(String, String)>, Error> {
        self.run(bridge::list)
    }

    /// Gives the namespace `netns` its interfaces: loopback up, a veth pair per endpoint, addresses, routes; with `dns`
    /// also the resolver's sockets and the redirection of 127.0.0.11:53 to them. An endpoint that exists is made anew.
    pub fn attach(&self, netns: BorrowedFd<'_>, endpoints: &[Endpoint], dns: bool) -> Result<Attached, Error> {
        self.with_firewall(|firewall| attach::attach(firewall, netns, endpoints, dns))
    }

    /// Takes attachments, by [`Endpoint::host_ifname`], out of the firewall; returns the addresses they had, for
    /// [`Host::forget_connections`]. The interfaces themselves go with their namespace; deleting them would wait 16 ms
    /// each.
    pub fn detach(&self, host_ifnames: &[String]) -> Result<Vec<IpAddr>, Error> {
        self.with_firewall(|firewall| ruleset::remove_members(firewall, host_ifnames))
    }

    /// Takes attachments away from a namespace that lives on; those default routes that went with them lead through other
    /// interfaces, by name, from now on. Returns the addresses that they had.
    pub fn unplug(
        &self,
        netns: BorrowedFd<'_>,
        host_ifnames: &[String],
        gateways: &[(String, IpAddr)],
    ) -> Result<Vec<IpAddr>, Error> {
        self.with_firewall(|firewall| attach::unplug(firewall, netns, host_ifnames, gateways))
    }

    /// Forgets the tracked connections of addresses, before somebody else has them. Takes some 9 ms where connections
    /// are tracked: the kernel looks through its whole table.
    pub fn forget_connections(&self, addresses: Vec<IpAddr>) -> Result<(), Error> {
        self.with_firewall(|firewall| conntrack::forget(firewall, &Stale { addresses, ..Stale::default() }))
    }

    /// Ranges of addresses that interfaces and routes of the host use (default routes aside).
    pub fn busy(&self) -> Result<Vec<Busy>, Error> {
        self.run(|| {
            let channel = Channel::route()?;
            let links = link::links(&channel)?;
            let reaches = link::addresses(&channel)?.into_iter().chain(link::routes(&channel)?);
            let narrow = reaches.filter(|reach| reach.cidr.prefix_len() > 0);
            let name = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
            Ok(narrow
                .map(|reach| Busy { cidr: reach.cidr, interface: name(reach.index).unwrap_or_default() })
                .collect())
        })
    }

    /// The host's firewall tables.
    pub fn firewall(&self) -> Firewall {
        Firewall::new(self.clone())
    }

    /// Runs `f` in the host's namespace with the socket to its firewall. The socket stays open: closing one waits for a
    /// grace period of the kernel (some 10 ms) when anything was removed lately. After a failure the next call opens anew.
    pub(super) fn with_firewall<T: Send>(
        &self,
        f: impl FnOnce(&Channel) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.run(|| {
            let mut slot = self.firewall.lock().unwrap_or_else(PoisonError::into_inner);
            let channel = slot.take().map_or_else(Channel::netfilter, Ok)?;
            let result = f(&channel)?;
            *slot = Some(channel);
            Ok(result)
        })
    }

    /// Runs `f` in the host's namespace.
    pub(super) fn run<T: Send>(&self, f: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        match &self.netns {
            None => f(),
            Some(netns) => with_netns(netns.as_fd(), f).map_err(Error::system("enter the host's network namespace"))?,
        }
    }
}
