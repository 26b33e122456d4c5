//! A container's interfaces: veth pairs, addresses, routes and the sockets of its resolver.

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use ipnet::IpNet;

use super::error::Error;
use super::link::{self, Veth};
use super::netlink::{Batch, Channel};
use super::ruleset::{self, Member};
use super::{bridge, forwarding, redirect};
use crate::sys::netns::with_netns;

/// Index of `lo` in every namespace.
const LOOPBACK: u32 = 1;

/// One attachment of a network namespace to a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the bridge.
    pub bridge: String,
    /// Name inside, such as `eth0`.
    pub ifname: String,
    /// Name of the other end on the host, at most 15 bytes; unique on the host, stable for the attachment.
    pub host_ifname: String,
    /// Addresses inside, each with the prefix length of its subnet.
    pub addresses: Vec<IpNet>,
    /// Gateways of the default routes (at most one per address family); empty on internal networks and on all but the
    /// attachment that leads outside.
    pub gateways: Vec<IpAddr>,
    /// Hardware address inside; `None` derives one from the first address.
    pub mac: Option<[u8; 6]>,
    /// Kernel settings of the interface: names below `net` with `IFNAME` in the place of its own, and their values.
    pub settings: Vec<(String, String)>,
}

/// What [`super::Host::attach`] made.
#[derive(Debug)]
pub struct Attached {
    /// The resolver's sockets, if asked for.
    pub dns: Option<DnsSockets>,
    /// The hardware address of each endpoint, in order.
    pub macs: Vec<[u8; 6]>,
}

/// Sockets inside a container's network namespace that receive what is sent to 127.0.0.11:53.
#[derive(Debug)]
pub struct DnsSockets {
    /// Bound UDP socket.
    pub udp: OwnedFd,
    /// Listening TCP socket.
    pub tcp: OwnedFd,
}

impl Endpoint {
    /// The attachment as the rules against spoofing see it.
    pub(super) fn member(&self, mac: [u8; 6]) -> Member<'_> {
        Member { host_ifname: &self.host_ifname, mac, addresses: &self.addresses }
    }

    /// The hardware address: as asked for, or made from the first IPv4 address, so that it returns with the lease.
    pub(super) fn hardware(&self) -> [u8; 6] {
        self.mac.unwrap_or_else(|| match self.addresses.first().map(IpNet::addr) {
            Some(IpAddr::V4(v4)) => {
                let [a, b, c, d] = v4.octets();
                [0x02, 0x42, a, b, c, d]
            }
            Some(IpAddr::V6(v6)) => {
                let [.., a, b, c, d] = v6.octets();
                [0x02, 0x43, a, b, c, d]
            }
            None => [0x02, 0x44, 0, 0, 0, 1],
        })
    }
}

/// Makes the attachments: host side first, then all of the inside on one thread that has entered the namespace.
pub(super) fn attach(
    firewall: &Channel,
    netns: BorrowedFd<'_>,
    endpoints: &[Endpoint],
    dns: bool,
) -> Result<Attached, Error> {
    let macs: Vec<_> = endpoints.iter().map(Endpoint::hardware).collect();
    if !endpoints.is_empty() {
        connect(netns, endpoints, &macs)?;
        let members: Vec<_> = endpoints.iter().zip(&macs).map(|(endpoint, mac)| endpoint.member(*mac)).collect();
        ruleset::add_members(firewall, &members)?;
    }
    let dns = with_netns(netns, || {
        configure(endpoints)?;
        if dns { redirect::open().map(Some) } else { Ok(None) }
    })
    .map_err(Error::system("enter the container's network namespace"))??;
    Ok(Attached { dns, macs })
}

/// Removes interfaces of a namespace that lives on, and adds the default routes that are missing then.
pub(super) fn unplug(
    firewall: &Channel,
    netns: BorrowedFd<'_>,
    host_ifnames: &[String],
    gateways: &[(String, IpAddr)],
) -> Result<Vec<IpAddr>, Error> {
    let channel = Channel::route()?;
    link::remove_links(&channel, host_ifnames)?;
    let addresses = ruleset::remove_members(firewall, host_ifnames)?;
    let reroute = || {
        let channel = Channel::route()?;
        for (ifname, gateway) in gateways {
            let mut batch = Batch::default();
            link::add_default_route(&mut batch, link::find(&channel, ifname)?.index, *gateway);
            match channel.execute(&batch) {
                Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {}
                other => other?,
            }
        }
        Ok(())
    };
    with_netns(netns, reroute).map_err(Error::system("enter the container's network namespace"))??;
    Ok(addresses)
}

/// Makes all pairs at once. Links that are left over from a namespace about to die, which still holds the other end, are
/// looked for only if that fails.
fn connect(netns: BorrowedFd<'_>, endpoints: &[Endpoint], macs: &[[u8; 6]]) -> Result<(), Error> {
    let channel = Channel::route()?;
    // Where bridges pass packets through the firewall, a container's way to its own published port never leaves the bridge.
    let hairpin = forwarding::bridges_are_filtered();
    let mut batch = Batch::default();
    for (endpoint, mac) in endpoints.iter().zip(macs) {
        let master = link::find(&channel, &endpoint.bridge)?;
        let veth = Veth {
            host: &endpoint.host_ifname,
            inside: &endpoint.ifname,
            master: master.index,
            mtu: master.mtu,
            mac: *mac,
            netns: u32::try_from(netns.as_raw_fd()).unwrap_or_default(),
        };
        link::make_veth(&mut batch, &veth);
        let isolated = bridge::keeps_apart(&master);
        if isolated || hairpin {
            link::set_port(&mut batch, &endpoint.host_ifname, isolated, hairpin);
        }
    }
    match channel.execute(&batch) {
        Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::EEXIST) => {}
        other => return other,
    }
    link::remove_links(&channel, endpoints.iter().map(|endpoint| &endpoint.host_ifname))?;
    channel.execute(&batch)
}

fn configure(endpoints: &[Endpoint]) -> Result<(), Error> {
    let channel = Channel::route()?;
    let mut batch = Batch::default();
    link::raise(&mut batch, LOOPBACK, "lo");
    for endpoint in endpoints {
        let index = link::find(&channel, &endpoint.ifname)?.index;
        let ipv6 = endpoint.addresses.iter().any(|address| matches!(address, IpNet::V6(_)));
        if !ipv6 && forwarding::has_ipv6() {
            link::without_link_local(&mut batch, index, &endpoint.ifname);
        }
        link::raise(&mut batch, index, &endpoint.ifname);
        for address in &endpoint.addresses {
            link::add_address(&mut batch, index, *address);
        }
        for gateway in &endpoint.gateways {
            link::add_default_route(&mut batch, index, *gateway);
        }
    }
    channel.execute(&batch)?;
    endpoints.iter().try_for_each(|endpoint| forwarding::set(&endpoint.ifname, &endpoint.settings))
}
