//! The floor: one container by nothing but system calls. The same namespaces, mounts, control groups, wire, capabilities
//! and a filter of the same shape as `stack` makes; nobody is asked, told, logged or checked.

use fs_err::File;
use std::ffi::CString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use stack::sys::mount::{self, NODEV, NOEXEC, NOSUID, READ_ONLY};
use stack::sys::seccomp::{self, Instruction};
use stack::sys::{caps, process, userns};

use super::lab::{FILES, IDS, Lab, Times};
use super::wire;

/// Docker's default capabilities.
pub(crate) const CAPS: u64 = 0xa804_25fb;
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];
const PLAIN: u64 = NOSUID | NODEV | NOEXEC;

/// Starts `program` as container `number`, and takes it away after its end.
pub(crate) fn run(lab: &Lab, number: usize, program: &str) -> io::Result<Times> {
    let begin = Instant::now();
    let name = format!("floor-{number}");
    let root = lab.root(&name)?;
    let dev = dev()?;
    let (groups, unified) = join_later(lab, &name)?;
    let (release_reader, mut release) = io::pipe()?;
    let (mut exec_seen, exec_writer) = io::pipe()?;
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUSER;
    let cloned = process::clone(flags, unified.as_ref().map(|fd| fd.as_fd()), || {
        match contain(root.as_fd(), dev.as_fd(), &groups, &release_reader, number, program) {
            Ok(()) => 0,
            Err(e) => {
                let _ = writeln!(io::stderr(), "floor: {e}");
                99
            }
        }
    })?;
    drop(exec_writer);
    userns::write_maps(cloned.pid, &[IDS.extent()], &[IDS.extent()])?;
    release.write_all(&[0])?;
    let netns = File::open(format!("/proc/{}/ns/net", cloned.pid))?;
    wire::plug(&lab.bridge, &format!("f{number}"), netns.as_fd())?;
    release.write_all(&[0])?;
    exec_seen.read_to_end(&mut Vec::new())?;
    let exec = begin.elapsed();
    let ended = process::wait_for(cloned.pidfd.as_fd()).ok_or(io::ErrorKind::NotFound)?;
    let exit = begin.elapsed();
    if ended.code != 0 {
        return Err(io::Error::other(format!("a container ended with code {}", ended.code)));
    }
    for group in groups.iter().chain(&lab.unified.as_ref().map(|unified| unified.join(&name))) {
        remove_group(group);
    }
    Ok(Times { exec, exit })
}

/// A `/dev` for a user namespace, in which no nodes can be made.
fn dev() -> io::Result<OwnedFd> {
    let dev = mount::new("tmpfs", &[("mode", Some("755")), ("size", Some("64k"))], NOSUID | NOEXEC)?;
    for (name, major, minor) in NODES {
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, Mode::from(0o666), number)?;
    }
    for (target, name) in LINKS {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        rustix::fs::mkdirat(&dev, name, Mode::from(0o755))?;
    }
    Ok(dev)
}

/// Makes the control groups: those of version 1 are entered by a write, the unified one by the clone.
fn join_later(lab: &Lab, name: &str) -> io::Result<(Vec<PathBuf>, Option<OwnedFd>)> {
    let mut groups = Vec::new();
    for hierarchy in &lab.v1 {
        let group = hierarchy.join(name);
        fs_err::create_dir(&group)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.ends_with(format!("cpuset/{}", lab.group)) {
                fs_err::write(group.join(file), fs_err::read(hierarchy.join(file))?)?;
            }
        }
        groups.push(group);
    }
    let unified = lab.unified.as_ref().map(|unified| -> io::Result<OwnedFd> {
        let group = unified.join(name);
        fs_err::create_dir(&group)?;
        Ok(File::open(group)?.into())
    });
    Ok((groups, unified.transpose()?))
}

