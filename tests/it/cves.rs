//! Attacks on the runtime that others fell for, each named after its CVE, or its row of the security checklist.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use crate::sandbox::{STACK, Sandbox};

/// A container of this machine's programs that waits, with more settings of its service.
fn waiting(settings: &str) -> Sandbox {
    let sandbox = Sandbox::with(&format!(
        "services:\n  box:\n    image: stack/host\n    init: true\n    command: [sleep, infinity]\n{settings}"
    ));
    sandbox.stack("up -d").ok();
    sandbox
}

/// An image with busybox and these links in the store as `tiny`, and a service of it that waits.
fn hostile(links: &[(&str, &str)], settings: &str) -> Sandbox {
    let sandbox = Sandbox::with(&format!(
        "services:\n  box:\n    image: tiny\n    command: [sleep, '1000']\n    stop_grace_period: 0s\n{settings}"
    ));
    sandbox.busybox_tar();
    for (name, target) in links {
        let place = sandbox.path("rootfs").join(name);
        fs_err::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(target, place).unwrap();
    }
    import(&sandbox);
    sandbox
}

fn import(sandbox: &Sandbox) {
    sandbox.shell(&[], "tar -C rootfs -cf busybox.tar .").ok();
    sandbox.stack("image import busybox.tar tiny").ok();
}

/// A folder of this machine with a file that no container may see, and that no container may write to.
fn canary(sandbox: &Sandbox) -> String {
    sandbox.file("canary/flag", "outside\n");
    sandbox.path("canary").to_str().unwrap().to_owned()
}

#[track_caller]
fn untouched(sandbox: &Sandbox) {
    let names: Vec<_> = fs_err::read_dir(sandbox.path("canary")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["flag"]);
    assert_eq!(fs_err::read_to_string(sandbox.path("canary/flag")).unwrap(), "outside\n");
}

#[test]
fn cve_2019_5736_the_runtime_s_own_program_is_out_of_reach() {
    let state = || fs_err::metadata(STACK).map(|it| (it.len(), it.mtime(), it.mtime_nsec(), it.ino())).unwrap();
    let before = state();
    let script = "while :; do for p in /proc/[0-9]*; do echo x >$$p/exe; done 2>/dev/null; done";
    let sandbox = hostile(&[("bin/again", "/proc/self/exe")], "");
    sandbox.file("rootfs/evil", "#!/proc/self/exe\n");
    fs_err::set_permissions(sandbox.path("rootfs/evil"), std::fs::Permissions::from_mode(0o755)).unwrap();
    import(&sandbox);
    let file = format!(
        "services:\n  box:\n    image: tiny\n    command: [sh, -c, '{script}']\n    stop_grace_period: 0s\n    init: true\n"
    );
    sandbox.file("stack.yaml", &file);
    sandbox.stack("up -d").ok();
    for round in 0..10 {
        for program in ["/evil", "/bin/again", "/proc/self/exe"] {
            let ran = sandbox.stack(&format!("exec -T box {program} --version"));
            // Run again inside, it is a program without rights; what counts is that it can't be changed.
            assert!(ran.code <= 128, "round {round}: {ran}");
        }
    }
    assert_eq!(state(), before);
}

#[test]
fn cve_2024_21626_no_descriptor_of_the_machine_is_left_open() {
    let sandbox = waiting("");
    for number in 3..12 {
        let ran = sandbox.stack(&format!("exec -T -w /proc/self/fd/{number} box pwd"));
        assert_ne!(ran.code, 0, "{ran}");
    }
    assert_eq!(sandbox.inside("box", "ls /proc/self/fd | wc -l; ls /proc/1/fd 2>/dev/null | wc -l"), "4\n0");
    let sandbox = Sandbox::with(
        "services:\n  box: { image: stack/host, working_dir: /proc/self/fd/8, command: [sleep, infinity] }\n",
    );
    sandbox.stack("up -d").fails(&["/proc/self/fd/8"]);
}

