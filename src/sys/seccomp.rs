//! Loading system call filters, and answering for those calls that they put before somebody else.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// One instruction of a filter.
pub type Instruction = libc::sock_filter;

const RECEIVE: libc::Ioctl = request(READ | WRITE, 0, size_of::<libc::seccomp_notif>());
const SEND: libc::Ioctl = request(READ | WRITE, 1, size_of::<libc::seccomp_notif_resp>());
const IS_VALID: libc::Ioctl = request(WRITE, 2, size_of::<u64>());
const ADD_FD: libc::Ioctl = request(WRITE, 3, size_of::<libc::seccomp_notif_addfd>());
const WRITE: usize = 1;
const READ: usize = 2;

/// The number of a request of the kernel's kind `!`: direction, size of what it points to, kind, number.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "32 bits: an int in musl, a long in glibc"
)]
const fn request(direction: usize, number: usize, size: usize) -> libc::Ioctl {
    (direction << 30 | size << 16 | (b'!' as usize) << 8 | number) as libc::Ioctl
}

/// Puts the caller and its descendants under a filter. Needs `CAP_SYS_ADMIN` or `no_new_privs`.
pub fn load(program: &[Instruction]) -> io::Result<()> {
    set_filter(program, 0).map(drop)
}

/// The same, with a listener for calls whose verdict is `SECCOMP_RET_USER_NOTIF`. `EBUSY` if the caller has one already.
///
/// Where the kernel can (5.19), only a deadly signal interrupts a call that the listener has received: what was done for
/// it counts.
pub fn load_with_listener(program: &[Instruction]) -> io::Result<Listener> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = match set_filter(program, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => set_filter(program, flags)?,
        other => other?,
    };
    // SAFETY: with this flag the call returns a new descriptor, which nobody else knows.
    Ok(Listener(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Loads a filter with flags of seccomp(2); gives the listener if `NEW_LISTENER` is among them.
pub fn load_flagged(program: &[Instruction], flags: libc::c_ulong) -> io::Result<Option<Listener>> {
    let fd = set_filter(program, flags)?;
    let listens = flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0;
    // SAFETY: with this flag the call returns a new descriptor, which nobody else knows.
    Ok(listens.then(|| Listener(unsafe { OwnedFd::from_raw_fd(fd) })))
}

fn set_filter(program: &[Instruction], flags: libc::c_ulong) -> io::Result<i32> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which the slice holds, and writes to neither.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap_or(-1)) }
}

/// Where calls wait for an answer; readable when one does, hung up when nobody is under the filter any more.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A system call that waits.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    id: u64,
    /// Its number, as the caller's architecture counts.
    pub number: i32,
    /// The caller's thread, as the reader's pid namespace numbers it.
    pub pid: u32,
    /// The arguments.
    pub args: [u64; 6],
}

impl Listener {
    /// The next call that waits. It fails with `ENOENT` if its caller has died meanwhile.
    pub fn receive(&self) -> io::Result<Call> {
        // SAFETY: all-zero is what the kernel wants to find there.
        let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the request writes one `seccomp_notif`, which outlives the call.
        self.ask(|fd| unsafe { libc::ioctl(fd, RECEIVE, &raw mut notification) })?;
        let (number, args) = (notification.data.nr, notification.data.args);
        Ok(Call { id: notification.id, number, pid: notification.pid, args })
    }

    /// Whether the caller still waits: only then what was found out by its pid is about it.
    pub fn still_waits(&self, call: &Call) -> bool {
        // SAFETY: the request reads one `u64`, which outlives the call.
        self.ask(|fd| unsafe { libc::ioctl(fd, IS_VALID, &raw const call.id) }).is_ok()
    }

    /// Gives the caller a copy of a descriptor, whose number the call returns.
    pub fn give(&self, call: &Call, fd: BorrowedFd<'_>, close_on_exec: bool) -> io::Result<()> {
        self.add(call, fd, libc::SECCOMP_ADDFD_FLAG_SEND, 0, close_on_exec)
    }

