//! From verdicts to a program of the kernel's packet filter machine.

use super::profile::{Abi, Verdict, ranges};
use crate::runtime::caps;
use crate::sys::seccomp::Instruction;

pub(super) const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
pub(super) const AND: u16 = code(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K);
const GO: u16 = code(libc::BPF_JMP | libc::BPF_JA);
pub(super) const IF_EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
pub(super) const IF_AT_LEAST: u16 = code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K);
pub(super) const IF_ABOVE: u16 = code(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K);
pub(super) const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

#[expect(clippy::cast_possible_truncation, reason = "codes have 16 bits, but libc gives them 32")]
const fn code(bits: u32) -> u16 {
    bits as u16
}

/// Offsets into what the kernel shows to a filter.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARG0: u32 = 16;
const ARG1: u32 = 24;
const ARG2: u32 = 32;

const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_I386: u32 = 0x4000_0003;
const ARCH_ARM64: u32 = 0xc000_00b7;

/// `CLONE_NEW*`, as far as clone takes them.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// Values of personality(2): Linux, its 32-bit face, both with randomised addresses off, and the question.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// `SYS_SOCKET`, `SYS_SOCKETPAIR` and `SYS_SETSOCKOPT` of socketcall(2), whose arguments lie in memory.
const UNSEEN: [u32; 3] = [1, 8, 14];
/// The type in the second argument of socket(2), without flags.
const SOCKET_TYPE: u32 = 0xf;
/// Size of the shortest address of the internet, `sockaddr_in`.
const INTERNET_ADDRESS: u32 = 16;
const NETLINK_ROUTE: u32 = 0;
const NETLINK_AUDIT: u32 = 9;

/// The program for a process that may hold these capabilities; with `keeps`, a listener is asked about its sockets that
/// listen. Programs of another architecture than the machine's own aren't.
pub(super) fn program(capabilities: u64, keeps: bool) -> Vec<Instruction> {
    let abis: &[Abi] = if cfg!(target_arch = "aarch64") { &[Abi::Arm64] } else { &[Abi::X86_64, Abi::I386] };
    let judge = |verdict: &Verdict| leaf(*verdict, capabilities);
    let judged = |abi| tree(&ranges(abi, capabilities, keeps && abi != Abi::I386), &judge);
    by_platform(abis.iter().map(|&abi| (abi, judged(abi))).collect())
}

/// A program of what judges the numbers of each platform. Calls by way of any other end the process.
pub(super) fn by_platform(tables: Vec<(Abi, Vec<Instruction>)>) -> Vec<Instruction> {
    let mut program = vec![plain(LOAD, ARCH)];
    for (abi, judged) in tables {
        let arch = match abi {
            Abi::X86_64 => ARCH_X86_64,
            Abi::I386 => ARCH_I386,
            Abi::Arm64 => ARCH_ARM64,
        };
        let mut table = vec![plain(LOAD, NUMBER)];
        table.extend(judged);
        // Further than a conditional jump reaches.
        program.push(jump(IF_EQUAL, arch, 1, 0));
        program.push(plain(GO, length(&table)));
        program.extend(table);
    }
    program.push(plain(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// Halves the ranges until one is left.
pub(super) fn tree<T>(ranges: &[(u32, T)], leaf: &impl Fn(&T) -> Vec<Instruction>) -> Vec<Instruction> {
    match ranges {
        [] => vec![fail(libc::ENOSYS)],
        [(_, verdict)] => leaf(verdict),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (below, above) = (tree(low, leaf), tree(high, leaf));
            let mut program = match u8::try_from(below.len()) {
                Ok(distance) => vec![jump(IF_AT_LEAST, high[0].0, distance, 0)],
                Err(_) => vec![jump(IF_AT_LEAST, high[0].0, 0, 1), plain(GO, length(&below))],
            };
            program.extend(below);
            program.extend(above);
            program
        }
    }
}

fn leaf(verdict: Verdict, capabilities: u64) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![allow()],
        Verdict::Fail(errno) => vec![fail(errno)],
        Verdict::Personality => one_of(ARG0, &PERSONALITIES, allow(), fail(libc::EPERM)),
        Verdict::SocketCall => one_of(ARG0, &UNSEEN, fail(libc::ENOSYS), allow()),
        Verdict::Clone => {
            vec![plain(LOAD, ARG0), plain(AND, NEW_NAMESPACES), jump(IF_EQUAL, 0, 0, 1), allow(), fail(libc::EPERM)]
        }
        Verdict::Socket if caps::holds(capabilities, "NET_RAW") => families(capabilities),
        Verdict::Socket => raw_icmp().into_iter().chain(families(capabilities)).collect(),
        Verdict::SocketPair => families(capabilities),
        Verdict::SocketOption => socket_option(),
        Verdict::Listen => vec![ask()],
        Verdict::Bind => vec![plain(LOAD, ARG2), jump(IF_AT_LEAST, INTERNET_ADDRESS, 1, 0), allow(), ask()],
    }
}

