//! A supervisor's connection to its shim.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::{Adopt, Created, Entry, Event, Exec, SpawnOptions};
use crate::runtime::error::Error;
use crate::runtime::launch::{Launch, Process, Resources};
use crate::runtime::wire::{Message, Numbered, Reply, Request};
use crate::sys::frame::AsyncFrames;
use crate::sys::{exe, fault, process};

type Answer = (Reply, Vec<OwnedFd>);
/// Requests on their way; `None` once the connection is gone.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

/// A connection to a shim. Methods may be called concurrently.
#[derive(Debug)]
pub struct Client {
    frames: Arc<AsyncFrames>,
    waiting: Waiting,
    events: tokio::sync::Mutex<mpsc::UnboundedReceiver<Event>>,
    number: AtomicU64,
    reader: tokio::task::JoinHandle<()>,
    child: Option<Mutex<std::process::Child>>,
}

impl Client {
    /// Starts a shim and connects to it. Needs a running tokio runtime.
    ///
    /// The shim is a child of the caller and runs from a read-only mount of the caller's own binary.
    pub fn spawn(options: &SpawnOptions) -> Result<Self, Error> {
        Self::spawn_from(Path::new("/proc/self/exe"), options)
    }

    /// As [`Self::spawn`], from another binary of `stack`.
    pub fn spawn_from(binary: &Path, options: &SpawnOptions) -> Result<Self, Error> {
        let failed = |source| Error::Spawn { path: options.run_dir.display().to_string(), source };
        let sealed = exe::sealed(binary).map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(exe::path_of(&sealed));
        command.arg0("stack").arg(super::ARGUMENT).arg(&options.run_dir).args(&options.restart_argv).current_dir("/");
        fault::hand_down(&mut command);
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        Self::over(ours, Some(child))
    }

    /// Connects to a shim that runs already; `None` if there is none. Needs a running tokio runtime.
    #[expect(clippy::unused_async, reason = "a handshake may come")]
    pub async fn connect(run_dir: &Path) -> Result<Option<Self>, Error> {
        match super::socket::connect(run_dir) {
            Ok(socket) => Self::over(socket, None).map(Some),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(e) => Err(Error::Connection(e)),
        }
    }

