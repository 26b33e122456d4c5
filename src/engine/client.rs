//! A command's connection to a project's supervisor, which it starts where none runs.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fs_err as fs;
use rustix::fs::{Mode, OFlags};

use super::control::{Reply, Request};
use super::paths::Paths;
use crate::sys::fault;
use crate::sys::frame::AsyncFrames;
use crate::sys::path::short_path;

/// A connection that carries one request and its replies.
#[derive(Debug)]
pub struct Client {
    frames: AsyncFrames,
}

impl Client {
    /// Connects to the project's supervisor; none if none runs. Needs a running tokio runtime.
    pub fn connect(paths: &Paths, project: &str) -> io::Result<Option<Self>> {
        match connect_socket(&paths.control_socket(project)) {
            Ok(socket) => Ok(Some(Self { frames: AsyncFrames::from_std(socket)? })),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Connects to the project's supervisor, or starts one and talks to it at once.
    pub fn connect_or_spawn(paths: &Paths, project: &str) -> io::Result<Self> {
        if let Some(client) = Self::connect(paths, project)? {
            return Ok(client);
        }
        paths.prepare(project)?;
        let (ours, theirs) = UnixStream::pair()?;
        spawn_supervisor(paths, project, Some(theirs.into()))?;
        Ok(Self { frames: AsyncFrames::from_std(ours)? })
    }

    /// Asks the project's supervisor, started if need be. One that is just ending may not take the request: then the
    /// next one is asked.
    pub async fn open(paths: &Paths, project: &str, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let mut pause = Duration::from_millis(1);
        if matches!(request, Request::Up(_)) {
            Self::succeed(paths, project).await?;
        }
        if let (Ok(text), Some(running)) = (std::env::var(fault::VARIABLE), Self::connect(paths, project)?) {
            // One that is started gets it with its environment.
            match running.request(&Request::Fault { text }, &[]).await {
                Ok(()) => drop(running.next().await?),
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(e),
            }
        }
        loop {
            let client = Self::connect_or_spawn(paths, project)?;
            match client.request(request, fds).await {
                Err(e) if is_gone(&e) && pause < Duration::from_secs(2) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(e) if is_gone(&e) => return Err(said_by(paths, project, e)),
                other => return other.map(|()| client),
            }
        }
    }

    /// Lets a supervisor that runs another version of this program give way to one of this. Where it can't, since other
    /// commands use it, it stays until the next time.
    async fn succeed(paths: &Paths, project: &str) -> io::Result<()> {
        let Some(running) = Self::connect(paths, project)? else { return Ok(()) };
        let program = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        match running.request(&Request::Succeed { version }, &[program.as_fd()]).await {
            Ok(()) => running.next().await.map(drop),
            // One that doesn't know the request hangs up.
            Err(e) if is_gone(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Sends the request and waits until it is taken.
    pub async fn request(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.frames.send(&serde_json::to_vec(request)?, fds).await?;
        match self.next().await? {
            Some((Reply::Accepted, _)) => Ok(()),
            Some((Reply::Failed(failure), _)) => Err(io::Error::other(failure)),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// The next reply; none when the supervisor has ended.
    pub async fn next(&self) -> io::Result<Option<(Reply, Vec<OwnedFd>)>> {
        let Some(frame) = self.frames.recv().await? else { return Ok(None) };
        Ok(Some((serde_json::from_slice(&frame.bytes)?, frame.fds)))
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// A supervisor that ends at once has written down why.
fn said_by(paths: &Paths, project: &str, error: io::Error) -> io::Error {
    let log = paths.project_run(project).join("supervisor.log");
    let text = fs::read_to_string(&log).unwrap_or_default();
    let last = text.lines().last().unwrap_or("it left no word");
    io::Error::new(error.kind(), format!("the supervisor of {project} does not answer: {last} ({})", log.display()))
}

/// Starts a supervisor in a session of its own; `client` is its first connection.
///
/// It leaves the caller's session, so that neither Ctrl-C nor the end of the terminal reaches it.
pub(crate) fn spawn_supervisor(paths: &Paths, project: &str, client: Option<OwnedFd>) -> io::Result<()> {
    let log =
        fs::OpenOptions::new().create(true).append(true).open(paths.project_run(project).join("supervisor.log"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("stack").args(supervisor_args(paths, project)).current_dir("/").env_clear().process_group(0);
    if let Some(value) = std::env::var_os("RUST_BACKTRACE") {
        command.env("RUST_BACKTRACE", value);
    }
    fault::hand_down(&mut command);
    command.stdin(client.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null()).stderr(log.into_file());
    command.spawn().map(drop)
}

/// The supervisor's arguments, also what the shim starts it again with.
pub(crate) fn supervisor_args(paths: &Paths, project: &str) -> Vec<String> {
    let mut args = vec![super::supervisor::ARGUMENT.to_owned(), project.to_owned()];
    args.extend(paths.root().map(|root| root.display().to_string()));
    args
}

/// Connects to a socket whose path may be longer than a socket address holds (108 bytes): through its folder's fd.
pub(crate) fn connect_socket(path: &Path) -> io::Result<UnixStream> {
    let (_folder, path) = short_path(path)?;
    UnixStream::connect(path)
}
