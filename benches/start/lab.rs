//! What both contestants work on: one root, one bridge, one place for control groups.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stack::sys::mount;
use stack::sys::userns::Ids;

use super::wire;

/// The small files that every container gets.
pub(crate) const FILES: [&str; 3] = ["etc/hosts", "etc/hostname", "etc/resolv.conf"];
/// The users of every container.
pub(crate) const IDS: Ids = Ids { base: 1_000_000_000, count: 65_536 };

/// From the request to the exec of the program, and to its end seen.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) exec: Duration,
    pub(crate) exit: Duration,
}

pub(crate) struct Lab {
    pub(crate) folder: PathBuf,
    pub(crate) bridge: String,
    /// Name of the group below which the floor's containers are.
    pub(crate) group: String,
    pub(crate) v1: Vec<PathBuf>,
    pub(crate) unified: Option<PathBuf>,
}

impl Lab {
    pub(crate) fn new() -> io::Result<Self> {
        let group = format!("stack-bench-{}", std::process::id());
        let folder = std::env::temp_dir().join(&group);
        let image = folder.join("image");
        for name in ["bin", "dev", "proc", "sys", "etc", "tmp"] {
            fs_err::create_dir_all(image.join(name))?;
        }
        fs_err::copy("/bin/busybox", image.join("bin/busybox"))?;
        for applet in ["true", "sleep"] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(applet))?;
        }
        for file in FILES {
            fs_err::write(image.join(file), "")?;
        }
        for tree in [&folder, &image] {
            let all = Command::new("chmod").arg("a+rx").arg(tree).status()?;
            if !all.success() {
                return Err(io::Error::other("chmod failed"));
            }
        }
        let (v1, unified) = groups(&group)?;
        let bridge = "floor0".to_owned();
        wire::bridge(&bridge)?;
        Ok(Self { folder, bridge, group, v1, unified })
    }

    /// A root for one container: an overlay on the image.
    pub(crate) fn root(&self, name: &str) -> io::Result<OwnedFd> {
        let own = self.folder.join(name);
        fs_err::create_dir(&own)?;
        let [upper, work] = ["u", "w"].map(|folder| own.join(folder));
        fs_err::create_dir(&upper)?;
        fs_err::create_dir(&work)?;
        let text = |path: &Path| path.display().to_string();
        let (lower, upper, work) = (text(&self.folder.join("image")), text(&upper), text(&work));
        let options = [("lowerdir", Some(&*lower)), ("upperdir", Some(&*upper)), ("workdir", Some(&*work))];
        mount::new("overlay", &options, 0)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for group in self.v1.iter().chain(&self.unified) {
            let _ = fs_err::remove_dir(group);
        }
        let _ = fs_err::remove_dir_all(&self.folder);
    }
}

/// The floor's own group in every hierarchy: those of version 1 with a controller, and the unified one.
fn groups(name: &str) -> io::Result<(Vec<PathBuf>, Option<PathBuf>)> {
    let (mut v1, mut unified) = (Vec::new(), None);
    for line in fs_err::read_to_string("/proc/self/mountinfo")?.lines() {
        let (head, tail) = line.split_once(" - ").unwrap_or_default();
        let place = PathBuf::from(head.split(' ').nth(4).unwrap_or_default()).join(name);
        match tail.split(' ').next() {
            // What is mounted once more on top of itself is the same.
            Some("cgroup") if !v1.contains(&place) => v1.push(place),
            Some("cgroup2") => unified = Some(place),
            _ => {}
        }
    }
    for group in v1.iter().chain(&unified) {
        fs_err::create_dir(group)?;
    }
    for group in &v1 {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if group.join(file).exists() {
                let above = group.parent().unwrap_or(group).join(file);
                fs_err::write(group.join(file), fs_err::read(above)?)?;
            }
        }
    }
    Ok((v1, unified))
}
