//! The ssh agents that builds are offered: sockets of agents that run, and agents of their own for keys in files.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fs_err as fs;

use super::error::Error;

/// Where a caller's agent listens.
const VARIABLE: &str = "SSH_AUTH_SOCK";

/// Agents by id. Those that were started for keys end with it.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    sockets: BTreeMap<String, PathBuf>,
    started: Vec<Started>,
}

/// An `ssh-agent` that holds keys of files, and its folder.
#[derive(Debug)]
struct Started {
    process: Child,
    folder: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Agents {
    /// Finds the agents that `values` name: `ID`, `ID=SOCKET` or `ID=KEY[,KEY]`, the last of an id winning.
    pub(crate) fn new<'a>(values: impl Iterator<Item = &'a String>, run: &Path) -> Result<Self, Error> {
        let mut agents = Self::default();
        let wanted: BTreeMap<&str, &str> = values.map(|value| value.split_once('=').unwrap_or((value, ""))).collect();
        for (id, paths) in wanted {
            let paths: Vec<PathBuf> = paths.split(',').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
            let socket = match paths.as_slice() {
                [] => own(id)?,
                [path] if is_socket(path) => path.clone(),
                keys => agents.start(id, keys, run)?,
            };
            agents.sockets.insert(id.to_owned(), socket);
        }
        Ok(agents)
    }

    /// Where each of them listens.
    pub(crate) fn sockets(&self) -> &BTreeMap<String, PathBuf> {
        &self.sockets
    }

    /// Starts an agent that holds `keys`.
    fn start(&mut self, id: &str, keys: &[PathBuf], run: &Path) -> Result<PathBuf, Error> {
        if let Some(missing) = keys.iter().find(|key| !key.exists()) {
            return Err(Error::new(format!("ssh agent `{id}`: there is no {}", missing.display()))
                .hint("name the socket of an agent, or files with keys"));
        }
        let folder = run.join(format!("build/agent-{}-{}", std::process::id(), self.started.len()));
        fs::create_dir_all(&folder)?;
        let socket = folder.join("socket");
        let process = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::piped()).spawn();
        let process = process.map_err(|error| absent(error, id))?;
        let started = self.started.len();
        self.started.push(Started { process, folder });
        // It says its name once it listens.
        if let Some(output) = self.started[started].process.stdout.take() {
            BufReader::new(output).read_line(&mut String::new())?;
        }
        let added = Command::new("ssh-add").arg("-q").args(keys).env(VARIABLE, &socket).stdin(Stdio::null()).status();
        if !added.map_err(|error| absent(error, id))?.success() {
            return Err(Error::new(format!("ssh agent `{id}`: its keys could not be read"))
                .hint("a key with a passphrase belongs into an agent of yours: `ssh-add KEY`, then `--ssh default`"));
        }
        Ok(socket)
    }
}

/// The caller's own agent.
fn own(id: &str) -> Result<PathBuf, Error> {
    let socket = std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty()).map(PathBuf::from);
    let socket = socket.ok_or_else(|| {
        Error::new(format!("ssh agent `{id}`: {VARIABLE} is not set"))
            .hint(format!("start one with `eval $(ssh-agent)`; under sudo: `sudo --preserve-env={VARIABLE}`"))
    })?;
    if is_socket(&socket) {
        return Ok(socket);
    }
    Err(Error::new(format!("ssh agent `{id}`: {VARIABLE} names {}, which is no socket", socket.display())))
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn absent(error: io::Error, id: &str) -> Error {
    Error::from(error)
        .context(format!("ssh agent `{id}`: keys of files need ssh-agent and ssh-add"))
        .hint("install openssh-client, or name the socket of an agent that runs")
}
