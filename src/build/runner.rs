//! The private shim of a build: started by the first RUN, gone with the build.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::error::Error;
use super::event::Stream;
use super::network::Bridged;
use crate::runtime::launch::ExitStatus;
use crate::runtime::shim::{Client, Event, SpawnOptions};
use crate::runtime::{self, Launch};

/// Lines of output that an error shows.
const TAIL: usize = 20;
/// Longest line that is passed on whole, in bytes.
const MAX_LINE: usize = 16 << 10;

/// Runs steps, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    shim: Option<Shim>,
    bridged: Option<Bridged>,
}

#[derive(Debug)]
struct Shim {
    client: Client,
    folder: PathBuf,
}

impl Drop for Shim {
    fn drop(&mut self) {
        // The shim kills its containers and ends once its connection is gone.
        let _ = fs_err::remove_dir_all(&self.folder);
    }
}

/// A step to run; standard output and error are filled in here.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) launch: Launch,
    pub(crate) fds: Vec<OwnedFd>,
    /// Connected to the build's bridge.
    pub(crate) bridged: bool,
}

/// How a step ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Its last lines.
    pub(crate) tail: String,
}

/// Why a step did not run.
#[derive(Debug)]
pub(crate) enum Failure {
    Runtime(runtime::Error),
    Other(Error),
}

impl From<runtime::Error> for Failure {
    fn from(error: runtime::Error) -> Self {
        Self::Runtime(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Runner {
    /// Runs a step to its end and passes on what it writes. Nothing of it is left afterwards but what it wrote.
    pub(crate) async fn run(
        &mut self,
        (run, lib): (&Path, &Path),
        step: Step,
        output: &dyn Fn(Stream, String),
    ) -> Result<Ended, Failure> {
        let bridged = match step.bridged {
            true if self.bridged.is_none() => Some(&*self.bridged.insert(Bridged::new(lib)?)),
            true => self.bridged.as_ref(),
            false => None,
        };
        if self.shim.is_none() {
            self.shim = Some(spawn(run)?);
        }
        let Some(shim) = &self.shim else { return Err(runtime::Error::Shim("no shim".to_owned()).into()) };
        let id = step.launch.id.clone();
        let result = follow(&shim.client, step, bridged, output).await;
        let forgotten = shim.client.forget(&id).await;
        if let Some(bridged) = bridged {
            bridged.detach()?;
        }
        match forgotten {
            Err(error) if result.is_ok() => Err(error.into()),
            _ => result,
        }
    }

    /// Ends the shim and removes the bridge.
    pub(crate) async fn end(self) -> Result<(), Error> {
        if let Some(shim) = &self.shim {
            // A shim that is gone already has nothing left to end.
            let _ = shim.client.shutdown().await;
        }
        Ok(())
    }
}

fn spawn(run: &Path) -> Result<Shim, Failure> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let folder = run.join(format!("build/{}-{serial}", std::process::id()));
    fs_err::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
    let options = SpawnOptions { run_dir: folder.clone(), restart_argv: Vec::new() };
    match Client::spawn(&options) {
        Ok(client) => Ok(Shim { client, folder }),
        Err(error) => {
            let _ = fs_err::remove_dir_all(&folder);
            Err(error.into())
        }
    }
}

async fn follow(
    client: &Client,
    step: Step,
    bridged: Option<&Bridged>,
    output: &dyn Fn(Stream, String),
) -> Result<Ended, Failure> {
    let Step { mut launch, mut fds, .. } = step;
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    let slot = runtime::launch::Slot(fds.len());
    launch.stdio = runtime::launch::Stdio::Fds { stdin: None, stdout: slot, stderr: runtime::launch::Slot(slot.0 + 1) };
    fds.extend([out_end, err_end]);

    let created = client.create(&launch, fds).await?;
    if let (Some(bridged), Some(netns)) = (bridged, &created.netns) {
        bridged.attach(netns.as_fd())?;
    }
    drop(created);
    client.start(&launch.id).await?;

    let tail = std::cell::RefCell::new(VecDeque::new());
    let pass = |stream: Stream, line: String| {
        let mut tail = tail.borrow_mut();
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line.clone());
        output(stream, line);
    };
    let streams =
        async { tokio::join!(lines(out, |line| pass(Stream::Out, line)), lines(err, |line| pass(Stream::Err, line))) };
    let ended = async {
        loop {
            match client.next_event().await {
                Some(Event::Exited { id, status, .. }) if id == launch.id => return Ok(status),
                Some(_) => {}
                None => return Err(runtime::Error::Connection(std::io::ErrorKind::ConnectionReset.into())),
            }
        }
    };
    let ((read_out, read_err), status) = tokio::join!(streams, ended);
    let status = status?;
    read_out.and(read_err).map_err(Error::io("read the output of", "the step"))?;
    Ok(Ended { status, tail: Vec::from(tail.into_inner()).join("\n") })
}

/// A pipe whose far end anybody in the container may open again as `/dev/stdout`.
fn pipe() -> Result<(pipe::Receiver, OwnedFd), Error> {
    let made = || -> std::io::Result<_> {
        let (near, far) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::fs::fchmod(&far, rustix::fs::Mode::from_raw_mode(0o666))?;
        Ok((pipe::Receiver::from_owned_fd(near)?, far))
    };
    made().map_err(Error::io("make a pipe for", "the step's output"))
}

async fn lines(mut pipe: pipe::Receiver, mut each: impl FnMut(String)) -> std::io::Result<()> {
    let mut pending = Vec::new();
    let mut chunk = vec![0; 16 << 10];
    loop {
        let count = pipe.read(&mut chunk).await?;
        pending.extend_from_slice(&chunk[..count]);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            each(text(&line));
        }
        if pending.len() > MAX_LINE || (count == 0 && !pending.is_empty()) {
            each(text(&pending));
            pending.clear();
        }
        if count == 0 {
            return Ok(());
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\n', '\r']).to_owned()
}
