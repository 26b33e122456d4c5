//! A bundle with a root of busybox, and the command line that runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::sandbox::STACK;

const BUSYBOX: &str = "/bin/busybox";
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A bundle of its own. Dropped, it deletes its container and looks for what stayed.
pub(super) struct Bundle {
    pub(super) folder: tempfile::TempDir,
    pub(super) id: String,
    pub(super) config: Value,
}

/// What a command left.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    pub(super) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    pub(super) fn fails(self, text: &str) -> Self {
        assert_ne!(self.code, 0, "{}{}", self.out, self.err);
        assert!(self.err.contains(text), "{text:?} is not in {:?}", self.err);
        self
    }
}

impl Bundle {
    /// A bundle whose program is a script.
    pub(super) fn new(script: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("stack-oci.").tempdir().unwrap();
        for name in ["bin", "etc", "tmp", "proc", "dev", "sys", "data"] {
            fs_err::create_dir_all(folder.path().join("rootfs").join(name)).unwrap();
        }
        fs_err::copy(BUSYBOX, folder.path().join("rootfs/bin/busybox")).unwrap();
        let applets = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
        for name in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", folder.path().join("rootfs/bin").join(name)).unwrap();
        }
        let id = format!("oci{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let config = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs" },
            "process": { "cwd": "/", "args": ["sh", "-c", script], "env": ["PATH=/bin"],
                "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] } },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            ],
            "linux": {
                "cgroupsPath": format!("/stack-oci-tests/{id}"),
                "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                    { "type": "network" }, { "type": "cgroup" }],
            },
        });
        Self { folder, id, config }
    }

    /// A member of the configuration by its JSON pointer, made if missing.
    pub(super) fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let mut place = &mut self.config;
        for name in pointer.trim_start_matches('/').split('/') {
            place = match name.parse::<usize>() {
                Ok(index) if place.is_array() => &mut place[index],
                _ => &mut place[name],
            };
        }
        *place = value;
        self
    }

    /// Adds a member to a list of the configuration.
    pub(super) fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command line of `stack oci`.
    pub(super) fn command(&self, args: &[&str]) -> Command {
        fs_err::write(self.path("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(STACK);
        command.args(["oci", "--root"]).arg(self.path("run")).args(args).stdin(Stdio::null());
        command
    }

    /// Runs a command line whose output is its own.
    pub(super) fn oci(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Makes the container; what its program writes goes to the file `out`.
    pub(super) fn create(&self) -> Ran {
        self.create_with(&[])
    }

    pub(super) fn create_with(&self, flags: &[&str]) -> Ran {
        let bundle = self.folder.path().to_str().unwrap();
        let args = [&["create", "--bundle", bundle][..], flags, &[&self.id]].concat();
        let out = fs_err::File::create(self.path("out")).unwrap();
        let errors = self.path("err");
        let mut command = self.command(&args);
        command.stdout(out.into_file()).stderr(fs_err::File::create(&errors).unwrap().into_file());
        let code = command.status().unwrap().code().unwrap_or(-1);
        Ran { code, out: String::new(), err: fs_err::read_to_string(errors).unwrap() }
    }

    /// Runs the container to its end.
    pub(super) fn run(&self) -> Ran {
        self.oci(&["run", "--bundle", self.folder.path().to_str().unwrap(), &self.id])
    }

    pub(super) fn start(&self) -> Ran {
        self.oci(&["start", &self.id])
    }

    pub(super) fn state(&self) -> Value {
        serde_json::from_str(&self.oci(&["state", &self.id]).ok().out).unwrap()
    }

    pub(super) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    pub(super) fn pid(&self) -> i64 {
        self.state()["pid"].as_i64().unwrap()
    }

    pub(super) fn kill(&self, signal: &str) -> Ran {
        self.oci(&["kill", &self.id, signal])
    }

    pub(super) fn delete(&self) -> Ran {
        self.oci(&["delete", &self.id])
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let deleted = self.oci(&["delete", "--force", &self.id]);
        if std::thread::panicking() {
            return;
        }
        assert_eq!(deleted.code, 0, "{}", deleted.err);
        let groups = ["", "pids", "memory", "freezer", "unified"];
        let left = groups.map(|name| Path::new("/sys/fs/cgroup").join(name).join("stack-oci-tests").join(&self.id));
        assert_eq!(left.iter().filter(|folder| folder.exists()).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
        assert!(!self.path("run").join(&self.id).exists());
    }
}
