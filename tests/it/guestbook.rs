//! `examples/guestbook`: four images built from Debian with apt, and entries that stay whatever happens to containers.

use std::path::Path;

use crate::debian;
use crate::outside::{self, Outside};
use crate::poll::until;
use crate::registry::{AT, Registry};
use crate::sandbox::{STACK, Sandbox, kill_hard};
use crate::wire::{http, post};

const PAGE: &str = "127.0.0.1:8080";

/// Names of the entries that the page shows.
fn entries() -> Vec<String> {
    let book = until("the guestbook answers", || http(PAGE, "/api/entries"));
    let book: serde_json::Value = serde_json::from_str(&book).unwrap();
    book["entries"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

fn sign(name: &str) {
    let body = format!("name={name}&text=Hello+from+{name}");
    until("the guestbook takes an entry", || post(PAGE, "/api/entries", &body));
}

/// Copies the example into the project folder, whose name the stack then has.
fn example(sandbox: &Sandbox) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/guestbook/.");
    let copied = sandbox.command("cp", &["-a", source.to_str().unwrap(), "."]).status().unwrap();
    assert!(copied.success());
    let text = fs_err::read_to_string(sandbox.path("stack.yaml")).unwrap();
    sandbox.file("stack.yaml", &text.replace("name: guestbook\n", ""));
}

/// Makes `debian:bookworm` of Debian's packages, with this machine's way to the mirror. It takes the way of images that
/// others publish: through a registry.
fn base_image(sandbox: &Sandbox, root: &Path) {
    sandbox.stack(&format!("image import {} plain", root.display())).ok();
    sandbox.file("base/apt.conf", &outside::apt_conf());
    sandbox.file("base/Dockerfile", "FROM plain\nCOPY apt.conf /etc/apt/apt.conf.d/90machine\n");
    let published = format!("{AT}/debian:bookworm");
    sandbox.file("base/stack.yaml", &format!("services: {{ base: {{ image: \"{published}\", build: . }} }}"));
    let _registry = Registry::start(sandbox, "", "");
    sandbox.stack("-f base/stack.yaml build").ok();
    sandbox.stack("-f base/stack.yaml push").ok();
    sandbox.stack(&format!("image rm {published} plain")).ok();
    sandbox.stack("image prune -af").ok();
    sandbox.stack(&format!("image pull {published}")).ok();
    sandbox.stack(&format!("image tag {published} debian:bookworm")).ok();
}

#[test]
fn entries_outlive_restarts_recreation_and_a_killed_database() {
    let root = debian::bookworm();
    let outside = Outside::new(&debian::cache().join("archives"));
    let sandbox = Sandbox::new();
    let uplink = outside.connect();
    example(&sandbox);
    base_image(&sandbox, &root);
    // Building may take longer than other commands.
    let built = sandbox.command(STACK, &["--progress", "plain", "build"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    drop(uplink);

    sandbox.stack("up -d --wait").ok();
    assert!(http(PAGE, "/").expect("the page").contains("<h1>Guestbook</h1>"));
    sign("Ada");
    sign("Grace");
    assert_eq!(entries(), ["Ada", "Grace"]);

    sandbox.stack("restart").ok();
    assert_eq!(entries(), ["Ada", "Grace"]);
    sign("Edsger");

    let before = sandbox.field("api", "ID");
    sandbox.stack("up -d --wait --force-recreate --no-deps api").ok();
    assert_ne!(sandbox.field("api", "ID"), before, "a new container");
    assert_eq!(entries(), ["Ada", "Grace", "Edsger"]);
    sign("Barbara");

    kill_hard(sandbox.pid("db"));
    assert_eq!(entries(), ["Ada", "Grace", "Edsger", "Barbara"], "after the restart that `restart:` asks for");
    sign("Tony");

    sandbox.stack("down").ok();
    sandbox.stack("up -d --wait").ok();
    assert_eq!(entries(), ["Ada", "Grace", "Edsger", "Barbara", "Tony"], "the volume outlives the containers");

    let log = sandbox.stack("logs --no-log-prefix db").ok().out;
    let password = fs_err::read_to_string(sandbox.path("secrets/database_password.txt")).unwrap();
    assert!(!log.contains(&password), "the password is nobody's to read");
}