/// Raw ICMP sockets are for the listener to give; everything else goes on behind.
fn raw_icmp() -> Vec<Instruction> {
    let number = |value: i32| value.cast_unsigned();
    vec![
        plain(LOAD, ARG1),
        plain(AND, SOCKET_TYPE),
        jump(IF_EQUAL, number(libc::SOCK_RAW), 0, 8),
        plain(LOAD, ARG2),
        jump(IF_EQUAL, number(libc::IPPROTO_ICMP), 0, 2),
        plain(LOAD, ARG0),
        jump(IF_EQUAL, number(libc::AF_INET), 3, 4),
        jump(IF_EQUAL, number(libc::IPPROTO_ICMPV6), 0, 3),
        plain(LOAD, ARG0),
        jump(IF_EQUAL, number(libc::AF_INET6), 0, 1),
        ask(),
    ]
}

/// Any option but `IP_HDRINCL` and `IPV6_HDRINCL`.
fn socket_option() -> Vec<Instruction> {
    let number = |value: i32| value.cast_unsigned();
    vec![
        plain(LOAD, ARG1),
        jump(IF_EQUAL, number(libc::IPPROTO_IP), 0, 2),
        plain(LOAD, ARG2),
        jump(IF_EQUAL, number(libc::IP_HDRINCL), 3, 4),
        jump(IF_EQUAL, number(libc::IPPROTO_IPV6), 0, 3),
        plain(LOAD, ARG2),
        jump(IF_EQUAL, number(libc::IPV6_HDRINCL), 0, 1),
        fail(libc::EPERM),
        allow(),
    ]
}

/// Unix, internet and netlink route sockets; what else a capability brings.
fn families(capabilities: u64) -> Vec<Instruction> {
    let number = |value: i32| value.cast_unsigned();
    let mut families = vec![number(libc::AF_UNIX), number(libc::AF_INET), number(libc::AF_INET6)];
    if caps::holds(capabilities, "NET_RAW") {
        families.push(number(libc::AF_PACKET));
    }
    let mut protocols = vec![NETLINK_ROUTE];
    if caps::holds(capabilities, "AUDIT_WRITE") {
        protocols.push(NETLINK_AUDIT);
    }
    if caps::holds(capabilities, "NET_ADMIN") {
        families.push(number(libc::AF_NETLINK));
    }
    let netlink = one_of(ARG2, &protocols, allow(), fail(libc::EINVAL));
    let mut program = one_of(ARG0, &families, allow(), plain(LOAD, ARG0));
    program.push(jump(IF_EQUAL, number(libc::AF_NETLINK), 1, 0));
    program.push(fail(libc::EAFNOSUPPORT));
    program.extend(netlink);
    program
}