#[test]
fn cve_2016_9962_an_exec_cannot_be_looked_into_on_its_way() {
    let watcher = r#"
import os
print("watching", flush=True)
while True:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                to = os.readlink(f"/proc/{pid}/fd/{fd}")
                if int(fd) > 2 and (to.startswith(("socket:", "anon_inode:")) or "/stack-it" in to):
                    print("found", pid, fd, to, flush=True)
        except OSError:
            pass
"#;
    let sandbox = Sandbox::with(
        "services:\n  box:\n    image: stack/host\n    init: true\n    cap_add: [SYS_PTRACE]\n    volumes: ['./watcher.py:/watcher.py:ro']\n    command: [python3, /watcher.py]\n",
    );
    sandbox.file("watcher.py", watcher);
    sandbox.stack("up -d").ok();
    sandbox.until_logged("box", "watching");
    for _ in 0..30 {
        sandbox.stack("exec -T box true").ok();
    }
    let logs = sandbox.stack("logs box").ok().out;
    assert!(!logs.contains("found"), "{logs}");
}

#[test]
fn cve_2022_29162_and_24769_no_capability_is_inherited() {
    let sandbox = waiting("    cap_add: [NET_ADMIN]\n");
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000";
    let look = "grep -h -E '^Cap(Inh|Amb)' /proc/1/status; grep -E '^Cap(Inh|Amb)' /proc/self/status";
    assert_eq!(sandbox.inside("box", look), format!("{none}\n{none}"));
    for options in [&["--privileged"][..], &["-u", "33"]] {
        let args = [&["exec", "-T"], options, &["box", "grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status"]].concat();
        assert_eq!(sandbox.stack_args(&args).ok().out.trim_end(), none);
    }
}

#[test]
fn cve_2024_40635_and_2026_46680_a_user_s_number_never_becomes_root() {
    let sandbox = waiting("");
    let numbers = [
        "4294967296",
        "4294967295",
        "2147483648",
        "18446744073709551616",
        "-1",
        "+0",
        "0x0",
        "00x",
        "1e0",
        "33:4294967296",
        "33:-1",
        "4294967296:33",
        "nobody:nothing",
        "33:33:33",
        "٠",
    ];
    for user in numbers {
        let ran = sandbox.stack_args(&["exec", "-T", "-u", user, "box", "id"]);
        assert!(ran.code != 0 && !ran.out.contains("uid="), "{user}: {ran}");
    }
    let id = |user: &str| sandbox.stack_args(&["exec", "-T", "-u", user, "box", "sh", "-c", "id -u; id -g"]).ok().out;
    assert_eq!((id("33:34").as_str(), id("010").as_str()), ("33\n34\n", "10\n0\n"));
}

#[test]
fn cve_2022_0492_and_2023_25809_control_groups_cannot_be_changed() {
    let sandbox = waiting("");
    let attempts = [
        "find /sys/fs/cgroup -type d -exec mkdir {}/x \\; 2>/dev/null; find /sys/fs/cgroup -type d -name x | grep .",
        "find /sys/fs/cgroup -name release_agent | grep .",
        "for f in $(find /sys/fs/cgroup -name notify_on_release -o -name cgroup.procs); do echo 1 > $f && echo $f; done 2>/dev/null | grep .",
        "mount -t cgroup -o rdma cgroup /mnt",
        "mount -t cgroup2 cgroup /mnt",
        "mount -o remount,rw /sys/fs/cgroup",
        "unshare -UrmC true",
        "unshare -m true",
    ];
    for attempt in attempts {
        let ran = sandbox.stack_args(&["exec", "-T", "box", "sh", "-c", attempt]);
        assert_ne!(ran.code, 0, "{attempt}: {ran}");
    }
}

#[test]
fn cve_2026_31431_and_others_sockets_and_calls_for_the_kernel_s_darker_corners_are_refused() {
    let sandbox = waiting("");
    let script = r#"python3 - <<'E'
import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)
calls = dict(keyctl=250, add_key=248, request_key=249, io_uring_setup=425, bpf=321, perf_event_open=298,
             userfaultfd=323, open_by_handle_at=304, kexec_load=246, init_module=175, finit_module=313, mount=165,
             setns=308, syslog=103, clone3=435, swapon=167, reboot=169, x32_getpid=0x40000000 + 39)
