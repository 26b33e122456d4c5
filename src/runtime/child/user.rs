//! Who a process runs as: Docker's `user[:group]` against the container's own passwd and group files.
//!
//! All digits are a number, never a name; numbers above 2^31-1 are refused; nothing falls back to root.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use crate::runtime::error::LaunchError;
use crate::sys::path;

/// Larger files are refused.
const MAX_FILE: u64 = 16 << 20;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Looks `user` and the additional `groups` up in the tree at `root`.
pub(crate) fn resolve(root: BorrowedFd<'_>, user: &str, groups: &[String]) -> Result<User, LaunchError> {
    let passwd = read(root, "/etc/passwd").map_err(|e| LaunchError::new("read /etc/passwd", e))?;
    let group = read(root, "/etc/group").map_err(|e| LaunchError::new("read /etc/group", e))?;
    resolve_in(&passwd, &group, user, groups).map_err(|reason| LaunchError::refused(format!("user {user:?}"), reason))
}

fn resolve_in(passwd: &str, group: &str, user: &str, groups: &[String]) -> Result<User, String> {
    let (name, group_name) = match user.split_once(':') {
        Some((_, group)) if group.is_empty() || group.contains(':') => {
            return Err("not of the form user[:group]".into());
        }
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let (uid, entry) = match number(name)? {
        Some(uid) => (uid, entries(passwd).find(|fields| field_number(fields, 2) == Some(uid))),
        None if name.is_empty() => (0, entries(passwd).find(|fields| field_number(fields, 2) == Some(0))),
        None => {
            let entry = entries(passwd).find(|fields| fields[0] == name);
            let entry = entry.ok_or_else(|| format!("no user `{name}` in /etc/passwd of the image"))?;
            (field_number(&entry, 2).ok_or_else(|| format!("the entry of `{name}` has no valid uid"))?, Some(entry))
        }
    };
    let own = entry.as_ref().map_or("", |fields| fields[0]);
    let gid = match group_name {
        Some(name) => group_number(group, name)?,
        None => match &entry {
            Some(fields) => field_number(fields, 3).ok_or_else(|| format!("the entry of `{own}` has no valid gid"))?,
            None => 0,
        },
    };
    let mut supplementary = BTreeSet::new();
    // An explicit group stands alone, as in Docker.
    if group_name.is_none() && !own.is_empty() {
        let member = |fields: &Vec<&str>| fields.get(3).is_some_and(|names| names.split(',').any(|name| name == own));
        supplementary.extend(entries(group).filter(member).filter_map(|fields| field_number(&fields, 2)));
    }
    for name in groups {
        supplementary.insert(group_number(group, name)?);
    }
    let home = entry.as_ref().and_then(|fields| fields.get(5)).filter(|home| !home.is_empty()).unwrap_or(&"/");
    Ok(User { uid, gid, groups: supplementary.into_iter().collect(), home: (*home).to_owned() })
}

fn group_number(group: &str, name: &str) -> Result<u32, String> {
    if let Some(gid) = number(name)? {
        return Ok(gid);
    }
    entries(group)
        .find(|fields| fields[0] == name)
        .and_then(|fields| field_number(&fields, 2))
        .ok_or_else(|| format!("no group `{name}` in /etc/group of the image"))
}

/// A number if the text is all digits.
fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse::<u32>() {
        Ok(value) if value <= i32::MAX.cast_unsigned() => Ok(Some(value)),
        _ => Err(format!("{text} is larger than {}", i32::MAX)),
    }
}

fn entries(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let whole = |line: &&str| !line.is_empty() && !line.starts_with('#');
    text.lines()
        .filter(whole)
        .map(|line| line.split(':').map(str::trim).collect::<Vec<_>>())
        .filter(|fields: &Vec<&str>| fields.len() >= 3 && !fields[0].is_empty())
}

fn field_number(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index).and_then(|text| number(text).ok().flatten())
}

/// A small regular file of the container; empty if there is none.
fn read(root: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let file = match path::open_in_root(root, Path::new(name), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(String::new());
        }
        Err(e) => return Err(e),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n4294967296:x:0:0::/:/bin/sh\n77:x:0:0::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nadm:x:4:web,other\nvideo:x:44:\n";

    fn of(user: &str, groups: &[&str]) -> Result<User, String> {
        resolve_in(PASSWD, GROUP, user, &groups.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
    }

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> User {
        User { uid, gid, groups: groups.to_vec(), home: home.to_owned() }
    }

    #[test]
    fn names_and_numbers() {
        let table = [
            ("", user(0, 0, &[], "/root")),
            ("root", user(0, 0, &[], "/root")),
            ("0", user(0, 0, &[], "/root")),
            ("00", user(0, 0, &[], "/root")),
            ("web", user(33, 33, &[4], "/var/www")),
            ("33", user(33, 33, &[4], "/var/www")),
            ("033", user(33, 33, &[4], "/var/www")),
            ("web:video", user(33, 44, &[], "/var/www")),
            ("web:0", user(33, 0, &[], "/var/www")),
            ("1234", user(1234, 0, &[], "/")),
            ("1234:5678", user(1234, 5678, &[], "/")),
            ("77", user(77, 0, &[], "/")),
            (":adm", user(0, 4, &[], "/root")),
            ("2147483647", user(2_147_483_647, 0, &[], "/")),
        ];
        for (text, expected) in table {
            assert_eq!(of(text, &[]).as_ref(), Ok(&expected), "{text:?}");
        }
        assert_eq!(of("web", &["video", "7"]).unwrap().groups, [4, 7, 44]);
    }

    #[test]
    fn what_is_refused() {
        let table = [
            "4294967296",
            "4294967295",
            "2147483648",
            "99999999999999999999",
            "nobody",
            "web:nobody",
            "web:",
            ":",
            "-1",
            "+1",
            "0x0",
            "1e3",
            "web:video:adm",
            "0:4294967296",
            " root",
            "root ",
            "web:-1",
            "root\n",
        ];
        for text in table {
            assert!(of(text, &[]).is_err(), "{text:?} must not resolve, got {:?}", of(text, &[]));
        }
        assert!(of("root", &["4294967296"]).is_err());
        assert!(of("root", &["nope"]).is_err());
    }
}
