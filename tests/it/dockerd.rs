//! A dockerd of the test's own: in mount and pid namespaces of its own, in the calling thread's network namespace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lan::run;
use crate::poll::until;

/// Process 1 of the namespaces: a /proc and /sys of its own with the machine's control groups, an empty /run.
const INSIDE: &str = r#"set -e
mount -t proc proc /proc
mkdir -p "$DIR/cgroup" "$DIR/config"
mount --rbind /sys/fs/cgroup "$DIR/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$DIR/cgroup" /sys/fs/cgroup
umount -l "$DIR/cgroup"
mount -t tmpfs tmpfs /run
echo '{}' >"$DIR/config/config.json"
while :; do
  dockerd --data-root "$DIR/data" --exec-root /run/docker --pidfile /run/docker.pid -H "unix://$DIR/docker.sock" \
    --storage-driver overlay2 --cgroup-parent "/$GROUP" --oom-score-adjust=0 >>"$DIR/dockerd.log" 2>&1 || sleep 0.2
done"#;

/// Ends with all its containers when dropped.
pub(crate) struct Dockerd {
    process: Child,
    folder: tempfile::TempDir,
}

impl Dockerd {
    /// Starts it and makes the image `busybox`; it needs the Debian packages docker.io and iptables.
    pub(crate) fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("stack-docker.").tempdir().unwrap();
        let group = folder.path().file_name().unwrap().to_owned();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "bash", "-c", INSIDE]);
        command.env("DIR", folder.path()).env("GROUP", group).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let process = command.stdin(Stdio::null()).spawn().expect("util-linux");
        let docker = Self { process, folder };
        docker.until_up();
        let root = docker.folder.path().join("busybox");
        fs_err::create_dir_all(root.join("bin")).unwrap();
        fs_err::copy("/bin/busybox", root.join("bin/busybox")).expect("the Debian package busybox-static");
        let tar = format!("tar -C {} -c . | docker -H {} import - busybox", root.display(), docker.socket());
        run("sh", &["-c", &tar]);
        docker
    }

    /// Runs the client; it must succeed.
    pub(crate) fn run(&self, words: &str) -> String {
        let socket = self.socket();
        run("/usr/bin/docker", &["-H", &socket].into_iter().chain(words.split(' ')).collect::<Vec<_>>())
    }

    /// Ends the daemon, and with `live` nothing else, and waits for the next one.
    pub(crate) fn restart(&self) {
        let daemon = self.daemon();
        kill(daemon, Signal::SIGTERM).unwrap();
        until("the daemon has ended", || (self.find_daemon() != Some(daemon)).then_some(()));
        self.until_up();
    }

    fn until_up(&self) {
        until("dockerd answers", || {
            let mut command = Command::new("/usr/bin/docker");
            command.args(["-H", &self.socket(), "info"]).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().expect("the Debian package docker.io").success().then_some(())
        });
    }

    fn daemon(&self) -> Pid {
        self.find_daemon().expect("dockerd runs")
    }

    fn find_daemon(&self) -> Option<Pid> {
        let data = self.folder.path().join("data");
        let line = |pid: &str| fs_err::read_to_string(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
        let pids =
            fs_err::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let own = pids.filter(|pid| line(pid).starts_with("dockerd\0") && line(pid).contains(&*data.to_string_lossy()));
        own.filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).next()
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.folder.path().join("docker.sock").display())
    }

    fn groups(&self) -> Vec<PathBuf> {
        let name = self.folder.path().file_name().unwrap();
        let hierarchies = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
        hierarchies.map(|entry| entry.path().join(name)).chain([Path::new("/sys/fs/cgroup").join(name)]).collect()
    }
}

impl Drop for Dockerd {
    #[allow(clippy::print_stdout, reason = "the test harness shows it")]
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // What it made in our namespace outlives it.
        const TIDY: &str = "nft delete table ip filter; nft delete table ip nat
            for link in $(ip -o link show type bridge | cut -d: -f2); do case $link in docker0|br-*) ip link del $link; esac; done";
        let _ = Command::new("sh").args(["-c", TIDY]).stderr(Stdio::null()).status();
        for group in self.groups() {
            // Containers are ending; their groups go when they have.
            let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while group.exists() && std::time::Instant::now() < end {
                let _ = Command::new("find")
                    .arg(&group)
                    .args(["-depth", "-type", "d", "-exec", "rmdir", "{}", "+"])
                    .output();
            }
        }
        if std::thread::panicking() {
            let log = fs_err::read_to_string(self.folder.path().join("dockerd.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            println!("dockerd: {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}
