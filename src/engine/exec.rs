//! Processes started in running containers: `exec`, hooks, health checks; and one-off containers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use fs_err as fs;
use rustix::fs::OFlags;
use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::control::{Exec, Failure, Reply, Run};
use super::intent::Desired;
use super::record::Identity;
use super::serve::{reply_to, reply_with};
use super::state::{Container, Record, Status, short};
use super::supervisor::Supervisor;
use crate::planner::oneoff_name;
use crate::runtime::caps;
use crate::runtime::launch::Process;
use crate::runtime::shim;
use crate::spec::model::Hook;
use crate::sys::frame::AsyncFrames;
use crate::sys::{process, ready};

/// The end of a process in a container: awaited, or seen before anyone asked.
#[derive(Debug)]
pub(crate) enum ExecEnd {
    Awaited(oneshot::Sender<i32>),
    Seen(i32),
}

/// A process that runs in a container.
#[derive(Debug)]
pub(crate) struct Running {
    id: String,
    pidfd: OwnedFd,
    master: Option<OwnedFd>,
    shim: Rc<shim::Client>,
    supervisor: Rc<Supervisor>,
}

impl Running {
    /// Waits for its end; its exit code.
    pub(crate) async fn end(&self) -> i32 {
        let (sender, receiver) = oneshot::channel();
        {
            let mut ends = self.supervisor.exec_ends.borrow_mut();
            if let Some(ExecEnd::Seen(code)) = ends.remove(&self.id) {
                return code;
            }
            if self.shim.is_connected() {
                ends.insert(self.id.clone(), ExecEnd::Awaited(sender));
            } else {
                // Nobody would ever be told.
                drop(sender);
            }
        }
        match receiver.await {
            Ok(code) => code,
            Err(_) => self.end_unseen().await.unwrap_or(255),
        }
    }

    /// Waits for its end, of which no shim tells any more; its exit code, if the kernel knows it.
    async fn end_unseen(&self) -> Option<i32> {
        let pidfd = ready::register(self.pidfd.try_clone().ok()?).ok()?;
        drop(pidfd.readable().await.ok()?);
        while process::reap().is_some() {}
        process::reaped_status(self.pidfd.as_fd()).map(|status| match process::decode(status) {
            (_, Some(signal)) => 128 + signal,
            (code, None) => code,
        })
    }

