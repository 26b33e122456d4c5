//! The store.

use std::{io::Read, os::fd::OwnedFd, path::Path};

use jiff::Timestamp;

use super::{Digest, Error, ImageConfig, Reference};

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob as stored.
    pub digest: Digest,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
}

/// What [`Store::add_layer_from_tar`] adds.
pub type LayerId = Layer;

/// An image in the store, or the built-in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the configuration.
    pub id: Digest,
    /// Digest of the manifest.
    pub digest: Digest,
    /// All references to it, sorted.
    pub names: Vec<Reference>,
    /// Its configuration.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it stands on this machine's own `/usr` (`stack/host` and what is built from it), so that it isn't portable.
    pub host: bool,
}

/// A row of `image ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name; none for an image that lost its last one.
    pub name: Option<Reference>,
    /// Digest of the configuration.
    pub id: Digest,
    /// Digest of the manifest.
    pub digest: Digest,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Bytes of its layers as stored.
    pub size: u64,
}

/// How to remove.
#[derive(Clone, Copy, Debug, Default)]
pub struct Removal<'a> {
    /// Ids of the images that containers use: their content stays.
    pub in_use: &'a [Digest],
    /// Untag even the last name of an image in use, and an image by its id although it has several names.
    pub force: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names taken away.
    pub untagged: Vec<Reference>,
    /// Ids of images that are gone.
    pub images: Vec<Digest>,
    /// Bytes of blobs freed.
    pub freed: u64,
}

/// Where a container's changes go.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'a> {
    /// The upper directory; it exists and is empty at first.
    pub upper: &'a Path,
    /// Overlay's work directory, on the same file system.
    pub work: &'a Path,
    /// Whether the changes needn't survive a crash: no sync when it is unmounted.
    pub volatile: bool,
}

/// A root file system, mounted nowhere yet.
#[derive(Debug)]
pub struct Rootfs {
    /// The detached mount.
    pub mount: OwnedFd,
    /// Detached mounts to place within, in this order, with their targets.
    pub binds: Vec<(OwnedFd, String)>,
}

/// While it lives, nothing that no image refers to is collected. Ends with the process, however that ends.
#[derive(Debug)]
pub struct Lease {}

/// The image store below a state directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {}

impl Store {
    /// Opens the store in `lib/images` and `lib/layers`, making it where missing.
    pub fn open(lib: &Path) -> Result<Store, Error> {
        let _ = lib;
        Err(Error::BuiltIn("opened yet"))
    }

    /// Finds an image by `name[:tag][@digest]`, by its id or the beginning of it. `stack/host` is always there.
    pub fn find(&self, text: &str) -> Result<Option<Image>, Error> {
        Err(Error::NotFound(text.to_owned()))
    }

    /// All images, one row per name, sorted by name; nameless ones last.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        Ok(Vec::new())
    }

    /// Gives an image another name, taking it from the image that had it.
    pub fn tag(&self, image: &Image, to: &Reference) -> Result<(), Error> {
        let _ = image;
        Err(Error::NotFound(to.to_string()))
    }

    /// Removes a name or an image, and the content that nothing refers to any more.
    pub fn remove(&self, text: &str, how: &Removal<'_>) -> Result<Removed, Error> {
        let _ = how;
        Err(Error::NotFound(text.to_owned()))
    }

    /// Removes nameless images (with `all`, every image) that aren't in use, and content that nothing refers to.
    pub fn prune(&self, all: bool, in_use: &[Digest]) -> Result<Removed, Error> {
        let _ = (all, in_use);
        Ok(Removed::default())
    }

    /// Keeps content from being collected while something is made of it.
    pub fn lease(&self) -> Result<Lease, Error> {
        Ok(Lease {})
    }

    /// Makes an image of a root file system's archive (plain, gzip or zstd), with `docker import`'s changes (`CMD …`, `ENV …`).
    pub fn import(&self, tar: impl Read + Send, to: Option<&Reference>, changes: &[String]) -> Result<Image, Error> {
        let _ = (tar, to, changes);
        Err(Error::BuiltIn("imported yet"))
    }

    /// Stores a layer's archive (plain, gzip or zstd). It is unpacked when an image with it is first mounted.
    pub fn add_layer_from_tar(&self, tar: impl Read + Send) -> Result<LayerId, Error> {
        let _ = tar;
        Err(Error::BuiltIn("added yet"))
    }

    /// Makes a layer on top of `parents` (diff ids, lowest first) of what an overlay mount wrote; none if it wrote nothing.
    ///
    /// The directory is moved into the store where it can be: unmount the overlay first, and expect it gone.
    pub fn add_layer_from_upper(&self, parents: &[Digest], upper: &Path) -> Result<Option<Layer>, Error> {
        let _ = (parents, upper);
        Err(Error::BuiltIn("added yet"))
    }

    /// Stores an image of layers that are in the store. Its diff ids are set from `layers`. Names move from other images.
    pub fn put_image(&self, config: &ImageConfig, layers: &[Layer], tags: &[Reference]) -> Result<Image, Error> {
        let _ = (config, layers, tags);
        Err(Error::BuiltIn("stored yet"))
    }

    /// Mounts an image's layers, read-only unless `writable`. Nothing appears in the host's mount table.
    pub fn rootfs(&self, image: &Image, writable: Option<Writable<'_>>) -> Result<Rootfs, Error> {
        let _ = (image, writable);
        Err(Error::BuiltIn("mounted yet"))
    }

    /// Copies the content of directory `path` of an image (owners, modes, times, attributes) into the empty directory `into`.
    /// Whether there was such a directory.
    pub fn copy_up(&self, image: &Image, path: &str, into: &Path) -> Result<bool, Error> {
        let _ = (image, path, into);
        Ok(false)
    }
}
