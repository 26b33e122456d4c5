//! nftables over netlink: transactions, rules and set elements. No table carries the owner flag, since such a table
//! vanishes with the socket that made it.

mod listing;
mod rule;
mod transaction;

pub(super) use listing::{Chain, chains, elements, has_table, rules};
pub(super) use rule::{Key, Rule, Verdict, ct, payload};
pub(super) use transaction::{Element, Family, Hook, Kind, Set, Table, Transaction};

/// An interface name as the kernel compares it: 16 bytes, nul-padded.
pub(super) fn ifname(name: &str) -> [u8; 16] {
    let mut key = [0; 16];
    let length = name.len().min(15);
    key[..length].copy_from_slice(&name.as_bytes()[..length]);
    key
}
