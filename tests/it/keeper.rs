//! The socket keeper: whoever connects while a program is started again is served by the next one.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::poll::until_true;
use crate::sandbox::{Sandbox, kill_hard};

const ADDRESS: &str = "127.0.0.1:8080";
const PATIENCE: Duration = Duration::from_secs(25);
/// Requests under way at the same time.
const MOST: usize = 500;
/// Restarts of one program.
const RESTARTS: usize = 20;
const GET: &[u8] = b"GET / HTTP/1.0\r\n\r\n";

/// How a request ended.
#[derive(Debug, PartialEq)]
enum End {
    Answered,
    Refused,
    /// The connection was closed without an answer.
    Cut,
    Other(String),
}

fn ask(request: &[u8]) -> End {
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let asked = TcpStream::connect_timeout(&address, PATIENCE).and_then(|mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        stream.read(&mut [0; 100])
    });
    match asked {
        Ok(1..) => End::Answered,
        Ok(0) => End::Cut,
        Err(e) => match e.kind() {
            ErrorKind::ConnectionRefused => End::Refused,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => End::Cut,
            _ => End::Other(e.to_string()),
        },
    }
}

/// Requests of every millisecond while `work` is done: when each began, and how it ended.
fn asking(request: &'static [u8], most: usize, work: impl FnOnce()) -> Vec<(Instant, End)> {
    let (ends, done, under_way) = (Mutex::new(Vec::new()), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                if under_way.fetch_add(1, Ordering::Relaxed) < most {
                    scope.spawn(|| {
                        let begun = Instant::now();
                        let end = ask(request);
                        under_way.fetch_sub(1, Ordering::Relaxed);
                        ends.lock().unwrap().push((begun, end));
                    });
                } else {
                    under_way.fetch_sub(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(1).saturating_sub(begun.elapsed()));
            }
        });
        let _done = Done(&done);
        work();
    });
    ends.into_inner().unwrap()
}

/// Ends the asking, also where an assertion fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every request was answered, those aside that the old process had when it was stopped: they began before `stopped`.
fn assert_served(ends: &[(Instant, End)], stops: &[(Instant, Instant)]) {
    let lost: Vec<_> = ends
        .iter()
        .filter(|(begun, end)| match end {
            End::Answered => false,
            // It was in the hands of a process that was stopped in this span.
            End::Cut => !stops.iter().any(|(from, to)| from.checked_sub(PATIENCE).unwrap() < *begun && begun < to),
            _ => true,
        })
        .collect();
    assert!(lost.is_empty(), "{} of {} requests were lost: {lost:?}", lost.len(), ends.len());
    let cut = ends.iter().filter(|(_, end)| *end == End::Cut).count();
    let answered = ends.len() - cut;
    assert!(cut * 10 < answered, "{cut} cut, {answered} answered");
}

fn until_serving(request: &[u8]) {
    until_true("the service answers", || ask(request) == End::Answered);
}

/// Restarts a service again and again while somebody asks every millisecond, with at most so many requests at a time.
fn restarts(sandbox: &Sandbox, request: &'static [u8], most: usize) {
    sandbox.stack("up -d").ok();
    until_serving(request);
    let mut stops = Vec::new();
    let ends = asking(request, most, || {
        for _ in 0..RESTARTS {
            let before = sandbox.pid("web");
            let begun = Instant::now();
            sandbox.stack("restart").ok();
            stops.push((begun, Instant::now()));
            assert_ne!(sandbox.pid("web"), before);
            until_serving(request);
        }
    });
    assert_served(&ends, &stops);
}

/// A service that is restarted when something in `conf` changes, published at [`ADDRESS`].
fn service(sandbox: &Sandbox, port: u16, command: &str, more: &str) {
    sandbox.file("conf/x", "");
    sandbox.file(
        "stack.yaml",
        &format!(
            r#"
services:
  web:
    image: stack/host
    command: {command}
    ports: ["8080:{port}"]
    develop: {{ watch: [{{ action: restart, path: ./conf }}] }}
    {more}
"#
        ),
    );
}

