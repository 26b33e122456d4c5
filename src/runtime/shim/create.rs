//! Making and starting containers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::State;
use super::container::{Asker, Container, Watched};
use super::drain::Drain;
use super::guest;
use super::keeper::Keeper;
use super::log::{Log, Stream};
use super::server::{Shim, Source};
use crate::runtime::caps;
use crate::runtime::child::{self, Plan, Port, Standard};
use crate::runtime::error::LaunchError;
use crate::runtime::launch::{Launch, Net, Share, Slot, Stdio};
use crate::runtime::wire::Reply;
use crate::sys::process::{self, Cloned};
use crate::sys::userns;

/// The shim's side of a container's input and output.
struct Streams {
    log: Option<Log>,
    drains: Vec<Drain>,
    input: Option<OwnedFd>,
}

impl Shim {
    /// Clones a container and answers with its pid, pidfd and network namespace.
    pub(super) fn create(&mut self, asker: Asker, launch: &Launch, fds: Vec<OwnedFd>) {
        if let Some(old) = self.containers.get(&launch.id) {
            if old.is_alive() {
                let state = "running or about to run".to_owned();
                return self.reply(asker, Reply::State { id: launch.id.clone(), state }, &[]);
            }
            if old.group.remove() {
                self.leftovers.retain(|group| !group.remove());
            }
        }
        match self.try_create(launch, &fds) {
            Ok((container, port, losses)) => self.created(asker, launch, container, port, losses),
            Err(error) => {
                self.pipes.remove(&launch.id);
                if let Ok(group) = self.group(&launch.cgroup.path, launch.cgroup.borrowed)
                    && !group.remove()
                {
                    self.leftovers.push(group);
                }
                self.drop_parents();
                self.reply(asker, Reply::Launch(error), &[]);
            }
        }
    }

    fn created(&mut self, asker: Asker, launch: &Launch, mut container: Container, port: Port, losses: Vec<String>) {
        let id = &launch.id;
        if let Ok(token) = self.watch(port.as_fd(), Source::Container(id.clone())) {
            container.port = Some(Watched { token, it: port });
        }
        let reply = Reply::Created { pid: container.pid, start_time: container.start_time, losses };
        let fds: Vec<BorrowedFd<'_>> =
            std::iter::once(container.pidfd.as_fd()).chain(container.netns.as_ref().map(AsFd::as_fd)).collect();
        self.reply(asker, reply, &fds);
        // What was kept belongs to the network that it was opened in.
        if launch.keeps
            && matches!(launch.namespaces.net, Net::Kept | Net::Host)
            && let Some(old) = self.containers.get_mut(id)
        {
            container.keeper = std::mem::take(&mut old.keeper);
        }
        self.containers.insert(id.clone(), container);
    }

    fn try_create(&mut self, launch: &Launch, fds: &[OwnedFd]) -> Result<(Container, Port, Vec<String>), LaunchError> {
        if launch.id.is_empty() || !launch.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        {
            return Err(LaunchError::refused(format!("container id {:?}", launch.id), "not a plain name"));
        }
        let group = self.group(&launch.cgroup.path, launch.cgroup.borrowed)?;
        let held = caps::mask(&launch.process.caps).map_err(|e| LaunchError::refused("capabilities", e))?;
        let filter = if launch.privileged { None } else { self.filters.get(&launch.seccomp, held, launch.keeps)? };
        let (standard, streams) = self.streams(launch, fds)?;
        let kept = match &launch.namespaces.net {
            Net::Kept => Some(self.kept_network(&launch.id)?),
            _ => None,
        };
        let enter = self.foreign_namespaces(launch, kept.as_ref())?;
        let shared_memory_of = match &launch.namespaces.ipc {
            Share::Join(other) => Some(self.process_of(other)?),
            _ => None,
        };
        let (user, dev) = match launch.ids {
            None => (None, None),
            Some(ids) => {
                standard.give_to(ids)?;
                group.make_v1(&launch.cgroup, launch.privileged, &launch.devices)?;
                (self.user_namespace(launch, kept.as_ref())?, Some(child::make_dev(&launch.devices, Some(ids))?))
            }
        };
        let (unified, losses) = group.make_unified(&launch.cgroup, launch.privileged, &launch.devices)?;
        let (ours, theirs) = Port::pair().map_err(|e| LaunchError::new("make a socket", e))?;
        let (enter, before) = if user.is_some() { (Vec::new(), enter) } else { (enter, Vec::new()) };
        let plan = Plan { launch, fds, port: theirs, standard, group: &group, filter, enter, shared_memory_of, dev };
        let foreign_pids = match &launch.namespaces.pid {
            Share::Join(other) => Some(self.process_of(other)?),
            _ => None,
        };
        let flags = new_namespaces(launch);
        let cloned = match (&user, launch.ids) {
            (Some(user), _) => {
                guest::clone_inside(user, &before, foreign_pids.as_ref(), flags, unified.as_ref(), || child::run(&plan))
            }
            (None, Some(_)) => {
                process::clone(flags | libc::CLONE_NEWUSER, unified.as_ref().map(AsFd::as_fd), || child::run(&plan))
            }
            (None, None) => self.clone_into(foreign_pids.as_ref(), flags, unified.as_ref(), || child::run(&plan)),
        };
        let Cloned { pid, pidfd } = cloned.map_err(|e| LaunchError::new("clone", e))?;
        if let Some(ids) = launch.ids {
            guest::admit(pid, user.is_none().then_some(ids), &launch.process)?;
            ours.release().map_err(|e| LaunchError::new("let the container into its user namespace", e))?;
        }
        let netns = match &launch.namespaces.net {
            Net::New | Net::None => Some(namespace(pid, "net")?),
            Net::Kept => kept,
            Net::Host | Net::Join(_) => None,
        };
        let start_time = process::start_time(pid).map_err(|e| LaunchError::new("read the start time", e))?;
        let mut container = Container {
            pid,
            pidfd,
            start_time,
            state: State::Parked,
            group: group.clone(),
            netns,
            port: None,
            failure: None,
            starter: None,
            forgetter: None,
            log: streams.log,
            drains: Vec::new(),
            input: streams.input,
            adopted: None,
            tty: launch.process.tty,
            seccomp: launch.seccomp.clone(),
            privileged: launch.privileged,
            keeper: Keeper::default(),
        };
        for drain in streams.drains {
            let token = self.watch(drain.as_fd(), Source::Output(launch.id.clone()));
            let token = token.map_err(|e| LaunchError::new("watch the output", e))?;
            container.drains.push(Watched { token, it: drain });
        }
        Ok((container, ours, losses))
    }

