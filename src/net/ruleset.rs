//! The two tables that all stacks share, and how networks and attachments enter them.
//!
//! `inet stack` keeps networks apart, publishes ports and translates addresses; `bridge stack` keeps the members of a
//! bridge from pretending to be each other. The rules are the same whatever runs; networks, ports and attachments are
//! elements of sets and maps, so that the cost per packet does not grow with their number. Making a network writes rules
//! that are missing, or another version's, in the same transaction. The chain `stack-user` comes first in forwarding, is
//! for the administrator, and never emptied.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fs_err::File;
use ipnet::IpNet;
use nix::fcntl::{Flock, FlockArg};

use super::bridge::{Bridge, Gateway};
use super::chains::{self, V4, V6};
use super::error::Error;
use super::netlink::Channel;
use super::nft::{Element, Family, Set, Table, Transaction, elements, ifname, rules};

pub(super) const INET: Table = Table { family: Family::Inet, name: "stack" };
pub(super) const BRIDGE: Table = Table { family: Family::Bridge, name: "stack" };

/// nftables' numbers of types, with their lengths.
const NFPROTO: (u32, u32) = (2, 1);
const IPV4: (u32, u32) = (7, 4);
const IPV6: (u32, u32) = (8, 16);
const ETHER: (u32, u32) = (9, 6);
const PROTOCOL: (u32, u32) = (12, 1);
const SERVICE: (u32, u32) = (13, 2);
const IFNAME: (u32, u32) = (41, 16);

const fn set(name: &'static str, key: &'static [(u32, u32)]) -> Set {
    Set { name, key, data: &[] }
}

/// Bridges of all stacks.
pub(super) const BRIDGES: Set = set("bridges", &[IFNAME]);
/// Those without a way out.
pub(super) const INTERNAL: Set = set("internal", &[IFNAME]);
/// Those whose traffic leaves with the host's address, by address family as all that follows.
pub(super) const MASQUERADED: Set = set("masquerading", &[NFPROTO, IFNAME]);
/// Those whose traffic leaves with an address of the host that they chose.
pub(super) const SOURCES_4: Set = Set { name: "sources-4", key: &[IFNAME], data: &[IPV4] };
/// The same for IPv6.
pub(super) const SOURCES_6: Set = Set { name: "sources-6", key: &[IFNAME], data: &[IPV6] };
/// Those whose containers are open to other machines.
pub(super) const UNPROTECTED: Set = set("unprotected", &[NFPROTO, IFNAME]);
/// Those whose containers answer at their own addresses.
pub(super) const ROUTED: Set = set("routed", &[NFPROTO, IFNAME]);
/// Interfaces of the host through which a bridge's containers are reached directly, each with the bridge.
pub(super) const TRUSTED: Set = set("trusted", &[IFNAME, IFNAME]);
/// Ports that containers publish at their own addresses.
pub(super) const OPENED_4: Set = set("opened-4", &[PROTOCOL, IPV4, SERVICE]);
/// The same for IPv6.
pub(super) const OPENED_6: Set = set("opened-6", &[PROTOCOL, IPV6, SERVICE]);
/// Each bridge with itself: packets that come back to where they came from.
pub(super) const HAIRPIN: Set = set("hairpin", &[IFNAME, IFNAME]);
/// Each container's address with itself, for the same purpose where a bridge passes packets through the rules on its own
/// (`bridge-nf-call-iptables`) and they never come in at an interface.
pub(super) const LOOPED_4: Set = set("looped-4", &[IPV4, IPV4]);
/// The same for IPv6.
pub(super) const LOOPED_6: Set = set("looped-6", &[IPV6, IPV6]);
/// Interfaces that forward on our account alone.
pub(super) const UPLINKS: Set = set("uplinks", &[IFNAME]);
/// Bridges of others that lead nowhere but to their members, such as Docker's.
pub(super) const NEIGHBOURS: Set = set("neighbours", &[IFNAME]);
/// Containers that asked for the host.
pub(super) const HOST_USERS_4: Set = set("host-users-4", &[IPV4]);
/// Containers that asked for the host.
pub(super) const HOST_USERS_6: Set = set("host-users-6", &[IPV6]);

