//! What succeeds on a plain bridge and must fail here, by IPv4 and by IPv6; each with what must still work. The attacker has
//! NET_RAW and NET_ADMIN. Tests carry the numbers of the checklist of attacks, and of CVEs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use crate::greeter::HEAD;
use crate::lan::{Lan, run};
use crate::poll::until_true;
use crate::sandbox::Sandbox;

const FILE: &str = r#"
services:
  web: { <<: *server, networks: { lan: { ipv4_address: 10.91.1.10, ipv6_address: "fd00:91:1::10" } }, ports: ["18080:80"] }
  peer: { <<: *server, networks: { lan: { ipv4_address: 10.91.1.20, ipv6_address: "fd00:91:1::20" } } }
  attacker: { <<: *idle, cap_add: [NET_RAW, NET_ADMIN], networks: { lan: { ipv4_address: 10.91.1.66, ipv6_address: "fd00:91:1::66" } } }
  friend: { <<: *idle, networks: [lan], extra_hosts: ["host.docker.internal:host-gateway"] }
networks: { lan: { enable_ipv6: true, ipam: { config: [{ subnet: 10.91.1.0/24 }, { subnet: "fd00:91:1::/64" }] } } }
"#;

/// Another stack.
const OTHER: &str = r#"
services:
  secret: { <<: *server, networks: { lan: { ipv4_address: 10.91.2.10, ipv6_address: "fd00:91:2::10" } } }
  near: { <<: *idle, networks: [lan] }
networks: { lan: { enable_ipv6: true, ipam: { config: [{ subnet: 10.91.2.0/24 }, { subnet: "fd00:91:2::/64" }] } } }
"#;

/// Brings both stacks up, with a service of the host on port 2222 of every address.
fn up(with_other: bool) -> (Sandbox, Lan) {
    let sandbox = Sandbox::greeter(FILE);
    let lan = Lan::new();
    sandbox.serve(&["web", "peer"]);
    if with_other {
        sandbox.file("other.yaml", &format!("{HEAD}{OTHER}"));
        sandbox.stack(&format!("-f other.yaml -p {}b up -d", sandbox.project)).ok();
    }
    let listener = TcpListener::bind("[::]:2222").unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"host");
        }
    });
    (sandbox, lan)
}

/// Packets of the attacker's making.
const FORGE: &str = r#"
import socket, struct, sys
def mac(text): return bytes.fromhex(text.replace(":", ""))
def own():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0)); return s.getsockname()[4]
def send(packet):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0))
    for _ in range(3): s.send(packet)
def checksum(data):
    if len(data) % 2: data += b"\0"
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def icmp6(source, target, body, to=b"\x33\x33\0\0\0\1"):
    pseudo = socket.inet_pton(10, source) + socket.inet_pton(10, target) + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + socket.inet_pton(10, source) + socket.inet_pton(10, target)
    return to + own() + b"\x86\xdd" + head + body
def arp(claimed, operation=2):
    return b"\xff" * 6 + own() + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, operation) + own() + socket.inet_aton(claimed) + b"\xff" * 6 + socket.inet_aton(claimed)
def advert(claimed, source):
    return icmp6(source, "ff02::1", b"\x88\0\0\0" + b"\x20\0\0\0" + socket.inet_pton(10, claimed) + b"\2\1" + own())
def router(source):
    prefix = b"\3\4\x40\xc0" + struct.pack("!III", 3600, 3600, 0) + socket.inet_pton(10, "2001:db8:bad::")
    return icmp6(source, "ff02::1", b"\x86\0\0\0" + b"\x40\0" + struct.pack("!HII", 1800, 0, 0) + b"\1\1" + own() + prefix)
"#;

fn forge(sandbox: &Sandbox, line: &str) {
    sandbox.stack_args(&["exec", "-T", "attacker", "python3", "-c", &format!("{FORGE}\n{line}")]).ok();
}

/// The hardware address that `web` believes `peer` to have.
fn believed(sandbox: &Sandbox, address: &str) -> String {
    let known = sandbox.inside("web", &format!("ip neigh show {address}"));
    known.split_once("lladdr ").map_or(String::new(), |(_, rest)| rest.split(' ').next().unwrap().to_owned())
}

