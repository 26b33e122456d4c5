//! Networks: names, isolation, published ports.

use std::net::UdpSocket;
use std::time::Duration;

use crate::poll::{until, until_true};
use crate::sandbox::Sandbox;
use crate::wire::greeting;

/// A line of Python that greets everyone who connects.
const GREETER: &str = r#"import socketserver
class Hello(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(b"hello\n")
class Server(socketserver.ThreadingTCPServer): allow_reuse_address = True
print("ready", flush=True)
Server(("", 80), Hello).serve_forever()
"#;

const FILE: &str = r#"
x-server: &server { image: stack/host, init: true, command: ["python3", "/hello.py"], configs: [{ source: hello, target: /hello.py }] }
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  web: { <<: *server, ports: ["18080:80", "127.0.0.1::80"], networks: { front: { aliases: [www] }, back: {} } }
  near: { <<: *idle, networks: [back] }
  far: { <<: *idle, networks: [other] }
  locked: { <<: *idle, networks: [closed] }
networks: { front: {}, back: {}, other: {}, closed: { internal: true } }
configs: { hello: { file: ./hello.py } }
"#;

fn up() -> Sandbox {
    let sandbox = Sandbox::with(FILE);
    sandbox.file("hello.py", GREETER);
    sandbox.stack("up -d").ok();
    sandbox.until_logged("web", "ready");
    sandbox
}

/// What a container hears at an address.
fn hears(sandbox: &Sandbox, service: &str, host: &str) -> bool {
    let script = format!("import socket; print(socket.create_connection(('{host}', 80), 2).recv(9).decode().strip())");
    sandbox.stack_args(&["exec", "-T", service, "python3", "-c", &script]).out.trim() == "hello"
}

#[test]
fn published_ports_answer_on_every_address() {
    let sandbox = up();
    until("the published port answers", || greeting("127.0.0.1:18080").filter(|text| text == "hello"));
    let port = sandbox.stack("port web 80").ok().out;
    assert!(port.contains("0.0.0.0:18080") || port.contains("127.0.0.1:"), "{port}");
    let published: Vec<String> = sandbox
        .ps()
        .iter()
        .flat_map(|row| {
            let publishers = row["Publishers"].as_array().cloned().unwrap_or_default();
            publishers.into_iter().filter(|one| one["URL"] == "127.0.0.1").map(|one| one["PublishedPort"].to_string())
        })
        .collect();
    assert_eq!(published.len(), 1, "a port of the machine's choice");
    assert_eq!(greeting(&format!("127.0.0.1:{}", published[0])).as_deref(), Some("hello"));
}

#[test]
fn names_are_known_on_common_networks_only() {
    let sandbox = up();
    assert!(hears(&sandbox, "near", "web"));
    assert!(!hears(&sandbox, "far", "web"));
    assert!(!hears(&sandbox, "near", "www"), "an alias belongs to its network");
    let address = sandbox.inside("web", "hostname -i").split(' ').next().unwrap().to_owned();
    assert!(!hears(&sandbox, "far", &address), "networks are isolated from each other");
}

#[test]
fn an_internal_network_has_no_way_out() {
    let sandbox = up();
    assert!(
        !sandbox
            .inside("locked", "cat /proc/net/route")
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some("00000000"))
    );
    assert!(
        sandbox
            .inside("near", "cat /proc/net/route")
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some("00000000"))
    );
}

#[test]
fn udp_is_published_too() {
    let sandbox = Sandbox::with(
        r#"
services:
  echo:
    image: stack/host
    init: true
    ports: ["18053:53/udp"]
    command: ["python3", "-c", "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 53)); print('ready', flush=True)\nwhile True:\n  d, a = s.recvfrom(100); s.sendto(d.upper(), a)"]
"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_logged("echo", "ready");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 16];
    until_true("the datagram comes back", || {
        socket.send_to(b"hi", "127.0.0.1:18053").unwrap();
        socket.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"HI")
    });
}

#[test]
fn modes_none_host_and_another_service_s() {
    let sandbox = Sandbox::with(
        r#"
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  none: { <<: *idle, network_mode: none }
  host: { <<: *idle, network_mode: host }
  main: *idle
  sidecar: { <<: *idle, network_mode: "service:main" }
"#,
    );
    sandbox.stack("up -d").ok();
    let links = sandbox.inside("none", "cut -d: -f1 /proc/net/dev | tail -n +3");
    assert_eq!(links.trim(), "lo");
    let own = fs_err::read_link("/proc/thread-self/ns/net").unwrap();
    assert_eq!(sandbox.inside("host", "readlink /proc/self/ns/net"), own.to_string_lossy());
    let main = sandbox.inside("main", "readlink /proc/self/ns/net");
    assert_eq!(sandbox.inside("sidecar", "readlink /proc/self/ns/net"), main);
}
