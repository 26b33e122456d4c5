//! Kernel settings: forwarding where networks need it and nowhere else, and what a network asks for its interfaces.
//!
//! IPv4 is forwarded per interface: our bridges and the uplinks. Where the host forwarded nothing before, the firewall
//! keeps uplinks from forwarding anything that isn't for a bridge. IPv6 is switched per interface where the kernel can
//! (`force_forwarding`), otherwise for the host, keeping the router advertisements that give the host its own route.

use std::collections::BTreeSet;
use std::path::Path;

use fs_err as fs;

use super::error::Error;
use super::link::{Link, Reach};

const SYSCTL: &str = "/proc/sys/net";
const FORCE_FORWARDING: &str = "ipv6/conf/all/force_forwarding";

/// Whether the kernel speaks IPv6.
pub(super) fn has_ipv6() -> bool {
    Path::new(SYSCTL).join("ipv6").exists()
}

/// Whether frames inside of bridges pass the IP rules (`br_netfilter`).
pub(super) fn bridges_are_filtered() -> bool {
    read("bridge/bridge-nf-call-iptables").is_ok_and(|value| value == "1")
}

/// Whether the kernel switches the forwarding of IPv6 by interface, not only for the whole host.
pub(super) fn switches_ipv6_singly() -> bool {
    Path::new(SYSCTL).join(FORCE_FORWARDING).exists()
}

/// Whether the host forwards IPv4 between all its interfaces.
pub(super) fn host_forwards_ipv4() -> bool {
    read("ipv4/ip_forward").is_ok_and(|value| value == "1")
}

/// Interfaces of the namespace that lead to other hosts: those with a route; loopback, our bridges and their ports aside.
pub(super) fn uplinks(links: &[Link], routes: &[Reach], is_ours: impl Fn(&Link) -> bool) -> BTreeSet<String> {
    let routed: BTreeSet<u32> = routes.iter().map(|route| route.index).collect();
    let ours: BTreeSet<u32> = links.iter().filter(|link| is_ours(link)).map(|link| link.index).collect();
    let is_inside = |link: &Link| ours.contains(&link.index) || ours.contains(&link.master);
    let leads_out = |link: &&Link| routed.contains(&link.index) && link.name != "lo" && !is_inside(link);
    links.iter().filter(leads_out).map(|link| link.name.clone()).collect()
}

/// Lets the uplinks forward IPv4. Returns those that forward on our account alone: none if the host forwards anyway.
pub(super) fn forward_ipv4(uplinks: &BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
    if read("ipv4/ip_forward")? == "1" {
        return Ok(BTreeSet::new());
    }
    for uplink in uplinks {
        if_there(write_changed(&format!("ipv4/conf/{uplink}/forwarding"), "1"))?;
    }
    Ok(uplinks.clone())
}

/// Those of the uplinks that forward IPv4 on our account alone already.
pub(super) fn borrowed_ipv4(uplinks: &BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
    if read("ipv4/ip_forward")? == "1" {
        return Ok(BTreeSet::new());
    }
    let forwards = |uplink: &&String| read(&format!("ipv4/conf/{uplink}/forwarding")).is_ok_and(|value| value == "1");
    Ok(uplinks.iter().filter(forwards).cloned().collect())
}

/// Lets a bridge and the uplinks forward IPv6.
pub(super) fn forward_ipv6(bridge: &str, uplinks: &BTreeSet<String>) -> Result<(), Error> {
    let interfaces = || uplinks.iter().map(String::as_str).chain([bridge]);
    if switches_ipv6_singly() {
        let forward = |name| if_there(write_changed(&format!("ipv6/conf/{name}/force_forwarding"), "1"));
        return interfaces().try_for_each(forward);
    }
    if read("ipv6/conf/all/forwarding")? == "1" {
        return Ok(());
    }
    for uplink in uplinks {
        let key = format!("ipv6/conf/{uplink}/accept_ra");
        if read(&key).is_ok_and(|value| value == "1") {
            if_there(write_changed(&key, "2"))?;
        }
    }
    write_changed("ipv6/conf/all/forwarding", "1")
}

/// Sets kernel settings of an interface in the calling thread's namespace: names below `net`, such as
/// `ipv4.conf.IFNAME.log_martians`.
pub(super) fn set(ifname: &str, settings: &[(String, String)]) -> Result<(), Error> {
    settings.iter().try_for_each(|(name, value)| {
        let parts: Vec<_> = name.split('.').map(|part| if part == "IFNAME" { ifname } else { part }).collect();
        let path = Path::new(SYSCTL).join(parts.join("/"));
        fs::write(path, value).map_err(Error::system(format!("set net.{name} of {ifname} to {value:?}")))
    })
}

/// An interface that has gone meanwhile needs no setting.
fn if_there(written: Result<(), Error>) -> Result<(), Error> {
    match written {
        Err(Error::System { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn read(key: &str) -> Result<String, Error> {
    let text = fs::read_to_string(Path::new(SYSCTL).join(key)).map_err(Error::system("read a kernel setting"))?;
    Ok(text.trim().to_owned())
}

fn write_changed(key: &str, value: &str) -> Result<(), Error> {
    if read(key)? == value {
        return Ok(());
    }
    fs::write(Path::new(SYSCTL).join(key), value).map_err(Error::system("change a kernel setting"))
}
