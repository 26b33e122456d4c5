//! From a ready tree to the program: terminal, user, capabilities, filter, exec.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::port::Port;
use super::user::User;
use super::{Standard, Step};
use crate::runtime::caps;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::{Process, Rlimit};
use crate::runtime::seccomp::Filter;
use crate::runtime::wire::Report;
use crate::sys::{self, mount, path, terminal};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is needed to become a container's first process, or an exec, once inside.
pub(super) struct Setting<'a> {
    pub(super) process: &'a Process,
    pub(super) port: &'a Port,
    pub(super) filter: Option<&'a Filter>,
    pub(super) root: BorrowedFd<'a>,
    pub(super) devpts: BorrowedFd<'a>,
    /// A container's first process: gets `/dev/console`.
    pub(super) first: bool,
}

impl Setting<'_> {
    /// Makes the terminal or the given descriptors the standard ones, in a session of its own.
    pub(super) fn connect(&self, standard: &Standard, user: &User) -> Result<(), LaunchError> {
        rustix::process::setsid().step(|| "start a session")?;
        let owner = Some(Uid::from_raw(user.uid));
        if self.process.tty {
            let peer = self.open_terminal(owner)?;
            return redirect([peer.as_fd(); 3]);
        }
        let null =
            rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(|| "open /dev/null")?;
        if standard.owned && user.uid != 0 {
            for fd in standard.fds[1..].iter().flatten() {
                rustix::fs::fchown(fd, owner, None).step(|| "give the log pipes to the user")?;
            }
        }
        let [input, output, error] = standard.fds.each_ref().map(|fd| fd.as_ref().unwrap_or(&null).as_fd());
        redirect([input, output, error])
    }

    fn open_terminal(&self, owner: Option<Uid>) -> Result<OwnedFd, LaunchError> {
        let step = || "open a terminal";
        let (master, peer) = terminal::open(self.devpts).step(step)?;
        let (rows, columns) = self.process.size.unwrap_or((24, 80));
        terminal::resize(&master, rows, columns).step(step)?;
        rustix::fs::fchown(&peer, owner, None).step(step)?;
        if self.first {
            let tree = mount::clone_tree_at(peer.as_fd(), Path::new(""), false).step(|| "mount /dev/console")?;
            super::mounts::place(self.root, tree.as_fd(), "/dev/console")?;
        }
        terminal::control(&peer).step(step)?;
        self.port.tell(&Report::Terminal, Some(master.as_fd())).step(step)?;
        Ok(peer)
    }

    /// Everything that is left but the exec: limits, working directory, filter, capabilities, user. Nothing can be
    /// opened for the process after this.
    pub(super) fn confine(&self, user: &User) -> Result<(), LaunchError> {
        match sys::process::new_keyring() {
            Err(e) if e.raw_os_error() != Some(libc::ENOSYS) => return Err(LaunchError::new("join a new keyring", e)),
            _ => {}
        }
        sys::process::free_reserved_descriptors().step(|| "close descriptors")?;
        for limit in &self.process.rlimits {
            set_limit(limit)?;
        }
        self.change_folder()?;
        let held = caps::mask(&self.process.caps).map_err(|e| LaunchError::refused("capabilities", e))?;
        let filter = |when: bool| match self.filter {
            Some(filter) if when => {
                let step = || "load the system call filter";
                let listener = filter.load().step(step)?;
                listener.map_or(Ok(()), |listener| self.port.tell(&Report::Listener, Some(listener.as_fd())).step(step))
            }
            _ => Ok(()),
        };
        // Without no_new_privs it takes a capability that is about to go.
        filter(!self.process.no_new_privileges)?;
        sys::caps::limit(held).step(|| "limit capabilities")?;
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        rustix::thread::set_thread_groups(&groups).step(|| "set groups")?;
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        rustix::thread::set_thread_res_gid(gid, gid, gid).step(|| format!("set group {}", user.gid))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).step(|| format!("set user {}", user.uid))?;
        sys::caps::set(if user.uid == 0 { held } else { 0 }).step(|| "set capabilities")?;
        rustix::process::umask(Mode::from(self.process.umask.unwrap_or(0o022)));
        sys::process::close_on_exec_from(3).step(|| "close descriptors")?;
        if self.process.no_new_privileges {
            rustix::thread::set_no_new_privs(true).step(|| "set no_new_privs")?;
        }
        filter(self.process.no_new_privileges)
    }

    /// Makes a missing working directory.
    pub(super) fn make_folder(&self) -> Result<(), LaunchError> {
        let cwd = Path::new(&self.process.cwd);
        let made = path::ensure_in_root(self.root, cwd, path::Missing::Folder);
        made.map(drop).step(|| format!("make the working directory {}", cwd.display()))
    }

    fn change_folder(&self) -> Result<(), LaunchError> {
        let cwd = if self.process.cwd.is_empty() { "/" } else { &self.process.cwd };
        let step = || format!("change to the working directory {cwd}");
        if !cwd.starts_with('/') {
            return Err(LaunchError::refused(step(), "not an absolute path").with_code(126));
        }
        let folder = path::open_in_root(self.root, Path::new(cwd), OFlags::PATH);
        let changed = folder.and_then(|folder| Ok(rustix::process::fchdir(folder)?));
        changed.step(step).map_err(|error| error.with_code(126))?;
        // A folder that isn't below the root would be shown as "(unreachable)…".
        let name = rustix::process::getcwd(Vec::new()).step(step)?;
        if name.as_bytes().first() == Some(&b'/') {
            return Ok(());
        }
        Err(LaunchError::refused(step(), "it lies outside of the container").with_code(126))
    }
}

