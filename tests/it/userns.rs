//! `userns_mode: private`: root inside is an unprivileged user outside, and what is stored are the ids inside.

use std::os::unix::fs::{MetadataExt, chown};

use crate::sandbox::Sandbox;

const FILE: &str = r#"
services:
  db:
    image: stack/host
    init: true
    userns_mode: private
    command: ["sh", "-c", "chown -R 999:999 /pg && echo more >> /pg/log && chown 999:999 /pg/log && echo ready > /dev/stdout && exec sleep infinity"]
    volumes: ["./pgdata:/pg", "data:/data"]
    secrets: [{ source: token, target: word, uid: "7", gid: "8", mode: 0400 }]
  beside:
    image: stack/host
    init: true
    network_mode: service:db
    command: ["sleep", "infinity"]
    depends_on: [db]
  free:
    image: stack/host
    init: true
    userns_mode: private
    cap_add: [SYS_TIME]
    command: ["sleep", "infinity"]
secrets: { token: { environment: TOKEN } }
volumes: { data: {} }
"#;

const MAP: &str = "tr -s ' ' < /proc/self/uid_map";

fn owner(sandbox: &Sandbox, path: &str) -> (u32, u32) {
    let metadata = fs_err::metadata(sandbox.path(path)).unwrap();
    (metadata.uid(), metadata.gid())
}

fn up(sandbox: &Sandbox) {
    sandbox.stack_env(&[("TOKEN", "hush")], "up -d").ok();
    for _ in 0..200 {
        if sandbox.stack("logs db").ok().out.contains("ready") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("db is never ready");
}

/// A database that gives its folder to its own user, twice: the folder is made, then it is there.
fn database(sandbox: &Sandbox, made: (u32, u32)) {
    for lines in ["1", "2"] {
        up(sandbox);
        assert_eq!(owner(sandbox, "pgdata"), (999, 999));
        assert_eq!(owner(sandbox, "pgdata/log"), (999, 999));
        assert_eq!(
            sandbox.inside("db", "stat -c %u:%g /pg /pg/log; wc -l < /pg/log"),
            format!("999:999\n999:999\n{lines}")
        );
        sandbox.inside("db", "echo mine > /pg/of-root");
        assert_eq!(owner(sandbox, "pgdata/of-root"), made);
        sandbox.stack("down").ok();
    }
}

#[test]
fn ids_inside_are_those_stored_and_nobody_s_outside() {
    let sandbox = Sandbox::with(FILE);
    database(&sandbox, (0, 0));
    up(&sandbox);
    let map = sandbox.inside("db", MAP);
    let fields: Vec<u32> = map.split_ascii_whitespace().map(|field| field.parse().unwrap()).collect();
    assert!(fields[0] == 0 && fields[1] >= 0x7000_0000 && fields[2] == 65_536, "{map}");
    assert_eq!(sandbox.inside("beside", MAP), map);
    assert_eq!(
        sandbox.inside("beside", "readlink /proc/self/ns/net"),
        sandbox.inside("db", "readlink /proc/self/ns/net")
    );
    assert!(sandbox.inside("free", MAP).trim().starts_with("0 0 "));
    assert_eq!(sandbox.inside("db", "stat -c %u:%g:%a /run/secrets/word"), "7:8:400");
    sandbox.inside("db", "touch /data/x && chown 33:34 /data/x && echo hi > /root/kept");
    assert_eq!(sandbox.inside("db", "cat /root/kept; stat -c %u:%g /data/x"), "hi\n33:34");
    sandbox.stack("restart db").ok();
    assert_eq!(sandbox.inside("db", MAP), map);
    assert_eq!(sandbox.inside("db", "cat /root/kept; stat -c %u:%g /data/x"), "hi\n33:34");
    sandbox.stack("stop db").ok();
    sandbox.stack("cp db:/root/kept out").ok();
    assert_eq!(fs_err::read_to_string(sandbox.path("out")).unwrap(), "hi\n");
}

#[test]
fn what_is_written_in_a_user_s_project_is_the_user_s() {
    let sandbox = Sandbox::with(FILE);
    let project = sandbox.path("stack.yaml").parent().unwrap().to_owned();
    chown(&project, Some(1234), Some(1235)).unwrap();
    database(&sandbox, (1234, 1235));
    chown(&project, Some(0), Some(0)).unwrap();
}
