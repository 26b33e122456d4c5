//! The program's own binary, sealed.
//!
//! Whoever gets hold of a process's `/proc/<pid>/exe` could write to the file behind it (CVE-2019-5736). A process
//! that enters containers therefore runs from a detached read-only mount of the binary.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};

use super::mount;

/// A descriptor of `binary` that can be executed, but not written through.
pub fn sealed(binary: &Path) -> io::Result<OwnedFd> {
    let file = rustix::fs::open(binary, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if rustix::fs::fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(file);
    }
    let mounted = mount::clone_tree_at(file.as_fd(), Path::new(""), false)
        .and_then(|tree| mount::restrict(tree.as_fd(), mount::READ_ONLY, false).map(|()| tree));
    mounted.or_else(|_| copy(binary))
}

/// Whether this process runs from such a descriptor, or from a file that nobody can write to anyway.
pub fn is_sealed() -> bool {
    let Ok(file) = rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let read_only = rustix::fs::fstatvfs(&file).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    read_only || rustix::fs::fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::WRITE))
}

/// The path that executes a descriptor, valid while it is open.
pub fn path_of(fd: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

/// A copy in memory, for kernels or file systems that refuse the mount.
fn copy(binary: &Path) -> io::Result<OwnedFd> {
    let mut source = fs_err::File::open(binary)?;
    let memory = rustix::fs::memfd_create("stack", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut target = std::fs::File::from(memory);
    io::copy(&mut source, &mut target)?;
    rustix::fs::fcntl_add_seals(&target, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(target.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_binary_runs_and_cannot_be_written() {
        for fd in [sealed(Path::new("/bin/true")).unwrap(), copy(Path::new("/bin/true")).unwrap()] {
            let path = path_of(&fd);
            let error = rustix::fs::open(&path, OFlags::WRONLY, Mode::empty());
            assert!(error.is_err() || rustix::io::write(error.unwrap(), b"x").is_err());
            assert!(std::process::Command::new(path).status().unwrap().success());
        }
    }
}
