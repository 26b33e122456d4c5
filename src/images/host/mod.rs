//! `stack/host`: the image that every machine has.
//!
//! It is this machine's own `/usr`, read-only, on a small made tree. So that images can be built from it, it counts as
//! one layer with a fixed digest; where an image has that layer at the bottom, the made tree takes its place and `/usr`
//! is bound in. Its blob says what it stands for, and nothing of the machine is ever stored.

mod binds;
mod etc;
mod tree;

use std::io::Write as _;

pub(super) use binds::binds;
pub(super) use tree::name as tree_name;

use super::compression::Compression;
use super::tar::{Entry, Kind, Time, Writer};
use super::{Digest, Image, ImageConfig, Layer, Reference};

const README: &[u8] =
    b"This layer stands for the /usr of the machine that the image runs on (stack/host). The image isn't portable.\n";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Its name.
pub(super) fn name() -> Reference {
    Reference::parse("stack/host").unwrap_or_else(|_| unreachable!("a constant that parses"))
}

/// The image. Its id says what kind of image it is, not what this machine has in `/usr`: that may change under it.
pub(super) fn image() -> Image {
    let mut config = ImageConfig::scratch();
    config.config.cmd = Some(vec!["/bin/sh".to_owned()]);
    config.config.env = vec![PATH.to_owned()];
    config.rootfs.diff_ids = vec![layer().diff_id];
    let document = serde_json::to_vec(&config).unwrap_or_default();
    let id = Digest::of(&document);
    Image {
        id,
        digest: id,
        names: vec![name()],
        sources: Vec::new(),
        config,
        layers: vec![layer()],
        created: None,
        host: true,
    }
}

/// The layer that stands for it.
pub(super) fn layer() -> Layer {
    let blob = layer_blob();
    let digest = Digest::of(&blob);
    Layer { digest, diff_id: digest, size: blob.len() as u64, media_type: Compression::None.media_type().to_owned() }
}

/// The layer's blob: one file that says what it means.
pub(super) fn layer_blob() -> Vec<u8> {
    let entry = Entry {
        name: b"usr/README.stack-host".to_vec(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
        size: README.len() as u64,
        sparse: None,
    };
    let mut writer = Writer::new(Vec::new());
    // Writing to memory can't fail.
    let _ = writer.entry(&entry).and_then(|()| writer.write_all(README));
    writer.finish().unwrap_or_default()
}

/// Whether a diff id is that of the layer that stands for this machine.
pub(super) fn is_layer(diff_id: &Digest) -> bool {
    *diff_id == layer().diff_id
}

/// Whether an image stands on this machine's `/usr`.
pub(super) fn stands_below(layers: &[Layer]) -> bool {
    layers.first().is_some_and(|layer| is_layer(&layer.diff_id))
}

/// Whether a directory among the layers is a made tree.
pub(super) fn is_tree(name: &str) -> bool {
    name.starts_with(tree::PREFIX)
}
