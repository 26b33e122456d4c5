//! Letting a container's process go on to its program.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{Mode, OFlags};

use super::error::{Doing as _, Error};
use super::state::{Container, Status};
use super::{Oci, hook};
use crate::runtime::error::LaunchError;

/// How long a process that was told to end may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl Oci {
    /// Starts a container that was created.
    ///
    /// # Errors
    /// When it is in any other state, its program can't be run, or a hook failed; then it is gone.
    pub fn start(&self, id: &str) -> Result<(), Error> {
        let container = Container::load(&self.root, id)?;
        let wrong = |status| Error::State { what: "start", id: id.to_owned(), status };
        let status = container.status();
        if status != Status::Created {
            return Err(wrong(status));
        }
        if container.config.process.is_none() {
            return Err(Error::Config("process is missing: there is nothing to start".to_owned()));
        }
        let open = |path: std::path::PathBuf, flags| {
            rustix::fs::open(&path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
                .doing(|| format!("open {}", path.display()))
        };
        let outcome = open(container.outcome(), OFlags::RDONLY)?;
        let go = open(container.go(), OFlags::WRONLY)?;
        // Only one start takes the name away.
        if fs::remove_file(container.go()).is_err() {
            return Err(wrong(Status::Running));
        }
        rustix::io::ioctl_fionbio(&outcome, false).doing(|| "listen to the container".to_owned())?;
        fs_file(go).write_all(b"g").doing(|| "start the container".to_owned())?;
        let mut reason = String::new();
        // The end comes with the exec, which closes the other side.
        fs_file(outcome).read_to_string(&mut reason).doing(|| "listen to the container".to_owned())?;
        let _ = fs::remove_file(container.outcome());
        if !reason.is_empty() {
            container.await_end(PATIENCE);
            end(&container);
            return Err(LaunchError::refused("start", reason).into());
        }
        let state = container.state(Status::Running);
        hook::run("poststart", &container.config.hooks.poststart, &state, &[]).inspect_err(|_| end(&container))
    }
}

/// Stops and removes a container, hooks included.
fn end(container: &Container) {
    container.clean();
    hook::run_all("poststop", &container.config.hooks.poststop, &container.state(Status::Stopped));
}

fn fs_file(fd: std::os::fd::OwnedFd) -> std::fs::File {
    fd.into()
}
