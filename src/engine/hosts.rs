//! What a container finds in `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`.

use std::net::IpAddr;

use ipnet::IpNet;

use super::state::Record;
use crate::net::files::{self, ResolvConf};

/// The resolver inside every container.
const RESOLVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11));

/// Where programs find their resolver, on the host and in containers.
pub(crate) const RESOLV_CONF: &str = "/etc/resolv.conf";

/// In `extra_hosts`: the host, as the container's network sees it.
const GATEWAY: &str = "host-gateway";

/// The three files, by path.
pub(crate) fn files(record: &Record) -> Vec<(&'static str, String)> {
    let addresses = addresses(record);
    let service = &record.config;
    let mut names = vec![record.hostname.clone()];
    if let Some(domain) = &service.domainname {
        names.insert(0, format!("{}.{domain}", record.hostname));
    }
    vec![
        ("/etc/hosts", files::hosts(&names, &addresses, &extra_hosts(record))),
        ("/etc/hostname", format!("{}\n", record.hostname)),
        (RESOLV_CONF, resolv_conf(record, &host_resolver())),
    ]
}

/// A container's addresses, in order of attachment.
pub(crate) fn addresses(record: &Record) -> Vec<IpAddr> {
    let parse = |text: &String| text.parse::<IpNet>().ok().map(|net| net.addr());
    record.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter().filter_map(parse)).collect()
}

/// Whether the container asked for the way to the host's own services.
pub(crate) fn reaches_host(record: &Record) -> bool {
    record.config.extra_hosts.iter().any(|entry| entry.ends_with(GATEWAY))
}

/// `host=address` entries; `host-gateway` is the host's own address on the container's network, of each family.
fn extra_hosts(record: &Record) -> Vec<(String, IpAddr)> {
    let gateways = || record.endpoints.iter().flat_map(|endpoint| &endpoint.gateways);
    let entry = |text: &String| {
        let (host, address) = text.split_once(['=', ':'])?;
        let addresses: Vec<IpAddr> = match address.trim_matches(['[', ']']) {
            GATEWAY => gateways().filter_map(|gateway| gateway.parse().ok()).collect(),
            address => vec![address.parse().ok()?],
        };
        let host = host.to_owned();
        Some(addresses.into_iter().map(move |address| (host.clone(), address)))
    };
    record.config.extra_hosts.iter().filter_map(entry).flatten().collect()
}

/// A container's `/etc/resolv.conf`, where the host's is `host`.
pub(crate) fn resolv_conf(record: &Record, host: &ResolvConf) -> String {
    let service = &record.config;
    let servers: Vec<IpAddr> = match record.joins.net.as_deref() {
        None => vec![RESOLVER],
        _ if !service.dns.is_empty() => service.dns.iter().filter_map(|server| server.parse().ok()).collect(),
        Some("host") => host.servers.clone(),
        _ => Vec::new(),
    };
    let search = if service.dns_search.is_empty() { &host.search } else { &service.dns_search };
    let search: Vec<String> = search.iter().filter(|domain| *domain != ".").cloned().collect();
    let mut options = if service.dns_opt.is_empty() { &host.options } else { &service.dns_opt }.clone();
    let is_own = service.dns_opt.is_empty() && record.joins.net.is_none();
    if is_own && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    files::resolv_conf(&servers, &search, &options)
}

/// The host's resolver configuration; empty where there is none.
pub(crate) fn host_resolver() -> ResolvConf {
    ResolvConf::parse(&fs_err::read_to_string(RESOLV_CONF).unwrap_or_default())
}
