//! Options of the bridge driver and of attachments, as Docker has them.

use std::net::TcpListener;

use crate::lan::{Lan, run};
use crate::poll::until_true;
use crate::sandbox::Sandbox;

const MODES: &str = r#"
services:
  routed: { <<: *server, networks: { routed: { ipv4_address: 10.92.1.10, ipv6_address: "fd00:92:1::10" } }, ports: ["18080:80"] }
  twin: { <<: *server, networks: { routed: { ipv4_address: 10.92.1.11 } }, ports: ["18080:81"] }
  open: { <<: *server, networks: { open: { ipv4_address: 10.92.2.10, ipv6_address: "fd00:92:2::10" } }, ports: ["18082:80"] }
  mixed: { <<: *server, networks: { mixed: { ipv6_address: "fd00:92:3::10" } }, ports: ["18083:80"] }
  near: *idle
networks:
  routed:
    enable_ipv6: true
    driver_opts: { com.docker.network.bridge.gateway_mode_ipv4: routed, com.docker.network.bridge.gateway_mode_ipv6: routed }
    ipam: { config: [{ subnet: 10.92.1.0/24 }, { subnet: "fd00:92:1::/64" }] }
  open:
    enable_ipv6: true
    driver_opts: { com.docker.network.bridge.gateway_mode_ipv4: nat-unprotected, com.docker.network.bridge.gateway_mode_ipv6: nat-unprotected }
    ipam: { config: [{ subnet: 10.92.2.0/24 }, { subnet: "fd00:92:2::/64" }] }
  mixed:
    enable_ipv6: true
    driver_opts: { com.docker.network.bridge.gateway_mode_ipv6: routed }
    ipam: { config: [{ subnet: "fd00:92:3::/64" }] }
"#;

/// An echo request, and what it says of the answer.
const PING: &str = r#"import socket, sys
six = ":" in sys.argv[1]
s = socket.socket(10 if six else 2, 3, 58 if six else 1); s.settimeout(1.5); s.connect((sys.argv[1], 0))
s.send(b"\x80\0\0\0\0\0\0\0" if six else b"\x08\0\xf7\xff\0\0\0\0")
while True:
    a = s.recv(99)
    if a[0 if six else 20] == (129 if six else 0): print("answered"); break
"#;

#[test]
fn gateway_modes_decide_who_reaches_whom() {
    let sandbox = Sandbox::greeter(MODES);
    let lan = Lan::new();
    sandbox.serve(&["routed", "twin", "open", "mixed"]);
    let hears = |host: &str, port| lan.hears(host, port).unwrap_or_default();
    let (v4, v6) = ("192.0.2.2", "2001:db8::2");
    until_true("addresses are tentative no more", || hears("fd00:92:1::10", 80) == v6);
    for (host, port, heard) in [
        ("10.92.1.10", 80, v4),
        ("10.92.1.10", 81, ""),
        ("fd00:92:1::10", 81, ""),
        ("10.92.1.11", 81, v4),
        ("10.92.1.11", 80, ""),
        ("10.92.2.10", 81, v4),
        ("fd00:92:2::10", 81, v6),
        ("192.0.2.1", 18082, v4),
        ("192.0.2.1", 18083, v4),
        ("2001:db8::1", 18083, ""),
        ("fd00:92:3::10", 80, v6),
        ("fd00:92:3::10", 81, ""),
        ("192.0.2.1", 18080, ""),
    ] {
        assert_eq!(hears(host, port), heard, "from outside at [{host}]:{port}");
    }
    drop(TcpListener::bind("[::]:18080").expect("no port of the host is taken"));
    let near = sandbox.inside("near", "hostname -i");
    for (address, answers) in [("10.92.1.10", true), ("fd00:92:1::10", true), ("fd00:92:3::10", true), (&*near, false)]
    {
        assert_eq!(
            !lan.run(&format!("python3 -c '{PING}' {address} 2> /dev/null")).is_empty(),
            answers,
            "ping {address}"
        );
    }
    assert_eq!(sandbox.hears("routed", "192.0.2.2", 80), "10.92.1.10", "its own address is seen");
    assert_eq!(sandbox.hears("routed", "2001:db8::2", 80), "fd00:92:1::10");
    assert_eq!(sandbox.hears("open", "192.0.2.2", 80), "192.0.2.1", "the host's address is seen");
    assert_eq!(sandbox.hears("mixed", "2001:db8::2", 80), "fd00:92:3::10");
    assert_eq!(sandbox.hears("near", "10.92.1.10", 80), near, "what is published is so for other networks, too");
    assert_eq!(sandbox.hears("near", "10.92.1.10", 81), "refused");
    assert_eq!(sandbox.hears("near", "10.92.2.10", 80), "refused", "containers are no other machines");
    assert_eq!(sandbox.field("routed", "Ports"), "80/tcp");
    sandbox.stack("port routed 80").fails(&["is no port of the host", "routed"]);
    assert_eq!(sandbox.stack("port mixed 80").ok().out.trim(), "0.0.0.0:18083");

    run("nft", &["flush", "ruleset"]);
    until_true("the rules come back", || hears("10.92.1.10", 81).is_empty());
    assert_eq!((hears("10.92.1.10", 80), hears("10.92.2.10", 81)), (v4.to_owned(), v4.to_owned()));
    let opened = || run("nft", &["list", "set", "inet", "stack", "opened-4"]);
    sandbox.stack("stop -t 0 routed").ok();
    assert!(!opened().contains("10.92.1.10") && opened().contains("10.92.1.11"), "{}", opened());
    sandbox.stack("start routed").ok();
    assert!(opened().contains("10.92.1.10"));
}

