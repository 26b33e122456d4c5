//! Which devices a group may touch: as lines for the v1 controller, as a program for the unified hierarchy.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use crate::runtime::device::{Device, DeviceKind, DeviceRule};
use crate::sys::bpf::{self, Instruction};

/// Devices that every container may use; making nodes needs a capability beside.
const STANDARD: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Everything that a container may touch: the standard devices, those that it got, and what it was allowed beside.
pub(super) fn allowed(devices: &[Device], beside: &[DeviceRule]) -> Vec<DeviceRule> {
    let standard = STANDARD.iter().filter_map(|rule| DeviceRule::parse(rule));
    standard.chain(devices.iter().map(DeviceRule::from)).chain(beside.iter().cloned()).collect()
}

/// Lets only what the rules allow pass in a group of the unified hierarchy.
pub(super) fn filter(group: BorrowedFd<'_>, rules: &[DeviceRule]) -> io::Result<()> {
    bpf::attach_device_filter(group, bpf::load_device_filter(&program(rules))?.as_fd())
}

/// The same by rules that allow or deny, of which the last that fits decides.
pub(super) fn filter_ordered(group: BorrowedFd<'_>, rules: &[(bool, DeviceRule)]) -> io::Result<()> {
    bpf::attach_device_filter(group, bpf::load_device_filter(&ordered_program(rules))?.as_fd())
}

/// What all rules grant is gathered per set of devices, from the last rule that covers the set on; what a later rule
/// denies of it is denied first.
fn ordered_program(rules: &[(bool, DeviceRule)]) -> Vec<Instruction> {
    let all = |rule: &DeviceRule| rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none();
    let start = rules.iter().rposition(|(_, rule)| all(rule) && rule.permissions.len() == 3).unwrap_or(0);
    let open = rules.get(start).is_none_or(|(allow, rule)| *allow && all(rule));
    let (denied, allowed): (Vec<_>, Vec<_>) = rules[start..].iter().partition(|(allow, _)| !allow);
    let only = |picked: Vec<&(bool, DeviceRule)>| picked.into_iter().map(|(_, rule)| rule.clone()).collect::<Vec<_>>();
    if !open {
        return program(&only(allowed));
    }
    let mut code = head();
    for rule in &only(denied) {
        let mut tests = vec![copy(SCRATCH, ACCESS), with(0x54, SCRATCH, bits(rule)), jump_if(SCRATCH, 0)];
        tests.extend(place(rule));
        append(&mut code, tests, 0);
    }
    code.extend(answer(1));
    code
}

const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The kernel hands over `{ access << 16 | kind, major, minor }` in register 1 and takes 1 in register 0 for yes.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = head();
    for (rule, granted) in merged(rules) {
        // Nothing may be asked for beside what is granted.
        let mut tests = vec![copy(SCRATCH, ACCESS), with(0x54, SCRATCH, !granted), unless(SCRATCH, 0)];
        tests.extend(place(rule));
        append(&mut code, tests, 1);
    }
    code.extend(answer(0));
    code
}

/// Takes apart what the kernel hands over.
fn head() -> Vec<Instruction> {
    vec![
        load(ACCESS, 0),
        copy(KIND, ACCESS),
        with(0x54, KIND, 0xffff),
        with(0x74, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ]
}

/// The tests for the devices of a rule.
fn place(rule: &DeviceRule) -> Vec<Instruction> {
    let kind = rule.kind.map(|kind| unless(KIND, if kind == DeviceKind::Block { 1 } else { 2 }));
    let numbers = [(MAJOR, rule.major), (MINOR, rule.minor)];
    let numbers = numbers.into_iter().filter_map(|(register, n)| n.map(|n| unless(register, n.cast_signed())));
    kind.into_iter().chain(numbers).collect()
}

/// Appends tests with the answer where all of them hold; one that fails jumps over the rest and the answer.
fn append(code: &mut Vec<Instruction>, tests: Vec<Instruction>, verdict: i32) {
    let length = tests.len();
    for (at, test) in tests.into_iter().enumerate() {
        let jump = i16::try_from(length - at + 1).unwrap_or(i16::MAX);
        code.push(if test.code == UNLESS || test.code == IF { Instruction { offset: jump, ..test } } else { test });
    }
    code.extend(answer(verdict));
}

fn bits(rule: &DeviceRule) -> i32 {
    let bit = |letter, bit| if rule.permissions.contains(letter) { bit } else { 0 };
    bit('m', 1) | bit('r', 2) | bit('w', 4)
}

/// Rules for the same devices are one, so that reading and writing allowed by two of them is allowed at once.
fn merged(rules: &[DeviceRule]) -> Vec<(&DeviceRule, i32)> {
    let mut merged: Vec<(&DeviceRule, i32)> = Vec::new();
    for rule in rules {
        let same = |other: &DeviceRule| (other.kind, other.major, other.minor) == (rule.kind, rule.major, rule.minor);
        match merged.iter_mut().find(|(other, _)| same(other)) {
            Some((_, granted)) => *granted |= bits(rule),
            None => merged.push((rule, bits(rule))),
        }
    }
    // A rule for all of a kind of device grants that to each single one, too.
    let covers = |wide: &DeviceRule, rule: &DeviceRule| {
        (wide.kind.is_none() || wide.kind == rule.kind)
            && (wide.major.is_none() || wide.major == rule.major)
            && (wide.minor.is_none() || wide.minor == rule.minor)
    };
    let wide = merged.clone();
    for (rule, granted) in &mut merged {
        let more = wide.iter().filter(|(other, _)| covers(other, rule)).map(|(_, bits)| bits);
        *granted = more.fold(*granted, |all, bits| all | bits);
    }
    merged
}

const UNLESS: u8 = 0x55;
const IF: u8 = 0x15;

/// `register = *(u32 *)(context + offset)`.
fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: 0x61, registers: register | 1 << 4, offset, immediate: 0 }
}

