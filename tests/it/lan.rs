//! Another machine in the host's network: a namespace at the other end of a veth pair, and the way to the world.

use std::process::{Child, Command, Stdio};

use crate::poll::until;

/// 192.0.2.2 and 2001:db8::2, the host being 192.0.2.1 and 2001:db8::1. It has routes to every container, as an attacker
/// would set them. Dropped, it takes the link along.
pub(crate) struct Lan {
    process: Child,
}

/// Greets everyone who connects to port 80, or answers datagrams on port 53, with the address it sees.
const SERVER: &str = r#"import socket, threading
def tcp(port):
    s = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    while True:
        c, a = s.accept(); c.sendall((a[0].removeprefix("::ffff:") + "\n").encode()); c.close()
threading.Thread(target=tcp, args=(80,)).start()
print("ready", flush=True)
"#;

impl Lan {
    /// Connects another machine with the calling thread's namespace.
    pub(crate) fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--kill-child", "--fork", "python3", "-c", SERVER]).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(process.stdout.take().unwrap()), &mut line).unwrap();
        let lan = Self { process };
        let pid = lan.pid();
        run("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "lan0", "netns", &pid]);
        for step in ["addr add 192.0.2.1/24 dev up0", "addr add 2001:db8::1/64 dev up0 nodad", "link set up0 up"] {
            run("ip", &step.split(' ').collect::<Vec<_>>());
        }
        for step in [
            "link set lo up",
            "addr add 192.0.2.2/24 dev lan0",
            "addr add 2001:db8::2/64 dev lan0 nodad",
            "link set lan0 up",
            "route add default via 192.0.2.1",
            "-6 route add default via 2001:db8::1",
        ] {
            lan.run(&format!("ip {step}"));
        }
        run("ip", &["route", "add", "default", "via", "192.0.2.2"]);
        run("ip", &["-6", "route", "add", "default", "via", "2001:db8::2"]);
        until("the link is up", || lan.hears("192.0.2.1", 1).is_none().then_some(()));
        lan
    }

    /// The process inside, as a number.
    fn pid(&self) -> String {
        let own = self.process.id();
        until("the other machine runs", || {
            let children = fs_err::read_to_string(format!("/proc/{own}/task/{own}/children")).ok()?;
            Some(children.trim().to_owned()).filter(|pid| !pid.is_empty())
        })
    }

    /// Runs a command line there and returns what it printed, success or not.
    pub(crate) fn run(&self, line: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid(), "--net", "sh", "-c", line]);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The first line that a server says to it.
    pub(crate) fn hears(&self, host: &str, port: u16) -> Option<String> {
        let script =
            format!("import socket; print(socket.create_connection((\"{host}\", {port}), 1).recv(99).decode())");
        Some(self.run(&format!("python3 -c '{script}' 2>/dev/null"))).filter(|text| !text.is_empty())
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", "up0"]).status();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a program in the calling thread's namespace; it must succeed. Returns what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {errors}", args.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
