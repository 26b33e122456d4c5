//! Short syntax of ports: `[ip:][published:]target[/protocol]`.

use std::net::IpAddr;

use super::limits;

/// One published port of a short entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShortPort {
    pub(crate) host_ip: Option<String>,
    pub(crate) target: u16,
    pub(crate) published: Option<String>,
    pub(crate) protocol: String,
}

/// Why a port entry cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PortError {
    #[error("the port is empty")]
    Empty,
    #[error("`{0}` is no port number")]
    Number(String),
    #[error("port {0} is above 65535")]
    TooHigh(String),
    #[error("port 0 cannot be a container's port")]
    Zero,
    #[error("the range `{0}` runs backwards")]
    Reversed(String),
    #[error("{published} published ports for {target} container ports; both ranges must be equally long")]
    Lengths { published: usize, target: usize },
    #[error("{0} ports in one entry; at most {most} are allowed", most = limits::PORTS_PER_ENTRY)]
    TooMany(usize),
    #[error("unknown protocol `{0}`; tcp, udp and sctp are known")]
    Protocol(String),
    #[error("`{0}` is no IP address")]
    Address(String),
    #[error("too many colons; the form is [ip:][published:]target[/protocol], an IPv6 address goes in brackets")]
    Colons,
}

/// Reads a short entry, which may stand for several ports.
pub(crate) fn parse(text: &str) -> Result<Vec<ShortPort>, PortError> {
    let (address, protocol) = match text.split_once('/') {
        Some((address, "")) => (address, "tcp".to_owned()),
        Some((address, protocol)) => (address, self::protocol(protocol)?),
        None => (text, "tcp".to_owned()),
    };
    let (host_ip, ports) = host_ip(address)?;
    let (published, target) = match ports.rsplit_once(':') {
        Some((published, target)) => (Some(published).filter(|text| !text.is_empty()), target),
        None => (None, ports),
    };
    let targets = range(target)?;
    if targets.0 == 0 {
        return Err(PortError::Zero);
    }
    let length = |range: (u16, u16)| usize::from(range.1 - range.0) + 1;
    if length(targets) > limits::PORTS_PER_ENTRY {
        return Err(PortError::TooMany(length(targets)));
    }
    let published = published.map(range).transpose()?;
    let entry = |target, published: Option<String>| ShortPort {
        host_ip: host_ip.clone(),
        target,
        published,
        protocol: protocol.clone(),
    };
    Ok(match published {
        None => (targets.0..=targets.1).map(|target| entry(target, None)).collect(),
        Some(ports) if length(ports) == length(targets) => {
            (targets.0..=targets.1).zip(ports.0..).map(|(target, port)| entry(target, Some(port.to_string()))).collect()
        }
        Some(ports) if length(targets) == 1 => vec![entry(targets.0, Some(format!("{}-{}", ports.0, ports.1)))],
        Some(ports) => return Err(PortError::Lengths { published: length(ports), target: length(targets) }),
    })
}

/// Checks the `published` of a long entry: a port or a range.
pub(crate) fn published(text: &str) -> Result<(), PortError> {
    range(text).map(|_| ())
}

/// A known protocol, in lower case.
pub(crate) fn protocol(text: &str) -> Result<String, PortError> {
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "tcp" | "udp" | "sctp") { Ok(lower) } else { Err(PortError::Protocol(text.into())) }
}

/// Cuts `ip:` off; the rest is `[published:]target`.
fn host_ip(text: &str) -> Result<(Option<String>, &str), PortError> {
    let address = |ip: &str| ip.parse::<IpAddr>().map(|ip| ip.to_string()).map_err(|_| PortError::Address(ip.into()));
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest.split_once(']').ok_or_else(|| PortError::Address(text.into()))?;
        let rest = rest.strip_prefix(':').ok_or(PortError::Colons)?;
        return Ok((Some(address(ip)?), rest));
    }
    match text.matches(':').count() {
        0 | 1 => Ok((None, text)),
        2 => {
            let (ip, rest) = text.split_once(':').unwrap_or((text, ""));
            Ok((Some(address(ip)?), rest))
        }
        _ => Err(PortError::Colons),
    }
}

/// `n` or `n-m`.
fn range(text: &str) -> Result<(u16, u16), PortError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if last < first { Err(PortError::Reversed(text.into())) } else { Ok((first, last)) }
}

fn number(text: &str) -> Result<u16, PortError> {
    if text.is_empty() {
        return Err(PortError::Empty);
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(PortError::Number(text.into()));
    }
    text.parse().map_err(|_| PortError::TooHigh(text.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(text: &str) -> String {
        let show = |port: &ShortPort| {
            let ip = port.host_ip.as_ref().map(|ip| format!("{ip}|")).unwrap_or_default();
            let published = port.published.as_ref().map(|port| format!("{port}>")).unwrap_or_default();
            format!("{ip}{published}{}/{}", port.target, port.protocol)
        };
        match parse(text) {
            Ok(ports) => ports.iter().map(show).collect::<Vec<_>>().join(" "),
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("80", "80/tcp"),
            ("8080:80", "8080>80/tcp"),
            ("53:53/UDP", "53>53/udp"),
            ("127.0.0.1::80", "127.0.0.1|80/tcp"),
            ("[::1]:80:80", "::1|80>80/tcp"),
            ("3000-3001", "3000/tcp 3001/tcp"),
            ("90-91:80-81", "90>80/tcp 91>81/tcp"),
            ("8000-8010:80", "8000-8010>80/tcp"),
        ] {
            assert_eq!(show(text), expected, "{text}");
        }
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "70000:80",
            "80:70000",
            "80:80/foo",
            "-1:80",
            "90-80",
            "1:2:3:4",
            "80-82:90-91",
            "::80",
            "a:b",
            "1e3:80",
            "256.0.0.1:80:80",
            "[::1:80:80",
            "\u{ff18}:80",
            "80:80/tcp/udp",
            " 80:80",
            "1-65535:1-65535",
            "0",
        ] {
            assert!(show(text).starts_with('!'), "{text}: {}", show(text));
        }
        assert_eq!(show("99999:80"), "! port 99999 is above 65535");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[0-9a-z:./\\-\\[\\]]{0,30}") {
            let _ = parse(&text);
        }
    }
}
