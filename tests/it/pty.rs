//! A terminal of a test's own, with `stack` in front of it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcgetpgrp, tcsetwinsize};

use crate::poll::until_true;
use crate::sandbox::{STACK, Sandbox};

/// A command at a terminal.
pub(crate) struct Terminal {
    line: String,
    master: File,
    seen: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Terminal {
    /// Starts `stack` with these words at a terminal of 80 columns and 24 rows.
    pub(crate) fn start(sandbox: &Sandbox, words: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = || -> OwnedFd { File::options().read(true).write(true).open(&name).unwrap().into() };
        resize(&master, (80, 24));
        let args: Vec<&str> = ["--ctty", "--wait", STACK].into_iter().chain(words.iter().copied()).collect();
        let mut command = sandbox.command("setsid", &args);
        command.stdin(Stdio::from(slave())).stdout(Stdio::from(slave())).stderr(Stdio::from(slave()));
        let child = command.env("TERM", "xterm").env("NO_COLOR", "1").spawn().unwrap();
        drop(command);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (File::from(master.try_clone().unwrap()), seen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The last user's end of the terminal is an error here.
            while let Ok(count) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { line: words.join(" "), master: master.into(), seen, child }
    }

    /// What the terminal has shown so far.
    pub(crate) fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Types.
    pub(crate) fn key(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Makes the window another size, columns and rows.
    pub(crate) fn resize(&self, size: (u16, u16)) {
        resize(&self.master, size);
    }

    /// Waits until the terminal has shown a text.
    pub(crate) fn until_shown(&self, text: &str) {
        until_true(&format!("`{}` shows {text:?}, not {:?}", self.line, self.seen()), || self.seen().contains(text));
    }

    /// Whether what is typed is shown, and read line by line.
    pub(crate) fn is_usual(&self) -> bool {
        tcgetattr(&self.master).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Sends a signal to the command.
    pub(crate) fn signal(&self, signal: Signal) {
        let group = tcgetpgrp(&self.master).unwrap().as_raw_nonzero().get();
        killpg(Pid::from_raw(group), signal).unwrap();
    }

    /// Waits for the command's end; its exit code. The terminal is then what it was.
    pub(crate) fn finish(mut self) -> i32 {
        until_true(&format!("`{}` ends", self.line), || self.child.try_wait().unwrap().is_some());
        assert!(self.is_usual(), "`{}` left the terminal as nobody can use it", self.line);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

fn resize(master: impl std::os::fd::AsFd, (columns, rows): (u16, u16)) {
    tcsetwinsize(master, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}