/// A program with its arguments and environment, in the form that the kernel takes.
pub(crate) struct Program {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
    name: String,
}

impl Program {
    pub(crate) fn new(process: &Process, user: &User) -> Result<Self, LaunchError> {
        let strings = |list: &[String]| {
            list.iter()
                .map(|text| CString::new(text.as_bytes()))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| LaunchError::refused("exec", "an argument or variable contains a NUL byte").with_code(126))
        };
        let Some(name) = process.args.first().filter(|name| !name.is_empty()) else {
            return Err(LaunchError::refused("exec", "no command specified").with_code(127));
        };
        let mut env = process.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", user.home));
        }
        let search = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        let candidates: Vec<String> = if name.contains('/') {
            vec![name.clone()]
        } else {
            let folders = search.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
            folders.map(|folder| format!("{folder}/{name}")).collect()
        };
        let (candidates, args) = (strings(&candidates)?, strings(&process.args)?);
        Ok(Self { candidates, args, env: strings(&env)?, name: name.clone() })
    }

    /// Replaces the process; returns only why it couldn't.
    pub(crate) fn exec(&self) -> LaunchError {
        let searched = !self.name.contains('/');
        let mut worst = Errno::NOENT;
        for candidate in &self.candidates {
            let error = sys::process::exec(candidate, &self.args, &self.env);
            match error.raw_os_error().map(Errno::from_raw_os_error) {
                Some(Errno::NOENT | Errno::NOTDIR) => {}
                Some(Errno::ACCESS) if searched => worst = Errno::ACCESS,
                Some(other) => return self.failed(other),
                None => return LaunchError::new("exec", error).with_code(126),
            }
        }
        self.failed(worst)
    }

    /// Why it can't be run, as far as that shows without running it.
    pub(crate) fn check(&self) -> Result<(), LaunchError> {
        let mut worst = Errno::NOENT;
        for candidate in &self.candidates {
            match rustix::fs::access(candidate.as_c_str(), rustix::fs::Access::EXEC_OK) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(other) => worst = other,
            }
        }
        Err(self.failed(worst))
    }

    fn failed(&self, errno: Errno) -> LaunchError {
        let searched = !self.name.contains('/');
        let (reason, code) = match errno {
            Errno::NOENT if searched => ("executable file not found in $PATH".to_owned(), 127),
            Errno::NOENT => ("no such file or directory".to_owned(), 127),
            Errno::ACCESS => ("permission denied".to_owned(), 126),
            Errno::NOEXEC => ("exec format error".to_owned(), 126),
            other => (other.to_string(), 126),
        };
        let message = format!("exec: {:?}: {reason}", self.name);
        LaunchError { step: "exec".to_owned(), message, errno: errno.raw_os_error(), code }
    }
}

/// Makes three descriptors standard input, output and error.
pub(crate) fn redirect([input, output, error]: [BorrowedFd<'_>; 3]) -> Result<(), LaunchError> {
    let step = || "set standard input and output";
    rustix::stdio::dup2_stdin(input).step(step)?;
    rustix::stdio::dup2_stdout(output).step(step)?;
    rustix::stdio::dup2_stderr(error).step(step)
}

/// Sets a limit of the caller.
pub(crate) fn set_limit(limit: &Rlimit) -> Result<(), LaunchError> {
    sys::process::set_limit(resource(limit)?, limit.soft, limit.hard).step(|| format!("set limit {}", limit.name))
}

/// Raises a limit of a process, or of the caller (0), so that only to lower it is left, which takes no right.
pub(crate) fn raise_limit(limit: &Rlimit, of: i32) -> Result<(), LaunchError> {
    let raised = sys::process::raise_limit_of(of, resource(limit)?, limit.soft, limit.hard);
    raised.step(|| format!("set limit {}", limit.name))
}

fn resource(limit: &Rlimit) -> Result<u32, LaunchError> {
    Ok(match limit.name.trim_start_matches("rlimit_").trim_start_matches("RLIMIT_") {
        "as" => libc::RLIMIT_AS,
        "core" => libc::RLIMIT_CORE,
        "cpu" => libc::RLIMIT_CPU,
        "data" => libc::RLIMIT_DATA,
        "fsize" => libc::RLIMIT_FSIZE,
        "locks" => libc::RLIMIT_LOCKS,
        "memlock" => libc::RLIMIT_MEMLOCK,
        "msgqueue" => libc::RLIMIT_MSGQUEUE,
        "nice" => libc::RLIMIT_NICE,
        "nofile" => libc::RLIMIT_NOFILE,
        "nproc" => libc::RLIMIT_NPROC,
        "rss" => libc::RLIMIT_RSS,
        "rtprio" => libc::RLIMIT_RTPRIO,
        "rttime" => libc::RLIMIT_RTTIME,
        "sigpending" => libc::RLIMIT_SIGPENDING,
        "stack" => libc::RLIMIT_STACK,
        _ => return Err(LaunchError::refused(format!("set limit {}", limit.name), "no such limit")),
    })
}
