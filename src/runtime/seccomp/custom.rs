//! Profiles of users, in Docker's form: JSON with a default, and rules by call, argument, platform and capability.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::compile::{AND, IF_ABOVE, IF_AT_LEAST, IF_EQUAL, LOAD, RETURN, by_platform, plain, tree};
use super::profile::{Abi, numbers};
use crate::runtime::caps;
use crate::sys::seccomp::Instruction;

/// A profile as written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    arch_map: Vec<Architecture>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u16>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

/// When a rule applies; an absent part applies always.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// What happens to a call: rules in order, the first that holds decides.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outcome {
    rules: Vec<(Vec<Argument>, u32)>,
    otherwise: u32,
}

/// Numbers from here on are those of the x32 platform, which would pass every rule about others.
const X32: u32 = 0x4000_0000;
/// The first argument's lower half, in what a filter sees; the upper half follows.
const ARGUMENTS: u32 = 16;
/// The action that puts a call before the listener.
pub(super) const NOTIFY: &str = "SCMP_ACT_NOTIFY";
/// A jump to the end of its rule, until the distance is known.
const MISS: u8 = u8::MAX;

/// Compiles a profile for a process that may hold these capabilities.
///
/// # Errors
/// What is wrong with the profile, in words.
pub(super) fn program(text: &str, capabilities: u64) -> Result<Vec<Instruction>, String> {
    if text.contains(NOTIFY) {
        return Err(format!("the action {NOTIFY} is not supported"));
    }
    judged(text, capabilities)
}

/// As [`program`], for a filter whose listener somebody else answers.
pub(super) fn judged(text: &str, capabilities: u64) -> Result<Vec<Instruction>, String> {
    let profile: Profile = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let (native, name) = if cfg!(target_arch = "aarch64") { (Abi::Arm64, "arm64") } else { (Abi::X86_64, "amd64") };
    let mut abis = vec![native];
    let listed = profile.architectures.iter().chain(
        profile
            .arch_map
            .iter()
            .filter(|map| map.architecture == "SCMP_ARCH_X86_64")
            .flat_map(|map| map.sub_architectures.iter().flatten()),
    );
    if native == Abi::X86_64 && listed.into_iter().any(|name| name == "SCMP_ARCH_X86") {
        abis.push(Abi::I386);
    }
    let mut rules: BTreeMap<&str, Vec<(Vec<Argument>, u32)>> = BTreeMap::new();
    for rule in profile.syscalls.iter().filter(|rule| rule.applies(capabilities, name)) {
        let verdict = action(&rule.action, rule.errno_ret)?;
        let args = rule.args.clone().unwrap_or_default();
        for argument in &args {
            test(argument)?;
        }
        for name in rule.names.iter().chain(&rule.name) {
            rules.entry(name).or_default().push((args.clone(), verdict));
        }
    }
    let tables = abis.into_iter().map(|abi| {
        let ranges = ranges(abi, &rules, default);
        (abi, tree(&ranges, &|outcome: &Outcome| outcome.instructions()))
    });
    Ok(by_platform(tables.collect()))
}

fn ranges(abi: Abi, rules: &BTreeMap<&str, Vec<(Vec<Argument>, u32)>>, default: u32) -> Vec<(u32, Outcome)> {
    let numbers = numbers(abi);
    let end = numbers.keys().next_back().map_or(0, |last| last + 1);
    let always = |verdict| Outcome { rules: Vec::new(), otherwise: verdict };
    let mut ranges: Vec<(u32, Outcome)> = Vec::new();
    for number in 0..end {
        let rules = numbers.get(&number).and_then(|name| rules.get(name));
        let outcome = rules.map_or_else(|| always(default), |rules| Outcome::of(rules, default));
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((number, outcome));
        }
    }
    // Programs try what is newer than the profile, and fall back to what they used before.
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let lenient = default == libc::SECCOMP_RET_ALLOW || default == libc::SECCOMP_RET_LOG;
    ranges.push((end, always(if lenient { default } else { missing })));
    ranges.push((X32, always(missing)));
    ranges
}

