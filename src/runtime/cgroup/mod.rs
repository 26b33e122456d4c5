//! Control groups: one hierarchy per controller (v1), a unified one (v2), or both.
//!
//! A [`Layout`] is found once per shim. A [`Group`] is a container's place in it.

mod block;
mod bundle;
mod devices;
mod freezer;
mod layout;
mod membership;
mod survey;
mod v1;
mod v2;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::device::{Device, DeviceRule};
use super::error::LaunchError;
use super::launch::{Cgroup, Resources};
use crate::sys;

pub(crate) use layout::Layout;
pub use membership::Membership;
pub use survey::{Survey, survey};

/// How often killing is repeated until nobody is left who could fork.
const KILL_ROUNDS: usize = 100;
/// Milliseconds.
const PATIENCE: usize = 50;

/// A container's control groups.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    layout: Rc<Layout>,
    path: String,
}

impl Group {
    /// The groups at `path` (checked not to lead elsewhere) below every hierarchy.
    pub(crate) fn new(layout: &Rc<Layout>, path: &str) -> Result<Self, LaunchError> {
        let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
        if !path.split('/').all(plain) {
            return Err(LaunchError::refused(format!("control group {path}"), "not a plain relative path"));
        }
        Ok(Self { layout: layout.clone(), path: path.to_owned() })
    }

    /// Makes the unified group with its limits and device filter, before the clone, which is born into it. `None`
    /// where no such hierarchy is mounted. Also says what of the limits this machine can't hold, in either hierarchy.
    pub(crate) fn make_unified(
        &self,
        wanted: &Cgroup,
        privileged: bool,
        devices: &[Device],
    ) -> Result<(Option<OwnedFd>, Vec<String>), LaunchError> {
        let mut losses = v1::losses(&self.layout, &self.path, &wanted.resources)?;
        let Some(unified) = &self.layout.unified else { return Ok((None, losses)) };
        losses.extend(v2::make(unified, &self.path, &wanted.resources)?);
        let opened = self.unified().map_err(|e| LaunchError::new(format!("open control group {}", self.path), e))?;
        if let (Some(group), false, None) = (&opened, privileged, self.layout.with("devices")) {
            match devices::filter(group.as_fd(), &devices::allowed(devices, &wanted.device_rules)) {
                // Inside of another container the right to may be lacking: there, only the lack of nodes and of the
                // right to make them protects. Who asked for rules gets them or nothing.
                Err(_) if wanted.device_rules.is_empty() => {}
                other => other.map_err(|e| LaunchError::new("filter the devices of the control group", e))?,
            }
        }
        Ok((opened, losses))
    }

    /// Changes the limits of a running container; says what this machine can't hold.
    pub(crate) fn update(&self, resources: &Resources) -> Result<Vec<String>, LaunchError> {
        let mut losses = v1::update(&self.layout, &self.path, resources)?;
        if let Some(unified) = &self.layout.unified {
            losses.extend(v2::make(unified, &self.path, resources)?);
        }
        Ok(losses)
    }

    /// Makes the v1 groups with their limits, for a clone that will have no right to.
    pub(crate) fn make_v1(&self, wanted: &Cgroup, privileged: bool, devices: &[Device]) -> Result<(), LaunchError> {
        let rules = (!privileged).then(|| rules(wanted, devices));
        v1::make(&self.layout, &self.path, &wanted.resources, rules.as_deref())
    }

    /// Makes the v1 groups with their limits and moves the caller into them.
    pub(crate) fn enter(&self, wanted: &Cgroup, privileged: bool, devices: &[Device]) -> Result<(), LaunchError> {
        let rules = (!privileged).then(|| rules(wanted, devices));
        v1::enter(&self.layout, &self.path, &wanted.resources, rules.as_deref())
    }

    /// Moves the caller, the clone of a guest or an exec, into the v1 groups that there are.
    pub(crate) fn join(&self) -> Result<(), LaunchError> {
        for hierarchy in &self.layout.v1 {
            match v1::join(&hierarchy.mount.join(&self.path)) {
                // Not every hierarchy is used by every container.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|e| LaunchError::new(format!("join control group {}", self.path), e))?,
            }
        }
        Ok(())
    }

    /// The unified group's folder, for a clone to be born into.
    pub(crate) fn unified(&self) -> io::Result<Option<OwnedFd>> {
        self.unified_folder().map(|folder| open(&folder)).transpose()
    }

    /// The unified group that a process of the container is in: its own, or one that it made inside, since a group
    /// that hands controllers down takes no processes.
    pub(crate) fn unified_of(&self, pid: i32) -> io::Result<Option<OwnedFd>> {
        let Some(folder) = self.unified_folder() else { return Ok(None) };
        let groups = fs_err::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let at = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        let inside = at.split_once(&format!("/{}/", self.path)).map(|(_, inside)| inside);
        open(&inside.map_or(folder.clone(), |inside| folder.join(inside))).map(Some)
    }

    /// Where a container may see its groups: (name below `/sys/fs/cgroup`, folder, which may be missing). One without
    /// a name is the whole.
    pub(crate) fn views(&self) -> Vec<(String, PathBuf)> {
        let unified = self.unified_folder();
        if let (Some(folder), true) = (&unified, self.layout.v1.is_empty()) {
            return vec![(String::new(), folder.clone())];
        }
        let v1 = self.layout.v1.iter().map(|v1| (v1.name(), v1.mount.join(&self.path)));
        v1.chain(unified.map(|folder| ("unified".to_owned(), folder))).collect()
    }

