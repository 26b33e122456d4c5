//! The resolver at 127.0.0.11, asked from inside containers.

use std::collections::BTreeSet;
use std::process::Command;

use crate::lan::Lan;
use crate::poll::{until, until_true};
use crate::sandbox::{STACK, Sandbox};

/// A server for all names, by datagram and stream: every name has the address given, `long.…` a text of 4,000 bytes. What is
/// asked goes to a file.
const SERVER: &str = r#"
import socket, struct, sys, threading
address, log = sys.argv[1], open(sys.argv[2], "a", 1)
def answer(q, stream):
    end = q.index(b"\0", 12) + 5
    log.write(("tcp " if stream else "udp ") + q[12:end - 5].decode("latin1").lower() + "\n")
    head = q[:2] + b"\x81\x80\0\1"
    if q[13:17].lower() == b"long": body = b"\xc0\x0c\0\x10\0\1\0\0\0\0" + struct.pack("!H", 4040) + (b"\x64" + b"x" * 100) * 40
    elif q[end - 4:end - 2] == b"\0\1": body = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)
    else: return head + b"\0" * 6 + q[12:end]
    return head + b"\0\1\0\0\0\0" + q[12:end] + body
def streams():
    s = socket.create_server(("", 53))
    while True:
        c, _ = s.accept(); size = struct.unpack("!H", c.recv(2))[0]; a = answer(c.recv(size), True); c.sendall(struct.pack("!H", len(a)) + a); c.close()
threading.Thread(target=streams, daemon=True).start()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", 53))
while True:
    q, peer = u.recvfrom(9999); u.sendto(answer(q, False)[:1232], peer)
"#;

/// Starts the server on the other machine; returns its process id.
fn server(sandbox: &Sandbox, lan: &Lan, address: &str) -> String {
    let script = sandbox.file("server.py", SERVER);
    let log = sandbox.path("asked");
    let pid = lan.run(&format!(
        "timeout 100 python3 {} {address} {} > /dev/null 2>&1 & echo $!",
        script.display(),
        log.display()
    ));
    until_true("the server listens", || lan.run("ss -lun sport = :53").contains(":53"));
    pid
}

const IDLE: &str = "image: stack/host, init: true, command: [sleep, infinity]";

