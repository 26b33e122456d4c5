//! The shim's socket in its run directory.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::sys::path::short_path;

const NAME: &str = "shim.sock";

/// Connects to the shim of `run_dir`.
pub(crate) fn connect(run_dir: &Path) -> io::Result<UnixStream> {
    let (_folder, path) = short_path(&run_dir.join(NAME))?;
    UnixStream::connect(path)
}

/// Listens in `run_dir`, in place of whoever did before.
pub(crate) fn listen(run_dir: &Path) -> io::Result<UnixListener> {
    remove(run_dir)?;
    let (_folder, path) = short_path(&run_dir.join(NAME))?;
    UnixListener::bind(path)
}

/// Removes the socket's name.
pub(crate) fn remove(run_dir: &Path) -> io::Result<()> {
    match fs_err::remove_file(run_dir.join(NAME)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
