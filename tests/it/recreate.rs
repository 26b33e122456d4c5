//! What makes a container anew and what doesn't, cause by cause.

use std::path::PathBuf;

use serde_json::Value;

use crate::sandbox::Sandbox;

const IDLE: &str = "x-idle: &idle { image: stack/host, init: true, command: [\"sleep\", \"infinity\"] }\n";

fn with(text: &str) -> Sandbox {
    Sandbox::with(&format!("{IDLE}{text}"))
}

/// What `up` would do now, as people read it.
fn plan(sandbox: &Sandbox) -> String {
    sandbox.stack("plan").ok().out
}

#[test]
fn the_content_of_files_counts_and_their_touch_does_not() {
    let sandbox = with(
        "
services: { app: { <<: *idle, env_file: ./env, configs: [motd, inline] }, other: *idle }
configs: { motd: { file: ./motd }, inline: { content: \"${WORD:-one}\" } }
",
    );
    sandbox.file("env", "LEVEL=info\n");
    sandbox.file("motd", "hello");
    sandbox.stack("up -d").ok();
    let other = sandbox.ids("other");
    sandbox.file("env", "# a comment\nLEVEL=info\n");
    sandbox.file("motd", "hello");
    assert_eq!(plan(&sandbox), "");
    sandbox.file("env", "LEVEL=debug\n");
    assert_eq!(plan(&sandbox), "~ recreate app-1   environment LEVEL: info → debug\n");
    sandbox.stack("up -d").ok();
    sandbox.file("motd", "bye");
    assert_eq!(plan(&sandbox), "~ recreate app-1   content of config motd changed\n");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("app", "cat /motd; echo \" $LEVEL\""), "bye debug");
    let plan = sandbox.stack_env(&[("WORD", "two")], "plan").ok().out;
    assert!(plan.starts_with("~ recreate app-1") && plan.contains("inline"), "{plan}");
    assert_eq!(sandbox.ids("other"), other);
}

#[test]
fn the_order_of_keys_does_not_count() {
    let sandbox = with(
        "services: { app: { <<: *idle, environment: { A: \"1\", B: \"2\" }, labels: { x: \"1\", y: \"2\" } }, other: *idle }",
    );
    sandbox.stack("up -d").ok();
    let turned =
        "services: { other: *idle, app: { labels: { y: \"2\", x: \"1\" }, environment: [B=2, A=1], <<: *idle } }";
    sandbox.file("stack.yaml", &format!("{IDLE}{turned}"));
    assert_eq!(plan(&sandbox), "");
}

#[test]
fn a_new_image_under_the_old_name_counts() {
    let sandbox = Sandbox::with("services: { app: { image: tiny, init: true, command: [\"sleep\", \"1000\"] } }");
    sandbox.busybox_tar();
    sandbox.stack("image import busybox.tar tiny").ok();
    sandbox.stack("up -d").ok();
    assert_eq!(plan(&sandbox), "");
    sandbox.file("rootfs/etc/version", "2");
    sandbox.shell(&[], "tar -C rootfs -cf busybox.tar .").ok();
    sandbox.stack("image import busybox.tar tiny").ok();
    let plan = plan(&sandbox);
    assert!(plan.starts_with("~ recreate app-1   image: "), "{plan}");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("app", "cat /etc/version"), "2");
}

const CHAIN: &str = r#"
services:
  app: { <<: *idle, depends_on: [db] }
  follower: { <<: *idle, depends_on: { db: { condition: service_started, restart: true } } }
  db: { <<: *idle, environment: { V: "${V:-1}" }, volumes: ["/anonymous"] }
  inside: { <<: *idle, network_mode: "service:db" }
  borrower: { <<: *idle, volumes_from: [db] }
"#;

#[test]
fn dependents_follow_only_where_they_must() {
    let sandbox = with(CHAIN);
    sandbox.stack("up -d").ok();
    let ids = |name: &str| sandbox.ids(name);
    let before = ["app", "follower", "db", "inside", "borrower"].map(ids);
    let follower = sandbox.pid("follower");
    sandbox.stack_env(&[("V", "2")], "up -d").ok();
    let after = ["app", "follower", "db", "inside", "borrower"].map(ids);
    assert_eq!(before[0], after[0], "app only depends on db");
    assert_ne!(before[2], after[2]);
    assert_ne!(sandbox.pid("follower"), follower, "it asked to be restarted");
    assert_ne!(before[3], after[3], "its network is db's");
    assert_ne!(before[4], after[4], "its volumes are db's");
    assert_eq!(sandbox.stack_env(&[("V", "2")], "plan").ok().out, "");
}

#[test]
fn flags_say_how_far_a_change_goes() {
    let sandbox = with(CHAIN);
    sandbox.stack("up -d").ok();
    let (app, db) = (sandbox.ids("app"), sandbox.ids("db"));
    sandbox.stack_env(&[("V", "2")], "up -d --no-deps app").ok();
    assert_eq!((sandbox.ids("app"), sandbox.ids("db")), (app.clone(), db.clone()));
    sandbox.stack_env(&[("V", "2")], "up -d --no-recreate").ok();
    assert_eq!((sandbox.ids("app"), sandbox.ids("db")), (app.clone(), db.clone()));
    sandbox.stack("up -d --force-recreate app").ok();
    assert_ne!(sandbox.ids("app"), app);
    assert_eq!(sandbox.ids("db"), db, "only what was named");
    let app = sandbox.ids("app");
    sandbox.stack("up -d --always-recreate-deps app").ok();
    assert_ne!(sandbox.ids("db"), db);
    assert_eq!(sandbox.ids("app"), app);
}

