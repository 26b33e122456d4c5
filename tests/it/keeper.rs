//! The socket keeper: whoever connects while a program is started again is served by the next one.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::poll::until_true;
use crate::sandbox::{Sandbox, kill_hard};

const ADDRESS: &str = "127.0.0.1:8080";
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests under way at the same time.
const MOST: usize = 500;
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
fn asking(request: &'static [u8], work: impl FnOnce()) -> Vec<(Instant, End)> {
    let (ends, done, under_way) = (Mutex::new(Vec::new()), AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let begun = Instant::now();
                if under_way.fetch_add(1, Ordering::Relaxed) < MOST {
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

/// Restarts a service so often while somebody asks all the time.
fn restarts(sandbox: &Sandbox, request: &'static [u8], times: usize) {
    sandbox.stack("up -d").ok();
    until_serving(request);
    let mut stops = Vec::new();
    let ends = asking(request, || {
        for _ in 0..times {
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
    restarts(&sandbox, GET, 8);
}

#[test]
fn restarts_of_redis_refuse_nobody() {
    let sandbox = Sandbox::new();
    let command = r#"["redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp"]"#;
    service(&sandbox, 6379, command, "");
    restarts(&sandbox, b"PING\r\n", 8);
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
    restarts(&sandbox, GET, 8);
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
    let ends = asking(GET, || {
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