/// `hit` if the argument at this offset is one of the values, else `miss` and what follows. Only the lower half is
/// looked at, as these arguments are 32 bits wide.
fn one_of(offset: u32, values: &[u32], hit: Instruction, miss: Instruction) -> Vec<Instruction> {
    let mut program = vec![plain(LOAD, offset)];
    for (index, &value) in values.iter().enumerate() {
        // Over the comparisons that are left and the one jump behind them.
        let distance = u8::try_from(values.len() - index).unwrap_or(u8::MAX);
        program.push(jump(IF_EQUAL, value, distance, 0));
    }
    program.push(plain(GO, 1));
    program.push(hit);
    program.push(miss);
    program
}

fn length(program: &[Instruction]) -> u32 {
    u32::try_from(program.len()).unwrap_or(u32::MAX)
}

fn allow() -> Instruction {
    plain(RETURN, libc::SECCOMP_RET_ALLOW)
}

/// For the listener to answer.
fn ask() -> Instruction {
    plain(RETURN, libc::SECCOMP_RET_USER_NOTIF)
}

fn fail(errno: i32) -> Instruction {
    plain(RETURN, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned())
}

pub(super) fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::runtime::caps::mask;

    /// What the kernel's machine would do.
    fn verdict(program: &[Instruction], arch: u32, number: u32, [a, b, c]: [u32; 3]) -> u32 {
        verdict64(program, arch, number, [a, b, c, 0, 0, 0].map(u64::from))
    }

    /// The same with all of the arguments.
    pub(in crate::runtime::seccomp) fn verdict64(
        program: &[Instruction],
        arch: u32,
        number: u32,
        args: [u64; 6],
    ) -> u32 {
        let (mut at, mut register) = (0, 0);
        loop {
            let instruction = program[at];
            at += 1;
            match instruction.code {
                LOAD => {
                    register = match instruction.k {
                        NUMBER => number,
                        ARCH => arch,
                        offset => {
                            let argument = args[(offset as usize - 16) / 8];
                            u32::try_from(argument >> (offset % 8 * 8) & 0xffff_ffff).unwrap()
                        }
                    };
                }
                AND => register &= instruction.k,
                GO => at += instruction.k as usize,
                RETURN => return instruction.k,
                code => {
                    let yes = match code {
                        IF_EQUAL => register == instruction.k,
                        IF_ABOVE => register > instruction.k,
                        _ => register >= instruction.k,
                    };
                    at += usize::from(if yes { instruction.jt } else { instruction.jf });
                }
            }
        }
    }

    fn held(names: &[&str]) -> u64 {
        mask(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number.cast_unsigned()
    }

    #[test]
    fn the_tree_says_what_the_ranges_say() {
        for capabilities in [0, held(&["SYS_ADMIN"]), held(&["ALL"])] {
            let program = program(capabilities, false);
            for (arch, abi) in [(ARCH_X86_64, Abi::X86_64), (ARCH_I386, Abi::I386)] {
                let ranges = ranges(abi, capabilities, false);
                for number in 0..600 {
                    let (_, expected) = ranges[ranges.partition_point(|(start, _)| *start <= number) - 1];
                    let found = verdict(&program, arch, number, [0; 3]);
                    match expected {
                        Verdict::Allow => assert_eq!(found, ALLOW, "{number}"),
                        Verdict::Fail(code) => assert_eq!(found, errno(code), "{number}"),
                        _ => {}
                    }
                }
            }
        }
    }

    #[test]
    fn arguments_decide() {
        let program_of = |names: &[&str]| program(held(names), false);
        let plain = program_of(&[]);
        let socket =
            |program: &[Instruction], family, protocol| verdict(program, ARCH_X86_64, 41, [family, 1, protocol]);
        assert_eq!([1, 2, 10].map(|family| socket(&plain, family, 6)), [ALLOW; 3]);
        assert_eq!(socket(&plain, 16, 0), ALLOW);
        assert_eq!(socket(&plain, 16, 15), errno(libc::EINVAL));
        assert_eq!([17, 38, 40, 0].map(|family| socket(&plain, family, 0)), [errno(libc::EAFNOSUPPORT); 4]);
        assert_eq!(socket(&program_of(&["NET_RAW"]), 17, 0), ALLOW);
        let raw = |program: &[Instruction], family, protocol| {
            [3, 0x8_0003].map(|kind| verdict(program, ARCH_X86_64, 41, [family, kind, protocol]))
        };
        assert_eq!([raw(&plain, 2, 1), raw(&plain, 10, 58)], [[libc::SECCOMP_RET_USER_NOTIF; 2]; 2]);
        assert_eq!(
            [raw(&plain, 2, 58), raw(&plain, 10, 1), raw(&plain, 2, 255)],
            [[ALLOW; 2]; 3],
            "the kernel refuses"
        );
        assert_eq!(raw(&plain, 17, 1), [errno(libc::EAFNOSUPPORT); 2]);
        assert_eq!(raw(&program_of(&["NET_RAW"]), 2, 1), [ALLOW; 2]);
        let option = |program: &[Instruction], level, name| verdict(program, ARCH_X86_64, 54, [3, level, name]);
        assert_eq!([option(&plain, 0, 3), option(&plain, 41, 36)], [errno(libc::EPERM); 2]);
        assert_eq!([option(&plain, 1, 3), option(&plain, 0, 36), option(&plain, 41, 3)], [ALLOW; 3]);
        assert_eq!(option(&program_of(&["NET_RAW"]), 0, 3), ALLOW);
        assert_eq!(verdict(&plain, ARCH_I386, 102, [14, 0, 0]), errno(libc::ENOSYS));
        assert_eq!(socket(&program_of(&["NET_ADMIN"]), 16, 12), ALLOW);
        assert_eq!(socket(&program_of(&["AUDIT_WRITE"]), 16, 9), ALLOW);
        let clone = |flags| verdict(&plain, ARCH_X86_64, 56, [flags, 0, 0]);
        assert_eq!((clone(0x3d_0f00), clone(0x1000_0011)), (ALLOW, errno(libc::EPERM)));
        assert_eq!(verdict(&plain, ARCH_X86_64, 435, [0; 3]), errno(libc::ENOSYS));
        assert_eq!(verdict(&plain, ARCH_X86_64, 135, [8, 0, 0]), ALLOW);
        assert_eq!(verdict(&plain, ARCH_X86_64, 135, [0x40_0000, 0, 0]), errno(libc::EPERM));
        assert_eq!(verdict(&plain, ARCH_I386, 102, [1, 0, 0]), errno(libc::ENOSYS));
        assert_eq!(verdict(&plain, ARCH_I386, 102, [3, 0, 0]), ALLOW);
        assert_eq!(verdict(&plain, ARCH_X86_64, 0x4000_0000, [0; 3]), errno(libc::ENOSYS));
        assert_eq!(verdict(&plain, ARCH_X86_64, 425, [0; 3]), errno(libc::EPERM));
        assert_eq!(verdict(&plain, 0xdead, 0, [0; 3]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn who_keeps_sockets_is_asked_about_bind_and_listen() {
        let ask = libc::SECCOMP_RET_USER_NOTIF;
        let keeping = program(0, true);
        let bind = |length| verdict(&keeping, ARCH_X86_64, 49, [3, 0, length]);
        assert_eq!([bind(12), bind(16), bind(28), bind(110)], [ALLOW, ask, ask, ask]);
        assert_eq!(verdict(&keeping, ARCH_X86_64, 50, [3, 5, 0]), ask);
        assert_eq!(verdict(&keeping, ARCH_I386, 361, [3, 0, 16]), ALLOW);
        assert_eq!([49, 50].map(|number| verdict(&program(0, false), ARCH_X86_64, number, [3, 0, 16])), [ALLOW; 2]);
    }
}
