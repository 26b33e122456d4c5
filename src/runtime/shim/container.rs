//! What the shim holds of a container and of an exec.

use std::os::fd::OwnedFd;

use super::State;
use super::drain::Drain;
use super::keeper::Keeper;
use super::log::Log;
use crate::runtime::cgroup::Group;
use crate::runtime::child::Port;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Seccomp;

/// Who waits for an answer: the connection, and the number of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) connection: u64,
    pub(super) number: u64,
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) start_time: u64,
    pub(super) state: State,
    pub(super) group: Group,
    /// Its network namespace, if its own.
    pub(super) netns: Option<OwnedFd>,
    /// The clone's socket, until its exec.
    pub(super) port: Option<Watched<Port>>,
    /// Why it couldn't start.
    pub(super) failure: Option<LaunchError>,
    pub(super) starter: Option<Asker>,
    pub(super) forgetter: Option<Asker>,
    pub(super) log: Option<Log>,
    pub(super) drains: Vec<Watched<Drain>>,
    /// What writes to its input: the terminal's master or the pipe's end.
    pub(super) input: Option<OwnedFd>,
    /// The token of its pidfd, if it isn't a child of this shim.
    pub(super) adopted: Option<u64>,
    pub(super) tty: bool,
    pub(super) seccomp: Seccomp,
    pub(super) privileged: bool,
    pub(super) keeper: Keeper,
}

/// A process that was started in a container.
#[derive(Debug)]
pub(super) struct ExecRecord {
    pub(super) exec_id: String,
    pub(super) pidfd: OwnedFd,
    pub(super) port: Option<Watched<Port>>,
    pub(super) failure: Option<LaunchError>,
    pub(super) asker: Asker,
    pub(super) master: Option<OwnedFd>,
}

/// Something that the loop watches under a token.
#[derive(Debug)]
pub(super) struct Watched<T> {
    pub(super) token: u64,
    pub(super) it: T,
}

impl Container {
    /// Whether its process 1 lives.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, State::Parked | State::Running)
    }
}
