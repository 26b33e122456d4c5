//! The shim: one single-threaded process per stack, parent of every container.
//!
//! It never decides anything. It clones what it is told to, drains output into log files, reports exits, keeps
//! descriptors that must survive the supervisor, and starts a supervisor again when its connection is gone.

mod calls;
mod client;
mod container;
mod create;
mod drain;
mod exec;
mod exits;
mod guest;
mod keeper;
mod log;
mod ping;
mod pipes;
mod requests;
mod restart;
mod server;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::launch::{ExitStatus, Seccomp, Stdio};
use crate::sys::process;

pub use client::Client;

/// The hidden first argument that makes a process a shim.
pub const ARGUMENT: &str = "__shim";

/// How a shim is started.
#[derive(Debug, Clone)]
pub struct SpawnOptions {
    /// Where its socket `shim.sock` and the `fifo/` folder live.
    pub run_dir: PathBuf,
    /// Arguments (without the program) of the supervisor to start when the connection drops while it holds
    /// containers. Empty: kill everything and end instead, which is right for a build's private shim.
    pub restart_argv: Vec<String>,
}

/// A container that was made: cloned, set up and parked before its exec.
#[derive(Debug)]
pub struct Created {
    /// Process 1 of the container, as the host numbers it.
    pub pid: i32,
    /// Its start in clock ticks since boot; with the pid and the boot id this names a process for good.
    pub start_time: u64,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Its network namespace, if its own (new or kept).
    pub netns: Option<OwnedFd>,
    /// What of its limits this machine can't hold.
    pub losses: Vec<String>,
}

/// A process that was started in a running container.
#[derive(Debug)]
pub struct Exec {
    /// Names it in [`Event::ExecExited`].
    pub exec_id: String,
    /// As the host numbers it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    /// Its terminal's master.
    pub master: Option<OwnedFd>,
}

/// What a shim knows of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The container.
    pub id: String,
    /// Process 1.
    pub pid: i32,
    /// Its start in clock ticks since boot.
    pub start_time: u64,
    /// What it is doing.
    pub state: State,
}

/// A container's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Cloned, but not started.
    Parked,
    /// Running.
    Running,
    /// Ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// When.
        at: Timestamp,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A container ended; its log is complete.
    Exited {
        /// The container.
        id: String,
        /// How.
        status: ExitStatus,
        /// When.
        at: Timestamp,
    },
    /// A container whose sockets are kept listens.
    Listens {
        /// The container.
        id: String,
        /// Where.
        address: SocketAddr,
    },
    /// An exec ended.
    ExecExited {
        /// The exec.
        exec_id: String,
        /// How.
        status: ExitStatus,
    },
}

/// A container whose shim died, for a new one to take over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Adopt {
    /// The container.
    pub id: String,
    /// Process 1.
    pub pid: i32,
    /// Its start in clock ticks since boot; another process with the same pid is not adopted.
    pub start_time: u64,
    /// Path of its control group.
    pub cgroup: String,
    /// The groups above it are somebody else's.
    #[serde(default)]
    pub borrowed: bool,
    /// Its log; the named pipes are opened again. `Fds` and `Null` need nothing.
    pub stdio: Stdio,
    /// Its filter, for later execs.
    pub seccomp: Seccomp,
    /// Whether it is privileged, for later execs.
    pub privileged: bool,
}

/// Runs a shim until nobody needs it any more: the run directory, then the supervisor's arguments. Standard input is
/// the first connection. Must be called before any thread exists.
pub fn main(args: &[String]) -> ! {
    crate::sys::process::exit(match serve(args) {
        Ok(()) => 0,
        Err(_) => 1,
    })
}

fn serve(args: &[String]) -> io::Result<()> {
    let Some((run_dir, restart_argv)) = args.split_first() else { return Err(io::ErrorKind::InvalidInput.into()) };
    process::reserve_descriptors()?;
    let first = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).ok().map(UnixStream::from);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from(0o022));
    process::set_dumpable(false)?;
    process::set_subreaper()?;
    rustix::thread::set_name(c"stack-shim")?;
    // A caller with a real-time priority has it for itself: v1 takes no such process into a group without time for it.
    process::schedule_normally();
    server::Shim::new(PathBuf::from(run_dir), restart_argv.to_vec(), first)?.run()
}
