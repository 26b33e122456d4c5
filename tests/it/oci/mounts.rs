//! Mounts and their options, devices, hidden and protected paths.

use std::os::unix::fs::MetadataExt as _;

use serde_json::json;

use super::bundle::Bundle;

#[test]
fn options_of_mounts() {
    let script = "grep ' /data/' /proc/self/mounts | cut -d' ' -f2,4; cat /data/file /tmp/kept; \
        touch /data/free/new /data/bound/inner/x 2>&1; ls -ln /data/mapped/own | tr -s ' ' | cut -d' ' -f3,4";
    let mut bundle = Bundle::new(script);
    for name in ["host/inner", "host/own"] {
        fs_err::create_dir_all(bundle.path(name)).unwrap();
    }
    fs_err::write(bundle.path("host/file"), "content\n").unwrap();
    fs_err::write(bundle.path("host/own/file"), "").unwrap();
    fs_err::write(bundle.path("rootfs/tmp/kept"), "kept\n").unwrap();
    let host = bundle.path("host");
    let host = host.to_str().unwrap();
    let file = bundle.path("host/file");
    let ids = json!([{ "containerID": 0, "hostID": 1_900_000_000, "size": 1000 }]);
    for mount in [
        json!({ "destination": "/data/bound", "type": "bind", "source": host, "options": ["rbind", "rro", "nosuid"] }),
        json!({ "destination": "/data/file", "source": file, "options": ["bind", "ro", "noexec"] }),
        json!({ "destination": "/data/free", "type": "tmpfs", "source": "tmpfs", "options": ["noatime", "size=64k"] }),
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"] }),
        json!({ "destination": "/data/mapped", "source": host, "options": ["bind"], "uidMappings": ids, "gidMappings": ids }),
    ] {
        bundle.push("/mounts", mount);
    }
    let out = bundle.run().ok().out;
    let line = |path: &str| out.lines().find_map(|line| line.strip_prefix(path)).unwrap_or_else(|| panic!("{out}"));
    assert!(line("/data/bound ").starts_with("ro,nosuid"), "{out}");
    assert!(line("/data/file ").starts_with("ro,") && line("/data/file ").contains("noexec"), "{out}");
    assert!(line("/data/free ").contains("noatime") && line("/data/free ").contains("size=64k"), "{out}");
    assert!(out.contains("content\nkept\n"), "{out}");
    assert!(out.contains("touch: /data/bound/inner/x: Read-only file system"), "{out}");
    assert!(out.contains("1900000000 1900000000"), "{out}");
    assert_eq!(fs_err::metadata(bundle.path("host/own/file")).unwrap().uid(), 0);
}

#[test]
fn a_link_in_the_place_of_proc_is_refused() {
    let bundle = Bundle::new("true");
    fs_err::remove_dir(bundle.path("rootfs/proc")).unwrap();
    std::os::unix::fs::symlink("/tmp", bundle.path("rootfs/proc")).unwrap();
    bundle.create().fails("must be mounted on ordinary directory");
}

#[test]
fn devices_and_covers() {
    let script = "for d in null zero full random urandom tty more/own; do test -c /dev/$d || echo no $d; done; \
        stat -c '%a %u %t:%T' /dev/more/own; readlink /dev/fd; readlink /dev/ptmx; cat /tmp/hidden | wc -c; ls /etc/secret | wc -l; \
        touch /etc/shown 2>&1; touch /x 2>&1; cat /proc/sys/net/ipv4/ip_forward; hostname; cat /proc/sys/kernel/domainname";
    let mut bundle = Bundle::new(script);
    fs_err::create_dir_all(bundle.path("rootfs/etc/secret/inner")).unwrap();
    fs_err::write(bundle.path("rootfs/etc/shown"), "").unwrap();
    fs_err::write(bundle.path("rootfs/tmp/hidden"), "text").unwrap();
    bundle
        .set(
            "/linux/devices",
            json!([{ "path": "/dev/more/own", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 5 }]),
        )
        .set("/linux/maskedPaths", json!(["/tmp/hidden", "/etc/secret", "/nothing"]))
        .set("/linux/readonlyPaths", json!(["/etc/shown"]))
        .set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }))
        .set("/root/readonly", json!(true))
        .set("/hostname", json!("box"))
        .set("/domainname", json!("example.org"));
    let out = bundle.run().ok().out;
    let expected = "640 5 1:7\n/proc/self/fd\npts/ptmx\n0\n0\ntouch: /etc/shown: Read-only file system\n\
        touch: /x: Read-only file system\n1\nbox\nexample.org\n";
    assert_eq!(out, expected);
    let mut bundle = Bundle::new("true");
    bundle.set("/linux/sysctl", json!({ "kernel.panic": "1" }));
    bundle.create().fails("own namespaces");
}

#[test]
fn device_rules() {
    let mut bundle = Bundle::new("head -c 1 /dev/zero | wc -c; head -c 1 /dev/other 2>&1");
    bundle
        .set("/linux/devices", json!([{ "path": "/dev/other", "type": "c", "major": 1, "minor": 11 }]))
        .set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]));
    let out = bundle.run().out;
    assert!(out.starts_with("1\n") && out.contains("Operation not permitted"), "{out}");
}

#[test]
fn propagation_of_the_root() {
    let words = [("shared", "shared:"), ("slave", "master:"), ("private", ""), ("unbindable", "unbindable")];
    for (name, word) in words {
        let mut bundle = Bundle::new(
            "grep ' / / \\| /rootfs / ' /proc/self/mountinfo | head -1; cat /proc/self/mountinfo | head -1",
        );
        bundle.set("/linux/rootfsPropagation", json!(name));
        let out = bundle.run().ok().out;
        let first = out.lines().next().unwrap_or_default();
        match word {
            "" => assert!(!first.contains("shared:") && !first.contains("master:"), "{name}: {out}"),
            // The root is nobody's slave where the host's mounts are private.
            "master:" => assert!(!first.contains("shared:"), "{name}: {out}"),
            word => assert!(first.contains(word), "{name}: {out}"),
        }
    }
}
