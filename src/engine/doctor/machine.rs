//! Who runs this, where state is kept, and the limits of the machine.

use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{StatVfs, statvfs};
use rustix::thread::CapabilitySet;

use super::Finding;
use crate::engine::paths::Paths;

const AREA: &str = "machine";

/// Rights without which no container starts.
const RIGHTS: [(&str, CapabilitySet); 8] = [
    ("SYS_ADMIN", CapabilitySet::SYS_ADMIN),
    ("NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("SETUID", CapabilitySet::SETUID),
    ("SETGID", CapabilitySet::SETGID),
    ("SETPCAP", CapabilitySet::SETPCAP),
    ("CHOWN", CapabilitySet::CHOWN),
    ("DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("MKNOD", CapabilitySet::MKNOD),
];
/// Bytes below which images soon find no room.
const LOW_SPACE: u64 = 2 << 30;
/// Files below which images soon find no room.
const LOW_FILES: u64 = 50_000;
/// What dev mode of a few projects, beside an editor, needs.
const INOTIFY: [(&str, u64); 2] = [("max_user_watches", 65_536), ("max_user_instances", 128)];
/// Keyrings: each container has one of root's.
const LOW_KEYS: u64 = 1_000;

pub(super) fn examine(paths: &Paths) -> Vec<Finding> {
    let mut findings = vec![kernel(), rights(), run_folder(paths)];
    findings.extend(space(paths));
    findings.extend(INOTIFY.map(|(name, enough)| watches(name, enough)));
    findings.push(keys());
    findings.push(foreign_programs());
    findings
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    Finding::ok(AREA, "kernel", format!("{} {}", text(uname.release()), text(uname.machine())))
}

fn rights() -> Finding {
    let held = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let lacking: Vec<&str> = RIGHTS.iter().filter(|(_, right)| !held.contains(*right)).map(|(name, _)| *name).collect();
    let result = if lacking.is_empty() { Ok(()) } else { Err(format!("this process lacks {}", lacking.join(", "))) };
    let remedy = "run `stack` as root, for example with `sudo`; inside of a container it needs `privileged: true`";
    Finding::ok(AREA, "rights", "all that starting containers needs").required(&result).remedy(remedy)
}

fn run_folder(paths: &Paths) -> Finding {
    let folder = existing(&paths.run);
    let in_memory = rustix::fs::statfs(&folder).is_ok_and(|stat| stat.f_type == libc::TMPFS_MAGIC);
    Finding::ok(AREA, "secrets", format!("kept in memory, in {}", paths.run.display()))
        .or_loss(in_memory, format!("{} is not in memory: contents of secrets touch its disk", paths.run.display()))
        .remedy("leave `--root` and STACK_ROOT out, or name a folder on a tmpfs")
}

fn space(paths: &Paths) -> Vec<Finding> {
    let folder = existing(&paths.lib);
    let stat = match statvfs(&folder) {
        Ok(stat) => stat,
        Err(e) => {
            return vec![Finding::ok(AREA, "disk", "").required(&Err::<(), _>(format!("{}: {e}", folder.display())))];
        }
    };
    let StatVfs { f_bavail, f_frsize, f_favail, f_files, .. } = stat;
    let free = f_bavail.saturating_mul(f_frsize);
    let place = paths.lib.display();
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let gib = free as f64 / f64::from(1 << 30);
    let remedy = "make room: `stack system prune -a --volumes`";
    let disk = Finding::ok(AREA, "disk", format!("{gib:.1} GiB free for {place}"))
        .or_loss(free >= LOW_SPACE, format!("only {gib:.1} GiB free for {place}: pulling and building may fail"))
        .remedy(remedy);
    // File systems that make entries as they need them count none.
    let enough = f_files == 0 || f_favail >= LOW_FILES;
    let files =
        Finding::ok(AREA, "files", if f_files == 0 { "no limit".into() } else { format!("{f_favail} more fit") })
            .or_loss(enough, format!("only {f_favail} more files fit into {place}: pulling and building may fail"))
            .remedy(remedy);
    vec![disk, files]
}

fn watches(name: &'static str, enough: u64) -> Finding {
    let limit = number(&format!("/proc/sys/fs/inotify/{name}")).unwrap_or(0);
    Finding::ok(AREA, format!("inotify {name}"), limit.to_string())
        .or_loss(limit >= enough, format!("{limit}: dev mode (`watch`) may not see every change of large projects"))
        .remedy(format!("sysctl -w fs.inotify.{name}={}", enough.max(524_288_u64.min(enough * 8))))
}

fn keys() -> Finding {
    let limit = number("/proc/sys/kernel/keys/root_maxkeys").unwrap_or(u64::MAX);
    Finding::ok(AREA, "keyrings", format!("{limit} for root"))
        .or_loss(limit >= LOW_KEYS, format!("{limit} for root: more containers than that share one"))
        .remedy("sysctl -w kernel.keys.root_maxkeys=1000000")
}

fn foreign_programs() -> Finding {
    let handlers = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let names = handlers.filter_map(|entry| entry.file_name().into_string().ok());
    let mut platforms: Vec<String> = names.filter_map(|name| name.strip_prefix("qemu-").map(str::to_owned)).collect();
    platforms.sort_unstable();
    Finding::ok(AREA, "other platforms", platforms.join(", "))
        .or_loss(!platforms.is_empty(), "programs of other platforms than this machine's can't run")
        .remedy("only if you need `platform:`: install qemu-user-static and binfmt-support")
}

fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The folder, or the nearest above it that is there.
pub(super) fn existing(folder: &Path) -> PathBuf {
    folder.ancestors().find(|above| above.is_dir()).unwrap_or(Path::new("/")).to_owned()
}
