//! RUN: the command, its environment, its mounts and its key.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use super::builder::Builder;
use super::cache::Key;
use super::error::{Error, Place, Problem};
use super::event::BuildEvent;
use super::instruction::{Command, Run};
use super::lines::heredoc_word;
use super::mounts::Mounts;
use super::network::resolv_conf;
use super::request::Network;
use super::runner::{Failure, Step};
use super::scope;
use super::state::State;
use super::stubs::Stubs;
use super::trust;
use crate::images::Writable;
use crate::runtime::launch::{self, Cgroup, Launch, MountFlags, Namespaces, Net, Process, Resources, Slot, Stdio};
use crate::runtime::{self, caps};

/// Size of /dev/shm unless asked otherwise.
const SHM_SIZE: u64 = 64 << 20;
/// Processes and threads of one step.
const MAX_PROCESSES: i64 = 32_768;
/// What Docker gives to build steps beyond our default: package managers make nodes and write audit records.
const EXTRA_CAPS: [&str; 3] = ["NET_RAW", "MKNOD", "AUDIT_WRITE"];
/// Variable that names the socket of an ssh agent.
const AGENT: &str = "SSH_AUTH_SOCK";
/// Where a heredoc that begins with `#!` is put to be executed.
const SCRIPTS: &str = "/dev/pipes";

/// A RUN with everything decided that its result depends on.
struct Decided {
    args: Vec<String>,
    env: Vec<String>,
    /// Name and content of a heredoc to execute.
    script: Option<(String, String)>,
    network: Network,
}