impl Rule {
    fn applies(&self, capabilities: u64, platform: &str) -> bool {
        let held = |names: &Option<Vec<String>>| {
            names.iter().flatten().any(|name| caps::holds(capabilities, name.trim_start_matches("CAP_")))
        };
        let here = |names: &Option<Vec<String>>| names.iter().flatten().any(|name| name == platform);
        let empty = |names: &Option<Vec<String>>| names.as_ref().is_none_or(Vec::is_empty);
        let includes = self.includes.as_ref().is_none_or(|filter| {
            (empty(&filter.caps) || held(&filter.caps))
                && (empty(&filter.arches) || here(&filter.arches))
                && filter.min_kernel.as_deref().is_none_or(kernel_is)
        });
        let excluded = self.excludes.as_ref().is_some_and(|filter| {
            held(&filter.caps) || here(&filter.arches) || filter.min_kernel.as_deref().is_some_and(kernel_is)
        });
        includes && !excluded
    }
}

/// Whether this kernel is of a version, such as `4.8`, or later.
fn kernel_is(least: &str) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let pair = |text: &str| {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    pair(&release) >= pair(least)
}

fn action(name: &str, errno: Option<u16>) -> Result<u32, String> {
    let errno = u32::from(errno.unwrap_or(1));
    Ok(match name {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | errno,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | errno,
        NOTIFY => libc::SECCOMP_RET_USER_NOTIF,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        other => return Err(format!("the action {other} is not supported")),
    })
}

impl Outcome {
    /// A rule without arguments decides alone, as with every other compiler of such profiles.
    fn of(rules: &[(Vec<Argument>, u32)], default: u32) -> Self {
        match rules.iter().find(|(args, _)| args.is_empty()) {
            Some((_, verdict)) => Self { rules: Vec::new(), otherwise: *verdict },
            None => Self { rules: rules.to_vec(), otherwise: default },
        }
    }

    fn instructions(&self) -> Vec<Instruction> {
        let mut program = Vec::new();
        for (args, verdict) in &self.rules {
            // Checked when the profile was read.
            let mut rule: Vec<Instruction> = args.iter().filter_map(|arg| test(arg).ok()).flatten().collect();
            rule.push(plain(RETURN, *verdict));
            let end = rule.len();
            for (at, instruction) in rule.iter_mut().enumerate() {
                let distance = u8::try_from(end - at - 1).unwrap_or(MISS);
                for target in [&mut instruction.jt, &mut instruction.jf] {
                    if *target == MISS {
                        *target = distance;
                    }
                }
            }
            program.extend(rule);
        }
        program.push(plain(RETURN, self.otherwise));
        program
    }
}

/// Goes on behind itself where the argument is as asked, else to the end of the rule.
fn test(argument: &Argument) -> Result<Vec<Instruction>, String> {
    if argument.index > 5 {
        return Err(format!("a call has no argument {}", argument.index));
    }
    let low = ARGUMENTS + 8 * argument.index;
    #[expect(clippy::cast_possible_truncation, reason = "halves")]
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let (high_value, low_value) = halves(argument.value);
    let jump = |code, k, jt, jf| Instruction { code, jt, jf, k };
    let high = plain(LOAD, low + 4);
    let load_low = plain(LOAD, low);
    Ok(match argument.op.as_str() {
        "SCMP_CMP_EQ" => {
            vec![high, jump(IF_EQUAL, high_value, 0, MISS), load_low, jump(IF_EQUAL, low_value, 0, MISS)]
        }
        "SCMP_CMP_NE" => {
            vec![high, jump(IF_EQUAL, high_value, 0, 2), load_low, jump(IF_EQUAL, low_value, MISS, 0)]
        }
        "SCMP_CMP_MASKED_EQ" => {
            let (high_mask, low_mask) = (high_value, low_value);
            let (high_value, low_value) = halves(argument.value_two);
            vec![
                high,
                plain(AND, high_mask),
                jump(IF_EQUAL, high_value, 0, MISS),
                load_low,
                plain(AND, low_mask),
                jump(IF_EQUAL, low_value, 0, MISS),
            ]
        }
        op @ ("SCMP_CMP_GE" | "SCMP_CMP_GT") => {
            let last = if op == "SCMP_CMP_GE" { IF_AT_LEAST } else { IF_ABOVE };
            vec![
                high,
                jump(IF_ABOVE, high_value, 3, 0),
                jump(IF_EQUAL, high_value, 0, MISS),
                load_low,
                jump(last, low_value, 0, MISS),
            ]
        }
        op @ ("SCMP_CMP_LT" | "SCMP_CMP_LE") => {
            let last = if op == "SCMP_CMP_LT" { IF_AT_LEAST } else { IF_ABOVE };
            vec![
                high,
                jump(IF_ABOVE, high_value, MISS, 0),
                jump(IF_EQUAL, high_value, 0, 2),
                load_low,
                jump(last, low_value, MISS, 0),
            ]
        }
        other => return Err(format!("the comparison {other} is not supported")),
    })
}