fn remove_group(group: &Path) {
    for _ in 0..1000 {
        if fs_err::remove_dir(group).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// The inside, up to the exec.
fn contain(
    root: BorrowedFd<'_>,
    dev: BorrowedFd<'_>,
    groups: &[PathBuf],
    mut release: &io::PipeReader,
    number: usize,
    program: &str,
) -> io::Result<()> {
    for group in groups {
        fs_err::write(group.join("cgroup.procs"), "0")?;
    }
    let mut byte = [0];
    release.read_exact(&mut byte)?;
    userns::become_root()?;
    process::unshare(libc::CLONE_NEWCGROUP)?;
    mount::make_all_private()?;
    let files = mount::tmpfs(Some(128 << 10), 0o755)?;
    mount::attach_at(files.as_fd(), Path::new("/dev"))?;
    mount::attach_at(root, Path::new("/"))?;
    rustix::process::fchdir(root)?;
    attach(dev, "dev")?;
    attach(mount::new("devpts", &[("ptmxmode", Some("0666")), ("mode", Some("0620"))], NOSUID | NOEXEC)?, "dev/pts")?;
    attach(mount::new("tmpfs", &[("mode", Some("1777")), ("size", Some("64m"))], PLAIN)?, "dev/shm")?;
    attach(mount::new("mqueue", &[], PLAIN)?, "dev/mqueue")?;
    attach(mount::new("proc", &[], PLAIN)?, "proc")?;
    attach(mount::new("sysfs", &[], PLAIN | READ_ONLY)?, "sys")?;
    let views = mount::tmpfs(Some(64 << 10), 0o755)?;
    attach(&views, "sys/fs/cgroup")?;
    for group in groups {
        let name = group.parent().and_then(Path::parent).and_then(Path::file_name).unwrap_or_default();
        rustix::fs::mkdirat(&views, name, Mode::from(0o755))?;
        attach(mount::clone_tree(group, false)?, Path::new("sys/fs/cgroup").join(name))?;
    }
    mount::restrict(views.as_fd(), PLAIN | READ_ONLY, true)?;
    for name in FILES {
        let short = name.rsplit('/').next().unwrap_or(name);
        drop(rustix::fs::openat(&files, short, OFlags::CREATE | OFlags::WRONLY, Mode::from(0o644))?);
        attach(mount::clone_tree_at(files.as_fd(), Path::new(short), false)?, name)?;
    }
    rustix::system::sethostname(b"floor")?;
    for path in stack::runtime::Launch::default_masked() {
        hide(dev, path.trim_start_matches('/'))?;
    }
    for path in stack::runtime::Launch::default_read_only_paths() {
        let path = Path::new(path.trim_start_matches('/'));
        if path.exists() {
            let tree = mount::clone_tree(path, true)?;
            mount::restrict(tree.as_fd(), READ_ONLY, true)?;
            attach(tree, path)?;
        }
    }
    mount::pivot(root)?;
    release.read_exact(&mut byte)?;
    wire::configure(number)?;
    lock_down()?;
    let text = CString::new(program)?;
    Err(process::exec(&text, std::slice::from_ref(&text), &[]))
}

fn attach(tree: impl std::os::fd::AsFd, path: impl AsRef<Path>) -> io::Result<()> {
    mount::attach_at(tree.as_fd(), path.as_ref())
}

fn hide(dev: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let Ok(found) = fs_err::metadata(path) else { return Ok(()) };
    if found.is_dir() {
        attach(mount::new("tmpfs", &[("size", Some("0")), ("nr_inodes", Some("1"))], READ_ONLY)?, path)
    } else {
        attach(mount::clone_tree_at(dev, Path::new("null"), false)?, path)
    }
}

fn lock_down() -> io::Result<()> {
    rustix::process::setsid()?;
    process::new_keyring()?;
    process::set_limit(libc::RLIMIT_NOFILE, 1024, 1024)?;
    seccomp::load(&halves(0, 39))?;
    caps::limit(CAPS)?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    caps::set(CAPS)?;
    process::close_on_exec_from(3)
}

/// A filter of 40 ranges found by halving, each of which allows: in size and shape as that of the default profile.
fn halves(low: u32, high: u32) -> Vec<Instruction> {
    const CALL: Instruction = Instruction { code: 0x20, jt: 0, jf: 0, k: 0 };
    const ALLOW: Instruction = Instruction { code: 0x06, jt: 0, jf: 0, k: 0x7fff_0000 };
    fn tree(low: u32, high: u32) -> Vec<Instruction> {
        if low == high {
            return vec![ALLOW];
        }
        let middle = (low + high).div_ceil(2);
        let (left, right) = (tree(low, middle - 1), tree(middle, high));
        let over = u8::try_from(left.len()).unwrap_or(u8::MAX);
        let mut all = vec![Instruction { code: 0x35, jt: over, jf: 0, k: middle * 9 }];
        all.extend(left);
        all.extend(right);
        all
    }
    let mut program = vec![CALL];
    program.extend(tree(low, high));
    program
}
