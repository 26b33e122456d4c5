//! Bad input: each failure says what, where and what to do, and leaves nothing that `down` can't remove.

use crate::sandbox::Sandbox;

#[test]
fn a_missing_file() {
    Sandbox::new().stack("up -d").fails(&["stack.yaml"]);
    Sandbox::new().stack("-f nowhere.yaml up -d").fails(&["nowhere.yaml"]);
}

/// The place of the error as `file:line:column`, and the line itself.
fn refused(text: &str, places: &[&str]) {
    let sandbox = Sandbox::with(text);
    let ran = sandbox.stack("up -d").fails(places);
    assert!(ran.err.contains("stack.yaml:"), "the place in {ran}");
    assert!(sandbox.ps_is_refused(), "nothing was made");
}

impl Sandbox {
    /// Whether no container of the project exists; the file itself may be unreadable.
    fn ps_is_refused(&self) -> bool {
        self.stack(&format!("-p {} ps -a -q", self.project)).out.is_empty()
    }
}

#[test]
fn mistakes_in_the_file_are_shown_with_their_line() {
    refused("services:\n  app:\n    image: [\n", &["stack.yaml:"]);
    refused("services:\n  app:\n    image: stack/host\n    imagee: x\n", &["imagee", ":4:5", "image"]);
    refused("services:\n  app: { image: stack/host, depends_on: [ghost] }\n", &["ghost", ":2:"]);
    refused(
        "services:\n  a: { image: stack/host, depends_on: [b] }\n  b: { image: stack/host, depends_on: [a] }\n",
        &["a", "b"],
    );
    refused("services:\n  app:\n    image: stack/host\n    ports: [\"80:http\"]\n", &["80:http", ":4:"]);
}

#[test]
fn a_missing_image_says_where_to_get_it() {
    let sandbox = Sandbox::with("services: { app: { image: nowhere/nothing } }");
    sandbox.stack("up -d").fails(&["nowhere/nothing"]);
    sandbox.stack("down").ok();
}

#[test]
fn a_port_in_use_is_named() {
    let sandbox = Sandbox::with(
        r#"services: { app: { image: stack/host, init: true, command: ["sleep", "infinity"], ports: ["127.0.0.1:18081:80"] } }"#,
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:18081").unwrap();
    sandbox.stack("up -d").fails(&["18081"]);
    drop(taken);
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.field("app", "State"), "running");
}

#[test]
fn a_command_that_is_not_in_the_image() {
    let sandbox = Sandbox::with("services: { app: { image: stack/host, command: [\"no-such-program\"] } }");
    sandbox.stack("up -d").fails(&["no-such-program"]);
    sandbox.stack("down").ok();
    assert!(sandbox.ps().is_empty());
}

#[test]
fn a_missing_bind_source() {
    let sandbox = Sandbox::with(
        r#"services: { app: { image: stack/host, command: ["true"], volumes: [{ type: bind, source: ./gone, target: /gone, bind: { create_host_path: false } }] } }"#,
    );
    sandbox.stack("up -d").fails(&["gone"]);
    sandbox.stack("down").ok();
}

#[test]
fn an_unknown_service_is_named() {
    let sandbox = Sandbox::with("services: { app: { image: stack/host, command: [\"true\"] } }");
    for words in ["up -d ghost", "stop ghost", "logs ghost", "exec -T ghost true", "restart ghost", "kill ghost"] {
        sandbox.stack(words).fails(&["ghost"]);
    }
}

#[test]
fn without_root_rights_it_says_so() {
    let sandbox = Sandbox::with("services: { app: { image: stack/host, command: [\"true\"] } }");
    let line = ["--reuid=65534", "--clear-groups", crate::sandbox::STACK, "-p", "mine", "-f", "-", "up", "-d"];
    let mut command = sandbox.command("setpriv", &line);
    let file = fs_err::File::open(sandbox.path("stack.yaml")).unwrap().into_parts().0;
    let output = command.env("STACK_ROOT", "/tmp/nobody-may-write-here").current_dir("/").stdin(file).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && err.contains("root"), "{err}");
}

#[test]
fn every_verb_shows_the_line_that_asks_for_what_failed() {
    let text = "services:\n  app: { image: stack/host, command: [no-such-program] }\n";
    let sandbox = Sandbox::with(text);
    sandbox.stack("create").ok();
    for verb in ["up -d", "start", "restart", "run --rm app"] {
        let ran = sandbox.stack(verb);
        assert!(ran.err.contains("stack.yaml:2:"), "{verb}: {}", ran.err);
        ran.code(127);
    }
}

#[test]
fn warnings_of_the_file_are_shown_where_something_is_made_of_it() {
    let text = "version: '3'\nservices:\n  app: { image: stack/host, command: [sleep, infinity], init: true }\n";
    let sandbox = Sandbox::with(text);
    for verb in ["config", "create", "up -d", "run --rm app true"] {
        assert!(sandbox.stack(verb).ok().err.contains("warning"), "{verb}");
    }
    for verb in ["ps", "logs", "stop -t 0", "down"] {
        assert!(!sandbox.stack(verb).ok().err.contains("warning"), "{verb}");
    }
}

#[test]
fn a_root_that_is_a_file_is_refused_with_what_to_do() {
    let sandbox = Sandbox::with("services: { app: { image: stack/host } }\n");
    sandbox.file("plain", "");
    sandbox.stack("--root plain ps").fails(&["plain", "no folder", "--root"]);
}
