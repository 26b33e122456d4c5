//! Being in front of a process in a container: its terminal or its pipes, until it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use tokio::signal::unix::{self, SignalKind};

use super::error::{Error, Outcome};
use super::interrupt::Interrupts;
use super::progress::Progress;
use super::project::{Context, FsLoader};
use super::select::is_up;
use super::session::{open, reply};
use super::streams::{DetachKeys, Output, Plumbing, Target, send_input};
use super::terminal::{self, RawMode};
use crate::engine::control::{Reply, Request};
use crate::engine::state::Container;
use crate::spec::{Loader as _, dotenv, limits};

/// How to be in front of it.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    /// It has a terminal.
    pub(crate) tty: bool,
    /// It gets our standard input.
    pub(crate) input: bool,
    /// Keys that let go of it; without a terminal there are none.
    pub(crate) keys: Option<DetachKeys>,
}

impl Front {
    /// A terminal where the caller has one on both sides, unless `no_tty`.
    pub(crate) fn new(no_tty: bool, input: bool) -> Self {
        let tty = !no_tty && io::stdin().is_terminal() && io::stdout().is_terminal();
        Self { tty, input, keys: DetachKeys::parse("ctrl-p,ctrl-q") }
    }

    /// Carries out `request` (`Exec` or `Run`) and stays in front of the process until it ends: its exit code.
    /// `on_signal` is told of signals with the container or process id.
    pub(crate) async fn run(
        &self,
        context: &Context,
        project: &str,
        request: &Request,
        mut on_signal: impl FnMut(&str, i32),
    ) -> Outcome {
        let plumbing = if self.tty { None } else { Some(Plumbing::new(self.input)?) };
        let fds: Vec<BorrowedFd<'_>> = plumbing.iter().flat_map(|plumbing| &plumbing.fds).map(AsFd::as_fd).collect();
        let mut interrupts = Interrupts::new()?;
        let client = open(context, project, request, &fds).await?;
        let mut outputs = plumbing.map(Plumbing::handed_over).unwrap_or_default();
        let mut progress = Progress::new(context.ui, "run");
        let mut resized = unix::signal(SignalKind::window_change())?;
        let (mut raw, mut master, mut detached) = (None, None, None);
        let mut id = String::new();
        let code = loop {
            tokio::select! {
                next = reply(&client) => {
                    let (reply, fds) = match next {
                        Ok(next) => next,
                        // A closed standard output ends the copying, not this.
                        Err(error) => { drop(raw); return Err(error) }
                    };
                    match reply {
                        Reply::Event(event) => progress.event(&event)?,
                        Reply::Started { id: started } => {
                            progress.finish()?;
                            id = started;
                            if let Some(terminal) = fds.into_iter().next().filter(|_| self.tty) {
                                raw = RawMode::enter()?;
                                terminal::resize(&terminal)?;
                                outputs.push(Output::start(terminal.try_clone()?, Target::Stdout)?);
                                if self.input {
                                    detached = Some(send_input(terminal.try_clone()?, self.keys.clone()));
                                }
                                master = Some(terminal);
                            }
                        }
                        Reply::Exited { code } => break code,
                        Reply::Failed(failure) => {
                            drop(raw);
                            progress.finish()?;
                            return Err(failure.into());
                        }
                        Reply::Done => break 0,
                        Reply::Accepted | Reply::Root { .. } | Reply::Plan(_) => {}
                    }
                }
                number = interrupts.next() => on_signal(&id, number),
                _ = resized.recv() => if let Some(master) = &master {
                    terminal::resize(master)?;
                },
                () = pressed(&mut detached) => break 0,
            }
        };
        outputs.into_iter().try_for_each(Output::finish)?;
        drop::<Option<OwnedFd>>(master);
        drop(raw);
        Ok(u8::try_from(code).unwrap_or(1))
    }
}

/// Returns when the detach keys were pressed.
pub(crate) async fn pressed(detached: &mut Option<tokio::sync::mpsc::UnboundedReceiver<()>>) {
    if let Some(receiver) = detached
        && receiver.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Sends a signal to a container's first process, if it runs.
pub(crate) fn signal(container: &Container, number: i32) {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let pid = Pid::from_raw(container.state.pid).filter(|_| is_up(container));
    if let (Some(pid), Some(signal)) = (pid, Signal::from_named_raw(number))
        && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
    {
        // It may have ended meanwhile, which is what was wanted.
        let _ = pidfd_send_signal(pidfd, signal);
    }
}

/// Reads `K=V` flags; a bare `K` takes the caller's value and is left out if there is none.
pub(crate) fn environment(flags: &[String]) -> Result<Vec<String>, Error> {
    let mut variables = Vec::new();
    for flag in flags {
        if flag.is_empty() || flag.starts_with('=') {
            return Err(Error::new(format!("invalid variable `{flag}`")).hint("write NAME=VALUE, or NAME"));
        }
        if flag.contains('=') {
            variables.push(flag.clone());
        } else if let Ok(value) = std::env::var(flag) {
            variables.push(format!("{flag}={value}"));
        }
    }
    Ok(variables)
}

/// Reads files of variables in the syntax of `.env`; later files win.
pub(crate) fn environment_of_files(paths: &[PathBuf]) -> Result<BTreeMap<String, String>, Error> {
    let outside = super::project::environment();
    let mut variables = BTreeMap::new();
    for path in paths {
        let failed = |why: &dyn std::fmt::Display| Error::new(format!("--env-from-file {}: {why}", path.display()));
        let bytes = FsLoader.read(path, limits::ENV_FILE_BYTES).map_err(|e| failed(&e))?;
        let text = String::from_utf8(bytes).map_err(|_| failed(&"it isn't UTF-8"))?;
        let lookup = |name: &str| outside.get(name).cloned();
        dotenv::parse(&text, &lookup, &mut variables, &mut BTreeSet::new())
            .map_err(|e| failed(&format_args!("line {}: {e}", e.line)))?;
    }
    Ok(variables)
}
