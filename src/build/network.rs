//! The network of RUN steps: a bridge of the build's own, with a way out, that goes with the build.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::error::Error;
use crate::images::Digest;
use crate::net::files::ResolvConf;
use crate::net::ipam::{Ipam, LeaseRequest, NetworkRequest};
use crate::net::{Bridge, Endpoint, Host, Outward};
use crate::sys::process::start_time;

/// Begins the alias of every build's bridge; the builder's pid and start time follow.
const ALIAS: &str = "stack build ";
/// Where a host with a resolver of its own on loopback names the real servers.
const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// A build's bridge. Dropping it removes the bridge.
#[derive(Debug)]
pub(crate) struct Bridged {
    host: Host,
    ipam: Ipam,
    bridge: Bridge,
    veth: String,
}

impl Bridged {
    /// Makes the bridge, after removing those of builds that are gone.
    pub(crate) fn new(lib: &Path) -> Result<Self, Error> {
        let host = Host::current();
        let ipam = Ipam::open(&lib.join("networks"))?;
        sweep(&host, &ipam);
        let pid = std::process::id().cast_signed();
        let alias = format!("{ALIAS}{pid} {}", start_time(pid).unwrap_or(0));
        let serial = crate::images::Digest::of(format!("{alias} {}", lib.display()).as_bytes());
        let unique = unique(&serial);
        let name = format!("stb{unique}");
        let request = NetworkRequest {
            name: name.clone(),
            owner: "build".to_owned(),
            bridge: name.clone(),
            pools: Vec::new(),
            ipv4: true,
            ipv6: false,
        };
        let subnets = ipam.allocate(&request, &host.busy()?)?;
        let bridge = Bridge {
            name,
            alias,
            subnets,
            internal: false,
            mtu: None,
            icc: false,
            masquerade: true,
            outward: Outward::default(),
        };
        let made = Self { host, ipam, bridge, veth: format!("stv{unique}") };
        made.host.ensure_bridge(&made.bridge)?;
        Ok(made)
    }

    /// Connects a step's namespace.
    pub(crate) fn attach(&self, netns: BorrowedFd<'_>) -> Result<(), Error> {
        let lease = LeaseRequest { owner: "step".to_owned(), ipv4: None, ipv6: None };
        let addresses = self.ipam.lease(&self.bridge.name, &lease)?;
        let endpoint = Endpoint {
            bridge: self.bridge.name.clone(),
            ifname: "eth0".to_owned(),
            host_ifname: self.veth.clone(),
            addresses,
            gateways: self.bridge.subnets.iter().filter_map(|subnet| subnet.gateway).collect(),
            mac: None,
            settings: Vec::new(),
        };
        self.host.attach(netns, &[endpoint], false)?;
        Ok(())
    }

    /// Forgets a step's connection once its namespace is gone.
    pub(crate) fn detach(&self) -> Result<(), Error> {
        let addresses = self.host.detach(std::slice::from_ref(&self.veth))?;
        Ok(self.host.forget_connections(addresses)?)
    }
}

impl Drop for Bridged {
    fn drop(&mut self) {
        let _ = self.detach();
        let _ = self.host.remove_bridge(&self.bridge.name);
        let _ = self.ipam.release_network(&self.bridge.name);
    }
}

/// Two builds of one process at once must not share a name.
fn unique(digest: &Digest) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("{}{serial:x}", &digest.hex()[..8])
}

fn sweep(host: &Host, ipam: &Ipam) {
    for (name, alias) in host.bridges().unwrap_or_default() {
        let Some((pid, start)) = alias.strip_prefix(ALIAS).and_then(|rest| rest.split_once(' ')) else { continue };
        let (Ok(pid), Ok(start)) = (pid.parse(), start.parse::<u64>()) else { continue };
        if start_time(pid).ok() != Some(start) {
            let _ = host.remove_bridge(&name);
            let _ = ipam.release_network(&name);
        }
    }
}

/// The host's `/etc/resolv.conf`; for a namespace of its own without servers on loopback, which it could not reach.
pub(crate) fn resolv_conf(own_namespace: bool) -> Vec<u8> {
    let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let text = read("/etc/resolv.conf");
    if !own_namespace {
        return text.into_bytes();
    }
    let reachable = |text: &str| {
        let mut conf = ResolvConf::parse(text);
        conf.servers.retain(|server| !server.is_loopback());
        conf
    };
    let mut conf = reachable(&text);
    if conf.servers.is_empty() {
        conf.servers = reachable(&read(UPSTREAM)).servers;
    }
    crate::net::files::resolv_conf(&conf.servers, &conf.search, &conf.options).into_bytes()
}
