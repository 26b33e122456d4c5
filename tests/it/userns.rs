//! Root inside is an unprivileged user outside, and what is stored are the ids inside.

use std::os::unix::fs::{MetadataExt, chown};

use crate::sandbox::{STACK, Sandbox};

const FILE: &str = r#"
services:
  db:
    image: stack/host
    init: true
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
    sandbox.until_logged("db", "ready");
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
        sandbox.inside("db", "rm -f /pg/of-root; echo mine > /pg/of-root");
        assert_eq!(owner(sandbox, "pgdata/of-root"), made);
        sandbox.stack("down").ok();
    }
}

#[test]
fn ids_inside_are_those_stored_and_nobody_s_outside() {
    let sandbox = Sandbox::with(FILE);
    database(&sandbox, (0, 0));
    let told = sandbox.stack_env(&[("TOKEN", "hush")], "up -d").ok().err;
    assert!(told.contains("the capability SYS_TIME means nothing in a user namespace"), "{told}");
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
fn files_go_in_and_out_of_a_running_container_with_its_own_ids() {
    let sandbox =
        Sandbox::with("services:\n  box:\n    image: stack/host\n    init: true\n    command: [sleep, infinity]\n");
    let map = || sandbox.inside("box", MAP).trim().to_owned();
    sandbox.stack_env(&[("STACK_USERNS", "host")], "up -d").ok();
    assert!(map().starts_with("0 0 "), "{}", map());
    sandbox.stack_env(&[("STACK_USERNS", "private")], "up -d").ok();
    assert!(!map().starts_with("0 0 "), "{}", map());
    assert_eq!(sandbox.stack("top").ok().out.lines().nth(1).unwrap().split_ascii_whitespace().nth(2), Some("0"));
    sandbox.file("tree/file", "hello");
    for path in ["tree", "tree/file"] {
        chown(sandbox.path(path), Some(33), Some(34)).unwrap();
    }
    sandbox.stack("cp tree box:/root/").ok();
    assert_eq!(sandbox.inside("box", "cd /root/tree && stat -c %u:%g . file && cat file"), "33:34\n33:34\nhello");
    sandbox.stack("cp -a tree/file box:/root/mine").ok();
    assert_eq!(sandbox.inside("box", "stat -c %u:%g /root/mine"), "0:0");
    sandbox.inside("box", "echo bye > /root/tree/file && mkdir /root/unpacked");
    sandbox.stack("cp -a box:/root/tree/file back").ok();
    assert_eq!(
        (owner(&sandbox, "back"), fs_err::read_to_string(sandbox.path("back")).unwrap()),
        ((33, 34), "bye\n".to_owned())
    );
    let archive = |what: &str| {
        sandbox.shell(&[("STACK", STACK)], &format!("{what} > out.tar && tar -tv --numeric-owner -f out.tar")).ok().out
    };
    assert!(archive("$STACK cp box:/root/tree -").contains(" 33/34 "));
    assert!(
        archive("$STACK export box").lines().any(|line| line.contains(" 33/34 ") && line.ends_with("root/tree/file"))
    );
    sandbox.shell(&[("STACK", STACK)], "$STACK cp box:/root/tree - | $STACK cp - box:/root/unpacked").ok();
    assert_eq!(sandbox.inside("box", "stat -c %u:%g /root/unpacked/tree/file"), "33:34");
    sandbox.stack_env(&[("STACK_USERNS", "maybe")], "up -d").fails(&["set it to `private` or `host`"]);
}

#[test]
fn what_is_written_in_a_user_s_project_is_the_user_s() {
    let sandbox = Sandbox::with(FILE);
    let project = sandbox.path("stack.yaml").parent().unwrap().to_owned();
    chown(&project, Some(1234), Some(1235)).unwrap();
    database(&sandbox, (1234, 1235));
    sandbox.stack("down -v").ok();
    chown(&project, Some(0), Some(0)).unwrap();
}

/// The first `up` on a machine tries what it can do, for all its containers at once.
#[test]
fn of_many_that_are_first_everyone_has_one() {
    let service = |number| format!("  s{number}: {{ image: stack/host, init: true, command: [sleep, infinity] }}\n");
    let sandbox = Sandbox::with(&format!("services:\n{}", (0..8).map(service).collect::<String>()));
    sandbox.stack("up -d").ok();
    for number in 0..8 {
        let map = sandbox.inside(&format!("s{number}"), "cat /proc/self/uid_map");
        let base: u32 = map.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(base >= 65_536, "s{number} has {map}");
        assert_eq!(sandbox.inside(&format!("s{number}"), "stat -c %u:%g /usr /usr/local"), "0:0\n0:0");
    }
}
