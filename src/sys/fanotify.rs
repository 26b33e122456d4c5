//! Notices what happens to files on a whole mount, or a whole file system.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Where files are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What is done through one mount.
    Mount,
    /// What is done in one file system.
    FileSystem,
}

/// What is noticed: bits of `FAN_*`.
pub type Mask = u64;

/// Bytes of an event before what it is about.
const HEAD: usize = size_of::<libc::fanotify_event_metadata>();
/// Bytes that one system call reads.
const BUFFER: usize = 1 << 14;
/// Bytes of an information record before its file handle: type, padding, length, file system.
const BEFORE_HANDLE: usize = 12;
/// Kinds of records that have a folder and a name.
const NAMED: [u8; 3] = [2, 10, 12];

/// A queue of events.
#[derive(Debug)]
pub struct Fanotify(OwnedFd);

/// Something happened to a name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What.
    pub mask: Mask,
    /// A handle of the folder, for [`Fanotify::folder`]; empty if events were lost.
    pub folder: Vec<u8>,
    /// The name.
    pub name: PathBuf,
}

impl Fanotify {
    /// A queue that gives out the files themselves, and is served before any inotify queue.
    pub fn of_files() -> io::Result<Self> {
        Self::new(libc::FAN_CLASS_CONTENT)
    }

    /// A queue that tells folders and names.
    pub fn of_names() -> io::Result<Self> {
        Self::new(libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_DFID_NAME)
    }

    fn new(flags: u32) -> io::Result<Self> {
        let flags = flags | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_UNLIMITED_QUEUE;
        let event_flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_LARGEFILE;
        // SAFETY: the call takes numbers only.
        let fd = unsafe { libc::fanotify_init(flags, event_flags.cast_unsigned()) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is a new descriptor, which nobody else knows.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Notices `mask` from now on in the mount or file system that `path` lies in.
    pub fn mark(&self, scope: Scope, mask: Mask, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let scope = match scope {
            Scope::Mount => libc::FAN_MARK_MOUNT,
            Scope::FileSystem => libc::FAN_MARK_FILESYSTEM,
        };
        let fd = self.0.as_raw_fd();
        // SAFETY: the kernel reads the path to its NUL.
        let result =
            unsafe { libc::fanotify_mark(fd, libc::FAN_MARK_ADD | scope, mask, libc::AT_FDCWD, path.as_ptr()) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The files that events are about, without waiting. What can't be opened is left out.
    pub fn files(&self) -> io::Result<Vec<OwnedFd>> {
        let mut files = Vec::new();
        self.drain(|head, _| {
            let fd = i32::from_ne_bytes(word(head, 16));
            if fd >= 0 {
                // SAFETY: the kernel has opened it for this event, and nobody else knows it.
                files.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        })?;
        Ok(files)
    }

    /// The names that events are about, without waiting.
    pub fn names(&self) -> io::Result<Vec<Named>> {
        let mut names = Vec::new();
        self.drain(|head, records| {
            let mut mask = [0; 8];
            mask.copy_from_slice(&head[8..16]);
            let mask = u64::from_ne_bytes(mask);
            if mask & libc::FAN_Q_OVERFLOW != 0 {
                names.push(Named { mask, folder: Vec::new(), name: PathBuf::new() });
            }
            names.extend(named(records).map(|(folder, name)| Named { mask, folder, name }));
        })?;
        Ok(names)
    }

    /// Hands out every event that is there: its head, and the records after it.
    fn drain(&self, mut event: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match rustix::io::read(&self.0, &mut buffer[..]) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Ok(length) => length,
                // One file could not be opened; the events after it are still there.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::NXIO | rustix::io::Errno::ACCESS) => continue,
                Err(e) => return Err(e.into()),
            };
            let mut rest = &buffer[..length];
            while rest.len() >= HEAD {
                let length = u32::from_ne_bytes(word(rest, 0)) as usize;
                if length < HEAD || length > rest.len() {
                    break;
                }
                let (one, next) = rest.split_at(length);
                event(&one[..HEAD], &one[HEAD..]);
                rest = next;
            }
        }
    }

    /// Where the folder of a handle is now; `mount` is any open folder of the mount to look in.
    pub fn folder(mount: BorrowedFd<'_>, handle: &[u8]) -> io::Result<PathBuf> {
        // The kernel wants it aligned like the two numbers that it begins with.
        let mut aligned = vec![0_u32; handle.len().div_ceil(4)];
        for (word, bytes) in aligned.iter_mut().zip(handle.chunks(4)) {
            let mut whole = [0; 4];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u32::from_ne_bytes(whole);
        }
        let claimed = aligned.first().map_or(0, |length| *length as usize);
        if handle.len() < 8 || claimed > handle.len() - 8 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: the kernel reads the two numbers and as many bytes as the first of them says, all within `aligned`.
        let fd = unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), aligned.as_ptr(), flags) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: it is a new descriptor, which nobody else knows.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(path.as_bytes())))
    }
}

/// The folders and names in the records of an event.
fn named(mut records: &[u8]) -> impl Iterator<Item = (Vec<u8>, PathBuf)> {
    let record = move || {
        let [kind, _, low, high, ..] = *records else { return None };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        if length < BEFORE_HANDLE || length > records.len() {
            return None;
        }
        let (one, rest) = records.split_at(length);
        records = rest;
        Some((kind, one))
    };
    std::iter::from_fn(record).filter(|(kind, _)| NAMED.contains(kind)).filter_map(|(_, record)| {
        let handle = record.get(BEFORE_HANDLE..).filter(|handle| handle.len() >= 8)?;
        let (handle, name) = handle.split_at_checked(8 + u32::from_ne_bytes(word(handle, 0)) as usize)?;
        let name = name.split(|byte| *byte == 0).next()?;
        Some((handle.to_vec(), PathBuf::from(OsStr::from_bytes(name))))
    })
}

/// The four bytes at `at`, which are there.
fn word(bytes: &[u8], at: usize) -> [u8; 4] {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    word
}

impl AsFd for Fanotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Fanotify {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Fanotify> for OwnedFd {
    fn from(queue: Fanotify) -> Self {
        queue.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_to_their_end_only() {
        let mut record =
            vec![2, 0, 12 + 8 + 4 + 2, 0, 9, 9, 9, 9, 9, 9, 9, 9, 4, 0, 0, 0, 1, 0, 0, 0, 5, 6, 7, 8, b'a', 0];
        let handle = vec![4, 0, 0, 0, 1, 0, 0, 0, 5, 6, 7, 8];
        assert_eq!(named(&record).collect::<Vec<_>>(), [(handle, PathBuf::from("a"))]);
        assert_eq!(named(&record[..20]).count(), 0);
        record[12] = 200;
        assert_eq!(named(&record).count(), 0);
    }

    #[test]
    fn a_mount_gives_the_files_that_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let queue = Fanotify::of_files().unwrap();
        queue.mark(Scope::Mount, libc::FAN_CLOSE_WRITE, folder.path()).unwrap();
        fs_err::write(folder.path().join("a"), "1").unwrap();
        let wanted = rustix::fs::stat(folder.path().join("a")).unwrap().st_ino;
        let files = queue.files().unwrap();
        assert!(files.iter().any(|file| rustix::fs::fstat(file).unwrap().st_ino == wanted));
    }
}
