//! `user[:group]` of --chown and USER, by number or by the names that the image knows.

use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::OFlags;

use super::error::{Error, Problem};
use crate::sys::path::open_in_root;

/// Longest passwd or group file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The numbers of an owner as written; names are looked up below `root`.
pub(crate) fn owner(root: BorrowedFd<'_>, text: &str) -> Result<(u32, u32), Error> {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let (uid, own_group) = match user.parse::<u32>() {
        Ok(uid) => (uid, uid),
        Err(_) if user.is_empty() => (0, 0),
        Err(_) => {
            let fields = line(root, "etc/passwd", user)?.ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
            let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok());
            let uid = number(2).ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
            (uid, number(3).unwrap_or(uid))
        }
    };
    let gid = match group.filter(|group| !group.is_empty()) {
        None => own_group,
        Some(group) => {
            if let Ok(gid) = group.parse() {
                return Ok((uid, gid));
            }
            let fields = line(root, "etc/group", group)?;
            let gid = fields.and_then(|fields| fields.get(2).and_then(|field| field.parse().ok()));
            gid.ok_or_else(|| unknown("group", group, "/etc/group"))?
        }
    };
    Ok((uid, gid))
}

fn unknown(kind: &str, name: &str, file: &str) -> Problem {
    let hint = format!("make it by a RUN before this line, or give its number; {file} of this stage doesn't have it");
    Problem::new(format!("the image has no {kind} `{name}`")).hint(hint)
}

/// The fields of the line that starts with `name`; None if there is no such line or file.
fn line(root: BorrowedFd<'_>, path: &str, name: &str) -> Result<Option<Vec<String>>, Error> {
    let Ok(file) = open_in_root(root, Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) else { return Ok(None) };
    let mut text = Vec::new();
    let read = std::fs::File::from(file).take(MAX_FILE).read_to_end(&mut text);
    read.map_err(Error::io("read", Path::new("/").join(path)))?;
    let text = String::from_utf8_lossy(&text);
    let found = text.lines().find(|line| line.split(':').next() == Some(name));
    Ok(found.map(|line| line.split(':').map(str::to_owned).collect()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn names_and_numbers() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir(folder.path().join("etc")).unwrap();
        fs_err::write(folder.path().join("etc/passwd"), "root:x:0:0::/:\napp:x:1000:1001::/:\n").unwrap();
        fs_err::write(folder.path().join("etc/group"), "extra:x:2000:\n").unwrap();
        let root = rustix::fs::open(folder.path(), OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let of = |text: &str| owner(root.as_fd(), text).map_err(|e| e.to_string());
        assert_eq!(of("app"), Ok((1000, 1001)));
        assert_eq!(of("app:extra"), Ok((1000, 2000)));
        assert_eq!(of("7"), Ok((7, 7)));
        assert_eq!(of("7:8"), Ok((7, 8)));
        assert!(of("nobody").unwrap_err().contains("no user `nobody`"));
        assert!(of("app:nogroup").unwrap_err().contains("no group"));
    }
}
