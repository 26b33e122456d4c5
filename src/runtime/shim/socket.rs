//! The shim's socket in its run directory.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};

const NAME: &str = "shim.sock";

/// Connects to the shim of `run_dir`.
pub(crate) fn connect(run_dir: &Path) -> io::Result<UnixStream> {
    let (_folder, path) = address(run_dir)?;
    UnixStream::connect(path)
}

/// Listens in `run_dir`, in place of whoever did before.
pub(crate) fn listen(run_dir: &Path) -> io::Result<UnixListener> {
    remove(run_dir)?;
    let (_folder, path) = address(run_dir)?;
    UnixListener::bind(path)
}

/// Removes the socket's name.
pub(crate) fn remove(run_dir: &Path) -> io::Result<()> {
    let (folder, _) = address(run_dir)?;
    match unlinkat(&folder, NAME, AtFlags::empty()) {
        Err(e) if e != rustix::io::Errno::NOENT => Err(e.into()),
        _ => Ok(()),
    }
}

/// A path short enough for a socket address (108 bytes), valid as long as the descriptor is kept.
fn address(run_dir: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let folder = rustix::fs::open(run_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(NAME);
    Ok((folder, path))
}
