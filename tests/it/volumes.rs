//! Volumes: named, anonymous, bind, tmpfs, read-only; secrets and configs.

use crate::sandbox::Sandbox;

const FILE: &str = r#"
services:
  app:
    image: stack/host
    init: true
    command: ["sleep", "infinity"]
    volumes:
      - "data:/data"
      - "./here:/here"
      - "./here:/fixed:ro"
      - "/anonymous"
      - { type: tmpfs, target: /memory, tmpfs: { size: 1m, mode: 0700 } }
    secrets: [{ source: token, target: word, uid: "7", gid: "8", mode: 0400 }]
    configs: [{ source: greeting, target: /etc/greeting }]
secrets: { token: { environment: TOKEN } }
configs: { greeting: { content: "hello ${WHO:-you}" } }
volumes: { data: {} }
"#;

fn up() -> Sandbox {
    let sandbox = Sandbox::with(FILE);
    sandbox.file("here/file", "from outside");
    sandbox.stack_env(&[("TOKEN", "hush")], "up -d").ok();
    sandbox
}

#[test]
fn named_volumes_outlive_down() {
    let sandbox = up();
    sandbox.inside("app", "echo kept > /data/file");
    sandbox.stack("down").ok();
    sandbox.stack_env(&[("TOKEN", "hush")], "up -d").ok();
    assert_eq!(sandbox.inside("app", "cat /data/file"), "kept");
    sandbox.stack("down -v").ok();
    sandbox.stack_env(&[("TOKEN", "hush")], "up -d").ok();
    assert_eq!(sandbox.inside("app", "ls /data"), "");
}

#[test]
fn binds_show_the_host_s_files() {
    let sandbox = up();
    assert_eq!(sandbox.inside("app", "cat /here/file"), "from outside");
    sandbox.inside("app", "echo inside > /here/new");
    assert_eq!(fs_err::read_to_string(sandbox.path("here/new")).unwrap(), "inside\n");
    assert_eq!(sandbox.inside("app", "echo x 2>/dev/null > /fixed/new || echo refused"), "refused");
}

#[test]
fn memory_is_as_large_as_asked() {
    let sandbox = up();
    assert_eq!(sandbox.inside("app", "stat -f -c %b*%S /memory; stat -c %a /memory"), "256*4096\n700");
}

#[test]
fn secrets_and_configs_have_owner_and_mode() {
    let sandbox = up();
    assert_eq!(sandbox.inside("app", "cat /run/secrets/word; stat -c ' %u:%g %a' /run/secrets/word"), "hush 7:8 400");
    assert_eq!(sandbox.inside("app", "cat /etc/greeting"), "hello you");
}

#[test]
fn an_empty_volume_takes_the_image_s_content() {
    let sandbox = Sandbox::with(
        r#"
services:
  app:
    build: { context: ., dockerfile_inline: "FROM scratch\nADD busybox.tar /\nRUN mkdir /data && echo seed > /data/file" }
    command: ["sleep", "infinity"]
    volumes: ["data:/data"]
volumes: { data: {} }
"#,
    );
    sandbox.busybox_tar();
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("app", "cat /data/file"), "seed");
}

/// Docker's folder with the volume `shop_data` of a container.
fn docker(sandbox: &Sandbox, pid: u32) -> String {
    let script = r#"
        set -e
        mkdir -p docker/volumes/shop_data/_data/sub docker/containers/c1 && cd docker/volumes/shop_data/_data
        echo one >sub/file && chown 999:998 sub sub/file && chmod 2750 sub && ln sub/file again && ln -s sub/file link
        chown -h 7:8 link && chmod 4755 again && touch -d @1000000000 again
        truncate -s 8M holes && echo end >>holes && chown 999:999 . && chmod 700 .
        python3 -c 'import os; os.setxattr("holes", "user.note", b"kept")'
    "#;
    assert!(sandbox.command("sh", &["-c", script]).status().unwrap().success());
    let container = serde_json::json!({ "Name": "/shop-db-1", "State": { "Running": true, "Pid": pid },
        "MountPoints": { "/data": { "Name": "shop_data" } } });
    sandbox.file("docker/containers/c1/config.v2.json", &container.to_string());
    sandbox.path("docker").display().to_string()
}