    /// Kills it.
    pub(crate) fn kill(&self) {
        let _ = process::signal(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

impl Supervisor {
    /// Notes the end of a process in a container.
    pub(crate) fn on_exec_exit(&self, exec_id: String, code: i32) {
        let mut ends = self.exec_ends.borrow_mut();
        match ends.remove(&exec_id) {
            Some(ExecEnd::Awaited(sender)) => drop(sender.send(code)),
            _ => drop(ends.insert(exec_id, ExecEnd::Seen(code))),
        }
    }

    /// Starts a process in a running container.
    async fn start_process(
        self: &Rc<Self>,
        record: &Record,
        process: &Process,
        fds: Vec<OwnedFd>,
    ) -> Result<Running, Failure> {
        let shim = self.shim()?;
        let started = shim.exec(&record.id, process, fds).await.map_err(|e| match e {
            crate::runtime::Error::Launch(error) => {
                Failure::new(format!("container {}: {error}", record.name)).code(error.code)
            }
            other => Failure::new(format!("container {}: {other}", record.name)),
        })?;
        Ok(Running {
            id: started.exec_id,
            pidfd: started.pidfd,
            master: started.master,
            shim,
            supervisor: self.clone(),
        })
    }

    /// Starts a process; what it writes comes out of the pipe.
    pub(crate) async fn start_heard(
        self: &Rc<Self>,
        record: &Record,
        args: Vec<String>,
    ) -> Result<(Running, pipe::Receiver), Failure> {
        let process = Process { args, tty: false, ..record.process.clone() };
        let failed = |e: io::Error| Failure::new(format!("no pipe for a process in {}: {e}", record.name));
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
        let output = pipe::Receiver::from_owned_fd(read).map_err(failed)?;
        let mut fds = nothing()?;
        fds.truncate(1);
        fds.extend([write.try_clone().map_err(failed)?, write]);
        Ok((self.start_process(record, &process, fds).await?, output))
    }

    /// Answers `exec`.
    pub(crate) async fn exec(self: &Rc<Self>, frames: &AsyncFrames, exec: Exec, fds: Vec<OwnedFd>) -> io::Result<()> {
        let running = match self.begin_exec(&exec, fds).await {
            Ok(running) => running,
            Err(failure) => return reply_to(frames, &Reply::Failed(failure)).await,
        };
        let started = Reply::Started { id: running.id.clone() };
        let mut running = running;
        let master: Vec<OwnedFd> = running.master.take().into_iter().collect();
        reply_with(frames, &started, &master).await?;
        if exec.detach {
            return Ok(());
        }
        if master.is_empty() {
            // A command that has gone holds nothing up.
            let left = async { while let Ok(Some(_)) = frames.recv().await {} };
            return tokio::select! {
                code = running.end() => reply_to(frames, &Reply::Exited { code }).await,
                () = left => Ok(()),
            };
        }
        let code = unless_left(frames, master, running.end()).await;
        reply_to(frames, &Reply::Exited { code }).await
    }

    async fn begin_exec(self: &Rc<Self>, exec: &Exec, fds: Vec<OwnedFd>) -> Result<Running, Failure> {
        let container = self.container(&exec.container)?;
        let record = &container.record;
        if container.state.status != Status::Running {
            return Err(Failure::new(format!("container {} is {}, not running", record.name, container.state.status))
                .hint(format!("start it with `stack start {}`", record.service)));
        }
        let caps = if exec.privileged { caps::effective(&[], &[], true) } else { Ok(record.process.caps.clone()) };
        let mut env = record.process.env.clone();
        for variable in &exec.env {
            let key = variable.split('=').next().unwrap_or_default();
            env.retain(|old| old.split('=').next() != Some(key));
            env.push(variable.clone());
        }
        let process = Process {
            args: exec.args.clone(),
            env,
            user: exec.user.clone().unwrap_or_else(|| record.process.user.clone()),
            cwd: exec.cwd.clone().unwrap_or_else(|| record.process.cwd.clone()),
            caps: caps.map_err(|e| Failure::new(e.to_string()))?,
            tty: exec.tty,
            size: exec.size,
            ..record.process.clone()
        };
        let fds = if exec.tty {
            Vec::new()
        } else if fds.len() == 3 {
            fds
        } else {
            nothing()?
        };
        self.start_process(record, &process, fds).await
    }

    /// Runs hooks one after another; the first that fails ends it.
    pub(crate) async fn run_hooks(self: &Rc<Self>, record: &Record, hooks: &[Hook]) -> Result<(), Failure> {
        for hook in hooks {
            let mut process = Process { args: hook.command.clone(), tty: false, ..record.process.clone() };
            if let Some(user) = &hook.user {
                process.user.clone_from(user);
            }
            if let Some(cwd) = &hook.working_dir {
                process.cwd.clone_from(cwd);
            }
            if hook.privileged {
                process.caps = caps::effective(&[], &[], true).map_err(|e| Failure::new(e.to_string()))?;
            }
            let variables =
                hook.environment.iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?)));
            process.env.extend(variables);
            let running = self.start_process(record, &process, nothing()?).await?;
            let code = running.end().await;
            if code != 0 {
                let command = hook.command.join(" ");
                return Err(Failure::new(format!(
                    "container {}: the hook `{command}` ended with exit code {code}",
                    record.name
                ))
                .code(code));
            }
        }
        Ok(())
    }

    /// Answers `attach`: what writes to the container's input.
    pub(crate) async fn attach(self: &Rc<Self>, frames: &AsyncFrames, container: &str) -> io::Result<()> {
        let attached = match self.shim() {
            Ok(shim) => shim.attach(container).await.map_err(|e| Failure::new(e.to_string())),
            Err(failure) => Err(failure),
        };
        match attached {
            Ok(input) => {
                let fds: Vec<OwnedFd> = input.into_iter().collect();
                reply_with(frames, &Reply::Started { id: container.to_owned() }, &fds).await?;
            }
            Err(failure) => return reply_to(frames, &Reply::Failed(failure)).await,
        }
        let code = self.end_of(container).await;
        reply_to(frames, &Reply::Exited { code }).await
    }

