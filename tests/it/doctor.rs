//! `stack doctor`: what works, what works with a loss, what is missing.

use std::path::PathBuf;

use serde_json::Value;

use crate::sandbox::{STACK, Sandbox};

fn findings(json: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(json).unwrap();
    all["findings"].as_array().unwrap().clone()
}

fn state<'a>(findings: &'a [Value], name: &str) -> &'a str {
    let found = findings.iter().find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("{name} in {findings:?}"))["state"].as_str().unwrap()
}

#[test]
fn this_machine_is_fine_and_stays_as_it_is() {
    let sandbox = Sandbox::new();
    let groups = || {
        let hierarchies = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        let folders = hierarchies.map(|entry| entry.path()).chain([PathBuf::from("/sys/fs/cgroup")]);
        let inside = folders.flat_map(|folder| fs_err::read_dir(folder).into_iter().flatten().flatten());
        inside.filter(|entry| entry.file_name().to_string_lossy().starts_with("stack-doctor-")).count()
    };
    let ran = sandbox.stack("doctor --format json").ok();
    let found = findings(&ran.out);
    for needed in ["rights", "overlay", "namespaces", "seccomp", "control groups", "bridges, nftables", "veth"] {
        assert_eq!(state(&found, needed), "ok", "{}", ran.out);
    }
    for finding in &found {
        assert!(!finding["detail"].as_str().unwrap().is_empty() || finding["name"] == "other platforms", "{finding}");
    }
    assert_eq!(groups(), 0);
    assert!(!sandbox.root().exists(), "a look makes no state");

    let table = sandbox.stack("doctor").ok().out;
    assert!(table.contains("✔ control groups") && table.contains(" 0 missing\n"), "{table}");
    let quiet = sandbox.stack("doctor -q").ok().out;
    assert!(!quiet.contains('✔'), "{quiet}");
    let losses = found.iter().filter(|finding| finding["state"] == "fallback").count();
    assert_eq!(quiet.matches("! ").count(), losses, "{quiet}");
}

#[test]
fn without_rights_it_says_so_and_fails() {
    let sandbox = Sandbox::new();
    // Where everybody may run it from.
    let copy = tempfile::Builder::new().prefix("stack-it.").tempdir().unwrap();
    fs_err::copy(STACK, copy.path().join("stack")).unwrap();
    let line = format!(
        "chmod 755 {0}; setpriv --reuid 65534 --regid 65534 --clear-groups {0}/stack --root {0}/none doctor --format json",
        copy.path().display()
    );
    let ran = sandbox.shell(&[], &line);
    assert_eq!(ran.code, 1, "{ran:?}");
    let found = findings(&ran.out);
    assert_eq!(state(&found, "rights"), "missing");
    let rights = found.iter().find(|finding| finding["name"] == "rights").unwrap();
    assert!(rights["detail"].as_str().unwrap().contains("SYS_ADMIN"), "{rights}");
    assert!(rights["remedy"].as_str().unwrap().contains("sudo"), "{rights}");
}

#[test]
fn a_state_folder_that_holds_no_overlay_is_found_out() {
    let sandbox = Sandbox::new();
    let script = "mkdir a b w m && mount -t overlay -o lowerdir=a,upperdir=b,workdir=w none m && \
        $STACK --root m/x doctor --format json";
    let ran = sandbox.shell(&[("STACK", STACK)], &format!("exec unshare -m sh -c '{script}'"));
    assert_eq!(ran.code, 1, "{ran:?}");
    let overlay = findings(&ran.out).into_iter().find(|finding| finding["name"] == "overlay").unwrap();
    assert_eq!(overlay["state"], "missing");
    assert!(overlay["remedy"].as_str().unwrap().contains("--root"), "{overlay}");
}
