//! Waiting for what a service says it is ready by: `x-stack.ready`.
//!
//! Ports come as events of the shim, lines of the log and files by inotify. A page is asked for at once, whenever the
//! container begins to listen, and now and then, as no event tells that a server means another answer from now on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use regex_lite::Regex;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::{sleep, timeout};

use super::control::Action;
use super::logs::{Changes, Logs, Start};
use super::rootfs::{self, Root};
use super::state::{Container, Health, Record};
use super::supervisor::{Supervisor, blocking};
use crate::spec::model::{Port, Service};
use crate::spec::ready::{Ready, Url};
use crate::sys::netns;

/// Who waits longer is told for what.
const LONG: Duration = Duration::from_secs(10);
/// How long a page may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Pause after the first page asked for in vain; each further one is half as long again.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of an answer's first line.
const LINE: usize = 512;
/// The clock of file systems may be that far behind.
const TICK: SignedDuration = SignedDuration::from_millis(10);

/// What tells that a service is ready, beside a health check.
pub(crate) fn of(service: &Service) -> Option<Ready> {
    // What is no `x-stack.ready` was refused when the file was read.
    Ready::of(service).ok().flatten()
}

/// What a container that has just begun waits for, for the user.
pub(crate) fn waits_for(record: &Record) -> Option<String> {
    of(&record.config).map(|ready| ready.to_string())
}

impl Supervisor {
    /// Waits until a container that runs is ready, or ends.
    pub(crate) fn watch_readiness(self: &Rc<Self>, record: &Record) {
        let Some(ready) = of(&record.config) else { return };
        let id = record.id.clone();
        let Ok(container) = self.container(&id) else { return };
        if container.state.waits_for.is_none() {
            return;
        }
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let ended = this.end_of_run(&id, container.state.pid);
            let ready = async {
                match this.ready(&container, &ready).await {
                    Ok(()) => this.on_ready(&id),
                    Err(e) => {
                        this.note_wait(&id, format!("{ready}, but {e}"));
                        std::future::pending().await
                    }
                }
            };
            tokio::select! {
                () = ended => {}
                () = ready => {}
                never = this.complain_of_wait(&id) => match never {},
            }
        });
    }

    async fn ready(self: &Rc<Self>, container: &Container, ready: &Ready) -> io::Result<()> {
        let id = container.record.id.as_str();
        let started = container.state.started.unwrap_or_default();
        match ready {
            Ready::Port => loop {
                let before = self.listens(id);
                let Some(missing) = self.look(id, missing).flatten() else { return Ok(()) };
                self.note_wait(id, missing);
                self.wait_for(|this| (this.listens(id) != before).then_some(())).await;
            },
            Ready::Log(pattern) => logged(&self.paths.log(id), started, pattern).await,
            Ready::File(path) => made(&Root::of_running(container)?, path, started).await,
            Ready::Http(url) => self.answered(container, url).await,
        }
    }

    fn on_ready(&self, id: &str) {
        let _ = self.change(id, |state| state.waits_for = None);
        // A health check decides alone, where there is one; it is run now.
        if self.look(id, |container| container.record.healthcheck.is_none()) == Some(true) {
            self.set_health(id, Health::Healthy);
        }
    }

    fn note_wait(&self, id: &str, what: String) {
        if self.look(id, |container| container.state.waits_for.as_ref() != Some(&what)) == Some(true) {
            let _ = self.change(id, |state| state.waits_for = Some(what));
        }
    }

    async fn complain_of_wait(&self, id: &str) -> std::convert::Infallible {
        sleep(LONG).await;
        if let Ok(container) = self.container(id)
            && let Some(what) = &container.state.waits_for
        {
            let message = format!("not ready after {} s: waits for {what}", LONG.as_secs());
            self.tell(&container, Action::Warning { message });
        }
        std::future::pending().await
    }

    /// Waits until a page is there.
    async fn answered(self: &Rc<Self>, container: &Container, url: &Url) -> io::Result<()> {
        let id = container.record.id.as_str();
        let netns = rootfs::netns_of_running(container)?;
        let mut pause = PAUSE;
        loop {
            let listens = self.listens(id);
            match page(&netns, url).await {
                Ok(200..400) => return Ok(()),
                Ok(status) => self.note_wait(id, format!("an answer of {url} (it says {status})")),
                Err(e) => self.note_wait(id, format!("an answer of {url} ({})", e.to_string().to_lowercase())),
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 3 / 2).min(LONGEST_PAUSE),
                () = self.wait_for(|this| (this.listens(id) > listens).then_some(())) => {}
            }
        }
    }
}

