//! Hooks: order, where they run, what they get, and what their failure means.

use serde_json::{Value, json};

use super::bundle::Bundle;

/// A hook that writes its name and the state that it got.
fn hook(bundle: &Bundle, name: &str) -> Value {
    let script = format!("{{ echo {name}; cat; echo; }} >> {}", bundle.path("hooks").display());
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
}

const OUTSIDE: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

#[test]
fn order_and_state() {
    let mut bundle = Bundle::new("echo program");
    for name in OUTSIDE {
        let value = hook(&bundle, name);
        bundle.set(&format!("/hooks/{name}"), value);
    }
    let inside = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo $WORD $(hostname) > /data/inside; cat > /data/state"] }]);
    bundle.set("/hooks/startContainer", inside).push("/process/env", json!("WORD=process"));
    bundle.set("/hostname", json!("box")).set("/annotations", json!({ "a": "b" }));
    bundle.create().ok();
    let pid = bundle.pid();
    bundle.start().ok();
    bundle.kill("KILL");
    bundle.delete().ok();
    let text = fs_err::read_to_string(bundle.path("hooks")).unwrap();
    let mut lines = text.lines();
    for (name, status) in OUTSIDE.into_iter().zip(["creating", "creating", "creating", "running", "stopped"]) {
        assert_eq!(lines.next(), Some(name));
        let state: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(state["status"], status, "{name}");
        assert_eq!(state["annotations"]["a"], "b");
        assert_eq!(state["pid"], if name == "poststop" { json!(0) } else { json!(pid) }, "{name}");
    }
    let read = |name: &str| fs_err::read_to_string(bundle.path("rootfs/data").join(name)).unwrap();
    assert_eq!(read("inside"), "process box\n");
    let state: Value = serde_json::from_str(&read("state")).unwrap();
    assert_eq!((state["status"].as_str(), state["id"].as_str()), (Some("created"), Some(bundle.id.as_str())));
}

#[test]
fn a_failure_ends_the_container() {
    for name in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("true");
        let failing = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo because >&2; exit 4"] }]);
        bundle.set(&format!("/hooks/{name}"), failing);
        bundle.create().fails("because");
        bundle.oci(&["state", &bundle.id]).fails("does not exist");
    }
    for name in ["startContainer", "poststart"] {
        let mut bundle = Bundle::new("exec sleep 1000");
        let failing = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exit 4"] }]);
        let stop = hook(&bundle, "poststop");
        bundle.set(&format!("/hooks/{name}"), failing).set("/hooks/poststop", stop);
        bundle.create().ok();
        bundle.start().fails(name);
        bundle.oci(&["state", &bundle.id]).fails("does not exist");
        assert!(fs_err::read_to_string(bundle.path("hooks")).unwrap().starts_with("poststop\n"), "{name}");
    }
}

#[test]
fn a_failure_at_the_end_is_a_warning_and_time_is_limited() {
    let mut bundle = Bundle::new("true");
    let failing = json!({ "path": "/bin/false" });
    let stop = hook(&bundle, "poststop");
    bundle.set("/hooks/poststop", json!([failing, stop[0]]));
    bundle.create().ok();
    let deleted = bundle.delete().ok();
    assert!(deleted.err.contains("poststop hook 0 (/bin/false) failed"), "{}", deleted.err);
    assert!(bundle.path("hooks").exists(), "the other hooks run");
    let mut bundle = Bundle::new("true");
    bundle.set("/hooks/prestart", json!([{ "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1 }]));
    bundle.create().fails("took longer than 1 s");
}
