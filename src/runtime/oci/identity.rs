//! What a process becomes before its program: limits, scheduling, user, capabilities, labels, filter.

use fs_err as fs;
use rustix::fs::{Gid, Mode, Uid};

use super::config::{Capabilities, Process};
use crate::runtime::caps;
use crate::runtime::child::Step;
use crate::runtime::child::process::set_limit;
use crate::runtime::error::LaunchError;
use crate::runtime::launch::Rlimit;
use crate::runtime::seccomp::Bundled;
use crate::sys::caps::Sets;
use crate::sys::seccomp::Listener;
use crate::sys::{self, schedule};

/// Takes on everything but the program. `listener` gets the filter's, if it has one.
pub(super) fn take_on(
    process: &Process,
    filter: Option<&Bundled>,
    listener: impl Fn(Listener) -> Result<(), LaunchError>,
) -> Result<(), LaunchError> {
    for limit in &process.rlimits {
        let name = limit.kind.to_ascii_lowercase();
        set_limit(&Rlimit { name, soft: limit.soft, hard: limit.hard })?;
    }
    schedule(process)?;
    label(process)?;
    let load = |when: bool| match filter {
        Some(filter) if when => {
            let loaded = filter.load().step(|| "load the system call filter")?;
            loaded.map_or(Ok(()), &listener)
        }
        _ => Ok(()),
    };
    // Without no_new_privs it takes a capability that is about to go.
    load(!process.no_new_privileges)?;
    become_user(process)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).step(|| "set no_new_privs")?;
    }
    load(process.no_new_privileges)
}

fn become_user(process: &Process) -> Result<(), LaunchError> {
    let user = &process.user;
    let sets = process.capabilities.as_ref().map(sets);
    if let Some(sets) = &sets {
        sys::caps::limit(sets.bounding).step(|| "limit capabilities")?;
        sys::caps::keep_over_users().step(|| "keep capabilities")?;
    }
    let groups: Vec<Gid> = user.additional_gids.iter().copied().map(Gid::from_raw).collect();
    // Where a user namespace denies it, there are none to lose.
    match rustix::thread::set_thread_groups(&groups) {
        Err(rustix::io::Errno::PERM) if groups.is_empty() => {}
        other => other.step(|| "set groups")?,
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).step(|| format!("set group {}", user.gid))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).step(|| format!("set user {}", user.uid))?;
    if let Some(sets) = &sets {
        sys::caps::apply(sets).step(|| "set capabilities")?;
    }
    rustix::process::umask(Mode::from(user.umask.unwrap_or(0o022)));
    Ok(())
}

/// The sets as bits; names that this kernel or this runtime doesn't know are left out, which was said before.
fn sets(wanted: &Capabilities) -> Sets {
    Sets {
        bounding: known(&wanted.bounding).0,
        effective: known(&wanted.effective).0,
        permitted: known(&wanted.permitted).0,
        inheritable: known(&wanted.inheritable).0,
        ambient: known(&wanted.ambient).0,
    }
}

/// The bits of known names, and the others.
pub(super) fn known(names: &[String]) -> (u64, Vec<&str>) {
    let mut unknown = Vec::new();
    let mut bits = 0;
    for name in names {
        if let Ok(bit) = caps::mask(std::slice::from_ref(name)) {
            bits |= bit;
        } else {
            unknown.push(name.as_str());
        }
    }
    (bits, unknown)
}

fn schedule(process: &Process) -> Result<(), LaunchError> {
    if let Some(priority) = &process.io_priority {
        schedule::set_io_priority(&priority.class, priority.priority).step(|| "set ioPriority")?;
    }
    if let Some(scheduler) = &process.scheduler {
        let wanted = schedule::Scheduler {
            policy: &scheduler.policy,
            flags: &scheduler.flags,
            nice: scheduler.nice,
            priority: scheduler.priority,
            runtime: scheduler.runtime,
            deadline: scheduler.deadline,
            period: scheduler.period,
        };
        schedule::set_scheduler(&wanted).step(|| "set scheduler")?;
    }
    if let Some(personality) = &process.personality {
        schedule::set_personality(&personality.domain).step(|| "set personality")?;
    }
    Ok(())
}

/// Labels of security modules, which the kernel takes for the next exec.
fn label(process: &Process) -> Result<(), LaunchError> {
    if let Some(profile) = process.apparmor_profile.as_deref().filter(|profile| !profile.is_empty()) {
        let file = if fs::exists("/proc/self/attr/apparmor/exec").unwrap_or(false) {
            "/proc/self/attr/apparmor/exec"
        } else {
            "/proc/self/attr/exec"
        };
        fs::write(file, format!("exec {profile}")).step(|| format!("set apparmor profile {profile}"))?;
    }
    if let Some(label) = process.selinux_label.as_deref().filter(|label| !label.is_empty()) {
        fs::write("/proc/self/attr/exec", label).step(|| format!("set selinux label {label}"))?;
    }
    Ok(())
}
