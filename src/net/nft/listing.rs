//! What the kernel has: elements of sets, chains, rules.

use super::rule::DATA_VALUE;
use super::transaction::{COMMENT, Element, RULE_USERDATA, Set, Table, message_type};
use crate::net::error::Error;
use crate::net::netlink::{Attributes, Batch, Channel, DUMP, Reply, attributes, be32, text};

/// A chain of any table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::net) struct Chain {
    /// Number of its table's family.
    pub(in crate::net) family: u8,
    pub(in crate::net) table: String,
    pub(in crate::net) name: String,
    /// Where it hangs; none, if others jump to it.
    pub(in crate::net) hook: Option<u32>,
    /// Whether what reaches its end is dropped.
    pub(in crate::net) drops: bool,
}

/// A rule of any chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::net) struct Listed {
    pub(in crate::net) chain: String,
    pub(in crate::net) handle: u64,
    pub(in crate::net) comment: String,
    /// Whether it returns to the calling chain, whatever the packet.
    pub(in crate::net) returns: bool,
}

/// The elements of a set; an error if the set or its table is missing.
pub(in crate::net) fn elements(channel: &Channel, table: Table, set: Set) -> Result<Vec<Element>, Error> {
    let mut batch = Batch::default();
    let kind = message_type(libc::NFT_MSG_GETSETELEM);
    batch.add(format!("list the firewall set {}", set.name), kind, DUMP, &[table.family as u8, 0, 0, 0], |message| {
        message.put_str(1, table.name).put_str(2, set.name);
    });
    let mut found = Vec::new();
    for reply in channel.dump(&batch)? {
        let lists = attributes(reply.payload.get(4..).unwrap_or_default()).filter(|(kind, _)| *kind == 3);
        for (_, element) in lists.flat_map(|(_, list)| attributes(list)) {
            let part = |wanted| {
                let nest = attributes(element).find(|(kind, _)| *kind == wanted).map(|(_, nest)| nest)?;
                attributes(nest).find(|(kind, _)| *kind == DATA_VALUE).map(|(_, value)| value.to_vec())
            };
            found.push(Element { key: part(1).unwrap_or_default(), data: part(2).unwrap_or_default() });
        }
    }
    Ok(found)
}

/// All chains of all tables.
pub(in crate::net) fn chains(channel: &Channel) -> Result<Vec<Chain>, Error> {
    let replies = list(channel, "list the firewall chains", libc::NFT_MSG_GETCHAIN, 0, |_| {})?;
    Ok(replies.iter().map(read_chain).collect())
}

/// The rules of a table, or of one chain of it, in order; a missing table or chain has none.
pub(in crate::net) fn rules(channel: &Channel, table: Table, chain: Option<&str>) -> Result<Vec<Listed>, Error> {
    let replies = list(channel, "list the firewall rules", libc::NFT_MSG_GETRULE, table.family as u8, |message| {
        message.put_str(1, table.name);
        if let Some(chain) = chain {
            message.put_str(2, chain);
        }
    })?;
    Ok(replies.iter().map(read_rule).collect())
}

fn list(
    channel: &Channel,
    action: &str,
    kind: i32,
    family: u8,
    fill: impl FnOnce(&mut Attributes),
) -> Result<Vec<Reply>, Error> {
    let mut batch = Batch::default();
    batch.add(action, message_type(kind), DUMP, &[family, 0, 0, 0], fill);
    channel.dump(&batch)
}

fn read_chain(reply: &Reply) -> Chain {
    let family = reply.payload.first().copied().unwrap_or_default();
    let mut chain = Chain { family, table: String::new(), name: String::new(), hook: None, drops: false };
    for (kind, value) in attributes(reply.payload.get(4..).unwrap_or_default()) {
        match kind {
            1 => chain.table = text(value),
            3 => chain.name = text(value),
            4 => chain.hook = attributes(value).find(|(kind, _)| *kind == 1).map(|(_, number)| be32(number)),
            5 => chain.drops = be32(value) == libc::NF_DROP.unsigned_abs(),
            _ => {}
        }
    }
    chain
}

fn read_rule(reply: &Reply) -> Listed {
    let mut rule = Listed { chain: String::new(), handle: 0, comment: String::new(), returns: false };
    for (kind, value) in attributes(reply.payload.get(4..).unwrap_or_default()) {
        match kind {
            2 => rule.chain = text(value),
            3 => rule.handle = value.try_into().map_or(0, u64::from_be_bytes),
            4 => rule.returns = returns(value),
            RULE_USERDATA => rule.comment = comment(value),
            _ => {}
        }
    }
    rule
}

/// Whether expressions do nothing but count and return.
fn returns(expressions: &[u8]) -> bool {
    let part = |expression, wanted| {
        attributes(expression).find(|(kind, _)| *kind == wanted).map(|(_, value)| value).unwrap_or_default()
    };
    let mut left =
        attributes(expressions).map(|(_, expression)| expression).filter(|one| text(part(one, 1)) != "counter");
    let verdict = left.next().filter(|one| text(part(one, 1)) == "immediate").map(|one| part(part(part(one, 2), 2), 2));
    let code = verdict.map(|verdict| be32(part(verdict, 1)).cast_signed());
    code == Some(libc::NFT_RETURN) && left.next().is_none()
}

/// The comment among user data: a list of kind, length, value.
fn comment(mut data: &[u8]) -> String {
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length)).unwrap_or(rest);
        if *kind == COMMENT {
            return text(value);
        }
        data = &rest[value.len()..];
    }
    String::new()
}

/// Whether a table is there.
pub(in crate::net) fn has_table(channel: &Channel, table: Table) -> Result<bool, Error> {
    let tables = list(channel, "list the firewall tables", libc::NFT_MSG_GETTABLE, table.family as u8, |_| {})?;
    let names = |reply: &Reply| {
        let name = attributes(reply.payload.get(4..).unwrap_or_default()).find(|(kind, _)| *kind == 1);
        name.is_some_and(|(_, value)| text(value) == table.name)
    };
    Ok(tables.iter().any(names))
}
