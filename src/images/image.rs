//! What the store gives: images, their layers and their root file systems.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use jiff::Timestamp;

use super::{Digest, ImageConfig, Reference};

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

/// An image in the store, or the built-in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Digest of the configuration.
    pub id: Digest,
    /// Digest of the manifest.
    pub digest: Digest,
    /// All references to it, sorted.
    pub names: Vec<Reference>,
    /// Where registries have it: repositories by digest.
    pub sources: Vec<Reference>,
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
    /// What its name means at the registry, where it came from or went to one.
    pub at_registry: Option<Digest>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Bytes of its layers as stored.
    pub size: u64,
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

/// The user namespace for which something is mounted: stored ids are those inside.
#[derive(Debug, Clone, Copy)]
pub struct Guest<'a> {
    /// The namespace.
    pub namespace: BorrowedFd<'a>,
    /// What its root is outside.
    pub root: u32,
}

/// A root file system, mounted nowhere yet.
#[derive(Debug)]
pub struct Rootfs {
    /// The detached mount.
    pub mount: OwnedFd,
    /// Detached mounts to place within, in this order, with their targets.
    pub binds: Vec<(OwnedFd, String)>,
}
