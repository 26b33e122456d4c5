//! What hurts people who run Compose files with other tools, seen gone here. The numbers are those of the list in the
//! project's survey of compose tools; each name says what the pain is there.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::poll::{until, until_true};
use crate::sandbox::{Sandbox, alive, kill_hard};

const IDLE: &str = "x-idle: &idle { image: stack/host, init: true, command: [\"sleep\", \"infinity\"] }\n";

fn with(text: &str) -> Sandbox {
    Sandbox::with(&format!("{IDLE}{text}"))
}

/// docker/compose #9273, #10596, #10200.
#[test]
fn pain_1_wait_fails_for_services_that_are_meant_to_end() {
    let sandbox = with(
        r#"
services:
  migrate: { image: stack/host, command: ["true"] }
  seed: { image: stack/host, command: ["sleep", "0.3"] }
  app: *idle
  broken: { image: stack/host, profiles: [broken], command: ["sh", "-c", "exit 3"] }
"#,
    );
    for _ in 0..2 {
        sandbox.stack("up --wait --wait-timeout 20").ok();
        assert_eq!(sandbox.field("seed", "ExitCode"), "0");
    }
    sandbox.stack("up --wait broken").code(1).fails(&["broken-1", "3"]);
}

/// podman-compose #866, #1119, #1129, #1183; docker/compose #9273.
#[test]
fn pain_2_and_3_health_conditions_hang_or_wait_for_their_interval() {
    let mut text = String::from("services:\n");
    for number in 0..10 {
        let needs = match number {
            0 => String::new(),
            _ => format!(", depends_on: {{ s{}: {{ condition: service_healthy }} }}", number - 1),
        };
        let _ = writeln!(text, "  s{number}: {{ <<: *idle, healthcheck: {{ test: [CMD, \"true\"] }}{needs} }}");
    }
    text += "  never: { <<: *idle, profiles: [x], healthcheck: { test: \"echo no route; exit 1\" } }\n";
    text += "  waits: { <<: *idle, profiles: [x], depends_on: { never: { condition: service_healthy } } }\n";
    let sandbox = with(&text);
    let begin = Instant::now();
    sandbox.stack("up -d").ok();
    assert!(begin.elapsed() < Duration::from_secs(20), "ten intervals are 300 s: {:?}", begin.elapsed());
    until_true("the last one is healthy, too", || {
        sandbox.ps().iter().filter(|row| row["Health"] == "healthy").count() == 10
    });
    let up = sandbox.start("up -d waits");
    sandbox.until_state("never", "running");
    let why = until("it says for what it waits", || {
        Some(sandbox.stack("why waits").ok().out).filter(|why| why.contains("no route"))
    });
    assert!(
        why.contains("waits-1   is waiting for never (starting: its last health check ended with exit code 1"),
        "{why}"
    );
    up.signal(nix::sys::signal::Signal::SIGINT);
    up.finish();
    sandbox.stack("up -d --wait --wait-timeout 1 waits").code(1).fails(&["not ready after 1 s", "never-1 is running"]);
}

/// docker/compose #9600, #9897, #10068, #10307, #11335, #11808.
#[test]
fn pain_4_containers_are_made_anew_for_nothing() {
    let file = |more: &str| {
        format!(
            "services:\n  app: {{ <<: *idle, environment: {{ A: \"1\", B: \"2\" }}, env_file: ./env, networks: [one, two] }}\n  \
             once: {{ image: stack/host, command: [\"true\"] }}\nnetworks: {{ one: {{}}, two: {{}} }}\n{more}"
        )
    };
    let sandbox = with(&file(""));
    sandbox.file("env", "C=3\n");
    sandbox.stack("up -d").ok();
    let (app, once) = (sandbox.pid("app"), sandbox.field("once", "ID"));
    sandbox.file("env", "# the same\nC='3'\n");
    sandbox.file("stack.yaml", &format!("{IDLE}{}", file("x-note: unused\n").replace("[one, two]", "[two, one]")));
    sandbox.stack("up -d").ok();
    sandbox.stack("up -d --build --pull missing --quiet-pull -t 3").ok();
    assert_eq!((sandbox.pid("app"), sandbox.field("once", "ID")), (app, once));
}

