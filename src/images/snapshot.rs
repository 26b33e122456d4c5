//! Snapshots: unpacked layers in `lib/layers`, each a directory named by its chain id.
//!
//! A layer is unpacked aside, under a lock that only those who want the same one wait for, and renamed into place when
//! its diff id is right. What an interrupted process left aside is removed by the next that wants this layer.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use fs_err as fs;
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{CWD, Mode, OFlags};

use super::error::{Doing as _, Error};
use super::store::Inner;
use super::unpack::{self, Below, Form};
use super::{Digest, Layer, host, pipeline, tree, unsynced};
use crate::sys::fault;

/// The chain ids of layers given by their diff ids, lowest first: what a layer is, on top of what it lies.
pub(super) fn chain(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(chain.last().map_or(*diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes())));
    }
    chain
}

/// How directories begin that aren't whole yet.
const ASIDE: &str = ".aside-";

impl Inner {
    /// Where a layer is when it is unpacked.
    pub(super) fn snapshot_path(&self, chain_id: &Digest) -> PathBuf {
        self.layers.join(chain_id.hex())
    }

    /// Where a layer is, by its diff id and its chain id.
    pub(super) fn layer_directory(&self, diff_id: &Digest, chain_id: &Digest) -> Result<PathBuf, Error> {
        if host::is_layer(diff_id) { self.host_tree() } else { Ok(self.snapshot_path(chain_id)) }
    }

    /// The directories of an image's layers, lowest first, unpacking those that aren't yet.
    pub(super) fn snapshots(&self, layers: &[Layer]) -> Result<Vec<PathBuf>, Error> {
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let mut paths: Vec<PathBuf> = Vec::with_capacity(layers.len());
        for (layer, chain_id) in layers.iter().zip(chain(&diff_ids)) {
            let path = self.layer_directory(&layer.diff_id, &chain_id)?;
            if !unsynced::is_whole(&path) {
                self.unpack(layer, &chain_id, &paths)?;
            }
            paths.push(path);
        }
        Ok(paths)
    }

    fn unpack(&self, layer: &Layer, chain_id: &Digest, parents: &[PathBuf]) -> Result<(), Error> {
        let below = parents.iter().rev().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
        self.make_snapshot(&chain_id.hex(), |aside| {
            let blob = BufReader::new(self.blobs.open_blob(&layer.digest)?);
            unpack_stream(layer, blob, |_| Ok(()), aside, &below)
        })
    }