/// Ports published on one address.
pub(super) const PUBLISHED_4: Set =
    Set { name: "published-4", key: &[PROTOCOL, IPV4, SERVICE], data: &[IPV4, SERVICE] };
/// Ports published on one address.
pub(super) const PUBLISHED_6: Set =
    Set { name: "published-6", key: &[PROTOCOL, IPV6, SERVICE], data: &[IPV6, SERVICE] };
/// Ports published on every address.
pub(super) const EVERYWHERE_4: Set = Set { name: "everywhere-4", key: &[PROTOCOL, SERVICE], data: &[IPV4, SERVICE] };
/// Ports published on every address.
pub(super) const EVERYWHERE_6: Set = Set { name: "everywhere-6", key: &[PROTOCOL, SERVICE], data: &[IPV6, SERVICE] };

pub(super) const INET_SETS: [Set; 21] = [
    BRIDGES,
    INTERNAL,
    MASQUERADED,
    SOURCES_4,
    SOURCES_6,
    UNPROTECTED,
    ROUTED,
    TRUSTED,
    OPENED_4,
    OPENED_6,
    HAIRPIN,
    LOOPED_4,
    LOOPED_6,
    UPLINKS,
    NEIGHBOURS,
    HOST_USERS_4,
    HOST_USERS_6,
    PUBLISHED_4,
    PUBLISHED_6,
    EVERYWHERE_4,
    EVERYWHERE_6,
];

/// Those whose elements end in the name of a bridge.
const NETWORK_SETS: [Set; 9] =
    [BRIDGES, INTERNAL, MASQUERADED, SOURCES_4, SOURCES_6, UNPROTECTED, ROUTED, TRUSTED, HAIRPIN];

/// Host ends of attachments.
pub(super) const PORTS: Set = set("ports", &[IFNAME]);
/// What may come in at them.
pub(super) const MEMBERS_4: Set = set("members-4", &[IFNAME, ETHER, IPV4]);
/// What may come in at them.
pub(super) const MEMBERS_6: Set = set("members-6", &[IFNAME, ETHER, IPV6]);

pub(super) const BRIDGE_SETS: [Set; 3] = [PORTS, MEMBERS_4, MEMBERS_6];

/// The administrator's chain: never emptied.
pub(super) const USER_CHAIN: &str = "stack-user";

/// What the host's other interfaces are to us, by name.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Interfaces that forward on our account.
    pub(super) uplinks: BTreeSet<String>,
    /// Bridges of others.
    pub(super) neighbours: BTreeSet<String>,
}

impl Surroundings {
    fn sets(&self) -> [(Set, Vec<Element>); 2] {
        let elements = |names: &BTreeSet<String>| names.iter().map(|name| Element::member(ifname(name))).collect();
        [(UPLINKS, elements(&self.uplinks)), (NEIGHBOURS, elements(&self.neighbours))]
    }
}

/// An element that a set must have.
pub(super) type Expected = (Table, Set, Element);

/// What of a network must be in the tables.
pub(super) fn network_elements(bridge: &Bridge) -> Vec<Expected> {
    let own = ifname(&bridge.name);
    let mut elements = vec![(BRIDGES, Element::member(own)), (HAIRPIN, pair(&bridge.name, &bridge.name))];
    if bridge.internal {
        elements.push((INTERNAL, Element::member(own)));
    } else {
        let outward = &bridge.outward;
        elements.extend(outward.trusted.iter().map(|interface| (TRUSTED, pair(interface, &bridge.name))));
        for (family, ipv4, mode) in [(V4, true, outward.ipv4), (V6, false, outward.ipv6)] {
            let element = Element::member([&[family, 0, 0, 0][..], &own].concat());
            elements.extend(match mode {
                Gateway::Nat => None,
                Gateway::Unprotected => Some((UNPROTECTED, element.clone())),
                Gateway::Routed => Some((ROUTED, element.clone())),
            });
            if bridge.masquerade && mode != Gateway::Routed {
                let source = outward.sources.iter().find(|source| source.is_ipv4() == ipv4);
                elements.push(source.map_or((MASQUERADED, element), |source| {
                    (if ipv4 { SOURCES_4 } else { SOURCES_6 }, Element { key: own.to_vec(), data: octets(*source) })
                }));
            }
        }
    }
    elements.into_iter().map(|(set, element)| (INET, set, element)).collect()
}