    /// Waits for a container's end; its exit code.
    pub(crate) async fn end_of(&self, id: &str) -> i32 {
        self.wait_for(|this| match this.look(id, |container| (container.state.status, container.state.exit_code)) {
            None => Some(0),
            Some((Status::Exited | Status::Dead, code)) => Some(code),
            Some(_) => None,
        })
        .await
    }

    /// Answers `run`.
    pub(crate) async fn run_one_off(
        self: &Rc<Self>,
        frames: &AsyncFrames,
        run: Run,
        fds: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let (detach, remove) = (run.detach, run.remove);
        let (container, terminal) = match Box::pin(self.begin_one_off(frames, run, fds)).await {
            Ok(begun) => begun,
            Err(failure) => return reply_to(frames, &Reply::Failed(failure)).await,
        };
        let id = container.record.id.clone();
        reply_with(frames, &Reply::Started { id: id.clone() }, &terminal).await?;
        if detach && !remove {
            return Ok(());
        }
        let code = unless_left(frames, terminal, self.end_of(&id)).await;
        if remove {
            let _ = self.remove_container(&id, true).await;
        }
        reply_to(frames, &Reply::Exited { code }).await
    }

    async fn begin_one_off(
        self: &Rc<Self>,
        frames: &AsyncFrames,
        run: Run,
        fds: Vec<OwnedFd>,
    ) -> Result<(Container, Vec<OwnedFd>), Failure> {
        // Where there is none yet, it comes up while all else is made ready.
        self.shim()?;
        let mut service = run.up.project.services.get(&run.service).cloned().unwrap_or_default();
        let desired = Arc::new(Desired::from_up(&run.up));
        self.bring_up_for(frames, &run.up, &run.service).await?;
        if !run.service_ports {
            service.ports.clear();
        }
        service.container_name = None;
        let tty = service.tty.unwrap_or(false);
        let random = super::networks::new_id().map_err(|e| Failure::new(e.to_string()))?;
        let name = run.name.unwrap_or_else(|| oneoff_name(&run.up.project, &run.service, short(&random)));
        let identity = Identity {
            id: String::new(),
            name,
            service: run.service.clone(),
            number: 1,
            oneoff: true,
            prepares: None,
            discoverable: run.use_aliases,
        };
        let id = self.create_container(&desired, identity, &service, None).await?;
        let given = match (run.detach, fds.len()) {
            (true, _) => None,
            (false, 3) => Some(fds),
            (false, _) => Some(nothing()?),
        };
        let started = self.start_with(&id, given).await;
        if let Err(failure) = started {
            if run.remove {
                let _ = self.remove_container(&id, true).await;
            }
            return Err(failure);
        }
        let terminal = if tty && !run.detach {
            let master = self.shim()?.attach(&id).await.map_err(|e| Failure::new(e.to_string()))?;
            master.into_iter().collect()
        } else {
            Vec::new()
        };
        Ok((self.container(&id)?, terminal))
    }
}

/// Waits for `end`. When whoever is in front of the terminal lets go of it meanwhile, it stays open, and what is written
/// there is read and forgotten: the program goes on.
async fn unless_left(frames: &AsyncFrames, terminal: Vec<OwnedFd>, end: impl Future<Output = i32>) -> i32 {
    let left = async {
        while let Ok(Some(_)) = frames.recv().await {}
        for terminal in terminal {
            // An error is the end of the terminal's last user, whose own end is what is waited for.
            let _ = swallow(terminal).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        code = end => code,
        () = left => 0,
    }
}

async fn swallow(terminal: OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&terminal, true)?;
    let terminal = ready::register(terminal)?;
    let mut buffer = [0; 4096];
    loop {
        let mut ready = terminal.readable().await?;
        if let Ok(read) = ready.try_io(|terminal| Ok(rustix::io::read(terminal, &mut buffer)?))
            && read? == 0
        {
            return Ok(());
        }
    }
}

/// Standard descriptors that lead nowhere.
fn nothing() -> Result<Vec<OwnedFd>, Failure> {
    let open = || fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(|file| file.into_file().into());
    (0..3).map(|_| open()).collect::<io::Result<_>>().map_err(|e| Failure::new(e.to_string()))
}
