//! A place of its own for one test: a folder, a root for all state, a network namespace.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::leaks;
use crate::poll::{DEADLINE, until, until_true};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The built binary.
pub(crate) const STACK: &str = env!("CARGO_BIN_EXE_stack");

/// A project folder with `stack` at hand. Dropped, it takes every project down and looks for what stayed.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
    /// Name of the project and of its folder.
    pub(crate) project: String,
    leaks: leaks::Before,
}

/// What a finished command left: exit code and output.
#[derive(Debug)]
pub(crate) struct Ran {
    line: String,
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A command that still runs, for example an attached `up`. Its output goes to unnamed files.
pub(crate) struct Running {
    line: String,
    child: Child,
    out: File,
    err: File,
}

impl Sandbox {
    /// A sandbox whose stack file is `text`.
    pub(crate) fn with(text: &str) -> Self {
        let sandbox = Self::new();
        sandbox.file("stack.yaml", text);
        sandbox
    }

    /// A sandbox without any file. The calling thread moves into a network namespace of its own.
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        stack::sys::netns::raise_loopback().unwrap();
        let folder = tempfile::Builder::new().prefix("stack-it.").tempdir().unwrap();
        let project = format!("it{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let sandbox = Self { leaks: leaks::Before::look(), folder, project };
        fs_err::create_dir_all(sandbox.path("")).unwrap();
        sandbox
    }

    /// Folder of all state.
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A path in the project folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(&self.project).join(name)
    }

