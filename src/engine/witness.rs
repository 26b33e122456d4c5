//! Dev mode must not mistake what a container writes itself for a change by somebody else: while it asks, the mounts
//! through which containers can write to the host are marked in its queue, from before their programs begin.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::OFlags;

use super::control::{Action, Failure, Reply};
use super::rootfs::Root;
use super::serve::reply_to;
use super::state::{Container, Status};
use super::supervisor::Supervisor;
use crate::runtime::launch::Mount;
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
                let marked = marks_of_running(&container).and_then(|mounts| witness.mark(&container, &mounts));
                self.tell_of(&container, marked);
            }
        }
        let told = reply_to(frames, &Reply::Done).await;
        while let Ok(Some(_)) = frames.recv().await {}
        self.witnesses.borrow_mut().retain(|other| !Rc::ptr_eq(other, &witness));
        told
    }

    /// Marks what a container that is about to begin can write to the host through, for those who want to know: its
    /// `mounts`, whose trees are among `fds`.
    pub(crate) fn mark_writes(&self, container: &Container, mounts: &[Mount], fds: &[OwnedFd]) {
        let trees: Vec<BorrowedFd<'_>> = mounts
            .iter()
            .filter_map(|mount| match mount {
                Mount::Tree { slot, target, .. } if writable(container).any(|other| other == target) => fds.get(slot.0),
                _ => None,
            })
            .map(AsFd::as_fd)
            .collect();
        for witness in self.witnesses.borrow().iter() {
            self.tell_of(container, witness.mark(container, &trees));
        }
    }

    fn tell_of(&self, container: &Container, marked: io::Result<()>) {
        if let Err(e) = marked {
            let message = format!("what it writes itself counts as a change, too: {e}");
            self.tell(container, Action::Warning { message });
        }
    }
}

impl Witness {
    fn mark(&self, container: &Container, mounts: &[impl AsFd]) -> io::Result<()> {
        if !self.services.contains(&container.record.service) {
            return Ok(());
        }
        mounts.iter().try_for_each(|mount| {
            let place = PathBuf::from(format!("/proc/self/fd/{}", mount.as_fd().as_raw_fd()));
            self.queue.mark(Scope::Mount, libc::FAN_CLOSE_WRITE, &place)
        })
    }
}

/// The targets of a container's bind mounts that it can write to.
fn writable(container: &Container) -> impl Iterator<Item = &String> {
    let binds = container.record.mounts.iter().filter(|mount| mount.kind == "bind" && !mount.read_only);
    binds.map(|mount| &mount.target)
}

fn marks_of_running(container: &Container) -> io::Result<Vec<OwnedFd>> {
    let root = Root::of_running(container)?;
    writable(container).map(|target| path::open_in_root(root.as_fd(), Path::new(target), OFlags::PATH)).collect()
}