    /// Puts a copy of a descriptor in the place of the caller's `number`. The call still waits.
    pub fn replace(&self, call: &Call, fd: BorrowedFd<'_>, number: u32, close_on_exec: bool) -> io::Result<()> {
        self.add(call, fd, libc::SECCOMP_ADDFD_FLAG_SETFD, number, close_on_exec)
    }

    fn add(
        &self,
        call: &Call,
        fd: BorrowedFd<'_>,
        flags: libc::c_ulong,
        newfd: u32,
        close_on_exec: bool,
    ) -> io::Result<()> {
        let number = |value: i32| value.cast_unsigned();
        let added = libc::seccomp_notif_addfd {
            id: call.id,
            flags: u32::try_from(flags).unwrap_or_default(),
            srcfd: number(fd.as_raw_fd()),
            newfd,
            newfd_flags: if close_on_exec { number(libc::O_CLOEXEC) } else { 0 },
        };
        // SAFETY: the request reads one `seccomp_notif_addfd`, which outlives the call; `fd` is open.
        self.ask(|fd| unsafe { libc::ioctl(fd, ADD_FD, &raw const added) })
    }

    /// Lets the kernel carry out the call.
    pub fn carry_on(&self, call: &Call) -> io::Result<()> {
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1);
        self.answer(call, 0, flags)
    }

    /// Says that the call was carried out; it returns 0.
    pub fn done(&self, call: &Call) -> io::Result<()> {
        self.answer(call, 0, 0)
    }

    /// Fails the call with an error number.
    pub fn refuse(&self, call: &Call, errno: i32) -> io::Result<()> {
        self.answer(call, -errno, 0)
    }

    fn answer(&self, call: &Call, error: i32, flags: u32) -> io::Result<()> {
        let answer = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        // SAFETY: the request reads one `seccomp_notif_resp`, which outlives the call.
        self.ask(|fd| unsafe { libc::ioctl(fd, SEND, &raw const answer) })
    }

    fn ask(&self, ask: impl FnOnce(i32) -> i32) -> io::Result<()> {
        if ask(self.0.as_raw_fd()) < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Bytes of a call that is written down.
pub const CALL: usize = 8 * 8;

impl Call {
    /// As bytes, for a process after this one.
    pub fn to_bytes(self) -> [u8; CALL] {
        let who = u64::from(self.number.cast_unsigned()) << 32 | u64::from(self.pid);
        let mut bytes = [0; CALL];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip([self.id, who].into_iter().chain(self.args)) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// From what [`Self::to_bytes`] gave.
    pub fn from_bytes(bytes: &[u8; CALL]) -> Self {
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut whole = [0; 8];
            whole.copy_from_slice(chunk);
            *word = u64::from_ne_bytes(whole);
        }
        let [id, who, args @ ..] = words;
        let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default();
        Self { id, number: half(who >> 32).cast_signed(), pid: half(who), args }
    }

    /// The call that the kernel handed out after this one: it numbers them one by one.
    #[must_use]
    pub fn successor(self) -> Self {
        Self { id: self.id.wrapping_add(1), ..self }
    }

    /// Reads the caller's memory at `address`; how many bytes were there. What is found is about this call only if
    /// it still waits afterwards.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let pid = libc::pid_t::try_from(self.pid).map_err(io::Error::other)?;
        let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let base = usize::try_from(address).map_err(io::Error::other)?;
        let remote = libc::iovec { iov_base: base as *mut libc::c_void, iov_len: buffer.len() };
        // SAFETY: the kernel writes at most `buffer.len()` bytes to `buffer`, and only reads the other process.
        let length = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        usize::try_from(length).map_err(|_| io::Error::last_os_error())
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_written_down_is_the_same() {
        let call = Call { id: u64::MAX - 1, number: -7, pid: 4_000_000_000, args: [1, 2, 3, 4, 5, u64::MAX] };
        let read = Call::from_bytes(&call.to_bytes());
        assert_eq!((read.id, read.number, read.pid, read.args), (call.id, call.number, call.pid, call.args));
        assert_eq!(call.successor().id, u64::MAX);
    }
}
