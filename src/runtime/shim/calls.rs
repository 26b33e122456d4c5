//! System calls that a filter puts before the shim: raw ICMP sockets for `ping`, `bind` and `listen` of those whose
//! sockets are kept. The kernel allows one listener per process, so one loop answers them all, and the shim by itself:
//! nobody waits for a supervisor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::container::Asker;
use super::keeper::Answer;
use super::server::{Shim, Source};
use super::{Event, ping};
use crate::runtime::wire::Reply;
use crate::sys::seccomp::Listener;

/// A listener, and whose calls it hears.
#[derive(Debug)]
pub(super) struct Calls {
    listener: Listener,
    /// The container whose sockets are kept; none of an exec.
    container: Option<String>,
}

impl Shim {
    /// Answers from now on for those who are under a filter. If that fails, their calls fail.
    pub(super) fn listen_for_calls(&mut self, listener: OwnedFd, container: Option<String>) {
        let listener = Listener::from(listener);
        if let Ok(token) = self.watch(listener.as_fd(), Source::Calls) {
            self.calls.insert(token, Calls { listener, container });
        }
    }

    /// Gives what another shim needs to keep a container's sockets.
    pub(super) fn give_kept(&mut self, asker: Asker, id: &str) {
        let listener = self.calls.values().find(|calls| calls.container.as_deref() == Some(id));
        let mut copies: Vec<OwnedFd> = Vec::new();
        if let (Some(calls), Some(container)) = (listener, self.containers.get(id)) {
            let fds = std::iter::once(calls.listener.as_fd()).chain(container.keeper.sockets());
            copies.extend(fds.filter_map(|fd| fd.try_clone_to_owned().ok()));
        }
        let borrowed: Vec<BorrowedFd<'_>> = copies.iter().map(AsFd::as_fd).collect();
        self.reply(asker, Reply::Done, &borrowed);
    }

    /// Takes over what another shim kept of a container.
    pub(super) fn keep_on(&mut self, asker: Asker, id: String, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        let listener = fds.next();
        if let (Some(listener), Some(container)) = (listener, self.containers.get_mut(&id)) {
            container.keeper.keep_on(fds);
            self.listen_for_calls(listener, Some(id));
        }
        self.reply(asker, Reply::Done, &[]);
    }

    /// Answers the call that waits, or forgets a listener that nobody is left for.
    pub(super) fn answer_call(&mut self, token: u64, waits: bool) {
        let Some(Calls { listener, container }) = self.calls.get(&token) else { return };
        if !waits {
            if let Some(calls) = self.calls.remove(&token) {
                self.unwatch(token, calls.listener.as_fd());
            }
            return;
        }
        let Ok(call) = listener.receive() else { return };
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
