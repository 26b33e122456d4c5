//! Standard input and outputs of a process in a container.
//!
//! What the caller's own shell made as a pipe is handed over as it is. Terminals and files are not: a process in a
//! container must not hold a descriptor of the host's terminal or files, which it could open anew with other rights.
//! They get a pipe, and a thread here copies.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::mpsc;

/// Which of this process's outputs something goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    Stderr,
}

impl Target {
    fn write(self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
            Self::Stderr => io::stderr().write_all(bytes),
        }
    }
}

/// A thread that copies an output to the caller.
#[derive(Debug)]
pub(crate) struct Output {
    thread: JoinHandle<io::Result<()>>,
    /// Closing it tells the thread that nothing more is to come.
    stop: OwnedFd,
}

impl Output {
    /// Copies from a pipe or a terminal's master.
    pub(crate) fn start(from: OwnedFd, to: Target) -> io::Result<Self> {
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let thread = std::thread::spawn(move || copy_out(&from, to, &stopped));
        Ok(Self { thread, stop })
    }

    /// Copies what is there by now, then ends. Processes that the program left behind may hold the other end.
    pub(crate) fn finish(self) -> io::Result<()> {
        drop(self.stop);
        self.thread.join().unwrap_or(Ok(()))
    }
}

fn copy_out(from: &OwnedFd, to: Target, stopped: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut ending = false;
    loop {
        let mut fds = [PollFd::new(from, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        let watched = if ending { &mut fds[..1] } else { &mut fds[..] };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(watched, ending.then_some(&now)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if !fds[0].revents().is_empty() {
            match rustix::io::read(from, &mut buffer) {
                // A terminal's master says EIO once nobody has the other end.
                Ok(0) | Err(rustix::io::Errno::IO) => return Ok(()),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
                Ok(count) => to.write(&buffer[..count])?,
            }
        } else if ending {
            return Ok(());
        }
        ending = ending || !fds[1].revents().is_empty();
    }
}

/// Keys that let go of a process without ending it: ctrl-p ctrl-q, or `--detach-keys`.
#[derive(Debug, Clone)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// Reads docker's form: letters and `ctrl-X`, separated by commas. Nothing means that no keys detach.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let key = |name: &str| match name.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter]) if letter.is_ascii_alphabetic() || b"@[\\]^_".contains(letter) => Some(letter & 0x1f),
            Some(_) => None,
            None => match name.as_bytes() {
                [byte] => Some(*byte),
                _ => None,
            },
        };
        let keys = text.split(',').filter(|name| !name.is_empty()).map(key).collect::<Option<_>>()?;
        Some(Self { keys, matched: 0 })
    }

    /// What of `input` goes on to the process, and whether the keys were complete in it. The beginning of the keys is
    /// held back until it is clear that they are something else.
    fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(input.len());
        for byte in input {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (passed, true);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(byte));
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

/// Copies standard input to a process until one of them ends. Says so if the detach keys were pressed.
///
/// The thread stays blocked in its last read; it ends with this process.
pub(crate) fn send_input(to: OwnedFd, mut keys: Option<DetachKeys>) -> mpsc::UnboundedReceiver<()> {
    let (detached, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let mut to = File::from(to);
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = io::stdin().read(&mut buffer) {
            let (bytes, pressed) = match &mut keys {
                Some(keys) => keys.filter(&buffer[..count]),
                None => (buffer[..count].to_vec(), false),
            };
            if pressed {
                let _ = detached.send(());
            }
            if pressed || count == 0 || to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The channel stays open: only the keys are to be heard, not an end of the input.
        std::mem::forget(detached);
    });
    receiver
}

/// The three descriptors for a process without a terminal, and the threads that copy.
#[derive(Debug)]
pub(crate) struct Plumbing {
    pub(crate) fds: [OwnedFd; 3],
    outputs: Vec<Output>,
}

impl Plumbing {
    /// `input`: whether the process gets our standard input, or an empty one.
    pub(crate) fn new(input: bool) -> io::Result<Self> {
        let mut outputs = Vec::new();
        let stdin = if !input {
            fs_err::File::open("/dev/null")?.into_file().into()
        } else if is_plain(io::stdin().as_fd())? {
            io::stdin().as_fd().try_clone_to_owned()?
        } else {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            send_input(ours, None);
            theirs
        };
        let mut output = |fd: std::os::fd::BorrowedFd<'_>, target| {
            if is_plain(fd)? {
                return fd.try_clone_to_owned();
            }
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
            outputs.push(Output::start(ours, target)?);
            Ok(theirs)
        };
        let stdout = output(io::stdout().as_fd(), Target::Stdout)?;
        let stderr = output(io::stderr().as_fd(), Target::Stderr)?;
        Ok(Self { fds: [stdin, stdout, stderr], outputs })
    }

    /// Gives up our copies of what the process has now; the rest waits for its end.
    pub(crate) fn handed_over(self) -> Vec<Output> {
        self.outputs
    }
}

/// Whether a descriptor may go into a container: an unnamed pipe gives nothing but its bytes.
fn is_plain(fd: std::os::fd::BorrowedFd<'_>) -> io::Result<bool> {
    let stat = fstat(fd)?;
    let fifo = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    // A named pipe is a file of the host's.
    Ok(fifo && rustix::fs::fstatfs(fd)?.f_type == PIPEFS)
}

const PIPEFS: rustix::fs::FsWord = 0x5049_5045;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_held_back_until_clear() {
        let mut keys = DetachKeys::parse("ctrl-p,ctrl-q").unwrap();
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11x"), (Vec::new(), true));
        assert!(DetachKeys::parse("ctrl-pp").is_none());
        assert_eq!(DetachKeys::parse("").unwrap().filter(b"a"), (b"a".to_vec(), false));
    }

    #[test]
    fn pipes_go_into_containers_and_files_do_not() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert!(is_plain(reader.as_fd()).unwrap() && is_plain(writer.as_fd()).unwrap());
        let file = tempfile::tempfile().unwrap();
        assert!(!is_plain(file.as_fd()).unwrap());
    }
}
