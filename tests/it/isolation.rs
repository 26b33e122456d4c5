//! Namespaces, capabilities, limits, users: what a container may and may not.

use crate::sandbox::Sandbox;

fn one(settings: &str) -> Sandbox {
    let sandbox = Sandbox::with(&format!(
        "services: {{ app: {{ image: stack/host, init: true, command: [\"sleep\", \"infinity\"], {settings} }} }}"
    ));
    sandbox.stack("up -d").ok();
    sandbox
}

#[test]
fn every_namespace_is_its_own() {
    let sandbox = one("hostname: inside");
    for name in ["pid", "mnt", "uts", "ipc", "net", "cgroup"] {
        let own = fs_err::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(sandbox.inside("app", &format!("readlink /proc/self/ns/{name}")), own.to_string_lossy(), "{name}");
    }
    assert_eq!(sandbox.inside("app", "hostname"), "inside");
}

#[test]
fn defaults_are_tight() {
    let sandbox = one("");
    let status = sandbox.inside("app", "grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status");
    assert!(status.contains("CapEff:\t00000000800405fb"), "{status}");
    assert!(status.contains("CapBnd:\t00000000800405fb"), "{status}");
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert_eq!(sandbox.inside("app", "cat /proc/kcore 2>/dev/null | head -c 1 | wc -c"), "0");
    assert_eq!(sandbox.inside("app", "echo 1 2>/dev/null > /proc/sys/kernel/panic || echo refused"), "refused");
}

#[test]
fn capabilities_are_added_and_dropped() {
    let sandbox = one("cap_drop: [ALL], cap_add: [NET_ADMIN], security_opt: [\"no-new-privileges:true\"]");
    let status = sandbox.inside("app", "grep -E 'CapEff|NoNewPrivs' /proc/self/status");
    assert!(status.contains("CapEff:\t0000000000001000"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn users_and_folders_are_as_asked() {
    let sandbox = one("user: \"1234:5678\", working_dir: /usr/share");
    assert_eq!(sandbox.inside("app", "id -u; id -g; pwd"), "1234\n5678\n/usr/share");
}

#[test]
fn a_read_only_root_takes_no_writes() {
    let sandbox = one("read_only: true, tmpfs: /tmp");
    assert_eq!(
        sandbox.inside("app", "touch /file 2>/dev/null || echo refused; touch /tmp/file && echo fine"),
        "refused\nfine"
    );
}

#[test]
fn limits_reach_the_control_groups() {
    let sandbox =
        one("mem_limit: 64m, pids_limit: 50, cpus: 0.5, shm_size: 8m, ulimits: { nofile: { soft: 100, hard: 200 } }");
    assert_eq!(sandbox.inside("app", "ulimit -n; ulimit -Hn"), "100\n200");
    assert_eq!(sandbox.inside("app", "stat -f -c %b*%S /dev/shm"), "2048*4096");
    let pid = sandbox.pid("app");
    let groups = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let limit = |controller: &str, v1: &str, v2: &str| {
        let v1_path = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            controllers.split(',').any(|one| one == controller).then(|| parts.next()).flatten()
        });
        let path = match v1_path {
            Some(path) => format!("/sys/fs/cgroup/{controller}{path}/{v1}"),
            None => format!("/sys/fs/cgroup{}/{v2}", groups.trim().trim_start_matches("0::")),
        };
        fs_err::read_to_string(path).unwrap().trim().to_owned()
    };
    assert_eq!(limit("memory", "memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(limit("pids", "pids.max", "pids.max"), "50");
}

#[test]
fn exit_codes_tell_how_it_ended() {
    let sandbox = Sandbox::with(
        r#"
x-base: &base { image: stack/host }
services:
  killed: { <<: *base, command: ["sh", "-c", "kill -9 $$$$"], init: true }
  missing: { <<: *base, command: ["/no/such/program"], profiles: [bad] }
  denied: { <<: *base, command: ["/etc/passwd"], profiles: [bad] }
"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.until_state("killed", "exited");
    assert_eq!(sandbox.field("killed", "ExitCode"), "137");
    sandbox.stack("up -d missing").fails(&["/no/such/program"]);
    sandbox.stack("up -d denied").fails(&["/etc/passwd"]);
}

#[test]
fn raw_sockets_are_for_ping_alone() {
    let sandbox = one("user: \"1234\"");
    let script = r#"
import socket
def attempt(what):
    try: what(); return "fine"
    except OSError as e: return e.strerror
icmp = lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
print(attempt(icmp))
print(attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)))
print(attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)))
print(attempt(lambda: icmp().setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)))
ping = icmp(); ping.settimeout(5)
ping.sendto(bytes([8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1]), ("127.0.0.1", 0))
print(ping.recv(99)[20])
"#;
    let ran = sandbox.stack_args(&["exec", "-T", "app", "python3", "-c", script]).ok();
    assert_eq!(ran.out, "fine\nfine\nOperation not permitted\nOperation not permitted\n8\n");
}

#[test]
fn a_profile_of_system_calls_is_obeyed() {
    let file = "services: { app: { image: stack/host, init: true, command: [\"sleep\", \"infinity\"], \
        security_opt: [\"seccomp=./calls.json\"] } }";
    let sandbox = Sandbox::with(file);
    sandbox.stack("up -d").fails(&["calls.json", "No such file"]);
    sandbox.file("calls.json", r#"{"defaultAction": "SCMP_ACT_MAYBE"}"#);
    sandbox.stack("up -d").fails(&["calls.json", "SCMP_ACT_MAYBE"]);
    let rule = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}"#;
    sandbox.file("calls.json", &format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}]}}"#));
    sandbox.stack("up -d").ok();
    let tried = sandbox.inside("app", "mkdir /tmp/x 2>&1 || true");
    assert!(tried.contains("quota exceeded"), "{tried}");
    // What Docker's profile forbids is allowed by this one, as far as rights go.
    assert_eq!(sandbox.inside("app", "unshare --user true && echo made"), "made");
    // It was kept with the container: another start, and another shim, find it.
    fs_err::remove_file(sandbox.path("calls.json")).unwrap();
    sandbox.stack("restart -t 0").ok();
    assert!(sandbox.inside("app", "mkdir /tmp/x 2>&1 || true").contains("quota exceeded"));
}
