//! Answers to commands: one request per connection, events while it is carried out, one final reply.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use fs_err as fs;
use tokio::sync::broadcast::error::RecvError;

use super::control::{Failure, Reply, Request};
use super::supervisor::Supervisor;
use crate::sys::frame::AsyncFrames;

impl Supervisor {
    /// Serves one connection to its end.
    pub(crate) async fn answer(self: &Rc<Self>, frames: &AsyncFrames) -> io::Result<()> {
        let Some(frame) = frames.recv().await? else { return Ok(()) };
        let request: Request = serde_json::from_slice(&frame.bytes)?;
        reply_to(frames, &Reply::Accepted).await?;
        self.reunited().await;
        let answered = Box::pin(self.answer_to(frames, request, frame.fds)).await;
        self.drop_spent();
        answered
    }

    async fn answer_to(self: &Rc<Self>, frames: &AsyncFrames, request: Request, fds: Vec<OwnedFd>) -> io::Result<()> {
        match request {
            Request::Events => self.stream_events(frames).await,
            Request::Exec(exec) => self.exec(frames, exec, fds).await,
            Request::Run(run) => self.run_one_off(frames, *run, fds).await,
            Request::Attach { container } => self.attach(frames, &container).await,
            Request::Root { container, alone } => self.send_root(frames, &container, alone).await,
            Request::Witness { services } => self.witness(frames, services, fds).await,
            Request::Hold { container } => self.hold(frames, &container).await,
            Request::Wait { services } => {
                let reply =
                    self.wait_services(&services).await.map_or_else(Reply::Failed, |code| Reply::Exited { code });
                reply_to(frames, &reply).await
            }
            Request::Plan(request) => {
                let reply = self.explain(&request).map_or_else(Reply::Failed, |outlook| Reply::Plan(Box::new(outlook)));
                reply_to(frames, &reply).await
            }
            Request::Succeed { version } => {
                let Some(program) = fds.into_iter().next() else { return Err(io::ErrorKind::InvalidData.into()) };
                let handed = self.hand_over(&version, program).await;
                let reply = handed.as_ref().map_or_else(|e| Reply::Failed(e.clone()), |_| Reply::Done);
                let told = reply_to(frames, &reply).await;
                if handed == Ok(true) {
                    self.step_down();
                }
                told
            }
            verb => self.carry_out(frames, verb).await,
        }
    }

    /// Carries out a verb that changes the stack, and relays what happens meanwhile.
    async fn carry_out(self: &Rc<Self>, frames: &AsyncFrames, request: Request) -> io::Result<()> {
        let mut events = self.subscribe();
        let this = self.clone();
        let mut work = tokio::task::spawn_local(async move { this.dispatch(request).await });
        let task = work.id();
        let mut listening = true;
        let outcome = loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    // A command that has gone does not stop what it began.
                    Ok(event) if listening => listening = reply_to(frames, &Reply::Event(event)).await.is_ok(),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break Err(Failure::new("the supervisor is ending")),
                },
                // A command says nothing more: what is heard is its end.
                _ = frames.recv(), if listening => {
                    listening = false;
                    self.turn.abandon(task);
                }
                done = &mut work => break done.unwrap_or_else(|e| Err(Failure::new(format!("the supervisor failed: {e}")))),
            }
        };
        self.turn.forget(task);
        while let (true, Ok(event)) = (listening, events.try_recv()) {
            listening = reply_to(frames, &Reply::Event(event)).await.is_ok();
        }
        reply_to(frames, &outcome.map_or_else(Reply::Failed, |()| Reply::Done)).await
    }

    async fn dispatch(self: &Rc<Self>, request: Request) -> Result<(), Failure> {
        match request {
            Request::Fault { text } => {
                let shim = self.present_shim();
                crate::sys::fault::arm(&text, shim.is_some());
                match shim {
                    Some(shim) => shim.arm(&text).await.map_err(|e| Failure::new(e.to_string())),
                    None => Ok(()),
                }
            }
            Request::Up(up) => {
                let outcome = self.up(*up).await;
                // Beside the work; what isn't synced is unpacked anew after a power cut.
                let store = self.store.clone();
                drop(tokio::task::spawn_blocking(move || store.settle()));
                outcome
            }
            Request::Down(down) => self.down(&down).await,
            Request::Start { services, wait, wait_timeout } => self.start_services(&services, wait, wait_timeout).await,
            Request::Stop { .. }
            | Request::Restart { .. }
            | Request::Kill { .. }
            | Request::Remove { .. }
            | Request::Pause { .. } => self.change_existing(&request).await,
            Request::Update { services, limits } => self.update(&services, &limits).await,
            Request::Connect { container, network, attachment } => {
                self.connect(&container, &network, *attachment).await
            }
            Request::Disconnect { container, network } => self.disconnect(&container, &network).await,
            Request::Events
            | Request::Succeed { .. }
            | Request::Exec(_)
            | Request::Run(_)
            | Request::Attach { .. }
            | Request::Root { .. }
            | Request::Witness { .. }
            | Request::Hold { .. }
            | Request::Wait { .. }
            | Request::Plan(_) => Ok(()),
        }
    }

    async fn stream_events(&self, frames: &AsyncFrames) -> io::Result<()> {
        let mut events = self.subscribe();
        reply_to(frames, &Reply::Done).await?;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Ok(event) => reply_to(frames, &Reply::Event(event)).await?,
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
                closed = frames.recv() => return closed.map(drop),
            }
        }
    }
}

/// Sends a reply.
pub(crate) async fn reply_to(frames: &AsyncFrames, reply: &Reply) -> io::Result<()> {
    frames.send(&serde_json::to_vec(reply)?, &[]).await
}

/// Sends a reply with descriptors.
pub(crate) async fn reply_with(frames: &AsyncFrames, reply: &Reply, fds: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    frames.send(&serde_json::to_vec(reply)?, &fds).await
}

/// Standard input, if it is a socket; it is replaced by /dev/null.
pub(crate) fn first_client() -> io::Result<Option<UnixStream>> {
    let input = io::stdin();
    if rustix::net::sockopt::socket_domain(input.as_fd()).is_err() {
        return Ok(None);
    }
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(input.as_fd(), 3)?;
    rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?.file())?;
    Ok(Some(socket.into()))
}
