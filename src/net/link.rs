//! Requests about links, addresses and routes, and what the kernel tells of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::netlink::{
    ACK, Attributes, Batch, CREATE, Channel, DUMP, EXCL, REPLACE, Reply, attributes, text, u16_at, u32_at,
};
use super::ruleset::address;

const UP: u32 = 1;
/// Address families in the widths that headers and attributes want.
const INET: u8 = 2;
const INET6: u8 = 10;
const BR_FORWARD_DELAY: u16 = 1;
const BR_STP_STATE: u16 = 5;
const BRPORT_HAIRPIN: u16 = 4;
const BRPORT_ISOLATED: u16 = 33;
const VETH_PEER: u16 = 1;
const NO_DUPLICATE_CHECK: u8 = 2;
const INET_CONF: u16 = 1;
const INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_NONE: u8 = 1;
const DEVCONF_FORWARDING: u16 = 1;
const DEVCONF_ROUTE_LOCALNET: u16 = 26;

/// A link of the namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: String,
    pub(super) kind: String,
    pub(super) mtu: u32,
    pub(super) up: bool,
    /// Index of the bridge that it is a port of, 0 if of none.
    pub(super) master: u32,
}

/// A range that an address or a route makes reachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) cidr: IpNet,
    /// Index of the interface.
    pub(super) index: u32,
    /// Metric of a route; 0 for addresses.
    pub(super) metric: u32,
}

/// All links.
pub(super) fn links(channel: &Channel) -> Result<Vec<Link>, Error> {
    let mut batch = Batch::default();
    batch.add("list the links", libc::RTM_GETLINK, DUMP, &link_header(0, 0), |_| {});
    Ok(channel.dump(&batch)?.iter().filter(|reply| reply.kind == libc::RTM_NEWLINK).map(read_link).collect())
}

/// A link by name.
pub(super) fn find(channel: &Channel, name: &str) -> Result<Link, Error> {
    let mut batch = Batch::default();
    batch.add(format!("find the network interface {name}"), libc::RTM_GETLINK, ACK, &link_header(0, 0), |message| {
        message.put_str(libc::IFLA_IFNAME, name);
    });
    let replies = channel.dump(&batch)?;
    Ok(replies.first().map(read_link).unwrap_or_default())
}

/// Ranges of the interfaces' addresses.
pub(super) fn addresses(channel: &Channel) -> Result<Vec<Reach>, Error> {
    let mut batch = Batch::default();
    batch.add("list the addresses", libc::RTM_GETADDR, DUMP, &[0; 8], |_| {});
    Ok(channel.dump(&batch)?.iter().filter(|reply| reply.kind == libc::RTM_NEWADDR).filter_map(read_address).collect())
}

/// Unicast routes of the main table.
pub(super) fn routes(channel: &Channel) -> Result<Vec<Reach>, Error> {
    let mut batch = Batch::default();
    batch.add("list the routes", libc::RTM_GETROUTE, DUMP, &[0; 12], |_| {});
    Ok(channel.dump(&batch)?.iter().filter(|reply| reply.kind == libc::RTM_NEWROUTE).filter_map(read_route).collect())
}

/// A bridge with a hardware address of its own. Without, it takes that of a member, another one whenever members come and
/// go, and the gateway can't be reached by those who know it by the earlier one.
pub(super) fn make_bridge(batch: &mut Batch, name: &str, mtu: u32) {
    batch.add(
        format!("make the bridge {name}"),
        libc::RTM_NEWLINK,
        ACK | CREATE | EXCL,
        &link_header(0, 0),
        |message| {
            let own = message.put_str(libc::IFLA_IFNAME, name).put_u32(libc::IFLA_MTU, mtu);
            own.put(libc::IFLA_ADDRESS, &bridge_mac(name)).nest(libc::IFLA_LINKINFO, |info| {
                info.put(libc::IFLA_INFO_KIND, b"bridge").nest(libc::IFLA_INFO_DATA, |data| {
                    data.put_u32(BR_FORWARD_DELAY, 0).put_u32(BR_STP_STATE, 0);
                });
            });
        },
    );
}

/// The same for the same name: locally administered, one host's, and none that a container has.
fn bridge_mac(name: &str) -> [u8; 6] {
    let digest = Sha256::digest(name);
    [0x06, digest[0], digest[1], digest[2], digest[3], digest[4]]
}