    /// Makes the directory `name` of `lib/layers` unless it is there; `fill` gets it while it is still aside.
    pub(super) fn make_snapshot(
        &self,
        name: &str,
        fill: impl FnOnce(&OwnedFd) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _lock = self.lock_snapshot(name, true)?;
        let path = self.layers.join(name);
        if unsynced::is_whole(&path) {
            return Ok(());
        }
        let making = || format!("making layer directory {}", path.display());
        let pass = |when: &str| fault::point(|| format!("{when} layer {name}")).doing(making);
        let all = open(&self.layers)?;
        let aside = Aside { all: &all, name: format!("{ASIDE}{name}") };
        aside.remove();
        pass("before making")?;
        rustix::fs::mkdirat(&all, &aside.name, Mode::RWXU).doing(making)?;
        let directory = open(&self.layers.join(&aside.name))?;
        // Not the group-inheriting bit that a parent may hand on.
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755)).doing(making)?;
        fill(&directory).map_err(|error| error.in_place(&self.layers))?;
        unsynced::mark(&directory)?;
        pass("before naming")?;
        // One that a power cut has torn.
        tree::remove(all.as_fd(), name.as_bytes()).doing(making)?;
        rustix::fs::renameat(&all, &aside.name, &all, name).doing(making)?;
        pass("after naming")
    }

    /// Removes what interrupted processes left aside. Whatever somebody works on stays.
    pub(super) fn clear_aside(&self) -> Result<(), Error> {
        let clearing = || "clearing unfinished layers".to_owned();
        let all = open(&self.layers)?;
        for (name, _) in tree::list(all.as_fd()).doing(clearing)? {
            let Some(layer) = name.strip_prefix(ASIDE.as_bytes()).and_then(|name| std::str::from_utf8(name).ok())
            else {
                continue;
            };
            match self.lock_snapshot(layer, false) {
                Ok(_lock) => tree::remove(all.as_fd(), &name).doing(clearing)?,
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for whoever makes the same snapshot, and for nobody else: a lock on one byte of a file, chosen by the name.
    /// Told not to wait, it fails with [`std::io::ErrorKind::WouldBlock`].
    fn lock_snapshot(&self, name: &str, wait: bool) -> Result<OwnedFd, Error> {
        let locking = || "locking the layers".to_owned();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(self.layers.join(".lock"), flags, Mode::RUSR | Mode::WUSR).doing(locking)?;
        let hash = Digest::of(name.as_bytes());
        let place = hash.as_bytes()[..4].iter().fold(0, |place, &byte| place << 8 | i64::from(byte));
        let byte = libc::flock {
            l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: place,
            l_len: 1,
            l_pid: 0,
        };
        loop {
            let how = if wait { FcntlArg::F_OFD_SETLKW(&byte) } else { FcntlArg::F_OFD_SETLK(&byte) };
            match fcntl(file.as_fd(), how) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return other.map(|_| file).doing(locking),
            }
        }
    }

    /// Moves an overlay's upper directory in as the snapshot of the layer made of it, where that is possible.
    pub(super) fn adopt_upper(&self, chain_id: &Digest, upper: &Path, below: Option<&Path>) -> Result<(), Error> {
        let name = chain_id.hex();
        let _lock = self.lock_snapshot(&name, true)?;
        let path = self.layers.join(&name);
        if unsynced::is_whole(&path) {
            return Ok(());
        }
        // The root of an upper directory is whatever its maker made; the image's is that of the layer below.
        like_root(upper, below)?;
        unsynced::mark(open(upper)?)?;
        tree::remove(open(&self.layers)?.as_fd(), name.as_bytes()).doing(|| format!("removing layer {name}"))?;
        match fs::rename(upper, &path) {
            Err(e) if e.kind() == std::io::ErrorKind::CrossesDevices => Ok(()),
            other => other.doing(|| "moving an upper directory into the layers".to_owned()),
        }
    }
}

/// Unpacks a layer's blob as it comes in, giving it to `keep`, too. It was the right one if this succeeds.
pub(super) fn unpack_stream(
    layer: &Layer,
    blob: impl Read + Send,
    keep: impl FnMut(&[u8]) -> std::io::Result<()> + Send,
    aside: &OwnedFd,
    below: &dyn Below,
) -> Result<(), Error> {
    let make = |archive: &mut dyn BufRead| unpack::unpack(archive, aside.as_fd(), Form::Overlay, None, below);
    expect_archive(layer, &pipeline::read(blob, Some(layer.digest), keep, make)?)
}

/// Checks that the archive in a layer's blob is the one that the image's configuration means.
pub(super) fn expect_archive(layer: &Layer, read: &pipeline::Archive) -> Result<(), Error> {
    let (wanted, found) = (layer.diff_id, read.diff_id);
    if wanted == found {
        return Ok(());
    }
    Err(Error::Mismatch { what: format!("the archive in blob {}", layer.digest), wanted, found })
}

/// Gives a directory the owner and mode of the root of the layer below.
pub(super) fn like_root(directory: &Path, below: Option<&Path>) -> Result<(), Error> {
    let doing = || format!("setting the owner and mode of {}", directory.display());
    let to = open(directory)?;
    let (mode, uid, gid) = match below {
        Some(below) => {
            let stat = rustix::fs::fstat(open(below)?).doing(doing)?;
            (stat.st_mode & 0o7777, stat.st_uid, stat.st_gid)
        }
        None => (0o755, 0, 0),
    };
    let now = rustix::fs::fstat(&to).doing(doing)?;
    if (now.st_mode & 0o7777, now.st_uid, now.st_gid) != (mode, uid, gid) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::fchown(&to, Some(uid), Some(gid)).doing(doing)?;
        rustix::fs::fchmod(&to, Mode::from_raw_mode(mode)).doing(doing)?;
    }
    Ok(())
}

/// Opens a directory of the store.
pub(super) fn open(path: &Path) -> Result<OwnedFd, Error> {
    tree::open(CWD, path.as_os_str().as_encoded_bytes()).doing(|| format!("opening {}", path.display()))
}

/// A directory that is gone again unless it was renamed.
struct Aside<'a> {
    all: &'a OwnedFd,
    name: String,
}

impl Aside<'_> {
    fn remove(&self) {
        let _ = tree::remove(self.all.as_fd(), self.name.as_bytes());
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}