/// What the tables have of a network.
fn network_present(channel: &Channel, name: &str) -> Vec<(Set, Vec<Element>)> {
    let own = ifname(name);
    let of_it = |set: Set| {
        let mut elements = elements_of(channel, INET, set);
        elements.retain(|element| element.key.ends_with(&own));
        (set, elements)
    };
    NETWORK_SETS.map(of_it).into()
}

/// Puts a network into the tables, which are made or repaired on the way.
pub(super) fn add_network(channel: &Channel, bridge: &Bridge, around: &Surroundings) -> Result<(), Error> {
    let _lock = lock()?;
    let mut transaction = Transaction::new();
    if !chains::are_whole(channel)? {
        chains::write(&mut transaction);
    }
    let wanted = network_elements(bridge);
    for (set, mut gone) in network_present(channel, &bridge.name) {
        gone.retain(|old| !wanted.iter().any(|(_, other, new)| other.name == set.name && new == old));
        transaction.remove(INET, set, &gone);
    }
    for (table, set, element) in wanted {
        transaction.insert(table, set, &[element]);
    }
    for (set, wanted) in around.sets() {
        let mut gone = elements_of(channel, INET, set);
        gone.retain(|element| !wanted.contains(element));
        transaction.remove(INET, set, &gone);
        transaction.insert(INET, set, &wanted);
    }
    transaction.commit(channel)
}

/// Compares the tables with what must be in them, and puts back what is missing; whether anything was. That the host's
/// other interfaces have changed is no loss. All `bridges` are kept apart, whosesoever they are: their own stacks may not
/// be there to do so.
pub(super) fn restore(
    channel: &Channel,
    mut expected: Vec<Expected>,
    around: &Surroundings,
    bridges: impl FnOnce() -> Result<Vec<String>, Error>,
) -> Result<bool, Error> {
    let _lock = lock()?;
    expected.extend(bridges()?.iter().map(|name| (INET, BRIDGES, Element::member(ifname(name)))));
    let mut transaction = Transaction::new();
    let mut lost = !chains::are_whole(channel)?;
    if lost {
        chains::write(&mut transaction);
    }
    let mut changed = lost;
    let around = around.sets();
    let sets = INET_SETS.map(|set| (INET, set)).into_iter().chain(BRIDGE_SETS.map(|set| (BRIDGE, set)));
    for (table, set) in sets {
        let exact = around.iter().find(|(other, _)| other.name == set.name).map(|(_, elements)| elements);
        let mut missing: Vec<Element> = exact.cloned().unwrap_or_else(|| {
            let own = expected.iter().filter(|(other, one, _)| *other == table && one.name == set.name);
            own.map(|(_, _, element)| element.clone()).collect()
        });
        let mut stale = elements_of(channel, table, set);
        let present: HashSet<_> = stale.iter().cloned().collect();
        missing.retain(|element| !present.contains(element));
        let moved: HashSet<_> = missing.iter().map(|new| new.key.clone()).collect();
        stale.retain(|old| moved.contains(&old.key) || exact.is_some_and(|elements| !elements.contains(old)));
        let differs = !missing.is_empty() || !stale.is_empty();
        changed |= differs;
        lost |= differs && exact.is_none();
        transaction.remove(table, set, &stale);
        transaction.insert(table, set, &missing);
    }
    if changed {
        transaction.commit(channel)?;
    }
    Ok(lost)
}

