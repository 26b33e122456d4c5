//! The whole layer against the real kernel: who reaches whom.

use std::io::ErrorKind::{ConnectionRefused, TimedOut, WouldBlock};
use std::net::{IpAddr, SocketAddr};

use super::netlink::Channel;
use super::nft::elements;
use super::ruleset::{BRIDGE, MEMBERS_4};
use super::testbed::{
    add_address, ask, ask_udp, ask_udp_from, change_mac, container, dual_container, exchange, flush_tables, host,
    inside, network, outside, route_to, serve, serve_here, serve_udp, serve_udp_saying,
};
use super::{Bridge, PortMapping, Protocol, Subnet};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn mapping(protocol: Protocol, host: &str, container: &str) -> PortMapping {
    let (host, container): (SocketAddr, SocketAddr) = (host.parse().unwrap(), container.parse().unwrap());
    PortMapping {
        host_ip: Some(host.ip()).filter(|ip| !ip.is_unspecified()),
        host_port: host.port(),
        protocol,
        container_ip: container.ip(),
        container_port: container.port(),
    }
}

#[test]
fn members_of_a_network_reach_each_other_and_the_world_reaches_nobody() {
    host(|host| {
        let lan = outside();
        network(host, 1, |_| {});
        network(host, 2, |_| {});
        let (a, b, c) = (container(host, 1, 2), container(host, 1, 3), container(host, 2, 2));
        for netns in [&a, &b, &c, &lan] {
            serve(netns, 80);
        }
        serve_here(22);
        assert_eq!(inside(&a, || ask("10.1.0.3:80")), Ok(ip("10.1.0.2")), "same network");
        assert_eq!(inside(&a, || ask("192.0.2.2:80")), Ok(ip("192.0.2.1")), "outside, masqueraded");
        assert_eq!(ask("10.1.0.2:80"), Ok(ip("10.1.0.1")), "from the host");
        assert_eq!(inside(&a, || ask("10.2.0.2:80")), Err(ConnectionRefused), "another network");
        assert_eq!(inside(&a, || ask("10.1.0.1:22")), Err(ConnectionRefused), "the host by its own gateway");
        assert_eq!(inside(&a, || ask("10.2.0.1:22")), Err(ConnectionRefused), "the host by another gateway");
        assert_eq!(inside(&a, || ask("192.0.2.1:22")), Err(ConnectionRefused), "the host by its address");
        assert_eq!(inside(&a, || ask("169.254.169.254:80")), Err(ConnectionRefused), "cloud metadata");
        assert_eq!(inside(&lan, || ask("10.1.0.2:80")), Err(TimedOut), "direct routing from the LAN");
        host.firewall().allow_host(&[ip("10.1.0.2")], true).unwrap();
        assert_eq!(inside(&a, || ask("10.1.0.1:22")), Ok(ip("10.1.0.2")), "asked for the host");
        assert_eq!(inside(&b, || ask("10.1.0.1:22")), Err(ConnectionRefused), "did not");
    });
}

#[test]
fn published_ports_answer_everywhere_they_should() {
    published_ports(true);
}

#[test]
fn published_ports_need_no_filtered_bridges() {
    published_ports(false);
}

fn published_ports(filtered_bridges: bool) {
    host(move |host| {
        // A kernel without br_netfilter has no such setting, and behaves as with 0.
        let _ = fs_err::write("/proc/sys/net/bridge/bridge-nf-call-iptables", if filtered_bridges { "1" } else { "0" });
        let lan = outside();
        network(host, 1, |_| {});
        network(host, 2, |_| {});
        network(host, 3, |bridge| bridge.internal = true);
        let (web, same, other, shut) =
            (container(host, 1, 2), container(host, 1, 3), container(host, 2, 2), container(host, 3, 2));
        serve(&web, 80);
        serve_udp(&web, 53);
        let ports = [
            mapping(Protocol::Tcp, "0.0.0.0:8080", "10.1.0.2:80"),
            mapping(Protocol::Tcp, "127.0.0.1:8081", "10.1.0.2:80"),
            mapping(Protocol::Tcp, "192.0.2.1:8082", "10.1.0.2:80"),
            mapping(Protocol::Udp, "0.0.0.0:5353", "10.1.0.2:53"),
        ];
        host.firewall().publish(&ports).unwrap();
        assert_eq!(inside(&lan, || ask("192.0.2.1:8080")), Ok(ip("192.0.2.2")), "outside, source kept");
        assert_eq!(inside(&lan, || ask_udp("192.0.2.1:5353")), Ok(ip("192.0.2.2")), "outside, UDP");
        assert_eq!(inside(&lan, || ask("192.0.2.1:8082")), Ok(ip("192.0.2.2")), "outside, one address");
        assert_eq!(inside(&lan, || ask("192.0.2.1:8081")), Err(ConnectionRefused), "loopback only");
        assert_eq!(ask("127.0.0.1:8080"), Ok(ip("10.1.0.1")), "loopback");
        assert_eq!(ask("127.0.0.1:8081"), Ok(ip("10.1.0.1")), "loopback only");
        assert_eq!(ask("127.0.0.1:8082"), Err(ConnectionRefused), "another address only");
        assert_eq!(ask("192.0.2.1:8080"), Ok(ip("192.0.2.1")), "own address");
        assert_eq!(ask_udp("127.0.0.1:5353"), Ok(ip("10.1.0.1")), "loopback, UDP");
        assert_eq!(inside(&other, || ask("192.0.2.1:8080")), Ok(ip("10.2.0.2")), "hairpin from another network");
        assert!(inside(&same, || ask("192.0.2.1:8080")).is_ok(), "hairpin from the same network");
        assert_eq!(inside(&web, || ask("10.1.0.1:8080")), Ok(ip("10.1.0.1")), "hairpin to itself");
        assert_eq!(inside(&shut, || ask("10.3.0.1:8080")), Err(ConnectionRefused), "from an internal network");
        assert_eq!(inside(&lan, || ask("10.1.0.2:80")), Err(TimedOut), "past the published port");

        host.firewall().publish(&[mapping(Protocol::Tcp, "0.0.0.0:8080", "10.1.0.3:80")]).unwrap();
        assert_eq!(ask("127.0.0.1:8080"), Err(ConnectionRefused), "leads elsewhere now");
        host.firewall().unpublish(&ports).unwrap();
        assert_eq!(inside(&lan, || ask("192.0.2.1:8082")), Err(ConnectionRefused), "taken back");
    });
}

