//! From a container's pipe or terminal into its log.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jiff::Timestamp;

use super::log::{Log, Splitter, Stream};

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Chunks read before others get their turn.
const TURNS: usize = 4;

/// One output of a container.
#[derive(Debug)]
pub(super) struct Drain {
    fd: OwnedFd,
    stream: Stream,
    splitter: Splitter,
    /// A terminal: what was read is logged at once, as a prompt has no end of line.
    eager: bool,
}

impl Drain {
    /// Drains a descriptor that doesn't block.
    pub(super) fn new(fd: OwnedFd, stream: Stream, eager: bool) -> Self {
        Self { fd, stream, splitter: Splitter::default(), eager }
    }

    /// Moves what is there; `false` at the end. Stops after a while unless it is to be `complete`.
    pub(super) fn run(&mut self, log: &mut Log, buffer: &mut Vec<u8>, complete: bool) -> bool {
        buffer.resize(CHUNK, 0);
        let mut turns = 0;
        let open = loop {
            if turns == TURNS && !complete {
                break true;
            }
            turns += 1;
            match rustix::io::read(&self.fd, &mut buffer[..]) {
                Ok(0) => break false,
                Ok(length) => {
                    let time = Timestamp::now();
                    self.splitter.push(&buffer[..length], |piece| log.add(self.stream, piece, time));
                    if self.eager {
                        self.splitter.finish(|piece| log.add(self.stream, piece, time));
                    }
                    if length < CHUNK && !complete {
                        break true;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break true,
                // EIO: nobody has the terminal open any more.
                Err(_) => break false,
            }
        };
        log.flush();
        open
    }

    /// Moves everything that is there, the beginning of a line included.
    pub(super) fn finish(mut self, log: &mut Log, buffer: &mut Vec<u8>) {
        self.run(log, buffer, true);
        self.splitter.finish(|piece| log.add(self.stream, piece, Timestamp::now()));
        log.flush();
    }
}

impl AsFd for Drain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
