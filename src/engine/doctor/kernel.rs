//! File systems, namespaces, processes and filters.

use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use fs_err as fs;
use rustix::fs::{Mode, OFlags};

use super::machine::existing;
use super::{Finding, Verdict};
use crate::engine::paths::Paths;
use crate::sys::userns::{self, Ids};
use crate::sys::{kernel, mount, path, probe};

const FILES: &str = "files";
const PROCESSES: &str = "processes";

/// Namespaces that every container has.
const NAMESPACES: [(&str, i32); 6] = [
    ("mount", libc::CLONE_NEWNS),
    ("pid", libc::CLONE_NEWPID),
    ("network", libc::CLONE_NEWNET),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("cgroup", libc::CLONE_NEWCGROUP),
];

pub(super) fn examine(paths: &Paths) -> Vec<Finding> {
    let state = existing(&paths.lib);
    let mut findings = vec![mounts(), memory_file_systems(), lookups(), overlay(&state)];
    // What overlay can beside is of no interest where it can't do anything.
    if findings.last().is_some_and(|overlay| overlay.state == Verdict::Ok) {
        findings.extend(layers(&state));
    }
    findings.push(mapped_mounts(&state));
    findings.extend([namespaces(), user_namespaces(), exit_codes(), filters(), notifications()]);
    findings.extend(labels());
    findings
}

fn mounts() -> Finding {
    let tried =
        mount::tmpfs(Some(1 << 20), 0o700).and_then(|tree| mount::restrict(tree.as_fd(), mount::READ_ONLY, false));
    Finding::ok(FILES, "mounts by descriptor", "nothing shows in the machine's mount table")
        .required(&tried.map_err(|e| format!("the mount calls of Linux 5.12 fail: {e}")))
        .remedy("use a kernel from 5.15 on; inside of a container, allow these calls (`privileged: true`)")
}

fn memory_file_systems() -> Finding {
    let failed: Vec<&str> = ["mqueue", "devpts"].into_iter().filter(|kind| mount::new(kind, &[], 0).is_err()).collect();
    let loss = format!("not in this kernel: {}; a container's /dev is without", failed.join(", "));
    let result = if failed.is_empty() { Ok(()) } else { Err(loss) };
    Finding::ok(FILES, "devpts, mqueue", "a container's own")
        .required(&result)
        .remedy("load or build in what is missing")
}

fn lookups() -> Finding {
    let tried = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|root| path::open_in_root(root.as_fd(), Path::new("/proc"), OFlags::PATH));
    Finding::ok(FILES, "lookups in a root", "no symlink leads out of a container")
        .required(&tried.map_err(|e| format!("openat2 fails: {e}")))
        .remedy("use a kernel from 5.6 on; inside of a container, its filter must allow openat2")
}

/// Writes into an overlay whose upper directory lies where those of containers will.
fn overlay(state: &Path) -> Finding {
    let tried = (|| {
        let folder = Scratch::new(state)?;
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| folder.0.join(name));
        for part in [&lower, &upper, &work] {
            fs::create_dir(part)?;
        }
        fs::write(lower.join("file"), "below")?;
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or(io::ErrorKind::InvalidInput);
        let (lower, upper_text, work) = (text(&lower)?, text(&upper)?, text(&work)?);
        let options = [("lowerdir", Some(&*lower)), ("upperdir", Some(&*upper_text)), ("workdir", Some(&*work))];
        let tree = mount::new("overlay", &options, 0)?;
        rustix::fs::unlinkat(&tree, "file", rustix::fs::AtFlags::empty())?;
        rustix::fs::openat(&tree, "new", OFlags::CREATE | OFlags::WRONLY, Mode::from(0o600))?;
        drop(tree);
        if upper.join("new").exists() { Ok(()) } else { Err(io::Error::other("what was written did not arrive")) }
    })();
    Finding::ok(FILES, "overlay", format!("containers' files can be kept in {}", state.display()))
        .required(&tried.map_err(|e| format!("no overlay above {}: {e}", state.display())))
        .remedy("load it with `modprobe overlay`; or choose a folder on ext4, xfs or btrfs with `--root` (an overlay, NFS or FAT can't hold one)")
}