#[test]
fn orphans_are_silent_on_request() {
    let sandbox = with("services: { app: *idle, gone: *idle }");
    sandbox.stack("up -d").ok();
    sandbox.file("stack.yaml", &format!("{IDLE}services: {{ app: *idle }}"));
    assert!(sandbox.stack("up -d").ok().err.contains("gone-1"));
    let ran = sandbox.stack_env(&[("COMPOSE_IGNORE_ORPHANS", "true")], "up -d").ok();
    assert!(!ran.err.contains("gone"), "{ran}");
    assert_eq!(sandbox.field("gone", "State"), "running");
}

#[test]
fn containers_of_other_projects_are_left_alone() {
    let sandbox = with("services: { app: { <<: *idle, container_name: shared } }");
    sandbox.stack("up -d").ok();
    let id = sandbox.ids("app");
    let other = format!("{}-other", sandbox.project);
    sandbox.stack(&format!("-p {other} up -d")).fails(&["shared", &sandbox.project]);
    sandbox.stack(&format!("-p {other} down -v --remove-orphans")).ok();
    assert_eq!(sandbox.ids("app"), id);
    assert_eq!(sandbox.field("app", "State"), "running");
}

/// What another version wrote down: another hash of the same definition.
#[test]
fn another_version_of_the_tool_makes_nothing_anew() {
    let sandbox = with("services: { app: { <<: *idle, environment: { A: b } } }");
    sandbox.stack("up -d").ok();
    let id = sandbox.ids("app");
    sandbox.stack("stop").ok();
    let records: Vec<PathBuf> = fs_err::read_dir(sandbox.root().join("lib/containers"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("config.json"))
        .filter(|path| path.exists())
        .collect();
    assert_eq!(records.len(), 1);
    let mut record: Value = serde_json::from_slice(&fs_err::read(&records[0]).unwrap()).unwrap();
    record["config_hash"] = "0".repeat(64).into();
    record["labels"]["com.docker.compose.version"] = "0.0.1".into();
    fs_err::write(&records[0], record.to_string()).unwrap();
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.ids("app"), id);
    assert_eq!(plan(&sandbox), "");
}

#[test]
fn what_vanished_is_planned_and_made_again() {
    let sandbox = with("services: { db: { <<: *idle, volumes: [\"data:/data\"] }, web: *idle }\nvolumes: { data: {} }");
    sandbox.stack("up -d").ok();
    let web = sandbox.ids("web");
    crate::sandbox::kill_hard(sandbox.pid("web"));
    sandbox.until_state("web", "exited");
    assert_eq!(plan(&sandbox), "> start web-1   exited (137)\n");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.ids("web"), web);
    let volume = sandbox.root().join(format!("lib/volumes/{}_data", sandbox.project));
    fs_err::remove_dir_all(volume.join("_data")).unwrap();
    let told = plan(&sandbox);
    assert!(told.contains("+ create volume") && told.contains("~ recreate db-1"), "{told}");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("db", "echo back > /data/file; cat /data/file"), "back");
    assert!(volume.join("_data/file").exists());
    assert_eq!(plan(&sandbox), "");
}

/// Moves a container's processes to the top of every hierarchy and removes its control groups.
fn remove_groups(sandbox: &Sandbox, id: &str) -> usize {
    let mut removed = 0;
    for folder in crate::leaks::cgroups(&sandbox.project) {
        let groups = fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let group = groups.into_iter().find(|group| group.file_name().unwrap().to_string_lossy().starts_with(id));
        let Some(group) = group else { continue };
        let top = folder.ancestors().take_while(|above| above.join("cgroup.procs").exists()).last().unwrap();
        for pid in fs_err::read_to_string(group.join("cgroup.procs")).unwrap().lines() {
            fs_err::write(top.join("cgroup.procs"), pid).unwrap();
        }
        fs_err::remove_dir(&group).unwrap();
        removed += 1;
    }
    removed
}

#[test]
fn what_left_its_control_group_is_restarted() {
    let sandbox = with("services: { app: { <<: *idle, mem_limit: 64m }, web: *idle }");
    sandbox.stack("up -d").ok();
    let (app, web) = (sandbox.pid("app"), sandbox.pid("web"));
    let id = sandbox.ids("app");
    assert_ne!(remove_groups(&sandbox, &id[0]), 0);
    assert_eq!(plan(&sandbox), "~ restart app-1   it is not in its control group any more\n");
    sandbox.stack("up -d").ok();
    assert_eq!(plan(&sandbox), "");
    assert_eq!((sandbox.ids("app"), sandbox.pid("web")), (id.clone(), web));
    assert_ne!(sandbox.pid("app"), app);
    assert_ne!(remove_groups(&sandbox, &id[0]), 0, "and it can be stopped without");
    sandbox.stack("down").ok();
}
