//! In CI: plain lines, groups and annotations, exact exit codes, the examples' very commands, and the package.

use std::path::Path;
use std::process::Command;

use serde_yaml::Value;

use crate::sandbox::{Ran, STACK, Sandbox};

const FILE: &str = r#"
services:
  web: { image: stack/host, init: true, command: ["sleep", "infinity"] }
  tests: { image: stack/host, command: ["sh", "-c", "exit 7"], depends_on: [web] }
"#;

/// Runs a command with a terminal for its output; what it wrote there.
fn on_a_terminal(sandbox: &Sandbox, variables: &[(&str, &str)], words: &str) -> String {
    let line = format!("stty cols 100 rows 30; {STACK} {words}");
    let mut command = sandbox.command("script", &["-qec", &line, "/dev/null"]);
    let out = command.envs(variables.iter().copied()).env("TERM", "xterm").output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn ci_means_plain_lines_even_on_a_terminal() {
    let sandbox = Sandbox::with(FILE);
    let plain = on_a_terminal(&sandbox, &[("CI", "true"), ("NO_COLOR", "1")], "up -d web");
    assert!(plain.contains("web-1  Started") && !plain.contains('\x1b'), "{plain:?}");
    sandbox.stack("down").ok();
    let redrawn = on_a_terminal(&sandbox, &[], "up -d web");
    assert!(redrawn.contains("\x1b[2K"), "{redrawn:?}");
    let ran = sandbox.stack_env(&[("COMPOSE_STATUS_STDOUT", "1")], "stop -t 0");
    assert!(ran.out.contains("web-1  Stopped") && ran.err.is_empty(), "{ran:?}");
}

#[test]
fn github_gets_groups_and_annotations() {
    let sandbox = Sandbox::with(FILE);
    let workspace = sandbox.path("");
    let github = [("GITHUB_ACTIONS", "true"), ("CI", "true"), ("GITHUB_WORKSPACE", workspace.to_str().unwrap())];
    let ran = sandbox.stack_env(&github, "up -d web").ok();
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!((lines.first(), lines.last()), (Some(&"::group::stack up"), Some(&"::endgroup::")), "{lines:?}");
    sandbox.file(
        "stack.yaml",
        "services:\n  web:\n    image: stack/host\n    command: [no-such-program]\n    prots: [1]\n",
    );
    let ran = sandbox.stack_env(&github, "config");
    assert!(ran.err.contains("::error file=stack.yaml,line=5,col=5::"), "{}", ran.err);
    sandbox.file("stack.yaml", "services:\n  web:\n    image: stack/host\n    command: [no-such-program]\n");
    let ran = sandbox.stack_env(&github, "up -d");
    assert!(ran.err.contains("::endgroup::\nerror: "), "{}", ran.err);
    assert!(ran.err.contains("::error file=stack.yaml,line=4,col=5::"), "{}", ran.err);
    ran.code(127);
    let ran = sandbox.stack_env(&github, "exec nobody true");
    assert!(ran.err.contains("::error::no such service: nobody"), "{}", ran.err);
}

#[test]
fn exit_codes_are_those_of_the_containers() {
    let sandbox = Sandbox::with(FILE);
    sandbox.stack("up --exit-code-from tests").code(7);
    sandbox.stack("up --exit-code-from web --abort-on-container-exit").code(143);
    sandbox.stack("up --abort-on-container-exit").code(7);
    sandbox.stack("up --abort-on-container-failure").code(7);
    sandbox.stack("run --rm tests").code(7);
    sandbox.stack_args(&["run", "--rm", "-T", "web", "sh", "-c", "kill -9 $$"]).code(137);
    sandbox.stack("run --rm web /no/such").code(127);
    sandbox.stack("run --rm web /etc").code(126);
    sandbox.stack("up -d --force-recreate").ok();
    sandbox.stack("wait tests").code(7);
    sandbox.stack_args(&["exec", "-T", "web", "sh", "-c", "exit 9"]).code(9);
    sandbox.stack("exec -T web /no/such").code(127);
    sandbox.stack("up --bogus").code(1);
}

/// The shell commands of a job, GitHub's `${{ vars.X }}` written as the shell does.
fn commands(job: &Value, keys: &[&str]) -> Vec<String> {
    let lists = keys.iter().filter_map(|key| job[*key].as_sequence()).flatten();
    let text = |value: &Value| value.as_str().or_else(|| value["run"].as_str()).map(str::to_owned);
    lists.filter_map(text).map(|line| line.replace("${{ vars.STACK_DEB }}", "$STACK_DEB")).collect()
}

/// A release made of the binary under test, or of the release build where there is one.
fn dist(sandbox: &Sandbox) -> std::path::PathBuf {
    let binary = std::env::var("STACK").ok().filter(|path| Path::new(path).exists()).unwrap_or_else(|| STACK.into());
    let binary = fs_err::canonicalize(binary).unwrap();
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/dist.sh"));
    let out = sandbox.path("dist");
    let made = command.arg(&out).env("STACK", binary).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    out
}

fn find(folder: &Path, end: &str) -> std::path::PathBuf {
    let mut names = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    names.find(|path| path.to_string_lossy().ends_with(end)).unwrap_or_else(|| panic!("no {end}"))
}

#[test]
fn a_release_is_one_static_binary_and_a_package_that_runs_the_examples() {
    let sandbox = Sandbox::new();
    let out = dist(&sandbox);
    let run = |program: &str, args: &[&str]| {
        let ran = Command::new(program).args(args).current_dir(&out).output().unwrap();
        (
            ran.status.success(),
            String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr),
        )
    };
    let deb = find(&out, ".deb");
    assert_eq!(run("sha256sum", &["--check", "--quiet", "SHA256SUMS"]), (true, String::new()));
    let binary = fs_err::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    let binary = binary.into_iter().find(|path| path.to_string_lossy().contains("-linux-")).unwrap();
    let (_, libraries) = run("ldd", &[binary.to_str().unwrap()]);
    assert!(libraries.contains("statically linked") || libraries.contains("not a dynamic executable"), "{libraries}");
    let (_, sections) = run("readelf", &["-S", binary.to_str().unwrap()]);
    assert!(!sections.contains(".debug_info") && !sections.contains(".symtab"), "not stripped");

    // What the jobs call, aimed at a place of this test's own: `dpkg` installs there, `sudo` only sets its variables.
    let place = sandbox.path("machine");
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "usr/bin", "shims"] {
        fs_err::create_dir_all(place.join(folder)).unwrap();
    }
    fs_err::write(place.join("var/lib/dpkg/status"), "").unwrap();
    let shim = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = place.join("shims").join(name);
        fs_err::write(&path, text).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let root = place.display();
    shim("dpkg", &format!("#!/bin/sh\nexec /usr/bin/dpkg --root={root} --force-script-chrootless \"$@\"\n"));
    shim("sudo", "#!/bin/sh\n[ \"$1\" = -E ] && shift\nSUDO_UID=0 SUDO_GID=0 SUDO_USER=root exec \"$@\"\n");

    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ci");
    for (file, job) in [("github.yml", "jobs"), ("gitlab.yml", "")] {
        let text = fs_err::read_to_string(example.join(file)).unwrap();
        assert!(text.lines().filter(|line| !line.starts_with('#')).count() <= 10, "{file} has ten lines");
        let yaml: Value = serde_yaml::from_str(&text).unwrap();
        let job = if job.is_empty() { &yaml["tests"] } else { &yaml["jobs"]["tests"] };
        let mut lines = commands(job, &["steps", "script"]);
        assert!(lines.len() >= 2, "{lines:?}");
        let after = commands(job, &["after_script"]);
        let project = sandbox.path(&format!("{}{}", sandbox.project, &file[..6]));
        let copied = Command::new("cp").arg("-r").arg(&example).arg(&project).status().unwrap();
        assert!(copied.success());
        let shell = |line: &str| -> Ran {
            let path = format!("{root}/shims:{root}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin");
            let line = line.replace("/tmp/stack.deb", &format!("{root}/stack.deb"));
            let line = format!("cd {} && {line}", project.display());
            let deb = format!("file://{}", deb.display());
            let variables = [("PATH", path.as_str()), ("STACK_DEB", deb.as_str()), ("CI", "true")];
            sandbox.shell(&variables, &line)
        };
        let up = lines.pop().unwrap();
        for line in &lines {
            shell(line).ok();
        }
        let ran = shell(&up).ok();
        assert!(ran.out.contains("it works") && !ran.out.contains('\x1b'), "{}", ran.out);
        // The tests' own exit code is the job's.
        fs_err::write(project.join("site/index.html"), "broken").unwrap();
        shell(&up).code(3);
        for line in &after {
            shell(line).ok();
        }
        shell("stack down -v").ok();
    }
    let (ok, version) = run(place.join("usr/bin/stack").to_str().unwrap(), &["version", "--short"]);
    assert!(ok && version.trim() == env!("CARGO_PKG_VERSION"), "{version}");
    for file in ["share/bash-completion/completions/stack", "share/man/man1/stack.1.gz", "share/doc/stack/copyright"] {
        assert!(place.join("usr").join(file).exists(), "{file}");
    }
    let completion = place.join("usr/share/bash-completion/completions/stack");
    let (ok, said) = run("bash", &["-n", completion.to_str().unwrap()]);
    assert!(ok, "{said}");
}
