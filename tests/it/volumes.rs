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