    /// Whether the kernel killed something for lack of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        let (file, key) = match (self.layout.with("memory"), &self.layout.unified) {
            (Some(memory), _) => (memory.mount.join(&self.path).join("memory.oom_control"), "oom_kill "),
            (None, Some(unified)) => (unified.mount.join(&self.path).join("memory.events"), "oom_kill "),
            (None, None) => return false,
        };
        let text = fs_err::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix(key)).any(|count| count.trim() != "0")
    }

    /// Stops or continues every process.
    pub(crate) fn freeze(&self, frozen: bool) -> io::Result<()> {
        // A process that the unified freezer holds can be killed; one that v1's holds dies when it thaws.
        match (self.unified_folder(), self.layout.with("freezer")) {
            (Some(folder), _) => freezer::unified(&folder, frozen),
            (None, Some(v1)) => freezer::v1(&v1.mount.join(&self.path), frozen),
            (None, None) => Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel has no freezer control group")),
        }
    }

    /// Lets what is frozen go on, so that a signal reaches it.
    pub(crate) fn thaw(&self) {
        let _ = self.freeze(false);
    }

    /// Kills every process, again until none is left.
    pub(crate) fn kill(&self) {
        if let Some(folder) = self.unified_folder()
            && write(&folder.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for _ in 0..KILL_ROUNDS {
            let pids = self.members();
            if pids.iter().filter(|pid| sys::process::kill(**pid, libc::SIGKILL).is_ok()).count() == 0 {
                return;
            }
            self.thaw();
        }
    }

    /// Its processes.
    pub(crate) fn members(&self) -> Vec<i32> {
        self.folders().next().map(|folder| members(&folder)).unwrap_or_default()
    }

    /// Removes the groups; `false` if a process that is about to vanish still holds one.
    pub(crate) fn remove(&self) -> bool {
        // All of them, whichever fails.
        self.folders().filter(|folder| !remove_folder(folder)).count() == 0
    }

    /// Removes the groups, and gives a process that is about to vanish a moment to do so.
    pub(crate) fn remove_patiently(&self) {
        for _ in 0..PATIENCE {
            if self.remove() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Removes the folders above the container's, if empty.
    pub(crate) fn remove_parents(&self) {
        for parent in Path::new(&self.path).ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            for mount in self.layout.mounts() {
                let _ = rustix::fs::unlinkat(CWD, mount.join(parent), AtFlags::REMOVEDIR);
            }
        }
    }

    /// The unified group's folder.
    pub(crate) fn unified_folder(&self) -> Option<PathBuf> {
        self.layout.unified.as_ref().map(|unified| unified.mount.join(&self.path))
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.layout.mounts().map(|mount| mount.join(&self.path))
    }
}

/// The devices that a container may touch, as v1 writes them.
fn rules(wanted: &Cgroup, devices: &[Device]) -> Vec<String> {
    devices::allowed(devices, &wanted.device_rules).iter().map(DeviceRule::to_string).collect()
}

/// Removes the control groups at `path` below every hierarchy with what is empty inside, and the folders above that
/// thereby become empty. Groups with processes stay. Blocks for some 50 ms at most.
///
/// # Errors
/// When `path` is not plain, or the hierarchies can't be found.
pub fn sweep(path: &str) -> io::Result<()> {
    let group = Group::new(&Rc::new(Layout::detect()?), path).map_err(io::Error::other)?;
    group.remove_patiently();
    group.remove_parents();
    Ok(())
}

fn open(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

/// The processes in a group and in those inside.
fn members(folder: &Path) -> Vec<i32> {
    let own = fs_err::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).collect();
    for entry in fs_err::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(members(&entry.path()));
        }
    }
    pids
}

fn remove_folder(folder: &Path) -> bool {
    match rustix::fs::unlinkat(CWD, folder, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => true,
        // Groups that somebody made inside.
        Err(_) => {
            let entries = fs_err::read_dir(folder).into_iter().flatten().flatten();
            let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            inner.fold(0, |count, entry| count + usize::from(remove_folder(&entry.path()))) > 0
                && rustix::fs::unlinkat(CWD, folder, AtFlags::REMOVEDIR).is_ok()
        }
    }
}

/// Makes a folder and those above it; fine if it is there.
fn make_folder(mount: &Path, path: &str) -> io::Result<PathBuf> {
    let folder = mount.join(path);
    match rustix::fs::mkdir(&folder, Mode::from(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(folder),
        Err(Errno::NOENT) => make_folder_with_parents(&folder).map(|()| folder),
        Err(e) => Err(e.into()),
    }
}

/// Another stack that ends may remove the shared folders above at the same time.
fn make_folder_with_parents(folder: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs_err::create_dir_all(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && tries < KILL_ROUNDS => tries += 1,
            other => return other,
        }
    }
}

/// Writes a value to a control file in one go.
pub(crate) fn write(file: &Path, value: &str) -> io::Result<()> {
    let file = rustix::fs::open(file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// Writes a limit, naming it in the error.
fn set(folder: &Path, file: &str, value: &str) -> Result<(), LaunchError> {
    write(&folder.join(file), value)
        .map_err(|e| LaunchError::new(format!("set {file} of control group {} to {value}", folder.display()), e))
}

/// A limit that no controller of this machine can hold.
fn missing(controller: &str, limit: &str) -> LaunchError {
    let reason = format!("this kernel offers no `{controller}` control group");
    LaunchError::refused(format!("set {limit}"), reason)
}