    /// Clones; where the child belongs into the pid namespace of another process, the shim's own children are
    /// directed there for that moment.
    pub(super) fn clone_into(
        &self,
        pids_of: Option<&OwnedFd>,
        flags: i32,
        group: Option<&OwnedFd>,
        body: impl FnOnce() -> i32,
    ) -> io::Result<Cloned> {
        let Some(other) = pids_of else { return process::clone(flags, group.map(AsFd::as_fd), body) };
        process::enter(other.as_fd(), libc::CLONE_NEWPID)?;
        let cloned = process::clone(flags, group.map(AsFd::as_fd), body);
        process::enter(self.own_pids.as_fd(), libc::CLONE_NEWPID)?;
        cloned
    }

    fn streams(&self, launch: &Launch, fds: &[OwnedFd]) -> Result<(Standard, Streams), LaunchError> {
        let none = Streams { log: None, drains: Vec::new(), input: None };
        let copy = |slot: Slot| {
            let fd =
                fds.get(slot.0).ok_or_else(|| LaunchError::refused("standard streams", "a descriptor is missing"))?;
            fd.try_clone().map(Some).map_err(|e| LaunchError::new("standard streams", e))
        };
        match &launch.stdio {
            Stdio::Null => Ok((Standard { fds: [None, None, None], owned: false }, none)),
            Stdio::Fds { stdin, stdout, stderr } => {
                let fds = [stdin.map(copy).transpose()?.flatten(), copy(*stdout)?, copy(*stderr)?];
                Ok((Standard { fds, owned: false }, none))
            }
            Stdio::Log { path, max_size, max_files, stdin } => {
                let step = |e: io::Error| LaunchError::new(format!("open the log {}", path.display()), e);
                let log = Some(Log::open(path, *max_size, *max_files).map_err(step)?);
                if launch.process.tty {
                    return Ok((Standard { fds: [None, None, None], owned: false }, Streams { log, ..none }));
                }
                let pipe = |e: io::Error| LaunchError::new("make the log pipes", e);
                let pair = self.pipes.make(&launch.id).map_err(pipe)?;
                let [output, error] = pair.ours;
                let drains = vec![Drain::new(output, Stream::Output, false), Drain::new(error, Stream::Error, false)];
                let (reader, writer) = if *stdin {
                    let flags = rustix::pipe::PipeFlags::CLOEXEC;
                    let (reader, writer) = rustix::pipe::pipe_with(flags).map_err(|e| pipe(e.into()))?;
                    (Some(reader), Some(writer))
                } else {
                    (None, None)
                };
                let [output, error] = pair.theirs.map(Some);
                Ok((Standard { fds: [reader, output, error], owned: true }, Streams { log, drains, input: writer }))
            }
        }
    }

