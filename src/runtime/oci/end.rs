//! Signals, freezing, and the end of a container.

use std::os::fd::AsFd as _;
use std::time::Duration;

use super::error::{Doing as _, Error};
use super::linux::Kind;
use super::state::{Container, Status};
use super::{Oci, hook};
use crate::runtime::cgroup::Group;
use crate::sys::process;

/// How long the end of a process that was killed may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Oci {
    /// Sends a signal to process 1, or to all.
    ///
    /// # Errors
    /// When the container is neither created nor running.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<(), Error> {
        let container = Container::load(&self.root, id)?;
        let Some(pidfd) = container.process() else {
            // Others of its control group may outlive process 1 where they share a pid namespace.
            if all {
                return signal_all(&container, signal);
            }
            return Err(Error::State { what: "kill", id: id.to_owned(), status: container.status() });
        };
        if all || signal == libc::SIGKILL && container.shares_pids() {
            signal_all(&container, signal)?;
        } else {
            process::signal(pidfd.as_fd(), signal).doing(|| format!("send signal {signal} to container `{id}`"))?;
        }
        if signal == libc::SIGKILL {
            // A frozen process dies when it thaws.
            if let Ok(group) = container.group() {
                group.thaw();
            }
            container.await_end(PATIENCE);
        }
        Ok(())
    }

    /// Removes what a container that has ended leaves; with `force`, ends it first. Gives what its hooks failed with.
    ///
    /// # Errors
    /// When it runs. With `force`, that there is none is no error.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<Error>, Error> {
        let container = match Container::load(&self.root, id) {
            Err(Error::Unknown(_)) if force => return Ok(Vec::new()),
            other => other?,
        };
        match container.status() {
            Status::Stopped | Status::Created => {}
            Status::Creating if container.record.pid == 0 => {}
            _ if force => {}
            status => return Err(Error::State { what: "delete", id: id.to_owned(), status }),
        }
        container.clean();
        Ok(hook::run_all("poststop", &container.config.hooks.poststop, &container.state(Status::Stopped)))
    }

    /// Stops every process of a container, or lets them go on.
    ///
    /// # Errors
    /// When the container doesn't run, or is not paused.
    pub fn freeze(&self, id: &str, frozen: bool) -> Result<(), Error> {
        let container = Container::load(&self.root, id)?;
        let what = if frozen { "pause" } else { "resume" };
        match (container.status(), frozen) {
            (Status::Running | Status::Created, true) | (Status::Paused, false) => {}
            (status, _) => return Err(Error::State { what, id: id.to_owned(), status }),
        }
        container.group()?.freeze(frozen).doing(|| format!("{what} container `{id}`"))
    }
}

impl Container {
    /// Ends what there is of a container, and removes it.
    pub(super) fn clean(&self) {
        let group = self.group().ok();
        if let Some(pidfd) = self.process() {
            let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
            if let Some(group) = group.as_ref().filter(|_| self.shares_pids()) {
                group.kill();
            }
            // A frozen process dies when it thaws.
            group.iter().for_each(Group::thaw);
            self.await_end(PATIENCE);
        }
        group.iter().for_each(Group::remove_patiently);
        if self.config.linux.namespace(Kind::Mount).is_none() {
            let rootfs = self.state(Status::Stopped).rootfs;
            let _ = rustix::mount::unmount(&rootfs, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = self.remove();
    }

    /// Whether others outlive process 1.
    fn shares_pids(&self) -> bool {
        self.config.linux.namespace(Kind::Pid).is_none_or(|pid| pid.path.is_some())
    }
}

fn signal_all(container: &Container, signal: i32) -> Result<(), Error> {
    let group = container.group()?;
    if signal == libc::SIGKILL {
        group.kill();
        return Ok(());
    }
    for pid in group.members() {
        let _ = process::kill(pid, signal);
    }
    Ok(())
}