/// docker/compose #11900, #13045, #4140, #1345; podman-compose #409, #466, #1453.
#[test]
fn pain_5_changed_files_go_unnoticed() {
    let sandbox = with(
        "
services:
  app: { <<: *idle, env_file: ./env, configs: [file, inline], secrets: [file, variable] }
configs: { file: { file: ./config }, inline: { content: \"${INLINE:-1}\" } }
secrets: { file: { file: ./secret }, variable: { environment: TOKEN } }
",
    );
    for name in ["env", "config", "secret"] {
        sandbox.file(name, "A=1\n");
    }
    let plan = |variables: &[(&str, &str)]| {
        let variables = [&[("TOKEN", "a")], variables].concat();
        sandbox.stack_env(&variables, "plan").ok().out
    };
    sandbox.stack_env(&[("TOKEN", "a")], "up -d").ok();
    assert_eq!(plan(&[]), "");
    for (name, cause) in [("env", "environment A: 1 → 2"), ("config", "config file"), ("secret", "secret file")] {
        sandbox.file(name, "A=2\n");
        let told = plan(&[]);
        assert!(told.starts_with("~ recreate app-1") && told.contains(cause), "{name}: {told}");
        sandbox.file(name, "A=1\n");
        assert_eq!(plan(&[]), "", "{name}");
    }
    assert!(plan(&[("INLINE", "2")]).contains("inline"));
    assert!(plan(&[("TOKEN", "b")]).contains("secret variable"));
}

/// docker/compose #6443, #12988, #3100, #5083.
#[test]
fn pain_6_fixed_ports_and_names_keep_copies_of_a_stack_apart() {
    let sandbox = with("services: { web: { <<: *idle, ports: [\"127.0.0.1:18080:80\"] } }");
    sandbox.stack("up -d").ok();
    let copy = |name: &str, words: &str| sandbox.stack(&format!("-p {}{name} {words}", sandbox.project));
    copy("a", "up -d").fails(&["18080", &sandbox.project]);
    copy("a", "up -d --ports auto").ok();
    copy("b", "up -d --ports none").ok();
    let port = copy("a", "port web 80").ok().out;
    assert!(port.starts_with("127.0.0.1:") && !port.contains("18080"), "{port}");
    copy("b", "port web 80").code(1);
    copy("a", "down").ok();
    copy("b", "down").ok();
}

/// docker/compose #8884, #12821, #5451, #6060, #12111, #11722.
#[test]
fn pain_12_first_and_last_lines_are_lost() {
    let sandbox = with(
        r#"
services:
  quick: { image: stack/host, command: ["sh", "-c", "echo first; echo last"] }
  again: { image: stack/host, restart: "on-failure:3", command: ["sh", "-c", "echo run; exit 1"] }
"#,
    );
    let words = |out: &str, word: &str| out.lines().filter(|line| line.ends_with(word)).count();
    for round in 0..5 {
        let ran = sandbox.stack("up --no-color --force-recreate").ok();
        let seen = ["| first", "| last", "| run"].map(|word| words(&ran.out, word));
        assert_eq!(seen, [1, 1, 4], "round {round}: {ran}");
    }
    let kept = sandbox.stack("logs --no-color").ok().out;
    assert_eq!([words(&kept, "| first"), words(&kept, "| run")], [1, 4], "{kept}");
}

/// docker/compose #5966, #9778, #9594, #10225, #7230, #3725; podman-compose #1164.
#[test]
fn pain_13_the_exit_code_of_up_is_somebody_elses() {
    let sandbox = with(
        r#"
services:
  tests: { image: stack/host, command: ["sh", "-c", "exit ${CODE:-0}"], depends_on: [db] }
  db: { image: stack/host, command: ["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done"] }
"#,
    );
    for code in [0, 5] {
        let variables = [("CODE", &*code.to_string())];
        for flag in ["--abort-on-container-exit", "--exit-code-from tests"] {
            let ran = sandbox.stack_env(&variables, &format!("up {flag}"));
            assert_eq!(ran.code, code, "{flag}: {ran}");
            assert_eq!(sandbox.field("db", "State"), "exited");
        }
    }
    let ran = sandbox.stack_env(&[("CODE", "5")], "up --exit-code-from db");
    assert_eq!(ran.code, 9, "{ran}");
}

/// docker/compose #3490, #3573, #9742, #11486, #12314.
#[test]
fn pain_14_containers_of_sibling_files_are_taken_for_orphans() {
    let sandbox = with("services: { app: *idle }");
    sandbox.file("tools.yaml", &format!("{IDLE}services: {{ tool: *idle }}"));
    sandbox.stack("up -d").ok();
    let app = sandbox.pid("app");
    let ran = sandbox.stack("-f tools.yaml up -d").ok();
    assert!(ran.err.contains("app-1"), "it is told, {ran}");
    for words in ["-f tools.yaml kill", "-f tools.yaml down", "-f tools.yaml up -d --force-recreate"] {
        sandbox.stack(words).ok();
        assert_eq!(sandbox.pid("app"), app, "after {words}");
    }
    let quiet = sandbox.stack_env(&[("COMPOSE_IGNORE_ORPHANS", "1")], "-f tools.yaml up -d").ok();
    assert!(!quiet.err.contains("app-1"), "{quiet}");
    // A one-off container that has ended is no trouble for later commands.
    sandbox.stack("run app true").ok();
    sandbox.stack("up -d --remove-orphans").ok();
    assert_eq!((sandbox.ps().len(), sandbox.pid("app")), (1, app));
}

/// docker/compose #3225, #1573, moby #17729.
#[test]
fn pain_15_half_of_a_stack_stays_broken_after_a_failure() {
    let sandbox = with(
        "services: { web: { <<: *idle, depends_on: [db], ports: [\"127.0.0.1:18080:80\"] }, db: *idle, none: { <<: *idle, profiles: [x], image: stack/none } }",
    );
    sandbox.stack("up -d").ok();
    let listener = || std::net::TcpListener::bind("127.0.0.1:18080");
    sandbox.stack("stop web").ok();
    let taken = listener().unwrap();
    sandbox.stack("up -d").code(1).fails(&["18080"]);
    drop(taken);
    sandbox.stack("up -d").ok();
    assert_eq!(sandbox.inside("web", "getent hosts db | wc -l"), "1", "with its network");
    assert!(listener().is_err(), "and its port");
    sandbox.stack("--profile x up -d").code(1).fails(&["stack/none"]);
    sandbox.stack("up -d --force-recreate").ok();
    assert_eq!(sandbox.stack("plan --detailed-exitcode").code, 0);
}

/// docker/compose #4337, #9450, #10774, #2127.
#[test]
fn pain_16_an_anonymous_volume_hides_what_a_new_image_has() {
    let sandbox = Sandbox::with(
        "services: { app: { image: tiny, init: true, command: [\"sleep\", \"1000\"], volumes: [/modules, /empty] } }",
    );
    sandbox.busybox_tar();
    let version = |number: u32| {
        sandbox.file("rootfs/modules/version", &number.to_string());
        fs_err::create_dir_all(sandbox.path("rootfs/empty")).unwrap();
        if number > 1 {
            let _ = fs_err::remove_file(sandbox.path("rootfs/modules/gone"));
        } else {
            sandbox.file("rootfs/modules/gone", "");
        }
        sandbox.shell(&[], "tar -C rootfs -cf busybox.tar .").ok();
        sandbox.stack("image import busybox.tar tiny").ok();
        sandbox.stack("up -d").ok()
    };
    version(1);
    sandbox.inside("app", "echo data > /empty/file");
    assert_eq!(sandbox.inside("app", "ls /modules"), "gone\nversion");
    let up = version(2);
    assert!(!up.err.contains("anonymous"), "{up}");
    assert_eq!(
        sandbox.inside("app", "cat /modules/version; ls /modules /empty"),
        "2/empty:\nfile\n\n/modules:\nversion"
    );
    sandbox.inside("app", "echo own > /modules/own");
    let up = version(3);
    assert!(up.err.contains("its anonymous volume at /modules was changed") && up.err.contains("-V"), "{up}");
    assert_eq!(sandbox.inside("app", "cat /modules/version /modules/own"), "2own");
    sandbox.stack("up -d -V --force-recreate").ok();
    assert_eq!(sandbox.inside("app", "cat /modules/version; ls /modules"), "3version");
}

/// docker/compose #11881, #12552, #8363, #4201.
#[test]
fn pain_19_commands_are_slow_with_many_services() {
    let services: String = (0..200).fold(String::new(), |text, number| text + &format!("  s{number}: *idle\n"));
    let sandbox = with(&format!("services:\n{services}"));
    sandbox.stack("create").ok();
    for words in ["ps -a", "ps -a --format json", "plan", "ls -a", "config -q", "logs"] {
        let begin = Instant::now();
        sandbox.stack(words).ok();
        assert!(begin.elapsed() < Duration::from_secs(3), "{words} took {:?}", begin.elapsed());
    }
    assert_eq!(sandbox.ps().len(), 200);
}

/// docker/compose #12477, #10284, #12098.
#[test]
fn pain_20_a_restart_knows_nothing_of_dependencies() {
    let sandbox = with(
        r#"
services:
  top: { <<: *idle, depends_on: { app: { condition: service_started, restart: true } } }
  app: { <<: *idle, depends_on: { db: { condition: service_healthy, restart: true } } }
  db: { <<: *idle, restart: always, healthcheck: { test: ["CMD", "true"] } }
  other: { <<: *idle, depends_on: [db] }
"#,
    );
    sandbox.stack("up -d").ok();
    let pids = || ["top", "app", "db", "other"].map(|name| sandbox.pid(name));
    let before = pids();
    sandbox.stack("restart db").ok();
    let after = pids();
    assert!((0..3).all(|at| before[at] != after[at]), "{before:?} {after:?}");
    assert_eq!(before[3], after[3]);
    let events = sandbox.stack("events --since 1m --until 0s").ok().out;
    let order: Vec<&str> = events.lines().rev().filter(|line| line.contains(" start ")).take(3).collect();
    for (line, name) in order.iter().zip(["top-1", "app-1", "db-1"]) {
        assert!(line.contains(name), "{name} in its turn: {order:?}");
    }
    sandbox.stack("restart --no-deps db").ok();
    assert_eq!(pids()[..2], after[..2]);
    kill_hard(pids()[2]);
    until_true("its policy brings it back", || sandbox.field("db", "Health") == "healthy");
    assert_eq!(pids()[..2], after[..2], "the specification leaves out what a policy starts");
}

/// podman-compose #677, #842, #1177, #384, #479; docker-archive/compose-cli #1685.
#[test]
fn pain_22_and_23_a_change_of_one_service_drags_or_blocks_others() {
    let sandbox = with(
        r#"
services:
  web: { <<: *idle, depends_on: [api] }
  api: { <<: *idle, environment: { V: "${V:-1}" }, depends_on: { db: { condition: service_healthy } } }
  db: { <<: *idle, environment: { V: "${W:-1}" }, healthcheck: { test: ["CMD", "true"] } }
"#,
    );
    sandbox.stack("up -d").ok();
    let pids = || ["web", "api", "db"].map(|name| sandbox.pid(name));
    let before = pids();
    sandbox.stack_env(&[("V", "2")], "up -d").ok();
    let after = pids();
    assert_eq!([before[0] == after[0], before[1] == after[1], before[2] == after[2]], [true, false, true]);
    let told = sandbox.stack_env(&[("V", "3"), ("W", "3")], "plan --no-deps api").ok().out;
    assert_eq!(told, "~ recreate api-1   environment V: 2 → 3\n");
    sandbox.stack("stop db").ok();
    sandbox.stack_env(&[("V", "3"), ("W", "3")], "up -d --no-deps api").ok();
    assert_eq!(sandbox.field("db", "State"), "exited");
    assert!(alive(after[0]) && !alive(after[1]));
}
