//! Whether process 1 of a container can hear a signal at all.
//!
//! The kernel drops what process 1 of a pid namespace has no handler for, SIGKILL and SIGSTOP apart. Waiting for such a
//! process to follow its stop signal is waiting for nothing.

use std::io;

use fs_err as fs;

/// What becomes of a signal that is sent to process 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hearing {
    /// It is heard, or ignored on purpose, or nothing is known.
    Heard,
    /// The kernel drops it; these children of process 1 could hear it.
    Children(Vec<i32>),
    /// The kernel drops it, and nobody else is there.
    Nobody,
}

/// Looks at process `pid`, as the host numbers it.
pub(crate) fn hearing(pid: i32, signal: i32) -> Hearing {
    if matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
        return Hearing::Heard;
    }
    let looked = (|| -> io::Result<Hearing> {
        let threads = fs::read_dir(format!("/proc/{pid}/task"))?.collect::<io::Result<Vec<_>>>()?;
        let mut children = Vec::new();
        for thread in threads {
            if takes(&fs::read_to_string(thread.path().join("status"))?, signal) {
                return Ok(Hearing::Heard);
            }
            let text = fs::read_to_string(thread.path().join("children"))?;
            children.extend(text.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
        Ok(if children.is_empty() { Hearing::Nobody } else { Hearing::Children(children) })
    })();
    // A process that vanishes meanwhile, or a kernel that doesn't tell: no reason to be hasty.
    looked.unwrap_or(Hearing::Heard)
}

/// Whether a thread of this `status` handles, ignores or collects (`sigwait`, `signalfd`) a signal, or isn't process 1
/// of a namespace.
fn takes(status: &str, signal: i32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let mask = |name| field(name).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(u64::MAX);
    // `NSpid` has the number in every namespace, the innermost last; threads other than the first have their own.
    let first = field("NStgid").and_then(|text| text.rsplit('\t').next()) == Some("1");
    let bit = 1_u64 << (signal - 1).clamp(0, 63);
    !first || [mask("SigCgt"), mask("SigIgn"), mask("SigBlk")].iter().any(|mask| mask & bit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pids: &str, blocked: u64, ignored: u64, caught: u64) -> String {
        format!("Name:\tx\nNStgid:\t{pids}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n")
    }

    #[test]
    fn only_process_1_without_a_handler_is_deaf() {
        let term = 1 << (libc::SIGTERM - 1);
        assert!(!takes(&status("77\t1", 0, 0, 0), libc::SIGTERM));
        assert!(!takes(&status("77\t1", 2, 2, 2), libc::SIGTERM));
        assert!(takes(&status("77", 0, 0, 0), libc::SIGTERM));
        assert!(takes(&status("77\t12", 0, 0, 0), libc::SIGTERM));
        for (blocked, ignored, caught) in [(term, 0, 0), (0, term, 0), (0, 0, term)] {
            assert!(takes(&status("77\t1", blocked, ignored, caught), libc::SIGTERM));
        }
    }

    #[test]
    fn what_is_gone_is_not_judged() {
        assert_eq!(hearing(i32::MAX, libc::SIGTERM), Hearing::Heard);
    }
}
