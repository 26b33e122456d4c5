//! Blobs: content by digest, written aside, checked, and renamed into place.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::Digest;
use super::digest::Hasher;
use super::error::{Doing as _, Error};
use super::partial::is_partial;
use crate::sys::fault;

/// Largest JSON document taken: what registries allow.
const MAX_DOCUMENT: u64 = 4 << 20;

/// The directories of blobs.
#[derive(Debug)]
pub(super) struct Blobs {
    directory: PathBuf,
    aside: PathBuf,
}

impl Blobs {
    /// Opens them below an image layout, making what is missing.
    pub(super) fn open(layout: &Path) -> Result<Blobs, Error> {
        let blobs = Blobs { directory: layout.join("blobs/sha256"), aside: layout.join("tmp") };
        for directory in [&blobs.directory, &blobs.aside] {
            fs::create_dir_all(directory).doing(|| "making the image store".to_owned())?;
        }
        Ok(blobs)
    }

    /// Where content is written before it counts.
    pub(super) fn aside(&self) -> &Path {
        &self.aside
    }

    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.path(digest).exists()
    }

    /// Opens a blob for reading.
    pub(super) fn open_blob(&self, digest: &Digest) -> Result<fs::File, Error> {
        match fs::File::open(self.path(digest)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::MissingBlob(*digest)),
            other => other.doing(|| format!("opening blob {digest}")),
        }
    }

    /// Reads a document, checking its digest.
    pub(super) fn document(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let reading = || format!("reading blob {digest}");
        self.open_blob(digest)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).doing(reading)?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::Unsupported {
                what: format!("blob {digest}"),
                why: "a document larger than 4 MiB".to_owned(),
            });
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::Mismatch { what: format!("blob {digest}"), wanted: *digest, found });
        }
        Ok(bytes)
    }

    /// Stores a document.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if self.has(&digest) {
            return Ok(digest);
        }
        let mut pending = self.create()?;
        pending.write(bytes).doing(|| format!("writing blob {digest}"))?;
        pending.store().map(|(digest, _)| digest)
    }

    /// Starts a blob whose digest will be known at its end.
    pub(super) fn create(&self) -> Result<Pending<'_>, Error> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::open(&self.aside, flags, mode).doing(|| "starting a blob".to_owned())?;
        Ok(Pending { blobs: self, file: fs::File::from_parts(file.into(), &self.aside), hasher: Hasher::default() })
    }

    /// Bytes that are free for more blobs.
    pub(super) fn free(&self) -> u64 {
        rustix::fs::statvfs(&self.aside).map_or(0, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// The error for blobs that the disk is too small for.
    pub(super) fn no_space(&self, needed: u64) -> Error {
        Error::NoSpace { place: self.aside.display().to_string(), needed, free: self.free() }
    }

    /// The digests of all blobs, with their sizes.
    pub(super) fn all(&self) -> Result<Vec<(Digest, u64)>, Error> {
        let listing = || "listing blobs".to_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).doing(listing)? {
            let entry = entry.doing(listing)?;
            if let (Some(digest), Ok(metadata)) =
                (entry.file_name().to_str().and_then(Digest::from_hex), entry.metadata())
            {
                found.push((digest, metadata.len()));
            }
        }
        Ok(found)
    }

    pub(super) fn remove(&self, digest: &Digest) -> Result<(), Error> {
        fs::remove_file(self.path(digest)).doing(|| format!("removing blob {digest}"))
    }

    /// Removes what interrupted writers left, and with `all` also what an interrupted pull would go on from; the bytes
    /// freed. Nobody may be writing.
    pub(super) fn sweep_aside(&self, all: bool) -> Result<u64, Error> {
        let sweeping = || "clearing unfinished blobs".to_owned();
        let mut freed = 0;
        for entry in fs::read_dir(&self.aside).doing(sweeping)? {
            let entry = entry.doing(sweeping)?;
            if all || !is_partial(&entry.file_name().to_string_lossy()) {
                freed += entry.metadata().map_or(0, |metadata| metadata.len());
                fs::remove_file(entry.path()).doing(sweeping)?;
            }
        }
        Ok(freed)
    }
}

/// A blob being written, into a file without a name: gone, however its writer ends, unless it is stored.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    blobs: &'a Blobs,
    file: fs::File,
    hasher: Hasher,
}

impl Pending<'_> {
    /// Adds bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    /// Makes it durable and puts it in its place; its digest and size.
    pub(super) fn store(self) -> Result<(Digest, u64), Error> {
        let (digest, size) = self.hasher.finish();
        let storing = || format!("storing blob {digest}");
        if !self.blobs.has(&digest) {
            self.file.sync_data().doing(storing)?;
            fault::point(|| format!("before naming blob {digest}")).doing(storing)?;
            let nameless = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            match rustix::fs::linkat(CWD, nameless, CWD, self.blobs.path(&digest), AtFlags::SYMLINK_FOLLOW) {
                // Somebody else has stored the same meanwhile.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).doing(storing),
            }
        }
        Ok((digest, size))
    }
}

impl Pending<'_> {
    /// Takes its content without a place in the store: the file, gone when it is closed, its digest and its size.
    pub(super) fn unnamed(self) -> (fs::File, Digest, u64) {
        let (digest, size) = self.hasher.finish();
        (self.file, digest, size)
    }
}

impl std::io::Write for Pending<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Pending::write(self, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
