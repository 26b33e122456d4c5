//! The one process per running stack that decides: it holds the project's lock, answers commands, and reacts to
//! what happens to the containers. It may be killed at any time; the next one takes over from the files and the shim.
//!
//! Single-threaded: tasks on one tokio thread share this state by [`Rc`], and blocking system calls go to tokio's
//! blocking pool.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use fs_err as fs;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::net::UnixListener;
use tokio::sync::{Mutex, RwLock, Semaphore, broadcast, watch};

use super::control::{Action, Event, Failure, Kind};
use super::departures::Departures;
use super::door::Door;
use super::estate::Estate;
use super::exec::ExecEnd;
use super::guests::Guests;
use super::history::{Entry, History};
use super::open_files;
use super::paths::Paths;
use super::state::{self, Container, RunState, Status, short};
use super::turn::Turn;
use super::witness::Witness;
use crate::images::Store;
use crate::net::ipam::Ipam;
use crate::net::publish::{Proxy, Reserved};
use crate::net::{Host, dns};
use crate::runtime::launch::Rlimit;
use crate::runtime::{cgroup, shim};
use crate::sys::file::Lock;
use crate::sys::frame::AsyncFrames;
use crate::sys::path::short_path;
use crate::sys::process::{self, RUNTIME_FILES};

/// Containers that are created or started at the same time; more only wait for each other in the kernel.
const LAUNCHES: usize = 8;

/// Everything one supervisor knows.
#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) paths: Paths,
    pub(crate) project: String,
    pub(crate) boot_id: String,
    /// How many files containers may open that have no limit of their own.
    pub(crate) open_files: Rlimit,
    pub(crate) store: Store,
    pub(crate) host: Host,
    pub(crate) dns: dns::Server,
    pub(crate) ipam: Ipam,
    /// Read while the host's network is changed for something that comes or goes, written while it is put right.
    pub(crate) network: RwLock<()>,
    pub(crate) launches: Semaphore,
    /// Host ports found free for containers that are about to start, by container name.
    pub(crate) reserved: RefCell<BTreeMap<String, Vec<Reserved>>>,
    /// What carries published ports that the firewall doesn't, by container id.
    pub(crate) proxies: RefCell<BTreeMap<String, Proxy>>,
    /// What other stacks are told of the names on networks that they share, by network.
    pub(crate) told: RefCell<BTreeMap<String, Vec<dns::Record>>>,
    /// Containers with a part in the host's network, and whether the shim keeps theirs for the next start.
    held: RefCell<BTreeMap<String, bool>>,
    pub(crate) departures: Departures,
    /// Copies of what the shim keeps for this stack, for the shim after it.
    pub(crate) keepsakes: RefCell<BTreeMap<String, Vec<OwnedFd>>>,
    /// The root file systems of containers by id, for their next start. It also keeps the kernel from writing them out
    /// while their processes end, which would hold up who waits for that.
    pub(crate) roots: RefCell<BTreeMap<String, OwnedFd>>,
    /// What the shim after this one needs to keep the sockets of containers.
    pub(crate) keepers: RefCell<BTreeMap<String, Vec<OwnedFd>>>,
    /// Containers that are stopped to be started again.
    pub(crate) returning: RefCell<BTreeSet<String>>,
    /// Namespaces to map mounts by.
    pub(crate) guests: Arc<Guests>,
    /// Who wants to know what containers write.
    pub(crate) witnesses: RefCell<Vec<Rc<Witness>>>,
    /// Root file systems of containers that were removed.
    pub(crate) spent: RefCell<Vec<OwnedFd>>,
    /// Anonymous volumes that wait for a container, by its place in the project.
    pub(crate) estates: RefCell<BTreeMap<String, Estate>>,
    pub(crate) exec_ends: RefCell<BTreeMap<String, ExecEnd>>,
    pub(super) shim: RefCell<Option<Rc<shim::Client>>>,
    containers: RefCell<BTreeMap<String, Container>>,
    locks: RefCell<BTreeMap<String, Rc<Mutex<()>>>>,
    pub(super) pulse: watch::Sender<()>,
    events: broadcast::Sender<Event>,
    pub(crate) history: History,
    pub(crate) turn: Turn,
    clients: Cell<usize>,
    /// Shims lost in a row, and when the last one was.
    pub(super) losses: Cell<(u32, Option<Instant>)>,
    given_up: Cell<bool>,
    /// New shims that don't know all containers yet.
    pub(super) takeovers: Cell<usize>,
    /// Another program supervises from now on.
    pub(super) succeeded: Cell<bool>,
}

/// The hidden first argument that makes a process a supervisor.
pub const ARGUMENT: &str = "__supervisor";

