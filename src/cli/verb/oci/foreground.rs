//! Being in front of a container's process: signals, its terminal, its exit code.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};

use crate::cli::error::{Error, Outcome};
use crate::cli::terminal::{self, RawMode};
use crate::sys::process;

/// Bytes read at once.
const CHUNK: usize = 16 << 10;

/// From now on, no signal ends this process: they wait until they can be passed on.
pub(super) fn begin() -> Result<(), Error> {
    process::set_subreaper()?;
    process::block_all_signals()?;
    Ok(())
}

/// Passes signals on until the process ends; gives its exit code.
pub(super) fn until_end(pidfd: OwnedFd, master: Option<OwnedFd>) -> Outcome {
    let raw = if master.is_some() { RawMode::enter()? } else { None };
    let output = master.as_ref().map(relay).transpose()?;
    if let Some(master) = &master {
        terminal::resize(master)?;
    }
    let code = loop {
        // A child may have ended before anybody waited.
        if process::await_end(pidfd.as_fd(), std::time::Duration::ZERO)? {
            let ended = process::wait_for(pidfd.as_fd());
            break ended.map_or(1, |ended| ended.signal.map_or(ended.code, |signal| 128 + signal));
        }
        match (process::next_signal(), &master) {
            (Ok(libc::SIGWINCH), Some(master)) => terminal::resize(master)?,
            (Ok(signal), _) if signal != libc::SIGCHLD => {
                // One that has ended needs none.
                let _ = process::signal(pidfd.as_fd(), signal);
            }
            _ => {}
        }
    };
    if let Some(output) = output {
        // The rest of what it wrote: the terminal ends when nobody has its other end any more.
        drop(master);
        let _ = output.join();
    }
    drop(raw);
    Ok(u8::try_from(code).unwrap_or(1))
}

/// Carries what is typed to the terminal, and what it shows back.
fn relay(master: &OwnedFd) -> io::Result<std::thread::JoinHandle<()>> {
    let (input, output) = (File::from(master.try_clone()?), File::from(master.try_clone()?));
    std::thread::spawn(move || carry(io::stdin(), input));
    Ok(std::thread::spawn(move || carry(output, io::stdout())))
}

fn carry(mut from: impl Read, mut to: impl Write) {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if to.write_all(&buffer[..length]).and_then(|()| to.flush()).is_err() {
                    return;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
