//! A server for containers, and who asks it.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::sandbox::Sandbox;

/// Says the client's address to everyone who connects to port 80 or sends to port 53, by IPv4 and IPv6.
pub(crate) const GREETER: &str = r#"import socket, threading
def plain(a): return a[0].removeprefix("::ffff:").encode()
def tcp(port):
    s = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    while True:
        c, a = s.accept(); c.sendall(plain(a)); c.close()
def udp(port):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.setsockopt(41, socket.IPV6_V6ONLY, 0); s.bind(("::", port))
    while True:
        d, a = s.recvfrom(100); s.sendto(plain(a), a)
for port in 80, 81: threading.Thread(target=tcp, args=(port,)).start()
threading.Thread(target=udp, args=(53,)).start()
print("ready", flush=True)
"#;

/// What stack files with such servers begin with: services merge `*server` or `*idle`.
pub(crate) const HEAD: &str = r#"
configs: { greeter: { file: ./greeter.py } }
x-server: &server { image: stack/host, init: true, command: ["python3", "/greeter.py"], configs: [{ source: greeter, target: /greeter.py }] }
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
"#;

impl Sandbox {
    /// Brings up a stack file that follows on [`HEAD`], and waits until the named services' servers are ready.
    pub(crate) fn greeting(text: &str, servers: &[&str]) -> Self {
        let sandbox = Self::greeter(text);
        sandbox.serve(servers);
        sandbox
    }

    /// The same, with nothing running yet.
    pub(crate) fn greeter(text: &str) -> Self {
        let sandbox = Self::with(&format!("{HEAD}{text}"));
        sandbox.file("greeter.py", GREETER);
        sandbox
    }

    /// Brings it up.
    pub(crate) fn serve(&self, servers: &[&str]) {
        self.stack("up -d").ok();
        for service in servers {
            self.until_logged(service, "ready");
        }
    }

    /// What a service's container hears at `host` (a name or an address) and a port; `refused`, `timeout`, … if nothing.
    pub(crate) fn hears(&self, service: &str, host: &str, port: u16) -> String {
        self.stack_args(&["exec", "-T", service, "python3", "-c", &asking(host, port)]).out.trim().to_owned()
    }

    /// What the host hears.
    pub(crate) fn host_hears(&self, host: &str, port: u16) -> String {
        let output = self.command("python3", &["-c", &asking(host, port)]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// A Python program that prints what a server says first.
pub(crate) fn asking(host: &str, port: u16) -> String {
    format!(
        "import socket\ntry: print(socket.create_connection(('{host}', {port}), 1.5).recv(99).decode() or 'closed')\n\
         except ConnectionRefusedError: print('refused')\nexcept ConnectionResetError: print('reset')\n\
         except TimeoutError: print('timeout')\nexcept OSError as e: print(e.strerror)"
    )
}

/// What comes back to a datagram.
pub(crate) fn datagram(address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut bytes = [0; 99];
    let mut ask = || {
        socket.send_to(b"?", address).ok()?;
        socket.recv(&mut bytes).ok()
    };
    let length = ask().or_else(&mut ask).or_else(&mut ask)?;
    Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
}
