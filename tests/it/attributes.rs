//! Every attribute of networks and of services on them, as a container sees it.

use crate::greeter::datagram;
use crate::lan::{Lan, run};
use crate::poll::until_true;
use crate::sandbox::Sandbox;

const FILE: &str = r#"
services:
  web:
    <<: *server
    hostname: wwwhost
    domainname: example.test
    networks:
      dual: { aliases: [www, w3], ipv4_address: 10.88.1.40, ipv6_address: "fd00:88:1::40", link_local_ips: [169.254.8.8, "fe80::8"], mac_address: "02:aa:bb:cc:dd:ee", gw_priority: 1 }
      back: { priority: 10, interface_name: back0 }
    extra_hosts: ["host.docker.internal:host-gateway", "six:2001:db8::5", "four=192.0.2.77"]
    dns: [192.0.2.53]
    dns_search: [corp.example]
    dns_opt: ["ndots:3", "timeout:1"]
    expose: ["80"]
  near: { <<: *idle, networks: [back, dual], links: ["web:database"] }
  far: { <<: *idle, networks: [six] }
  side: { <<: *idle, network_mode: "service:web" }
networks:
  dual:
    enable_ipv6: true
    attachable: true
    labels: { a: b }
    driver_opts: { com.docker.network.bridge.name: walkbr0, com.docker.network.driver.mtu: "1400" }
    ipam: { driver: default, config: [{ subnet: 10.88.1.0/24, ip_range: 10.88.1.64/26, gateway: 10.88.1.254, aux_addresses: { router: 10.88.1.64 } }, { subnet: "fd00:88:1::/64", gateway: "fd00:88:1::fe" }] }
  back: { name: "${COMPOSE_PROJECT_NAME}-the-back" }
  six: { enable_ipv4: false, enable_ipv6: true }
"#;

#[test]
fn what_the_file_says_of_networks_is_so_inside() {
    let sandbox = Sandbox::greeting(FILE, &["web"]);
    let addresses = sandbox.inside("web", "ip -br addr");
    let of = |name: &str| addresses.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(of("back0").contains("172.24."), "{addresses}");
    for address in ["10.88.1.40/24", "169.254.8.8/16", "fd00:88:1::40/64", "fe80::8/64"] {
        assert!(of("eth1").contains(address), "{address} in {addresses}");
    }
    let link = sandbox.inside("web", "ip link show eth1");
    assert!(link.contains("mtu 1400") && link.contains("02:aa:bb:cc:dd:ee"), "{link}");
    assert!(sandbox.inside("web", "ip route").contains("default via 10.88.1.254 dev eth1"));
    assert!(sandbox.inside("web", "ip -6 route").contains("default via fd00:88:1::fe dev eth1"));
    assert!(run("ip", &["-br", "addr", "show", "walkbr0"]).contains("10.88.1.254/24"));
    let leased = sandbox.inside("near", "ip -br addr show eth1");
    assert!(leased.contains("10.88.1.65/24") && leased.contains("fd00:88:1::1/64"), "{leased}");
    // By default the first network of those without priorities leads out, for each address family.
    assert!(sandbox.inside("near", "ip route").contains("dev eth0"));
    assert!(sandbox.inside("near", "ip -6 route").contains("default via fd00:88:1::fe dev eth1"));
    let only_six = sandbox.inside("far", "ip -br addr show eth0");
    assert!(only_six.contains("fd") && !only_six.contains('.'), "{only_six}");

    let hosts = sandbox.inside("web", "cat /etc/hosts");
    for line in [
        "10.88.1.254\thost.docker.internal",
        "fd00:88:1::fe\thost.docker.internal",
        "2001:db8::5\tsix",
        "192.0.2.77\tfour",
        "10.88.1.40\twwwhost.example.test wwwhost",
    ] {
        assert!(hosts.contains(line), "{line} in {hosts}");
    }
    let resolver = sandbox.inside("web", "cat /etc/resolv.conf");
    assert_eq!(resolver, "nameserver 127.0.0.11\nsearch corp.example\noptions ndots:3 timeout:1");
    assert_eq!(sandbox.inside("web", "hostname; cat /proc/sys/kernel/domainname"), "wwwhost\nexample.test");
    assert_eq!(sandbox.inside("side", "hostname; cat /etc/resolv.conf"), format!("wwwhost\n{resolver}"));

    for name in
        ["web", "www", "w3", "database", "WEB", &format!("{}-web-1", sandbox.project), &sandbox.ids("web")[0][..12]]
    {
        assert_eq!(sandbox.hears("near", name, 80), "fd00:88:1::1", "{name}");
    }
    assert_eq!(sandbox.hears("near", "169.254.8.8", 80), "Network is unreachable", "no route leads there");
    let network = format!("{}-the-back", sandbox.project);
    let getent = |words: &str| sandbox.inside("near", &format!("getent {words} || echo nothing"));
    assert!(getent(&format!("ahostsv4 web.{network}")).contains("172.24."), "a network's name behind it");
    assert!(getent(&format!("ahostsv4 www.{network}")).contains("nothing"), "aliases belong to their network");
    assert!(getent("hosts fd00:88:1::40").contains(&format!("{0}-web-1.{0}_dual", sandbox.project)), "backwards");
    assert!(getent("hosts 10.88.1.40").contains(&format!("{0}-web-1.{0}_dual", sandbox.project)), "backwards");
    let no_six = "import socket; print(socket.getaddrinfo('web', 80, socket.AF_INET6))";
    let far = sandbox.stack_args(&["exec", "-T", "far", "python3", "-c", no_six]).err;
    assert!(far.contains("gaierror"), "no common network, no name: {far}");
}

