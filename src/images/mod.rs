//! Images: an OCI image layout on disk, layers unpacked into snapshots, and root file systems mounted from them.
//!
//! * [`Store`] is the door: find, list, tag, remove, import, and what the builder adds.
//! * [`Digest`], [`Reference`] and [`ImageConfig`] are the vocabulary; everything outside is parsed into them at the edge.
//! * `tar` reads archives strictly and writes them deterministically; `unpack` turns one into a directory through
//!   directory descriptors only; `pack` turns an overlay's upper directory into a layer.
//! * `snapshot` keeps unpacked layers by chain id in `lib/layers`; `rootfs` mounts them, detached: the result is a
//!   descriptor that nothing in the host's mount table shows.
//! * `host` is `stack/host`, the image made of this machine's own `/usr`.
//!
//! Many processes may use one store at once: content is written aside and renamed into place, the index changes
//! under a lock, and a [`Lease`] keeps what a process works with from being collected.

pub(crate) mod config;
mod digest;
mod error;
mod reference;
mod store;

pub use config::{DiffIds, Empty, Healthcheck, History, ImageConfig, RunConfig, architecture};
pub use digest::Digest;
pub use error::Error;
pub use reference::Reference;
pub use store::{Image, Layer, LayerId, Lease, Listed, Removal, Removed, Rootfs, Store, Writable};