#[test]
fn n1_n2_n3_n13_n14_cve_2025_54410_neither_other_stacks_nor_the_host_nor_metadata() {
    let (sandbox, _lan) = up(true);
    let from = |service: &str, host: &str, port: u16| sandbox.hears(service, host, port);
    let bridge = run("ip", &["-4", "-o", "addr", "show", "to", "10.91.1.1"]);
    let bridge = bridge.split_whitespace().nth(1).unwrap();
    let link_local = run("ip", &["-6", "-o", "addr", "show", "dev", bridge, "scope", "link"]);
    let gateway = link_local.split_whitespace().skip_while(|word| *word != "inet6").nth(1).unwrap();
    let gateway = format!("{}%eth0", gateway.split('/').next().unwrap());
    // An address answers once the kernel has seen that nobody else has it.
    until_true("addresses are tentative no more", || {
        let tentative = ["-6", "-o", "addr", "show", "dev", bridge, "tentative"];
        let inside = sandbox.inside("attacker", "ip -6 -o addr show dev eth0 tentative");
        run("ip", &tentative).trim().is_empty() && inside.trim().is_empty()
    });
    for (host, port, what) in [
        ("10.91.2.10", 80, "n1: another stack's container"),
        ("fd00:91:2::10", 80, "n1: another stack's container"),
        ("10.91.1.1", 2222, "n2: the host by the own gateway"),
        ("fd00:91:1::1", 2222, "n2: the host by the own gateway"),
        ("10.91.2.1", 2222, "n3: the host by another bridge's gateway"),
        ("fd00:91:2::1", 2222, "n3: the host by another bridge's gateway"),
        ("192.0.2.1", 2222, "the host by its own address"),
        ("2001:db8::1", 2222, "the host by its own address"),
        (&gateway, 2222, "n13: the host by its link-local address"),
        ("169.254.169.254", 80, "n14: metadata"),
    ] {
        assert_eq!(from("attacker", host, port), "refused", "{what}: [{host}]:{port}");
    }
    for (service, host, port) in [
        ("attacker", "10.91.1.10", 80),
        ("attacker", "fd00:91:1::10", 80),
        ("attacker", "192.0.2.2", 80),
        ("attacker", "192.0.2.1", 18080),
        ("attacker", "10.91.1.1", 18080),
        ("attacker", "10.91.2.1", 18080),
        ("attacker", "2001:db8::1", 18080),
        ("friend", "host.docker.internal", 2222),
        ("friend", "192.0.2.1", 2222),
        ("friend", "fd00:91:1::1", 2222),
    ] {
        let heard = from(service, host, port);
        assert!(heard.contains([':', '.']) || heard == "host", "the control: {service} at [{host}]:{port}: {heard}");
    }
    assert_eq!(sandbox.host_hears("::1", 2222), "host");
    let why = sandbox.stack("why attacker friend").ok().out;
    assert!(why.contains("host-gateway"), "{why}");
}

#[test]
fn n4_n5_cve_2020_8558_nothing_but_published_ports_answers_the_lan() {
    let (_sandbox, lan) = up(false);
    fs_err::write("/proc/sys/net/ipv4/conf/up0/route_localnet", "1").unwrap();
    lan.run("echo 1 > /proc/sys/net/ipv4/conf/lan0/route_localnet; ip route add 127.0.0.2 via 192.0.2.1 src 192.0.2.2");
    for (host, port, what) in [
        ("10.91.1.10", 80, "n4: direct routing"),
        ("fd00:91:1::10", 80, "n4: direct routing"),
        ("10.91.1.1", 2222, "n4: the gateway's address is the host, as any other"),
        ("127.0.0.2", 2222, "n5: loopback"),
        ("127.0.0.2", 18080, "n5: a port published on loopback, too"),
    ] {
        let heard = lan.hears(host, port);
        let open = what.starts_with("n4: the gateway");
        assert_eq!(heard.is_some(), open, "{what}: [{host}]:{port}: {heard:?}");
    }
    assert_eq!(lan.hears("192.0.2.1", 18080).as_deref(), Some("192.0.2.2"), "the control");
    until_true("the control", || lan.hears("2001:db8::1", 18080).as_deref() == Some("2001:db8::2"));
    assert_eq!(lan.hears("192.0.2.1", 2222).as_deref(), Some("host"), "the control: the host's own service");
}