#[test]
fn published_ports_answer_by_ipv4_and_ipv6() {
    let sandbox = Sandbox::greeter(
        r#"
services:
  dual: { <<: *server, networks: [dual], ports: ["18080:80", "18053:53/udp", "[::1]:18081:80", "18090-18091:80-81", { target: 80, host_ip: "2001:db8::1", published: "18082", name: web, app_protocol: http, mode: host }] }
  four: { <<: *server, networks: [four], ports: ["19080:80", "19053:53/udp", "127.0.0.1::80", "19090-19099:80"] }
  other: { <<: *idle, networks: [elsewhere] }
networks: { dual: { enable_ipv6: true }, four: {}, elsewhere: { enable_ipv6: true } }
"#,
    );
    let lan = Lan::new();
    sandbox.serve(&["dual", "four"]);
    until_true("the host has its IPv6 address", || sandbox.host_hears("2001:db8::1", 18080) == "2001:db8::1");
    for (port, host, hears) in [
        (18080, "192.0.2.1", "192.0.2.2"),
        (18080, "2001:db8::1", "2001:db8::2"),
        (18082, "2001:db8::1", "2001:db8::2"),
        (18091, "192.0.2.1", "192.0.2.2"),
        (19080, "192.0.2.1", "192.0.2.2"),
    ] {
        assert_eq!(lan.hears(host, port).as_deref(), Some(hears), "[{host}]:{port} from outside keeps the source");
    }
    assert!(lan.hears("2001:db8::1", 19080).is_some(), "IPv6 from outside, carried to a container without");
    assert_eq!(lan.hears("2001:db8::1", 18081), None, "for the host alone");
    for (host, port) in [
        ("127.0.0.1", 18080),
        ("::1", 18080),
        ("::1", 18081),
        ("::1", 18091),
        ("127.0.0.1", 19080),
        ("::1", 19080),
        ("192.0.2.1", 18080),
    ] {
        assert!(sandbox.host_hears(host, port).contains([':', '.']), "[{host}]:{port} from the host");
    }
    assert_eq!(sandbox.host_hears("127.0.0.1", 18081), "refused", "::1 alone");
    for address in ["127.0.0.1:18053", "[::1]:18053", "[2001:db8::1]:18053", "127.0.0.1:19053", "[::1]:19053"] {
        assert!(datagram(address).is_some(), "a datagram to {address}");
    }
    for (service, host) in
        [("other", "2001:db8::1"), ("other", "192.0.2.1"), ("dual", "2001:db8::1"), ("dual", "192.0.2.1")]
    {
        assert!(sandbox.hears(service, host, 18080).contains([':', '.']), "{service} through {host}");
    }
    let shown = sandbox.field("four", "Ports");
    for text in ["0.0.0.0:19080->80/tcp", "[::]:19080->80/tcp", "0.0.0.0:19090->80/tcp"] {
        assert!(shown.contains(text), "{text} in {shown}");
    }
    sandbox.stack("stop -t 0 four").ok();
    assert_eq!(sandbox.host_hears("::1", 19080), "refused");
}