/// The elements of a set; none if it is missing.
pub(super) fn elements_of(channel: &Channel, table: Table, set: Set) -> Vec<Element> {
    elements(channel, table, set).unwrap_or_default()
}

/// Takes a network out; with the last one, both tables go, unless the administrator's chain holds rules.
pub(super) fn remove_network(channel: &Channel, name: &str) -> Result<(), Error> {
    let _lock = lock()?;
    let Ok(bridges) = elements(channel, INET, BRIDGES) else { return Ok(()) };
    let mut transaction = Transaction::new();
    for (set, elements) in network_present(channel, name) {
        transaction.remove(INET, set, &elements);
    }
    let others = bridges.iter().any(|bridge| bridge.key != ifname(name));
    if !others && rules(channel, INET, Some(USER_CHAIN))?.is_empty() {
        transaction.delete_table(INET);
        transaction.delete_table(BRIDGE);
    }
    transaction.commit(channel)
}

fn pair(from: &str, to: &str) -> Element {
    Element::member([ifname(from), ifname(to)].concat())
}

/// Puts ports into their maps, over what is there.
pub(super) fn map_ports(channel: &Channel, changes: &[(Set, Vec<Element>)]) -> Result<(), Error> {
    let _lock = lock()?;
    let mut transaction = Transaction::new();
    for (set, elements) in changes {
        transaction.insert(INET, *set, elements);
    }
    if transaction.commit(channel).is_ok() {
        return Ok(());
    }
    // The tables are gone, or a port leads elsewhere.
    let mut transaction = Transaction::new();
    chains::write(&mut transaction);
    for (set, wanted) in changes {
        let present = elements_of(channel, INET, *set);
        let stale: Vec<_> = present.into_iter().filter(|old| wanted.iter().any(|new| new.key == old.key)).collect();
        transaction.remove(INET, *set, &stale);
        transaction.insert(INET, *set, wanted);
    }
    transaction.commit(channel)
}

/// Takes ports out of their maps, where they still lead to the same containers.
pub(super) fn unmap_ports(channel: &Channel, changes: &[(Set, Vec<Element>)]) -> Result<(), Error> {
    let _lock = lock()?;
    let mut transaction = Transaction::new();
    for (set, unwanted) in changes {
        let unwanted: HashSet<_> = unwanted.iter().collect();
        let mut ours = elements_of(channel, INET, *set);
        ours.retain(|element| unwanted.contains(element));
        transaction.remove(INET, *set, &ours);
    }
    transaction.commit(channel)
}

/// Opens or closes the host's services for containers.
pub(super) fn allow_host(channel: &Channel, addresses: &[IpAddr], allowed: bool) -> Result<(), Error> {
    let _lock = lock()?;
    let mut transaction = Transaction::new();
    if !chains::are_whole(channel)? {
        chains::write(&mut transaction);
    }
    for address in addresses {
        let (table, set, element) = host_user(*address);
        transaction.insert(table, set, std::slice::from_ref(&element));
        if !allowed {
            transaction.remove(table, set, &[element]);
        }
    }
    transaction.commit(channel)
}

/// What of a container that may reach the host's services must be in the tables.
pub(super) fn host_user(address: IpAddr) -> Expected {
    (INET, if address.is_ipv4() { HOST_USERS_4 } else { HOST_USERS_6 }, Element::member(octets(address)))
}

/// An attachment as the rules against spoofing see it.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) host_ifname: &'a str,
    pub(super) mac: [u8; 6],
    pub(super) addresses: &'a [IpNet],
}

