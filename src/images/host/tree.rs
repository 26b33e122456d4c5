//! The made tree: links into `/usr`, a small `/etc`, empty directories. Made once per state of the machine's files that it
//! takes over, and kept among the layers.

use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::etc;
use crate::images::error::{Doing as _, Error};
use crate::images::store::Inner;
use crate::images::{Digest, unsynced};

/// Raised when what is made changes.
const VERSION: u32 = 1;

/// The links that take the place of directories where `/usr` is merged.
const MERGED: [&str; 7] = ["bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"];

/// Files taken over as they are: caches and lists that hold nothing of the machine's own.
const TAKEN: [&str; 4] = ["ld.so.cache", "services", "protocols", "mime.types"];

/// Where distributions keep the certificates of authorities, all in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Empty directories, with their modes.
const DIRECTORIES: [(&str, u32); 24] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("etc/alternatives", 0o755),
    ("etc/ssl", 0o755),
    ("etc/ssl/certs", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("run/lock", 0o1777),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// Names of made trees among the layers start with this.
pub(in crate::images) const PREFIX: &str = "host-";

impl Inner {
    /// The made tree as the machine is now.
    pub(in crate::images) fn host_tree(&self) -> Result<PathBuf, Error> {
        let name = name();
        let path = self.layers.join(&name);
        if !unsynced::is_whole(&path) {
            let aside = self.layers.join(format!(".aside-{name}"));
            self.make_snapshot(&name, |_| fill(&aside).doing(|| "making the tree of stack/host".to_owned()))?;
        }
        Ok(path)
    }
}

/// The name of the tree for the machine as it is now. What is looked at changes its time whenever it is written.
pub(in crate::images) fn name() -> String {
    let mut inputs = format!("{VERSION}\n");
    let taken = TAKEN.iter().map(|name| format!("/etc/{name}"));
    let others = ["/etc/localtime", "/etc/alternatives", "/etc/ssl/certs"].map(str::to_owned);
    let merged = MERGED.iter().map(|name| format!("/{name}"));
    for path in taken.chain(others).chain(merged).chain(BUNDLES.map(str::to_owned)) {
        let stamp = fs::symlink_metadata(&path)
            .map(|file| format!("{} {} {}.{}", file.ino(), file.size(), file.mtime(), file.mtime_nsec()));
        inputs.extend([path.as_str(), " ", &stamp.unwrap_or_default(), "\n"]);
    }
    format!("{PREFIX}{}", Digest::of(inputs.as_bytes()).hex())
}

/// Fills an empty directory that nobody else knows.
fn fill(root: &Path) -> io::Result<()> {
    for (name, mode) in DIRECTORIES {
        let path = root.join(name);
        fs::create_dir(&path)?;
        set_mode(&path, mode)?;
    }
    for name in MERGED {
        if let Ok(target) = fs::read_link(Path::new("/").join(name))
            && (target.starts_with("usr") || target.starts_with("/usr"))
        {
            symlink(target, root.join(name))?;
        }
    }
    symlink("/run", root.join("var/run"))?;
    symlink("/run/lock", root.join("var/lock"))?;
    fill_etc(&root.join("etc"))
}

fn fill_etc(etc: &Path) -> io::Result<()> {
    let texts = [
        ("passwd", etc::PASSWD),
        ("group", etc::GROUP),
        ("hosts", etc::HOSTS),
        ("resolv.conf", ""),
        ("hostname", ""),
        ("nsswitch.conf", etc::NSSWITCH),
        ("services", etc::SERVICES),
        ("protocols", etc::PROTOCOLS),
    ];
    for (name, text) in texts {
        put(&etc.join(name), text.as_bytes())?;
    }
    symlink("/proc/mounts", etc.join("mtab"))?;
    symlink("/usr/lib/os-release", etc.join("os-release"))?;
    for name in TAKEN {
        take(&Path::new("/etc").join(name), &etc.join(name))?;
    }
    if let Ok(zone) = fs::read_link("/etc/localtime") {
        let zone = Path::new("/etc").join(zone);
        if zone.to_str().is_some_and(|zone| zone.contains("/usr/share/zoneinfo/")) {
            symlink(zone, etc.join("localtime"))?;
        }
    } else {
        take(Path::new("/etc/localtime"), &etc.join("localtime"))?;
    }
    links_into_usr(Path::new("/etc/alternatives"), &etc.join("alternatives"), false)?;
    links_into_usr(Path::new("/etc/ssl/certs"), &etc.join("ssl/certs"), true)?;
    let bundle = etc.join("ssl/certs/ca-certificates.crt");
    for candidate in BUNDLES {
        if !bundle.exists() {
            take(Path::new(candidate), &bundle)?;
        }
    }
    if Path::new("/etc/pki").is_dir() && bundle.exists() {
        fs::create_dir_all(etc.join("pki/tls/certs"))?;
        symlink("/etc/ssl/certs/ca-certificates.crt", etc.join("pki/tls/certs/ca-bundle.crt"))?;
    }
    Ok(())
}

/// Copies the links of a directory that lead into `/usr`, and with `neighbours` those that lead to such links. Links into
/// `/usr/local`, which containers don't see, become copies of the certificates there.
fn links_into_usr(from: &Path, into: &Path, neighbours: bool) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let to = into.join(entry.file_name());
        let end = if target.components().count() == 1 && neighbours {
            fs::read_link(from.join(&target)).unwrap_or_default()
        } else {
            target.clone()
        };
        if end.starts_with("/usr/local") && neighbours {
            take(&end, &to)?;
        } else if end.starts_with("/usr") {
            symlink(target, to)?;
        }
    }
    Ok(())
}

/// Copies a file's content, where there is such a file.
fn take(from: &Path, to: &Path) -> io::Result<()> {
    match fs::read(from) {
        Ok(content) => put(to, &content),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(path, content)?;
    set_mode(path, 0o644)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