/// Bridge up, with its alias, forwarding, and packets from 127.0.0.1 allowed out (published ports on loopback). Where
/// `link_local` is false it gets no automatic IPv6 address.
pub(super) fn set_bridge(batch: &mut Batch, index: u32, name: &str, alias: &str, mtu: u32, link_local: bool) {
    let header = link_header(index, UP);
    batch.add(format!("set up the bridge {name}"), libc::RTM_NEWLINK, ACK, &header, |message| {
        message.put(libc::IFLA_IFALIAS, alias.as_bytes()).put_u32(libc::IFLA_MTU, mtu);
        message.nest(libc::IFLA_AF_SPEC, |spec| {
            spec.nest(INET.into(), |inet| {
                inet.nest(INET_CONF, |conf| {
                    conf.put_u32(DEVCONF_FORWARDING, 1).put_u32(DEVCONF_ROUTE_LOCALNET, 1);
                });
            });
            if !link_local {
                no_link_local(spec);
            }
        });
    });
}

pub(super) fn raise(batch: &mut Batch, index: u32, name: &str) {
    batch.add(format!("bring {name} up"), libc::RTM_NEWLINK, ACK, &link_header(index, UP), |_| {});
}

/// Removes links. One that isn't there is fine: a namespace that dies takes its links along.
pub(super) fn remove_links<'a>(channel: &Channel, names: impl IntoIterator<Item = &'a String>) -> Result<(), Error> {
    for name in names {
        let mut batch = Batch::default();
        batch.add(format!("remove the link {name}"), libc::RTM_DELLINK, ACK, &link_header(0, 0), |message| {
            message.put_str(libc::IFLA_IFNAME, name);
        });
        match channel.execute(&batch) {
            Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {}
            other => other?,
        }
    }
    Ok(())
}

/// A pair of links: `host` up at the bridge of index `master`, its peer in the namespace of descriptor `netns`.
pub(super) fn make_veth(batch: &mut Batch, veth: &Veth<'_>) {
    batch.add(
        format!("make the link {} to {} inside the container", veth.host, veth.inside),
        libc::RTM_NEWLINK,
        ACK | CREATE | EXCL,
        &link_header(0, UP),
        |message| {
            message
                .put_str(libc::IFLA_IFNAME, veth.host)
                .put_u32(libc::IFLA_MASTER, veth.master)
                .put_u32(libc::IFLA_MTU, veth.mtu)
                .nest(libc::IFLA_LINKINFO, |info| {
                    info.put(libc::IFLA_INFO_KIND, b"veth").nest(libc::IFLA_INFO_DATA, |data| {
                        data.nest(VETH_PEER, |peer| {
                            peer.raw(&link_header(0, 0))
                                .put_str(libc::IFLA_IFNAME, veth.inside)
                                .put(libc::IFLA_ADDRESS, &veth.mac)
                                .put_u32(libc::IFLA_MTU, veth.mtu)
                                .put_u32(libc::IFLA_NET_NS_FD, veth.netns);
                        });
                    });
                });
        },
    );
}

/// Makes a link a port of the bridge of index `master`.
pub(super) fn set_master(batch: &mut Batch, name: &str, master: u32) {
    batch.add(format!("connect {name} to its bridge"), libc::RTM_NEWLINK, ACK, &link_header(0, UP), |message| {
        message.put_str(libc::IFLA_IFNAME, name).put_u32(libc::IFLA_MASTER, master);
    });
}

/// Sets up a port of a bridge: apart from other isolated ports, and whether frames may go back out where they came in.
pub(super) fn set_port(batch: &mut Batch, name: &str, isolated: bool, hairpin: bool) {
    batch.add(format!("set up the bridge port {name}"), libc::RTM_NEWLINK, ACK, &link_header(0, 0), |message| {
        message.put_str(libc::IFLA_IFNAME, name).nest(libc::IFLA_LINKINFO, |info| {
            info.put(libc::IFLA_INFO_SLAVE_KIND, b"bridge").nest(libc::IFLA_INFO_SLAVE_DATA, |data| {
                data.put(BRPORT_HAIRPIN, &[hairpin.into()]).put(BRPORT_ISOLATED, &[isolated.into()]);
            });
        });
    });
}

