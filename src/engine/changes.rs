//! Changes of files, told by the kernel.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use crate::sys::ready;

/// Notices when files in some folders change.
#[derive(Debug)]
pub struct Changes {
    inotify: AsyncFd<OwnedFd>,
}

impl Changes {
    /// No folder yet. Needs a running tokio runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self { inotify: ready::register(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)? })
    }

    /// Adds a folder: files in it that are written, made, touched, renamed or removed count.
    pub fn watch(&self, folder: &Path) -> io::Result<()> {
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        let flags = flags | WatchFlags::ATTRIB;
        inotify::add_watch(self.inotify.get_ref(), folder, flags)?;
        Ok(())
    }

    /// Returns when something has changed since the last call.
    pub async fn next(&self) -> io::Result<()> {
        // What exactly it was does not matter: the events are only drained.
        let mut events = [0; 4096];
        loop {
            let mut ready = self.inotify.readable().await?;
            match rustix::io::read(self.inotify.get_ref(), &mut events) {
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                other => return other.map(drop).map_err(io::Error::from),
            }
        }
    }
}