#[test]
fn every_other_option_has_its_effect() {
    let sandbox = Sandbox::greeter(
        r#"
services:
  chosen:
    <<: *server
    networks:
      chosen: { gw_priority: 1, ipv4_address: 10.92.4.10, driver_opts: { com.docker.network.endpoint.sysctls: "net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.neigh.IFNAME.gc_stale_time=77" } }
      bare: { driver_opts: { com.docker.network.endpoint.ifname: bare0 } }
  plain: { <<: *server, networks: { plain: { ipv4_address: 10.92.6.10 } }, ports: ["18087:80"], expose: ["90", "91/udp"] }
  six: { <<: *server, networks: [six], ports: ["18086:80", "18053:53/udp"] }
networks:
  chosen:
    ipam: { config: [{ subnet: 10.92.4.0/24 }] }
    driver_opts: { com.docker.network.host_ipv4: 192.0.2.9, com.docker.network.bridge.trusted_host_interfaces: "up0:other", com.docker.network.container_iface_prefix: lan, com.docker.network.enable_ipv6: "true", com.docker.network.bridge.unheard_of: "1" }
  bare: { ipam: { config: [{ subnet: 10.92.5.0/24 }] }, driver_opts: { com.docker.network.bridge.inhibit_ipv4: "true", com.docker.network.bridge.name: bare-br0 } }
  plain: { ipam: { config: [{ subnet: 10.92.6.0/24 }] }, driver_opts: { com.docker.network.bridge.enable_ip_masquerade: "false", com.docker.network.bridge.host_binding_ipv4: 127.0.0.1 } }
  six: { enable_ipv4: false, enable_ipv6: true }
"#,
    );
    let lan = Lan::new();
    run("ip", &["addr", "add", "192.0.2.9/24", "dev", "up0"]);
    let up = sandbox.stack("up -d").ok();
    assert!(up.err.contains("`com.docker.network.bridge.unheard_of` has no effect"), "{up}");
    for service in ["chosen", "plain", "six"] {
        sandbox.until_logged(service, "ready");
    }
    assert_eq!(sandbox.hears("chosen", "192.0.2.2", 80), "192.0.2.9", "host_ipv4");
    assert_eq!(sandbox.hears("plain", "192.0.2.2", 80), "10.92.6.10", "not masqueraded");
    assert_eq!(lan.hears("10.92.4.10", 81).as_deref(), Some("192.0.2.2"), "by a trusted interface");
    assert_eq!(lan.hears("10.92.6.10", 81), None, "the control");
    assert!(sandbox.host_hears("127.0.0.1", 18087).contains('.'), "host_binding_ipv4");
    assert_eq!(lan.hears("192.0.2.1", 18087), None, "host_binding_ipv4");
    assert_eq!(sandbox.field("plain", "Ports"), "127.0.0.1:18087->80/tcp, 90/tcp, 91/udp");
    let addresses = sandbox.inside("chosen", "ip -br addr; ip route");
    for text in ["lan1", "bare0", "10.92.4.10/24", "/64"] {
        assert!(addresses.contains(text), "{text} in {addresses}");
    }
    assert_eq!(run("ip", &["-4", "-o", "addr", "show", "dev", "bare-br0"]), "", "inhibit_ipv4");
    let settings = "cat /proc/sys/net/ipv4/conf/lan1/log_martians /proc/sys/net/ipv4/neigh/lan1/gc_stale_time";
    assert_eq!(sandbox.inside("chosen", settings), "1\n77");
    let six = sandbox.inside("six", "ip -br addr show eth0");
    assert!(six.contains("fd") && !six.contains('.'), "{six}");
    for host in ["127.0.0.1", "::1", "192.0.2.1"] {
        assert!(sandbox.host_hears(host, 18086).contains(':'), "a container without IPv4 at {host}");
    }
    assert!(lan.hears("192.0.2.1", 18086).is_some() && lan.hears("2001:db8::1", 18086).is_some());
    assert!(crate::greeter::datagram("127.0.0.1:18053").is_some(), "a datagram");

    for (option, message) in [
        ("bridge.enable_icc=perhaps", "neither `true` nor `false`"),
        ("bridge.gateway_mode_ipv4=bridged", "no gateway mode"),
        ("bridge.gateway_mode_ipv4=isolated", "isolated is for internal networks"),
        ("bridge.unheard_of=1", "no option of the bridge driver"),
        ("driver.mtu=big", "no number of bytes"),
    ] {
        sandbox.stack(&format!("network create -o com.docker.network.{option} other")).fails(&[message]);
    }
}

