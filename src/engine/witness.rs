//! Dev mode must not mistake what a container writes itself for a change by somebody else: while it asks, the mounts
//! through which containers can write to the host are marked in its queue, from before their programs begin.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::OFlags;

use super::control::{Action, Failure, Reply};
use super::rootfs::Root;
use super::serve::reply_to;
use super::state::{Container, Status};
use super::supervisor::Supervisor;
use crate::sys::fanotify::{Fanotify, Scope};
use crate::sys::frame::AsyncFrames;
use crate::sys::path;

/// Who wants to know what some services write.
#[derive(Debug)]
pub(crate) struct Witness {
    services: BTreeSet<String>,
    queue: Fanotify,
}

impl Supervisor {
    /// Answers a request to witness what services write, until its connection is closed.
    pub(crate) async fn witness(
        self: &Rc<Self>,
        frames: &AsyncFrames,
        services: BTreeSet<String>,
        fds: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let Some(queue) = fds.into_iter().next().map(Fanotify::from) else {
            return reply_to(frames, &Reply::Failed(Failure::new("there is no queue to witness writes in"))).await;
        };
        let witness = Rc::new(Witness { services, queue });
        self.witnesses.borrow_mut().push(witness.clone());
        for container in self.containers() {
            if matches!(container.state.status, Status::Running | Status::Paused) {
                self.mark_writes(&container);
            }
        }
        let told = reply_to(frames, &Reply::Done).await;
        while let Ok(Some(_)) = frames.recv().await {}
        self.witnesses.borrow_mut().retain(|other| !Rc::ptr_eq(other, &witness));
        told
    }

    /// Marks the mounts through which a container can write to the host, for those who want to know.
    pub(crate) fn mark_writes(&self, container: &Container) {
        let witnesses = self.witnesses.borrow().clone();
        for witness in witnesses.iter().filter(|witness| witness.services.contains(&container.record.service)) {
            if let Err(e) = witness.mark(container) {
                let message = format!("what it writes itself counts as a change, too: {e}");
                self.tell(container, Action::Warning { message });
            }
        }
    }
}

impl Witness {
    fn mark(&self, container: &Container) -> io::Result<()> {
        let binds = container.record.mounts.iter().filter(|mount| mount.kind == "bind" && !mount.read_only);
        let targets: Vec<&Path> = binds.map(|mount| Path::new(&mount.target)).collect();
        if targets.is_empty() {
            return Ok(());
        }
        let root = Root::of_running(container)?;
        for target in targets {
            let place = path::open_in_root(root.as_fd(), target, OFlags::PATH)?;
            let named = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
            self.queue.mark(Scope::Mount, libc::FAN_CLOSE_WRITE, &named)?;
        }
        Ok(())
    }
}
