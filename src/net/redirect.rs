//! The resolver's sockets inside a container, and the rules that lead 127.0.0.11:53 to them.
//!
//! The sockets have ports of their own, so that a program inside may bind `0.0.0.0:53`. Ports are rewritten without
//! connection tracking, which would otherwise look at every packet of the container. Questions are rewritten after its
//! place in the output hook and answers before, so that it sees port 53 in both directions where a program loads it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::attach::DnsSockets;
use super::error::Error;
use super::firewall::Protocol;
use super::netlink::Channel;
use super::nft::{Family, Hook, Key, Kind, Rule, Table, Transaction, has_table, payload};

/// Where containers find their resolver.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const TABLE: Table = Table { family: Family::Ip, name: "stack" };
const PORT: u16 = 53;
const OUTPUT: u32 = 3;

/// Opens the sockets in the calling thread's namespace, where loopback must be up.
pub(super) fn open() -> Result<DnsSockets, Error> {
    let bind = || -> io::Result<_> {
        let udp = UdpSocket::bind((ADDRESS, 0))?;
        let tcp = TcpListener::bind((ADDRESS, 0))?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp.local_addr()?, tcp.local_addr()?, DnsSockets { udp: udp.into(), tcp: tcp.into() }))
    };
    let (udp, tcp, sockets) = bind().map_err(Error::system("open the resolver's sockets inside the container"))?;
    lead(udp, tcp)?;
    Ok(sockets)
}

fn lead(udp: SocketAddr, tcp: SocketAddr) -> Result<(), Error> {
    let channel = Channel::netfilter()?;
    let mut transaction = Transaction::new();
    // Removing rules costs a grace period, so only a namespace that was attached before pays it.
    if has_table(&channel, TABLE)? {
        transaction.delete_table(TABLE);
    }
    transaction.table(TABLE);
    for (chain, priority) in [("answers", -300), ("questions", -100)] {
        transaction.chain(TABLE, chain, Some(Hook { kind: Kind::Filter, number: OUTPUT, priority }));
    }
    for (protocol, checksum, own) in [(Protocol::Udp, 6, udp.port()), (Protocol::Tcp, 16, tcp.port())] {
        let is = || Rule::new().meta(Key::L4Proto).eq(&[protocol.number()]);
        let answer = is().load(payload::IP_SOURCE).eq(&ADDRESS.octets());
        let answer = answer.load(payload::SOURCE_PORT).eq(&own.to_be_bytes());
        transaction.rule(TABLE, "answers", &answer.set_port(payload::SOURCE_PORT, PORT, checksum));
        let question = is().load(payload::IP_DESTINATION).eq(&ADDRESS.octets());
        let question = question.load(payload::DESTINATION_PORT).eq(&PORT.to_be_bytes());
        transaction.rule(TABLE, "questions", &question.set_port(payload::DESTINATION_PORT, own, checksum));
    }
    transaction.commit(&channel)
}
