//! Rules as lists of expressions on registers, in the order in which `nft` would print them.

use crate::net::netlink::Attributes;

const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

const ICMPX_PORT_UNREACHABLE: u8 = 1;
const REG_VERDICT: u32 = 0;
/// The registers where a map lookup leaves an address (up to 16 bytes) and a port, above those of any key.
const MAPPED: usize = 7;

/// The `n`-th register of 4 bytes.
fn word(n: usize) -> u32 {
    8 + u32::try_from(n).unwrap_or(0)
}

/// Fields of `meta`.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(in crate::net) enum Key {
    /// Layer 4 protocol, 1 byte.
    L4Proto = 16,
    /// Network protocol, 1 byte: 2 = IPv4, 10 = IPv6.
    NfProto = 15,
    /// Ethernet type, 2 bytes.
    Protocol = 1,
    /// Name of the interface where the packet came in.
    IifName = 6,
    /// Name of the interface where it goes out.
    OifName = 7,
}

/// Headers.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(in crate::net) enum Base {
    /// Ethernet.
    Link = 0,
    /// IP or ARP.
    Network = 1,
    /// TCP, UDP, ICMP.
    Transport = 2,
}

/// A field of a packet.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) struct Field {
    base: Base,
    offset: u32,
    length: u32,
}

/// The fields that rules look at.
pub(in crate::net) mod payload {
    use super::{Base, Field};

    const fn field(base: Base, offset: u32, length: u32) -> Field {
        Field { base, offset, length }
    }

    pub(in crate::net) const ETHER_SOURCE: Field = field(Base::Link, 6, 6);
    pub(in crate::net) const ARP_SENDER_ETHER: Field = field(Base::Network, 8, 6);
    pub(in crate::net) const ARP_SENDER_IP: Field = field(Base::Network, 14, 4);
    pub(in crate::net) const IP_SOURCE: Field = field(Base::Network, 12, 4);
    pub(in crate::net) const IP_DESTINATION: Field = field(Base::Network, 16, 4);
    pub(in crate::net) const IP6_SOURCE: Field = field(Base::Network, 8, 16);
    pub(in crate::net) const IP6_DESTINATION: Field = field(Base::Network, 24, 16);
    pub(in crate::net) const SOURCE_PORT: Field = field(Base::Transport, 0, 2);
    pub(in crate::net) const DESTINATION_PORT: Field = field(Base::Transport, 2, 2);
    pub(in crate::net) const ICMP_TYPE: Field = field(Base::Transport, 0, 1);
    pub(in crate::net) const ND_TARGET: Field = field(Base::Transport, 8, 16);
}

