//! Checks of networks, volumes, configs and secrets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::diagnostic::Kind;
use super::model::{FileObject, Project};
use super::node::Node;
use super::session::Session;

/// Checks every top-level resource.
pub(crate) fn check(session: &mut Session<'_>, tree: &Node, project: &Project) {
    files(session, tree, "configs", &project.configs);
    files(session, tree, "secrets", &project.secrets);
    external_volumes(session, tree);
    for (key, network) in &project.networks {
        for (index, pool) in network.ipam.iter().flat_map(|ipam| &ipam.config).enumerate() {
            let path = ["networks", key, "ipam", "config", &index.to_string(), "subnet"];
            if let Some(Err(problem)) = pool.subnet.as_deref().map(subnet) {
                let message = format!("network `{key}`: {problem}");
                session.refuse(Kind::Value, tree.locate(&path), &message, "the stack cannot be started with it");
            }
        }
    }
    addresses(session, tree, project);
}

/// Exactly one source each.
fn files(session: &mut Session<'_>, tree: &Node, what: &str, objects: &BTreeMap<String, FileObject>) {
    let singular = what.trim_end_matches('s');
    for (key, object) in objects.iter().filter(|(_, object)| !object.external) {
        let sources = [
            ("file", object.file.is_some()),
            ("environment", object.environment.as_ref().is_some_and(|name| !name.is_empty())),
            ("content", object.content.is_some()),
        ];
        let given: Vec<&str> = sources.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect();
        if given.is_empty() && object.environment.is_some() {
            let message = format!("{singular} `{key}`: `environment` is blank");
            let span = tree.locate(&[what, key, "environment"]);
            session.refuse(Kind::Value, span, &message, "name the variable that holds it");
            continue;
        }
        let possible = if what == "configs" { "`file`, `environment` or `content`" } else { "`file` or `environment`" };
        match given.as_slice() {
            [] => {
                let message = format!("{singular} `{key}` lacks its source");
                session.error_hint(
                    Kind::Shape,
                    tree.locate(&[what, key]),
                    message,
                    format!("give it one of {possible}"),
                );
            }
            [_, second, ..] => {
                let message = format!("{singular} `{key}` has more than one source: {}", given.join(", "));
                session.error_hint(
                    Kind::Conflict,
                    tree.locate_key(&[what, key, second]),
                    message,
                    format!("keep one of {possible}"),
                );
            }
            _ => {}
        }
    }
}

/// An external volume is somebody else's: nothing but its name can be said about it.
fn external_volumes(session: &mut Session<'_>, tree: &Node) {
    let Some(volumes) = tree.get("volumes").and_then(Node::as_map) else { return };
    for (key, entry) in volumes {
        let Some(map) = entry.node.as_map() else { continue };
        if entry.node.get("external").is_none_or(|external| external.to_json() != true) {
            continue;
        }
        let foreign =
            map.iter().find(|(name, _)| !matches!(name.as_str(), "name" | "external") && !name.starts_with("x-"));
        if let Some((name, other)) = foreign {
            let message = format!("volume `{key}` is external, so `{name}` cannot be set here");
            session.error(Kind::Conflict, other.key, message);
        }
    }
}

/// A network of addresses that containers can have.
fn subnet(text: &str) -> Result<(IpAddr, u8), String> {
    let bad = || format!("`{text}` is no subnet; write an address and a length such as 10.9.0.0/24");
    let (address, length) = text.split_once('/').ok_or_else(bad)?;
    let (address, length): (IpAddr, u8) = (address.parse().map_err(|_| bad())?, length.parse().map_err(|_| bad())?);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    if length > bits {
        return Err(bad());
    }
    let special = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4 == Ipv4Addr::UNSPECIFIED,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_multicast() || v6.is_unspecified(),
    };
    if special || length == 0 {
        return Err(format!("`{text}` holds addresses that containers cannot have"));
    }
    if length + 2 > bits {
        return Err(format!("`{text}` has no room for a gateway and a container"));
    }
    Ok((address, length))
}

fn contains(pool: (IpAddr, u8), address: IpAddr) -> bool {
    let shifted = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) >> (32 - u32::from(pool.1)),
        IpAddr::V6(v6) => u128::from(v6).checked_shr(128 - u32::from(pool.1)).unwrap_or(0),
    };
    pool.0.is_ipv4() == address.is_ipv4() && shifted(pool.0) == shifted(address)
}

/// Static addresses are addresses, and lie in a subnet of their network where it names subnets.
fn addresses(session: &mut Session<'_>, tree: &Node, project: &Project) {
    for (name, service) in &project.services {
        for (key, attachment) in &service.networks {
            let Some(attachment) = attachment else { continue };
            let fixed = [("ipv4_address", &attachment.ipv4_address), ("ipv6_address", &attachment.ipv6_address)];
            for (attribute, text) in fixed.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
                let span = tree.locate(&["services", name, "networks", key, attribute]);
                let wanted_v4 = attribute == "ipv4_address";
                let Some(address) = text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == wanted_v4) else {
                    let message = format!("service `{name}`: `{text}` is no {attribute}");
                    session.refuse(Kind::Value, span, &message, "the stack cannot be started with it");
                    continue;
                };
                let pools =
                    project.networks.get(key).and_then(|network| network.ipam.as_ref()).map(|ipam| &ipam.config);
                let pools: Vec<(IpAddr, u8)> = pools
                    .into_iter()
                    .flatten()
                    .filter_map(|pool| subnet(pool.subnet.as_deref()?).ok())
                    .filter(|pool| pool.0.is_ipv4() == wanted_v4)
                    .collect();
                if !pools.is_empty() && !pools.iter().any(|pool| contains(*pool, address)) {
                    let message = format!("service `{name}`: `{text}` is outside the subnets of network `{key}`");
                    session.refuse(Kind::Conflict, span, &message, "the stack cannot be started with it");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets() {
        for good in ["10.9.0.0/24", "172.16.238.0/30", "fd00::/64"] {
            assert!(subnet(good).is_ok(), "{good}");
        }
        for bad in ["127.0.0.0/8", "0.0.0.0/0", "10.9.0.0/31", "10.0.0.0/99", "x", "224.0.0.0/8", "::1/128"] {
            assert!(subnet(bad).is_err(), "{bad}");
        }
        let pool = subnet("10.9.0.0/24").unwrap();
        assert!(contains(pool, "10.9.0.200".parse().unwrap()) && !contains(pool, "10.8.0.9".parse().unwrap()));
    }
}