#[test]
fn addresses_come_from_every_subnet_and_none_is_given_twice() {
    let sandbox = Sandbox::greeter(
        r"
services:
  small: { <<: *idle, networks: [small], scale: 4 }
  ranges: { <<: *idle, networks: [ranges], scale: 3 }
networks:
  small: { ipam: { config: [{ subnet: 10.93.1.0/29, aux_addresses: { printer: 10.93.1.3 } }] } }
  ranges: { ipam: { config: [{ subnet: 10.93.2.0/24, ip_range: 10.93.2.128/31 }, { subnet: 10.93.3.0/24, ip_range: 10.93.3.64/30, gateway: 10.93.3.9 }] } }
",
    );
    sandbox.stack("up -d").ok();
    let addresses = |service: &str| {
        let shown = sandbox.ids(service).into_iter().map(|id| {
            let text = sandbox.stack(&format!("network inspect {}_{service}", sandbox.project)).ok().out;
            text.split(&id)
                .nth(1)
                .unwrap()
                .split("IPv4Address\": \"")
                .nth(1)
                .unwrap()
                .split('/')
                .next()
                .unwrap()
                .to_owned()
        });
        let mut shown: Vec<String> = shown.collect();
        shown.sort();
        shown
    };
    assert_eq!(addresses("small"), ["10.93.1.2", "10.93.1.4", "10.93.1.5", "10.93.1.6"]);
    assert_eq!(addresses("ranges"), ["10.93.2.128", "10.93.2.129", "10.93.3.64"], "the second subnet follows");
    let full = sandbox.stack("up -d --scale small=5 --scale ranges=3").fails(&["no free address"]);
    assert!(full.err.contains("10.93.1.0/29"), "{full}");
    sandbox.stack("up -d --scale small=3 --scale ranges=3").ok();
    sandbox.stack("up -d --scale small=4 --scale ranges=3").ok();
    assert_eq!(addresses("small").len(), 4, "what was given back is given again");
}

#[test]
fn exhausted_pools_say_what_uses_them() {
    let sandbox = Sandbox::new();
    run("ip", &["link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1"]);
    run("ip", &["link", "set", "vpn0", "up"]);
    for range in ["172.24.0.0/13", "10.200.0.0/13", "192.168.128.0/18"] {
        run("ip", &["route", "replace", range, "dev", "vpn0"]);
    }
    for index in 0..64 {
        sandbox.stack(&format!("network create {}-n{index}", sandbox.project)).ok();
    }
    let shown = sandbox.stack(&format!("network inspect {}-n63", sandbox.project)).ok().out;
    assert!(shown.contains("192.168.255.0/24"), "beside the VPN's: {shown}");
    sandbox.stack("network create one-more").fails(&["no free subnet", "networks use 64", "network prune"]);
    sandbox.stack("network prune -f").ok();
    sandbox.stack(&format!("network create {}-n0", sandbox.project)).ok();
    sandbox.stack("network prune -f").ok();
    run("ip", &["link", "del", "vpn0"]);
}

#[test]
fn many_networks_work_at_once() {
    let sandbox = Sandbox::greeter("");
    let keys: Vec<String> = (0..120).map(|index| format!("n{index}")).collect();
    let networks = keys.join(":\n  ");
    let file = format!(
        "{}services:\n  first: {{ <<: *server, networks: [n0] }}\n  all: {{ <<: *idle, networks: [{}] }}\n  last: {{ <<: *server, networks: [n119] }}\n  apart: {{ <<: *idle, networks: [n60] }}\nnetworks:\n  {networks}:\n",
        crate::greeter::HEAD,
        keys.join(", ")
    );
    sandbox.file("stack.yaml", &file);
    sandbox.serve(&["first", "last"]);
    assert_eq!(sandbox.stack("network ls -q").ok().out.lines().count(), 120);
    for service in ["first", "last"] {
        assert!(sandbox.hears("all", service, 80).contains('.'), "{service}");
    }
    let address = sandbox.inside("first", "hostname -i");
    assert_eq!(sandbox.hears("apart", &address, 80), "refused");
}