/// Bits of connection tracking.
pub(in crate::net) mod ct {
    pub(in crate::net) const ESTABLISHED_OR_RELATED: u32 = 2 | 4;
    pub(in crate::net) const RELATED: u32 = 4;
    pub(in crate::net) const DESTINATION_CHANGED: u32 = 1 << 5;
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub(in crate::net) enum Verdict<'a> {
    /// On to other tables.
    Accept,
    /// Gone.
    Drop,
    /// Back to the calling chain.
    Return,
    /// Through another chain, and back.
    Jump(&'a str),
    /// Through another chain.
    Goto(&'a str),
}

/// A rule being written.
#[derive(Debug, Default)]
pub(in crate::net) struct Rule {
    pub(super) expressions: Attributes,
    /// Registers of 4 bytes that hold the key of the next lookup.
    used: usize,
    /// Shown by `nft` and `iptables`.
    pub(super) comment: Option<String>,
}

impl Rule {
    pub(in crate::net) fn new() -> Self {
        Self::default()
    }

    /// Counts, as the rules of `iptables` do.
    pub(in crate::net) fn counted(self) -> Self {
        self.expression("counter", |_| {})
    }

    /// Says what the rule is for.
    pub(in crate::net) fn comment(mut self, comment: &str) -> Self {
        self.comment = Some(comment.to_owned());
        self
    }

    /// What it does, as the kernel is told.
    pub(in crate::net) fn bytes(&self) -> &[u8] {
        self.expressions.as_bytes()
    }

    /// Appends a field of `meta` to the key.
    pub(in crate::net) fn meta(mut self, key: Key) -> Self {
        let register = word(self.used);
        self.used += if matches!(key, Key::IifName | Key::OifName) { 4 } else { 1 };
        self.expression("meta", |data| {
            data.put_be32(1, register).put_be32(2, key as u32);
        })
    }

    /// Appends a field of the packet to the key.
    pub(in crate::net) fn load(mut self, field: Field) -> Self {
        let register = word(self.used);
        self.used += field.length.div_ceil(4) as usize;
        self.expression("payload", |data| {
            data.put_be32(1, register);
            data.put_be32(2, field.base as u32).put_be32(3, field.offset).put_be32(4, field.length);
        })
    }

    /// Goes on if the key so far is `value`.
    pub(in crate::net) fn eq(self, value: &[u8]) -> Self {
        self.compare(0, value)
    }

    /// Goes on if the key so far isn't `value`.
    pub(in crate::net) fn ne(self, value: &[u8]) -> Self {
        self.compare(1, value)
    }

    fn compare(mut self, operator: u32, value: &[u8]) -> Self {
        self.used = 0;
        self.expression("cmp", |data| {
            data.put_be32(1, word(0)).put_be32(2, operator).nest(3, |nest| {
                nest.put(DATA_VALUE, value);
            });
        })
    }

    /// Goes on if the key so far, cut to the bits of `mask`, is `value`.
    pub(in crate::net) fn masked_is(self, mask: &[u8], value: &[u8]) -> Self {
        self.mask(mask).eq(value)
    }

    /// Goes on if the key is in `set`.
    pub(in crate::net) fn in_set(self, set: &str) -> Self {
        self.lookup(set, false)
    }

    /// Goes on if the key is not in `set`.
    pub(in crate::net) fn not_in_set(self, set: &str) -> Self {
        self.lookup(set, true)
    }

    fn lookup(mut self, set: &str, inverted: bool) -> Self {
        self.used = 0;
        self.expression("lookup", |data| {
            data.put_str(1, set).put_be32(2, word(0));
            if inverted {
                data.put_be32(5, 1);
            }
        })
    }

    /// Changes the destination to the address and port that `map` has for the key; `v6` says how long the address is.
    pub(in crate::net) fn dnat_by_map(mut self, map: &str, v6: bool) -> Self {
        self.used = 0;
        let (family, port) = if v6 { (libc::NFPROTO_IPV6, MAPPED + 4) } else { (libc::NFPROTO_IPV4, MAPPED + 1) };
        self.expression("lookup", |data| {
            data.put_str(1, map).put_be32(2, word(0)).put_be32(3, word(MAPPED));
        })
        .expression("nat", |data| {
            data.put_be32(1, libc::NFT_NAT_DNAT.unsigned_abs()).put_be32(2, family.unsigned_abs());
            data.put_be32(3, word(MAPPED)).put_be32(5, word(port));
        })
    }

    /// Changes the source to the address that `map` has for the key; `v6` says how long it is.
    pub(in crate::net) fn snat_by_map(mut self, map: &str, v6: bool) -> Self {
        self.used = 0;
        let family = if v6 { libc::NFPROTO_IPV6 } else { libc::NFPROTO_IPV4 };
        self.expression("lookup", |data| {
            data.put_str(1, map).put_be32(2, word(0)).put_be32(3, word(MAPPED));
        })
        .expression("nat", |data| {
            data.put_be32(1, libc::NFT_NAT_SNAT.unsigned_abs()).put_be32(2, family.unsigned_abs());
            data.put_be32(3, word(MAPPED));
        })
    }

    /// Gives the packet the outgoing interface's address.
    pub(in crate::net) fn masquerade(self) -> Self {
        self.expression("masq", |_| {})
    }

    /// Goes on if the packet is for an address of this host.
    pub(in crate::net) fn for_this_host(self) -> Self {
        const BY_DESTINATION: u32 = 2;
        const ADDRESS_TYPE: u32 = 3;
        self.expression("fib", |data| {
            data.put_be32(1, word(0)).put_be32(2, ADDRESS_TYPE).put_be32(3, BY_DESTINATION);
        })
        .eq(&u32::from(libc::RTN_LOCAL).to_ne_bytes())
    }

    /// Goes on if the connection's state has any of the bits.
    pub(in crate::net) fn ct_state(self, bits: u32) -> Self {
        self.ct(libc::NFT_CT_STATE.unsigned_abs(), bits)
    }

    /// Goes on if the connection's status has any of the bits.
    pub(in crate::net) fn ct_status(self, bits: u32) -> Self {
        self.ct(libc::NFT_CT_STATUS.unsigned_abs(), bits)
    }

    /// Goes on if the packet answers: who began the connection gets it.
    pub(in crate::net) fn ct_reply(self) -> Self {
        const REPLY: u8 = 1;
        self.load_ct(libc::NFT_CT_DIRECTION.unsigned_abs()).eq(&[REPLY])
    }

    fn ct(self, key: u32, bits: u32) -> Self {
        self.load_ct(key).mask(&bits.to_ne_bytes()).ne(&[0; 4])
    }

    fn load_ct(self, key: u32) -> Self {
        self.expression("ct", |data| {
            data.put_be32(1, word(0)).put_be32(2, key);
        })
    }

    fn mask(self, mask: &[u8]) -> Self {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        let zero = vec![0; mask.len()];
        self.expression("bitwise", |data| {
            data.put_be32(1, word(0)).put_be32(2, word(0)).put_be32(3, length);
            data.nest(4, |nest| {
                nest.put(DATA_VALUE, mask);
            });
            data.nest(5, |nest| {
                nest.put(DATA_VALUE, &zero);
            });
        })
    }

    /// Overwrites a port, without connection tracking.
    pub(in crate::net) fn set_port(self, field: Field, port: u16, checksum_offset: u32) -> Self {
        self.expression("immediate", |data| {
            data.put_be32(1, word(0)).nest(2, |nest| {
                nest.put(DATA_VALUE, &port.to_be_bytes());
            });
        })
        .expression("payload", |data| {
            data.put_be32(5, word(0)).put_be32(2, field.base as u32);
            data.put_be32(3, field.offset).put_be32(4, field.length);
            data.put_be32(6, libc::NFT_PAYLOAD_CSUM_INET.unsigned_abs()).put_be32(7, checksum_offset);
        })
    }

    /// Answers with a TCP reset.
    pub(in crate::net) fn reset(self) -> Self {
        self.expression("reject", |data| {
            data.put_be32(1, libc::NFT_REJECT_TCP_RST.unsigned_abs()).put(2, &[0]);
        })
    }

    /// Answers "port unreachable", in the packet's own address family.
    pub(in crate::net) fn reject(self) -> Self {
        self.expression("reject", |data| {
            data.put_be32(1, libc::NFT_REJECT_ICMPX_UNREACH.unsigned_abs());
            data.put(2, &[ICMPX_PORT_UNREACHABLE]);
        })
    }

    /// Ends the rule.
    pub(in crate::net) fn then(self, verdict: Verdict<'_>) -> Self {
        let (code, chain) = match verdict {
            Verdict::Drop => (libc::NF_DROP, None),
            Verdict::Accept => (libc::NF_ACCEPT, None),
            Verdict::Return => (libc::NFT_RETURN, None),
            Verdict::Jump(chain) => (libc::NFT_JUMP, Some(chain)),
            Verdict::Goto(chain) => (libc::NFT_GOTO, Some(chain)),
        };
        self.expression("immediate", |data| {
            data.put_be32(1, REG_VERDICT).nest(2, |nest| {
                nest.nest(DATA_VERDICT, |verdict| {
                    verdict.put(1, &code.to_be_bytes());
                    if let Some(chain) = chain {
                        verdict.put_str(2, chain);
                    }
                });
            });
        })
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Attributes)) -> Self {
        self.expressions.nest(LIST_ELEM, |element| {
            element.put_str(EXPR_NAME, name).nest(EXPR_DATA, fill);
        });
        self
    }
}
