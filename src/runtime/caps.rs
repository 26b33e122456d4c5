//! Capabilities by name.

use super::error::Error;

/// Every capability in the kernel's order, so that the index is its number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container's root holds unless asked otherwise: Docker's without `NET_RAW`, `MKNOD` and `AUDIT_WRITE`.
pub const DEFAULT: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
];

/// The set after `cap_add` and `cap_drop` (`CAP_` optional, any case, `ALL` allowed), in the kernel's order.
pub fn effective(add: &[String], drop: &[String], privileged: bool) -> Result<Vec<String>, Error> {
    let mut held: u64 = if privileged { mask_of_all() } else { DEFAULT.iter().filter_map(|name| bit(name)).sum() };
    let (added, dropped) = (mask(add)?, mask(drop)?);
    // An ALL on one side is refined by the names on the other.
    held = if is_all(drop) && !privileged { 0 } else { held };
    held = if is_all(add) { mask_of_all() & !named(drop)? } else { (held & !dropped) | added };
    if is_all(drop) && is_all(add) {
        held = named(add)?;
    }
    Ok(ALL.iter().enumerate().filter(|(n, _)| held & (1 << n) != 0).map(|(_, name)| (*name).to_owned()).collect())
}

/// Every name with its prefix, in the kernel's order.
pub(crate) fn names() -> Vec<String> {
    ALL.iter().map(|name| format!("CAP_{name}")).collect()
}

/// The bits of a list of names.
pub(crate) fn mask(names: &[String]) -> Result<u64, Error> {
    names.iter().try_fold(0, |held, name| match canonical(name).as_str() {
        "ALL" => Ok(held | mask_of_all()),
        short => bit(short).map(|bit| held | bit).ok_or_else(|| Error::Capability(name.clone())),
    })
}

/// Whether the bits hold a capability, given by its canonical name.
pub(crate) fn holds(mask: u64, name: &str) -> bool {
    bit(name).is_some_and(|bit| mask & bit != 0)
}

fn named(names: &[String]) -> Result<u64, Error> {
    mask(&names.iter().filter(|name| canonical(name) != "ALL").cloned().collect::<Vec<_>>())
}

fn is_all(names: &[String]) -> bool {
    names.iter().any(|name| canonical(name) == "ALL")
}

fn canonical(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map(str::to_owned).unwrap_or(upper)
}

fn bit(short: &str) -> Option<u64> {
    ALL.iter().position(|name| *name == short).map(|number| 1 << number)
}

fn mask_of_all() -> u64 {
    (1 << ALL.len()) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        effective(&owned(add), &owned(drop), false).unwrap()
    }

    #[test]
    fn adding_and_dropping() {
        assert_eq!(of(&[], &[]).len(), DEFAULT.len());
        assert!(of(&["cap_net_admin"], &[]).contains(&"NET_ADMIN".to_owned()));
        assert!(!of(&[], &["CHOWN"]).contains(&"CHOWN".to_owned()));
        assert_eq!(of(&["KILL"], &["ALL"]), ["KILL"]);
        assert_eq!(of(&["ALL"], &["SYS_ADMIN"]).len(), ALL.len() - 1);
        assert_eq!(of(&[], &["all"]), Vec::<String>::new());
        assert!(effective(&["FLY".to_owned()], &[], false).is_err());
        assert_eq!(effective(&[], &[], true).unwrap().len(), ALL.len());
    }
}