/// What [`make_veth`] makes.
#[derive(Debug)]
pub(super) struct Veth<'a> {
    pub(super) host: &'a str,
    pub(super) inside: &'a str,
    pub(super) master: u32,
    pub(super) mtu: u32,
    pub(super) mac: [u8; 6],
    pub(super) netns: u32,
}

/// Switches the automatic link-local address of IPv6 off.
pub(super) fn without_link_local(batch: &mut Batch, index: u32, name: &str) {
    batch.add(format!("set up {name}"), libc::RTM_NEWLINK, ACK, &link_header(index, 0), |message| {
        message.nest(libc::IFLA_AF_SPEC, no_link_local);
    });
}

fn no_link_local(spec: &mut Attributes) {
    spec.nest(INET6.into(), |inet6| {
        inet6.put(INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE]);
    });
}

/// Gives an interface an address. IPv6 addresses are usable at once: leases make duplicates impossible.
pub(super) fn add_address(batch: &mut Batch, index: u32, address: IpNet) {
    let (family, bytes) = wire(address.addr());
    let flags = if address.addr().is_ipv6() { NO_DUPLICATE_CHECK } else { 0 };
    let mut header = vec![family, address.prefix_len(), flags, libc::RT_SCOPE_UNIVERSE];
    header.extend_from_slice(&index.to_ne_bytes());
    batch.add(format!("add the address {address}"), libc::RTM_NEWADDR, ACK | CREATE | REPLACE, &header, |message| {
        message.put(libc::IFA_LOCAL, &bytes).put(libc::IFA_ADDRESS, &bytes);
        if let IpNet::V4(net) = address {
            message.put(libc::IFA_BROADCAST, &net.broadcast().octets());
        }
    });
}

/// A default route through `gateway`.
pub(super) fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let (family, bytes) = wire(gateway);
    let mut header = vec![family, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, libc::RT_SCOPE_UNIVERSE];
    header.push(libc::RTN_UNICAST);
    header.extend_from_slice(&[0; 4]);
    batch.add(
        format!("add the default route via {gateway}"),
        libc::RTM_NEWROUTE,
        ACK | CREATE | REPLACE,
        &header,
        |m| {
            m.put(libc::RTA_GATEWAY, &bytes).put_u32(libc::RTA_OIF, index);
        },
    );
}

fn wire(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (INET, v4.octets().to_vec()),
        IpAddr::V6(v6) => (INET6, v6.octets().to_vec()),
    }
}

/// `struct ifinfomsg` of any family.
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn read_link(reply: &Reply) -> Link {
    let up = u32_at(&reply.payload, 8) & UP != 0;
    let mut link = Link { index: u32_at(&reply.payload, 4), up, ..Link::default() };
    for (kind, value) in attributes(reply.payload.get(16..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_IFALIAS => link.alias = text(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0),
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    link
}

fn read_address(reply: &Reply) -> Option<Reach> {
    let prefix = *reply.payload.get(1)?;
    let (_, value) = attributes(reply.payload.get(8..)?).find(|(kind, _)| *kind == libc::IFA_ADDRESS)?;
    let cidr = IpNet::new(address(value)?, prefix).ok()?.trunc();
    Some(Reach { cidr, index: u32_at(&reply.payload, 4), metric: 0 })
}

fn read_route(reply: &Reply) -> Option<Reach> {
    let header = reply.payload.get(..12)?;
    if header[4] != libc::RT_TABLE_MAIN || header[7] != libc::RTN_UNICAST {
        return None;
    }
    let any: IpAddr = match header[0] {
        INET => Ipv4Addr::UNSPECIFIED.into(),
        INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut destination, mut index, mut metric) = (any, 0, 0);
    for (kind, value) in attributes(reply.payload.get(12..)?) {
        match kind {
            libc::RTA_DST => destination = address(value)?,
            libc::RTA_OIF => index = u32_at(value, 0),
            libc::RTA_PRIORITY => metric = u32_at(value, 0),
            // A route over several interfaces: `struct rtnexthop` has the index of the first at offset 4.
            libc::RTA_MULTIPATH if u16_at(value, 0) >= 8 => index = u32_at(value, 4),
            _ => {}
        }
    }
    Some(Reach { cidr: IpNet::new(destination, header[1]).ok()?, index, metric })
}
