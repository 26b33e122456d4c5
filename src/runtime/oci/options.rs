//! What a mount's options mean.

use crate::sys::mount;

/// `MOUNT_ATTR_*` that libc lacks on some platforms, or that are a mask.
const ATIME: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Options that change a mount: name, bits to set, bits to clear. With an `r` before it, all below is changed, too.
const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", mount::READ_ONLY, 0),
    ("rw", 0, mount::READ_ONLY),
    ("nosuid", mount::NOSUID, 0),
    ("suid", 0, mount::NOSUID),
    ("nodev", mount::NODEV, 0),
    ("dev", 0, mount::NODEV),
    ("noexec", mount::NOEXEC, 0),
    ("exec", 0, mount::NOEXEC),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
    ("relatime", 0, ATIME),
    ("atime", 0, ATIME),
    ("noatime", NOATIME, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", 0, ATIME),
];

/// Options without a meaning here: defaults, and what is no business of a mount.
const NOTHING: [&str; 10] =
    ["defaults", "async", "nomand", "nolazytime", "loud", "silent", "iversion", "noiversion", "acl", "noacl"];

/// Kinds of propagation, with the flag of mount(2) for each.
const PROPAGATIONS: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// Attributes to set and to clear.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) set: u64,
    pub(crate) clear: u64,
}

impl Change {
    fn add(&mut self, set: u64, clear: u64) {
        self.set = self.set & !clear | set;
        self.clear |= clear & (ATIME | !set);
        self.clear &= ATIME | !self.set;
    }

    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What a kind of propagation covers: `MS_*`, and whether all below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Propagation {
    pub(crate) flag: u64,
    pub(crate) recursive: bool,
}

impl Propagation {
    /// Reads `private`, `rslave` and so on.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let find = |name: &str| PROPAGATIONS.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag);
        match find(name) {
            Some(flag) => Some(Self { flag, recursive: false }),
            None => name.strip_prefix('r').and_then(find).map(|flag| Self { flag, recursive: true }),
        }
    }
}

/// The options of a mount, understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// A copy of a tree; whether with all below.
    pub(crate) bind: Option<bool>,
    pub(crate) remount: bool,
    /// Of the mount itself.
    pub(crate) own: Change,
    /// Of the mount and all below.
    pub(crate) all: Change,
    pub(crate) propagation: Vec<Propagation>,
    /// A file system in memory begins with what it covers.
    pub(crate) copies_up: bool,
    /// Owners are shown by a map; whether all below, too.
    pub(crate) mapped: Option<bool>,
    /// What the file system itself gets.
    pub(crate) data: Vec<(String, Option<String>)>,
}

impl Options {
    pub(crate) fn parse(options: &[String]) -> Self {
        let mut found = Self::default();
        for option in options {
            found.take(option);
        }
        found
    }

    fn take(&mut self, option: &str) {
        let attribute = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        match option {
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => self.remount = true,
            "tmpcopyup" => self.copies_up = true,
            "idmap" => self.mapped = Some(self.mapped.unwrap_or(false)),
            "ridmap" => self.mapped = Some(true),
            // Not to say which it is means to say that it is not that one.
            "norelatime" => self.own.add(STRICTATIME, ATIME),
            "rnorelatime" => self.all.add(STRICTATIME, ATIME),
            name if NOTHING.contains(&name) => {}
            name => {
                if let Some(propagation) = Propagation::parse(name) {
                    self.propagation.push(propagation);
                } else if let Some((_, set, clear)) = attribute(name) {
                    self.own.add(*set, *clear);
                } else if let Some((_, set, clear)) = name.strip_prefix('r').and_then(attribute) {
                    self.all.add(*set, *clear);
                } else {
                    let (key, value) = name.split_once('=').map_or((name, None), |(key, value)| (key, Some(value)));
                    self.data.push((key.to_owned(), value.map(str::to_owned)));
                }
            }
        }
    }
}

/// Every option that is understood, for `features`.
pub(super) fn known() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().map(|(name, ..)| *name).chain(["norelatime"]);
    let recursive = attributes.clone().map(|name| format!("r{name}"));
    let propagations = PROPAGATIONS.iter().flat_map(|(name, _)| [(*name).to_owned(), format!("r{name}")]);
    let others = ["bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap", "sync", "dirsync", "mand", "lazytime"];
    let plain = attributes.chain(others).chain(NOTHING).map(str::to_owned);
    let mut all: Vec<String> = plain.chain(recursive).chain(propagations).collect();
    all.sort_unstable();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Options {
        Options::parse(&options.iter().map(|&option| option.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn attributes_and_data_are_told_apart() {
        let options = of(&["nosuid", "rro", "mode=755", "noswap", "rbind", "rslave"]);
        assert_eq!(options.own, Change { set: mount::NOSUID, clear: 0 });
        assert_eq!(options.all, Change { set: mount::READ_ONLY, clear: 0 });
        assert_eq!(options.data, [("mode".into(), Some("755".into())), ("noswap".into(), None)]);
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.propagation, [Propagation { flag: libc::MS_SLAVE, recursive: true }]);
    }

    #[test]
    fn the_last_of_a_pair_wins() {
        assert_eq!(of(&["ro", "rw"]).own, Change { set: 0, clear: mount::READ_ONLY });
        assert_eq!(of(&["rw", "ro"]).own, Change { set: mount::READ_ONLY, clear: 0 });
        assert_eq!(of(&["noatime", "strictatime"]).own, Change { set: STRICTATIME, clear: ATIME });
    }
}
