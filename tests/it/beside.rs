//! Beside other firewalls, and against whoever takes away what is ours.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::dockerd::Dockerd;
use crate::lan::{Lan, run};
use crate::poll::until_true;
use crate::quickstart::{example, visits};
use crate::sandbox::Sandbox;

/// Says the client's address to everyone who connects.
const SERVER: &str = r#"import socket
s = socket.create_server(("", 80)); print("ready", flush=True)
while True:
    c, a = s.accept(); c.sendall((a[0] + "\n").encode()); c.close()
"#;

const FILE: &str = r#"
services:
  web:
    image: stack/host
    init: true
    command: ["python3", "/server.py"]
    ports: ["18080:80"]
    configs: [{ source: server, target: /server.py }]
  near: { image: stack/host, init: true, command: ["sleep", "infinity"] }
configs: { server: { file: ./server.py } }
"#;

/// What dockerd leaves in a kernel that forwarded nothing before.
const DOCKER: &str = "
table ip filter {
    chain DOCKER-USER { counter return; }
    chain FORWARD { type filter hook forward priority 0; policy drop; counter jump DOCKER-USER; }
}
table ip6 filter {
    chain DOCKER-USER { counter return; }
    chain FORWARD { type filter hook forward priority 0; policy drop; counter jump DOCKER-USER; }
}";

fn prepare() -> Sandbox {
    let sandbox = Sandbox::with(FILE);
    sandbox.file("server.py", SERVER);
    sandbox
}

fn up(sandbox: &Sandbox) {
    sandbox.stack("up -d").ok();
    sandbox.until_logged("web", "ready");
}

