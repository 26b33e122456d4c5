//! `RUN --mount=type=ssh`: the caller's ssh agent, reached through a socket of the step's own.
//!
//! The agent's own socket is never mounted: it belongs to the caller and speaks to nobody else. A step gets a socket with
//! the owner and mode that it asks for, and what comes in there is passed on for as long as the step runs.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener as Listener;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use super::instruction::Mount;
use crate::sys::path::short_path;

/// Id of the agent that a mount without one means.
pub(crate) const DEFAULT: &str = "default";

/// Passes connections on to an agent until it is dropped.
#[derive(Debug)]
pub(crate) struct Forward(#[expect(dead_code, reason = "its tasks end with it")] JoinSet<()>);

impl Forward {
    /// Listens at `socket`, with the owner and mode of `mount`, for what goes to `agent`.
    pub(crate) fn new(socket: &Path, agent: &Path, mount: &Mount) -> io::Result<Self> {
        let (_folder, short) = short_path(socket)?;
        let listener = Listener::bind(&short)?;
        fs_err::set_permissions(socket, PermissionsExt::from_mode(mount.mode.unwrap_or(0o600)))?;
        chown(&short, Some(mount.uid), Some(mount.gid))?;
        listener.set_nonblocking(true)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(UnixListener::from_std(listener)?, agent.to_owned()));
        Ok(Self(tasks))
    }
}

async fn serve(listener: UnixListener, agent: PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        let agent = agent.clone();
        connections.spawn(async move {
            // The step sees an agent that hangs up, which is what happened.
            if let Ok(mut far) = UnixStream::connect(agent).await {
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
