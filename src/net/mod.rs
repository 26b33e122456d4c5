//! Networks: bridges, attachments, addresses, the firewall and published ports, names.
//!
//! Everything goes through netlink sockets; no `ip`, `nft` or `iptables` process is ever started. This layer takes network
//! namespace descriptors and plain values; it knows no containers and no stack files. In the order in which a stack uses it:
//!
//! 1. [`ipam`] chooses subnets and leases addresses, in one locked file shared by all stacks.
//! 2. [`Host::ensure_bridge`] makes a network's bridge, [`Host::firewall`] its rules; both are idempotent and heal.
//! 3. [`publish::reserve`] finds and holds host ports before anything starts.
//! 4. [`Host::attach`] gives a network namespace its interfaces, addresses, routes and the [`DnsSockets`] of its resolver.
//! 5. [`Firewall::publish`] leads host ports to it.
//! 6. [`dns::Server`] answers its questions; [`files`] renders its `/etc/hosts` and `/etc/resolv.conf`.
//! 7. [`Changes`] tells of what others change, and [`Host::heal`] puts back what is missing.
//! 8. [`Host::survey`] tells beforehand what will work.
//! 9. [`Firewall::unpublish`], [`Host::detach`] and, last, [`Host::remove_bridge`] take it all back.
//!
//! All calls block, except those of [`dns`] and [`Changes`].

mod attach;
mod beside;
mod bridge;
mod chains;
mod conntrack;
pub mod dns;
mod error;
pub mod files;
mod firewall;
mod forwarding;
#[cfg(test)]
mod golden;
mod heal;
mod host;
pub mod ipam;
mod link;
mod netlink;
mod nft;
pub mod publish;
mod redirect;
mod ruleset;
mod survey;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;
mod watch;

pub use attach::{Attached, DnsSockets, Endpoint};
pub use bridge::{Bridge, Gateway, Outward, Subnet};
pub use error::Error;
pub use firewall::{Firewall, PortMapping, Protocol};
pub use heal::Wanted;
pub use host::{Busy, Host};
pub use survey::Survey;
pub use watch::Changes;
