//! From global flags to a loaded project, or to the name of one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::args::Global;
use super::error::Error;
use super::ui::Ui;
use crate::engine::paths::Paths;
use crate::engine::state::{self, Container};
use crate::spec::discover::{ProjectFlags, discover};
use crate::spec::{Loaded, Loader, Options, Origin, load};

/// What every verb gets: the global flags, how to talk to the user, and where the engine keeps things.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) ui: Ui,
    pub(crate) paths: Paths,
    /// Of the stack file loaded last: errors show its lines.
    origin: RefCell<Origin>,
}

/// A project that a verb works on: its name, and its file where one was found.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) loaded: Option<Loaded>,
}

impl Context {
    /// `root`: `--root`, else `STACK_ROOT`.
    pub(crate) fn new(global: Global) -> Result<Self, Error> {
        let ui = Ui::new(global.ansi, global.progress);
        let from_env = std::env::var_os("STACK_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from);
        let root = global.root.clone().or(from_env);
        if let Some(root) = root.as_ref().filter(|root| root.exists() && !root.is_dir()) {
            return Err(Error::new(format!("`{}` is no folder, so no state can be kept in it", root.display()))
                .hint("name a folder with `--root` or STACK_ROOT; it is made if it is missing"));
        }
        let paths = Paths::new(root.as_deref())?;
        Ok(Self { global, ui, paths, origin: RefCell::default() })
    }

    /// Shows with an error the line of the stack file that asks for what failed.
    pub(crate) fn located(&self, error: Error) -> Error {
        error.located(&self.origin.borrow())
    }

    /// Loads the stack file and prints its warnings. `services` are those named by arguments.
    pub(crate) fn load(&self, services: &[String]) -> Result<Loaded, Error> {
        self.load_with(services, Options::default())
    }

    /// [`Self::load`] with the switches of `config`.
    pub(crate) fn load_with(&self, services: &[String], options: Options) -> Result<Loaded, Error> {
        let loaded = self.load_quietly(services, options)?;
        self.ui.warn_all(&loaded.warnings)?;
        Ok(loaded)
    }

    /// Loads the stack file for a verb that makes nothing of it: its warnings would be noise.
    fn load_quietly(&self, services: &[String], options: Options) -> Result<Loaded, Error> {
        let options = Options { all_resources: options.all_resources || self.global.all_resources, ..options };
        let flags = ProjectFlags {
            files: self.global.file.clone(),
            project_directory: self.global.project_directory.clone(),
            project_name: self.global.project_name.clone(),
            env_files: self.global.env_file.clone(),
            profiles: self.global.profile.clone(),
            cwd: std::env::current_dir().map_err(|e| Error::from(e).context("the current folder is gone"))?,
            environment: environment(),
            services: services.to_vec(),
            options,
        };
        let loader = FsLoader;
        let mut loaded = load(&discover(&flags, &loader)?, &loader)?;
        let asked = loaded.environment.get("COMPOSE_COMPATIBILITY").is_some_and(|value| super::is_yes(value));
        loaded.project.underscores = self.global.compatibility || asked;
        self.origin.replace(loaded.origin.clone());
        Ok(loaded)
    }

    /// The project whose containers a verb works on. As in docker compose, `-p` without `-f` is enough, and no file is
    /// read then; `COMPOSE_PROJECT_NAME` stands in where no file is found.
    pub(crate) fn target(&self) -> Result<Target, Error> {
        if let Some(name) = &self.global.project_name
            && self.global.file.is_empty()
        {
            return Ok(Target { name: checked_name(name)?, loaded: None });
        }
        match self.load_quietly(&[], Options::default()) {
            Ok(loaded) => Ok(Target { name: loaded.project.name.clone(), loaded: Some(loaded) }),
            Err(error) => match std::env::var("COMPOSE_PROJECT_NAME") {
                Ok(name) if !name.is_empty() && self.global.file.is_empty() => {
                    Ok(Target { name: checked_name(&name)?, loaded: None })
                }
                _ => Err(error),
            },
        }
    }

    /// The containers of a project by name.
    pub(crate) fn containers(&self, project: &str) -> Result<Vec<Container>, Error> {
        require_root()?;
        Ok(state::read_containers(&self.paths, project)?)
    }
}

impl Target {
    /// The services a verb shall work on, each of them in the file or with a container.
    pub(crate) fn check_services(&self, services: &[String], containers: &[Container]) -> Result<(), Error> {
        for name in services {
            let in_file = self.loaded.as_ref().is_some_and(|loaded| loaded.all_services.contains(name));
            if !in_file && !containers.iter().any(|container| container.record.service == *name) {
                return Err(self.unknown_service(name, containers));
            }
        }
        Ok(())
    }

