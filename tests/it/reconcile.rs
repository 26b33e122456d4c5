//! `up` again: what changed is made anew, the rest isn't touched.

use crate::sandbox::Sandbox;

const FILE: &str = r#"
services:
  web: { image: stack/host, init: true, command: ["sleep", "infinity"], environment: { V: "${V:-1}" } }
  db: { image: stack/host, init: true, command: ["sleep", "infinity"], volumes: ["/anonymous"] }
"#;

#[test]
fn nothing_changes_when_nothing_changed() {
    let sandbox = Sandbox::with(FILE);
    sandbox.stack("up -d").ok();
    let (web, db) = (sandbox.pid("web"), sandbox.pid("db"));
    sandbox.stack("up -d").ok();
    assert_eq!((sandbox.pid("web"), sandbox.pid("db")), (web, db));
}

#[test]
fn only_a_changed_service_is_made_anew() {
    let sandbox = Sandbox::with(FILE);
    sandbox.stack("up -d").ok();
    let (web, db) = (sandbox.ids("web"), sandbox.ids("db"));
    sandbox.stack_env(&[("V", "2")], "up -d").ok();
    assert_ne!(sandbox.ids("web"), web);
    assert_eq!(sandbox.ids("db"), db);
    assert_eq!(sandbox.inside("web", "echo $V"), "2");
    let web = sandbox.ids("web");
    sandbox.stack("up -d --no-recreate").ok();
    assert_eq!(sandbox.ids("web"), web);
    sandbox.stack("up -d --force-recreate --no-recreate").fails(&["recreate"]);
}

#[test]
fn anonymous_volumes_survive_unless_renewed() {
    let sandbox = Sandbox::with(FILE);
    sandbox.stack("up -d").ok();
    sandbox.inside("db", "echo kept > /anonymous/file");
    sandbox.stack("up -d --force-recreate db").ok();
    assert_eq!(sandbox.inside("db", "cat /anonymous/file"), "kept");
    sandbox.stack("up -d --force-recreate -V db").ok();
    assert_eq!(sandbox.inside("db", "ls /anonymous"), "");
}

#[test]
fn the_content_of_a_secret_is_part_of_a_service() {
    let sandbox = Sandbox::with(
        r#"
services: { app: { image: stack/host, init: true, command: ["sleep", "infinity"], secrets: [token] } }
secrets: { token: { file: ./token } }
"#,
    );
    sandbox.file("token", "first");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("app", "cat /run/secrets/token"), "first");
    sandbox.file("token", "second");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("app", "cat /run/secrets/token"), "second");
}

#[test]
fn what_ended_is_started_again() {
    let sandbox = Sandbox::with(FILE);
    sandbox.stack("up -d").ok();
    let id = sandbox.ids("web");
    sandbox.stack("kill web").ok();
    sandbox.until_state("web", "exited");
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.ids("web"), id);
}

#[test]
fn a_changed_network_is_made_anew() {
    let file = |subnet: &str| {
        format!(
            r#"
services: {{ web: {{ image: stack/host, init: true, command: ["sleep", "infinity"] }} }}
networks: {{ default: {{ ipam: {{ config: [{{ subnet: {subnet} }}] }} }} }}
"#
        )
    };
    let sandbox = Sandbox::with(&file("10.77.6.0/24"));
    sandbox.stack("up -d").ok();
    assert!(sandbox.inside("web", "hostname -i").starts_with("10.77.6."));
    sandbox.file("stack.yaml", &file("10.77.7.0/24"));
    sandbox.stack("up -d").ok();
    assert!(sandbox.inside("web", "hostname -i").starts_with("10.77.7."));
}

#[test]
fn named_services_come_with_what_they_need() {
    let sandbox = Sandbox::with(
        r#"
x-idle: &idle { image: stack/host, init: true, command: ["sleep", "infinity"] }
services:
  app: { <<: *idle, depends_on: [db] }
  db: *idle
  other: *idle
"#,
    );
    sandbox.stack("up -d --no-deps app").ok();
    assert_eq!(sandbox.field("db", "State"), "");
    sandbox.stack("up -d app").ok();
    assert_eq!(sandbox.field("db", "State"), "running");
    assert_eq!(sandbox.field("other", "State"), "");
}
