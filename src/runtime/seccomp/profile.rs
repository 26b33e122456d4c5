//! What happens to each system call.

use std::collections::{BTreeMap, BTreeSet};

use crate::runtime::caps;

const PROFILE: &str = include_str!("../../../schemas/seccomp.profile");
const NUMBERS: &str = include_str!("../../../schemas/syscalls.tsv");

/// A table of call numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    I386,
    Arm64,
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// Fails with this error number.
    Fail(i32),
    /// Depends on the address family; raw ICMP sockets are asked for elsewhere.
    Socket,
    /// Depends on the address family.
    SocketPair,
    /// Not what would write headers of IP by hand.
    SocketOption,
    /// Only what makes no socket, as the family can't be seen.
    SocketCall,
    /// Only the harmless values.
    Personality,
    /// Only without new namespaces.
    Clone,
    /// Asked for elsewhere, unless the address is too short for one of the internet.
    Bind,
    /// Asked for elsewhere.
    Listen,
}

/// The verdicts over all numbers: each range begins with its number and ends before the next. The last one, for
/// numbers that the table doesn't know, is `ENOSYS`, so that programs fall back to what they used before. With `keeps`,
/// somebody else is asked about sockets that listen.
pub(super) fn ranges(abi: Abi, capabilities: u64, keeps: bool) -> Vec<(u32, Verdict)> {
    let allowed = allowed(capabilities);
    let admin = caps::holds(capabilities, "SYS_ADMIN");
    let numbers = numbers(abi);
    let end = numbers.keys().next_back().map_or(0, |last| last + 1);
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for number in 0..=end {
        let verdict = match numbers.get(&number).copied() {
            _ if number == end => Verdict::Fail(libc::ENOSYS),
            Some("socket") => Verdict::Socket,
            Some("socketpair") => Verdict::SocketPair,
            Some("setsockopt") if !caps::holds(capabilities, "NET_RAW") => Verdict::SocketOption,
            Some("socketcall") => Verdict::SocketCall,
            Some("bind") if keeps => Verdict::Bind,
            Some("listen") if keeps => Verdict::Listen,
            Some("personality") => Verdict::Personality,
            Some("clone" | "clone3") if admin => Verdict::Allow,
            Some("clone") => Verdict::Clone,
            // Its flags lie in memory; with this error, everyone falls back to clone.
            Some("clone3") => Verdict::Fail(libc::ENOSYS),
            Some(name) if allowed.contains(name) => Verdict::Allow,
            _ => Verdict::Fail(libc::EPERM),
        };
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((number, verdict));
        }
    }
    ranges
}

fn allowed(capabilities: u64) -> BTreeSet<&'static str> {
    let mut allowed = BTreeSet::new();
    let mut applies = false;
    for line in PROFILE.lines().filter(|line| !line.starts_with('#')) {
        match line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some("always") => applies = true,
            Some(names) => applies = names.split(' ').any(|name| caps::holds(capabilities, name)),
            None if applies => allowed.extend(line.split_ascii_whitespace()),
            None => {}
        }
    }
    allowed
}

pub(super) fn numbers(abi: Abi) -> BTreeMap<u32, &'static str> {
    let column = match abi {
        Abi::X86_64 => 1,
        Abi::I386 => 2,
        Abi::Arm64 => 3,
    };
    let rows = NUMBERS.lines().filter(|line| !line.starts_with('#'));
    let fields = rows.map(|line| line.split('\t').collect::<Vec<_>>());
    fields.filter_map(|fields| Some((fields.get(column)?.parse().ok()?, *fields.first()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_call_has_a_number_somewhere() {
        let known: BTreeSet<&str> =
            [Abi::X86_64, Abi::I386, Abi::Arm64].into_iter().flat_map(|abi| numbers(abi).into_values()).collect();
        let unknown: Vec<_> = allowed(u64::MAX).into_iter().filter(|name| !known.contains(name)).collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    #[test]
    fn numbers_agree_with_this_machine() {
        let numbers = numbers(if cfg!(target_arch = "x86_64") { Abi::X86_64 } else { Abi::Arm64 });
        for (number, name) in [(libc::SYS_read, "read"), (libc::SYS_clone3, "clone3"), (libc::SYS_openat2, "openat2")] {
            assert_eq!(numbers.get(&u32::try_from(number).unwrap()), Some(&name));
        }
    }

    #[test]
    fn few_ranges_are_enough() {
        assert!(ranges(Abi::X86_64, 0, true).len() < 100);
    }
}
