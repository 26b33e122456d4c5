//! Pseudo-terminals of a given devpts instance.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// A new terminal: (master, its other end). `ptmx` is opened below `devpts`. The other end is opened through the
/// master, so that no path can lead anywhere else.
pub fn open(devpts: BorrowedFd<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let master = openat(devpts, "ptmx", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, peer))
}

/// Sets rows and columns.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Makes the terminal the controlling one of the caller, which must lead a session.
pub fn control(terminal: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(terminal)?)
}