    fn kept_network(&self, id: &str) -> Result<OwnedFd, LaunchError> {
        let step = "join the kept network";
        let kept = self.containers.get(id).and_then(|container| container.netns.as_ref());
        let kept = kept.ok_or_else(|| LaunchError::refused(step, "the shim keeps none of this container"))?;
        kept.try_clone().map_err(|e| LaunchError::new(step, e))
    }

    fn foreign_namespaces(&self, launch: &Launch, kept: Option<&OwnedFd>) -> Result<Vec<(OwnedFd, i32)>, LaunchError> {
        let mut enter = Vec::new();
        if let Some(kept) = kept {
            enter.push((
                kept.try_clone().map_err(|e| LaunchError::new("join the kept network", e))?,
                libc::CLONE_NEWNET,
            ));
        }
        if let Net::Join(other) = &launch.namespaces.net {
            enter.push((self.namespace_of(other, "net")?, libc::CLONE_NEWNET));
        }
        let shared =
            [(&launch.namespaces.ipc, "ipc", libc::CLONE_NEWIPC), (&launch.namespaces.uts, "uts", libc::CLONE_NEWUTS)];
        for (share, name, kind) in shared {
            if let Share::Join(other) = share {
                enter.push((self.namespace_of(other, name)?, kind));
            }
        }
        Ok(enter)
    }

    /// The user namespace of those whose namespaces the container joins; none if it gets its own.
    fn user_namespace(&self, launch: &Launch, kept: Option<&OwnedFd>) -> Result<Option<OwnedFd>, LaunchError> {
        let step = |e: io::Error| LaunchError::new("find the user namespace", e);
        let host =
            || LaunchError::refused("join a container", "it is in the host's user namespace, and this one is not");
        if let Some(kept) = kept {
            return userns::owner(kept.as_fd()).map_err(step)?.ok_or_else(host).map(Some);
        }
        let namespaces = &launch.namespaces;
        let net = if let Net::Join(other) = &namespaces.net { Some(other) } else { None };
        let joined = [&namespaces.pid, &namespaces.ipc, &namespaces.uts].map(|share| match share {
            Share::Join(other) => Some(other),
            _ => None,
        });
        let Some(other) = net.or_else(|| joined.into_iter().flatten().next()) else { return Ok(None) };
        userns::of_process(self.living(other)?.pid).map_err(step)?.ok_or_else(host).map(Some)
    }

    fn namespace_of(&self, id: &str, name: &str) -> Result<OwnedFd, LaunchError> {
        let container = self.living(id)?;
        // The shim's own descriptor of a network is there even if process 1 moved.
        match &container.netns {
            Some(netns) if name == "net" => netns.try_clone().map_err(|e| LaunchError::new("join a network", e)),
            _ => namespace(container.pid, name),
        }
    }

    fn process_of(&self, id: &str) -> Result<OwnedFd, LaunchError> {
        self.living(id)?.pidfd.try_clone().map_err(|e| LaunchError::new("join a container", e))
    }

    fn living(&self, id: &str) -> Result<&Container, LaunchError> {
        let container = self.containers.get(id).filter(|container| container.is_alive());
        container.ok_or_else(|| LaunchError::refused(format!("join container {id}"), "it isn't running"))
    }

    /// Releases a parked container; the answer follows when its socket closes.
    pub(super) fn start(&mut self, asker: Asker, id: &str) {
        let Some(container) = self.containers.get_mut(id) else {
            return self.reply(asker, Reply::Unknown(id.to_owned()), &[]);
        };
        if container.failure.is_some() {
            container.starter = Some(asker);
            return self.finish_failure(id);
        }
        match &container.port {
            Some(port) if container.state == State::Parked && container.starter.is_none() => {
                // A clone that died meanwhile shows at the end of its socket.
                let _ = port.it.release();
                container.starter = Some(asker);
            }
            _ => {
                let state = "not waiting for its start".to_owned();
                self.reply(asker, Reply::State { id: id.to_owned(), state }, &[]);
            }
        }
    }
}

fn new_namespaces(launch: &Launch) -> i32 {
    let namespaces = &launch.namespaces;
    let private = |share: &Share, flag| if *share == Share::Private { flag } else { 0 };
    let net = if matches!(namespaces.net, Net::New | Net::None) { libc::CLONE_NEWNET } else { 0 };
    libc::CLONE_NEWNS
        | net
        | private(&namespaces.pid, libc::CLONE_NEWPID)
        | private(&namespaces.ipc, libc::CLONE_NEWIPC)
        | private(&namespaces.uts, libc::CLONE_NEWUTS)
}

fn namespace(pid: i32, name: &str) -> Result<OwnedFd, LaunchError> {
    crate::sys::netns::open(Path::new(&format!("/proc/{pid}/ns/{name}")))
        .map_err(|e| LaunchError::new(format!("open the {name} namespace"), e))
}