    fn over(socket: UnixStream, child: Option<std::process::Child>) -> Result<Self, Error> {
        let frames = Arc::new(AsyncFrames::from_std(socket).map_err(Error::Connection)?);
        let waiting = Waiting::new(Mutex::new(Some(HashMap::new())));
        let (sender, events) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read(frames.clone(), waiting.clone(), sender));
        let events = tokio::sync::Mutex::new(events);
        Ok(Self { frames, waiting, events, number: AtomicU64::new(0), reader, child: child.map(Mutex::new) })
    }

    /// Clones a container, sets it up and parks it before its exec. Set-up goes on after this returns; its failure is
    /// reported by [`Self::start`].
    pub async fn create(&self, launch: &Launch, fds: Vec<OwnedFd>) -> Result<Created, Error> {
        let request = Request::Create(Box::new(launch.clone()));
        match self.ask(&request, &fds).await? {
            (Reply::Created { pid, start_time, losses }, fds) => {
                let mut fds = fds.into_iter();
                let pidfd = fds.next().ok_or_else(unexpected)?;
                Ok(Created { pid, start_time, pidfd, netns: fds.next(), losses })
            }
            _ => Err(unexpected()),
        }
    }

    /// Sets the fault of the crash tests: see [`crate::sys::fault`].
    pub async fn arm(&self, text: &str) -> Result<(), Error> {
        self.do_it(&Request::Arm { text: text.to_owned() }, &[]).await
    }

    /// Supervisors that the shim starts run `program` from now on.
    pub async fn succeed(&self, program: OwnedFd) -> Result<(), Error> {
        self.do_it(&Request::Succeed, &[program]).await
    }

    /// Lets a parked container run; returns after its exec succeeded. On an error nothing of it is left.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        self.do_it(&Request::Start { id: id.to_owned() }, &[]).await
    }

    /// Starts a process in a running container; returns after its exec succeeded.
    ///
    /// Without a terminal, `fds` are its standard input, output and error.
    pub async fn exec(&self, id: &str, process: &Process, fds: Vec<OwnedFd>) -> Result<Exec, Error> {
        let request = Request::Exec { id: id.to_owned(), process: Box::new(process.clone()) };
        match self.ask(&request, &fds).await? {
            (Reply::Exec { exec_id, pid }, fds) => {
                let mut fds = fds.into_iter();
                let pidfd = fds.next().ok_or_else(unexpected)?;
                Ok(Exec { exec_id, pid, pidfd, master: fds.next() })
            }
            _ => Err(unexpected()),
        }
    }

    /// Sends a signal to process 1.
    pub async fn signal(&self, id: &str, signal: i32) -> Result<(), Error> {
        self.do_it(&Request::Signal { id: id.to_owned(), signal }, &[]).await
    }

    /// Kills every process of the container.
    pub async fn kill_all(&self, id: &str) -> Result<(), Error> {
        self.do_it(&Request::KillAll { id: id.to_owned() }, &[]).await
    }

    /// Changes the limits of a running container; returns what this machine can't hold of them.
    pub async fn update(&self, id: &str, resources: &Resources) -> Result<Vec<String>, Error> {
        let request = Request::Update { id: id.to_owned(), resources: Box::new(resources.clone()) };
        match self.ask(&request, &[]).await? {
            (Reply::Updated(losses), _) => Ok(losses),
            _ => Err(unexpected()),
        }
    }

    /// Stops or continues every process of the container.
    pub async fn freeze(&self, id: &str, frozen: bool) -> Result<(), Error> {
        self.do_it(&Request::Freeze { id: id.to_owned(), frozen }, &[]).await
    }

    /// What the shim after this one needs to keep the container's sockets; nothing if they aren't kept.
    pub async fn kept(&self, id: &str) -> Result<Vec<OwnedFd>, Error> {
        self.fds(&Request::Kept { id: id.to_owned() }).await
    }

    /// Keeps the sockets of an adopted container by what [`Self::kept`] gave.
    pub async fn keep_on(&self, id: &str, kept: &[OwnedFd]) -> Result<(), Error> {
        self.do_it(&Request::KeepOn { id: id.to_owned() }, kept).await
    }

    /// Keeps none of the container's sockets any more: connections are refused where no program listens.
    pub async fn let_go(&self, id: &str) -> Result<(), Error> {
        self.do_it(&Request::LetGo { id: id.to_owned() }, &[]).await
    }

    /// What writes to the container's input: the terminal's master or the pipe's end. `None` if its input is closed.
    pub async fn attach(&self, id: &str) -> Result<Option<OwnedFd>, Error> {
        Ok(self.fds(&Request::Attach { id: id.to_owned() }).await?.into_iter().next())
    }

    /// Lets go of the shim's end of the container's input, so that it sees the end once nobody else holds it.
    pub async fn close_input(&self, id: &str) -> Result<(), Error> {
        self.do_it(&Request::CloseInput { id: id.to_owned() }, &[]).await
    }

    /// Leaves descriptors with the shim, in place of those under the same key.
    pub async fn store(&self, key: &str, fds: Vec<OwnedFd>) -> Result<(), Error> {
        self.do_it(&Request::Store { key: key.to_owned() }, &fds).await
    }

    /// Duplicates of the descriptors under `key`; empty if there are none.
    pub async fn take(&self, key: &str) -> Result<Vec<OwnedFd>, Error> {
        self.fds(&Request::Take { key: key.to_owned() }).await
    }

    /// Closes the descriptors under `key` and under all keys that begin with `key` and a slash.
    pub async fn discard(&self, key: &str) -> Result<(), Error> {
        self.do_it(&Request::Discard { key: key.to_owned() }, &[]).await
    }

    /// Every container that hasn't been forgotten.
    pub async fn list(&self) -> Result<Vec<Entry>, Error> {
        match self.ask(&Request::List, &[]).await? {
            (Reply::Entries(entries), _) => Ok(entries),
            _ => Err(unexpected()),
        }
    }

    /// Drops the container's network namespace, named pipes, exit record and control group; kills it if it runs.
    pub async fn forget(&self, id: &str) -> Result<(), Error> {
        self.do_it(&Request::Forget { id: id.to_owned() }, &[]).await
    }

    /// Takes over a container whose shim died. It may have ended meanwhile: then an exit event follows.
    ///
    /// With its network namespace, that survives a restart.
    pub async fn adopt(&self, adopt: &Adopt, netns: Option<OwnedFd>) -> Result<(), Error> {
        self.adopt_with_input(adopt, netns, None).await
    }

    /// As [`Self::adopt`], and gives back what [`Self::attach`] gave. A terminal's master that was kept this way
    /// spares its container the hang-up.
    pub async fn adopt_with_input(
        &self,
        adopt: &Adopt,
        netns: Option<OwnedFd>,
        input: Option<OwnedFd>,
    ) -> Result<(), Error> {
        let adopt = Box::new(adopt.clone());
        let request = Request::Adopt { adopt, netns: netns.is_some(), input: input.is_some() };
        let fds: Vec<OwnedFd> = netns.into_iter().chain(input).collect();
        self.do_it(&request, &fds).await
    }

    /// The next event; `None` when the shim is gone. Cancel-safe.
    pub async fn next_event(&self) -> Option<Event> {
        self.events.lock().await.recv().await
    }

    /// Ends the shim. Containers that still run are left alone, as after a kill.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.do_it(&Request::Shutdown, &[]).await
    }

    /// The shim's pidfd, if this client started it.
    pub fn pidfd(&self) -> Option<OwnedFd> {
        let id = i32::try_from(lock(self.child.as_ref()?).id()).ok()?;
        process::pidfd_open(id).ok()
    }

    /// Whether the shim is still there.
    pub fn is_connected(&self) -> bool {
        lock(&self.waiting).is_some()
    }

    async fn do_it(&self, request: &Request, fds: &[OwnedFd]) -> Result<(), Error> {
        match self.ask(request, fds).await? {
            (Reply::Done, _) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    async fn fds(&self, request: &Request) -> Result<Vec<OwnedFd>, Error> {
        match self.ask(request, &[]).await? {
            (Reply::Done, fds) => Ok(fds),
            _ => Err(unexpected()),
        }
    }

    async fn ask(&self, request: &Request, fds: &[OwnedFd]) -> Result<Answer, Error> {
        let gone = || Error::Connection(io::ErrorKind::ConnectionReset.into());
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        lock(&self.waiting).as_mut().ok_or_else(gone)?.insert(number, sender);
        let message = encode(number, request)?;
        let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        self.frames.send(&message, &borrowed).await.map_err(Error::Connection)?;
        match answer.await.map_err(|_| gone())? {
            (Reply::Launch(error), _) => Err(Error::Launch(error)),
            (Reply::Unknown(id), _) => Err(Error::Unknown(id)),
            (Reply::State { id, state }, _) => Err(Error::State { id, state }),
            (Reply::Failed(message), _) => Err(Error::Shim(message)),
            answer => Ok(answer),
        }
    }
}

/// A dead shim would stay a zombie until its supervisor ends, so it is waited for, however long it lives on.
impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some(child) = self.child.take() {
            let mut child = child.into_inner().unwrap_or_else(PoisonError::into_inner);
            if !matches!(child.try_wait(), Ok(Some(_))) {
                let _ = std::thread::Builder::new().name("shim".to_owned()).spawn(move || child.wait());
            }
        }
    }
}

async fn read(frames: Arc<AsyncFrames>, waiting: Waiting, events: mpsc::UnboundedSender<Event>) {
    while let Ok(Some(frame)) = frames.recv().await {
        match serde_json::from_slice(&frame.bytes) {
            Ok(Message::Reply(Numbered { number, body })) => {
                let asker = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(&number));
                if let Some(asker) = asker {
                    let _ = asker.send((body, frame.fds));
                }
            }
            Ok(Message::Event(event)) => {
                let _ = events.send(event);
            }
            Err(_) => break,
        }
    }
    // Dropping the senders tells everyone who still waits.
    lock(&waiting).take();
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn encode<T: Serialize>(number: u64, body: T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(&Numbered { number, body }).map_err(|e| Error::Connection(e.into()))
}

fn unexpected() -> Error {
    Error::Connection(io::Error::new(io::ErrorKind::InvalidData, "an answer of another kind than asked for"))
}
