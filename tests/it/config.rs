//! Files: which are found, how they are put together, what `config` prints.

use serde_json::Value;

use crate::sandbox::Sandbox;

const FILE: &str = "services: { app: { image: \"${IMAGE:-stack/host}\" } }\n";

fn config(sandbox: &Sandbox, words: &str) -> Value {
    serde_json::from_str(&sandbox.stack(&format!("{words} config --format json")).ok().out).unwrap()
}

#[test]
fn the_file_is_looked_for_upwards() {
    let sandbox = Sandbox::new();
    sandbox.file("compose.yaml", FILE);
    sandbox.file("compose.override.yaml", "services: { app: { hostname: over } }");
    let mut command = sandbox.command(crate::sandbox::STACK, &["config", "--format", "json"]);
    fs_err::create_dir_all(sandbox.path("a/b")).unwrap();
    let output = command.current_dir(sandbox.path("a/b")).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["services"]["app"]["hostname"], "over");
    assert_eq!(found["name"], sandbox.project.as_str());
    sandbox.file("stack.yaml", "services: { mine: { image: stack/host } }");
    assert!(config(&sandbox, "")["services"]["mine"].is_object(), "stack.yaml comes first");
}

#[test]
fn files_are_merged_and_standard_input_is_one() {
    let sandbox = Sandbox::with(FILE);
    let more = "services: { app: { environment: { A: b } } }";
    let ran = sandbox.stack_input(more, "-f stack.yaml -f - config --format json").ok();
    let merged: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(merged["services"]["app"]["environment"]["A"], "b");
    assert_eq!(merged["services"]["app"]["image"], "stack/host");
}

#[test]
fn variables_come_from_the_environment_and_from_files() {
    let sandbox = Sandbox::with(FILE);
    sandbox.file(".env", "IMAGE=from-dot-env\n");
    assert_eq!(config(&sandbox, "")["services"]["app"]["image"], "from-dot-env");
    sandbox.file("other.env", "IMAGE=from-other\n");
    assert_eq!(config(&sandbox, "--env-file other.env")["services"]["app"]["image"], "from-other");
    let ran = sandbox.stack_env(&[("IMAGE", "from-outside")], "config --format json").ok();
    assert!(ran.out.contains("from-outside"), "{ran}");
}

#[test]
fn config_prints_services_and_stays_quiet_when_asked() {
    let sandbox = Sandbox::with("services: { b: { image: i }, a: { image: i }, c: { image: i, profiles: [p] } }");
    assert_eq!(sandbox.stack("config --services").ok().out, "a\nb\n");
    assert_eq!(sandbox.stack("--profile p config --services").ok().out, "a\nb\nc\n");
    assert_eq!(sandbox.stack("config -q").ok().out, "");
    assert!(sandbox.stack("config").ok().out.contains("services:\n  a:\n"));
}

#[test]
fn the_built_in_image_is_said_not_to_be_portable() {
    let sandbox = Sandbox::with(FILE);
    assert!(sandbox.stack("config").ok().err.contains("portable"));
}

#[test]
fn what_is_not_done_yet_is_named() {
    let sandbox = Sandbox::with(
        "services: { app: { image: stack/host, deploy: { placement: { constraints: [\"node.role == manager\"] } } } }",
    );
    let ran = sandbox.stack("config");
    assert!(ran.err.contains("placement"), "{ran}");
}

#[test]
fn the_schema_needs_no_file_and_models_are_listed() {
    let sandbox = Sandbox::new();
    let schema: Value = serde_json::from_str(&sandbox.stack("config --schema").ok().out).unwrap();
    assert_eq!(schema["properties"]["services"]["type"], "object");
    sandbox.file("stack.yaml", "services: { app: { image: i, models: [m] } }\nmodels: { m: { model: ai/small } }\n");
    assert_eq!(sandbox.stack("config --models").ok().out, "ai/small\n");
}

#[test]
fn variables_are_listed_whether_they_are_set_or_not() {
    let sandbox =
        Sandbox::with("services: { app: { image: \"i:${TAG:?say which}\", user: \"$USER_ID\", depends_on: [db] } }\n");
    assert!(sandbox.stack("config").code != 0);
    for words in ["config --variables", "config --variables app"] {
        let listed = sandbox.stack(words).ok().out;
        assert!(listed.contains("TAG") && listed.contains("USER_ID"), "{listed}");
    }
    let raw = sandbox.stack("config --no-interpolate app").ok().out;
    assert!(raw.contains("i:${TAG:?say which}"), "{raw}");
    let ran = sandbox.stack("config --no-interpolate ap");
    assert!(ran.code != 0 && ran.err.contains("did you mean `app`?"), "{ran}");
}

#[test]
fn a_value_that_no_container_can_have_is_printed_with_a_warning() {
    let sandbox = Sandbox::with("services: { app: { image: stack/host, stop_signal: SIGFOO } }");
    let ran = sandbox.stack("config").ok();
    assert!(ran.out.contains("SIGFOO") && ran.err.contains("is no signal"), "{ran}");
    let ran = sandbox.stack("up -d");
    assert!(ran.code != 0 && ran.err.contains("is no signal"), "{ran}");
}

#[test]
fn a_value_is_traced_to_its_sources() {
    let sandbox = Sandbox::with("services: { app: { image: i, environment: { LEVEL: warn } } }\n");
    sandbox.file("stack.override.yaml", "services:\n  app:\n    environment:\n      LEVEL: ${L:-info}\n");
    sandbox.file(".env", "L=debug\n");
    let path = "services.app.environment.LEVEL";
    let text = sandbox.stack(&format!("config --explain {path}")).ok().out;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "services.app.environment.LEVEL = debug");
    assert_eq!(lines[1], "  from stack.override.yaml:4:14  LEVEL: ${L:-info}");
    assert_eq!(lines[2], "    L is \"debug\" in .env:1");
    assert!(lines[3].starts_with("  over stack.yaml:1:"), "{text}");
    let ran = sandbox.stack_env(&[("L", "shell")], &format!("config --format json --explain {path}")).ok();
    let all: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&all[0]["value"], &all[0]["variables"][0]["from"]), (&"shell".into(), &"shell".into()));
    let ran = sandbox.stack("config --explain services.app.enviroment");
    assert!(ran.code == 1 && ran.err.contains("did you mean `environment`?"), "{ran}");
}

#[test]
fn an_unset_variable_says_which_files_were_read() {
    let sandbox = Sandbox::with("services: { app: { image: x, user: $NOBODY } }\n");
    assert!(sandbox.stack("config -q").err.contains("no .env file was found"));
    sandbox.file(".env", "OTHER=1\n");
    let ran = sandbox.stack_env(&[("SUDO_UID", "1000")], "config -q");
    assert!(ran.err.contains("NOBODY is not set") && ran.err.contains("/.env") && ran.err.contains("sudo -E"), "{ran}");
}
