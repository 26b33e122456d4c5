//! Images: an OCI image layout on disk, layers unpacked into snapshots, and root file systems mounted from them.
//!
//! * [`Store`] is the door: find, list, tag, remove, import, and what the builder adds.
//! * [`Digest`], [`Reference`] and [`ImageConfig`] are the vocabulary; everything outside is parsed into them at the edge.
//! * `tar` reads archives strictly and writes them deterministically; `unpack` turns one into a directory through
//!   directory descriptors only; `pack` turns an overlay's upper directory into a layer.
//! * `snapshot` keeps unpacked layers by chain id in `lib/layers`, `unsynced` knows which of them a power cut may tear; `rootfs`
//!   mounts them, detached: the result is a descriptor that nothing in the host's mount table shows.
//! * `copy` copies trees by descriptors; `diff` tells what an overlay changed.
//! * `registry` fetches images from registries and brings them there.
//! * `host` is `stack/host`, the image made of this machine's own `/usr`.
//!
//! Many processes may use one store at once: content is written aside and renamed into place, the index changes
//! under a lock, and a [`Lease`] keeps what a process works with from being collected.

mod add;
mod blobs;
mod changes;
mod compression;
mod config;
mod copy;
mod copy_up;
mod cursor;
mod diff;
mod digest;
mod error;
mod gc;
mod guest;
mod host;
mod image;
mod index;
mod load;
mod pack;
mod partial;
mod pipeline;
mod reference;
mod registry;
mod rootfs;
mod save;
mod snapshot;
mod store;
mod tar;
mod tree;
mod unpack;
mod unsynced;

pub use add::{LayerId, pack, unpack_archive, unpack_archive_into};
pub use config::{DiffIds, Empty, Healthcheck, History, ImageConfig, Platform, RunConfig, architecture};
pub use copy::{Owner, Spot, copy};
pub use diff::{Change, Changed};
pub use digest::Digest;
pub use error::Error;
pub use gc::{Collector, Content};
pub use image::{Guest, Image, Layer, Listed, Removed, Rootfs, Writable};
pub use reference::Reference;
pub use registry::{Credentials, Failure, LayerState, PullEvent, PullOptions, Pulled, Registries, Settings};
pub use store::{Lease, Store};

#[cfg(test)]
mod tests;
