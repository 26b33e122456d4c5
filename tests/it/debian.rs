//! Debian's root file system, made by Debian's own tool on this machine and kept in the user's cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use stack::images::Digest;

/// The tool, what it is asked for, and how the result differs from a plain system: as in Debian's own images no package
/// starts a service while it is installed, and `dpkg` doesn't wait for the disk.
const RECIPE: [&str; 4] = [
    "--variant=minbase",
    "--dpkgopt=force-unsafe-io",
    r#"--customize-hook=printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d""#,
    "bookworm",
];

/// The folder below the user's cache for what tests keep from run to run.
pub(crate) fn cache() -> PathBuf {
    let folder = std::env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").expect("a home")).join(".cache"));
    let folder = folder.join("stack-tests");
    fs_err::create_dir_all(&folder).unwrap();
    folder
}

/// `debian:bookworm` as a tar, from this machine's mirror; made if the cache doesn't have it. Call it where that mirror
/// can be reached.
pub(crate) fn bookworm() -> PathBuf {
    let sources = PathBuf::from("/etc/apt/sources.list.d/debian.sources");
    let sources = Some(sources).filter(|path| path.exists());
    let mut key = RECIPE.concat();
    key.extend(sources.iter().map(|path| fs_err::read_to_string(path).unwrap()));
    let name = format!("bookworm-{}.tar", &Digest::of(key.as_bytes()).hex()[..16]);
    let path = cache().join(&name);
    if !path.exists() {
        let part = tempfile::Builder::new().prefix(".").suffix(&name).tempdir_in(cache()).unwrap();
        let made = part.path().join("root.tar");
        let ran = Command::new("mmdebstrap").args(RECIPE).arg(&made).args(&sources).output();
        let ran = ran.expect("the Debian package mmdebstrap");
        assert!(ran.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&ran.stderr));
        fs_err::rename(made, &path).unwrap();
    }
    path
}