/// Entry of the process, from the arguments after [`ARGUMENT`]: `PROJECT [ROOT] [--open-files=N]`. Standard input may be
/// the first client's connection.
pub fn main(args: &[String]) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing_line(&format!("the supervisor ends: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// One line for the log file that is this process's standard error.
pub(crate) fn tracing_line(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stderr(), "{} {text}", Timestamp::now());
}

fn run(args: &[String]) -> io::Result<()> {
    let (open_files, args) = open_files::raise(args)?;
    let (project, root) = match args.as_slice() {
        [project] => (*project, None),
        [project, root] => (*project, Some(PathBuf::from(root))),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: __supervisor PROJECT [ROOT]")),
    };
    let _ = rustix::process::setsid();
    nix::sys::prctl::set_name(c"stack")?;
    nix::sys::prctl::set_child_subreaper(true)?;
    // Ctrl-C and a closing terminal concern the command alone.
    process::block_signals(&[Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP].into_iter().collect())?;
    let first = super::serve::first_client()?;
    let paths = Paths::new(root.as_deref())?;
    paths.prepare(project)?;
    let Some(lock) = Lock::try_exclusive(&paths.lock(project))? else {
        return Ok(());
    };
    process::spare_files(RUNTIME_FILES)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(16).build()?;
    let local = tokio::task::LocalSet::new();
    let result = local.block_on(&runtime, Supervisor::serve(paths, project.clone(), open_files, first));
    drop(lock);
    runtime.shutdown_background();
    result
}

impl Supervisor {
    async fn serve(paths: Paths, project: String, open_files: Rlimit, first: Option<UnixStream>) -> io::Result<()> {
        let door = Door::new();
        let listener = listen(&paths, &project)?;
        let store = Store::open(&paths.lib).map_err(io::Error::other)?;
        let this = Rc::new(Self {
            boot_id: state::boot_id()?,
            open_files,
            store,
            host: Host::current(),
            dns: dns::Server::new(),
            ipam: Ipam::open(&paths.networks()).map_err(io::Error::other)?,
            network: RwLock::default(),
            launches: Semaphore::new(LAUNCHES),
            reserved: RefCell::default(),
            proxies: RefCell::default(),
            told: RefCell::default(),
            held: RefCell::default(),
            departures: Departures::default(),
            keepsakes: RefCell::default(),
            roots: RefCell::default(),
            keepers: RefCell::default(),
            returning: RefCell::default(),
            guests: Arc::default(),
            witnesses: RefCell::default(),
            spent: RefCell::default(),
            estates: RefCell::default(),
            exec_ends: RefCell::default(),
            shim: RefCell::default(),
            containers: RefCell::default(),
            locks: RefCell::default(),
            pulse: watch::Sender::new(()),
            events: broadcast::Sender::new(4096),
            history: History::open(&paths, &project),
            turn: Turn::default(),
            clients: Cell::new(0),
            losses: Cell::default(),
            given_up: Cell::new(false),
            takeovers: Cell::new(0),
            succeeded: Cell::new(false),
            paths,
            project,
        });
        this.recover().await?;
        this.drop_preparations();
        this.watch_network();
        this.watch_names();
        if let Some(socket) = first {
            this.clone().welcome(AsyncFrames::from_std(socket)?);
        }
        this.attend(&listener, door).await;
        if this.succeeded.get() {
            this.departed().await;
            return Ok(());
        }
        this.leave().await
    }

    /// The main loop: until nothing runs and nobody asks.
    async fn attend(self: &Rc<Self>, listener: &UnixListener, mut door: Door) {
        let mut pulse = self.pulse.subscribe();
        while !self.given_up.get() && !self.succeeded.get() && !self.is_idle() {
            tokio::select! {
                accepted = door.accept(listener) => match accepted {
                    Ok(socket) => self.clone().welcome(AsyncFrames::new(socket)),
                    Err(e) => tracing_line(&format!("accept: {e}")),
                },
                changed = pulse.changed() => if changed.is_err() { return },
            }
        }
    }

    fn welcome(self: Rc<Self>, frames: AsyncFrames) {
        self.clients.set(self.clients.get() + 1);
        tokio::task::spawn_local(async move {
            if let Err(e) = Box::pin(self.answer(&frames)).await
                && e.kind() != io::ErrorKind::BrokenPipe
            {
                tracing_line(&format!("connection: {e}"));
            }
            self.clients.set(self.clients.get() - 1);
            self.pulse.send_replace(());
        });
    }

    fn is_idle(&self) -> bool {
        let alive = |container: &Container| {
            matches!(container.state.status, Status::Running | Status::Paused | Status::Restarting)
        };
        self.clients.get() == 0 && !self.containers.borrow().values().any(alive)
    }

    /// The end: nothing runs any more, so nothing needs to be held.
    async fn leave(&self) -> io::Result<()> {
        self.departed().await;
        let shim = self.shim.borrow_mut().take();
        if let Some(shim) = shim {
            let _ = shim.shutdown().await;
        }
        // A shim that was killed could not.
        if let Err(e) = cgroup::sweep(&self.paths.project_cgroup(&self.project)) {
            tracing_line(&format!("control groups: {e}"));
        }
        let run = self.paths.project_run(&self.project);
        let _ = fs::remove_file(self.paths.control_socket(&self.project));
        if self.containers.borrow().is_empty() {
            match fs::remove_dir_all(&run) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// How many commands talk to this process.
    pub(crate) fn clients(&self) -> usize {
        self.clients.get()
    }

    /// Wakes who waits for a change of anything.
    pub(crate) fn wake(&self) {
        self.pulse.send_replace(());
    }

    /// Ends this process, whatever runs.
    pub(crate) fn give_up(&self) {
        self.given_up.set(true);
        self.pulse.send_replace(());
    }

    /// Lets go of the root file systems of removed containers, when nobody waits any more: the last one to hold a file
    /// system waits until all of it is on disk.
    pub(crate) fn drop_spent(&self) {
        let spent = std::mem::take(&mut *self.spent.borrow_mut());
        if !spent.is_empty() {
            tokio::task::spawn_blocking(move || drop(spent));
        }
    }

    /// A copy of all containers, by id.
    pub(crate) fn containers(&self) -> Vec<Container> {
        self.containers.borrow().values().cloned().collect()
    }

    /// A copy of one container.
    pub(crate) fn container(&self, id: &str) -> Result<Container, Failure> {
        let found = self.containers.borrow().get(id).cloned();
        found.ok_or_else(|| Failure::new(format!("no container {} in project {}", short(id), self.project)))
    }

    /// Looks at one container without copying it.
    pub(crate) fn look<T>(&self, id: &str, look: impl FnOnce(&Container) -> T) -> Option<T> {
        self.containers.borrow().get(id).map(look)
    }

    /// Adds a container that has just been written down.
    pub(crate) fn insert(&self, container: Container) {
        self.containers.borrow_mut().insert(container.record.id.clone(), container);
        self.pulse.send_replace(());
    }

    /// Drops a container that has just been removed.
    pub(crate) fn drop_container(&self, id: &str) {
        self.containers.borrow_mut().remove(id);
        self.locks.borrow_mut().remove(id);
        self.pulse.send_replace(());
    }

    /// Changes a container's run state, in memory and in its file, and wakes who waits for it.
    pub(crate) fn change(&self, id: &str, change: impl FnOnce(&mut RunState)) -> Result<(), Failure> {
        let written = {
            let mut containers = self.containers.borrow_mut();
            let Some(container) = containers.get_mut(id) else { return Ok(()) };
            change(&mut container.state);
            state::write_run_state(&self.paths, &self.project, id, &container.state)
        };
        self.pulse.send_replace(());
        written.map_err(|e| Failure::new(format!("the state of a container could not be written: {e}")))
    }

    /// Waits until `look` finds what it looks for; it is asked again after every change.
    pub(crate) async fn wait_for<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut pulse = self.pulse.subscribe();
        loop {
            pulse.mark_unchanged();
            if let Some(found) = look(self) {
                return found;
            }
            if pulse.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// One task at a time starts, stops or removes a container.
    pub(crate) fn container_lock(&self, id: &str) -> Rc<Mutex<()>> {
        self.locks.borrow_mut().entry(id.to_owned()).or_default().clone()
    }

    /// Whether something of a container is in the host's network: its end of links, its ports.
    pub(crate) fn holds_network(&self, id: &str) -> bool {
        self.held.borrow().contains_key(id)
    }

    /// Whether the shim keeps a container's network, attached and with its ports published.
    pub(crate) fn keeps_network(&self, id: &str) -> bool {
        self.held.borrow().get(id) == Some(&true)
    }

    /// Notes that the shim keeps a container's network.
    pub(crate) fn hold_network(&self, id: &str) {
        self.held.borrow_mut().insert(id.to_owned(), true);
    }

    /// Notes that no shim keeps a container's network any more: what is left of it can only be taken apart.
    pub(crate) fn orphan_network(&self, id: &str) {
        self.held.borrow_mut().insert(id.to_owned(), false);
    }

    /// The same of all containers: their shim is dead.
    pub(super) fn orphan_networks(&self) {
        self.held.borrow_mut().values_mut().for_each(|kept| *kept = false);
    }

    /// Notes that nothing of a container is in the host's network; whether something was.
    pub(crate) fn let_network_go(&self, id: &str) -> bool {
        self.held.borrow_mut().remove(id).is_some()
    }

    /// Follows the events from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Reports a change of a container.
    pub(crate) fn tell(&self, container: &Container, action: Action) {
        let record = &container.record;
        self.report(Kind::Container, &record.name, &record.id, &record.service, action);
    }

    /// Reports a change of anything.
    pub(crate) fn report(&self, kind: Kind, name: &str, id: &str, service: &str, action: Action) {
        let event = Event {
            time: Timestamp::now(),
            kind,
            name: name.to_owned(),
            id: id.to_owned(),
            service: service.to_owned(),
            action,
        };
        self.history.add(&Entry::Event(event.clone()));
        let _ = self.events.send(event);
    }
}

fn listen(paths: &Paths, project: &str) -> io::Result<UnixListener> {
    let path = paths.control_socket(project);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let (_folder, short) = short_path(&path)?;
    UnixListener::bind(short)
}

/// Runs blocking system calls beside the tasks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|e| Failure::new(format!("a worker of the supervisor failed: {e}")))
}