#[test]
fn a_volume_of_docker_is_taken_over_with_everything() {
    let sandbox = Sandbox::with(
        "name: shop\nservices: { db: { image: stack/host, command: ['sh', '-c', 'ls -lnR --time-style=+%s /data; du -k /data/holes'], volumes: ['data:/data'] } }\nvolumes: { data: {} }",
    );
    let docker = docker(&sandbox, std::process::id());
    let import = format!("volume import --from-docker shop_data --docker-root {docker}");
    sandbox.stack(&import).fails(&["shop_data", "running container shop-db-1", "--force"]);
    assert!(!sandbox.stack("volume ls -q").ok().out.contains("shop_data"), "a refused one leaves nothing");
    let ran = sandbox.stack(&(import.clone() + " --force")).ok();
    assert_eq!(ran.out.trim(), "shop_data");
    sandbox.stack(&(import + " --force")).fails(&["already"]);
    assert_eq!(sandbox.stack("volumes -q").ok().out.trim(), "shop_data", "the stack's own");

    let list = |folder: &str| {
        let script = "cd $0 && find . -printf '%p %m %U %G %s %T@ %n %l\\n' | sort; python3 -c 'import os; print(os.getxattr(\"holes\", \"user.note\"))'";
        let out = sandbox.command("sh", &["-c", script, folder]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let data = sandbox.root().join("lib/volumes/shop_data/_data");
    assert_eq!(list(data.to_str().unwrap()), list(&format!("{docker}/volumes/shop_data/_data")));
    let ran = sandbox.stack("up").ok();
    assert!(ran.out.contains("999") && !ran.err.contains("WARN"), "{ran}");
    let kib: u32 = ran
        .out
        .lines()
        .find_map(|line| line.split("| ").nth(1)?.strip_suffix("/data/holes")?.trim().parse().ok())
        .unwrap();
    assert!(kib < 1024, "{kib} KiB of 8 MiB that are a hole");
    sandbox.stack("down -v").ok();
    assert!(!data.exists(), "`down -v` takes it along like any other");
}

#[test]
fn a_volume_of_docker_that_nobody_names_or_that_is_elsewhere() {
    let sandbox = Sandbox::new();
    let docker = docker(&sandbox, 0);
    let import = |name: &str| sandbox.stack(&format!("volume import --from-docker {name} --docker-root {docker}"));
    for name in ["nope", "../volumes/shop_data", "."] {
        import(name).fails(&["Docker has no volume", "docker volume ls"]);
    }
    // Stopped: the state that Docker saved last names a process that is gone.
    let ran = import("shop_data").ok();
    assert!(ran.err.contains("belongs to no stack"), "{ran}");
    fs_err::remove_dir_all(sandbox.root().join("lib/volumes/shop_data")).unwrap();
    sandbox.file("docker/volumes/nfs/opts.json", "{}");
    sandbox.file("docker/volumes/nfs/_data/.keep", "");
    import("nfs").fails(&["driver options"]);
}

#[test]
fn mounts_below_a_bind_come_along_as_asked() {
    let service = |name: &str, recursive: &str, read_only: bool| {
        format!(
            "  {name}: {{ image: stack/host, init: true, command: [\"sleep\", \"infinity\"], volumes: [{{ type: bind, \
             source: ./outer, target: /m, read_only: {read_only}, bind: {{ recursive: {recursive} }} }}] }}\n"
        )
    };
    let sandbox = Sandbox::with(&format!(
        "services:\n{}{}{}{}",
        service("along", "enabled", false),
        service("without", "disabled", false),
        service("writable", "writable", true),
        service("readonly", "readonly", true)
    ));
    sandbox.file("outer/inner/below", "");
    // The stack lives in a mount namespace of its own, where something is mounted below the source.
    let script = "mount -t tmpfs none outer/inner && touch outer/inner/above && $STACK up -d";
    sandbox.shell(&[("STACK", crate::sandbox::STACK)], &format!("exec unshare -m sh -c '{script}'")).ok();
    assert_eq!(sandbox.inside("along", "ls /m/inner"), "above");
    assert_eq!(sandbox.inside("without", "ls /m/inner"), "below");
    let tried =
        |name: &str| sandbox.inside(name, "for f in /m/x /m/inner/x; do touch $f 2>/dev/null && echo $f; done; true");
    assert_eq!(tried("writable"), "/m/inner/x");
    assert_eq!(tried("readonly"), "");
}
