//! What a host's network can do, tried out in a namespace of its own, and what other firewalls make of it.

use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use ipnet::IpNet;

use super::attach::Endpoint;
use super::bridge::{Bridge, Outward, Subnet};
use super::error::Error;
use super::host::Host;
use super::{beside, forwarding};
use crate::sys::netns;

/// What [`Host::survey`] found.
#[derive(Debug)]
pub struct Survey {
    /// Whether a bridge with its firewall rules can be made.
    pub bridge: Result<(), Error>,
    /// Whether a container can be attached to it.
    pub attachment: Result<(), Error>,
    /// Whether the kernel speaks IPv6.
    pub ipv6: bool,
    /// Whether it lets single interfaces forward IPv6.
    pub forwards_ipv6_singly: bool,
    /// Whether the host forwards IPv4 already; where not, single interfaces are made to.
    pub forwards_ipv4: bool,
    /// Whether frames inside of bridges pass the IP rules.
    pub filters_bridges: bool,
    /// Chains of others that drop what is forwarded, and where each of them takes rules of ours, if anywhere.
    pub drops: Vec<(String, Option<String>)>,
}

impl Host {
    /// Looks, and changes nothing.
    pub fn survey(&self) -> Result<Survey, Error> {
        let (bridge, attachment) = match attempt() {
            (Ok(()), attachment) => (Ok(()), attachment),
            (bridge, _) => (bridge, Ok(())),
        };
        Ok(Survey {
            bridge,
            attachment,
            ipv6: forwarding::has_ipv6(),
            forwards_ipv6_singly: forwarding::switches_ipv6_singly(),
            forwards_ipv4: forwarding::host_forwards_ipv4(),
            filters_bridges: forwarding::bridges_are_filtered(),
            drops: self.with_firewall(beside::dropping)?,
        })
    }
}

/// Makes a network and attaches a namespace, both out of sight.
fn attempt() -> (Result<(), Error>, Result<(), Error>) {
    let made = netns::new().and_then(|host| Ok((host, netns::new()?)));
    let (host, container) = match made.map_err(Error::system("make a network namespace")) {
        Ok((host, container)) => (Host::of(host), Arc::new(container)),
        Err(e) => return (Err(e), Ok(())),
    };
    let gateway = IpAddr::from([192, 0, 2, 1]);
    let subnet = |address: [u8; 4]| IpNet::new_assert(IpAddr::from(address), 24);
    let bridge = Bridge {
        name: "doctor".to_owned(),
        alias: "doctor".to_owned(),
        subnets: vec![Subnet { cidr: subnet([192, 0, 2, 0]), gateway: Some(gateway) }],
        internal: false,
        mtu: None,
        icc: true,
        masquerade: true,
        outward: Outward::default(),
    };
    let endpoint = Endpoint {
        bridge: bridge.name.clone(),
        ifname: "eth0".to_owned(),
        host_ifname: "patient".to_owned(),
        addresses: vec![subnet([192, 0, 2, 2])],
        gateways: vec![gateway],
        mac: None,
        settings: Vec::new(),
    };
    let made = host.ensure_bridge(&bridge);
    let attached = made.is_ok().then(|| host.attach(container.as_fd(), &[endpoint], true).map(drop));
    (made, attached.unwrap_or(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_and_stays_as_it_is() {
        let host = Host::of(netns::new().unwrap());
        let survey = host.survey().unwrap();
        survey.bridge.unwrap();
        survey.attachment.unwrap();
        assert_eq!(survey.drops, []);
        assert_eq!(host.bridges().unwrap(), []);
    }
}
