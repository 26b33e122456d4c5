//! Published ports in numbers.

use crate::lan::run;
use crate::poll::until_true;
use crate::sandbox::{Sandbox, kill_hard};

/// Serves ports 20000, 20500 and 20999.
const SERVER: &str = "import socket, select\ns = [socket.create_server(('', p)) for p in (20000, 20500, 20999)]\nprint('ready', flush=True)\nwhile True:\n  for r in select.select(s, [], [])[0]: c, a = r.accept(); c.sendall(b'hello'); c.close()";

#[test]
fn a_thousand_ports_of_one_service() {
    let sandbox = Sandbox::with(&format!(
        "services: {{ many: {{ image: stack/host, init: true, command: [python3, -c, {SERVER:?}], ports: [\"20000-20999:20000-20999\"] }} }}\n"
    ));
    // The usual limit of open files on a server's login.
    let up = sandbox.shell(&[], &format!("ulimit -Sn 1024; exec {} up -d", crate::sandbox::STACK));
    up.ok();
    sandbox.until_logged("many", "ready");
    assert_eq!(sandbox.inside("many", "ulimit -n"), "1024", "the container has what the user had");
    let answer = |what: &str| {
        for port in [20000, 20500, 20999] {
            for host in ["127.0.0.1", "::1"] {
                assert_eq!(sandbox.host_hears(host, port), "hello", "{what}: [{host}]:{port}");
            }
        }
    };
    answer("at first");
    let mapped = || run("nft", &["list", "map", "inet", "stack", "everywhere-4"]).matches(" : 172.").count();
    assert_eq!(mapped(), 1000);
    let supervisor = sandbox.processes("__supervisor")[0];
    kill_hard(supervisor);
    until_true("another supervisor serves", || sandbox.host_hears("::1", 20999) == "hello");
    answer("after the supervisor's death");
    sandbox.stack("restart -t 0").ok();
    assert_eq!(sandbox.inside("many", "ulimit -n"), "1024", "after that, too");
    sandbox.stack("stop -t 0").ok();
    assert_eq!(mapped(), 0);
}
