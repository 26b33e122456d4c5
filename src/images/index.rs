//! The layout's documents: `index.json` with what each name means, and manifests.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::Platform;
use super::{Digest, Reference};

pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_INDEX_TYPE: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub(super) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// The name, as skopeo and others select images in a layout by it.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The full name as containerd writes it; there the other one is the tag alone.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const CREATED: &str = "org.opencontainers.image.created";
/// The image's id and the size of its layers: lists need no other document.
const ID: &str = "io.stack.image.id";
const SIZE: &str = "io.stack.image.size";
/// Where it was pulled from or pushed to, by digest, and when that was last known to be what its name means there.
const SOURCE: &str = "io.stack.image.source";
const CHECKED: &str = "io.stack.image.checked";
/// Begins the annotation that says what an uncompressed layer is at registries.
const PACKED: &str = "io.stack.image.packed.";

/// Where content is, what it is and how large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
}

/// An image's manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
}

/// An index: `index.json`, or one image's manifests for several platforms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Index {
    pub(super) schema_version: u32,
    #[serde(default)]
    pub(super) media_type: String,
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
}

impl Default for Index {
    fn default() -> Index {
        Index { schema_version: 2, media_type: INDEX_TYPE.to_owned(), manifests: Vec::new() }
    }
}

impl Index {
    /// The manifest for a platform, the one without a variant where its own is missing; one that says nothing fits all.
    pub(super) fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let of = |manifest: &&Descriptor| manifest.platform.as_ref().is_some_and(|other| platform.fits(other));
        let exact = |manifest: &&Descriptor| manifest.platform.as_ref().is_some_and(|other| platform.is(other));
        let all = || self.manifests.iter();
        all().find(exact).or_else(|| all().find(of)).or_else(|| all().find(|manifest| manifest.platform.is_none()))
    }
}

impl Descriptor {
    /// Of content without a name.
    pub(super) fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor { media_type: media_type.to_owned(), digest, size, annotations: BTreeMap::new(), platform: None }
    }

    pub(super) fn is_index(&self) -> bool {
        self.media_type == INDEX_TYPE || self.media_type == DOCKER_INDEX_TYPE
    }

    /// The name it is known by in the layout.
    pub(super) fn name(&self) -> Option<Reference> {
        let text = self.annotations.get(CONTAINERD_NAME).or_else(|| self.annotations.get(NAME))?;
        Reference::parse(text).ok()
    }

    /// The same under another name, or none.
    pub(super) fn named(&self, name: Option<&Reference>) -> Descriptor {
        let mut named = self.clone();
        named.annotations.remove(CONTAINERD_NAME);
        match name {
            Some(name) => named.annotations.insert(NAME.to_owned(), name.to_string()),
            None => named.annotations.remove(NAME),
        };
        named
    }

    /// The same under a name, as both kinds of readers look for it.
    pub(super) fn named_for_all(&self, name: &Reference) -> Descriptor {
        let mut named = self.named(Some(name));
        named.annotations.insert(CONTAINERD_NAME.to_owned(), name.to_string());
        named.annotations.insert(NAME.to_owned(), name.tag().unwrap_or("latest").to_owned());
        named
    }

    /// Notes what lists show.
    pub(super) fn note(&mut self, id: Digest, created: Option<Timestamp>, size: u64) {
        self.annotations.insert(ID.to_owned(), id.to_string());
        self.annotations.insert(SIZE.to_owned(), size.to_string());
        if let Some(created) = created {
            self.annotations.insert(CREATED.to_owned(), created.to_string());
        }
    }

    /// What was noted: the image's id, when it was made, and its size. None in a layout that another tool wrote.
    pub(super) fn noted(&self) -> Option<(Digest, Option<Timestamp>, u64)> {
        let id = self.annotations.get(ID)?.parse().ok()?;
        let size = self.annotations.get(SIZE)?.parse().ok()?;
        Some((id, self.annotations.get(CREATED).and_then(|text| text.parse().ok()), size))
    }
}

impl Descriptor {
    /// The same, known to be at a registry under this name by digest.
    pub(super) fn at_registry(&self, source: &Reference, checked: Timestamp) -> Descriptor {
        let mut entry = self.clone();
        entry.annotations.insert(SOURCE.to_owned(), source.to_string());
        entry.annotations.insert(CHECKED.to_owned(), checked.to_string());
        entry
    }

    /// Notes what an uncompressed layer is at registries.
    pub(super) fn note_packed(&mut self, layer: &Digest, packed: &Digest, size: u64) {
        if layer != packed {
            self.annotations.insert(format!("{PACKED}{}", layer.hex()), format!("{packed} {size}"));
        }
    }

    /// What an uncompressed layer was compressed to when it was pushed before.
    pub(super) fn packed(&self, layer: &Digest) -> Option<(Digest, u64)> {
        let (digest, size) = self.annotations.get(&format!("{PACKED}{}", layer.hex()))?.split_once(' ')?;
        Some((digest.parse().ok()?, size.parse().ok()?))
    }

    /// Where a registry has it, by digest.
    pub(super) fn source(&self) -> Option<Reference> {
        self.annotations.get(SOURCE).and_then(|text| Reference::parse(text).ok())
    }

    /// When its name was last known to mean it at the registry.
    pub(super) fn checked(&self) -> Option<Timestamp> {
        self.annotations.get(CHECKED).and_then(|text| text.parse().ok())
    }
}

/// `index.json` as read, with its names found quickly.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) index: Index,
    by_name: HashMap<Reference, usize>,
}

impl Catalog {
    pub(super) fn new(index: Index) -> Catalog {
        let by_name = index.manifests.iter().enumerate().filter_map(|(at, entry)| Some((entry.name()?, at))).collect();
        Catalog { index, by_name }
    }

    /// What a name means. With a digest, the image of that repository with it, whatever its tag.
    pub(super) fn get(&self, name: &Reference) -> Option<&Descriptor> {
        let Some(digest) = name.digest() else { return self.by_name.get(name).map(|&at| &self.index.manifests[at]) };
        let known = |at: Option<Reference>| at.filter(|known| known.repository() == name.repository());
        let pulled = |entry: &&Descriptor| known(entry.source()).is_some_and(|known| known.digest() == Some(digest));
        let named = |entry: &&Descriptor| entry.digest == digest && known(entry.name()).is_some();
        let all = || self.index.manifests.iter();
        all().find(named).or_else(|| all().find(pulled))
    }

    /// Where registries have a manifest.
    pub(super) fn sources(&self, digest: &Digest) -> Vec<Reference> {
        let of = self.index.manifests.iter().filter(|entry| entry.digest == *digest);
        let mut sources: Vec<_> = of.filter_map(Descriptor::source).collect();
        sources.sort_unstable();
        sources.dedup();
        sources
    }

    /// All names of a manifest.
    pub(super) fn names(&self, digest: &Digest) -> Vec<Reference> {
        let of = self.index.manifests.iter().filter(|entry| entry.digest == *digest);
        let mut names: Vec<_> = of.filter_map(Descriptor::name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
