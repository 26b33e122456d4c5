//! Waiting for what a service says it is ready by: `x-stack.ready`.
//!
//! Ports come as events of the shim, lines of the log and files by inotify. A page is asked for at once, whenever the
//! container begins to listen, and now and then, as no event tells that a server means another answer from now on.

use std::io;
use std::net::{IpAddr, SocketAddr};
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

use super::changes::Changes;
use super::control::Action;
use super::logs::{Logs, Start};
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
                        std::future::pending::<()>().await;
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
            Ready::Port => self.listened(container).await,
            Ready::Log(pattern) => logged(&self.paths.log(id), started, pattern).await,
            Ready::File(path) => made(&Root::of_running(container)?, path, started).await,
            Ready::Http(url) => self.answered(container, url).await,
        }
    }

    /// Waits until others reach a container's ports.
    async fn listened(self: &Rc<Self>, container: &Container) -> io::Result<()> {
        let id = container.record.id.as_str();
        let kept = match self.present_shim() {
            Some(shim) => shim.kept(id).await.map_err(io::Error::other)?,
            None => Vec::new(),
        };
        // Nobody hears of it where there is no filter, or the kernel gives no listener for it: then one has to look.
        let unheard = kept.is_empty() && container.record.joins.net.is_none();
        drop(kept);
        let mut pause = PAUSE;
        loop {
            let before = self.listens(id);
            let Some(missing) = self.look(id, missing).flatten() else { return Ok(()) };
            self.note_wait(id, missing);
            tokio::select! {
                () = self.wait_for(|this| (this.listens(id) != before).then_some(())) => {}
                () = sleep(pause), if unheard => {
                    pause = (pause * 3 / 2).min(LONGEST_PAUSE);
                    for address in listening(container.state.pid)? {
                        if self.look(id, |now| now.state.listens.contains(&address)) == Some(false) {
                            self.on_listens(id, address);
                        }
                    }
                }
            }
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

/// Where something listens in a process's network namespace.
fn listening(pid: i32) -> io::Result<Vec<SocketAddr>> {
    let tables = ["tcp", "tcp6"].map(|table| fs_err::read_to_string(format!("/proc/{pid}/net/{table}")));
    let mut addresses = Vec::new();
    for table in tables {
        addresses.extend(table?.lines().filter_map(listener));
    }
    Ok(addresses)
}

/// The address of a line of `/proc/net/tcp` or `tcp6` about a socket that listens: words of the address as they lie in
/// memory, in hexadecimal.
fn listener(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _, "0A") = (words.next()?, words.next()?, words.next()?) else { return None };
    let (address, port) = local.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip: IpAddr = if address.len() == 8 {
        word(0)?.into()
    } else {
        <[u8; 16]>::try_from([word(0)?, word(1)?, word(2)?, word(3)?].concat()).ok()?.into()
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_sockets_are_read_as_the_kernel_writes_them() {
        let line =
            |local: &str, state: &str| listener(&format!("   0: {local} 00000000:0000 {state} 00000000:00000000"));
        assert_eq!(line("0100007F:1F40", "0A"), Some("127.0.0.1:8000".parse().unwrap()));
        assert_eq!(line("00000000000000000000000001000000:0050", "0A"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(line("0100007F:1F40", "01"), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue"), None);
    }
}