/// Ties host ends of attachments to their hardware and network addresses.
pub(super) fn add_members(channel: &Channel, members: &[Member<'_>]) -> Result<(), Error> {
    let _lock = lock()?;
    let mut transaction = Transaction::new();
    insert_members(&mut transaction, members);
    if transaction.commit(channel).is_ok() {
        return Ok(());
    }
    let mut transaction = Transaction::new();
    chains::write(&mut transaction);
    insert_members(&mut transaction, members);
    transaction.commit(channel)
}

fn insert_members(transaction: &mut Transaction, members: &[Member<'_>]) {
    for (table, set, element) in members.iter().flat_map(member_elements) {
        transaction.insert(table, set, &[element]);
    }
}

/// What of an attachment must be in the tables.
pub(super) fn member_elements(member: &Member<'_>) -> Vec<Expected> {
    let port = ifname(member.host_ifname);
    let key = |address: IpAddr| Element::member([&port[..], &member.mac, &[0; 2], &octets(address)].concat());
    // Address probes (RFC 5227, RFC 4862) come from the unspecified address.
    let mut elements =
        vec![(BRIDGE, PORTS, Element::member(port)), (BRIDGE, MEMBERS_4, key(Ipv4Addr::UNSPECIFIED.into()))];
    let addresses = || member.addresses.iter().map(IpNet::addr);
    for address in addresses() {
        let (set, element) = looped(&octets(address));
        elements.push((INET, set, element));
        elements.push((BRIDGE, if address.is_ipv4() { MEMBERS_4 } else { MEMBERS_6 }, key(address)));
    }
    if addresses().any(|address| address.is_ipv6()) {
        let automatic = [Ipv6Addr::UNSPECIFIED, link_local(member.mac)];
        elements.extend(automatic.map(|address| (BRIDGE, MEMBERS_6, key(address.into()))));
    }
    elements
}

/// Where the address stands in the key of a member: behind the name and the padded hardware address.
const MEMBER_ADDRESS: usize = 24;

/// Forgets attachments, and what their addresses were allowed. Returns these addresses.
pub(super) fn remove_members(channel: &Channel, host_ifnames: &[String]) -> Result<Vec<IpAddr>, Error> {
    let _lock = lock()?;
    let mut transaction = Transaction::new();
    let mut addresses = BTreeSet::new();
    let ports: Vec<_> = host_ifnames.iter().map(|name| ifname(name)).collect();
    for set in [PORTS, MEMBERS_4, MEMBERS_6] {
        let present = elements_of(channel, BRIDGE, set);
        let gone: Vec<_> =
            present.into_iter().filter(|element| ports.iter().any(|port| element.key.starts_with(port))).collect();
        addresses.extend(gone.iter().filter_map(|member| address(member.key.get(MEMBER_ADDRESS..)?)));
        transaction.remove(BRIDGE, set, &gone);
    }
    addresses.retain(|address| !address.is_unspecified());
    let own: Vec<_> = addresses.iter().map(|address| octets(*address)).collect();
    // Behind the padded protocol stands the address of an opened port.
    let places = [(LOOPED_4, 0), (LOOPED_6, 0), (HOST_USERS_4, 0), (HOST_USERS_6, 0), (OPENED_4, 4), (OPENED_6, 4)];
    for (set, place) in places {
        let mut gone = elements_of(channel, INET, set);
        gone.retain(|element| own.iter().any(|address| element.key[place..].starts_with(address)));
        transaction.remove(INET, set, &gone);
    }
    transaction.commit(channel)?;
    Ok(addresses.into_iter().collect())
}

fn looped(address: &[u8]) -> (Set, Element) {
    (if address.len() == 4 { LOOPED_4 } else { LOOPED_6 }, Element::member([address, address].concat()))
}

/// The address that the kernel makes from a hardware address (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, 0, 0, 0];
    octets[13..].copy_from_slice(&mac[3..]);
    Ipv6Addr::from(octets)
}

/// An address as it stands in a packet.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An address as it stands in a packet.
pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(<[u8; 4]>::try_from(octets).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(octets).ok()?.into()),
        _ => None,
    }
}

/// One change at a time, whichever process makes it. The namespace's own file is locked, so that the lock is as wide as
/// the tables, whatever directories the stacks use.
pub(super) fn lock() -> Result<Flock<std::fs::File>, Error> {
    let file = File::open("/proc/thread-self/ns/net").map_err(Error::system("open the network namespace"))?;
    let (file, _) = file.into_parts();
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::system("lock the firewall")(errno.into()))
}