/// A name's IPv4 address as a container finds it; empty if there is none.
fn address(sandbox: &Sandbox, service: &str, name: &str) -> String {
    let found = sandbox.inside(service, &format!("getent ahostsv4 {name} || true"));
    found.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn n16_other_names_are_asked_outside_but_not_from_closed_networks() {
    let sandbox = Sandbox::with(&format!(
        "services:\n  open: {{ {IDLE}, dns: [192.0.2.2] }}\n  slow: {{ {IDLE}, dns: [192.0.2.77, 192.0.2.2], dns_search: [corp.example] }}\n  shut: {{ {IDLE}, dns: [192.0.2.2], networks: [inner] }}\nnetworks: {{ inner: {{ internal: true }} }}\n"
    ));
    let lan = Lan::new();
    let pid = server(&sandbox, &lan, "203.0.113.7");
    sandbox.stack("up -d").ok();
    assert_eq!(address(&sandbox, "open", "one.example"), "203.0.113.7");
    assert_eq!(address(&sandbox, "slow", "two.example"), "203.0.113.7", "the second server, when the first is silent");
    // Cut to what fits a datagram, whole by stream: the C library asks again by itself.
    let text = "import socket, struct\nq = b'\\0\\x07\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\4long\\7example\\0\\0\\x10\\0\\1'\nu = socket.socket(2, 2); u.connect(('127.0.0.11', 53)); u.send(q); a = u.recv(9999); print(len(a) <= 512, a[2] & 2)\ns = socket.create_connection(('127.0.0.11', 53)); s.sendall(struct.pack('!H', len(q)) + q); size = struct.unpack('!H', s.recv(2))[0]\nb = b''\nwhile len(b) < size: b += s.recv(9999)\nprint(size > 4000, b.count(b'x'))";
    assert_eq!(sandbox.stack_args(&["exec", "-T", "open", "python3", "-c", text]).ok().out, "True 2\nTrue 4001\n");
    let asked = || fs_err::read_to_string(sandbox.path("asked")).unwrap();
    assert!(asked().contains("udp \u{3}one") && asked().contains("tcp \u{4}long"), "{}", asked());
    // n16, moby GHSA-mq39-4gv4-mvpx: nothing of a closed network's questions leaves the host, directly or by 127.0.0.11.
    assert_eq!(address(&sandbox, "shut", "leak.example"), "");
    assert_eq!(sandbox.hears("shut", "192.0.2.2", 53), "Network is unreachable");
    assert!(!asked().contains("leak"), "{}", asked());
    assert!(address(&sandbox, "shut", "shut").starts_with("172."), "the control: its own names");
    lan.run(&format!("kill {pid}"));
}

#[test]
fn other_servers_of_the_host_are_asked_from_then_on() {
    let sandbox = Sandbox::with(&format!(
        "services:\n  open: {{ {IDLE} }}\n  side: {{ {IDLE}, network_mode: \"service:open\" }}\n  own: {{ {IDLE}, dns_search: own.example, dns_opt: [\"ndots:2\"] }}\n  kept: {{ {IDLE} }}\n"
    ));
    let lan = Lan::new();
    let pid = server(&sandbox, &lan, "203.0.113.8");
    let (upper, work) = (sandbox.path("upper"), sandbox.path("work"));
    for folder in [&upper, &work] {
        fs_err::create_dir_all(folder).unwrap();
    }
    let script = format!(
        "mount -t overlay none -o lowerdir=/etc,upperdir={},workdir={} /etc && rm -f /etc/resolv.conf && echo nameserver 192.0.2.78 > /etc/resolv.conf && exec {STACK} up -d",
        upper.display(),
        work.display()
    );
    let up = sandbox.command("unshare", &["--mount", "sh", "-c", &script]).output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let supervisor = sandbox.processes("__supervisor")[0];
    let file = format!("/proc/{supervisor}/root/etc/resolv.conf");
    fs_err::write(&file, "nameserver 192.0.2.2\n").unwrap();
    until_true("the new server is asked", || address(&sandbox, "open", "one.example") == "203.0.113.8");
    sandbox.inside("kept", "printf 'nameserver 127.0.0.11\\n# mine\\n' > /etc/resolv.conf");
    let inside = |service: &str| sandbox.inside(service, "cat /etc/resolv.conf");
    assert_eq!(inside("open"), "nameserver 127.0.0.11\noptions ndots:0");
    fs_err::write(&file, "nameserver 192.0.2.2\nsearch corp.example lab.example\noptions timeout:1 edns0\n").unwrap();
    let now = "nameserver 127.0.0.11\nsearch corp.example lab.example\noptions timeout:1 edns0 ndots:0";
    until_true("search domains and options follow", || inside("open") == now && inside("side") == now);
    assert_eq!(inside("own"), "nameserver 127.0.0.11\nsearch own.example\noptions ndots:2", "the file's own stay");
    assert_eq!(inside("kept"), "nameserver 127.0.0.11\n# mine", "what somebody wrote inside stays");
    // As programs that manage the file do it.
    fs_err::write(format!("{file}.new"), "nameserver 192.0.2.79\n").unwrap();
    fs_err::rename(format!("{file}.new"), &file).unwrap();
    until_true("it is no more", || address(&sandbox, "open", "two.example").is_empty());
    lan.run(&format!("kill {pid}"));
}

#[test]
fn scaled_services_answer_in_turn_and_at_once() {
    let sandbox = Sandbox::with(&format!(
        "services:\n  web: {{ {IDLE}, scale: 3, networks: [dual] }}\n  near: {{ {IDLE}, networks: [dual] }}\n  four: {{ {IDLE} }}\nnetworks: {{ dual: {{ enable_ipv6: true }} }}\n"
    ));
    sandbox.stack("up -d").ok();
    let all = || {
        let found = sandbox.inside("near", "getent ahostsv4 web || true");
        found.lines().filter(|line| line.contains("STREAM")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(all().len(), 3);
    let ask = "import socket\nfirst = set()\nq = b'\\0\\x07\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\3web\\0\\0\\1\\0\\1'\nu = socket.socket(2, 2); u.connect(('127.0.0.11', 53))\nfor _ in range(12):\n  u.send(q); a = u.recv(999); first.add(a[33:37])\nprint(len(first))";
    assert_eq!(sandbox.stack_args(&["exec", "-T", "near", "python3", "-c", ask]).ok().out.trim(), "3");
    sandbox.stack("up -d --scale web=1").ok();
    assert_eq!(all().len(), 1, "gone with the containers");
    sandbox.stack("up -d --scale web=2").ok();
    assert_eq!(all().len(), 2, "there with the containers");
    let second: BTreeSet<String> = sandbox.ids("web").into_iter().collect();
    assert_eq!(second.len(), 2);
    sandbox.stack("kill web").ok();
    assert_eq!(all().len(), 0);
}

/// Messages that are none, or more than they say.
const HOSTILE: &str = r#"
import os, random, socket, struct
head = lambda flags=0x100, q=1, a=0, n=0, r=0: struct.pack("!HHHHHH", 7, flags, q, a, n, r)
web = b"\3web\0\0\1\0\1"
packets = [b"", b"\0", head()[:11], head(), head() + b"\xc0\x0c\0\1\0\1", head() + b"\xc0\x0e\xc0\x0c\0\1\0\1", head() + b"\x3f" + b"a" * 10,
  head() + b"\x80web\0\0\1\0\1", head() + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1", head(q=0) + web, head(q=65535) + web, head(q=2) + web * 2,
  head(a=65535, n=65535, r=65535) + web, head(0x8180) + web, head(0x2800) + web, head(0x7900) + web, head() + b"\3web\0\0\xfc\0\1", head() + b"\3web\0\0\1\0\xff",
  head(r=1) + web + b"\0\0\x29\xff\xff\1\5\0\0\xff\xff", head(r=1) + web + b"\0\0\x29\0\0\0\1\0\0\0\0", head() + b"\0" * 9, head() + b"\1\0\0\0\0\1\0\1", os.urandom(4096), b"\xff" * 9000]
random.seed(1)
good = head() + web
for _ in range(2000):
    p = bytearray(good + b"\0\0\x29\x10\0\0\0\0\0\0\0")
    for _ in range(random.randint(1, 6)): p[random.randrange(2, len(p))] = random.randrange(256)
    packets.append(bytes(p[:random.randint(2, len(p))]))
u = socket.socket(2, 2); u.connect(("127.0.0.11", 53)); u.settimeout(0.001)
longest = 0
for p in packets:
    u.send(p)
    try: longest = max(longest, len(u.recv(65535)))
    except TimeoutError: pass
for p in packets[:24]:
    s = socket.create_connection(("127.0.0.11", 53)); s.settimeout(0.05)
    try: s.sendall(struct.pack("!H", len(p)) + p); s.recv(9999)
    except OSError: pass
    s.close()
half = [socket.create_connection(("127.0.0.11", 53)) for _ in range(20)]
for s in half: s.sendall(b"\xff\xff\0")
u = socket.socket(2, 2); u.connect(("127.0.0.11", 53)); u.settimeout(3)
u.send(good); a = u.recv(999)
print(a[:2] == good[:2], a[7] == 1, longest <= 1232)
"#;

#[test]
fn n12_hostile_messages_do_not_keep_good_ones_from_being_answered() {
    let sandbox = Sandbox::with(&format!(
        "services:\n  web: {{ {IDLE}, networks: [inner] }}\nnetworks: {{ inner: {{ internal: true }} }}\n"
    ));
    sandbox.stack("up -d").ok();
    let supervisor = sandbox.processes("__supervisor");
    assert_eq!(sandbox.stack_args(&["exec", "-T", "web", "python3", "-c", HOSTILE]).ok().out, "True True True\n");
    assert_eq!(sandbox.processes("__supervisor"), supervisor, "it lives");
    // An amplifier would answer strangers: the resolver is inside of the container alone.
    let listening = Command::new("ss").args(["-lunH"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&listening.stdout).contains("127.0.0.11"));
}

/// A server whose answers come after forged ones, and one that spells names its own way. What it was asked goes to a file.
const FORGER: &str = r#"
import socket, struct, sys, threading
log = open(sys.argv[1], "a", 1)
right, wrong = socket.inet_aton("203.0.113.7"), socket.inet_aton("203.0.113.66")
def answer(ident, question, address):
    return ident + b"\x81\x80\0\1\0\1\0\0\0\0" + question + b"\xc0\x0c\0\1\0\1\0\0\x0e\x10\0\4" + address
def streams():
    s = socket.create_server(("", 53))
    while True:
        c, _ = s.accept(); size = struct.unpack("!H", c.recv(2))[0]; q = c.recv(size)
        log.write("tcp\n"); a = answer(q[:2], q[12:], right); c.sendall(struct.pack("!H", len(a)) + a); c.close()
threading.Thread(target=streams, daemon=True).start()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", 53))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    q, peer = u.recvfrom(999); end = q.index(b"\0", 12) + 5; question = q[12:end]
    log.write("%s %s %s\n" % (q[:2].hex(), peer[1], question[1:1 + question[0]].decode()))
    if question.lower().startswith(b"\6folder"):
        u.sendto(answer(q[:2], question.lower(), right), peer); continue
    other.sendto(answer(q[:2], question, wrong), peer)
    u.sendto(answer(bytes([q[0] ^ 1, q[1]]), question, wrong), peer)
    u.sendto(answer(q[:2], b"\5other\7example\0" + question[-4:], wrong), peer)
    u.sendto(q[:2] + b"\1\0" + answer(q[:2], question, wrong)[4:], peer)
    u.sendto(answer(q[:2], question, right), peer)
"#;

#[test]
fn n12_forged_answers_are_not_believed() {
    let sandbox = Sandbox::with(&format!("services:\n  open: {{ {IDLE}, dns: [192.0.2.2] }}\n"));
    let lan = Lan::new();
    let (script, log) = (sandbox.file("forger.py", FORGER), sandbox.path("asked"));
    let line = format!("timeout 100 python3 {} {} > /dev/null 2>&1 & echo $!", script.display(), log.display());
    let pid = lan.run(&line);
    until_true("the server listens", || lan.run("ss -lun sport = :53").contains(":53"));
    sandbox.stack("up -d").ok();
    for _ in 0..10 {
        assert_eq!(address(&sandbox, "open", "rather-long-victim-name.example"), "203.0.113.7");
    }
    let asked = fs_err::read_to_string(&log).unwrap();
    let column = |index: usize| asked.lines().filter_map(|line| line.split(' ').nth(index)).collect::<BTreeSet<_>>();
    for (index, what) in ["ids", "ports", "spellings"].into_iter().enumerate() {
        assert!(column(index).len() >= 9, "{what} are left to chance:\n{asked}");
    }
    assert_eq!(address(&sandbox, "open", "folder.example"), "203.0.113.7", "one that spells names its own way");
    assert!(fs_err::read_to_string(&log).unwrap().contains("tcp"), "is asked by stream");
    lan.run(&format!("kill {pid}"));
}

/// Asks for `web` every other millisecond, and says the second at which the number of its addresses changed.
const OBSERVER: &str = r#"
import socket, time
q = b"\0\7\1\0\0\1\0\0\0\0\0\0\3web\0\0\1\0\1"
u = socket.socket(2, 2); u.connect(("127.0.0.11", 53)); u.settimeout(1)
last = -1
while True:
    u.send(q); a = u.recv(999)
    if a[7] != last: last = a[7]; print(last, "%.6f" % time.time(), flush=True)
    time.sleep(0.002)
"#;

#[test]
fn answers_follow_starts_and_deaths_within_50_ms() {
    let sandbox = Sandbox::with(&format!(
        "services:\n  near: {{ image: stack/host, init: true, command: [python3, -c, {OBSERVER:?}] }}\n  web: {{ image: stack/host, init: true, command: [sh, -c, \"date +%s.%N; exec sleep infinity\"] }}\n"
    ));
    sandbox.stack("up -d").ok();
    let lines = |service: &str| {
        let ran = sandbox.stack(&format!("logs --no-log-prefix {service}")).ok();
        ran.out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let seen = |number: &str| {
        let last = lines("near").pop().unwrap_or_default();
        last.split_once(' ').filter(|(count, _)| *count == number).map(|(_, time)| time.parse::<f64>().unwrap())
    };
    // A busy machine gives nobody its turn so soon each time.
    let (mut best, mut rounds) = ([f64::MAX; 2], 0);
    while rounds < 40 && best.iter().any(|seconds| *seconds > 0.05) {
        rounds += 1;
        let appeared = until("the name is known", || seen("1"));
        let started: f64 = lines("web").pop().unwrap().parse().unwrap();
        best[0] = best[0].min(appeared - started);
        let (pid, now) = (sandbox.pid("web"), std::time::SystemTime::now());
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        let gone = until("the name is gone", || seen("0"));
        best[1] = best[1].min(gone - now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64());
        sandbox.stack("start web").ok();
    }
    assert!(
        best.iter().all(|seconds| *seconds < 0.05),
        "seconds after a start and a death, on a quiet moment: {best:?}"
    );
}
