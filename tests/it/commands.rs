//! ps, exec, port, version, help.

use crate::sandbox::Sandbox;

const FILE: &str = r#"
services:
  app: { image: stack/host, init: true, command: ["sleep", "infinity"], environment: { A: set }, user: "1000" }
  done: { image: stack/host, command: ["true"] }
"#;

fn up() -> Sandbox {
    let sandbox = Sandbox::with(FILE);
    sandbox.stack("up -d").ok();
    sandbox.until_state("done", "exited");
    sandbox
}

#[test]
fn ps_lists_what_runs() {
    let sandbox = up();
    let table = sandbox.stack("ps").ok().out;
    assert!(table.starts_with("NAME") && table.contains("app-1") && !table.contains("done-1"), "{table}");
    let all = sandbox.stack("ps -a").ok().out;
    assert!(all.contains("Exited (0)"), "{all}");
    let id = sandbox.stack("ps -q").ok().out;
    assert_eq!(id.lines().count(), 1);
    assert_eq!(id.trim().len(), 64);
    let row = &sandbox.ps()[0];
    for field in ["ID", "Name", "Image", "Service", "State", "Status", "Health", "ExitCode", "Publishers", "Labels"] {
        assert!(row.get(field).is_some(), "{field} in {row}");
    }
}

#[test]
fn exec_runs_in_the_container() {
    let sandbox = up();
    let ran = |args: &[&str]| sandbox.stack_args(&[&["exec", "-T"], args].concat());
    assert_eq!(ran(&["app", "sh", "-c", "echo $A; id -u"]).ok().out, "set\n1000\n");
    assert_eq!(ran(&["-u", "0", "app", "id", "-u"]).ok().out, "0\n");
    assert_eq!(ran(&["-e", "B=more", "-w", "/usr", "app", "sh", "-c", "echo $B $PWD"]).ok().out, "more /usr\n");
    ran(&["app", "sh", "-c", "exit 5"]).code(5);
    ran(&["app", "/no/such/program"]).code(127);
    ran(&["done", "true"]).fails(&["done"]);
    assert_eq!(sandbox.stack_input("through\n", "exec -T app cat").ok().out, "through\n");
}

#[test]
fn help_and_version_speak_for_themselves() {
    let sandbox = Sandbox::new();
    let help = sandbox.stack("--help").ok().out;
    for verb in
        ["up", "down", "ps", "logs", "exec", "stop", "start", "restart", "kill", "build", "config", "port", "version"]
    {
        assert!(help.lines().any(|line| line.trim_start().starts_with(verb)), "{verb} in {help}");
    }
    assert!(sandbox.stack("version --short").ok().out.trim().starts_with(env!("CARGO_PKG_VERSION")));
}

#[test]
fn variables_of_files_reach_a_one_off() {
    let sandbox = Sandbox::with("services: { app: { image: stack/host, environment: { A: file, B: file } } }");
    sandbox.file("one.env", "A=one\nC='quoted # text'\n");
    sandbox.file("two.env", "A=two\nD=${C}!\n");
    let flags = "--env-from-file one.env --env-from-file two.env -e B=flag";
    let ran = sandbox.stack(&format!("run --rm -T {flags} app sh -c env")).ok();
    for line in ["A=two", "B=flag", "C=quoted # text", "D=quoted # text!"] {
        assert!(ran.out.lines().any(|seen| seen == line), "{line}: {ran}");
    }
    sandbox.file("bad.env", "A=1\nB C=2\n");
    sandbox.stack("run --rm -T --env-from-file bad.env app true").fails(&["bad.env: line 2"]);
    sandbox.stack("down").ok();
}

#[test]
fn the_tiny_init_tells_nothing_of_the_host() {
    let sandbox = up();
    let read = |file: &str| sandbox.stack_args(&["exec", "-T", "-u", "0", "app", "cat", file]);
    assert_eq!(read("/proc/1/cmdline").ok().out.trim_end_matches('\0'), "init");
    let environment = read("/proc/1/environ");
    assert_eq!((environment.code, environment.out.as_str()), (1, ""), "{environment}");
    let top = sandbox.stack("top app").ok().out;
    assert!(top.contains(" init\n") && !top.contains("__shim"), "{top}");
}

#[test]
fn stats_count_what_the_container_does_alone() {
    let sandbox = up();
    let stats = sandbox.stack("stats --no-stream --format json app").ok().out;
    let row: serde_json::Value = serde_json::from_str(stats.trim()).unwrap();
    assert_eq!(row["BlockIO"].as_str().and_then(|both| both.split(" / ").nth(1)), Some("0B"), "{row}");
    assert_eq!(row["PIDs"], "2", "{row}");
}

/// `--compatibility`, or its variable in the environment or `.env`.
#[test]
fn names_can_be_joined_as_compose_1_did() {
    let sandbox = Sandbox::with(
        "services:
  web: { image: stack/host, init: true, command: [sh, -c, 'echo hello; exec sleep infinity'] }
  app: { profiles: [built], build: { context: ., dockerfile_inline: FROM scratch } }
",
    );
    let names = || sandbox.ps().iter().map(|row| row["Name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let project = &sandbox.project;
    let first = sandbox.stack("--compatibility up -d").ok();
    assert!(first.err.contains(&format!("Container {project}_web_1  Started")), "{first}");
    assert!(!first.err.contains("warning"), "{first}");
    sandbox.until_logged("web", "hello");
    assert_eq!(sandbox.stack("--compatibility logs").ok().out, "web_1  | hello\n");
    // Names are given when containers are made: the other separator is no reason to make one anew.
    let (ids, before) = (sandbox.ids("web"), names());
    sandbox.stack("up -d").ok();
    assert_eq!((sandbox.ids("web"), names()), (ids, before));
    sandbox.stack_env(&[("COMPOSE_COMPATIBILITY", "true")], "up -d --scale web=2").ok();
    assert_eq!(names(), [format!("{project}_web_1"), format!("{project}_web_2")]);
    sandbox.stack("--compatibility run -d web sleep 60").ok();
    assert!(names().iter().any(|name| name.starts_with(&format!("{project}_web_run_"))), "{:?}", names());
    sandbox.stack("up -d --force-recreate --scale web=1 -t 0").ok();
    assert!(names().contains(&format!("{project}-web-1")), "{:?}", names());

    sandbox.file(".env", "COMPOSE_COMPATIBILITY=1\n");
    let images = sandbox.stack("--profile built config --images").ok().out;
    assert_eq!(images, format!("{project}_app\nstack/host\n"));
    assert!(!sandbox.stack("config --format json").ok().out.contains("underscores"));
    sandbox.stack("build app").ok();
    let listed = sandbox.stack("image ls").ok().out;
    assert!(listed.contains(&format!("{project}_app")), "{listed}");
    sandbox.stack("--profile built down -t 0 --rmi local").ok();
    assert!(!sandbox.stack("image ls").ok().out.contains("_app"));
}
