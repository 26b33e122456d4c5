//! When and where a process runs: policy, processors, input and output, memory nodes, personality.

use std::io;

/// A scheduling policy and what it takes, by the names of sched(7).
#[derive(Debug, Clone, Copy)]
pub struct Scheduler<'a> {
    /// `SCHED_*`
    pub policy: &'a str,
    /// `SCHED_FLAG_*`
    pub flags: &'a [String],
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds, for `SCHED_DEADLINE`.
    pub period: u64,
}

/// Every policy, as the kernel numbers them.
pub const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x1),
    ("SCHED_FLAG_RECLAIM", 0x2),
    ("SCHED_FLAG_DL_OVERRUN", 0x4),
    ("SCHED_FLAG_KEEP_POLICY", 0x8),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
const IO_CLASSES: [(&str, u32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];
const MEMORY_MODES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];
const MEMORY_FLAGS: [(&str, i32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// `struct sched_attr` of sched_setattr(2), as far as it was first.
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> io::Result<T> {
    let found = table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("unknown name {name:?}")))
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets the caller's scheduling policy.
pub fn set_scheduler(wanted: &Scheduler<'_>) -> io::Result<()> {
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).unwrap_or(48),
        policy: named(&POLICIES, wanted.policy)?,
        flags: wanted.flags.iter().try_fold(0, |bits, flag| named(&FLAGS, flag).map(|bit| bits | bit))?,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    };
    // SAFETY: the kernel reads `size` bytes of the structure, which outlives the call; 0 is the caller.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

/// Sets class and level (0 to 7) of the caller's input and output, by the names of ioprio_set(2).
pub fn set_io_priority(class: &str, level: u8) -> io::Result<()> {
    const WHO_PROCESS: i32 = 1;
    let value = named(&IO_CLASSES, class)? << 13 | u32::from(level);
    // SAFETY: plain numbers; 0 is the caller.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, value) })
}

/// Makes the kernel pretend to be of a domain, `LINUX` or `LINUX32`.
pub fn set_personality(domain: &str) -> io::Result<()> {
    let value = named(&[("LINUX", 0), ("LINUX32", 0x8)], domain)?;
    // SAFETY: a plain number, which concerns the caller alone.
    checked(unsafe { libc::personality(value) }.into())
}

/// Sets where the caller's memory comes from, by the names of set_mempolicy(2); nodes are a list such as `0-1,3`.
pub fn set_memory_policy(mode: &str, flags: &[String], nodes: &str) -> io::Result<()> {
    let mode = flags
        .iter()
        .try_fold(named(&MEMORY_MODES, mode)?, |bits, flag| named(&MEMORY_FLAGS, flag).map(|bit| bits | bit))?;
    let nodes = numbers(nodes)?;
    let mut mask = vec![0_u64; nodes.iter().max().map_or(0, |last| last / 64 + 1)];
    for node in &nodes {
        mask[node / 64] |= 1 << (node % 64);
    }
    // The kernel looks at one bit less than it is told.
    let bits = if mask.is_empty() { 0 } else { mask.len() * 64 + 1 };
    let pointer = if mask.is_empty() { std::ptr::null() } else { mask.as_ptr() };
    // SAFETY: the kernel reads as many bits of the mask as given less one, which the vector holds.
    checked(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) })
}

/// Lets the caller run on these processors alone, a list such as `0-1,3`.
pub fn set_affinity(processors: &str) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    for number in numbers(processors)? {
        if number >= rustix::thread::CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no processor {number}")));
        }
        set.set(number);
    }
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// A list of processors such as `0-1,3` as a mask in hexadecimal digits.
pub fn mask(list: &str) -> io::Result<String> {
    let numbers = numbers(list)?;
    let mut digits = vec![0_u32; numbers.iter().max().map_or(1, |last| last / 4 + 1)];
    for number in numbers {
        digits[number / 4] |= 1 << (number % 4);
    }
    Ok(digits.iter().rev().filter_map(|digit| char::from_digit(*digit, 16)).collect())
}

/// The numbers of a list such as `0-1,3`.
fn numbers(list: &str) -> io::Result<Vec<usize>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{list:?} is no list of numbers"));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < 4096).ok_or_else(wrong);
    let mut all = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(wrong());
                }
                all.extend(first..=last);
            }
            None => all.push(number(part)?),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_of_numbers() {
        assert_eq!(super::numbers("0-2, 5").unwrap(), [0, 1, 2, 5]);
        assert_eq!(super::numbers("").unwrap(), Vec::<usize>::new());
        assert_eq!(super::mask("0,1,5").unwrap(), "23");
        for wrong in ["2-1", "x", "1-", "99999999"] {
            assert!(super::numbers(wrong).is_err(), "{wrong}");
        }
    }
}