#[cfg(test)]
mod tests {
    use super::super::compile::tests::verdict64;
    use super::*;

    const ARCH: u32 = 0xc000_003e;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    fn errno(number: u32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number
    }

    #[test]
    fn rules_by_name_and_capability() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
            {"names": ["read", "write", "nonsense"], "action": "SCMP_ACT_ALLOW"},
            {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["sync"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["getpid"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}}]}"#;
        let plain = program(text, 0).unwrap();
        let of = |program: &[Instruction], number| verdict64(program, ARCH, number, [0; 6]);
        assert_eq!([0, 1, 162].map(|number| of(&plain, number)), [ALLOW; 3]);
        assert_eq!(of(&plain, 83), errno(13));
        assert_eq!([2, 165, 39].map(|number| of(&plain, number)), [errno(38); 3]);
        let admin = caps::mask(&["SYS_ADMIN".to_owned()]).unwrap();
        assert_eq!(of(&program(text, admin).unwrap(), 165), ALLOW);
        assert_eq!(verdict64(&plain, 0x4000_0003, 3, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS, "i386 is not listed");
    }

    #[test]
    fn a_list_of_what_is_denied_can_not_be_passed_by_another_platform() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#;
        let program = program(text, 0).unwrap();
        assert_eq!(verdict64(&program, ARCH, 83, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(verdict64(&program, 0x4000_0003, 39, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(verdict64(&program, ARCH, 0x4000_0053, [0; 6]), errno(38));
        assert_eq!(verdict64(&program, ARCH, 9999, [0; 6]), ALLOW);
    }

    #[test]
    fn arguments_are_compared_in_full() {
        let of = |op: &str, value: u64, two: u64, argument: u64| {
            let text = format!(
                r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_ERRNO",
                "args": [{{"index": 1, "value": {value}, "valueTwo": {two}, "op": "SCMP_CMP_{op}"}}]}}]}}"#
            );
            verdict64(&program(&text, 0).unwrap(), ARCH, 0, [9, argument, 9, 9, 9, 9]) != ALLOW
        };
        let big = 7 << 32;
        for (a, b) in [(5, 5), (5, 6), (6, 5), (big, big), (big, 5), (5, big), (big | 5, big | 6), (big | 6, big | 5)] {
            assert_eq!(of("EQ", b, 0, a), a == b, "{a} == {b}");
            assert_eq!(of("NE", b, 0, a), a != b, "{a} != {b}");
            assert_eq!(of("GE", b, 0, a), a >= b, "{a} >= {b}");
            assert_eq!(of("GT", b, 0, a), a > b, "{a} > {b}");
            assert_eq!(of("LE", b, 0, a), a <= b, "{a} <= {b}");
            assert_eq!(of("LT", b, 0, a), a < b, "{a} < {b}");
            assert_eq!(of("MASKED_EQ", big | 4, b, a), a & (big | 4) == b, "{a} masked {b}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("{", "EOF"),
            ("{}", "defaultAction"),
            (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
            (
                r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL",
                "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
                "argument 6",
            ),
        ] {
            let error = program(text, 0).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }
}