#[test]
fn internal_networks_have_no_way_out_or_in() {
    host(|host| {
        let lan = outside();
        network(host, 1, |bridge| bridge.internal = true);
        network(host, 2, |_| {});
        let (a, b, other) = (container(host, 1, 2), container(host, 1, 3), container(host, 2, 2));
        for netns in [&a, &b, &lan] {
            serve(netns, 80);
        }
        assert_eq!(inside(&a, || ask("10.1.0.3:80")), Ok(ip("10.1.0.2")));
        assert_eq!(inside(&a, || ask("192.0.2.2:80")), Err(ConnectionRefused));
        assert_eq!(inside(&other, || ask("10.1.0.2:80")), Err(ConnectionRefused));
        assert_eq!(inside(&lan, || ask("10.1.0.2:80")), Err(TimedOut));
        host.firewall().publish(&[mapping(Protocol::Tcp, "0.0.0.0:8080", "10.1.0.2:80")]).unwrap();
        assert_eq!(inside(&lan, || ask("192.0.2.1:8080")), Err(TimedOut));
    });
}

#[test]
fn loopback_of_the_host_stays_closed_to_others() {
    host(|host| {
        let lan = outside();
        serve_here(22);
        fs_err::write("/proc/sys/net/ipv4/conf/up0/route_localnet", "1").unwrap();
        inside(&lan, || fs_err::write("/proc/sys/net/ipv4/conf/lan0/route_localnet", "1").unwrap());
        inside(&lan, || route_to([127, 0, 0, 1], [192, 0, 2, 1], "lan0"));
        assert_eq!(inside(&lan, || ask("127.0.0.1:22")), Ok(ip("192.0.2.2")), "the control: open without rules");
        network(host, 1, |_| {});
        let a = container(host, 1, 2);
        serve(&a, 80);
        host.firewall().publish(&[mapping(Protocol::Tcp, "127.0.0.1:8081", "10.1.0.2:80")]).unwrap();
        assert_eq!(inside(&lan, || ask("127.0.0.1:22")), Err(TimedOut));
        assert_eq!(inside(&lan, || ask("127.0.0.1:8081")), Err(TimedOut));
        assert_eq!(ask("127.0.0.1:8081"), Ok(ip("10.1.0.1")));
    });
}

#[test]
fn a_flushed_firewall_is_put_back_and_bridges_heal() {
    host(|host| {
        let lan = outside();
        let bridge = network(host, 1, |_| {});
        let a = container(host, 1, 2);
        serve(&a, 80);
        flush_tables();
        assert!(inside(&lan, || ask("10.1.0.2:80")).is_ok(), "the control: open without rules");
        host.ensure_bridge(&bridge).unwrap();
        host.ensure_bridge(&bridge).unwrap();
        assert_eq!(inside(&lan, || ask("10.1.0.2:80")), Err(TimedOut));
        flush_tables();
        host.firewall().publish(&[mapping(Protocol::Tcp, "0.0.0.0:80", "10.1.0.2:80")]).unwrap();
        host.ensure_bridge(&bridge).unwrap();
        assert!(inside(&lan, || ask("192.0.2.1:80")).is_ok());
        assert_eq!(host.bridges().unwrap(), [("stb1".to_owned(), "project1/default".to_owned())]);
        host.remove_bridge("stb1").unwrap();
        host.remove_bridge("stb1").unwrap();
        assert_eq!(host.bridges().unwrap(), []);
    });
}

