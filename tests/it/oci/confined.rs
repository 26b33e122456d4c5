//! What a process is: user, capabilities, limits, filters, scheduling.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use super::bundle::Bundle;
use crate::poll::until_true;

/// Takes one message with a descriptor.
fn received(listener: &UnixListener) -> (String, OwnedFd) {
    let (stream, _) = listener.accept().unwrap();
    let mut text = vec![0; 64 << 10];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
    let length = message.bytes;
    let fd = message.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel just made this descriptor for us.
    #[allow(unsafe_code, reason = "a received descriptor has no owner yet")]
    let fd = unsafe { OwnedFd::from_raw_fd(fd.unwrap()) };
    text.truncate(length);
    (String::from_utf8(text).unwrap(), fd)
}

#[test]
fn attributes_of_a_process() {
    let script = "id -u; id -G; umask; pwd; echo $A; grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr -d '\\t'; \
        ulimit -n; cat /proc/self/oom_score_adj; echo $HOME";
    let mut bundle = Bundle::new(script);
    bundle.set(
        "/process",
        json!({
            "cwd": "/made/here", "args": ["sh", "-c", script], "env": ["PATH=/bin", "A=b", "HOME=/h"],
            "user": { "uid": 1000, "gid": 1001, "umask": 0o027, "additionalGids": [7, 8] },
            "noNewPrivileges": true, "oomScoreAdj": 123,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 50, "hard": 60 }],
            "capabilities": { "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"],
                "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] },
        }),
    );
    let out = bundle.run().ok().out;
    let expected = "1000\n1001 7 8\n0027\n/made/here\nb\nCapInh:0000000000000020\nCapPrm:0000000000000020\n\
        CapEff:0000000000000020\nCapBnd:0000000000000021\nCapAmb:0000000000000020\nNoNewPrivs:1\n50\n123\n/h\n";
    assert_eq!(out, expected);
}

#[test]
fn unknown_capabilities_are_a_warning() {
    let mut bundle = Bundle::new("grep CapBnd /proc/self/status");
    bundle.push("/process/capabilities/bounding", json!("CAP_FLY"));
    let ran = bundle.run().ok();
    assert!(ran.err.contains("ignoring unknown or unavailable capabilities: [CAP_FLY]"), "{}", ran.err);
    assert!(ran.out.contains("0000000000000020"), "{}", ran.out);
}

#[test]
fn scheduling_and_personality() {
    let mut bundle = Bundle::new("uname -m; cut -d' ' -f41,19 /proc/self/stat");
    bundle
        .set("/linux/personality", json!({ "domain": "LINUX32" }))
        .set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 5 }))
        .set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE" }));
    let out = bundle.run().ok().out;
    assert!(out.contains("\n5 3\n") && !out.starts_with("x86_64"), "{out}");
    bundle.set("/process/scheduler", json!({ "policy": "SCHED_NONE" }));
    bundle.create().fails("SCHED_NONE");
}

#[test]
fn system_call_filters() {
    let mut bundle = Bundle::new("mkdir /data/x 2>&1; umask 077 && echo fine");
    let deny = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 19 });
    bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [deny] }));
    let out = bundle.run().ok().out;
    assert!(out.contains("No such device") && out.ends_with("fine\n"), "{out}");
    bundle.set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_NEW"]));
    bundle.create().fails("SECCOMP_FILTER_FLAG_NEW");
}

#[test]
fn a_filter_s_listener_is_handed_over() {
    let mut bundle = Bundle::new("exec sleep 1000");
    let path = bundle.path("listener");
    let listener = UnixListener::bind(&path).unwrap();
    let ask = json!({ "names": ["sethostname"], "action": "SCMP_ACT_NOTIFY" });
    bundle.set(
        "/linux/seccomp",
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "word", "syscalls": [ask] }),
    );
    let (text, fd) = std::thread::scope(|scope| {
        let taken = scope.spawn(|| received(&listener));
        bundle.create().ok();
        taken.join().unwrap()
    });
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((told["metadata"].as_str(), told["pid"].as_i64()), (Some("word"), Some(bundle.pid())));
    assert_eq!(told["fds"], json!(["seccompFd"]));
    assert_eq!(told["state"]["id"].as_str(), Some(bundle.id.as_str()));
    bundle.start().ok();
    assert_eq!(bundle.status(), "running");
    drop(fd);
}

#[test]
fn a_terminal_goes_through_the_console_socket() {
    let mut bundle = Bundle::new("tty; stty size; test -c /dev/console && echo console");
    let path = bundle.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.set("/process/terminal", json!(true)).set("/process/consoleSize", json!({ "height": 33, "width": 44 }));
    let (_, master) = std::thread::scope(|scope| {
        let taken = scope.spawn(|| received(&listener));
        bundle.create_with(&["--console-socket", path.to_str().unwrap()]).ok();
        taken.join().unwrap()
    });
    bundle.start().ok();
    let mut said = String::new();
    until_true("the terminal shows it", || {
        let mut buffer = [0; 1024];
        let length = rustix::io::read(&master, &mut buffer).unwrap_or(0);
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
        said.contains("console")
    });
    assert_eq!(said, "/dev/pts/0\r\n33 44\r\nconsole\r\n");
    bundle.set("/process/terminal", json!(false));
    bundle.kill("KILL");
    bundle.delete().ok();
    bundle.create_with(&["--console-socket", path.to_str().unwrap()]).fails("process.terminal is off");
}
