//! Options of the bridge driver, by the names that Docker has for them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::control::Failure;
use crate::net::{Gateway, Outward};

const PREFIX: &str = "com.docker.network.";

/// What a network's `driver_opts` ask for.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Name of the bridge.
    pub(crate) bridge: Option<String>,
    /// Largest packet.
    pub(crate) mtu: Option<u32>,
    /// Members may talk to each other.
    pub(crate) icc: Option<bool>,
    /// Traffic to outside gets the host's address.
    pub(crate) masquerade: Option<bool>,
    /// How the network and the world meet.
    pub(crate) outward: Outward,
    /// Address families (whether IPv4) in which the host has no address on the network, and is no gateway.
    pub(crate) isolated: Vec<bool>,
    /// The bridge gets no IPv4 address; somebody else has the gateway's.
    pub(crate) inhibit_ipv4: bool,
    /// Begins the names of interfaces inside.
    pub(crate) interface_prefix: Option<String>,
    /// Address families, where the network itself says nothing.
    pub(crate) enable_ipv4: Option<bool>,
    /// The same.
    pub(crate) enable_ipv6: Option<bool>,
    /// Options that mean nothing here.
    pub(crate) unknown: Vec<String>,
}

impl Options {
    /// Reads the options of the network `name`.
    pub(crate) fn parse(name: &str, options: &BTreeMap<String, String>, internal: bool) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        for (key, value) in options {
            parsed.set(key, value, internal).map_err(|failure| Failure {
                message: format!("network {name}: {key}: {}", failure.message),
                ..failure
            })?;
        }
        Ok(parsed)
    }

    fn set(&mut self, key: &str, value: &str, internal: bool) -> Result<(), Failure> {
        match key.strip_prefix(PREFIX).unwrap_or(key) {
            "bridge.name" | "bridge_name" => self.bridge = Some(value.to_owned()),
            "driver.mtu" | "mtu" => {
                let mtu = value.parse().map_err(|_| Failure::new(format!("{value:?} is no number of bytes")));
                self.mtu = Some(mtu?);
            }
            "bridge.enable_icc" | "icc" => self.icc = Some(boolean(value)?),
            "bridge.enable_ip_masquerade" | "masquerade" => self.masquerade = Some(boolean(value)?),
            // `modes` gives it to the ports of services.
            "bridge.host_binding_ipv4" => drop(address(value, true)?),
            "bridge.gateway_mode_ipv4" => self.set_mode(value, true, internal)?,
            "bridge.gateway_mode_ipv6" => self.set_mode(value, false, internal)?,
            "bridge.trusted_host_interfaces" => {
                self.outward.trusted = value.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            }
            "bridge.inhibit_ipv4" => self.inhibit_ipv4 = boolean(value)?,
            "host_ipv4" => self.outward.sources.push(address(value, true)?),
            "host_ipv6" => self.outward.sources.push(address(value, false)?),
            "container_iface_prefix" | "container_interface_prefix" => self.interface_prefix = Some(value.to_owned()),
            "enable_ipv4" => self.enable_ipv4 = Some(boolean(value)?),
            "enable_ipv6" => self.enable_ipv6 = Some(boolean(value)?),
            // Docker's own default network has it; there is none here.
            "bridge.default_bridge" => {}
            _ => self.unknown.push(key.to_owned()),
        }
        Ok(())
    }

    fn set_mode(&mut self, value: &str, ipv4: bool, internal: bool) -> Result<(), Failure> {
        let mode = match value {
            "" | "nat" => Gateway::Nat,
            "nat-unprotected" => Gateway::Unprotected,
            "routed" => Gateway::Routed,
            "isolated" if internal => {
                self.isolated.push(ipv4);
                return Ok(());
            }
            "isolated" => {
                return Err(Failure::new("isolated is for internal networks").hint("say `internal: true`, too"));
            }
            other => {
                return Err(Failure::new(format!("{other:?} is no gateway mode"))
                    .hint("one of `nat`, `nat-unprotected`, `routed` and `isolated`"));
            }
        };
        *(if ipv4 { &mut self.outward.ipv4 } else { &mut self.outward.ipv6 }) = mode;
        Ok(())
    }
}