    /// Writes a file of the project folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        path
    }

    /// Puts `busybox.tar`, an image's root with busybox as its only program, into the project folder.
    pub(crate) fn busybox_tar(&self) {
        let root = self.path("rootfs");
        fs_err::create_dir_all(root.join("bin")).unwrap();
        fs_err::copy("/bin/busybox", root.join("bin/busybox")).expect("the Debian package busybox-static");
        for applet in ["sh", "cat", "sleep", "echo", "ls", "id", "mkdir", "cp", "ln", "rm"] {
            fs_err::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let tar = Command::new("tar").arg("-C").arg(root).arg("-cf").arg(self.path("busybox.tar")).arg(".").status();
        assert!(tar.unwrap().success());
    }

    /// A command in the project folder that only knows this sandbox.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.path("")).env_clear();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.folder.path()).env("LC_ALL", "C.UTF-8");
        command.env("STACK_ROOT", self.root()).env("TMPDIR", self.folder.path());
        // To see how all of it fares when every container has a user namespace, or none.
        command.envs(std::env::var_os("STACK_USERNS").map(|mode| ("STACK_USERNS", mode)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs `stack` with these words, e.g. `sandbox.stack("up -d")`.
    pub(crate) fn stack(&self, words: &str) -> Ran {
        self.stack_args(&words.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs `stack` with these arguments.
    pub(crate) fn stack_args(&self, args: &[&str]) -> Ran {
        begin(&mut self.command(STACK, args), args).finish()
    }

    /// Runs `stack` with variables set.
    pub(crate) fn stack_env(&self, variables: &[(&str, &str)], words: &str) -> Ran {
        let args: Vec<&str> = words.split_whitespace().collect();
        let mut command = self.command(STACK, &args);
        command.envs(variables.iter().copied());
        begin(&mut command, &args).finish()
    }

    /// Runs a line of shell with variables set.
    pub(crate) fn shell(&self, variables: &[(&str, &str)], line: &str) -> Ran {
        let args = ["-c", line];
        let mut command = self.command("sh", &args);
        command.envs(variables.iter().copied());
        begin(&mut command, &args).finish()
    }

    /// Runs `stack` with text on its standard input.
    pub(crate) fn stack_input(&self, input: &str, words: &str) -> Ran {
        let args: Vec<&str> = words.split_whitespace().collect();
        let mut command = self.command(STACK, &args);
        let mut running = begin(command.stdin(Stdio::piped()), &args);
        let mut stdin = running.child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        running.finish()
    }

    /// Begins `stack` and goes on while it runs. It can be interrupted, even if whoever runs the tests can't.
    pub(crate) fn start(&self, words: &str) -> Running {
        let args: Vec<&str> = words.split_whitespace().collect();
        begin(self.command("env", &["--default-signal=INT", STACK]).args(&args), &args)
    }

    /// Runs a shell text in a service's container and returns what it printed.
    pub(crate) fn inside(&self, service: &str, text: &str) -> String {
        self.stack_args(&["exec", "-T", service, "sh", "-c", text]).ok().out.trim_end().to_owned()
    }

    /// Rows of `ps -a`, one JSON object per container, by name.
    pub(crate) fn ps(&self) -> Vec<Value> {
        let ran = self.stack("ps -a --format json").ok();
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A field of the first container of a service, `""` when there is no such container.
    pub(crate) fn field(&self, service: &str, field: &str) -> String {
        let row = self.ps().into_iter().find(|row| row["Service"] == service);
        row.map_or(String::new(), |row| match &row[field] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }

    /// Ids of a service's running containers, sorted.
    pub(crate) fn ids(&self, service: &str) -> Vec<String> {
        let mut ids: Vec<String> =
            self.stack(&format!("ps -q {service}")).ok().out.lines().map(str::to_owned).collect();
        ids.sort_unstable();
        ids
    }

    /// The process 1 of a service's first container, as the machine counts processes.
    pub(crate) fn pid(&self, service: &str) -> i32 {
        let id = self.ids(service).first().unwrap_or_else(|| panic!("{service} runs")).clone();
        let folder = self.root().join("run").join(&self.project).join("containers");
        let entry = fs_err::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&id));
        let state: Value = serde_json::from_slice(&fs_err::read(entry.unwrap()).unwrap()).unwrap();
        i32::try_from(state["pid"].as_i64().unwrap()).unwrap()
    }

    /// Processes of this sandbox that run on the machine itself, not in a container, and whose first argument is this,
    /// e.g. `__shim`.
    pub(crate) fn processes(&self, word: &str) -> Vec<i32> {
        let ours = leaks::processes(self.folder.path(), &self.project);
        let namespace = |pid: i32| fs_err::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = fs_err::read_link("/proc/self/ns/pid").ok();
        let picked = ours.into_iter().filter(|(_, line)| line.split(' ').nth(1) == Some(word));
        picked.map(|(pid, _)| pid).filter(|pid| namespace(*pid) == own).collect()
    }

    /// Waits until a service is in a state, e.g. `running`.
    pub(crate) fn until_state(&self, service: &str, state: &str) {
        until_true(&format!("{service} is {state}"), || self.field(service, "State") == state);
    }

    /// Waits until a service's log contains a text.
    pub(crate) fn until_logged(&self, service: &str, text: &str) {
        until_true(&format!("{service} logs {text:?}"), || {
            let ran = self.stack(&format!("logs --no-log-prefix {service}"));
            ran.out.contains(text) || ran.err.contains(text)
        });
    }

    /// What is there that wasn't when the test began; while a stack runs, most of it belongs there.
    pub(crate) fn left(&self) -> Vec<String> {
        self.leaks.compare(self.folder.path(), &self.project)
    }

    fn take_down(&self) {
        for name in self.stack("ls -a -q").out.lines() {
            let _ = self.stack(&format!("-p {name} down -v --remove-orphans -t 0"));
        }
    }
}

pub(crate) fn begin(command: &mut Command, args: &[&str]) -> Running {
    let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let child = command.process_group(0).spawn().unwrap();
    Running { line: format!("stack {}", args.join(" ")), child, out, err }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report();
        }
        self.take_down();
        let left = self.left();
        for (pid, _) in leaks::processes(self.folder.path(), &self.project) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        leaks::detach_mounts(self.folder.path());
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        }
    }
}

impl Sandbox {
    /// What helps to understand a failed test.
    #[allow(clippy::print_stdout, reason = "the test harness shows it")]
    fn report(&self) {
        let mut text = String::new();
        let _ = writeln!(text, "{}", self.stack("ps -a").out);
        let _ = writeln!(text, "{}", self.stack("logs --tail 20").out);
        let log = self.root().join("run").join(&self.project).join("supervisor.log");
        let _ = writeln!(text, "{}", fs_err::read_to_string(log).unwrap_or_default());
        println!("── {}\n{text}", self.project);
    }
}

impl Running {
    /// Sends a signal to the command.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Waits until the command has printed a text on standard output or standard error.
    pub(crate) fn until_said(&self, text: &str) {
        until_true(&format!("{} says {text:?}", self.line), || {
            read(&self.out).contains(text) || read(&self.err).contains(text)
        });
    }

    /// Waits for its end; one that doesn't come is a failure with the code of SIGKILL.
    pub(crate) fn finish(mut self) -> Ran {
        let end = Instant::now() + *DEADLINE * 3;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > end {
                let _ = self.child.kill();
            }
            std::thread::park_timeout(Duration::from_millis(2));
        };
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Ran { line: std::mem::take(&mut self.line), code, out: read(&self.out), err: read(&self.err) }
    }
}

/// All of a file, from its beginning.
fn read(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    /// Asserts success.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    /// Asserts an exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of {self}");
        self
    }

    /// Asserts failure with all of these texts on standard error.
    #[track_caller]
    pub(crate) fn fails(self, texts: &[&str]) -> Self {
        assert_ne!(self.code, 0, "exit code of {self}");
        for text in texts {
            assert!(self.err.contains(text), "{text:?} in the errors of {self}");
        }
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nout: {}\nerr: {}", self.line, self.out, self.err)
    }
}

/// Whether a process exists and is no zombie.
pub(crate) fn alive(pid: i32) -> bool {
    let stat = fs_err::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Kills a process and waits for its end.
pub(crate) fn kill_hard(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    until("the killed process is gone", || (!alive(pid)).then_some(()));
}