#[test]
fn ports_stay_on_loopback_where_the_environment_says_so() {
    let sandbox = Sandbox::greeter("services:\n  web: { <<: *server, ports: [\"18080:80\", \"0.0.0.0:18081:80\"] }\n");
    let lan = Lan::new();
    sandbox.serve(&["web"]);
    assert_eq!(lan.hears("192.0.2.1", 18080).as_deref(), Some("192.0.2.2"), "the control");
    sandbox.stack_env(&[("STACK_PUBLISH", "loopback")], "up -d").ok();
    sandbox.until_logged("web", "ready");
    until_true("the port answers on loopback", || sandbox.host_hears("127.0.0.1", 18080).contains('.'));
    assert!(sandbox.host_hears("::1", 18080).contains('.'));
    assert_eq!(lan.hears("192.0.2.1", 18080), None);
    assert_eq!(lan.hears("192.0.2.1", 18081).as_deref(), Some("192.0.2.2"), "an address of its own is kept");
    sandbox.stack_env(&[("STACK_PUBLISH", "lan")], "up -d").fails(&["STACK_PUBLISH is `lan`", "`all` or `loopback`"]);
}

#[test]
fn modes_and_built_in_networks_are_dockers() {
    let sandbox = Sandbox::greeting(
        r#"
services:
  bridged: { <<: *server, network_mode: bridge, ports: ["18080:80"] }
  outer: { <<: *idle, networks: [host] }
  closed: { <<: *idle, networks: [nothing] }
networks: { host: { external: true, name: host }, nothing: { external: true, name: none } }
"#,
        &["bridged"],
    );
    until_true("the port answers", || sandbox.host_hears("127.0.0.1", 18080).contains('.'));
    let own = fs_err::read_link("/proc/thread-self/ns/net").unwrap();
    assert_eq!(sandbox.inside("outer", "readlink /proc/self/ns/net"), own.to_string_lossy());
    assert_eq!(sandbox.inside("closed", "ls /sys/class/net"), "lo");
}

#[test]
fn stacks_on_one_network_know_each_other_s_names() {
    let sandbox = Sandbox::greeting(
        "services:\n  web: { <<: *server, networks: { shared: { aliases: [front] }, default: } }\nnetworks: { shared: { name: \"${COMPOSE_PROJECT_NAME}-shared\" } }\n",
        &["web"],
    );
    let (project, other) = (sandbox.project.clone(), format!("{}b", sandbox.project));
    sandbox.file(
        "other.yaml",
        &format!(
            "services:\n  peer: {{ image: stack/host, init: true, command: [sleep, infinity], networks: [shared], external_links: [\"{project}-web-1:linked\"] }}\nnetworks: {{ shared: {{ external: true, name: {project}-shared }} }}\n"
        ),
    );
    sandbox.stack(&format!("-f other.yaml -p {other} up -d")).ok();
    let from_other =
        |name: &str| sandbox.stack_args(&["-p", &other, "exec", "-T", "peer", "getent", "ahostsv4", name]).out;
    for name in ["web", "front", "linked", &format!("{project}-web-1")] {
        assert!(from_other(name).contains("STREAM"), "{name}");
    }
    until_true("the first stack knows the second's", || {
        sandbox.inside("web", "getent ahostsv4 peer || true").contains("STREAM")
    });
    sandbox.stack("stop -t 0 web").ok();
    until_true("a name goes with its container", || from_other("web").is_empty());
    sandbox.stack("start web").ok();
    until_true("and comes back", || from_other("web").contains("STREAM"));
    sandbox.stack(&format!("-p {other} down -t 0")).ok();
    until_true("the other stack's names go", || sandbox.inside("web", "getent ahostsv4 peer || true").is_empty());
}
