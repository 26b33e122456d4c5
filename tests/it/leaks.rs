//! What a stack can leave behind, and whether it did.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::poll::DEADLINE;

/// What was there before a test.
pub(crate) struct Before {
    links: BTreeSet<String>,
    tables: BTreeSet<String>,
}

impl Before {
    pub(crate) fn look() -> Self {
        Self { links: links(), tables: tables() }
    }

    /// What is there now and wasn't: given a moment, since the last processes may still be ending.
    pub(crate) fn compare(&self, folder: &Path, project: &str) -> Vec<String> {
        let end = Instant::now() + *DEADLINE / 4;
        loop {
            let left = self.left(folder, project);
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn left(&self, folder: &Path, project: &str) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(processes(folder, project).into_iter().map(|(pid, line)| format!("process {pid}: {line}")));
        left.extend(mounts(folder).into_iter().map(|path| format!("mount {}", path.display())));
        left.extend(links().difference(&self.links).map(|link| format!("interface {link}")));
        left.extend(tables().difference(&self.tables).map(|table| format!("nft table {table}")));
        left.extend(cgroups(project).into_iter().map(|path| format!("cgroup {}", path.display())));
        left.extend(files(folder, project).into_iter().map(|path| format!("file {}", path.display())));
        left
    }
}

/// Processes whose arguments, environment or control group name the folder or the project, with their arguments.
pub(crate) fn processes(folder: &Path, project: &str) -> Vec<(i32, String)> {
    let folder = folder.to_string_lossy();
    let group = format!("/{project}/");
    let pids =
        fs_err::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let read = |name: &str| fs_err::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let environment = read("environ");
        let ours = line.contains(&*folder)
            || String::from_utf8_lossy(&environment).contains(&*folder)
            || String::from_utf8_lossy(&read("cgroup")).contains(&group);
        (ours && !line.is_empty()).then_some((pid, line))
    })
    .collect()
}

/// Mounts below the folder.
fn mounts(folder: &Path) -> Vec<PathBuf> {
    let table = fs_err::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let targets = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    targets.filter(|target| target.starts_with(folder)).collect()
}

/// Lets go of what is still mounted below the folder.
pub(crate) fn detach_mounts(folder: &Path) {
    for target in mounts(folder).iter().rev() {
        let _ = nix::mount::umount2(target, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Interfaces of this thread's network namespace.
fn links() -> BTreeSet<String> {
    let table = fs_err::read_to_string("/proc/thread-self/net/dev").unwrap();
    table.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

/// Tables of this thread's network namespace.
fn tables() -> BTreeSet<String> {
    let output = Command::new("nft").args(["list", "tables"]).output().expect("the Debian package nftables");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Control groups with the project's name, in every hierarchy.
pub(crate) fn cgroups(project: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo: Vec<(PathBuf, u32)> = vec![("/sys/fs/cgroup".into(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_string_lossy() == project {
                found.push(entry.path());
            } else if depth < 3 {
                todo.push((entry.path(), depth + 1));
            }
        }
    }
    found
}

/// Files that name the project or belong to containers, volumes and networks; and sockets, which end with processes.
fn files(folder: &Path, project: &str) -> Vec<PathBuf> {
    let root = folder.join("root");
    let mut left = Vec::new();
    for kind in ["containers", "volumes"] {
        let entries = fs_err::read_dir(root.join("lib").join(kind)).into_iter().flatten().flatten();
        left.extend(entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.path()));
    }
    let entries = fs_err::read_dir(root.join("lib/images/tmp")).into_iter().flatten().flatten();
    left.extend(entries.map(|entry| entry.path()));
    let containers = root.join("run").join(project).join("containers");
    left.extend(fs_err::read_dir(containers).into_iter().flatten().flatten().map(|entry| entry.path()));
    left
}
