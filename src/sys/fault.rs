//! Fault points, always compiled in: `STACK_FAULT` makes a process die, fail or pause at the N-th point that it passes.
//!
//! Points stand before and after every action of a plan, every request to the shim, and every part of a file's
//! replacement. The value is `KIND@N` or `KIND@ROLE:N`: `kill` (SIGKILL), `err` (the disk is full), `files` (no more files may
//! be opened) or `delay` (a second), in the `command`, the `supervisor` (if no role is given) or the `shim`. `trace@PATH` appends the name of
//! every point that any of them passes to a file. The crash tests drive them; nothing else sets them.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

/// The environment variable.
pub const VARIABLE: &str = "STACK_FAULT";

static ROLE: OnceLock<&str> = OnceLock::new();
static ARMED: AtomicBool = AtomicBool::new(false);
static FAULT: Mutex<Option<Fault>> = Mutex::new(None);

/// What is to happen in this process, and where.
#[derive(Debug)]
struct Fault {
    text: String,
    kind: Kind,
    /// A process of another role does it, if any.
    elsewhere: bool,
    /// Points still to be passed, the one of the fault included.
    left: u64,
    handed_down: bool,
}

#[derive(Debug)]
enum Kind {
    Kill,
    Fail(Errno),
    Delay,
    Trace(PathBuf),
}

/// Says which process this is (`command`, `supervisor`, `shim`) and reads the environment.
pub fn begin(role: &'static str) {
    let _ = ROLE.set(role);
    if let Some(text) = std::env::var_os(VARIABLE) {
        arm(&text.to_string_lossy(), false);
    }
}

/// Sets the fault of this process; points are counted anew. A text that makes no sense sets none. `handed_down` says
/// that the process it may be meant for has it already.
pub fn arm(text: &str, handed_down: bool) {
    let fault = parse(text, ROLE.get().unwrap_or(&"supervisor")).map(|fault| Fault { handed_down, ..fault });
    ARMED.store(fault.is_some(), Ordering::Relaxed);
    *lock() = fault;
}

/// Lets a process that is about to be started have a fault that isn't this one's own: the first such process, so that
/// its successors live.
pub fn hand_down(command: &mut Command) {
    command.env_remove(VARIABLE);
    if let Some(fault) = lock().as_mut().filter(|fault| !fault.handed_down) {
        let traces = matches!(fault.kind, Kind::Trace(_));
        if fault.elsewhere || traces {
            fault.handed_down = !traces;
            command.env(VARIABLE, &fault.text);
        }
    }
}

/// Passes a point. An error is the one that was asked for.
pub fn point(name: impl FnOnce() -> String) -> io::Result<()> {
    if !ARMED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut guard = lock();
    let Some(fault) = guard.as_mut().filter(|fault| !fault.elsewhere) else { return Ok(()) };
    if let Kind::Trace(path) = &fault.kind {
        let line = format!("{} {}\n", ROLE.get().unwrap_or(&"?"), name());
        return OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes());
    }
    fault.left = fault.left.saturating_sub(1);
    if fault.left > 0 {
        return Ok(());
    }
    let fault = guard.take();
    ARMED.store(false, Ordering::Relaxed);
    match fault.map(|fault| fault.kind) {
        Some(Kind::Kill) => kill_process(getpid(), Signal::KILL).map_err(Into::into),
        Some(Kind::Fail(errno)) => Err(errno.into()),
        Some(Kind::Delay) => {
            drop(guard);
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        }
        Some(Kind::Trace(_)) | None => Ok(()),
    }
}

fn parse(text: &str, role: &str) -> Option<Fault> {
    let (kind, place) = text.split_once('@')?;
    let (wanted, number) = place.split_once(':').unwrap_or(("supervisor", place));
    let (kind, elsewhere, left) = match kind {
        "trace" => (Kind::Trace(place.into()), false, 0),
        "kill" => (Kind::Kill, wanted != role, number.parse().ok()?),
        "err" => (Kind::Fail(Errno::NOSPC), wanted != role, number.parse().ok()?),
        "files" => (Kind::Fail(Errno::MFILE), wanted != role, number.parse().ok()?),
        "delay" => (Kind::Delay, wanted != role, number.parse().ok()?),
        _ => return None,
    };
    Some(Fault { text: text.to_owned(), kind, elsewhere, left, handed_down: false })
}

fn lock() -> MutexGuard<'static, Option<Fault>> {
    FAULT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_for_one_role() {
        assert!(!parse("kill@3", "supervisor").unwrap().elsewhere);
        assert!(parse("kill@3", "shim").unwrap().elsewhere);
        assert_eq!(parse("err@shim:7", "shim").unwrap().left, 7);
        assert!(
            matches!(parse("trace@/a:b", "command").unwrap().kind, Kind::Trace(path) if path.as_os_str() == "/a:b")
        );
        assert!(parse("kill@many", "shim").is_none());
        assert!(parse("nonsense", "shim").is_none());
    }
}