fn layers(state: &Path) -> [Finding; 2] {
    let singly = Finding::ok(FILES, "overlay layer by layer", "images with up to 499 layers")
        .or_loss(kernel::overlay_takes_layers_singly(), "images with more than about 60 layers are refused")
        .remedy("a kernel from 6.5 on has it");
    let descriptors = Finding::ok(
        FILES,
        "overlay by descriptor",
        "layers shown to user namespaces are never named by path",
    )
    .or_loss(
        probe::overlay_takes_descriptors(state).unwrap_or(false),
        "layers are named by path, in a mount namespace of the moment; each container takes a little longer to start",
    )
    .remedy("a kernel from 6.13 on has it");
    [singly, descriptors]
}

fn namespaces() -> Finding {
    let failed: Vec<String> = NAMESPACES
        .iter()
        .filter_map(|(name, flag)| probe::clone(*flag, None).err().map(|e| format!("{name}: {e}")))
        .collect();
    let result = if failed.is_empty() { Ok(()) } else { Err(failed.join(", ")) };
    Finding::ok(PROCESSES, "namespaces", NAMESPACES.map(|(name, _)| name).join(", "))
        .required(&result)
        .remedy("run as root; look at `sysctl user` for limits of 0")
}

fn user_namespaces() -> Finding {
    let tried = probe::clone(libc::CLONE_NEWUSER, None);
    let loss = tried.as_ref().err().map(|e| format!("{e}: a container's root can't be kept from being this machine's"));
    Finding::ok(PROCESSES, "user namespaces", "can be made")
        .or_loss(tried.is_ok(), loss.unwrap_or_default())
        .remedy("look at `sysctl user.max_user_namespaces kernel.unprivileged_userns_clone`")
}

fn mapped_mounts(state: &Path) -> Finding {
    let ids = [Ids { base: 1 << 30, count: 1 << 16 }.extent()];
    let tried = userns::make(&ids, &ids)
        .and_then(|namespace| mount::map_ids(mount::clone_tree(state, false)?.as_fd(), namespace.as_fd(), false));
    let loss = tried.as_ref().err().map(|e| format!("{e}: a container's root is this machine's, with less rights"));
    Finding::ok(FILES, "id-mapped mounts", "a container's root is nobody outside")
        .or_loss(tried.is_ok(), loss.unwrap_or_default())
        .remedy("a kernel from 5.19 on, and ext4, xfs, btrfs or (from 6.3 on) tmpfs for the state folder")
}

fn exit_codes() -> Finding {
    Finding::ok(PROCESSES, "exit codes by pidfd", "known even if both processes of a stack were killed")
        .or_loss(
            probe::tells_end_of_reaped().unwrap_or(false),
            "if shim and supervisor of a stack are both killed, the exit code of a container that ends until the next \
             command is unknown, and counts as failure",
        )
        .remedy("a kernel from 6.15 on has it")
}

fn filters() -> Finding {
    let there = if probe::seccomp_filters() { Ok(()) } else { Err("this kernel has no system call filters") };
    Finding::ok(PROCESSES, "seccomp", "system calls are filtered").required(&there).remedy(
        "build the kernel with CONFIG_SECCOMP_FILTER; or, at your own risk, `security_opt: [seccomp=unconfined]`",
    )
}

fn notifications() -> Finding {
    let (there, killable) = (probe::seccomp_notifies(), probe::seccomp_waits_killable());
    Finding::ok(PROCESSES, "seccomp notifications", "`ping` works without NET_RAW")
        .or_loss(killable, "a program that gets many signals may have to make a call again that the shim answers")
        .or_loss(there, "`ping` needs `cap_add: [NET_RAW]`")
        .remedy("a kernel from 5.19 on has it")
}

/// Security modules: what they are asked for in a stack file, and whether it is there.
fn labels() -> Vec<Finding> {
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    let module = |name: &'static str, option: &str, fallback: &str| {
        Finding::ok(PROCESSES, name, "active").or_loss(
            modules.trim().split(',').any(|active| active == name),
            format!("not active here: `security_opt: [{option}]` {fallback}"),
        )
    };
    vec![
        module("apparmor", "apparmor=NAME", "has nothing to act on"),
        module("selinux", "label=…", "and `z`, `Z` of volumes have nothing to act on"),
    ]
}

/// A folder that goes away again.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(above: &Path) -> io::Result<Self> {
        let folder = above.join(format!(".stack-doctor-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
