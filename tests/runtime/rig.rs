//! A shim of its own for every test, with a root of busybox, and nothing left of either.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stack::runtime::caps;
use stack::runtime::launch::{
    Cgroup, ExitStatus, Launch, Mount, MountFlags, Namespaces, Net, Process, Seccomp, Slot, Stdio,
};
use stack::runtime::shim::{Client, Event, SpawnOptions};
use stack::sys::mount;

const BUSYBOX: &str = "/bin/busybox";
const BINARY: &str = env!("CARGO_BIN_EXE_stack");

/// A test's shim and folder.
pub struct Rig {
    pub folder: tempfile::TempDir,
    pub client: Client,
}

/// Runs a test with a rig, and checks that nothing stays.
pub fn with_rig<F: AsyncFnOnce(&mut Rig)>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        make_root(&folder.path().join("root"));
        let client = spawn(folder.path(), &[]);
        let mut rig = Rig { folder, client };
        test(&mut rig).await;
        for entry in rig.client.list().await.unwrap() {
            rig.client.forget(&entry.id).await.unwrap();
        }
        rig.client.shutdown().await.unwrap();
        while rig.client.next_event().await.is_some() {}
        rig.assert_clean();
    });
}

pub fn spawn(run_dir: &Path, restart: &[&str]) -> Client {
    let restart_argv = restart.iter().map(|&arg| arg.to_owned()).collect();
    Client::spawn_from(Path::new(BINARY), &SpawnOptions { run_dir: run_dir.to_owned(), restart_argv }).unwrap()
}

fn make_root(root: &Path) {
    assert!(Path::new(BUSYBOX).exists(), "{BUSYBOX} is missing: install the Debian package busybox-static");
    for folder in ["bin", "etc", "tmp", "root"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    let applets = std::process::Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
    for name in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/tmp:/bin/sh\n").unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\nadm:x:4:web\n").unwrap();
}

impl Rig {
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The folder's name, for names that no other test has.
    pub fn name(&self) -> String {
        self.folder.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned()
    }

    pub fn root_tree(&self) -> OwnedFd {
        mount::clone_tree(&self.root(), false).unwrap()
    }

    /// A start of a shell script; slot 0 is the root.
    pub fn launch(&self, id: &str, script: &str) -> Launch {
        Launch {
            id: id.to_owned(),
            hostname: format!("host-{id}"),
            domainname: None,
            namespaces: Namespaces { net: Net::None, ..Namespaces::default() },
            rootfs: Slot(0),
            read_only: false,
            mounts: Vec::new(),
            process: self.process(&["sh", "-c", script]),
            init: false,
            cgroup: Cgroup { path: format!("stack-test/{}/{id}", self.name()), ..Cgroup::default() },
            masked: Launch::default_masked(),
            read_only_paths: Launch::default_read_only_paths(),
            sysctls: std::collections::BTreeMap::new(),
            seccomp: Seccomp::Default,
            keeps: false,
            privileged: false,
            devices: Vec::new(),
            shm_size: 1 << 20,
            stdio: Stdio::Log { path: self.log_path(id), max_size: 0, max_files: 1, stdin: false },
            ids: None,
        }
    }

    #[expect(clippy::unused_self, reason = "reads as what the rig runs")]
    pub fn process(&self, args: &[&str]) -> Process {
        Process {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: vec!["PATH=/bin".to_owned()],
            caps: caps::effective(&[], &[], false).unwrap(),
            ..Process::default()
        }
    }

    pub fn log_path(&self, id: &str) -> PathBuf {
        self.folder.path().join(format!("{id}.log"))
    }

    /// What a container wrote, of one stream or both.
    pub fn log(&self, id: &str, stream: Option<&str>) -> String {
        let text = std::fs::read_to_string(self.log_path(id)).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let wanted = lines.filter(|line| stream.is_none_or(|stream| line["stream"] == stream));
        wanted.map(|line| line["log"].as_str().unwrap().to_owned()).collect()
    }

    /// Creates, starts and waits; returns the exit status and what was written.
    pub async fn run(&self, launch: &Launch) -> (ExitStatus, String) {
        self.run_with(launch, Vec::new()).await
    }

    /// As [`Self::run`], with descriptors from slot 1 on.
    pub async fn run_with(&self, launch: &Launch, fds: Vec<OwnedFd>) -> (ExitStatus, String) {
        self.start_with(launch, fds).await;
        let status = self.wait(&launch.id).await;
        (status, self.log(&launch.id, None))
    }

    pub async fn start(&self, launch: &Launch) {
        self.start_with(launch, Vec::new()).await;
    }

    pub async fn start_with(&self, launch: &Launch, mut fds: Vec<OwnedFd>) {
        fds.insert(0, self.root_tree());
        self.client.create(launch, fds).await.unwrap();
        self.client.start(&launch.id).await.unwrap();
    }

    /// As [`Self::start`], of another root.
    pub async fn start_tree(&self, launch: &Launch, root: OwnedFd) {
        self.client.create(launch, vec![root]).await.unwrap();
        self.client.start(&launch.id).await.unwrap();
    }

    /// Runs a script in a container, which must succeed.
    pub async fn exec_ok(&mut self, id: &str, script: &str) {
        let process = self.process(&["sh", "-c", script]);
        let exec = self.client.exec(id, &process, Vec::new()).await.unwrap();
        loop {
            let event = tokio::time::timeout(Duration::from_mins(1), self.client.next_event()).await;
            if let Event::ExecExited { exec_id, status } = event.expect("no event in time").expect("the shim is gone")
                && exec_id == exec.exec_id
            {
                assert_eq!(status.code, 0, "{script}");
                return;
            }
        }
    }

    /// Waits for the container's end.
    pub async fn wait(&self, wanted: &str) -> ExitStatus {
        loop {
            let event = tokio::time::timeout(Duration::from_mins(1), self.client.next_event()).await;
            if let Event::Exited { id, status, .. } = event.expect("no event in time").expect("the shim is gone")
                && id == wanted
            {
                return status;
            }
        }
    }

    /// Waits until the container wrote something.
    pub async fn wait_for_log(&self, id: &str, text: &str) {
        for _ in 0..500 {
            if self.log(id, None).contains(text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} never wrote {text:?}, but {:?}", self.log(id, None));
    }

    fn assert_clean(&self) {
        let fifos: Vec<_> = std::fs::read_dir(self.folder.path().join("fifo")).unwrap().collect();
        assert!(fifos.is_empty(), "{fifos:?}");
        assert!(!self.folder.path().join("shim.sock").exists());
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            let folder = hierarchy.join("stack-test").join(self.name());
            assert!(!folder.exists(), "{} is left", folder.display());
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.name()), "a mount is left");
    }
}

/// Whether this machine has control groups of version 2 only.
pub fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// How a process in a container sees its own memory group in `/proc/self/cgroup`.
pub fn own_group() -> &'static str {
    if is_unified() { "0::/\n" } else { ":memory:/\n" }
}

/// A bind mount at slot `slot`.
pub fn tree(slot: usize, target: &str, flags: MountFlags) -> Mount {
    Mount::Tree { slot: Slot(slot), target: target.to_owned(), flags }
}

/// A detached copy of a host folder or file.
pub fn bind(path: &Path) -> OwnedFd {
    mount::clone_tree(path, false).unwrap()
}