impl Builder<'_> {
    /// Runs RUN; true if an earlier result was taken.
    pub(crate) async fn execute_run(
        &mut self,
        index: usize,
        state: &mut State,
        run: &Run,
        text: &str,
        place: &Place,
    ) -> Result<bool, Error> {
        let decided = self.decide(state, run)?;
        let mounts = Mounts::new(self, state, &run.mounts, index)?;
        let mut key = Key::new("run");
        key.layers(&state.layers);
        key.list(&decided.args);
        key.list(&decided.env);
        key.list(&[&state.config.config.user, &state.config.config.working_dir]);
        key.text(decided.script.as_ref().map_or("", |(_, content)| content));
        key.text(&format!("{:?} {:?}", decided.network, self.request.extra_hosts));
        if !self.request.rlimits.is_empty() {
            key.text(&format!("{:?}", self.request.rlimits));
        }
        mounts.add_to(&mut key);
        let keys = [key.finish()];
        if self.take_earlier(state, &keys, text)? {
            return Ok(true);
        }

        let pair = self.scratch()?.upper()?;
        let writable = Writable { upper: &pair.upper, work: &pair.work, volatile: true };
        let rootfs = self.store.rootfs(&state.as_image(), Some(writable))?.mount;
        let mut fds = Vec::new();
        let prepared = mounts.prepare(self, &mut fds).await?;
        let mut launch = self.launch(state, &decided);
        launch.mounts.extend(prepared.mounts);
        launch.process.env.extend(prepared.env);
        if let Some(agent) = &prepared.agent
            && scope::in_environment(&launch.process.env, AGENT).is_none()
        {
            launch.process.env.push(format!("{AGENT}={agent}"));
        }
        launch.rootfs = Slot(fds.len());
        let stubs = Stubs::before(&rootfs, &launch.mounts);
        fds.push(rootfs);

        let command = match &run.command {
            Command::Shell(line) => line.clone(),
            Command::Exec(words) => words.join(" "),
        };
        let ended = self.watch(launch, fds, decided.network == Network::Default, place, &command).await;
        drop((prepared.locks, prepared.forwards));
        ended?;
        stubs.remove(&pair.upper)?;
        self.keep(state, &keys, &pair.upper, text)?;
        Ok(false)
    }

    async fn watch(
        &mut self,
        launch: Launch,
        fds: Vec<OwnedFd>,
        bridged: bool,
        place: &Place,
        command: &str,
    ) -> Result<(), Error> {
        let step = self.step.get();
        let progress = self.progress;
        let output = |stream, line| progress(BuildEvent::Output { step, stream, line });
        let folders = (self.request.run.as_path(), self.request.lib.as_path());
        let failed = |code, tail| Error::Run { place: place.clone(), command: command.to_owned(), code, tail };
        match self.runner.run(folders, Step { launch, fds, bridged }, &output).await {
            Ok(ended) if ended.status.code == 0 => Ok(()),
            Ok(ended) => {
                let killed = if ended.status.oom { "\nthe kernel killed it for lack of memory" } else { "" };
                Err(failed(ended.status.code, ended.tail + killed))
            }
            Err(Failure::Runtime(runtime::Error::Launch(error))) if error.code != 125 => {
                Err(failed(error.code, error.message))
            }
            Err(Failure::Runtime(source)) => Err(Error::Start { place: place.clone(), source }),
            Err(Failure::Other(error)) => Err(error),
        }
    }

    fn decide(&self, state: &State, run: &Run) -> Result<Decided, Error> {
        let mut script = None;
        let args = match &run.command {
            Command::Exec(words) if words.is_empty() => {
                return Err(Problem::new("RUN [] has no program to run").into());
            }
            Command::Exec(words) => words.clone(),
            Command::Shell(line) => {
                let line = match (heredoc_word(line.trim())?, run.heredocs.as_slice()) {
                    (Some(_), [doc]) if doc.chomped().starts_with("#!") => {
                        script = Some((doc.name.replace('/', "_"), doc.chomped()));
                        format!("{SCRIPTS}/{}", doc.name.replace('/', "_"))
                    }
                    (Some(_), [doc]) => doc.chomped(),
                    (_, docs) => {
                        let parts = docs.iter().map(|doc| format!("\n{}{}", doc.content, doc.name));
                        std::iter::once(line.clone()).chain(parts).collect()
                    }
                };
                state.shell().into_iter().chain([line]).collect()
            }
        };
        let network = match run.network.as_deref() {
            None => self.request.network,
            Some("default") => Network::Default,
            Some("none") => Network::None,
            Some("host") if self.request.host_network || self.request.network == Network::Host => Network::Host,
            Some("host") => {
                let hint = "allow it: `entitlements: [network.host]` under build";
                return Err(Problem::new("RUN --network=host is not allowed in this build").hint(hint).into());
            }
            Some(other) => {
                let hint = "the networks are default, none and host";
                return Err(Problem::new(format!("RUN has no network `{other}`")).hint(hint).into());
            }
        };
        let config = &state.config.config;
        let unset = |name: &str| scope::in_environment(&config.env, name).is_none();
        let args_given = state.args.given().filter(|(name, _)| unset(name));
        let mut env: Vec<String> = args_given.map(|(name, value)| format!("{name}={value}")).collect();
        env.extend(config.env.iter().cloned());
        Ok(Decided { args, env, script, network })
    }

    fn launch(&self, state: &State, decided: &Decided) -> Launch {
        // Several builds of one process may run at once.
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let config = &state.config.config;
        let mut env = decided.env.clone();
        for (name, value) in self.request.args.iter().filter(|(name, _)| scope::is_proxy(name)) {
            if scope::in_environment(&env, name).is_none() {
                env.push(format!("{name}={value}"));
            }
        }
        let hosts = crate::net::files::hosts(&[], &[], &self.request.extra_hosts).into_bytes();
        let file = |target: &str, content: Vec<u8>, mode: u32| launch::Mount::File {
            target: target.to_owned(),
            content,
            mode,
            uid: 0,
            gid: 0,
            read_only: false,
        };
        let mut mounts = vec![
            file("/etc/hosts", hosts, 0o644),
            file("/etc/resolv.conf", resolv_conf(decided.network != Network::Host), 0o644),
        ];
        mounts.extend(
            decided
                .script
                .clone()
                .map(|(name, content)| file(&format!("{SCRIPTS}/{name}"), content.into_bytes(), 0o755)),
        );
        if let Some(certificates) = &self.request.certificates {
            trust::offer(certificates, &mut env, &mut mounts);
        }
        let caps = caps::DEFAULT.iter().chain(&EXTRA_CAPS).map(|name| (*name).to_owned()).collect();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let id = format!("build-{}-{serial}", std::process::id());
        let net = match decided.network {
            Network::Default => Net::New,
            Network::None => Net::None,
            Network::Host => Net::Host,
        };
        Launch {
            cgroup: Cgroup {
                path: format!("stack/build/{id}"),
                resources: Resources { pids: Some(MAX_PROCESSES), memory: self.request.memory, ..Resources::default() },
                device_rules: Vec::new(),
                borrowed: false,
            },
            id,
            hostname: "build".to_owned(),
            domainname: None,
            namespaces: Namespaces { net, ..Namespaces::default() },
            rootfs: Slot(0),
            read_only: false,
            mounts,
            process: Process {
                args: decided.args.clone(),
                env,
                cwd: config.working_dir.clone(),
                user: config.user.clone(),
                caps,
                rlimits: self.request.rlimits.clone(),
                ..Process::default()
            },
            init: false,
            masked: Launch::default_masked(),
            read_only_paths: Launch::default_read_only_paths(),
            sysctls: BTreeMap::new(),
            keeps: false,
            seccomp: launch::Seccomp::Default,
            privileged: false,
            devices: Vec::new(),
            shm_size: self.request.shm_size.unwrap_or(SHM_SIZE),
            stdio: Stdio::Null,
            ids: None,
        }
    }
}

/// Flags of a mount that only may be read-only.
pub(crate) fn read_only(read_only: bool) -> MountFlags {
    MountFlags { read_only, ..MountFlags::default() }
}
