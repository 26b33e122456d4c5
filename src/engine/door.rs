//! Where commands come in: a connection is answered even by a process that may open no more files.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};

use super::control::{Failure, Reply};
use super::serve::reply_to;
use crate::sys::frame::AsyncFrames;
use crate::sys::process;

/// How long to wait where not even a refusal can be sent.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections, with a descriptor in reserve.
#[derive(Debug)]
pub(crate) struct Door {
    reserve: Option<OwnedFd>,
}

impl Door {
    /// A door with its reserve: standard input, since its number is below every limit. For a process with one thread.
    pub(crate) fn new() -> Self {
        process::close_stdin();
        Self { reserve: reserve() }
    }

    /// The next connection. Where no descriptor is free for it, the reserve is given up for a moment: to whoever
    /// connects it is said why nobody answers.
    pub(crate) async fn accept(&mut self, listener: &UnixListener) -> io::Result<UnixStream> {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    self.lower();
                    return Ok(socket);
                }
                Err(e) if is_exhausted(&e) => self.turn_away(listener, &e).await,
                Err(e) => return Err(e),
            }
        }
    }

    /// Takes a lower number where another thread had that for a moment when the reserve was taken back.
    fn lower(&mut self) {
        let number = |reserve: &Option<OwnedFd>| reserve.as_ref().map_or(RawFd::MAX, AsRawFd::as_raw_fd);
        if number(&self.reserve) > 0 {
            let other = reserve();
            if number(&other) < number(&self.reserve) {
                self.reserve = other;
            }
        }
    }

    async fn turn_away(&mut self, listener: &UnixListener, error: &io::Error) {
        // The kernel says so even where nobody waits; others would take what is given up for nobody.
        if !is_awaited(listener) {
            return tokio::time::sleep(PAUSE).await;
        }
        drop(self.reserve.take());
        let accepted = tokio::time::timeout(PAUSE, listener.accept()).await;
        if let Ok(Ok((socket, _))) = accepted {
            let failure = Failure::new(format!("the supervisor can take no more commands: {error}"))
                .hint("let fewer commands run at the same time, or raise its limit with `prlimit --nofile`");
            // Who has gone meanwhile need not know.
            let _ = reply_to(&AsyncFrames::new(socket), &Reply::Failed(failure)).await;
        } else {
            tokio::time::sleep(PAUSE).await;
        }
        self.reserve = reserve();
    }
}

/// The descriptor of the lowest number that is free; whatever runs later may inherit it.
fn reserve() -> Option<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).ok()
}

/// Whether a connection waits to be accepted.
fn is_awaited(listener: &UnixListener) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Whether this process, or the machine, may open no more files.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
