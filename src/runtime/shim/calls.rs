//! System calls that a filter puts before the shim: raw ICMP sockets for `ping`, `bind` and `listen` of those whose
//! sockets are kept. The kernel allows one listener per process, so one loop answers them all, and the shim by itself:
//! nobody waits for a supervisor.
//!
//! A shim may die between the kernel's handing out a call and its answer. The listener lives on with the supervisor's
//! copy, and the caller waits: nobody else is handed that call. So each one is written down, in a file in memory that the
//! next shim gets with the listener, and answered by that.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;

use super::container::Asker;
use super::keeper::Answer;
use super::server::{Shim, Source};
use super::{Event, ping};
use crate::runtime::wire::Reply;
use crate::sys::fault;
use crate::sys::seccomp::{CALL, Call, Listener};

/// A listener, and whose calls it hears.
#[derive(Debug)]
pub(super) struct Calls {
    listener: Listener,
    /// Where the call that was handed out last is written down.
    last: Option<OwnedFd>,
    /// The container whose sockets are kept; none of an exec.
    container: Option<String>,
}

impl Shim {
    /// Answers from now on for those who are under a filter. If that fails, their calls fail.
    pub(super) fn listen_for_calls(&mut self, listener: OwnedFd, container: Option<String>) {
        let last = container.is_some().then(|| rustix::fs::memfd_create("call", MemfdFlags::CLOEXEC));
        let calls = Calls { listener: Listener::from(listener), last: last.and_then(Result::ok), container };
        self.listen_with(calls);
    }

    fn listen_with(&mut self, calls: Calls) -> Option<u64> {
        let token = self.watch(calls.listener.as_fd(), Source::Calls).ok()?;
        self.calls.insert(token, calls);
        Some(token)
    }

    /// Gives what another shim needs to keep a container's sockets.
    pub(super) fn give_kept(&mut self, asker: Asker, id: &str) {
        let listener = self.calls.values().find(|calls| calls.container.as_deref() == Some(id));
        let mut copies: Vec<OwnedFd> = Vec::new();
        if let (Some(Calls { listener, last: Some(last), .. }), Some(container)) = (listener, self.containers.get(id)) {
            let fds = [listener.as_fd(), last.as_fd()].into_iter().chain(container.keeper.sockets());
            copies.extend(fds.filter_map(|fd| fd.try_clone_to_owned().ok()));
        }
        let borrowed: Vec<BorrowedFd<'_>> = copies.iter().map(AsFd::as_fd).collect();
        self.reply(asker, Reply::Done, &borrowed);
    }

    /// Takes over what another shim kept of a container.
    pub(super) fn keep_on(&mut self, asker: Asker, id: String, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let (listener, last) = (fds.next(), fds.next());
        if let (Some(listener), Some(last), Some(container)) = (listener, last, self.containers.get_mut(&id)) {
            container.keeper.keep_on(fds);
            let written = read(&last);
            let calls = Calls { listener: Listener::from(listener), last: Some(last), container: Some(id) };
            if let (Some(token), Some(call)) = (self.listen_with(calls), written) {
                self.answer_late(token, call);
            }
        }
        self.reply(asker, Reply::Done, &[]);
    }

    /// Answers what a shim before this one was handed out last, if that still waits.
    fn answer_late(&mut self, token: u64, call: Call) {
        let waits =
            |shim: &Self, call: &Call| shim.calls.get(&token).is_some_and(|calls| calls.listener.still_waits(call));
        if waits(self, &call) {
            self.answer(token, call);
        }
        // It may have died before it wrote the next one down: what that was nobody knows but the kernel.
        let next = call.successor();
        if waits(self, &next)
            && let Some(calls) = self.calls.get(&token)
        {
            let _ = calls.listener.carry_on(&next);
        }
    }

    /// Answers the call that waits, or forgets a listener that nobody is left for.
    pub(super) fn answer_call(&mut self, token: u64, waits: bool) {
        let Some(calls) = self.calls.get(&token) else { return };
        if !waits {
            if let Some(calls) = self.calls.remove(&token) {
                self.unwatch(token, calls.listener.as_fd());
            }
            return;
        }
        let Ok(call) = calls.listener.receive() else { return };
        if let Some(last) = &calls.last {
            // A shim that can't write it down answers it all the same.
            let _ = rustix::io::pwrite(last, &call.to_bytes(), 0);
        }
        let _ = fault::point(|| format!("call {}", call.number));
        self.answer(token, call);
    }

    fn answer(&mut self, token: u64, call: Call) {
        let Some(Calls { listener, container, .. }) = self.calls.get(&token) else { return };
        let id = container.as_ref();
        let asked = match (i64::from(call.number), id.and_then(|id| self.containers.get_mut(id))) {
            (libc::SYS_bind, Some(container)) => container.keeper.bind(listener, &call, &container.group),
            (libc::SYS_listen, Some(container)) => container.keeper.listen(listener, &call),
            (libc::SYS_bind | libc::SYS_listen, None) => Ok(Answer::CarryOn),
            // A caller that has died needs no answer, here and below.
            _ => return drop(ping::answer(listener, &call)),
        };
        // What could not be found out is left to the kernel, which knows.
        let answer = asked.unwrap_or(Answer::CarryOn);
        let _ = match answer {
            Answer::CarryOn => listener.carry_on(&call),
            Answer::Done | Answer::Listens(_) => listener.done(&call),
            Answer::Refuse(errno) => listener.refuse(&call, errno),
        };
        if let (Answer::Listens(address), Some(id)) = (answer, id.cloned()) {
            self.announce(Event::Listens { id, address });
        }
    }
}

/// The call that was written down, if any was.
fn read(last: &OwnedFd) -> Option<Call> {
    let mut bytes = [0; CALL];
    let length = rustix::io::pread(last, &mut bytes, 0).ok()?;
    (length == CALL).then(|| Call::from_bytes(&bytes))
}
