//! Programs that run at moments of a container's life, with its state on their standard input.

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::config::Hook;
use super::error::Error;
use super::state::State;
use crate::sys::process;

/// The last words of a hook that failed, in bytes.
const LAST_WORDS: usize = 2048;

/// Runs hooks one after the other until one fails. One without an environment of its own gets `env`.
pub(super) fn run(kind: &'static str, hooks: &[Hook], state: &State, env: &[String]) -> Result<(), Error> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, env).map_err(|reason| {
            let path = hook.path.clone();
            Error::Hook { kind, index, path, reason }
        })?;
    }
    Ok(())
}

/// Runs all hooks, whichever fails; says which did.
pub(super) fn run_all(kind: &'static str, hooks: &[Hook], state: &State) -> Vec<Error> {
    let failed = |(index, hook): (usize, &Hook)| {
        let path = hook.path.clone();
        run_one(hook, state, &[]).err().map(|reason| Error::Hook { kind, index, path, reason })
    };
    hooks.iter().enumerate().filter_map(failed).collect()
}

fn run_one(hook: &Hook, state: &State, env: &[String]) -> Result<(), String> {
    let text = serde_json::to_vec(state).map_err(|e| e.to_string())?;
    let mut command = Command::new(&hook.path);
    let (name, rest) = hook.args.split_first().map_or((hook.path.as_str(), &[][..]), |(name, rest)| (name, rest));
    command.arg0(name).args(rest).env_clear();
    for entry in hook.env.as_deref().unwrap_or(env) {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        command.env(name, value);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("can't be run: {e}"))?;
    if let Some(mut input) = child.stdin.take() {
        // Who doesn't read it doesn't need it.
        let _ = input.write_all(&text);
    }
    if let Some(seconds) = hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()) {
        let ended = i32::try_from(child.id()).map_err(io::Error::other).and_then(process::pidfd_open);
        let ended = ended.and_then(|pidfd| process::await_end(pidfd.as_fd(), Duration::from_secs(seconds)));
        if !matches!(ended, Ok(true)) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("took longer than {seconds} s"));
        }
    }
    let mut said = Vec::new();
    if let Some(errors) = child.stderr.take() {
        // A child of its own may go on writing: its end is what counts, not that of its output.
        let _ = child.wait();
        let _ = rustix::io::ioctl_fionbio(&errors, true);
        let _ = errors.take(1 << 20).read_to_end(&mut said);
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS)..]);
    Err(format!("failed: {status}{}{}", if said.is_empty() { "" } else { ": " }, said.trim()))
}
