//! Filters of bundles: the section `linux.seccomp` of `config.json`.

use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use super::custom;
use crate::sys::seccomp::{Instruction, Listener, load_flagged};

/// Flags by name.
pub(crate) const FLAGS: [(&str, libc::c_ulong); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", libc::SECCOMP_FILTER_FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
];

/// What a bundle's section says beside the rules.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Section {
    default_action: String,
    flags: Vec<String>,
    listener_path: Option<PathBuf>,
    listener_metadata: String,
    syscalls: Vec<Call>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Call {
    names: Vec<String>,
    action: String,
}

/// A compiled filter of a bundle.
#[derive(Debug)]
pub(crate) struct Bundled {
    program: Vec<Instruction>,
    flags: libc::c_ulong,
    /// Where the listener goes.
    pub(crate) listener_path: Option<PathBuf>,
    /// What goes with it.
    pub(crate) listener_metadata: String,
}

impl Bundled {
    /// Compiles a section.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(crate) fn compile(section: &Value) -> Result<Self, String> {
        let read: Section = serde_json::from_value(section.clone()).map_err(|e| e.to_string())?;
        let program = custom::judged(&section.to_string(), 0)?;
        let mut flags = read.flags.iter().try_fold(0, |bits, name| {
            let known = FLAGS.iter().find(|(known, _)| known == name);
            known.map(|(_, bit)| bits | bit).ok_or_else(|| format!("the flag {name} is not supported"))
        })?;
        let notifies = |call: &&Call| call.action == custom::NOTIFY;
        if read.default_action == custom::NOTIFY {
            return Err(format!("{} can't be the default action", custom::NOTIFY));
        }
        let asked: Vec<&Call> = read.syscalls.iter().filter(notifies).collect();
        // The listener itself is handed over by these.
        if asked.iter().any(|call| call.names.iter().any(|name| name == "sendmsg" || name == "write")) {
            return Err(format!("{} is not possible for sendmsg and write", custom::NOTIFY));
        }
        if asked.is_empty() {
            flags &= !libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
        } else if read.listener_path.is_none() {
            return Err(format!("{} needs a listenerPath", custom::NOTIFY));
        } else {
            flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
            if flags & libc::SECCOMP_FILTER_FLAG_TSYNC != 0 {
                // There is one thread; both together would need a third flag.
                flags &= !libc::SECCOMP_FILTER_FLAG_TSYNC;
            }
        }
        Ok(Self { program, flags, listener_path: read.listener_path, listener_metadata: read.listener_metadata })
    }

    /// Puts the caller under the filter; gives the listener, if some calls are for one.
    pub(crate) fn load(&self) -> io::Result<Option<Listener>> {
        load_flagged(&self.program, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sections_are_read_and_faults_named() {
        let notify = |name| {
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x",
                "syscalls": [{ "names": [name], "action": "SCMP_ACT_NOTIFY" }] })
        };
        let filter = Bundled::compile(&notify("getcwd")).unwrap();
        assert_eq!(filter.flags, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        assert!(Bundled::compile(&notify("sendmsg")).unwrap_err().contains("sendmsg"));
        let flags = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"] });
        assert_eq!(Bundled::compile(&flags).unwrap().flags, libc::SECCOMP_FILTER_FLAG_LOG);
        let unknown = json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"] });
        assert!(Bundled::compile(&unknown).is_err());
    }
}