/// What a container hears from port 80 of an address.
fn hears(sandbox: &Sandbox, host: &str) -> Option<String> {
    let script = format!("import socket; print(socket.create_connection(('{host}', 80), 1).recv(99).decode().strip())");
    Some(sandbox.stack_args(&["exec", "-T", "near", "python3", "-c", &script]).out.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// From outside in, from inside out, and within the network.
fn works(sandbox: &Sandbox, lan: &Lan) -> bool {
    lan.hears("192.0.2.1", 18080).as_deref() == Some("192.0.2.2")
        && hears(sandbox, "192.0.2.2").as_deref() == Some("192.0.2.1")
        && hears(sandbox, "web").is_some()
}

/// Within a second, but for a busy machine's sake not to the millisecond.
fn comes_back(what: &str, ask: impl FnMut() -> bool) {
    let start = Instant::now();
    until_true(what, ask);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "{what}: took {took:?}");
}

fn bridge() -> String {
    let links = run("ip", &["-o", "link", "show", "type", "bridge"]);
    let name = links.split(": ").nth(1).unwrap_or_else(|| panic!("a bridge in {links}"));
    name.to_owned()
}

fn nft(words: &str) -> String {
    run("nft", &words.split(' ').collect::<Vec<_>>())
}

#[test]
fn a_foreign_policy_of_drop_lets_our_bridges_through() {
    let sandbox = prepare();
    let lan = Lan::new();
    run("sh", &["-c", &format!("echo '{DOCKER}' | nft -f -")]);
    let before = nft("-s list table ip filter");
    up(&sandbox);
    assert!(works(&sandbox, &lan), "{}", nft("list ruleset"));
    let listed = nft("-s list chain ip filter DOCKER-USER");
    let comment = format!("comment \"stack: bridge {} of {p}:{p}_default\"", bridge(), p = sandbox.project);
    assert_eq!(listed.matches(&comment).count(), 2, "{listed}");
    assert!(run("iptables-save", &[]).contains(&format!("-i {} -m comment", bridge())), "iptables reads its table");
    nft("flush chain ip filter DOCKER-USER");
    comes_back("rules among Docker's", || nft("list chain ip filter DOCKER-USER").contains(&comment));
    nft("add rule ip filter DOCKER-USER counter return");
    sandbox.stack("down").ok();
    assert_eq!(nft("-s list table ip filter"), before);
    nft("flush ruleset");
}

/// What ufw makes of its defaults, for either address family: everything is dropped that is not known.
const UFW: &str = "
table FAMILY filter {
    chain PREFIX-before-input { iifname lo accept; ct state established,related accept; }
    chain PREFIX-before-forward { ct state established,related accept; jump PREFIX-user-forward; }
    chain PREFIX-user-forward { }
    chain INPUT { type filter hook input priority 0; policy drop; jump PREFIX-before-input; }
    chain FORWARD { type filter hook forward priority 0; policy drop; jump PREFIX-before-forward; }
}";

/// What firewalld makes of its defaults: what no zone or policy lets through is rejected at the end of the chain.
const FIREWALLD: &str = "
table inet firewalld {
    chain filter_FORWARD_POLICIES { }
    chain filter_INPUT {
        type filter hook input priority 10; policy accept;
        ct state established,related accept
        iifname lo accept
        reject with icmpx type admin-prohibited
    }
    chain filter_FORWARD {
        type filter hook forward priority 10; policy accept;
        ct state established,related accept
        ct status dnat accept
        iifname lo accept
        ct state invalid drop
        jump filter_FORWARD_POLICIES
        reject with icmpx type admin-prohibited
    }
}";

/// Beside another firewall our rules stand in the place that it keeps for others, come back, and go.
fn beside(rules: &str, place: &str, table: &str) {
    let sandbox = prepare();
    let lan = Lan::new();
    run("sh", &["-c", &format!("echo '{rules}' | nft -f -")]);
    let before = nft(&format!("-s list table {table}"));
    up(&sandbox);
    assert!(works(&sandbox, &lan), "{}", nft("list ruleset"));
    let comment = format!("comment \"stack: bridge {} of {p}:{p}_default\"", bridge(), p = sandbox.project);
    let ours = || nft(&format!("-s list chain {place}")).matches(&comment).count();
    assert_eq!(ours(), 2, "{}", nft(&format!("list chain {place}")));
    // As a reload has it: all gone, and all made anew.
    run("sh", &["-c", &format!("(echo 'delete table {table}'; echo '{rules}') | nft -f -")]);
    comes_back("our rules after a reload", || ours() == 2);
    assert!(works(&sandbox, &lan), "after a reload: {}", nft("list ruleset"));
    sandbox.stack("down").ok();
    assert_eq!(nft(&format!("-s list table {table}")), before);
    nft("flush ruleset");
}

#[test]
fn ufw_lets_our_bridges_through() {
    let [four, six] = [("ip", "ufw"), ("ip6", "ufw6")]
        .map(|(family, prefix)| UFW.replace("FAMILY", family).replace("PREFIX", prefix));
    beside(&four, "ip filter ufw-before-forward", "ip filter");
    beside(&six, "ip6 filter ufw6-before-forward", "ip6 filter");
}

#[test]
fn firewalld_lets_our_bridges_through() {
    beside(FIREWALLD, "inet firewalld filter_FORWARD", "inet firewalld");
}

#[test]
fn without_a_place_for_us_a_drop_is_named() {
    let sandbox = prepare();
    nft("add table inet mine");
    run(
        "nft",
        &["add", "chain", "inet", "mine", "forwarding", "{ type filter hook forward priority 0; policy drop; }"],
    );
    let up = sandbox.stack("up -d").ok();
    assert!(up.err.contains("`inet mine forwarding` drops"), "{up}");
    nft("delete table inet mine");
}

#[test]
fn flushed_rules_and_removed_links_come_back() {
    let sandbox = prepare();
    let lan = Lan::new();
    up(&sandbox);
    let rules = nft("-s list ruleset");
    assert!(works(&sandbox, &lan));

    nft("flush ruleset");
    comes_back("the rules", || nft("-s list ruleset") == rules);
    assert!(works(&sandbox, &lan), "after a flush");

    nft("flush chain inet stack forward");
    comes_back("one chain", || nft("-s list ruleset") == rules);

    let bridge = bridge();
    run("ip", &["addr", "flush", "dev", &bridge]);
    comes_back("the address", || run("ip", &["-4", "-o", "addr", "show", "dev", &bridge]).contains("inet "));
    assert!(works(&sandbox, &lan), "with the address back");

    run("ip", &["link", "set", &bridge, "down"]);
    comes_back("the bridge is up", || run("ip", &["link", "show", &bridge]).contains(",UP"));

    run("ip", &["link", "del", &bridge]);
    comes_back("the bridge", || works(&sandbox, &lan));
    sandbox.stack("down").ok();
    assert_eq!(nft("list ruleset"), "", "nothing is left");
}

#[test]
fn what_went_while_nobody_watched_comes_back_too() {
    let sandbox = prepare();
    let lan = Lan::new();
    up(&sandbox);
    let supervisor = sandbox.processes("__supervisor")[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGSTOP).unwrap();
    nft("flush ruleset");
    crate::sandbox::kill_hard(supervisor);
    comes_back("the rules, by the next supervisor", || works(&sandbox, &lan));
}

/// Containers know their gateway by its hardware address.
#[test]
fn the_bridge_keeps_its_address_while_members_come_and_go() {
    let sandbox = prepare();
    let lan = Lan::new();
    up(&sandbox);
    let address =
        || run("ip", &["-o", "link", "show", &bridge()]).split("link/ether ").nth(1).unwrap()[..17].to_owned();
    let known = address();
    for change in ["up -d --scale near=6", "up -d --scale near=1", "up -d --force-recreate -t 0"] {
        sandbox.stack(change).ok();
        assert_eq!(address(), known, "after {change}");
    }
    sandbox.until_logged("web", "ready");
    until_true("it works", || works(&sandbox, &lan));
}

#[test]
fn a_killed_supervisor_is_no_loss_of_the_network() {
    let sandbox = prepare();
    let lan = Lan::new();
    up(&sandbox);
    let log =
        || fs_err::read_to_string(sandbox.root().join("run").join(&sandbox.project).join("supervisor.log")).unwrap();
    let mac = || run("ip", &["-o", "link", "show", &bridge()]).split("link/ether ").nth(1).unwrap()[..17].to_owned();
    let known = mac();
    for change in ["restart -t 0", "up -d --force-recreate -t 0", "up -d --scale near=3"] {
        for pid in sandbox.processes("__supervisor") {
            crate::sandbox::kill_hard(pid);
        }
        sandbox.stack(change).ok();
        sandbox.until_logged("web", "ready");
        assert_eq!(mac(), known, "containers know their gateway by it");
        until_true("it works", || works(&sandbox, &lan));
        assert!(!log().contains("put back"), "after {change}: {}", log());
    }
    nft("flush ruleset");
    until_true("the control: a loss is told", || {
        log().contains("put back what another program removed: firewall tables")
    });
}

#[test]
fn dockerd_and_we_leave_each_other_alone() {
    let sandbox = prepare();
    let lan = Lan::new();
    let docker = Dockerd::start();
    // What dockerd asks of the kernel, and what it leaves behind: the hardest of all neighbours.
    const FILTERED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    fs_err::write(FILTERED, "1").expect("dockerd has loaded br_netfilter");
    assert!(run("iptables-save", &[]).contains(":FORWARD DROP"), "{}", run("iptables-save", &[]));
    docker.run("network create theirs");
    docker.run("run -d --name theirs --network theirs -p 18081:80 busybox /bin/busybox httpd -f -p 80 -h /");
    let address = docker.run("inspect -f {{.NetworkSettings.Networks.theirs.IPAddress}} theirs").trim().to_owned();
    let rules = iptables();
    let theirs = || {
        let page = "wget -q -T 2 -O - http://192.0.2.1:18081/bin/busybox 2>/dev/null | head -c 4 | tail -c 3";
        lan.run(page) == "ELF" && docker.run("exec theirs /bin/busybox nc -w 2 192.0.2.2 80").trim() == "192.0.2.1"
    };
    assert!(theirs(), "the control: Docker's container works");

    up(&sandbox);
    assert!(works(&sandbox, &lan), "ours: {}", nft("list ruleset"));
    assert!(theirs(), "theirs");
    assert_eq!(hears(&sandbox, &address), None, "a port that Docker does not publish");
    example(&sandbox, "quickstart/");
    let quickstart = format!("-p {}q -f quickstart/stack.yaml", sandbox.project);
    sandbox.stack(&format!("{quickstart} up -d --wait")).ok();
    assert_eq!((visits(), visits()), (1, 2), "the quickstart beside Docker");
    let subnets = run("ip", &["-4", "-o", "addr"]);
    let ours = sandbox.inside("near", "hostname -i");
    assert!(!subnets.contains("docker0") || !address.starts_with(&ours[..ours.rfind('.').unwrap()]), "{subnets}");

    docker.restart();
    docker.run("start theirs");
    comes_back("ours after Docker's restart", || works(&sandbox, &lan));
    assert!(theirs(), "theirs after the restart");
    run("iptables", &["-F", "DOCKER-USER"]);
    run("iptables", &["-A", "DOCKER-USER", "-j", "RETURN"]);
    comes_back("ours after a flush of DOCKER-USER", || works(&sandbox, &lan));
    assert_eq!(visits(), 3, "the quickstart after all that");

    sandbox.stack(&format!("{quickstart} down -v")).ok();
    sandbox.stack("down").ok();
    assert!(theirs(), "theirs after our end");
    assert_eq!(iptables(), rules, "Docker's rules are as before");
}

/// Docker's rules, those of containers aside; a restart of dockerd changes the order of its networks.
fn iptables() -> BTreeSet<String> {
    let saved = run("iptables-save", &[]);
    saved.lines().filter(|line| line.starts_with("-A") && !line.contains("-d ")).map(str::to_owned).collect()
}
