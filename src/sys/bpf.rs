//! Programs that the kernel runs for a control group, and nothing else of BPF.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One instruction.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation: `BPF_CLASS | BPF_SOURCE | BPF_OP`, as linux/bpf.h numbers them.
    pub code: u8,
    /// Destination register in the lower half, source register in the upper one.
    pub registers: u8,
    /// Offset of a load or jump.
    pub offset: i16,
    /// Operand.
    pub immediate: i32,
}

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of the groups above and of ours all have to agree.
const ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that loading a program reads.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part of `union bpf_attr` that attaching a program reads.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// Loads a program that decides about device accesses; the kernel checks it first.
///
/// # Errors
/// `EPERM` without the right to, `EINVAL` where the kernel has no such programs or finds fault with this one.
pub fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid value of plain numbers.
    let mut load: Load = unsafe { zeroed() };
    load.kind = TYPE_CGROUP_DEVICE;
    load.count = u32::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    load.instructions = program.as_ptr() as u64;
    load.license = c"Apache-2.0".as_ptr() as u64;
    load.name[..12].copy_from_slice(b"stack_device");
    // SAFETY: the kernel reads `count` instructions and a NUL-terminated text, which outlive the call, and writes
    // nothing, as no log is asked for.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    match RawFd::try_from(fd) {
        // SAFETY: on success it is a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets a program decide for a control group of the unified hierarchy, until the group is removed.
pub fn attach_device_filter(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attach = Attach {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the structure, which outlives the call, and both descriptors are open while borrowed.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