#[test]
fn n6_neighbours_cannot_be_impersonated() {
    let (sandbox, _lan) = up(false);
    let peer = sandbox.inside("peer", "cat /sys/class/net/eth0/address");
    for address in ["10.91.1.20", "fd00:91:1::20"] {
        assert!(sandbox.hears("web", address, 80).contains([':', '.']));
        assert_eq!(believed(&sandbox, address), peer);
    }
    forge(
        &sandbox,
        r#"send(arp("10.91.1.20")); send(arp("10.91.1.20", 1)); send(advert("fd00:91:1::20", "fd00:91:1::66")); send(advert("fd00:91:1::20", "fd00:91:1::20"))"#,
    );
    for address in ["10.91.1.20", "fd00:91:1::20"] {
        assert_eq!(believed(&sandbox, address), peer, "{address}");
        assert!(sandbox.hears("web", address, 80).contains([':', '.']));
    }
    // The control: the same packets about the attacker's own addresses arrive.
    let own = sandbox.inside("attacker", "cat /sys/class/net/eth0/address");
    sandbox.hears("web", "10.91.1.66", 9);
    forge(&sandbox, r#"send(arp("10.91.1.66")); send(advert("fd00:91:1::66", "fd00:91:1::66"))"#);
    assert_eq!(believed(&sandbox, "10.91.1.66"), own);
}

#[test]
fn n7_n8_neither_addresses_nor_hardware_addresses_can_be_taken() {
    let (sandbox, _lan) = up(false);
    let from = |source: &str, host: &str| {
        let script = format!(
            "import socket\ntry: print(socket.create_connection(('{host}', 80), 1, ('{source}', 0)).recv(99).decode())\nexcept OSError as e: print('no')"
        );
        sandbox.stack_args(&["exec", "-T", "attacker", "python3", "-c", &script]).out.trim().to_owned()
    };
    assert_eq!(from("10.91.1.66", "10.91.1.10"), "10.91.1.66", "the control");
    assert_eq!(from("fd00:91:1::66", "fd00:91:1::10"), "fd00:91:1::66", "the control");
    sandbox.inside("attacker", "ip addr add 10.91.1.77/24 dev eth0; ip -6 addr add fd00:91:1::77/64 dev eth0 nodad; ip addr add 192.0.2.99/32 dev eth0");
    for (source, host) in
        [("10.91.1.77", "10.91.1.10"), ("fd00:91:1::77", "fd00:91:1::10"), ("192.0.2.99", "10.91.1.10")]
    {
        assert_eq!(from(source, host), "no", "n7: {source}");
    }
    let peer = sandbox.inside("peer", "cat /sys/class/net/eth0/address");
    sandbox.inside("attacker", &format!("ip link set eth0 address {peer}; ping -c 1 -W 1 10.91.1.10 || true"));
    assert_eq!(from("10.91.1.66", "10.91.1.10"), "no", "n8: a stolen hardware address");
    for address in ["10.91.1.20", "fd00:91:1::20"] {
        assert!(
            sandbox.hears("web", address, 80).contains([':', '.']),
            "n8: what belongs to the peer still reaches it"
        );
    }
}

#[test]
fn n9_cve_2020_13401_router_advertisements_of_members_are_not_heard() {
    let (sandbox, _lan) = up(false);
    let routes = || sandbox.inside("web", "ip -6 route");
    let source = sandbox.inside("attacker", "ip -6 -br addr show dev eth0 scope link | grep -o 'fe80[^/]*'");
    forge(&sandbox, &format!("send(router('{source}'))"));
    assert!(!routes().contains("proto ra"), "{}", routes());
    // The control: the same packet, sent by the host, is believed.
    let name = run("ip", &["-o", "link", "show", "type", "bridge"]);
    let bridge = name.split(": ").nth(1).unwrap().to_owned();
    let own = run("ip", &["-6", "-br", "addr", "show", "dev", &bridge, "scope", "link"]);
    let own = own.split_whitespace().nth(2).unwrap().split('/').next().unwrap().to_owned();
    let script = format!("{FORGE}\nsend(router('{own}'))").replace("eth0", &bridge);
    run("python3", &["-c", &script]);
    until_true("the host's advertisement arrives", || routes().contains("proto ra"));
}

/// Rules of the administrator come before all of ours.
#[test]
fn n10_n14_published_ports_and_metadata_obey_the_administrator() {
    let (sandbox, lan) = up(false);
    let rule = |text: &str| run("nft", &["add", "rule", "inet", "stack", "stack-user", text]);
    assert_eq!(lan.hears("192.0.2.1", 18080).as_deref(), Some("192.0.2.2"), "the control");
    rule("iifname up0 drop");
    assert_eq!(lan.hears("192.0.2.1", 18080), None, "n10");
    assert_eq!(lan.hears("2001:db8::1", 18080), None, "n10");
    assert!(sandbox.host_hears("127.0.0.1", 18080).contains('.'), "the host itself is none of them");
    run("nft", &["flush", "chain", "inet", "stack", "stack-user"]);
    assert_eq!(lan.hears("192.0.2.1", 18080).as_deref(), Some("192.0.2.2"), "the control");
    sandbox.stack_env(&[("STACK_PUBLISH", "loopback")], "up -d").ok();
    sandbox.until_logged("web", "ready");
    for (host, closed) in [("192.0.2.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1")] {
        assert_eq!(lan.hears(host, 18080), None, "n10: published on loopback alone");
        assert_eq!(sandbox.host_hears(closed, 18080), "refused");
        assert_eq!(sandbox.hears("attacker", host, 18080), "refused", "nor for containers");
    }
    assert!(
        sandbox.host_hears("127.0.0.1", 18080).contains('.') && sandbox.host_hears("::1", 18080).contains(['.', ':'])
    );

    // Metadata services, as they are found in the networks of clouds.
    for (address, family) in [("169.254.169.254/32", "-4"), ("fd00:ec2::254/128", "-6"), ("fd20:ce::254/128", "-6")] {
        lan.run(&format!("ip addr add {address} dev lan0 {}", if family == "-6" { "nodad" } else { "" }));
        run("ip", &[family, "route", "add", address, "dev", "up0"]);
        let host = address.split('/').next().unwrap();
        assert_eq!(sandbox.hears("attacker", host, 80), "refused", "n14: {host}");
        assert!(sandbox.host_hears(host, 80).contains([':', '.']), "the control: it is for the host");
        let ip = if family == "-6" { "ip6" } else { "ip" };
        rule(&format!("{ip} daddr {host} accept"));
        assert!(sandbox.hears("attacker", host, 80).contains([':', '.']), "n14: where the administrator allows it");
    }
    run("nft", &["flush", "chain", "inet", "stack", "stack-user"]);
}

/// Connects again and again, and says when it last succeeded.
const INSISTENT: &str = r#"
import socket, sys, time
print("begun", flush=True)
last, end = 0, time.time() + 5
while time.time() < end:
    try: socket.create_connection((sys.argv[1], 80), 0.2).close(); last = time.time()
    except OSError: time.sleep(0.002)
print("%.6f" % last)
"#;

#[test]
fn n11_a_flush_opens_no_door_for_longer_than_a_second() {
    let (sandbox, _lan) = up(true);
    let other = format!("{}b", sandbox.project);
    // Even if the other stack's own supervisor can do nothing.
    let supervisors = sandbox.processes("__supervisor");
    let lines = |pid: &i32| fs_err::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let theirs = *supervisors.iter().find(|pid| lines(pid).contains(&other)).unwrap();
    let signal = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(theirs), signal).unwrap();
    // Not amid a change, when all others wait for it.
    let tables = || fs_err::File::open(format!("/proc/{theirs}/ns/net")).unwrap().into_parts().0;
    loop {
        signal(nix::sys::signal::Signal::SIGSTOP);
        if nix::fcntl::Flock::lock(tables(), nix::fcntl::FlockArg::LockExclusiveNonblock).is_ok() {
            break;
        }
        signal(nix::sys::signal::Signal::SIGCONT);
    }
    for address in ["10.91.2.10", "fd00:91:2::10"] {
        let mut attack =
            sandbox.command(crate::sandbox::STACK, &["exec", "-T", "attacker", "python3", "-c", INSISTENT, address]);
        let mut attack = attack.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(attack.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(said.next().as_deref(), Some("begun"));
        let flushed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        run("nft", &["flush", "ruleset"]);
        let last: f64 = said.next().unwrap().parse().unwrap();
        attack.wait().unwrap();
        // Within a second, but for a busy machine's sake not to the millisecond.
        assert!(last < flushed + 3.0, "n11: [{address}] answered {} s after the flush", last - flushed);
        assert_eq!(sandbox.hears("attacker", address, 80), "refused");
        assert!(sandbox.hears("attacker", "10.91.1.10", 80).contains('.'), "the control");
    }
    signal(nix::sys::signal::Signal::SIGCONT);
}

/// Says who sends it datagrams, and answers.
const LISTENER: &str = "import socket\ns = socket.socket(2, 2); s.bind(('', 53)); print('ready', flush=True)\nwhile True:\n  d, a = s.recvfrom(99); print(d.decode(), 'of', a[0], flush=True); s.sendto(b'heard', a)";

#[test]
fn n15_flows_end_with_the_container_that_they_went_to() {
    let file = |ports: &str| {
        format!(
            "services:\n  box: {{ image: stack/host, init: true, command: [python3, -c, {LISTENER:?}], networks: {{ lan: {{ ipv4_address: 10.91.5.10 }} }}, {ports} }}\n  near: {{ image: stack/host, init: true, command: [sleep, infinity], networks: [lan] }}\nnetworks: {{ lan: {{ ipam: {{ config: [{{ subnet: 10.91.5.0/24 }}] }} }} }}\n"
        )
    };
    let published = "ports: [\"18053:53/udp\"]";
    let sandbox = Sandbox::with(&file(published));
    let lan = Lan::new();
    sandbox.stack("up -d").ok();
    sandbox.until_logged("box", "ready");
    let send = "import socket, time\ns = socket.socket(2, 2); s.bind(('', 5353)); s.connect(('192.0.2.1', 18053))\nfor i in range(1500):\n  try: s.send(b'secret')\n  except OSError: pass\n  time.sleep(0.01)";
    let script = sandbox.file("send.py", send);
    let pid = lan.run(&format!("python3 {} > /dev/null 2>&1 & echo $!", script.display()));
    sandbox.until_logged("box", "secret of 192.0.2.2");

    sandbox.stack("down -t 0").ok();
    let other = format!("{}b", sandbox.project);
    sandbox.file("other.yaml", &file(""));
    let theirs = |words: &str| sandbox.stack(&format!("-f other.yaml -p {other} {words}")).ok().out;
    theirs("up -d");
    let heard = || theirs("logs --no-log-prefix box");
    let ask = "import socket\ns = socket.socket(2, 2); s.settimeout(2); s.sendto(b'hello', ('10.91.5.10', 53)); print(s.recv(9).decode())";
    until_true("the control: it hears its own stack", || {
        sandbox.stack_args(&["-f", "other.yaml", "-p", &other, "exec", "-T", "near", "python3", "-c", ask]).out.trim()
            == "heard"
    });
    assert!(lan.run(&format!("kill -0 {pid} && echo runs")).contains("runs"), "the control: somebody still sends");
    assert!(!heard().contains("secret"), "n15: {}", heard());
    // The same flow goes to whoever publishes the port now: here to a container made anew at another address.
    sandbox.file("other.yaml", &file(published).replace("10.91.5.10", "10.91.5.20"));
    theirs("up -d");
    until_true("a container made anew hears the flow", || heard().contains("secret of 192.0.2.2"));
    lan.run(&format!("kill {pid}"));
    theirs("down -t 0");
}
