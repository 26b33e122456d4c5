//! Hostile stack files: each answered within a second of processor time and 256 MiB, with one clear message.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::sandbox::{STACK, Sandbox};

/// What docker compose means something harmless by, and so do we: names are brought into form, a range of published
/// ports for one port of the container means any of them, a merge of the same twice is one, durations add up.
const HARMLESS: [&str; 12] = [
    "merge-exponential",
    "port-04",
    "duration-03",
    "name-00",
    "name-01",
    "name-02",
    "name-03",
    "name-05",
    "name-06",
    "name-07",
    "name-08",
    // The profile is looked for when the container starts.
    "field-10-security_opt",
];

/// Makes the suite in the sandbox; its cases by name, file and whether they are to be refused. None where there is no suite.
fn suite(sandbox: &Sandbox, kind: &str) -> Vec<(String, PathBuf, bool)> {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/attacks/gen_yaml.py");
    if !suite.exists() {
        return Vec::new();
    }
    let folder = sandbox.path("attacks");
    let made = Command::new("python3").arg(&suite).arg(&folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let cases: Vec<Value> = serde_json::from_slice(&fs_err::read(folder.join("cases.json")).unwrap()).unwrap();
    let cases = cases.iter().map(|case| {
        let (name, file) = (case["name"].as_str().unwrap(), case["file"].as_str().unwrap());
        (name.to_owned(), folder.join(file), case["expect"] == "reject")
    });
    let cases: Vec<_> = cases.filter(|(_, file, _)| file.ends_with(kind)).collect();
    assert!(cases.len() > 20, "only {} cases of {kind}", cases.len());
    cases
}

#[test]
fn the_suite_of_attacks() {
    let sandbox = Sandbox::new();
    let cases = suite(&sandbox, "stack.yaml");
    if cases.is_empty() {
        eprintln!("skipped: there is no suite of attacks beside the repository");
    }
    let judged = cases.iter().map(|(name, file, hostile)| Some(format!("{name}: {}", judge(name, file, *hostile)?)));
    let wrong: Vec<String> = judged.flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Dockerfiles are built within the same bounds, or refused with one message, and reach nothing outside.
#[test]
fn the_suite_of_dockerfiles() {
    let sandbox = Sandbox::with("services: { base: { build: { context: ., dockerfile: base }, image: busybox } }\n");
    let cases = suite(&sandbox, "Dockerfile");
    if cases.is_empty() {
        eprintln!("skipped: there is no suite of attacks beside the repository");
    }
    sandbox.busybox_tar();
    sandbox.file("base", "FROM scratch\nADD busybox.tar /\n");
    sandbox.stack("build").ok();
    let canary = Path::new("/tmp/attack-canary");
    assert!(!canary.exists(), "{} is in the way", canary.display());
    for (name, file, hostile) in cases {
        let stack = file.with_file_name("stack.yaml");
        fs_err::write(&stack, "services: { app: { build: . } }\n").unwrap();
        let limited = "ulimit -t 1; ulimit -v 262144; exec \"$0\" -f \"$1\" build";
        let output = sandbox.command("sh", &["-c", limited, STACK, stack.to_str().unwrap()]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
        assert!(!said.contains("panicked"), "{name}: {said}");
        match output.status.code() {
            Some(0) => assert!(!hostile, "{name} was built"),
            Some(1) => assert!(errors == 1 && (!hostile || said.contains("Dockerfile:")), "{name}: {said}"),
            _ => panic!("{name}: {}: {said}", output.status),
        }
        assert!(!said.contains("root:"), "{name} reads what is outside: {said}");
    }
    assert!(!canary.exists(), "something was made outside");
}

/// What is wrong with how `stack config` takes a file.
fn judge(name: &str, file: &Path, hostile: bool) -> Option<String> {
    let limited = "ulimit -t 1; ulimit -v 262144; exec \"$0\" -f \"$1\" config --format json";
    let mut command = Command::new("sh");
    command.args(["-c", limited, STACK]).arg(file).current_dir(file.parent().unwrap());
    let output = command.env("NO_COLOR", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let Some(code) = output.status.code() else { return Some(format!("ended by {}: {said:.300}", output.status)) };
    if code == 101 || said.contains("panicked") {
        return Some(format!("panicked: {said:.300}"));
    }
    if said.contains('\u{1b}') || said.contains('\u{202e}') {
        return Some("the message paints the terminal".into());
    }
    let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
    match (hostile, code) {
        (false, 0) => None,
        (false, _) => Some(format!("refused: {said:.300}")),
        // The two remote files of one list are two errors.
        (true, 1) if errors == 1 || name == "include-remote" => None,
        (true, 1) => Some(format!("{errors} messages: {said:.300}")),
        // Printed, because docker compose prints it, but said to be impossible to start.
        (true, 0) if said.contains("warning: ") || HARMLESS.contains(&name) => None,
        (true, _) => Some(format!("code {code}, not a word")),
    }
}

/// What alone would be within each limit is not in the mass.
#[test]
fn growth_is_bounded_over_all_files() {
    let sandbox = Sandbox::new();
    let big = "x".repeat(1 << 19);
    sandbox.file(".env", &format!("BIG={big}\n"));
    let lines: Vec<String> = (0..200).map(|index| format!("      V{index}: $BIG\n")).collect();
    let text = format!("services:\n  a:\n    image: x\n    environment:\n{}", lines.concat());
    sandbox.file("stack.yaml", &text);
    assert!(judge("interpolation", &sandbox.path("stack.yaml"), true).is_none());
    let ran = sandbox.stack("config -q");
    assert!(ran.err.contains("16 MiB") && ran.err.contains("stack limits"), "{ran}");

    let labels: Vec<String> = (0..5_000).map(|index| format!("      L{index}: v\n")).collect();
    let others: Vec<String> = (0..1000).map(|index| format!("  s{index}: {{ extends: a }}\n")).collect();
    let text = format!("services:\n  a:\n    image: x\n    labels:\n{}{}", labels.concat(), others.concat());
    sandbox.file("stack.yaml", &text);
    assert!(judge("extends", &sandbox.path("stack.yaml"), true).is_none());
    assert!(sandbox.stack("config -q").err.contains("500000 values"), "{}", sandbox.stack("config -q"));
}

#[test]
fn limits_are_listed() {
    let sandbox = Sandbox::new();
    let table = sandbox.stack("limits").ok().out;
    assert!(table.starts_with("LIMIT ") && table.contains("10,485,760 bytes"), "{table}");
    let all: Value = serde_json::from_str(&sandbox.stack("limits --format json").ok().out).unwrap();
    assert!(all.as_array().unwrap().iter().any(|limit| limit["name"] == "depth" && limit["most"] == 200));
}