/// `to = from`, 32 bits.
fn copy(to: u8, from: u8) -> Instruction {
    Instruction { code: 0xbc, registers: to | from << 4, offset: 0, immediate: 0 }
}

/// `register = register op immediate`, 32 bits: 0x54 is `and`, 0x74 a shift to the right, 0xb4 the value itself.
fn with(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

/// Jumps unless the register has this value.
fn unless(register: u8, value: i32) -> Instruction {
    Instruction { code: UNLESS, registers: register, offset: 0, immediate: value }
}

/// Jumps if the register has this value.
fn jump_if(register: u8, value: i32) -> Instruction {
    Instruction { code: IF, ..unless(register, value) }
}

/// Returns a number.
fn answer(value: i32) -> [Instruction; 2] {
    [with(0xb4, 0, value), Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel does; only what [`program`] uses.
    fn run(code: &[Instruction], access: u32, kind: u32, major: u32, minor: u32) -> u32 {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0_u32; 10], 0);
        loop {
            let Instruction { code: operation, registers: pair, offset, immediate } = code[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let value = immediate.cast_unsigned();
            at += 1;
            match operation {
                0x61 => registers[to] = context[usize::try_from(offset).unwrap() / 4],
                0xbc => registers[to] = registers[from],
                0x54 => registers[to] &= value,
                0x74 => registers[to] >>= value,
                0xb4 => registers[to] = value,
                UNLESS if registers[to] != value => at += usize::try_from(offset).unwrap(),
                IF if registers[to] == value => at += usize::try_from(offset).unwrap(),
                UNLESS | IF => {}
                0x95 => return registers[0],
                other => panic!("operation {other:#x}"),
            }
        }
    }

    #[test]
    fn only_what_is_allowed_passes() {
        let rules = ["c 10:200 r", "c 10:200 w", "b 8:* r", "a 250:* rwm"].map(|rule| DeviceRule::parse(rule).unwrap());
        let code = program(&allowed(&[], &rules));
        let (block, character) = (1, 2);
        let (make, read, write) = (1, 2, 4);
        for (access, kind, major, minor, expected) in [
            (read | write, character, 1, 3, 1),
            (make, character, 99, 99, 1),
            (read, character, 1, 1, 0),
            (read | write, character, 10, 200, 1),
            (make | read | write, character, 10, 200, 1),
            (read, character, 10, 201, 0),
            (read, block, 8, 16, 1),
            (write, block, 8, 16, 0),
            (read | write, block, 8, 16, 0),
            (read | write, block, 250, 1, 1),
            (write, character, 250, 7, 1),
            (read, character, 136, 5, 1),
            (read, block, 136, 5, 0),
        ] {
            assert_eq!(run(&code, access, kind, major, minor), expected, "{access} {kind} {major}:{minor}");
        }
        assert_eq!(run(&program(&[]), read, character, 1, 3), 0);
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules = |lines: &[(bool, &str)]| -> Vec<(bool, DeviceRule)> {
            lines.iter().map(|(allow, rule)| (*allow, DeviceRule::parse(rule).unwrap())).collect()
        };
        let (character, read, write) = (2, 2, 4);
        let closed = ordered_program(&rules(&[(false, "a *:* rwm"), (true, "c 10:200 r")]));
        assert_eq!(run(&closed, read, character, 10, 200), 1);
        assert_eq!(run(&closed, write, character, 10, 200), 0);
        let open = ordered_program(&rules(&[(true, "a *:* rwm"), (false, "c 10:200 w")]));
        assert_eq!(run(&open, read, character, 10, 200), 1);
        assert_eq!(run(&open, read | write, character, 10, 200), 0);
        assert_eq!(run(&open, write, character, 10, 201), 1);
    }

    #[test]
    fn the_kernel_takes_the_program_and_obeys_it() {
        let Some(unified) = crate::runtime::cgroup::Layout::detect().unwrap().unified else {
            println!("not tried: no unified hierarchy of control groups is mounted");
            return;
        };
        let folder = unified.mount.join(format!("stack-test-devices-{}", std::process::id()));
        fs_err::create_dir(&folder).unwrap();
        let group = super::super::open(&folder).unwrap();
        filter(group.as_fd(), &[DeviceRule::parse("c 1:3 w").unwrap()]).unwrap();
        let script = "read line; echo x 2>&- > /dev/null && echo null; echo x 2>&- > /dev/zero || echo denied";
        let mut child = std::process::Command::new("/bin/sh");
        child.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = child.spawn().unwrap();
        fs_err::write(folder.join("cgroup.procs"), child.id().to_string()).unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"go\n").unwrap();
        let output = child.wait_with_output().unwrap();
        fs_err::remove_dir(&folder).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "null\ndenied\n");
    }
}
