//! Adding layers and images.

use std::io::{BufRead, Read};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use jiff::Timestamp;

use super::changes;
use super::error::{Doing as _, Error};
use super::pack::{self, Source};
use super::snapshot::{self, chain};
use super::unpack::{self, Form, Nothing};
use super::{Digest, History, Image, ImageConfig, Layer, Reference, Store, pipeline, tar};
use crate::sys::userns::Ids;

/// What [`Store::add_layer_from_tar`] adds.
pub type LayerId = Layer;

impl Store {
    /// Makes an image of a root file system's archive (plain, gzip or zstd), with `docker import`'s changes (`CMD …`, `ENV …`).
    pub fn import(&self, tar: impl Read + Send, to: Option<&Reference>, changes: &[String]) -> Result<Image, Error> {
        let _lease = self.lease()?;
        let mut config = ImageConfig::scratch();
        for line in changes {
            changes::apply(line, &mut config.config)?;
        }
        config.created = Some(Timestamp::now());
        let comment = "imported from an archive".to_owned();
        config.history = vec![History { created: config.created, comment, ..History::default() }];
        let layer = self.add_layer_from_tar(tar)?;
        self.put_image(&config, &[layer], to.map(std::slice::from_ref).unwrap_or_default())
    }

    /// Stores a layer's archive (plain, gzip or zstd) after reading all of it. It is unpacked when an image with it is first mounted.
    pub fn add_layer_from_tar(&self, tar: impl Read + Send) -> Result<LayerId, Error> {
        let _lease = self.lease()?;
        let mut blob = self.inner.blobs.create()?;
        let read = pipeline::read(tar, None, |bytes| blob.write(bytes), scan)?;
        let (digest, size) = blob.store()?;
        Ok(Layer { digest, diff_id: read.diff_id, size, media_type: read.compression.media_type().to_owned() })
    }

    /// Makes a layer on top of `parents` (diff ids, lowest first) of what an overlay mount wrote; none if it wrote nothing.
    ///
    /// The directory is moved into the store where it can be: unmount the overlay first, and expect it gone.
    pub fn add_layer_from_upper(&self, parents: &[Digest], upper: &Path) -> Result<Option<Layer>, Error> {
        let _lease = self.lease()?;
        let root = snapshot::open(upper)?;
        let mut blob = self.inner.blobs.create()?;
        if pack::pack(root.as_fd(), Source::Upper, None, None, &mut blob)? == 0 {
            return Ok(None);
        }
        let (digest, size) = blob.store()?;
        let diff_ids = [parents, &[digest]].concat();
        let chain = chain(&diff_ids);
        let below = parents
            .len()
            .checked_sub(1)
            .map(|top| self.inner.layer_directory(&parents[top], &chain[top]))
            .transpose()?;
        if let Some(chain_id) = chain.last() {
            self.inner.adopt_upper(chain_id, upper, below.as_deref().filter(|below| below.is_dir()))?;
        }
        let media_type = super::compression::Compression::None.media_type().to_owned();
        Ok(Some(Layer { digest, diff_id: digest, size, media_type }))
    }

    /// Makes an image of what an overlay mount on top of `image` wrote by now; the directory stays as it is.
    ///
    /// `config` is the new image's; each of `changes` is a line as [`Self::import`] takes it.
    pub fn commit(
        &self,
        image: &Image,
        upper: &Path,
        mut config: ImageConfig,
        changes: &[String],
        tags: &[Reference],
    ) -> Result<Image, Error> {
        let _lease = self.lease()?;
        for line in changes {
            changes::apply(line, &mut config.config)?;
        }
        let mut blob = self.inner.blobs.create()?;
        let count = pack::pack(snapshot::open(upper)?.as_fd(), Source::Upper, None, None, &mut blob)?;
        let mut layers = image.layers.clone();
        if count > 0 {
            let (digest, size) = blob.store()?;
            let media_type = super::compression::Compression::None.media_type().to_owned();
            layers.push(Layer { digest, diff_id: digest, size, media_type });
        }
        if let Some(last) = config.history.last_mut() {
            last.empty_layer = count == 0;
        }
        self.put_image(&config, &layers, tags)
    }

    /// Writes the layer's archive of a directory as it is.
    pub fn archive_directory(&self, directory: &Path, into: impl std::io::Write) -> Result<(), Error> {
        pack(snapshot::open(directory)?.as_fd(), None, None, into)
    }
}

/// Writes an archive of all that is in a directory, or of `only` that member of it. `ids` are those of a user namespace that it is
/// seen outside of.
pub fn pack(
    directory: BorrowedFd<'_>,
    only: Option<&[u8]>,
    ids: Option<Ids>,
    into: impl std::io::Write,
) -> Result<(), Error> {
    pack::pack(directory, Source::Plain, only, ids, into).map(|_| ())
}

/// Unpacks an archive (plain, gzip or zstd) onto a directory: whiteouts remove what was there before, device nodes are left
/// out, and nothing outside is touched, whatever the archive says. If it fails, an empty directory is empty again.
pub fn unpack_archive(tar: impl Read + Send, into: &Path) -> Result<(), Error> {
    let root = snapshot::open(into)?;
    let listing = || format!("listing {}", into.display());
    let was_empty = super::tree::list(root.as_fd()).doing(listing)?.is_empty();
    let unpacked = unpack_archive_into(tar, root.as_fd(), None);
    if unpacked.is_err() && was_empty {
        let _ = super::tree::empty(root.as_fd());
    }
    unpacked
}

/// [`unpack_archive`] onto an open directory, which may be seen from outside of a user namespace with `ids`. If it fails,
/// what was unpacked by then stays.
pub fn unpack_archive_into(tar: impl Read + Send, into: BorrowedFd<'_>, ids: Option<Ids>) -> Result<(), Error> {
    let make = |archive: &mut dyn BufRead| unpack::unpack(archive, into, Form::Plain, ids, &Nothing);
    pipeline::read(tar, None, |_| Ok(()), make).map(|_| ())
}

/// Reads an archive to its end: what is wrong with its form is found before it is stored.
pub(super) fn scan(archive: &mut dyn BufRead) -> Result<(), Error> {
    let mut reader = tar::Reader::new(archive);
    while reader.next()?.is_some() {}
    Ok(())
}
