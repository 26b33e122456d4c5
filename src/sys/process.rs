//! Processes: clone into namespaces, pidfds, exit codes, what a process inherits.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd as _, OwnedFd, RawFd};

use fs_err as fs;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};

/// Doesn't fit the type that libc gives these flags.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// A process made by [`clone`].
#[derive(Debug)]
pub struct Cloned {
    /// As the caller's pid namespace numbers it.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// Clones the caller, which must have one thread only, into new namespaces (`CLONE_NEW*` of `flags`) and possibly
/// another control group (v2 folder); with `CLONE_PARENT` as a child of the caller's parent. The child runs `body` and ends with what it returns; a panic ends it with 125.
pub fn clone(flags: i32, cgroup: Option<BorrowedFd<'_>>, body: impl FnOnce() -> i32) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid `clone_args`: no flags, no stack, no pointers.
    let mut args: libc::clone_args = unsafe { zeroed() };
    args.flags = u64::from(flags.cast_unsigned()) | u64::from(libc::CLONE_PIDFD.cast_unsigned());
    args.pidfd = (&raw mut pidfd) as u64;
    // A sibling ends as the caller itself does.
    let signal = if flags & libc::CLONE_PARENT == 0 { libc::SIGCHLD } else { 0 };
    args.exit_signal = u64::from(signal.cast_unsigned());
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM and without a stack this is a fork: the child goes on on its own copy of everything.
    // The caller has a single thread, so no lock is held by a thread that the child doesn't have. `pidfd` outlives
    // the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or(125);
            exit(code)
        }
        // SAFETY: on success the kernel stored a new descriptor that nobody else owns.
        pid => Ok(Cloned { pid: i32::try_from(pid).unwrap_or(-1), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } }),
    }
}

/// Forks the caller, which must have one thread only. `true` in the child. Only `clone` is called, which filters allow.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: single-threaded by contract, as in `clone`.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(None),
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child.as_raw())),
    }
}

/// Ends the process at once: no destructor, no buffer.
pub fn exit(code: i32) -> ! {
    // SAFETY: always sound; that nothing is cleaned up is the point in a forked child.
    unsafe { libc::_exit(code) }
}

/// Replaces the program.
pub fn exec(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let Err(error) = nix::unistd::execve(program, args, env);
    error.into()
}

/// A descriptor for a process that needn't be a child.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
    Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
}

/// Sends a signal to exactly the process that the pidfd names.
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open while borrowed; a null siginfo is documented to mean what kill(2) would send.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes standard input: what is opened next has its number, the lowest.
pub fn close_stdin() {
    // One that isn't open is as good.
    let _ = nix::unistd::close(libc::STDIN_FILENO);
}

/// Start of a process in clock ticks since boot, field 22 of `/proc/<pid>/stat`.
pub fn start_time(pid: i32) -> io::Result<u64> {
    stat_field(pid, 22)?.parse().map_err(io::Error::other)
}

/// The process that a thread belongs to.
pub fn leader(thread: i32) -> io::Result<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
    let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:")).and_then(|id| id.trim().parse().ok());
    leader.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The wait status of a process that ended but wasn't reaped, whoever's child it is; `None` while it runs.
pub fn zombie_status(pid: i32) -> io::Result<Option<i32>> {
    if stat_field(pid, 3)? != "Z" {
        return Ok(None);
    }
    stat_field(pid, 52)?.parse().map(Some).map_err(io::Error::other)
}

/// Field by its number in proc_pid_stat(5), from 3 on.
fn stat_field(pid: i32, number: usize) -> io::Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may contain anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_ascii_whitespace().nth(number - 3).map(str::to_owned).ok_or(io::ErrorKind::InvalidData.into())
}

#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