for name, number in calls.items():
    ctypes.set_errno(0)
    if libc.syscall(number, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() not in (1, 38):
        print("call", name, ctypes.get_errno())
if libc.unshare(0x10000000) == 0:
    print("call unshare")
for family, kind, protocol in [(38, 5, 0), (40, 1, 0), (17, 3, 0), (16, 3, 9), (16, 3, 12), (30, 1, 0), (31, 3, 1), (21, 5, 0), (9, 5, 0)]:
    try:
        socket.socket(family, kind, protocol)
        print("socket", family, protocol)
    except OSError:
        pass
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    socket.socket(family, socket.SOCK_STREAM)
socket.socket(16, 3, 0)
print("end")
E"#;
    assert_eq!(sandbox.inside("box", script), "end");
}

#[test]
fn cve_2025_31133_and_52565_masks_and_the_console_ignore_the_image_s_dev() {
    let pattern = fs_err::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let target = "/proc/sys/kernel/core_pattern";
    let sandbox = hostile(
        &[("dev/null", target), ("dev/console", target), ("dev/pts/0", target), ("dev/ptmx", target)],
        "    tty: true\n",
    );
    sandbox.stack("up -d").ok();
    let look = "busybox stat -c '%F %t:%T' /dev/null /proc/interrupts /proc/keys; busybox stat -c %F /dev/console; busybox wc -c < /proc/interrupts";
    let null = "character special file 1:3\n".repeat(3);
    assert_eq!(sandbox.inside("box", look), format!("{null}character special file\n0"));
    assert_eq!(sandbox.inside("box", "echo x > /dev/null; echo y > /dev/console; echo on").lines().last(), Some("on"));
    assert_eq!(fs_err::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

#[test]
fn cve_2025_52881_and_2019_19921_and_2026_41579_kernel_file_systems_go_on_real_folders_only() {
    for name in ["proc", "sys", "dev"] {
        let sandbox = hostile(&[(name, "/tmp")], "");
        sandbox.stack("up -d").fails(&[&format!("/{name} of the image is not a plain folder")]);
    }
    let sandbox = waiting("    volumes: ['./fake:/fake']\n");
    let magic =
        sandbox.inside("box", "stat -f -c %t /proc /sys /proc/self/attr; stat -c %d /proc /proc/sys | uniq | wc -l");
    assert_eq!(magic, "9fa0\n62656572\n9fa0\n1");
}

#[test]
fn cve_2024_45310_nothing_is_made_outside_for_a_mount() {
    let outside = tempfile::tempdir().unwrap();
    let to = outside.path().to_str().unwrap();
    let sandbox = hostile(
        &[("mnt", to), ("up", &format!("../../../../../../..{to}"))],
        "    volumes: ['./data:/mnt/new/sub', './data:/up/other', './data/file:/mnt/one']\n",
    );
    sandbox.file("data/file", "shown\n");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("box", "cat /mnt/new/sub/file /up/other/file /mnt/one"), "shown\nshown\nshown");
    assert_eq!(fs_err::read_dir(to).unwrap().count(), 0);
}

#[test]
fn cve_2017_1002101_a_subpath_does_not_leave_its_volume() {
    let file = |service: &str| {
        format!(
            "services:\n  box:\n    image: stack/host\n    init: true\n    command: [sleep, infinity]\n{service}volumes: {{ data: {{}} }}\n"
        )
    };
    let sandbox = Sandbox::with(&file("    volumes: ['data:/data']\n"));
    let canary = canary(&sandbox);
    sandbox.stack("up -d").ok();
    sandbox.inside(
        "box",
        &format!("ln -s {canary} /data/far; ln -s ../../../../../../../..{canary} /data/up; mkdir /data/in"),
    );
    for (subpath, works) in [("far", false), ("up", false), ("in/../../..", false), ("in", true)] {
        let mount =
            format!("    volumes: [{{ type: volume, source: data, target: /x, volume: {{ subpath: {subpath} }} }}]\n");
        sandbox.file("stack.yaml", &file(&mount));
        let ran = sandbox.stack("up -d");
        assert_eq!(ran.code == 0, works, "{subpath}: {ran}");
    }
    untouched(&sandbox);
}

#[test]
fn cve_2022_23648_an_image_fills_a_volume_from_its_own_files_only() {
    let sandbox = hostile(&[], "    volumes: ['data:/data', 'more:/links']\nvolumes: { data: {}, more: {} }\n");
    let canary = canary(&sandbox);
    symlink(&canary, sandbox.path("rootfs/data")).unwrap();
    sandbox.file("rootfs/links/own", "own\n");
    symlink(&canary, sandbox.path("rootfs/links/far")).unwrap();
    import(&sandbox);
    let ran = sandbox.stack("up -d");
    if ran.code == 0 {
        assert_eq!(
            sandbox.inside("box", "ls /links; cat /links/own; cat /data/flag /links/far/flag 2>/dev/null; ls /data"),
            "far\nown\nown"
        );
    }
    untouched(&sandbox);
}

#[test]
fn m11_and_m12_no_device_can_be_made_and_no_mount_is_shared() {
    let sandbox = waiting("    tmpfs: [/memory]\n    volumes: ['./data:/data']\n");
    let attempt = "for d in /tmp /dev /memory /data; do mknod $d/disk b 254 0 && cat < $d/disk; done 2>/dev/null | grep . ; ls /tmp/disk /dev/disk /memory/disk /data/disk 2>/dev/null | wc -l";
    assert_eq!(sandbox.inside("box", attempt), "0");
    assert_eq!(sandbox.inside("box", "grep -c -E ' (shared|master):' /proc/self/mountinfo || true"), "0");
}

#[test]
fn cve_2018_15664_a_copy_is_not_led_astray_by_a_container_that_swaps_folders() {
    let sandbox = Sandbox::with(
        "services:\n  box:\n    image: stack/host\n    init: true\n    volumes: ['./swap.py:/swap.py:ro']\n    command: [python3, /swap.py]\n",
    );
    let canary = canary(&sandbox);
    sandbox.file("planted", "planted\n");
    sandbox.file(
        "swap.py",
        &format!(
            "import os\nos.mkdir('/swap')\nopen('/swap/flag', 'w').write('inside\\n')\nprint('swapping', flush=True)\n\
             while True:\n    os.rename('/swap', '/dir')\n    os.symlink('{canary}', '/swap')\n    os.unlink('/swap')\n    os.rename('/dir', '/swap')\n"
        ),
    );
    sandbox.stack("up -d").ok();
    sandbox.until_logged("box", "swapping");
    for _ in 0..25 {
        if sandbox.stack("cp box:/swap/flag out").code == 0 {
            assert_eq!(fs_err::read_to_string(sandbox.path("out")).unwrap(), "inside\n");
        }
        let _ = sandbox.stack("cp planted box:/swap/planted");
        untouched(&sandbox);
    }
}

#[test]
fn cve_2019_14271_and_2026_41567_a_copy_runs_nothing_of_the_image() {
    let sandbox = hostile(&[("lib/x86_64-linux-gnu/libnss_files.so.2", "/evil.so")], "");
    for name in ["evil.so", "bin/tar", "bin/gzip", "bin/xz", "bin/unpigz", "usr/bin/tar"] {
        let place = sandbox.file(&format!("rootfs/{name}"), "#!/bin/sh\necho taken > /taken\n");
        fs_err::set_permissions(place, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    import(&sandbox);
    sandbox.stack("up -d").ok();
    sandbox.file("some", "some\n");
    sandbox.shell(&[("STACK", STACK)], "$STACK cp some box:/some && tar -cz some | $STACK cp - box:/bin").ok();
    sandbox
        .shell(
            &[("STACK", STACK)],
            "$STACK cp box:/some back && $STACK cp box:/bin - > bin.tar && $STACK export box > all.tar",
        )
        .ok();
    assert_eq!(sandbox.inside("box", "cat /bin/some; ls /taken 2>/dev/null || echo none"), "some\nnone");
}
