//! Finding out which program has a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use fs_err as fs;

use super::Holder;
use crate::net::firewall::Protocol;

/// The program whose socket keeps others off `address:port`, if it can be found: a socket without a process, or of a
/// process in a foreign pid namespace, can't.
pub(super) fn find(address: IpAddr, port: u16, protocol: Protocol) -> Option<Holder> {
    let sockets: Vec<String> =
        inodes(address, port, protocol).into_iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(entry.path().join("fd")).ok()?.flatten().any(|fd| {
            fs::read_link(fd.path()).is_ok_and(|link| sockets.iter().any(|socket| link == Path::new(socket)))
        });
        holds.then(|| (pid, entry.path()))
    });
    let mut holders: Vec<Holder> = processes.map(|(pid, path)| describe(pid, &path)).collect();
    // A stack's guards may be open in several of its processes: any of them that names the stack will do.
    holders.sort_by_key(|holder| matches!(holder, Holder::Process { .. }));
    holders.into_iter().next()
}

fn describe(pid: i32, process: &Path) -> Holder {
    let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
    if let Some(project) = project(&arguments) {
        return Holder::Stack { project };
    }
    let comm = fs::read_to_string(process.join("comm")).unwrap_or_default();
    Holder::Process { pid, comm: comm.trim().to_owned() }
}

/// The project of a supervisor (`__supervisor PROJECT …`) or shim (`__shim RUN_DIR …`), by its arguments.
fn project(arguments: &[u8]) -> Option<String> {
    let words: Vec<_> = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let after = |hidden: &str| words.get(words.iter().position(|word| word == hidden)? + 1);
    let supervised = after("__supervisor").map(ToString::to_string);
    supervised.or_else(|| Some(Path::new(after("__shim")?.as_ref()).file_name()?.to_string_lossy().into_owned()))
}

/// Sockets of the current namespace in the way, by inode.
fn inodes(address: IpAddr, port: u16, protocol: Protocol) -> Vec<u64> {
    let read = |suffix| fs::read_to_string(format!("/proc/thread-self/net/{protocol}{suffix}")).unwrap_or_default();
    let (v4, v6) = (read(""), read("6"));
    v4.lines().chain(v6.lines()).skip(1).filter_map(|line| conflicting(line, address, port)).collect()
}

/// The inode of a line of `/proc/net/tcp`, if its socket is at the port and its address overlaps.
fn conflicting(line: &str, address: IpAddr, port: u16) -> Option<u64> {
    let mut columns = line.split_whitespace().skip(1);
    let (local, bound) = columns.next()?.split_once(':')?;
    let local = parse_address(local)?;
    let overlap = local == address || local.is_unspecified() || address.is_unspecified();
    let inode: u64 = columns.nth(7)?.parse().ok()?;
    (u16::from_str_radix(bound, 16) == Ok(port) && overlap && inode != 0).then_some(inode)
}

/// An address as the kernel prints it: words of 32 bits in the host's byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let mut octets = Vec::new();
    for word in hex.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        octets.extend_from_slice(&word.to_ne_bytes());
    }
    match octets.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_a_stack_name_it() {
        assert_eq!(project(b"/proc/self/fd/9\0__supervisor\0shop\0/root\0").as_deref(), Some("shop"));
        assert_eq!(project(b"stack\0__shim\0/run/stack/shop\0").as_deref(), Some("shop"));
        assert_eq!(project(b"nginx\0-g\0daemon off;\0"), None);
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        let on = |address: &str, port| conflicting(line, address.parse().unwrap(), port);
        assert_eq!(on("127.0.0.1", 8080), Some(4711));
        assert_eq!(on("0.0.0.0", 8080), Some(4711));
        assert_eq!(on("192.0.2.1", 8080), None);
        assert_eq!(on("127.0.0.1", 80), None);
        assert_eq!(parse_address("00000000000000000000000001000000"), Some("::1".parse().unwrap()));
        assert_eq!(conflicting("junk", "::1".parse().unwrap(), 1), None);
    }
}
