//! Behind sudo, what is looked up and what is written is the caller's, not root's.

use std::os::unix::fs::MetadataExt as _;

use crate::registry::{AT, Registry, run, with_image};
use crate::sandbox::{Ran, STACK, Sandbox};

/// What sudo tells.
const SUDO: [(&str, &str); 4] =
    [("SUDO_UID", "4321"), ("SUDO_GID", "4322"), ("SUDO_USER", "someone"), ("HOME", "/root")];

/// Runs `stack` as sudo does for user 4321, whose home is `home`.
fn sudo(sandbox: &Sandbox, input: &str, words: &str) -> Ran {
    let home = sandbox.path("home");
    fs_err::create_dir_all(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(4321), Some(4322)).unwrap();
    let accounts = fs_err::read_to_string("/etc/passwd").unwrap();
    sandbox.file("passwd", &format!("{accounts}someone:x:4321:4322::{}:/bin/sh\n", home.display()));
    // Another /etc/passwd for this command alone.
    let line = format!("mount --bind passwd /etc/passwd && printf '%s' '{input}' | {STACK} {words}");
    sandbox.shell(&SUDO, &format!("exec unshare --mount sh -c \"{line}\""))
}

fn owner(sandbox: &Sandbox, path: &str) -> (u32, u32) {
    let metadata = fs_err::metadata(sandbox.path(path)).unwrap();
    (metadata.uid(), metadata.gid())
}

#[test]
fn home_and_written_files_are_the_callers() {
    let sandbox = with_image(
        "services: { app: { image: tiny:1, command: [nothing], volumes: ['~/data:/data', './new/sub:/sub'] } }",
        "tiny:1",
        9,
    );
    let config = sudo(&sandbox, "", "config --format json").ok().out;
    let home = sandbox.path("home").display().to_string();
    assert!(config.contains(&format!("\"source\": \"{home}/data\"")), "{config}");
    sudo(&sandbox, "", "config -o written.yaml").ok();
    sudo(&sandbox, "", "image save -o saved.tar tiny:1").ok();
    sudo(&sandbox, "", "create").ok();
    for path in ["written.yaml", "saved.tar", "home/data", "new", "new/sub"] {
        assert_eq!(owner(&sandbox, path), (4321, 4322), "{path}");
    }
    // Root that calls by itself is root.
    sandbox.stack("config -o roots.yaml").ok();
    assert_eq!(owner(&sandbox, "roots.yaml"), (0, 0));
}

#[test]
fn logins_are_the_callers() {
    let name = format!("{AT}/lib/tiny:1");
    let sandbox = with_image("services: {}", &name, 9);
    sandbox.file("htpasswd", &run(&sandbox, "htpasswd", "-Bbn me secret"));
    let path = sandbox.path("htpasswd").display().to_string();
    let _registry = Registry::start(&sandbox, "", &format!("auth: {{htpasswd: {{realm: r, path: {path}}}}}"));
    let login = sudo(&sandbox, "secret", &format!("login -u me --password-stdin {AT}")).ok();
    assert!(login.err.contains("home/.docker/config.json"), "{login}");
    assert_eq!(owner(&sandbox, "home/.docker"), (4321, 4322));
    assert_eq!(owner(&sandbox, "home/.docker/config.json"), (4321, 4322));
    sandbox.stack(&format!("image push {name}")).fails(&["denies access"]);
    sudo(&sandbox, "", &format!("image push {name}")).ok();
    sandbox.stack(&format!("image rm {name}")).ok();
    sandbox.stack(&format!("image pull {name}")).fails(&["denies access"]);
    sudo(&sandbox, "", &format!("image pull {name}")).ok();
}