/// What an attachment's `driver_opts` ask of its interface.
#[derive(Debug)]
pub(crate) struct Interface {
    /// Its name inside.
    pub(crate) name: Option<String>,
    /// Kernel settings: names below `net` with `IFNAME` in the place of its own, and their values.
    pub(crate) settings: Vec<(String, String)>,
}

/// Reads the options of an attachment.
pub(crate) fn of_interface(options: &BTreeMap<String, String>) -> Result<Interface, Failure> {
    let option = |key: &str| options.get(&format!("{PREFIX}endpoint.{key}")).filter(|value| !value.is_empty());
    let setting = |text: &str| {
        let (name, value) = text.split_once('=').filter(|(name, _)| is_of_interface(name)).ok_or_else(|| {
            Failure::new(format!("{PREFIX}endpoint.sysctls: {text:?} is no setting of an interface"))
                .hint("write it as `net.ipv4.conf.IFNAME.log_martians=1`, several with commas between them")
        })?;
        Ok((name.trim_start_matches("net.").to_owned(), value.to_owned()))
    };
    let settings =
        option("sysctls").map(|text| text.split(',').map(setting).collect::<Result<_, Failure>>()).transpose()?;
    Ok(Interface { name: option("ifname").cloned(), settings: settings.unwrap_or_default() })
}

/// `net.ipv4.conf.IFNAME.…`, as Docker has it.
fn is_of_interface(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
    };
    matches!(parts.as_slice(), ["net", family, kind, "IFNAME", key]
        if matches!(*family, "ipv4" | "ipv6" | "mpls") && matches!(*kind, "conf" | "neigh") && plain(key))
}

/// As Go reads it.
fn boolean(value: &str) -> Result<bool, Failure> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(Failure::new(format!("{other:?} is neither `true` nor `false`"))),
    }
}

fn address(value: &str, ipv4: bool) -> Result<IpAddr, Failure> {
    let family = if ipv4 { "IPv4" } else { "IPv6" };
    let parsed = value.parse().ok().filter(|address: &IpAddr| address.is_ipv4() == ipv4);
    parsed.ok_or_else(|| Failure::new(format!("{value:?} is no {family} address")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(key: &str, value: &str) -> Result<Options, Failure> {
        Options::parse("n", &BTreeMap::from([(format!("{PREFIX}{key}"), value.to_owned())]), false)
    }

    #[test]
    fn options_are_read_or_refused() {
        assert_eq!(parse("bridge.gateway_mode_ipv6", "routed").unwrap().outward.ipv6, Gateway::Routed);
        assert_eq!(parse("bridge.enable_icc", "F").unwrap().icc, Some(false));
        assert_eq!(parse("bridge.trusted_host_interfaces", "a:b").unwrap().outward.trusted, ["a", "b"]);
        assert_eq!(parse("bridge.something", "1").unwrap().unknown, ["com.docker.network.bridge.something"]);
        for (key, value) in [
            ("bridge.gateway_mode_ipv4", "isolated"),
            ("bridge.gateway_mode_ipv4", "bridged"),
            ("bridge.enable_icc", "perhaps"),
            ("driver.mtu", "big"),
            ("host_ipv4", "::1"),
            ("bridge.host_binding_ipv4", "everywhere"),
        ] {
            let message = parse(key, value).unwrap_err().message;
            assert!(message.starts_with(&format!("network n: {PREFIX}{key}: ")), "{message}");
        }
    }

    #[test]
    fn settings_of_interfaces_are_no_paths() {
        let ask = |text: &str| of_interface(&BTreeMap::from([(format!("{PREFIX}endpoint.sysctls"), text.to_owned())]));
        let settings = ask("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0").unwrap().settings;
        assert_eq!(settings[0], ("ipv4.conf.IFNAME.log_martians".to_owned(), "1".to_owned()));
        assert_eq!(settings.len(), 2);
        for text in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.forwarding=1",
            "net.ipv4.conf.IFNAME.a/b=1",
            "kernel.panic=1",
            "x",
        ] {
            assert!(ask(text).is_err(), "{text}");
        }
    }
}
