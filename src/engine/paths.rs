//! Where the engine keeps things.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

/// The two roots: `run` for what a reboot ends, `lib` for what it must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Run state, `/run/stack` by default.
    pub run: PathBuf,
    /// Lasting state, `/var/lib/stack` by default.
    pub lib: PathBuf,
    root: Option<PathBuf>,
}

impl Paths {
    /// The system's paths, or both below `root` (`--root`, `STACK_ROOT`), which is made absolute.
    pub fn new(root: Option<&Path>) -> io::Result<Self> {
        let Some(root) = root else {
            return Ok(Self { run: "/run/stack".into(), lib: "/var/lib/stack".into(), root: None });
        };
        let root = std::path::absolute(root)?;
        Ok(Self { run: root.join("run"), lib: root.join("lib"), root: Some(root) })
    }

    /// The root both lie below, if one was given.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// A short name that tells this root from any other, for names in spaces that all roots share (control groups,
    /// bridges): empty for the system's.
    pub fn instance(&self) -> String {
        use data_encoding::HEXLOWER;
        use sha2::{Digest, Sha256};
        let Some(root) = &self.root else { return String::new() };
        let mut name = HEXLOWER.encode(&Sha256::digest(root.as_os_str().as_encoded_bytes()));
        name.truncate(10);
        name
    }

    /// Run state of a project.
    pub fn project_run(&self, project: &str) -> PathBuf {
        self.run.join(project)
    }

    /// The supervisor's socket.
    pub fn control_socket(&self, project: &str) -> PathBuf {
        self.project_run(project).join("control.sock")
    }

    /// The lock that a project's supervisor holds.
    pub fn lock(&self, project: &str) -> PathBuf {
        self.project_run(project).join("lock")
    }

    /// Run state files of a project's containers.
    pub fn run_states(&self, project: &str) -> PathBuf {
        self.project_run(project).join("containers")
    }

    /// Run state file of one container.
    pub fn run_state(&self, project: &str, id: &str) -> PathBuf {
        self.run_states(project).join(format!("{id}.json"))
    }

    /// Folder with the contents of a container's secrets and configs, each under `secret:<key>` or `config:<key>`; on
    /// a file system in memory by default.
    pub fn file_objects(&self, project: &str, id: &str) -> PathBuf {
        self.project_run(project).join("files").join(id)
    }

    /// Control group of a container below each hierarchy, of no other root.
    pub fn cgroup(&self, project: &str, id: &str) -> String {
        format!("{}/{id}", self.project_cgroup(project))
    }

    /// Control group that a project's containers lie in.
    pub fn project_cgroup(&self, project: &str) -> String {
        match self.instance() {
            instance if instance.is_empty() => format!("stack/{project}"),
            instance => format!("stack-{instance}/{project}"),
        }
    }

    /// All containers' lasting state.
    pub fn containers(&self) -> PathBuf {
        self.lib.join("containers")
    }

    /// One container's lasting state: `config.json`, `upper`, `work`, `log`.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// A container's log file.
    pub fn log(&self, id: &str) -> PathBuf {
        self.container(id).join("log").join("json.log")
    }

    /// A container's own profile of system calls, if it has one.
    pub fn filter(&self, id: &str) -> PathBuf {
        self.container(id).join("seccomp.json")
    }

    /// All volumes.
    pub fn volumes(&self) -> PathBuf {
        self.lib.join("volumes")
    }

    /// One volume: `meta.json` and `_data`.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    /// All networks and the address leases.
    pub fn networks(&self) -> PathBuf {
        self.lib.join("networks")
    }

    /// Names on networks that several projects use, a file for each of either: no project's name begins with a dot.
    pub fn shared_names(&self) -> PathBuf {
        self.run.join(".names")
    }

    /// The desired state of a project, as last asked for.
    pub fn desired(&self, project: &str) -> PathBuf {
        self.lib.join("projects").join(format!("{project}.json"))
    }

    /// Makes the folders that everything else relies on, closed to other users.
    pub fn prepare(&self, project: &str) -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        for dir in
            [self.run_states(project), self.project_run(project).join("files"), self.project_run(project).join("fifo")]
        {
            fs::create_dir_all(dir)?;
        }
        for dir in [self.containers(), self.volumes(), self.networks(), self.lib.join("projects")] {
            fs::create_dir_all(dir)?;
        }
        let private = std::fs::Permissions::from_mode(0o700);
        fs::set_permissions(self.project_run(project), private.clone())?;
        fs::set_permissions(self.containers(), private)
    }
}
