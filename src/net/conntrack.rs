//! Forgetting connections that the kernel tracks.
//!
//! A datagram flow keeps the destination that its first packet got, as long as packets come: after a container is gone,
//! or a port is published anew, they would go on to an address that another stack may have by then.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::Error;
use super::netlink::{ACK, Batch, Channel, DUMP, Reply, attributes};
use super::ruleset::address;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
/// Of a status: the destination was changed.
const DESTINATION_CHANGED: u32 = 1 << 5;

/// What makes a connection worth forgetting.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Addresses of containers, in any role.
    pub(super) addresses: Vec<IpAddr>,
    /// Protocol and port that were asked for.
    pub(super) ports: Vec<(u8, u16)>,
    /// Networks, as far as somebody outside of one came in by no published port.
    pub(super) closed: Vec<IpNet>,
}

/// Forgets connections. A kernel that tracks none, or lets nobody look, has nothing to forget.
pub(super) fn forget(channel: &Channel, stale: &Stale) -> Result<(), Error> {
    if (stale.addresses.is_empty() && stale.ports.is_empty() && stale.closed.is_empty()) || tracks_nothing() {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.add("list the tracked connections", SUBSYSTEM | GET, DUMP, &[0; 4], |_| {});
    let Ok(flows) = channel.dump(&batch) else { return Ok(()) };
    for flow in flows.iter().filter(|flow| is_stale(flow, stale)) {
        let mut batch = Batch::default();
        let header = [flow.payload[0], 0, 0, 0];
        batch.add("forget a tracked connection", SUBSYSTEM | DELETE, ACK, &header, |message| {
            for (kind, value) in attributes(&flow.payload[4..]) {
                match kind {
                    ORIGINAL => {
                        message.nest(kind, |tuple| {
                            tuple.raw(value);
                        });
                    }
                    ID => {
                        message.put(kind, value);
                    }
                    _ => {}
                }
            }
        });
        match channel.execute(&batch) {
            // It ended by itself.
            Err(Error::Netlink { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Listing connections goes through the whole table, some 9 ms, even if it is empty.
fn tracks_nothing() -> bool {
    fs_err::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").is_ok_and(|count| count.trim() == "0")
}

fn is_stale(flow: &Reply, stale: &Stale) -> bool {
    let parts = || attributes(flow.payload.get(4..).unwrap_or_default());
    let status = parts().find(|(kind, _)| *kind == STATUS).and_then(|(_, value)| value.try_into().ok());
    let published = status.map_or(0, u32::from_be_bytes) & DESTINATION_CHANGED != 0;
    parts().filter(|(kind, _)| matches!(*kind, ORIGINAL | REPLY)).any(|(kind, tuple)| {
        let part =
            |wanted| attributes(tuple).find(|(kind, _)| *kind == wanted).map(|(_, value)| value).unwrap_or_default();
        let ends: Vec<IpAddr> = attributes(part(TUPLE_IP)).filter_map(|(_, octets)| address(octets)).collect();
        let with_container = ends.iter().any(|end| stale.addresses.contains(end));
        let field = |wanted| attributes(part(TUPLE_PROTOCOL)).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let for_port = || {
            let mut ports = stale.ports.iter();
            ports.any(|(number, port)| field(1) == Some(&[*number][..]) && field(3) == Some(&port.to_be_bytes()[..]))
        };
        // The source stands before the destination.
        let enters =
            |network: &IpNet| matches!(&ends[..], [from, to] if network.contains(to) && !network.contains(from));
        let intrudes = || !published && stale.closed.iter().any(enters);
        with_container || (kind == ORIGINAL && (for_port() || intrudes()))
    })
}
