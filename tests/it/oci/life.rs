//! Lifecycle, kill, delete, state, exec, limits of running containers.

use serde_json::json;

use super::bundle::Bundle;
use crate::poll::until_true;

#[test]
fn lifecycle() {
    let bundle = Bundle::new("echo began; exec sleep 1000");
    bundle.oci(&["state", &bundle.id]).fails("does not exist");
    let pid_file = bundle.path("pid");
    bundle.create_with(&["--pid-file", pid_file.to_str().unwrap()]).ok();
    let state = bundle.state();
    assert_eq!((state["status"].as_str(), state["id"].as_str()), (Some("created"), Some(bundle.id.as_str())));
    assert_eq!(state["bundle"].as_str(), bundle.folder.path().canonicalize().unwrap().to_str());
    assert_eq!(fs_err::read_to_string(&pid_file).unwrap(), state["pid"].to_string());
    assert_eq!(fs_err::read_to_string(bundle.path("out")).unwrap(), "", "nothing runs before its start");
    bundle.create().fails("exists already");
    bundle.start().ok();
    assert_eq!(bundle.status(), "running");
    until_true("the program runs", || fs_err::read_to_string(bundle.path("out")).unwrap() == "began\n");
    bundle.start().fails("it is running");
    bundle.delete().fails("it is running");
    let listed = bundle.oci(&["list", "-q"]).ok();
    assert_eq!(listed.out.trim(), bundle.id);
    bundle.kill("KILL").ok();
    assert_eq!(bundle.status(), "stopped");
    assert_eq!(bundle.pid(), 0);
    bundle.kill("KILL").fails("it is stopped");
    bundle.start().fails("it is stopped");
    bundle.delete().ok();
    bundle.delete().fails("does not exist");
    bundle.oci(&["delete", "--force", &bundle.id]).ok();
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let mut bundle = Bundle::new("true");
    for id in ["", "../x", "a b"] {
        bundle.oci(&["state", id]).fails("no container id");
    }
    bundle.set("/process/args", json!(["nothing-of-that-name"]));
    bundle.create().fails("executable file not found in $PATH");
    assert!(!bundle.path("run").join(&bundle.id).exists());
    bundle.set("/process/args", json!(["true"])).set("/process/rlimits", json!([{ "type": "RLIMIT_X" }]));
    bundle.create().fails("no such limit");
    bundle.set("/process/rlimits", json!([])).set("/linux/namespaces/0/type", json!("nonsense"));
    bundle.create().fails("nonsense");
    assert!(!bundle.path("run").join(&bundle.id).exists());
}

#[test]
fn exit_codes_and_exec() {
    let bundle = Bundle::new("exit 7");
    assert_eq!(bundle.run().code, 7);
    let bundle = Bundle::new("exec sleep 1000");
    bundle.create().ok();
    bundle.start().ok();
    let inside = [
        "exec",
        "-e",
        "A=b",
        "--cwd",
        "/tmp",
        "-u",
        "5:6",
        &bundle.id,
        "sh",
        "-c",
        "echo $A $(pwd) $(id -u):$(id -g); exit 3",
    ];
    let ran = bundle.oci(&inside);
    assert_eq!((ran.code, ran.out.as_str()), (3, "b /tmp 5:6\n"), "{}", ran.err);
    bundle.oci(&["exec", &bundle.id, "nothing-of-that-name"]).fails("executable file not found");
    let process = bundle.path("process.json");
    fs_err::write(&process, json!({ "cwd": "/", "args": ["/bin/cat", "/proc/1/comm"] }).to_string()).unwrap();
    assert_eq!(bundle.oci(&["exec", "-p", process.to_str().unwrap(), &bundle.id]).ok().out, "sleep\n");
    let processes = bundle.oci(&["ps", "-f", "json", &bundle.id]).ok();
    assert_eq!(serde_json::from_str::<Vec<i64>>(&processes.out).unwrap(), [bundle.pid()]);
}

#[test]
fn paused_and_resumed() {
    let bundle = Bundle::new("while :; do echo x; sleep 0.01; done");
    bundle.create().ok();
    bundle.oci(&["resume", &bundle.id]).fails("created");
    bundle.start().ok();
    bundle.oci(&["pause", &bundle.id]).ok();
    assert_eq!(bundle.status(), "paused");
    let length = || fs_err::metadata(bundle.path("out")).unwrap().len();
    let before = length();
    bundle.oci(&["exec", &bundle.id, "true"]).fails("paused");
    assert_eq!(before, length(), "it wrote while it was paused");
    bundle.oci(&["resume", &bundle.id]).ok();
    until_true("it goes on", || length() > before);
    bundle.oci(&["pause", &bundle.id]).ok();
    bundle.kill("KILL").ok();
    assert_eq!(bundle.status(), "stopped");
}

#[test]
fn limits_are_set_and_updated() {
    let mut bundle = Bundle::new("exec sleep 1000");
    bundle.set("/linux/resources", json!({ "pids": { "limit": 99 }, "memory": { "limit": 67_108_864 } }));
    bundle.create().ok();
    let read = |controller: &str, file: &str| {
        let v1 = format!("/sys/fs/cgroup/{controller}/stack-oci-tests/{}/{file}", bundle.id);
        let v2 = format!("/sys/fs/cgroup/stack-oci-tests/{}/{}", bundle.id, file.replace("limit_in_bytes", "max"));
        fs_err::read_to_string(v1).or_else(|_| fs_err::read_to_string(v2)).unwrap().trim().to_owned()
    };
    assert_eq!((read("pids", "pids.max"), read("memory", "memory.limit_in_bytes")), ("99".into(), "67108864".into()));
    bundle.start().ok();
    bundle.oci(&["update", "--pids-limit", "55", "--memory", "134217728", &bundle.id]).ok();
    assert_eq!((read("pids", "pids.max"), read("memory", "memory.limit_in_bytes")), ("55".into(), "134217728".into()));
    bundle.oci(&["update", "--pids-limit", "-1", &bundle.id]).ok();
    assert_eq!(read("pids", "pids.max"), "max");
}

#[test]
fn features_and_logs() {
    let bundle = Bundle::new("true");
    let features: serde_json::Value = serde_json::from_str(&bundle.oci(&["features"]).ok().out).unwrap();
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    let log = bundle.path("log");
    let mut command = std::process::Command::new(crate::sandbox::STACK);
    command.args(["oci", "--log-format", "json", "--log"]).arg(&log).args(["--root", "/nonexistent", "state", "x"]);
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    let line: serde_json::Value = serde_json::from_str(&fs_err::read_to_string(log).unwrap()).unwrap();
    assert_eq!((line["level"].as_str(), line["msg"].as_str()), (Some("error"), Some("container `x` does not exist")));
}
