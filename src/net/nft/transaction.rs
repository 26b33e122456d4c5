//! Transactions: all of it or nothing, and no packet ever sees a part.

use super::rule::{DATA_VALUE, Rule};
use crate::net::error::Error;
use crate::net::netlink::{APPEND, Batch, CREATE, Channel};

const SUBSYSTEM: u16 = 10 << 8;
const BEGIN: u16 = 16;
const END: u16 = 17;
const LIST_ELEM: u16 = 1;
pub(super) const RULE_USERDATA: u16 = 7;
/// Kind of a rule's comment among its user data.
pub(super) const COMMENT: u8 = 0;
const SET_USERDATA: u16 = 13;
/// What `nft` shows of a comment.
const LONGEST_COMMENT: usize = 127;
/// Elements per message: an attribute's length is 16 bits.
const CHUNK: usize = 512;

/// What `nft` must know to print the elements of a set: names of interfaces are in the machine's byte order for it, all
/// others in that of the network.
fn byte_order((kind, _): (u32, u32)) -> [u8; 6] {
    const KEY_BYTE_ORDER: u8 = 0;
    const IFNAME: u32 = 41;
    let order: u32 = if kind == IFNAME { 1 } else { 2 };
    let [a, b, c, d] = order.to_ne_bytes();
    [KEY_BYTE_ORDER, 4, a, b, c, d]
}

/// Address families of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::net) enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// Frames inside of bridges.
    Bridge = 7,
    /// IPv6.
    Ip6 = 10,
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) struct Table {
    pub(in crate::net) family: Family,
    pub(in crate::net) name: &'static str,
}

/// What a base chain is for.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) enum Kind {
    /// Decides.
    Filter,
    /// Translates addresses; sees the first packet of a connection.
    Nat,
}

/// Where a base chain hangs.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) struct Hook {
    pub(in crate::net) kind: Kind,
    /// 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub(in crate::net) number: u32,
    pub(in crate::net) priority: i32,
}

/// A set, or a map where `data` isn't empty. Types are nftables' numbers with their lengths in bytes; several make a
/// concatenation.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) struct Set {
    pub(in crate::net) name: &'static str,
    pub(in crate::net) key: &'static [(u32, u32)],
    pub(in crate::net) data: &'static [(u32, u32)],
}

/// An element of a set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::net) struct Element {
    pub(in crate::net) key: Vec<u8>,
    /// Empty in plain sets.
    pub(in crate::net) data: Vec<u8>,
}

impl Element {
    /// A member of a plain set.
    pub(in crate::net) fn member(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), data: Vec::new() }
    }
}

/// Changes that take effect together.
#[derive(Debug)]
pub(in crate::net) struct Transaction {
    batch: Batch,
    sets: u32,
}

impl Transaction {
    pub(in crate::net) fn new() -> Self {
        let mut batch = Batch::default();
        batch.add("begin a firewall transaction", BEGIN, 0, &edge(), |_| {});
        Self { batch, sets: 0 }
    }

    pub(in crate::net) fn table(&mut self, table: Table) {
        let Table { family, name } = table;
        self.add(format!("make the firewall table {name}"), libc::NFT_MSG_NEWTABLE, CREATE, family, |message| {
            message.put_str(1, name).put_be32(2, 0);
        });
    }

    pub(in crate::net) fn delete_table(&mut self, table: Table) {
        let Table { family, name } = table;
        self.add(format!("remove the firewall table {name}"), libc::NFT_MSG_DELTABLE, 0, family, |message| {
            message.put_str(1, name);
        });
    }

    /// Makes a chain if it is missing.
    pub(in crate::net) fn chain(&mut self, table: Table, name: &str, hook: Option<Hook>) {
        let action = format!("make the firewall chain {name}");
        self.add(action, libc::NFT_MSG_NEWCHAIN, CREATE, table.family, |message| {
            message.put_str(1, table.name).put_str(3, name);
            if let Some(hook) = hook {
                message.nest(4, |nest| {
                    nest.put_be32(1, hook.number).put(2, &hook.priority.to_be_bytes());
                });
                message.put_be32(5, libc::NF_ACCEPT.unsigned_abs());
                message.put_str(7, if matches!(hook.kind, Kind::Nat) { "nat" } else { "filter" });
            }
        });
    }

    /// Removes all rules of a chain.
    pub(in crate::net) fn flush(&mut self, table: Table, chain: &str) {
        let action = format!("empty the firewall chain {chain}");
        self.add(action, libc::NFT_MSG_DELRULE, 0, table.family, |message| {
            message.put_str(1, table.name).put_str(2, chain);
        });
    }

    pub(in crate::net) fn rule(&mut self, table: Table, chain: &str, rule: &Rule) {
        self.place_rule(table, chain, rule, APPEND, None);
    }