#[test]
fn a_member_cannot_pretend_to_be_another() {
    host(|host| {
        network(host, 1, |_| {});
        let (a, b) = (container(host, 1, 2), container(host, 1, 3));
        serve_udp(&b, 7);
        assert_eq!(inside(&a, || ask_udp("10.1.0.3:7")), Ok(ip("10.1.0.2")));
        let stolen = inside(&a, || {
            add_address("eth0", "10.1.0.77/32");
            ask_udp_from("10.1.0.77", "10.1.0.3:7")
        });
        assert_eq!(stolen, Err(WouldBlock));
        inside(&a, || change_mac("eth0", [2, 0x42, 9, 9, 9, 9]));
        assert!(inside(&a, || ask_udp("10.1.0.3:7")).is_err());
    });
}

#[test]
fn members_of_a_network_without_icc_are_apart() {
    host(|host| {
        network(host, 1, |bridge| bridge.icc = false);
        let (a, b) = (container(host, 1, 2), container(host, 1, 3));
        serve(&b, 80);
        assert!(inside(&a, || ask("10.1.0.3:80")).is_err());
        assert!(ask("10.1.0.3:80").is_ok());
    });
}

#[test]
fn attaching_again_replaces_what_a_dying_namespace_holds() {
    host(|host| {
        network(host, 1, |_| {});
        let _dying = container(host, 1, 2);
        let new = container(host, 1, 2);
        serve(&new, 80);
        assert!(ask("10.1.0.2:80").is_ok());
        let members = || elements(&Channel::netfilter().unwrap(), BRIDGE, MEMBERS_4).unwrap().len();
        assert_eq!(members(), 2);
        host.detach(&["v1x2".to_owned()]).unwrap();
        assert_eq!(members(), 0);
    });
}

#[test]
fn ipv6_follows_the_same_rules() {
    host(|host| {
        let lan = outside();
        let dual = |n: u8| {
            move |bridge: &mut Bridge| {
                let cidr = format!("fd00:{n}::/64").parse().unwrap();
                bridge.subnets.push(Subnet { cidr, gateway: Some(format!("fd00:{n}::1").parse().unwrap()) });
            }
        };
        network(host, 1, dual(1));
        network(host, 2, dual(2));
        let (a, b, other) = (dual_container(host, 1, 2), dual_container(host, 1, 3), dual_container(host, 2, 2));
        for netns in [&a, &b, &lan] {
            serve(netns, 80);
        }
        assert_eq!(inside(&b, || ask("[fd00:1::2]:80")), Ok(ip("fd00:1::3")), "same network");
        assert_eq!(inside(&a, || ask("[2001:db8::2]:80")), Ok(ip("2001:db8::1")), "outside, masqueraded");
        assert_eq!(inside(&other, || ask("[fd00:1::2]:80")), Err(ConnectionRefused), "another network");
        assert_eq!(inside(&lan, || ask("[fd00:1::2]:80")), Err(TimedOut), "direct routing from the LAN");
        host.firewall().publish(&[mapping(Protocol::Tcp, "[::]:8080", "[fd00:1::2]:80")]).unwrap();
        assert_eq!(inside(&lan, || ask("[2001:db8::1]:8080")), Ok(ip("2001:db8::2")), "published, source kept");
        assert_eq!(inside(&other, || ask("[2001:db8::1]:8080")), Ok(ip("fd00:2::2")), "hairpin");
        serve_udp(&b, 7);
        assert!(inside(&a, || ask_udp_from("fd00:1::2", "[fd00:1::3]:7")).is_ok(), "its own address");
        let stolen = inside(&a, || {
            add_address("eth0", "fd00:1::77/128");
            ask_udp_from("fd00:1::77", "[fd00:1::3]:7")
        });
        assert!(stolen.is_err(), "another member's address");
        serve_here(22);
        assert_eq!(inside(&a, || ask("10.1.0.1:22")), Err(ConnectionRefused));
    });
}

#[test]
fn datagrams_follow_a_port_that_moves() {
    host(|host| {
        let lan = outside();
        network(host, 1, |_| {});
        let (old, new) = (container(host, 1, 2), container(host, 1, 3));
        serve_udp_saying(&old, 53, "10.1.0.2");
        serve_udp_saying(&new, 53, "10.1.0.3");
        let client = inside(&lan, || std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
        host.firewall().publish(&[mapping(Protocol::Udp, "0.0.0.0:5353", "10.1.0.2:53")]).unwrap();
        assert_eq!(exchange(&client, "192.0.2.1:5353"), Ok(ip("10.1.0.2")));
        host.firewall().publish(&[mapping(Protocol::Udp, "0.0.0.0:5353", "10.1.0.3:53")]).unwrap();
        assert_eq!(exchange(&client, "192.0.2.1:5353"), Ok(ip("10.1.0.3")), "the same flow");
        host.firewall().unpublish(&[mapping(Protocol::Udp, "0.0.0.0:5353", "10.1.0.3:53")]).unwrap();
        assert!(exchange(&client, "192.0.2.1:5353").is_err());
    });
}
