//! The rules of the two tables: chains, and nothing that changes with what runs.

use std::net::Ipv6Addr;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::netlink::Channel;
use super::nft::{Hook, Key, Kind, Rule, Set, Table, Transaction, Verdict, ct, ifname, payload, rules};
use super::ruleset::{
    BRIDGE, BRIDGE_SETS, BRIDGES, EVERYWHERE_4, EVERYWHERE_6, HAIRPIN, HOST_USERS_4, HOST_USERS_6, INET, INET_SETS,
    INTERNAL, LOOPED_4, LOOPED_6, MASQUERADED, MEMBERS_4, MEMBERS_6, NEIGHBOURS, OPENED_4, OPENED_6, PORTS,
    PUBLISHED_4, PUBLISHED_6, ROUTED, SOURCES_4, SOURCES_6, TRUSTED, UNPROTECTED, UPLINKS, USER_CHAIN,
};

const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// What `meta nfproto` says of a packet.
pub(super) const V4: u8 = 2;
pub(super) const V6: u8 = 10;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_6: u8 = 128;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Where the metadata services of Amazon and Google are found by IPv6.
const METADATA_6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// Tables, sets, chains and rules; elements stay.
pub(super) fn write(transaction: &mut Transaction) {
    for (table, sets) in [(INET, &INET_SETS[..]), (BRIDGE, &BRIDGE_SETS[..])] {
        transaction.table(table);
        for set in sets {
            transaction.set(table, *set);
        }
    }
    transaction.chain(INET, USER_CHAIN, None);
    let (inet, bridge) = (inet_chains(), bridge_chains());
    let tag = tag(inet.iter().chain(&bridge));
    for (name, hook, mut rules) in inet {
        if name == TAGGED {
            rules = rules.into_iter().map(|rule| rule.comment(&tag)).collect();
        }
        write_chain(transaction, INET, name, hook, &rules);
    }
    for (name, hook, rules) in bridge {
        write_chain(transaction, BRIDGE, name, hook, &rules);
    }
}