    /// Puts a rule before the one of handle `before`, or first.
    pub(in crate::net) fn insert_rule(&mut self, table: Table, chain: &str, rule: &Rule, before: Option<u64>) {
        self.place_rule(table, chain, rule, 0, before);
    }

    fn place_rule(&mut self, table: Table, chain: &str, rule: &Rule, flags: u16, before: Option<u64>) {
        let action = format!("add a rule to the firewall chain {chain}");
        self.add(action, libc::NFT_MSG_NEWRULE, CREATE | flags, table.family, |message| {
            message.put_str(1, table.name).put_str(2, chain).nest(4, |list| {
                list.raw(rule.expressions.as_bytes());
            });
            if let Some(handle) = before {
                message.put(6, &handle.to_be_bytes());
            }
            if let Some(comment) = &rule.comment {
                message.put(RULE_USERDATA, &userdata(comment));
            }
        });
    }

    pub(in crate::net) fn delete_rule(&mut self, table: Table, chain: &str, handle: u64) {
        let action = format!("take a rule out of the firewall chain {chain}");
        self.add(action, libc::NFT_MSG_DELRULE, 0, table.family, |message| {
            message.put_str(1, table.name).put_str(2, chain).put(3, &handle.to_be_bytes());
        });
    }

    /// Makes a set if it is missing.
    pub(in crate::net) fn set(&mut self, table: Table, set: Set) {
        const MAP: u32 = 0x8;
        self.sets += 1;
        let id = self.sets;
        let action = format!("make the firewall set {}", set.name);
        self.add(action, libc::NFT_MSG_NEWSET, CREATE, table.family, |message| {
            message.put_str(1, table.name).put_str(2, set.name);
            message.put_be32(3, if set.data.is_empty() { 0 } else { MAP });
            message.put_be32(4, kind(set.key)).put_be32(5, length(set.key)).put_be32(10, id);
            if let [key] = set.key {
                message.put(SET_USERDATA, &byte_order(*key));
            }
            if !set.data.is_empty() {
                message.put_be32(6, kind(set.data)).put_be32(7, length(set.data));
            }
        });
    }

    pub(in crate::net) fn insert(&mut self, table: Table, set: Set, elements: &[Element]) {
        self.elements(table, set, elements, libc::NFT_MSG_NEWSETELEM, CREATE);
    }

    pub(in crate::net) fn remove(&mut self, table: Table, set: Set, elements: &[Element]) {
        self.elements(table, set, elements, libc::NFT_MSG_DELSETELEM, 0);
    }

    fn elements(&mut self, table: Table, set: Set, elements: &[Element], kind: i32, flags: u16) {
        for chunk in elements.chunks(CHUNK) {
            self.add(format!("change the firewall set {}", set.name), kind, flags, table.family, |message| {
                message.put_str(1, table.name).put_str(2, set.name).nest(3, |list| {
                    for element in chunk {
                        list.nest(LIST_ELEM, |nest| {
                            nest.nest(1, |key| {
                                key.put(DATA_VALUE, &element.key);
                            });
                            if !element.data.is_empty() {
                                nest.nest(2, |data| {
                                    data.put(DATA_VALUE, &element.data);
                                });
                            }
                        });
                    }
                });
            });
        }
    }

    /// Makes it so.
    pub(in crate::net) fn commit(mut self, channel: &Channel) -> Result<(), Error> {
        if self.batch.len() == 1 {
            return Ok(());
        }
        // Older kernels acknowledge no end of a batch.
        self.batch.acknowledge_last();
        self.batch.add("end a firewall transaction", END, 0, &edge(), |_| {});
        channel.commit(&self.batch)
    }

    fn add(
        &mut self,
        action: impl Into<String>,
        kind: i32,
        flags: u16,
        family: Family,
        fill: impl FnOnce(&mut crate::net::netlink::Attributes),
    ) {
        self.batch.add(action, message_type(kind), flags, &[family as u8, 0, 0, 0], fill);
    }
}

/// A comment as `nft` and `iptables` keep it beside a rule: kind, length with the final nul, text.
fn userdata(comment: &str) -> Vec<u8> {
    let comment = &comment[..comment.floor_char_boundary(LONGEST_COMMENT)];
    let mut bytes = vec![COMMENT, u8::try_from(comment.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    bytes
}

pub(super) fn message_type(message: i32) -> u16 {
    SUBSYSTEM | u16::try_from(message).unwrap_or(0)
}

/// `struct nfgenmsg` of a batch's begin and end: the subsystem is the resource id.
fn edge() -> [u8; 4] {
    [0, 0, 0, 10]
}

fn kind(types: &[(u32, u32)]) -> u32 {
    types.iter().fold(0, |all, (kind, _)| all << 6 | kind)
}

fn length(types: &[(u32, u32)]) -> u32 {
    match types {
        [(_, length)] => *length,
        several => several.iter().map(|(_, length)| length.next_multiple_of(4)).sum(),
    }
}
