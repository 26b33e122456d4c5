//! Keys that `up` in the foreground obeys, on a terminal.

use std::future::pending;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::sys::ready;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// Dev mode on or off.
    Watch,
    /// Leave the stack running, and end.
    Detach,
    /// An empty line, to see what comes after it.
    Line,
}

/// The keyboard, whose keys arrive one by one and are not shown. Ctrl-C stays a signal. Dropped, the terminal is what
/// it was.
#[derive(Debug)]
pub(crate) struct Keys {
    terminal: AsyncFd<OwnedFd>,
    continued: Signal,
    before: Option<Termios>,
}

impl Keys {
    /// The keyboard, if standard input is a terminal. Needs a running tokio runtime.
    pub(crate) fn new() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !termios::isatty(&stdin) {
            return Ok(None);
        }
        let terminal = ready::register(rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?)?;
        let mut keys = Self { terminal, continued: signal(SignalKind::from_raw(libc::SIGCONT))?, before: None };
        keys.enter()?;
        Ok(Some(keys))
    }

    /// Takes the terminal, unless it is somebody else's now.
    fn enter(&mut self) -> io::Result<()> {
        let terminal = self.terminal.get_ref();
        if termios::tcgetpgrp(terminal).ok() != Some(rustix::process::getpgrp()) {
            return Ok(());
        }
        let now = termios::tcgetattr(terminal)?;
        let mut wanted = now.clone();
        wanted.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        wanted.special_codes[SpecialCodeIndex::VMIN] = 0;
        wanted.special_codes[SpecialCodeIndex::VTIME] = 0;
        // It would end the process without giving the terminal back.
        wanted.special_codes[SpecialCodeIndex::VQUIT] = 0;
        termios::tcsetattr(terminal, OptionalActions::Now, &wanted)?;
        self.before.get_or_insert(now);
        Ok(())
    }

    /// The next key that means something.
    pub(crate) async fn next(&mut self) -> io::Result<Key> {
        loop {
            tokio::select! {
                ready = self.terminal.readable() => {
                    let mut guard = ready?;
                    let mut byte = [0];
                    match rustix::io::read(guard.get_inner(), &mut byte) {
                        Ok(0) | Err(Errno::AGAIN) => guard.clear_ready(),
                        Ok(_) => if let Some(key) = meaning(byte[0]) {
                            return Ok(key);
                        },
                        Err(Errno::INTR) => {}
                        // The terminal is gone, or another's: signals tell the rest.
                        Err(_) => guard.clear_ready(),
                    }
                }
                // Who was stopped finds the terminal as the shell left it.
                _ = self.continued.recv() => self.enter()?,
            }
        }
    }
}

fn meaning(byte: u8) -> Option<Key> {
    match byte {
        b'w' | b'W' => Some(Key::Watch),
        b'd' | b'D' => Some(Key::Detach),
        b'\r' | b'\n' => Some(Key::Line),
        _ => None,
    }
}

/// The next key of a keyboard; none ever where there is none.
pub(crate) async fn next(keys: &mut Option<Keys>) -> io::Result<Key> {
    match keys {
        Some(keys) => keys.next().await,
        None => pending().await,
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Where the terminal is gone there is nothing to restore.
            let _ = termios::tcsetattr(self.terminal.get_ref(), OptionalActions::Now, before);
        }
    }
}
