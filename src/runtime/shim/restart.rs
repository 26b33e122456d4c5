//! Bringing a supervisor back.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;

use crate::sys::{exe, fault};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A supervisor that lived this long wasn't broken.
const PROBATION: Duration = Duration::from_secs(10);

/// When to start which supervisor.
pub(super) struct Restart {
    run_dir: PathBuf,
    argv: Vec<String>,
    /// The program, if not this process's own.
    program: Option<OwnedFd>,
    due: Option<Instant>,
    failures: u32,
    since: Instant,
}

impl Restart {
    pub(super) fn new(run_dir: PathBuf, argv: Vec<String>) -> Self {
        Self { run_dir, argv, program: None, due: None, failures: 0, since: Instant::now() }
    }

    /// Whether there is a supervisor to start.
    pub(super) fn is_possible(&self) -> bool {
        !self.argv.is_empty()
    }

    /// Supervisors are started from another program from now on.
    pub(super) fn start_from(&mut self, program: Option<OwnedFd>) {
        self.program = program;
        self.failures = 0;
    }

    /// A supervisor is there.
    pub(super) fn connected(&mut self) {
        self.due = None;
        self.since = Instant::now();
    }

    /// The last one is gone. The first restart is immediate.
    pub(super) fn schedule(&mut self) {
        if self.since.elapsed() > PROBATION {
            self.failures = 0;
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            count => FIRST_PAUSE.saturating_mul(1 << count.min(16)).min(LONGEST_PAUSE),
        };
        self.due = Some(Instant::now() + pause);
    }

    /// How long the loop may sleep; `None` is for ever.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Starts it if it is time, and plans the next try in case that it never connects.
    pub(super) fn run_if_due(&mut self) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.run_dir.join("supervisor.log"));
        let errors = log.map_or_else(|_| Stdio::null(), |log| Stdio::from(log.into_file()));
        let mut command = Command::new(self.program.as_ref().map_or_else(|| "/proc/self/exe".into(), exe::path_of));
        std::os::unix::process::CommandExt::arg0(&mut command, "stack");
        // A fault point concerns one supervisor, not its successors.
        command.env_remove(fault::VARIABLE);
        // Its end is reaped like that of any child.
        let _ = command.args(&self.argv).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn();
        self.failures += 1;
        self.since = Instant::now();
        self.schedule();
    }
}
