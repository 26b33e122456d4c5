//! `up` again: what changed is made anew, the rest isn't touched.

use crate::pty::Terminal;
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
fn anonymous_volumes_go_with_containers_that_nothing_takes_the_place_of() {
    let sandbox = Sandbox::with(FILE);
    let volumes = || {
        fs_err::read_dir(sandbox.root().join("lib/volumes")).unwrap().flatten().filter(|e| e.path().is_dir()).count()
    };
    sandbox.stack("up -d --scale db=3").ok();
    assert_eq!(volumes(), 3);
    sandbox.stack("up -d --scale db=1").ok();
    assert_eq!(volumes(), 1);
    sandbox.file("stack.yaml", "services: { web: { image: stack/host, init: true, command: [sleep, infinity] } }");
    sandbox.stack("up -d --remove-orphans").ok();
    assert_eq!(volumes(), 0);
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

#[test]
fn a_plan_says_what_up_would_do_and_why() {
    let sandbox = Sandbox::with(FILE);
    let plan = sandbox.stack("plan --detailed-exitcode").code(2);
    assert!(plan.out.contains("+ create web-1"), "{plan}");
    assert_eq!(sandbox.ps().len(), 0);
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.stack("plan --detailed-exitcode").ok().out, "");
    let web = sandbox.ids("web");
    let plan = sandbox.stack_env(&[("V", "2")], "plan --detailed-exitcode").code(2);
    assert_eq!(plan.out, "~ recreate web-1   environment V: 1 → 2\n");
    let dry = sandbox.stack_env(&[("V", "2")], "up --dry-run").ok();
    assert_eq!(dry.out, plan.out);
    let json = sandbox.stack_env(&[("V", "2")], "plan --format json").ok().out;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["steps"][0]["cause"]["changes"][0]["path"], "environment V");
    let down = sandbox.stack("down --dry-run").ok().out;
    assert!(down.contains("- remove web-1") && down.contains("- remove network"), "{down}");
    assert_eq!(sandbox.ids("web"), web);
    sandbox.stack("logs --dry-run").fails(&["--dry-run"]);
}

#[test]
fn data_is_lost_only_with_consent() {
    let sandbox = Sandbox::with(
        r#"
services: { db: { image: stack/host, init: true, command: ["sleep", "infinity"], volumes: ["data:/data"] } }
volumes: { data: { driver_opts: { x: "${X:-1}" } } }
"#,
    );
    sandbox.stack("up -d").ok();
    sandbox.inside("db", "echo kept > /data/file");
    let id = sandbox.ids("db");
    let plan = sandbox.stack_env(&[("X", "2")], "plan").ok().out;
    assert!(plan.contains("_data and its data   driver_opts x: 1 → 2"), "{plan}");
    sandbox.stack_env(&[("X", "2")], "up -d").fails(&["would lose data", "_data", "-y"]);
    assert_eq!(sandbox.ids("db"), id);
    assert_eq!(sandbox.inside("db", "cat /data/file"), "kept");
    sandbox.stack_env(&[("X", "2")], "up -d -y").ok();
    assert_eq!(sandbox.inside("db", "ls /data"), "");
}

#[test]
fn at_a_terminal_the_loss_of_data_is_a_question() {
    let file = |label: u32| {
        format!(
            "services: {{ db: {{ image: stack/host, init: true, command: [sleep, infinity], volumes: [\"data:/data\"] }} }}\n\
             volumes: {{ data: {{ driver_opts: {{ x: \"{label}\" }} }} }}\n"
        )
    };
    let sandbox = Sandbox::with(&file(1));
    sandbox.stack("up -d").ok();
    sandbox.inside("db", "echo kept > /data/file");
    sandbox.file("stack.yaml", &file(2));
    for (answer, exists) in [("n", true), ("", true), ("y", false)] {
        let mut terminal = Terminal::start(&sandbox, &["up", "-d"]);
        terminal.until_shown("_data and its data: driver_opts x: 1 → 2");
        terminal.until_shown("Go on? [yN]");
        terminal.key(&format!("{answer}\n"));
        assert_eq!(terminal.finish() == 0, !exists, "{answer:?}");
        assert_eq!(sandbox.inside("db", "ls /data") == "file", exists, "{answer:?}");
    }
    // `down -v` says what it is.
    let terminal = Terminal::start(&sandbox, &["down", "-v"]);
    assert_eq!(terminal.finish(), 0);
}
