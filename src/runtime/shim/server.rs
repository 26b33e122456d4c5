//! The shim's loop: one thread, one epoll, every event handled to its end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::epoll;

use super::calls::Calls;
use super::container::{Asker, Container, ExecRecord};
use super::pipes::Pipes;
use super::restart::Restart;
use super::{Event, socket};
use crate::runtime::cgroup::{Group, Layout};
use crate::runtime::error::LaunchError;
use crate::runtime::seccomp::Filters;
use crate::runtime::wire::{Message, Numbered, Reply, Request};
use crate::sys;
use crate::sys::fault;
use crate::sys::frame::{self, Incoming};

/// How long a supervisor that doesn't read may hold the loop up before its connection is given up.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a token of the epoll stands for.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Listener,
    Signals,
    Connection,
    /// A clone's socket.
    Container(String),
    /// An exec's socket, by its pid.
    Exec(i32),
    /// An output of a container.
    Output(String),
    /// The pidfd of an adopted container.
    Adopted(String),
    /// The listener of a system call filter.
    Calls,
}

struct Connection {
    socket: UnixStream,
    incoming: Incoming,
}

/// Everything that a shim is.
pub(super) struct Shim {
    run_dir: PathBuf,
    epoll: OwnedFd,
    sources: BTreeMap<u64, Source>,
    next_token: u64,
    listener: UnixListener,
    signals: SignalFd,
    connections: BTreeMap<u64, Connection>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) execs: BTreeMap<i32, ExecRecord>,
    pub(super) store: BTreeMap<String, Vec<OwnedFd>>,
    pub(super) pipes: Pipes,
    /// Listeners of system call filters, by token.
    pub(super) calls: BTreeMap<u64, Calls>,
    pub(super) layout: Rc<Layout>,
    pub(super) filters: Filters,
    /// Control groups that a vanishing process still held.
    pub(super) leftovers: Vec<Group>,
    /// One group of each folder that groups were made in, by that folder.
    parents: BTreeMap<String, Group>,
    pub(super) buffer: Vec<u8>,
    pub(super) own_pids: OwnedFd,
    restart: Restart,
    ending: bool,
}

