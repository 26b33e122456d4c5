//! Processes started in running containers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::State;
use super::container::{Asker, ExecRecord, Watched};
use super::server::{Shim, Source};
use crate::runtime::caps;
use crate::runtime::child::{self, Joined, Port, Standard};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Process;
use crate::runtime::wire::{Reply, Report};
use crate::sys::userns;

impl Shim {
    /// Clones a process into a container; the answer follows when its socket closes.
    pub(super) fn exec(&mut self, asker: Asker, id: &str, process: &Process, fds: Vec<OwnedFd>) {
        let Some(container) = self.containers.get(id) else {
            return self.reply(asker, Reply::Unknown(id.to_owned()), &[]);
        };
        if container.state != State::Running {
            let state = "not running".to_owned();
            return self.reply(asker, Reply::State { id: id.to_owned(), state }, &[]);
        }
        if let Err(error) = self.try_exec(asker, id, process, fds) {
            self.reply(asker, Reply::Launch(error), &[]);
        }
    }

    fn try_exec(&mut self, asker: Asker, id: &str, process: &Process, fds: Vec<OwnedFd>) -> Result<(), LaunchError> {
        let Some(container) = self.containers.get(id) else { return Ok(()) };
        let held = caps::mask(&process.caps).map_err(|e| LaunchError::refused("capabilities", e))?;
        let filter = if container.privileged { None } else { self.filters.get(&container.seccomp, held, false)? };
        let (ours, theirs) = Port::pair().map_err(|e| LaunchError::new("make a socket", e))?;
        let mut fds = fds.into_iter();
        let standard = Standard { fds: [fds.next(), fds.next(), fds.next()], owned: false };
        let guest = userns::of_process(container.pid).map_err(|e| LaunchError::new("enter the container", e))?;
        let joined = Joined {
            process,
            port: theirs,
            standard,
            filter,
            group: &container.group,
            container: &container.pidfd,
            guest: guest.is_some(),
        };
        let unified =
            container.group.unified_of(container.pid).map_err(|e| LaunchError::new("open the control group", e))?;
        let cloned = self.clone_into(Some(&container.pidfd), 0, unified.as_ref(), || child::run_exec(&joined));
        let cloned = cloned.map_err(|e| LaunchError::new("enter the container", e))?;
        drop(joined);
        let token = self.watch(ours.as_fd(), Source::Exec(cloned.pid));
        let token = token.map_err(|e| LaunchError::new("watch the process", e))?;
        let record = ExecRecord {
            exec_id: new_id(),
            pidfd: cloned.pidfd,
            port: Some(Watched { token, it: ours }),
            failure: None,
            asker,
            master: None,
        };
        self.execs.insert(cloned.pid, record);
        Ok(())
    }

    /// Takes what an exec's clone reports.
    pub(super) fn hear_exec(&mut self, pid: i32) {
        loop {
            let Some(record) = self.execs.get_mut(&pid) else { return };
            let Some(port) = &record.port else { return };
            match port.it.hear() {
                Ok(Some((Report::Terminal, master))) => record.master = master,
                Ok(Some((Report::Listener, listener))) => {
                    if let Some(listener) = listener {
                        self.listen_for_calls(listener, None);
                    }
                }
                Ok(Some((Report::Failed(error), _))) => record.failure = Some(error),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => break,
            }
        }
        let Some(record) = self.execs.get_mut(&pid) else { return };
        let Some(port) = record.port.take() else { return };
        let failed = record.failure.is_some();
        self.unwatch(port.token, port.it.as_fd());
        // A failure is answered once the clone is reaped.
        if failed {
            return;
        }
        let Some(mut record) = self.execs.remove(&pid) else { return };
        let reply = Reply::Exec { exec_id: record.exec_id.clone(), pid };
        let master = record.master.take();
        let fds: Vec<BorrowedFd<'_>> =
            std::iter::once(record.pidfd.as_fd()).chain(master.as_ref().map(AsFd::as_fd)).collect();
        self.reply(record.asker, reply, &fds);
        drop(fds);
        self.execs.insert(pid, record);
    }
}

fn new_id() -> String {
    let mut bytes = [0_u8; 16];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    format!("{:032x}", u128::from_be_bytes(bytes))
}
