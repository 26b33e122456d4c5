//! `x-stack.ready`: what depends on a service waits until its log, a file or a page says that it is ready.

use crate::sandbox::{Running, Sandbox};

/// A service that is ready by `ready`, and one behind it. Its program is `script`; what is in the folder `conf` is in
/// `/conf` there.
fn waiting(ready: &str, script: &str) -> (Sandbox, Running) {
    let sandbox = Sandbox::with(&format!(
        r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sh", "/conf/app.sh"]
    volumes: ["./conf:/conf:ro"]
    x-stack: {{ ready: {ready} }}
  behind:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    depends_on: {{ app: {{ condition: service_healthy }} }}
"#
    ));
    sandbox.file("conf/app.sh", script);
    let up = sandbox.start("up -d");
    sandbox.until_state("app", "running");
    (sandbox, up)
}

/// Nothing behind a service runs yet, and `why` says what it waits for.
fn assert_waits(sandbox: &Sandbox, what: &str) {
    assert_eq!(sandbox.field("behind", "State"), "created");
    assert_eq!(sandbox.field("app", "Health"), "starting");
    let why = sandbox.stack("why").ok().out;
    assert!(why.contains(&format!("it is ready only after {what}")), "{why}");
    assert!(why.contains(&format!("app (starting: it waits for {what}")), "{why}");
}

fn assert_ready(sandbox: &Sandbox, up: Running) {
    up.finish().ok();
    assert_eq!(sandbox.field("app", "Health"), "healthy");
    assert_eq!(sandbox.field("behind", "State"), "running");
}

#[test]
fn a_line_of_the_log_tells() {
    let script =
        "echo not ready; until test -e /conf/go; do sleep 0.01; done; echo ready in 5 ms >&2; exec sleep 1000000";
    let (sandbox, up) = waiting(r#"{ log: "^ready in \\d+ ms" }"#, script);
    sandbox.until_logged("app", "not ready");
    assert_waits(&sandbox, "a line of its log that matches `^ready in \\d+ ms`");
    sandbox.file("conf/go", "");
    assert_ready(&sandbox, up);

    // What an earlier process wrote does not count.
    fs_err::remove_file(sandbox.path("conf/go")).unwrap();
    sandbox.stack("restart app -t 0").ok();
    assert_eq!(sandbox.field("app", "Health"), "starting");
    let wait = sandbox.stack("up -d --wait --wait-timeout 1");
    wait.fails(&["not ready after 1 s", "waits for a line of its log that matches"]);
    sandbox.file("conf/go", "");
    sandbox.stack("up -d --wait").ok();
}

#[test]
fn a_file_tells_wherever_its_folder_comes_from() {
    let script = "ln -s /later/place /run/app; until test -e /conf/go; do sleep 0.01; done
        mkdir -p /later/made; mv /later/made /later/place; echo 1 > /later/place/aside
        mv /later/place/aside /later/place/ready; exec sleep 1000000";
    let (sandbox, up) = waiting("{ file: /run/app/ready }", script);
    assert_waits(&sandbox, "the file /run/app/ready in the container");
    sandbox.file("conf/go", "");
    assert_ready(&sandbox, up);

    // It is still there from the process before, which says nothing of this one.
    fs_err::remove_file(sandbox.path("conf/go")).unwrap();
    sandbox
        .file("conf/app.sh", "until test -e /conf/go; do sleep 0.01; done; touch /run/app/ready; exec sleep 1000000");
    sandbox.stack("restart app -t 0").ok();
    assert_eq!(sandbox.field("app", "Health"), "starting");
    sandbox.file("conf/go", "");
    sandbox.stack("up -d --wait").ok();
}

#[test]
fn a_link_out_of_the_container_tells_nothing() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sh", "-c", "ln -s ../../../../../../$$FILE /run/ready; echo linked; exec sleep 1000000"]
    environment: [FILE]
    x-stack: { ready: { file: /run/ready } }
"#,
    );
    let outside = sandbox.file("outside", "");
    let environment = [("FILE", outside.to_str().unwrap())];
    sandbox.stack_env(&environment, "up -d").ok();
    let wait = sandbox.stack_env(&environment, "up -d --wait --wait-timeout 1");
    wait.fails(&["app-1 is running (health: starting) and waits for the file /run/ready in the container"]);
    sandbox.until_logged("app", "linked");
    sandbox.file("outside", "again");
    assert_eq!(sandbox.field("app", "Health"), "starting");
    assert_ne!(sandbox.stack("exec -T app test -e /run/ready").code, 0, "nor does the container see it");
}

#[test]
fn a_page_tells() {
    let server = "exec python3 -c '
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    self.send_response(200 if self.path == \"/health?all\" and os.path.exists(\"/conf/go\") else 503)
    self.end_headers()
  def log_request(self, code): print(code, self.headers[\"Host\"], flush=True)
http.server.HTTPServer((\"127.0.0.1\", 8000), H).serve_forever()'";
    let (sandbox, up) = waiting("{ http: \"http://localhost:8000/health?all\" }", server);
    sandbox.until_logged("app", "503 localhost:8000");
    assert_waits(&sandbox, "an answer of http://localhost:8000/health?all (it says 503)");
    sandbox.file("conf/go", "");
    assert_ready(&sandbox, up);
}

#[test]
fn what_can_never_tell_is_refused() {
    for (ready, why) in [
        ("soon", "cannot be `soon`"),
        ("{ log: \"(\" }", "is no regular expression"),
        ("{ file: run/ready }", "absolute path"),
        ("{ http: \"https://localhost\" }", "must begin with http://"),
        ("{ http: \"http://db/\" }", "must be localhost or an address"),
        ("{ log: a, file: /b }", "needs one of `log`, `file`, `http`"),
        ("{ tcp: 1 }", "unknown attribute `tcp`"),
    ] {
        let sandbox =
            Sandbox::with(&format!("services: {{ app: {{ image: stack/host, x-stack: {{ ready: {ready} }} }} }}\n"));
        sandbox.stack("up -d").fails(&[why, "stack.yaml:1"]);
    }
}