/// What of a container's ports others don't reach yet: all TCP ports that it publishes, or anything at all where it
/// publishes none.
fn missing(container: &Container) -> Option<String> {
    let record = &container.record;
    let reaches = |address: &&SocketAddr| record.endpoints.is_empty() || !address.ip().is_loopback();
    let reached: Vec<u16> = container.state.listens.iter().filter(reaches).map(SocketAddr::port).collect();
    let is_tcp = |port: &&Port| port.protocol.as_deref().is_none_or(|protocol| protocol == "tcp");
    let mut ports = record.config.ports.iter().filter(is_tcp).map(|port| port.target);
    let missing = match ports.find(|port| !reached.contains(port)) {
        Some(port) => format!("port {port} to be listened on"),
        None if reached.is_empty() => Ready::Port.to_string(),
        None => return None,
    };
    let listens: Vec<String> = container.state.listens.iter().map(ToString::to_string).collect();
    Some(if listens.is_empty() { missing } else { format!("{missing} (it listens on {})", listens.join(", ")) })
}

/// Waits for a line written since `started`.
async fn logged(log: &Path, started: Timestamp, pattern: &Regex) -> io::Result<()> {
    let mut logs = Logs::new()?;
    logs.add(0, log, Start::Since(started))?;
    loop {
        while let Some((_, line)) = logs.next_line()? {
            if line.time >= started && pattern.is_match(&line.text) {
                return Ok(());
            }
        }
        logs.changed().await?;
    }
}

/// Waits for a file that was made or written since `started`. Links are followed inside the root only.
async fn made(root: &Root, path: &Path, started: Timestamp) -> io::Result<()> {
    let changes = Changes::new()?;
    loop {
        // Each folder on the way may come, go, or be a link's target. Watched first, so that nothing is missed.
        for above in path.ancestors() {
            if let Ok(place) = root.find(above, true) {
                let folder = PathBuf::from(format!("/proc/self/fd/{}", place.folder.as_raw_fd()));
                changes.watch(&folder)?;
            }
        }
        let found = root.find(path, true).ok().and_then(|place| place.stat);
        let changed = found.and_then(|stat| {
            let nanos = i32::try_from(stat.st_ctime_nsec).ok()?;
            Timestamp::new(stat.st_ctime, nanos).ok()
        });
        if changed.is_some_and(|changed| changed + TICK >= started) {
            return Ok(());
        }
        changes.next().await?;
    }
}

/// Asks for a page inside a network namespace; the status of the answer.
async fn page(netns: &OwnedFd, url: &Url) -> io::Result<u16> {
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in &url.addresses {
        match timeout(ANSWER, status(netns, *address, url)).await {
            Ok(Ok(status)) => return Ok(status),
            Ok(Err(e)) => failure = e,
            Err(_) => failure = io::Error::new(io::ErrorKind::TimedOut, format!("none within {} s", ANSWER.as_secs())),
        }
    }
    Err(failure)
}

async fn status(netns: &OwnedFd, address: SocketAddr, url: &Url) -> io::Result<u16> {
    let inside = netns.try_clone()?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // A socket belongs to the namespace that it was made in, wherever it is used.
    let made = blocking(move || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        netns::with_netns(inside.as_fd(), || socket_with(family, SocketType::STREAM, flags, None))
    });
    let socket = made.await.map_err(|failure| io::Error::other(failure.message))???;
    let mut stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
    let (path, host) = (&url.path, &url.authority);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: stack\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < LINE {
        if stream.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&line);
    let mut words = text.split(' ');
    let number = words.next().filter(|word| word.starts_with("HTTP/")).and(words.next());
    number.and_then(|number| number.trim().parse().ok()).ok_or_else(|| io::Error::other("what answers speaks no HTTP"))
}
