//! `stack oci`: the command line of the runtime-spec, with the flags that runc and crun have.
//!
//! A link to the program by the name `stack-oci` is that command line as it stands, for engines that take one path.

mod args;
mod foreground;
mod log;
mod show;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::error::{Error, Outcome};
use crate::runtime::oci::{self, Create, Exec};
use crate::sys::{exe, process};

pub(crate) use args::Oci;
use args::{Bundle, Delete, Kill, Process, Update, Verb};

/// The name of a link that is this verb.
const LINK: &str = "stack-oci";

/// The command line with the verb, where the program's name stands for it.
pub(crate) fn spelled_out(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    if args.first().is_some_and(|name| Path::new(name).file_name() == Some(LINK.as_ref())) {
        args.insert(1, "oci".into());
    }
    args
}

impl Oci {
    pub(crate) fn run(&self) -> Outcome {
        if matches!(self.verb, Verb::Create(_) | Verb::Run(_) | Verb::Exec(_)) {
            reexecute()?;
        }
        let log = log::Log::new(self);
        self.carry_out(&log).inspect_err(|error| log.error(&error.message()))
    }

    fn carry_out(&self, log: &log::Log<'_>) -> Outcome {
        let containers = oci::Oci::new(self.root());
        match &self.verb {
            Verb::Create(create) => {
                let created = containers.create(&self.wanted(&create.bundle, &create.id))?;
                log.warn_all(&created.warnings)?;
                if created.master.is_some() {
                    containers.delete(&create.id, true)?;
                    return Err(Error::new("process.terminal is on, but nobody takes the terminal")
                        .hint("say where to send it with `--console-socket`"));
                }
            }
            Verb::Start(start) => containers.start(&start.id)?,
            Verb::Run(run) => return self.run_one(&containers, run, log),
            Verb::Exec(exec) => return execute(&containers, exec, log),
            Verb::State(state) => show::json(&containers.state(&state.id)?)?,
            Verb::Kill(kill) => self::kill(&containers, kill)?,
            Verb::Delete(delete) => self::delete(&containers, delete, log)?,
            Verb::List(list) => show::list(&containers.list()?, list)?,
            Verb::Ps(ps) => show::processes(&containers.processes(&ps.id)?, ps)?,
            Verb::Pause(pause) => containers.freeze(&pause.id, true)?,
            Verb::Resume(resume) => containers.freeze(&resume.id, false)?,
            Verb::Update(update) => log.warn_all(&containers.update(&update.id, &resources(update)?)?)?,
            Verb::Features => show::json(&oci::features())?,
        }
        Ok(0)
    }

    /// Where containers are kept.
    fn root(&self) -> PathBuf {
        let given = self.root.clone();
        given.unwrap_or_else(|| match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(folder) if !rustix::process::getuid().is_root() => PathBuf::from(folder).join(LINK),
            _ => PathBuf::from("/run").join(LINK),
        })
    }

    fn wanted(&self, bundle: &Bundle, id: &str) -> Create {
        Create {
            id: id.to_owned(),
            bundle: bundle.folder.clone(),
            console_socket: bundle.console_socket.clone(),
            pid_file: bundle.pid_file.clone(),
            no_pivot: bundle.no_pivot,
            preserve_fds: bundle.preserve_fds,
            systemd_cgroup: self.systemd_cgroup || self.cgroup_manager.as_deref() == Some("systemd"),
        }
    }

    fn run_one(&self, containers: &oci::Oci, run: &args::Run, log: &log::Log<'_>) -> Outcome {
        if !run.detach {
            foreground::begin()?;
        }
        let created = containers.create(&self.wanted(&run.bundle, &run.id))?;
        log.warn_all(&created.warnings)?;
        if created.master.is_some() && run.detach {
            containers.delete(&run.id, true)?;
            return Err(Error::new("process.terminal is on, but nobody takes the terminal of a detached container")
                .hint("say where to send it with `--console-socket`"));
        }
        containers.start(&run.id)?;
        if run.detach {
            return Ok(0);
        }
        let code = foreground::until_end(created.pidfd, created.master)?;
        if !run.keep {
            log.warn_all(&texts(&containers.delete(&run.id, true)?))?;
        }
        Ok(code)
    }
}

fn execute(containers: &oci::Oci, exec: &Process, log: &log::Log<'_>) -> Outcome {
    let text = exec.file.as_deref().map(fs_err::read_to_string).transpose()?;
    if text.is_none() && exec.command.is_empty() {
        return Err(Error::new("no program is given").hint("name one behind the container's id, or use `--process`"));
    }
    let wanted = Exec {
        process: text,
        args: exec.command.clone(),
        env: exec.env.clone(),
        cwd: exec.cwd.clone(),
        user: exec.user,
        groups: exec.additional_gids.clone(),
        caps: exec.cap.clone(),
        tty: exec.tty,
        no_new_privs: exec.no_new_privs,
        apparmor: exec.apparmor.clone(),
        process_label: exec.selinux.clone(),
        console_socket: exec.console_socket.clone(),
        pid_file: exec.pid_file.clone(),
        preserve_fds: exec.preserve_fds,
        ignore_paused: exec.ignore_paused,
        cgroup: exec.cgroup.clone(),
    };
    if !exec.detach {
        foreground::begin()?;
    }
    let executed = containers.exec(&exec.id, &wanted)?;
    log.warn_all(&executed.warnings)?;
    if let Some(mask) = &executed.affinity {
        log.debug(&format!("initial CPU affinity: 0x{mask}"))?;
    }
    if exec.detach { Ok(0) } else { foreground::until_end(executed.pidfd, executed.master) }
}

/// Goes on from a copy of the program that nobody can write to: a container could reach this process.
fn reexecute() -> Result<(), Error> {
    if exe::is_sealed() {
        return Ok(());
    }
    let sealed = exe::sealed(Path::new("/proc/self/exe"))?;
    let strings = |list: Vec<OsString>| {
        let string = |text: OsString| std::ffi::CString::new(text.into_encoded_bytes());
        list.into_iter().map(string).collect::<Result<Vec<_>, _>>()
    };
    let env = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let program = strings(vec![exe::path_of(&sealed).into()])?;
    let error = process::exec(&program[0], &strings(std::env::args_os().collect())?, &strings(env.collect())?);
    Err(Error::from(error).context("cannot go on from a sealed copy of the program"))
}

fn kill(containers: &oci::Oci, kill: &Kill) -> Result<(), Error> {
    let signal = process::signal_number(&kill.signal)
        .ok_or_else(|| Error::new(format!("{:?} is no signal", kill.signal)).hint("signal(7) has their names"))?;
    Ok(containers.kill(&kill.id, signal, kill.all)?)
}

fn delete(containers: &oci::Oci, delete: &Delete, log: &log::Log<'_>) -> Result<(), Error> {
    let failed = containers.delete(&delete.id, delete.force)?;
    log.warn_all(&texts(&failed))
}

fn texts(errors: &[oci::Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// What `update` is asked for, as the JSON of `linux.resources`.
fn resources(update: &Update) -> Result<String, Error> {
    match update.resources.as_deref() {
        Some(file) if file == Path::new("-") => Ok(std::io::read_to_string(std::io::stdin())?),
        Some(file) => Ok(fs_err::read_to_string(file)?),
        None => Ok(update.json().to_string()),
    }
}