#[test]
fn restarts_of_python_refuse_nobody() {
    let sandbox = Sandbox::new();
    service(&sandbox, 8000, r#"["python3", "-m", "http.server", "8000", "--directory", "/etc/apt"]"#, "");
    restarts(&sandbox, GET, MOST);
}

#[test]
fn restarts_of_redis_refuse_nobody() {
    let sandbox = Sandbox::new();
    let command = r#"["redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp"]"#;
    service(&sandbox, 6379, command, "");
    restarts(&sandbox, b"PING\r\n", MOST);
}

#[test]
fn restarts_of_nginx_refuse_nobody() {
    let sandbox = Sandbox::new();
    sandbox.file(
        "nginx.conf",
        "daemon off; pid /tmp/pid; error_log stderr; events {}\n\
         http { access_log off; client_body_temp_path /tmp/1; proxy_temp_path /tmp/2; fastcgi_temp_path /tmp/3;\n\
         uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5; server { listen 80; listen [::]:80; location / { return 200 hello; } } }",
    );
    service(&sandbox, 80, r#"["/usr/sbin/nginx", "-c", "/nginx.conf"]"#, "volumes: [\"./nginx.conf:/nginx.conf:ro\"]");
    restarts(&sandbox, GET, MOST);
}

#[test]
fn restarts_of_node_refuse_nobody() {
    let sandbox = Sandbox::new();
    let server = "require('http').createServer((_, answer) => answer.end('hello')).listen(8000)";
    service(&sandbox, 8000, &format!(r#"["node", "-e", "{server}"]"#), "init: true");
    restarts(&sandbox, GET, MOST);
}

#[test]
fn restarts_of_postgresql_refuse_nobody() {
    let sandbox = Sandbox::new();
    let server =
        "cd /usr/lib/postgresql/*/bin; test -e /tmp/data/PG_VERSION || ./initdb -D /tmp/data -A trust -N >/dev/null
        exec ./postgres -D /tmp/data -k /tmp -c 'listen_addresses=*' -c fsync=off -c max_connections=600";
    sandbox.file("server.sh", server);
    let more = "user: \"65534:65534\"\n    stop_signal: SIGINT\n    volumes: [\"./server.sh:/server.sh:ro\"]";
    service(&sandbox, 5432, r#"["sh", "/server.sh"]"#, more);
    // Whether it speaks TLS: one letter is the answer, before anything is asked of who connects.
    // It forks for each, so that more than a few at a time only wait for each other.
    restarts(&sandbox, b"\0\0\0\x08\x04\xd2\x16\x2f", 50);
}

/// Two processes that share a port, and a socket of another protocol at the same number.
const SHARED: &str = r#"
import os, socket
def bound(kind, *options):
    s = socket.socket(socket.AF_INET, kind)
    for option in options: s.setsockopt(socket.SOL_SOCKET, option, 1)
    s.bind(("0.0.0.0", 8000))
    return s
udp = bound(socket.SOCK_DGRAM)
if os.fork() == 0:
    while True: udp.sendto(*udp.recvfrom(100))
os.fork()
tcp = bound(socket.SOCK_STREAM, socket.SO_REUSEPORT)
tcp.listen(5)
while True:
    c, _ = tcp.accept()
    c.recv(100)
    c.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
    c.close()
"#;

#[test]
fn what_cannot_be_kept_goes_on_as_ever() {
    let sandbox = Sandbox::new();
    sandbox.file("server.py", SHARED);
    service(&sandbox, 8000, r#"["python3", "/server.py"]"#, "init: true\n    volumes: [\"./server.py:/server.py:ro\"]");
    sandbox.stack("up -d").ok();
    let echo = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b'x', ('127.0.0.1', 8000)); print(s.recv(9).decode())";
    for _ in 0..3 {
        until_serving(GET);
        until_true("both processes listen", || sandbox.inside("web", "grep -c ':1F40 .* 0A ' /proc/net/tcp") == "2");
        let ran = sandbox.stack_args(&["exec", "-T", "web", "python3", "-c", echo]).ok();
        assert_eq!(ran.out.trim(), "x");
        sandbox.stack("restart -t 0").ok();
    }
    sandbox.stack("stop -t 0").ok();
    assert_ne!(ask(GET), End::Answered);
}

/// Connections wait for a program that comes back late, but not for ever.
#[test]
fn after_half_a_minute_connections_are_refused() {
    let sandbox = Sandbox::new();
    let command = r#"["sh", "-c", "test -e /conf/slow && sleep 1000; exec python3 -m http.server 8000 -d /etc/apt"]"#;
    service(&sandbox, 8000, command, "init: true\n    volumes: [\"./conf:/conf:ro\"]");
    sandbox.stack("up -d").ok();
    until_serving(GET);
    sandbox.file("conf/slow", "");
    let begun = Instant::now();
    sandbox.stack("restart -t 0").ok();
    let waited = ask(GET);
    assert!(matches!(waited, End::Other(_)), "it waits for an answer: {waited:?}");
    assert!(begun.elapsed() >= PATIENCE);
    until_true("connections are refused", || ask(GET) == End::Refused);
    assert!(begun.elapsed() >= Duration::from_secs(30), "after {:?}", begun.elapsed());
}

#[test]
fn who_has_no_filter_is_ready_by_its_port_too() {
    let sandbox = Sandbox::new();
    let command = r#"["sh", "-c", "sleep 0.3; exec python3 -m http.server 8000 -d /etc/apt"]"#;
    service(
        &sandbox,
        8000,
        command,
        "init: true\n    security_opt: [seccomp=unconfined]\n    x-stack: { ready: port }",
    );
    sandbox.stack("up -d --wait").ok();
    assert_eq!(ask(GET), End::Answered);
}

/// A server of one request, then of the next: it ends after each.
const ONE_REQUEST: &str = r#"
import os, socket, sys
s = socket.socket(int(os.environ.get("FAMILY", socket.AF_INET)))
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind((os.environ.get("ADDRESS", "0.0.0.0"), 8000))
s.listen(5)
c, _ = s.accept()
c.recv(100)
c.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
c.close()
sys.exit(int(os.environ.get("CODE", "0")))
"#;

#[test]
fn a_program_that_something_inside_starts_again_refuses_nobody() {
    let sandbox = Sandbox::new();
    sandbox.file("one.py", ONE_REQUEST);
    let command = r#"["sh", "-c", "while python3 /one.py; do :; done"]"#;
    service(&sandbox, 8000, command, "volumes: [\"./one.py:/one.py:ro\"]");
    sandbox.stack("up -d").ok();
    until_serving(GET);
    for _ in 0..5 {
        assert_eq!(ask(GET), End::Answered);
    }
    let taken = "import socket; s = socket.socket(); s.bind(('0.0.0.0', 8000))";
    until_true("the next program listens", || sandbox.inside("web", "cat /proc/net/tcp").contains(":1F40"));
    let ran = sandbox.stack_args(&["exec", "-T", "web", "python3", "-c", taken]);
    assert!(ran.err.contains("Address already in use"), "{ran}");
}

#[test]
fn a_crash_refuses_nobody_and_a_loop_of_crashes_does_at_once() {
    let sandbox = Sandbox::new();
    sandbox.file("one.py", ONE_REQUEST);
    let more = "restart: always\n    volumes: [\"./one.py:/one.py:ro\", \"./conf:/conf:ro\"]";
    let command = r#"["sh", "-c", "test -e /conf/broken && exit 1; exec python3 -m http.server 8000 -d /etc/apt"]"#;
    service(&sandbox, 8000, command, more);
    sandbox.stack("up -d").ok();
    until_serving(GET);
    let killed = Instant::now();
    kill_hard(sandbox.pid("web"));
    assert_eq!(ask(GET), End::Answered, "by the next process");
    assert!(killed.elapsed() < PATIENCE);
    sandbox.file("conf/broken", "");
    kill_hard(sandbox.pid("web"));
    until_true("connections are refused", || matches!(ask(GET), End::Refused | End::Cut) && ask(GET) == End::Refused);
}

#[test]
fn another_address_than_before_is_no_obstacle() {
    let sandbox = Sandbox::new();
    sandbox.file("conf/address", "0.0.0.0");
    let server = "import http.server, socket, sys\n\
        address = open('/conf/address').read()\n\
        class S(http.server.ThreadingHTTPServer):\n \
        address_family = socket.AF_INET6 if ':' in address else socket.AF_INET\n\
        S((address, 8000), http.server.SimpleHTTPRequestHandler).serve_forever()";
    sandbox.file("server.py", server);
    let more = "working_dir: /etc/apt\n    volumes: [\"./server.py:/server.py:ro\", \"./conf:/conf:ro\"]";
    service(&sandbox, 8000, r#"["python3", "/server.py"]"#, more);
    sandbox.stack("up -d").ok();
    for address in ["::", "0.0.0.0", "::", "0.0.0.0"] {
        until_serving(GET);
        sandbox.file("conf/address", address);
        sandbox.stack("restart").ok();
    }
    until_serving(GET);
    let watch = sandbox.start("up --watch");
    watch.until_said("Watch enabled");
    sandbox.file("conf/address", "127.0.0.1");
    watch.until_said("web listens on 127.0.0.1:8000 only; the published port 8080 can't reach it; bind 0.0.0.0");
}

#[test]
fn a_service_is_ready_when_it_listens() {
    let sandbox = Sandbox::with(
        r#"
services:
  web:
    image: stack/host
    command: ["sh", "-c", "sleep 1; exec python3 -m http.server 8000 -d /etc/apt"]
    ports: ["8080:8000"]
    x-stack: { ready: port }
  behind: { image: stack/host, init: true, command: ["sleep", "infinity"], depends_on: { web: { condition: service_healthy } } }
"#,
    );
    let begun = Instant::now();
    sandbox.stack("up -d").ok();
    assert!(begun.elapsed() >= Duration::from_secs(1), "behind waits for web");
    assert_eq!(ask(GET), End::Answered);
    assert_eq!(sandbox.field("web", "Health"), "healthy");
    kill_hard(sandbox.pid("web"));
    sandbox.until_state("web", "exited");
    sandbox.stack("up -d --wait").ok();
    assert_eq!(ask(GET), End::Answered);
}

#[test]
fn a_killed_shim_keeps_nobody_from_serving() {
    let sandbox = Sandbox::new();
    let command = r#"["python3", "-m", "http.server", "8000", "--directory", "/etc/apt"]"#;
    service(&sandbox, 8000, command, "");
    sandbox.stack("up -d").ok();
    until_serving(GET);
    let shim = sandbox.processes("__shim")[0];
    let mut stops = Vec::new();
    let ends = asking(GET, MOST, || {
        kill_hard(shim);
        until_true("there is another shim", || sandbox.processes("__shim").iter().any(|pid| *pid != shim));
        until_true("what is inside may listen", || {
            let line = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()";
            sandbox.stack_args(&["exec", "-T", "web", "python3", "-c", line]).code == 0
        });
        let begun = Instant::now();
        sandbox.stack("restart").ok();
        stops.push((begun, Instant::now()));
        until_serving(GET);
    });
    assert_served(&ends, &stops);
}

/// It listens anew at SIGHUP.
const AGAIN: &str = r#"
import select, signal, socket
again = [True]
signal.signal(signal.SIGHUP, lambda *_: again.__setitem__(0, True))
s = None
while True:
    if again[0]:
        again[0] = False
        if s: s.close()
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", 8000))
        s.listen(5)
        s.settimeout(0.01)
    try: c, _ = s.accept()
    except OSError: continue
    c.settimeout(1)
    c.recv(100)
    c.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
    c.close()
"#;

/// Without a repair, whoever called `bind` or `listen` then hangs for ever, and nothing but SIGKILL ends it.
#[test]
fn a_shim_killed_between_a_call_and_its_answer_leaves_nobody_hanging() {
    let sandbox = Sandbox::new();
    sandbox.file("again.py", AGAIN);
    service(&sandbox, 8000, r#"["python3", "/again.py"]"#, "volumes: [\"./again.py:/again.py:ro\"]");
    sandbox.stack("up -d").ok();
    until_serving(GET);
    // The fault is armed by a command that asks nothing else of the shim: the next points are the calls.
    let arm = |fault: &str| sandbox.stack_env(&[("STACK_FAULT", fault)], "up -d").ok();
    let again = || nix::sys::signal::kill(nix::unistd::Pid::from_raw(sandbox.pid("web")), Signal::SIGHUP).unwrap();
    let trace = sandbox.path("trace");
    arm(&format!("trace@{}", trace.display()));
    again();
    let points = || fs_err::read_to_string(&trace).unwrap_or_default();
    let passed = || points().lines().filter(|line| line.starts_with("shim ")).map(str::to_owned).collect::<Vec<_>>();
    let place = |call: i64| passed().iter().position(|line| *line == format!("shim call {call}")).map(|at| at + 1);
    until_true("two calls are passed on", || place(libc::SYS_listen).is_some());
    for point in [place(libc::SYS_bind).unwrap(), place(libc::SYS_listen).unwrap()] {
        let shim = sandbox.processes("__shim")[0];
        arm(&format!("kill@shim:{point}"));
        again();
        until_true("the shim is killed", || !sandbox.processes("__shim").contains(&shim));
        until_true("there is another shim", || !sandbox.processes("__shim").is_empty());
        until_serving(GET);
        let pid = sandbox.pid("web");
        again();
        until_serving(GET);
        sandbox.stack("restart").ok();
        until_serving(GET);
        assert_ne!(sandbox.pid("web"), pid);
    }
}