    /// The error for a service that is nowhere.
    pub(crate) fn unknown_service(&self, name: &str, containers: &[Container]) -> Error {
        let mut known: Vec<&str> = containers.iter().map(|container| container.record.service.as_str()).collect();
        known.extend(self.loaded.iter().flat_map(|loaded| loaded.all_services.iter().map(String::as_str)));
        known.sort_unstable();
        known.dedup();
        let error = Error::new(format!("no such service: {name}"));
        if known.is_empty() {
            error.hint(format!("project `{}` has no containers", self.name))
        } else {
            error.hint(format!("the services are {}", known.join(", ")))
        }
    }
}

/// Containers need the rights of root.
pub(crate) fn require_root() -> Result<(), Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new("stack works with namespaces, mounts and networks, which needs the rights of root")
        .hint("run the same command with sudo"))
}

/// What the kernel must offer before anything is made.
pub(crate) fn require_kernel() -> Result<(), Error> {
    use rustix::io::Errno;
    match rustix::mount::fsopen("overlay", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok(()),
        Err(Errno::NODEV) => Err(Error::new("this kernel has no overlay file system, which images are mounted with")
            .hint("load it with `modprobe overlay`, or use a kernel built with CONFIG_OVERLAY_FS")),
        Err(Errno::NOSYS) => Err(Error::new("this kernel lacks the mount interface of Linux 5.2 (fsopen)")
            .hint("use a kernel of version 5.15 or later")),
        Err(errno) => Err(Error::from(errno).context("cannot use the overlay file system")),
    }
}

fn checked_name(name: &str) -> Result<String, Error> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = name.starts_with(good) && name.chars().all(|c| good(c) || c == '_' || c == '-');
    if valid {
        return Ok(name.to_owned());
    }
    Err(Error::new(format!("invalid project name `{name}`"))
        .hint("it begins with a lower-case letter or digit and goes on with those, `-` and `_`"))
}

/// The caller's environment as text. Under sudo, `HOME` is the home of the user who called it.
pub(crate) fn environment() -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let user = environment.get("SUDO_UID").filter(|_| rustix::process::geteuid().is_root());
    if let Some(home) = user.and_then(|uid| home_of(uid)) {
        environment.insert("HOME".into(), home);
    }
    environment
}

/// The home of a user id after /etc/passwd.
fn home_of(uid: &str) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let fields =
        passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.get(2) == Some(&uid))?;
    fields.get(5).map(ToString::to_string).filter(|home| home.starts_with('/'))
}

/// Files as the operating system has them.
#[derive(Debug)]
pub(crate) struct FsLoader;

impl Loader for FsLoader {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        if path == Path::new("-") {
            return read_limited(io::stdin().lock(), limit);
        }
        // Opening a FIFO or a device could block or have effects: look before.
        let metadata = fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() && path != Path::new("/dev/null") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        read_limited(fs::File::open(path)?, limit)
    }

    fn is_file(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir())
    }

    fn resolve(&self, path: &Path) -> PathBuf {
        fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
    }
}

fn read_limited(file: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names() {
        assert!(checked_name("a-b_1").is_ok());
        for bad in ["", "-a", "A", "a.b", "../x"] {
            assert!(checked_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reading_has_a_limit() {
        assert_eq!(read_limited(&b"1234"[..], 4).unwrap(), b"1234");
        assert_eq!(read_limited(&b"12345"[..], 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn root_lives_in_root() {
        assert_eq!(home_of("0").as_deref(), Some("/root"));
    }
}