impl Shim {
    pub(super) fn new(run_dir: PathBuf, restart_argv: Vec<String>, first: Option<UnixStream>) -> io::Result<Self> {
        sys::process::reset_signals();
        let mut set = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            set.add(signal);
        }
        sys::process::block_signals(&set)?;
        let own_pids = sys::netns::open("/proc/self/ns/pid".as_ref())?;
        let mut shim = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sources: BTreeMap::new(),
            next_token: 0,
            listener: socket::listen(&run_dir)?,
            signals: SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
            connections: BTreeMap::new(),
            containers: BTreeMap::new(),
            execs: BTreeMap::new(),
            store: BTreeMap::new(),
            pipes: Pipes::open(&run_dir)?,
            calls: BTreeMap::new(),
            layout: Rc::new(Layout::detect()?),
            filters: Filters::default(),
            leftovers: Vec::new(),
            parents: BTreeMap::new(),
            buffer: Vec::new(),
            own_pids,
            restart: Restart::new(run_dir.clone(), restart_argv),
            ending: false,
            run_dir,
        };
        let (listener, signals) = (shim.listener.try_clone()?, shim.signals.as_fd().try_clone_to_owned()?);
        shim.watch(listener.as_fd(), Source::Listener)?;
        shim.watch(signals.as_fd(), Source::Signals)?;
        // The registrations belong to the open files, which live on behind the originals.
        drop((listener, signals));
        if let Some(socket) = first {
            shim.accept(socket)?;
        }
        Ok(shim)
    }

    /// Runs until nobody needs the shim.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(64);
        while !self.is_done() {
            let wait = self.restart.wait().into_iter().chain(self.holds_for()).min();
            let timeout = wait.map(|wait| rustix::time::Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            });
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            for event in &events {
                let token = event.data.u64();
                if let Some(source) = self.sources.get(&token).cloned() {
                    self.handle(token, source, event.flags);
                }
            }
            self.restart.run_if_due();
            self.end_holds();
        }
        self.clean_up();
        socket::remove(&self.run_dir)
    }

    /// Removes what ended containers left that nobody came to fetch.
    fn clean_up(&mut self) {
        let ended = self.containers.values().filter(|container| !container.is_alive());
        for group in self.leftovers.iter().chain(ended.map(|container| &container.group)) {
            group.remove_patiently();
        }
        self.remove_parents();
    }

    /// A container's group at `path`, whose folders above go with the last one.
    pub(super) fn group(&mut self, path: &str, borrowed: bool) -> Result<Group, LaunchError> {
        let group = Group::new(&self.layout, path)?;
        if let Some((parent, _)) = path.rsplit_once('/').filter(|_| !borrowed) {
            self.parents.entry(parent.to_owned()).or_insert_with(|| group.clone());
        }
        Ok(group)
    }

    /// Removes the folders above control groups, where empty.
    pub(super) fn remove_parents(&self) {
        self.parents.values().for_each(Group::remove_parents);
    }

    /// Watches a descriptor for input.
    pub(super) fn watch(&mut self, fd: BorrowedFd<'_>, source: Source) -> io::Result<u64> {
        self.next_token += 1;
        let token = self.next_token;
        epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
        self.sources.insert(token, source);
        Ok(token)
    }

    /// Stops watching it.
    pub(super) fn unwatch(&mut self, token: u64, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
        self.sources.remove(&token);
    }

    /// Forgets a token whose descriptor is closed already.
    pub(super) fn sources_gone(&mut self, token: u64) {
        self.sources.remove(&token);
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, asker: Asker, body: Reply, fds: &[BorrowedFd<'_>]) {
        let message = Message::Reply(Numbered { number: asker.number, body });
        self.send(asker.connection, &message, fds);
    }

    /// Tells every supervisor.
    pub(super) fn announce(&mut self, event: Event) {
        let message = Message::Event(event);
        for connection in self.connections.keys().copied().collect::<Vec<_>>() {
            self.send(connection, &message, &[]);
        }
    }

    fn send(&mut self, token: u64, message: &Message, fds: &[BorrowedFd<'_>]) {
        let Some(connection) = self.connections.get(&token) else { return };
        let text = serde_json::to_vec(message).map_err(io::Error::from);
        if text.and_then(|text| frame::send(&connection.socket, &text, fds)).is_err() {
            self.hang_up(token);
        }
    }

    fn handle(&mut self, token: u64, source: Source, flags: epoll::EventFlags) {
        match source {
            Source::Listener => {
                if let Ok((socket, _)) = self.listener.accept() {
                    let _ = self.accept(socket);
                }
            }
            Source::Signals => self.take_signals(),
            Source::Connection => self.read_connection(token),
            Source::Container(id) => self.hear_container(&id),
            Source::Exec(pid) => self.hear_exec(pid),
            Source::Output(id) => self.drain(&id, token),
            Source::Adopted(id) => self.adopted_ended(&id),
            Source::Calls => self.answer_call(token, flags.contains(epoll::EventFlags::IN)),
        }
    }

    fn accept(&mut self, socket: UnixStream) -> io::Result<()> {
        socket.set_write_timeout(Some(PATIENCE))?;
        let token = self.watch(socket.as_fd(), Source::Connection)?;
        self.connections.insert(token, Connection { socket, incoming: Incoming::default() });
        self.restart.connected();
        Ok(())
    }

    fn hang_up(&mut self, token: u64) {
        if let Some(connection) = self.connections.remove(&token) {
            self.unwatch(token, connection.socket.as_fd());
        }
        if !self.connections.is_empty() {
            return;
        }
        if self.restart.is_possible() {
            if !self.containers.is_empty() {
                self.restart.schedule();
            }
        } else {
            self.end_all();
        }
    }

    fn read_connection(&mut self, token: u64) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        match connection.incoming.fill(connection.socket.as_fd()) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return,
            Ok(0) | Err(_) => return self.hang_up(token),
            Ok(_) => {}
        }
        while let Some(connection) = self.connections.get_mut(&token) {
            let frame = match connection.incoming.take() {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(_) => return self.hang_up(token),
            };
            match serde_json::from_slice::<Numbered<Request>>(&frame.bytes) {
                Ok(Numbered { number, body }) => {
                    let _ = fault::point(|| format!("before request {number}"));
                    self.serve(Asker { connection: token, number }, body, frame.fds);
                    let _ = fault::point(|| format!("after request {number}"));
                }
                Err(_) => return self.hang_up(token),
            }
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if info.ssi_signo == libc::SIGTERM.cast_unsigned() {
                self.ending = true;
            }
        }
        while let Some(ended) = sys::process::reap() {
            self.ended(ended);
        }
        self.leftovers.retain(|group| !group.remove());
    }

    fn serve(&mut self, asker: Asker, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Arm { text } => {
                fault::arm(&text, true);
                self.reply(asker, Reply::Done, &[]);
            }
            Request::Create(launch) => self.create(asker, &launch, fds),
            Request::Start { id } => self.start(asker, &id),
            Request::Exec { id, process } => self.exec(asker, &id, &process, fds),
            Request::Signal { id, signal } => self.signal(asker, &id, signal),
            Request::KillAll { id } => self.kill_all(asker, &id),
            Request::Update { id, resources } => self.update(asker, &id, &resources),
            Request::Freeze { id, frozen } => self.freeze(asker, &id, frozen),
            Request::Kept { id } => self.give_kept(asker, &id),
            Request::KeepOn { id } => self.keep_on(asker, id, fds),
            Request::LetGo { id } => self.let_go(asker, &id),
            Request::Attach { id } => self.attach(asker, &id),
            Request::CloseInput { id } => self.close_input(asker, &id),
            Request::Store { key } => {
                self.store.insert(key, fds);
                self.reply(asker, Reply::Done, &[]);
            }
            Request::Take { key } => {
                let kept = self.store.remove(&key);
                let borrowed: Vec<BorrowedFd<'_>> = kept.iter().flatten().map(AsFd::as_fd).collect();
                self.reply(asker, Reply::Done, &borrowed);
                self.store.extend(kept.map(|fds| (key, fds)));
            }
            Request::Discard { key } => {
                let below = format!("{key}/");
                self.store.retain(|kept, _| *kept != key && !kept.starts_with(&below));
                self.reply(asker, Reply::Done, &[]);
            }
            Request::List => {
                let entries = self.entries();
                self.reply(asker, Reply::Entries(entries), &[]);
            }
            Request::Succeed => {
                self.restart.start_from(fds.into_iter().next());
                self.reply(asker, Reply::Done, &[]);
            }
            Request::Forget { id } => self.forget(asker, &id),
            Request::Adopt { adopt, netns, input } => {
                let mut fds = fds.into_iter();
                let netns = if netns { fds.next() } else { None };
                let input = if input { fds.next() } else { None };
                self.adopt(asker, &adopt, netns, input);
            }
            Request::Shutdown => {
                self.reply(asker, Reply::Done, &[]);
                self.ending = true;
                if !self.restart.is_possible() {
                    self.end_all();
                }
            }
        }
    }

    /// Kills every container and forgets it, for a shim that has no supervisor to come back.
    fn end_all(&mut self) {
        self.ending = true;
        for container in self.containers.values().filter(|container| container.is_alive()) {
            container.group.kill();
            let _ = sys::process::signal(container.pidfd.as_fd(), libc::SIGKILL);
        }
    }

    fn is_done(&self) -> bool {
        if self.restart.is_possible() {
            return self.ending || (self.connections.is_empty() && self.containers.is_empty());
        }
        let alive = self.containers.values().any(Container::is_alive);
        (self.ending || self.connections.is_empty()) && !alive
    }
}