/// Whether every chain has as many rules as [`write`] gives it, and this version of the program wrote them.
pub(super) fn are_whole(channel: &Channel) -> Result<bool, Error> {
    let (inet, bridge) = (inet_chains(), bridge_chains());
    let tag = tag(inet.iter().chain(&bridge));
    for (table, chains) in [(INET, inet), (BRIDGE, bridge)] {
        let listed = rules(channel, table, None)?;
        let of = |name: &'static str| listed.iter().filter(move |rule| rule.chain == name);
        let whole = chains.iter().all(|(name, _, written)| of(name).count() == written.len());
        if !whole || (table == INET && !of(TAGGED).all(|rule| rule.comment == tag)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The chain whose rules say which version of all rules is there.
const TAGGED: &str = "input";

/// What tells these rules from those of another version.
fn tag<'c>(chains: impl Iterator<Item = &'c Chain>) -> String {
    let mut digest = Sha256::new();
    for (name, _, rules) in chains {
        digest.update(name);
        for rule in rules {
            digest.update(rule.bytes());
        }
    }
    format!("stack: rules {}", &HEXLOWER.encode(&digest.finalize())[..8])
}

fn write_chain(transaction: &mut Transaction, table: Table, name: &str, hook: Option<Hook>, rules: &[Rule]) {
    transaction.chain(table, name, hook);
    transaction.flush(table, name);
    for rule in rules {
        transaction.rule(table, name, rule);
    }
}

type Chain = (&'static str, Option<Hook>, Vec<Rule>);

#[expect(clippy::unnecessary_wraps, reason = "a column of the table of chains")]
fn hook(kind: Kind, number: u32, priority: i32) -> Option<Hook> {
    Some(Hook { kind, number, priority })
}

/// Chains that others jump to come first: a rule can name only chains that exist.
fn inet_chains() -> Vec<Chain> {
    let v4 = || Rule::new().meta(Key::NfProto).eq(&[V4]);
    let v6 = || Rule::new().meta(Key::NfProto).eq(&[V6]);
    let from = |set: Set| Rule::new().meta(Key::IifName).in_set(set.name);
    let to = |set: Set| Rule::new().meta(Key::OifName).in_set(set.name);
    let hairpin = || Rule::new().meta(Key::IifName).meta(Key::OifName).in_set(HAIRPIN.name);
    // What goes on in the direction of a connection's first packet is judged as that one was: a connection that was opened
    // while others had flushed the rules ends with their return.
    let replies = || Rule::new().ct_reply().ct_state(ct::ESTABLISHED_OR_RELATED).then(Verdict::Accept);
    let related = || Rule::new().ct_state(ct::RELATED).then(Verdict::Accept);
    let icmp = |rule: Rule, protocol, kind| {
        rule.meta(Key::L4Proto).eq(&[protocol]).load(payload::ICMP_TYPE).eq(&[kind]).then(Verdict::Accept)
    };
    let opened = |rule: Rule, address, set: Set| {
        let rule = rule.meta(Key::L4Proto).load(address).load(payload::DESTINATION_PORT);
        rule.in_set(set.name).then(Verdict::Accept)
    };
    let opened_4 = || opened(v4(), payload::IP_DESTINATION, OPENED_4);
    let opened_6 = || opened(v6(), payload::IP6_DESTINATION, OPENED_6);
    let of_family_to = |set: Set| Rule::new().meta(Key::NfProto).meta(Key::OifName).in_set(set.name);
    let metadata_6 =
        |address: Ipv6Addr| v6().load(payload::IP6_DESTINATION).eq(&address.octets()).then(Verdict::Goto("refuse"));
    let own_loopback = || v4().load(payload::IP_SOURCE).masked_is(&[255, 0, 0, 0], &[127, 0, 0, 0]);
    let looped_4 = v4().load(payload::IP_SOURCE).load(payload::IP_DESTINATION).in_set(LOOPED_4.name);
    let looped_6 = v6().load(payload::IP6_SOURCE).load(payload::IP6_DESTINATION).in_set(LOOPED_6.name);
    vec![
        ("refuse", None, vec![Rule::new().meta(Key::L4Proto).eq(&[TCP]).reset(), Rule::new().reject()]),
        (
            "publish",
            None,
            vec![
                v4().meta(Key::L4Proto)
                    .load(payload::IP_DESTINATION)
                    .load(payload::DESTINATION_PORT)
                    .dnat_by_map(PUBLISHED_4.name, false),
                v4().meta(Key::L4Proto).load(payload::DESTINATION_PORT).dnat_by_map(EVERYWHERE_4.name, false),
                v6().meta(Key::L4Proto)
                    .load(payload::IP6_DESTINATION)
                    .load(payload::DESTINATION_PORT)
                    .dnat_by_map(PUBLISHED_6.name, true),
                v6().meta(Key::L4Proto).load(payload::DESTINATION_PORT).dnat_by_map(EVERYWHERE_6.name, true),
            ],
        ),
        // Packets for 127.0.0.1 from outside would reach published ports on loopback through route_localnet.
        (
            "raw",
            hook(Kind::Filter, PREROUTING, -300),
            vec![
                Rule::new().meta(Key::IifName).eq(&ifname("lo")).then(Verdict::Accept),
                v4().load(payload::IP_DESTINATION).masked_is(&[255, 0, 0, 0], &[127, 0, 0, 0]).then(Verdict::Drop),
                own_loopback().then(Verdict::Drop),
            ],
        ),
        (
            "prerouting",
            hook(Kind::Nat, PREROUTING, -100),
            vec![from(INTERNAL).then(Verdict::Return), Rule::new().for_this_host().then(Verdict::Jump("publish"))],
        ),
        (
            "output",
            hook(Kind::Nat, OUTPUT, -100),
            // No interface but lo forwards packets from ::1.
            vec![
                v6().load(payload::IP6_DESTINATION).eq(&Ipv6Addr::LOCALHOST.octets()).then(Verdict::Return),
                Rule::new().for_this_host().then(Verdict::Jump("publish")),
            ],
        ),
        (
            "postrouting",
            hook(Kind::Nat, POSTROUTING, 100),
            vec![
                hairpin().ct_status(ct::DESTINATION_CHANGED).masquerade(),
                looped_4.ct_status(ct::DESTINATION_CHANGED).masquerade(),
                looped_6.ct_status(ct::DESTINATION_CHANGED).masquerade(),
                Rule::new()
                    .meta(Key::OifName)
                    .in_set(BRIDGES.name)
                    .meta(Key::NfProto)
                    .eq(&[V4])
                    .load(payload::IP_SOURCE)
                    .masked_is(&[255, 0, 0, 0], &[127, 0, 0, 0])
                    .masquerade(),
                to(BRIDGES).then(Verdict::Return),
                v4().meta(Key::IifName).snat_by_map(SOURCES_4.name, false),
                v6().meta(Key::IifName).snat_by_map(SOURCES_6.name, true),
                Rule::new().meta(Key::NfProto).meta(Key::IifName).in_set(MASQUERADED.name).masquerade(),
            ],
        ),
        (
            "from-container",
            None,
            vec![
                replies(),
                related(),
                icmp(v4(), ICMP, ECHO_REQUEST),
                icmp(v6(), ICMPV6, ECHO_REQUEST_6),
                icmp(v6(), ICMPV6, NEIGHBOUR_SOLICITATION),
                icmp(v6(), ICMPV6, NEIGHBOUR_ADVERTISEMENT),
                v4().load(payload::IP_SOURCE).in_set(HOST_USERS_4.name).then(Verdict::Accept),
                v6().load(payload::IP6_SOURCE).in_set(HOST_USERS_6.name).then(Verdict::Accept),
                Rule::new().then(Verdict::Goto("refuse")),
            ],
        ),
        ("input", hook(Kind::Filter, INPUT, 0), vec![from(BRIDGES).then(Verdict::Goto("from-container"))]),
        (
            "leave",
            None,
            vec![
                replies(),
                related(),
                hairpin().then(Verdict::Accept),
                from(INTERNAL).then(Verdict::Goto("refuse")),
                to(INTERNAL).then(Verdict::Goto("refuse")),
                Rule::new().ct_status(ct::DESTINATION_CHANGED).then(Verdict::Accept),
                opened_4(),
                opened_6(),
                to(BRIDGES).then(Verdict::Goto("refuse")),
                to(NEIGHBOURS).then(Verdict::Goto("refuse")),
                // Link-local: the metadata service of cloud machines gives out credentials.
                v4().load(payload::IP_DESTINATION)
                    .masked_is(&[255, 255, 0, 0], &[169, 254, 0, 0])
                    .then(Verdict::Goto("refuse")),
                metadata_6(METADATA_6[0]),
                metadata_6(METADATA_6[1]),
                Rule::new().then(Verdict::Accept),
            ],
        ),
        (
            "enter",
            None,
            vec![
                replies(),
                related(),
                to(INTERNAL).then(Verdict::Drop),
                Rule::new().ct_status(ct::DESTINATION_CHANGED).then(Verdict::Accept),
                opened_4(),
                opened_6(),
                of_family_to(UNPROTECTED).then(Verdict::Accept),
                icmp(of_family_to(ROUTED), ICMP, ECHO_REQUEST),
                icmp(of_family_to(ROUTED), ICMPV6, ECHO_REQUEST_6),
                Rule::new().meta(Key::IifName).meta(Key::OifName).in_set(TRUSTED.name).then(Verdict::Accept),
                Rule::new().then(Verdict::Drop),
            ],
        ),
        (
            "forward",
            hook(Kind::Filter, FORWARD, 0),
            vec![
                Rule::new().then(Verdict::Jump(USER_CHAIN)),
                from(BRIDGES).then(Verdict::Goto("leave")),
                to(BRIDGES).then(Verdict::Goto("enter")),
                from(UPLINKS).then(Verdict::Drop),
            ],
        ),
    ]
}

fn bridge_chains() -> Vec<Chain> {
    let kind = |ethertype: [u8; 2]| Rule::new().meta(Key::Protocol).eq(&ethertype);
    let sender = || Rule::new().meta(Key::IifName).load(payload::ETHER_SOURCE);
    let icmp6 = |kind| Rule::new().meta(Key::L4Proto).eq(&[ICMPV6]).load(payload::ICMP_TYPE).eq(&[kind]);
    let drop = |rule: Rule| rule.then(Verdict::Drop);
    vec![
        (
            "arp",
            None,
            vec![
                drop(sender().load(payload::ARP_SENDER_IP).not_in_set(MEMBERS_4.name)),
                drop(
                    Rule::new()
                        .meta(Key::IifName)
                        .load(payload::ARP_SENDER_ETHER)
                        .load(payload::ARP_SENDER_IP)
                        .not_in_set(MEMBERS_4.name),
                ),
                Rule::new().then(Verdict::Accept),
            ],
        ),
        (
            "ip6",
            None,
            vec![
                drop(icmp6(ROUTER_ADVERTISEMENT)),
                drop(icmp6(REDIRECT)),
                drop(sender().load(payload::IP6_SOURCE).not_in_set(MEMBERS_6.name)),
                icmp6(NEIGHBOUR_ADVERTISEMENT)
                    .meta(Key::IifName)
                    .load(payload::ETHER_SOURCE)
                    .load(payload::ND_TARGET)
                    .not_in_set(MEMBERS_6.name)
                    .then(Verdict::Drop),
                Rule::new().then(Verdict::Accept),
            ],
        ),
        (
            "member",
            None,
            vec![
                kind(ETHERTYPE_ARP).then(Verdict::Goto("arp")),
                kind(ETHERTYPE_IPV6).then(Verdict::Goto("ip6")),
                drop(
                    kind(ETHERTYPE_IPV4)
                        .meta(Key::IifName)
                        .load(payload::ETHER_SOURCE)
                        .load(payload::IP_SOURCE)
                        .not_in_set(MEMBERS_4.name),
                ),
                kind(ETHERTYPE_IPV4).then(Verdict::Accept),
                drop(Rule::new()),
            ],
        ),
        (
            "prerouting",
            hook(Kind::Filter, PREROUTING, -300),
            vec![Rule::new().meta(Key::IifName).in_set(PORTS.name).then(Verdict::Goto("member"))],
        ),
    ]
}
