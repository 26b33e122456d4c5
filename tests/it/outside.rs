//! The world outside of a sandbox: a namespace with one host, a relay through which package managers reach the mirror
//! that this machine uses, and no other way out.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, SystemTime};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

/// The relay in the world outside; documentation addresses are nobody's.
const RELAY: &str = "198.51.100.1:3128";
/// A sandbox there.
const SANDBOX: &str = "198.51.100.2/24";
/// How long a package archive that nobody asks for is kept.
const KEEP: Duration = Duration::from_hours(30 * 24);

/// A relay that speaks to the mirror in this machine's own network. Make it before the sandbox.
pub(crate) struct Outside {
    /// Threads whose namespaces get the uplink, each with the answer that it is there. Closed, the world ends.
    wanted: Sender<(Pid, Sender<()>)>,
}

/// A sandbox's way to the world outside; ends when dropped.
pub(crate) struct Uplink;

impl Outside {
    /// Starts the relay. Package archives, which never change, are kept in the folder `archives`.
    pub(crate) fn new(archives: &Path) -> Self {
        fs_err::create_dir_all(archives).unwrap();
        forget_old(archives);
        let (wanted, wishes) = channel();
        let (listening, listener) = channel();
        std::thread::spawn(move || world(&listening, &wishes));
        let listener: TcpListener = listener.recv().unwrap();
        let archives = archives.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let archives = archives.clone();
                // A connection that breaks is the client's to report.
                std::thread::spawn(move || drop(relay(&stream, &archives)));
            }
        });
        Self { wanted }
    }

    /// Gives the calling thread's namespace an uplink.
    pub(crate) fn connect(&self) -> Uplink {
        let (done, wait) = channel();
        self.wanted.send((gettid(), done)).unwrap();
        wait.recv().unwrap();
        ip(&format!("addr add {SANDBOX} dev uplink"));
        ip("link set uplink up");
        ip(&format!("route add default via {}", host(RELAY)));
        Uplink
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        ip("link del uplink");
    }
}

/// What apt must know: the relay, and whether this machine's clock is to be trusted.
pub(crate) fn apt_conf() -> String {
    let checks = apt_config("Acquire")
        .lines()
        .filter(|line| line.starts_with("Acquire::Check-"))
        .fold(String::new(), |text, line| text + line + "\n");
    format!("{checks}Acquire::http::Proxy \"http://{RELAY}\";\nAcquire::http::Pipeline-Depth 0;\n")
}

fn apt_config(section: &str) -> String {
    String::from_utf8(Command::new("apt-config").args(["dump", section]).output().unwrap().stdout).unwrap()
}

/// The thread whose namespace is the world outside.
fn world(listening: &Sender<TcpListener>, wishes: &Receiver<(Pid, Sender<()>)>) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link add uplink type veth peer name world");
    ip(&format!("addr add {}/24 dev world", host(RELAY)));
    ip("link set world up");
    listening.send(TcpListener::bind(RELAY).unwrap()).unwrap();
    for (thread, done) in wishes {
        ip(&format!("link set uplink netns {thread}"));
        done.send(()).unwrap();
    }
}

fn host(address: &str) -> &str {
    address.split_once(':').unwrap().0
}

fn ip(words: &str) {
    let ran = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(ran.status.success(), "ip {words}: {}", String::from_utf8_lossy(&ran.stderr));
}

fn forget_old(archives: &Path) {
    for entry in fs_err::read_dir(archives).unwrap().flatten() {
        let made = entry.metadata().unwrap().modified().unwrap();
        if SystemTime::now().duration_since(made).is_ok_and(|age| age > KEEP) {
            fs_err::remove_file(entry.path()).unwrap();
        }
    }
}

/// Serves one request of an HTTP proxy's client.
fn relay(mut client: &TcpStream, archives: &Path) -> io::Result<()> {
    let mut reader = BufReader::new(client);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let mut words = head.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
    if method == "CONNECT" {
        let upstream = TcpStream::connect(target)?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let (mut from, mut to) = (upstream.try_clone()?, client.try_clone()?);
        std::thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(Shutdown::Write)));
        io::copy(&mut reader, &mut &upstream)?;
        return upstream.shutdown(Shutdown::Write);
    }
    let archive = archives.join(target.replace(['/', ':'], "_"));
    let never_changes = Path::new(target).extension().is_some_and(|extension| extension == "deb");
    let kept = never_changes.then(|| fs_err::read(&archive).ok()).flatten();
    if let Some(bytes) = kept {
        write!(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
        return client.write_all(&bytes);
    }
    let answer = fetch(target, &head)?;
    client.write_all(&answer)?;
    if never_changes && let Some(bytes) = whole(&answer) {
        let part = archives.join(format!("part-{}", gettid()));
        fs_err::write(&part, bytes)?;
        fs_err::rename(part, archive)?;
    }
    Ok(())
}

/// A server's whole answer; the machine's own proxy is asked if it has one.
fn fetch(target: &str, head: &str) -> io::Result<Vec<u8>> {
    let place = |url: &str| {
        let authority = url.trim_start_matches("http://").split('/').next().unwrap_or_default().to_owned();
        if authority.contains(':') { authority } else { authority + ":80" }
    };
    let proxy = apt_config("Acquire::http::Proxy");
    let proxy = proxy.split('"').nth(1).filter(|url| !url.is_empty());
    let mut upstream = TcpStream::connect(place(proxy.unwrap_or(target)))?;
    upstream.set_read_timeout(Some(Duration::from_secs(30)))?;
    for line in head.lines().filter(|line| !line.is_empty() && !line.to_lowercase().starts_with("connection:")) {
        write!(upstream, "{line}\r\n")?;
    }
    upstream.write_all(b"Connection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The body of a good answer that has its full length.
fn whole(answer: &[u8]) -> Option<&[u8]> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?.to_lowercase(), &answer[end + 4..]);
    let mut lines = head.lines();
    let good = lines.next()?.contains(" 200 ");
    let length = lines.find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok())?;
    (good && length == body.len()).then_some(body)
}