/// The wait status of a process that was reaped by somebody else (kernel 6.15 or later); `None` if unknown.
pub fn reaped_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const INFO_EXIT: u64 = 1 << 3;
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request number carries the size of the structure that the kernel fills, which is the one passed.
    let result = unsafe {
        libc::ioctl(pidfd.as_raw_fd(), nix::request_code_readwrite!(0xff, 11, size_of::<PidfdInfo>()), &raw mut info)
    };
    (result == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

/// Takes a wait status apart: exit code, or the signal that ended the process.
pub fn decode(status: i32) -> (i32, Option<i32>) {
    if libc::WIFSIGNALED(status) { (0, Some(libc::WTERMSIG(status))) } else { (libc::WEXITSTATUS(status), None) }
}

/// The end of a child process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub pid: i32,
    /// Its exit code.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Reaps any ended child; `None` if no child has ended.
pub fn reap() -> Option<Ended> {
    wait(libc::P_ALL, 0, libc::WNOHANG)
}

/// Waits for any child; `None` if there is none.
pub fn wait_any() -> Option<Ended> {
    wait(libc::P_ALL, 0, 0)
}

fn wait(kind: libc::idtype_t, id: libc::id_t, flags: i32) -> Option<Ended> {
    // SAFETY: all-zero is a valid `siginfo_t`; the kernel fills it, and for a SIGCHLD its pid and status are set.
    let (pid, status, reason) = unsafe {
        let mut info: libc::siginfo_t = zeroed();
        while libc::waitid(kind, id, &raw mut info, flags | libc::WEXITED) != 0 {
            if Errno::last() != Errno::EINTR {
                return None;
            }
        }
        (info.si_pid(), info.si_status(), info.si_code)
    };
    let exited = reason == libc::CLD_EXITED;
    let ended = Ended { pid, code: if exited { status } else { 0 }, signal: (!exited).then_some(status) };
    (pid != 0).then_some(ended)
}

/// Waits until the process behind a pidfd has ended, that long at most; whether it has.
pub fn await_end(pidfd: BorrowedFd<'_>, patience: std::time::Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, poll};
    let end = std::time::Instant::now() + patience;
    loop {
        let rest = end.saturating_duration_since(std::time::Instant::now());
        let timeout = rustix::time::Timespec::try_from(rest).map_err(io::Error::other)?;
        match poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

/// Waits for a child by its pidfd.
pub fn wait_for(pidfd: BorrowedFd<'_>) -> Option<Ended> {
    wait(libc::P_PIDFD, pidfd.as_raw_fd().cast_unsigned(), libc::__WALL)
}

/// The kind of a namespace, as a flag `CLONE_NEW*`.
pub fn namespace_kind(namespace: BorrowedFd<'_>) -> io::Result<i32> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the descriptor is open while borrowed; the request takes no argument.
    let kind = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// Enters namespaces of the process behind a pidfd, or the one namespace behind a namespace descriptor.
pub fn enter(fd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    Ok(nix::sched::setns(fd, nix::sched::CloneFlags::from_bits_retain(flags))?)
}

/// Leaves namespaces for new ones.
pub fn unshare(flags: i32) -> io::Result<()> {
    Ok(nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(flags))?)
}

/// Gives every signal its default again: what a program expects to start with.
pub fn reset_signals() {
    for number in 1..=libc::SIGRTMAX() {
        if number != libc::SIGKILL && number != libc::SIGSTOP {
            // SAFETY: setting the default handler touches no memory. Numbers that libc reserves fail harmlessly.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
    }
}

/// Blocks signals, to be taken by [`next_signal`] or a signalfd.
pub fn block_signals(set: &SigSet) -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_BLOCK, Some(set), None)?)
}

/// Blocks no signal.
pub fn unblock_signals() -> io::Result<()> {
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// Blocks every signal that can be blocked.
pub fn block_all_signals() -> io::Result<()> {
    block_signals(&SigSet::all())
}

/// Waits for any blocked signal; returns its number, real-time ones included.
pub fn next_signal() -> io::Result<i32> {
    // SAFETY: `set` is filled before it is read, and a null siginfo is allowed.
    let number = unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigwaitinfo(&raw const set, std::ptr::null_mut())
    };
    if number > 0 { Ok(number) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by number to a child by pid.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain numbers; pids that can't be children are refused first.
    if pid > 1 && unsafe { libc::kill(pid, signal) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` on as closed by the next exec.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag; no descriptor is closed under its owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Numbers that [`reserve_descriptors`] keeps free.
const RESERVED: std::ops::RangeInclusive<u32> = 3..=10;

/// Occupies some low numbers of descriptors for children with a low limit of open files, which is about numbers, not
/// about how many there are. To be called before anything is opened.
pub fn reserve_descriptors() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    for number in RESERVED {
        // SAFETY: plain numbers; nobody owns a descriptor of that number yet, and nobody ever will.
        if unsafe { libc::fcntl(number.cast_signed(), libc::F_GETFD) } < 0 {
            // SAFETY: as above.
            unsafe { libc::dup3(null.as_raw_fd(), number.cast_signed(), libc::O_CLOEXEC) };
        }
    }
    // It may have got one of the numbers.
    let _ = null.into_raw_fd();
    Ok(())
}

/// Frees them, in a child.
pub fn free_reserved_descriptors() -> io::Result<()> {
    // SAFETY: nobody owns a descriptor of these numbers.
    let result = unsafe { libc::syscall(libc::SYS_close_range, *RESERVED.start(), *RESERVED.end(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor from `first` on, for a process that only waits from now on and drops nothing any more.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX)
}

/// Closes every descriptor from `first` on but `kept`, for a process that drops nothing any more, as [`close_from`].
pub fn close_from_except(first: u32, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    let mut next = first;
    for fd in kept {
        if fd > next {
            close_range(next, fd - 1)?;
        }
        next = next.max(fd + 1);
    }
    close_range(next, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the callers never touch an owned descriptor of that range again; they end by `exit` or `exec`, which run
    // no destructor.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes `init` of the caller's command line, and empties its environment, as others see them in proc(5). For a process
/// that never looks at either again. Where `/proc` isn't mounted, nothing changes.
pub fn forget_arguments() {
    const TITLE: &[u8] = b"init";
    let stat = fs_err::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses comes field 3; 48 to 51 are where arguments and environment begin and end.
    let fields: Vec<&str> = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect()).unwrap_or_default();
    let address = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    for (begin, end, title) in [(address(48), address(49), TITLE), (address(50), address(51), b"")] {
        if begin == 0 || end < begin + title.len() {
            continue;
        }
        let area = std::ptr::with_exposed_provenance_mut::<u8>(begin);
        // SAFETY: the kernel put both areas, of these sizes, on this process's own stack above all frames; they are
        // writable, and the caller reads them no more.
        unsafe {
            area.write_bytes(0, end - begin);
            area.copy_from_nonoverlapping(title.as_ptr(), title.len());
        }
    }
}

/// Whether other processes of the same user may look into this one's memory and descriptors.
pub fn set_dumpable(dumpable: bool) -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(dumpable)?)
}

/// Gives the caller the normal scheduling policy, if it had another; giving up a priority needs no right.
pub fn schedule_normally() {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure outlives the call, which changes the calling thread alone.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const parameter) };
}

/// Makes orphaned descendants children of the caller.
pub fn set_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Leaves the session keyring for a new, empty one.
pub fn new_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: i32 = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets the NIS domain name of the caller's UTS namespace.
pub fn set_domain_name(name: &str) -> io::Result<()> {
    // SAFETY: the pointer is valid for the length given.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Descriptors that an async runtime takes; where it can't have them, it panics.
pub const RUNTIME_FILES: usize = 8;

/// Fails if the caller may not open so many more files.
pub fn spare_files(count: usize) -> io::Result<()> {
    let copies: io::Result<Vec<OwnedFd>> = (0..count).map(|_| io::stdin().as_fd().try_clone_to_owned()).collect();
    copies.map(drop)
}

/// Sets a resource limit (`RLIMIT_*`) of the caller.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: `limit` outlives the call.
    let result = unsafe { libc::setrlimit(resource, &raw const limit) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Raises a resource limit (`RLIMIT_*`) of another process, or of the caller (0), that is below.
pub fn raise_limit_of(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no limit is set, and `limit` outlives the call, which fills it in.
    if unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur >= soft && limit.rlim_max >= hard {
        return Ok(());
    }
    limit = libc::rlimit { rlim_cur: limit.rlim_cur.max(soft), rlim_max: limit.rlim_max.max(hard) };
    // SAFETY: `limit` outlives the call, and the old limit is not asked for.
    let result = unsafe { libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A signal's number by name (`TERM`, `SIGTERM`, `RTMIN+3`) or number.
pub fn signal_number(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Ok(number) = name.parse::<i32>() {
        return (1..=libc::SIGRTMAX()).contains(&number).then_some(number);
    }
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let offset = |text: &str, sign: char| match text.strip_prefix(sign) {
        None => text.is_empty().then_some(0),
        Some(number) => number.parse::<u8>().ok().map(i32::from),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return offset(rest, '+').map(|n| real_time.start() + n).filter(|n| real_time.contains(n));
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return offset(rest, '-').map(|n| real_time.end() - n).filter(|n| real_time.contains(n));
    }
    format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signal_names() {
        assert_eq!(signal_number("SIGTERM"), Some(15));
        assert_eq!(signal_number("usr1"), Some(10));
        assert_eq!(signal_number("9"), Some(9));
        assert_eq!(signal_number("RTMIN+3"), Some(libc::SIGRTMIN() + 3));
        assert_eq!(signal_number("0"), None);
        assert_eq!(signal_number("NOPE"), None);
        assert_eq!(signal_number("SIGRTMAX-2"), Some(libc::SIGRTMAX() - 2));
        for wrong in ["RTMINé1", "RTMIN-1", "RTMAX+1", "RTMIN+99", "RTMIN+2147483647", "RTMAX-"] {
            assert_eq!(signal_number(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_process_is_named_by_its_start() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(own).unwrap() > 0);
        assert_eq!(zombie_status(own).unwrap(), None);
    }

    #[test]
    fn exit_status_survives_the_reaper() {
        let mut child = std::process::Command::new("/bin/sh").args(["-c", "sleep 0.05; exit 7"]).spawn().unwrap();
        let pidfd = pidfd_open(i32::try_from(child.id()).unwrap()).unwrap();
        child.wait().unwrap();
        let status = reaped_status(std::os::fd::AsFd::as_fd(&pidfd)).map(decode);
        assert!(status.is_none() || status == Some((7, None)), "{status:?}");
    }
}
