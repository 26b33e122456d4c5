//! `up` and `watch` in the foreground: keys, and what is shown of changes and of programs that fail.

use nix::sys::signal::Signal;

use crate::poll::until_true;
use crate::pty::Terminal;
use crate::sandbox::Sandbox;

const FILE: &str = r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sh", "-c", "echo begun; exec sleep 1000000"]
    develop: { watch: [{ action: restart, path: ./src }] }
"#;

#[test]
fn keys_switch_dev_mode_and_detach() {
    let sandbox = Sandbox::with(FILE);
    sandbox.file("src/a", "1");
    let mut terminal = Terminal::start(&sandbox, &["up"]);
    terminal.until_shown("w  dev mode on or off");
    terminal.until_shown("| begun");
    terminal.key("w");
    terminal.until_shown("Watch enabled for app");
    let first = sandbox.pid("app");
    sandbox.file("src/a", "2");
    terminal.until_shown("src/a → app: serving again in ");
    let second = sandbox.pid("app");
    assert_ne!(first, second);
    terminal.key("@\nw");
    terminal.until_shown("Watch disabled");
    sandbox.file("src/a", "3");
    terminal.key("w");
    until_true("dev mode is on again", || terminal.seen().matches("Watch enabled").count() == 2);
    sandbox.file("src/b", "3");
    terminal.until_shown("src/b → app: serving again in ");
    assert_eq!(terminal.seen().matches("src/a →").count(), 1, "nobody looked: {}", terminal.seen());
    assert!(!terminal.seen().contains('@'), "keys are not shown: {}", terminal.seen());
    terminal.key("d");
    terminal.until_shown("Detached");
    assert_eq!(terminal.finish(), 0);
    assert_eq!(sandbox.field("app", "State"), "running");
}

#[test]
fn the_terminal_is_given_back_on_every_end() {
    let sandbox = Sandbox::with(FILE);
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGINT)] {
        let mut terminal = Terminal::start(&sandbox, &["up", "-t", "0"]);
        terminal.until_shown("| begun");
        terminal.until_shown("detach");
        assert!(!terminal.is_usual());
        match signal {
            // Ctrl-\ would leave the terminal as it is.
            None => terminal.key("\x1c\x03"),
            Some(signal) => terminal.signal(signal),
        }
        assert_eq!(terminal.finish(), 130);
    }
    let mut terminal = Terminal::start(&sandbox, &["up", "--menu=false"]);
    terminal.until_shown("| begun");
    terminal.key("d\n");
    assert!(terminal.is_usual() && !terminal.seen().contains("detach"));
    terminal.key("\x03");
    assert_eq!(terminal.finish(), 130);
    sandbox.stack("down -t 0").ok();
    sandbox.file("stack.yaml", "services: { app: { image: stack/host, command: [\"/nonsense\"] } }\n");
    assert_eq!(Terminal::start(&sandbox, &["up"]).finish(), 127);
}

#[test]
fn a_program_that_fails_is_shown_with_its_last_words() {
    let sandbox = Sandbox::with(
        r#"
services:
  api:
    image: stack/host
    command: ["python3", "/app/api.py"]
    volumes: ["./api:/app:ro"]
    develop: { watch: [{ action: restart, path: ./api }] }
"#,
    );
    let server = "import http.server\n\
        http.server.HTTPServer(('', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()\n";
    sandbox.file("api/api.py", server);
    let watch = sandbox.start("watch");
    watch.until_said("Watch enabled");
    until_true("it listens", || sandbox.inside("api", "cat /proc/net/tcp").contains(":1F40"));
    sandbox.file("api/api.py", "import nothing_like_it\n");
    watch.until_said("api-1 | ModuleNotFoundError: No module named 'nothing_like_it'");
    watch.until_said("api/api.py → api: failed");
    watch.until_said("exited (1)");
    sandbox.file("api/api.py", server);
    watch.until_said("api/api.py → api: serving again in ");
}
