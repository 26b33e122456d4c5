//! Removing names and images, and collecting what nothing refers to.

use std::collections::HashSet;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use fs_err as fs;
use rustix::fs::FlockOperation;

use super::error::{Doing as _, Error};
use super::host;
use super::index::{Descriptor, Index};
use super::snapshot::{self, chain};
use super::store::Inner;
use super::{Digest, ImageConfig, Reference, Removed, Store, tree};

/// Removes images. While it lives, whoever wants to work with images waits; where somebody does already, it takes nothing
/// but names away.
#[derive(Debug)]
pub struct Collector<'a> {
    inner: &'a Inner,
    /// Ids of the images that containers use: their content stays.
    in_use: Vec<Digest>,
    /// None while somebody holds a lease.
    alone: Option<OwnedFd>,
}

impl Store {
    /// Begins to remove images; `in_use` tells the ids of those that containers use, as it is once nobody makes any.
    pub fn collector(&self, in_use: impl FnOnce() -> Result<Vec<Digest>, Error>) -> Result<Collector<'_>, Error> {
        let alone = match self.inner.lease(FlockOperation::NonBlockingLockExclusive) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => None,
            other => Some(other?),
        };
        Ok(Collector { inner: &self.inner, in_use: in_use()?, alone })
    }
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Images.
    pub images: usize,
    /// Images that containers use.
    pub used: usize,
    /// Blobs and layers of these.
    pub needed: Vec<PathBuf>,
}

impl Store {
    /// What the store holds, and what of it the images `in_use` need.
    pub fn content(&self, in_use: &[Digest]) -> Result<Content, Error> {
        let inner = &self.inner;
        let (mut all, mut used) = (HashSet::new(), HashSet::new());
        let (mut blobs, mut layers) = (HashSet::new(), HashSet::new());
        for entry in &inner.catalog()?.index.manifests {
            let Ok(record) = inner.record(entry) else { continue };
            all.insert(record.id);
            if in_use.contains(&record.id) {
                used.insert(record.id);
                inner.mark(entry, &mut blobs, &mut layers);
            }
        }
        let blobs = blobs.iter().map(|digest| inner.blobs.path(digest));
        let needed = blobs.chain(layers.iter().map(|name| inner.layers.join(name))).collect();
        Ok(Content { images: all.len(), used: used.len(), needed })
    }
}

impl Collector<'_> {
    /// Removes a name or an image, and the content that nothing refers to any more.
    ///
    /// An image that a container uses, or that somebody may be about to use, keeps its content, whatever is asked. With `force`
    /// the last name of an image in use goes, and an image goes by its id although it has several names.
    pub fn remove(&self, text: &str, force: bool) -> Result<Removed, Error> {
        let name = Reference::parse(text).ok();
        if name.as_ref() == Some(&host::name()) {
            return Err(Error::BuiltIn("removed"));
        }
        let catalog = self.inner.catalog()?;
        let missing = || Error::NotFound(text.to_owned());
        let by_name = name.as_ref().and_then(|name| catalog.get(name)).cloned();
        let entry = match &by_name {
            Some(entry) => entry.clone(),
            None => self.inner.by_id(&catalog, text)?.ok_or_else(missing)?,
        };
        let id = self.inner.record(&entry)?.id;
        let in_use = self.in_use.contains(&id);
        let names = catalog.names(&entry.digest);
        let untagged = match by_name.as_ref().and_then(Descriptor::name) {
            Some(name) => vec![name],
            None if names.len() > 1 && !force => return Err(Error::ManyNames(text.to_owned())),
            None => names.clone(),
        };
        let last = untagged.len() == names.len();
        if last && in_use && (by_name.is_none() || !force) {
            return Err(Error::InUse(text.to_owned()));
        }
        let kept = in_use || self.alone.is_none();
        self.inner.update(|index| {
            index.manifests.retain(|other| !other.name().is_some_and(|name| untagged.contains(&name)));
            if last {
                index.manifests.retain(|other| other.digest != entry.digest);
            }
            if last && kept {
                index.manifests.push(entry.named(None));
            }
        })?;
        let freed = self.sweep(false)?;
        let images = if last && !kept { vec![id] } else { Vec::new() };
        Ok(Removed { untagged, images, freed })
    }

    /// Removes nameless images (with `all`, every image) that aren't in use, and content that nothing refers to; with `which`
    /// only images for which it holds. None where somebody works with images: then nothing is removed.
    pub fn prune(&self, all: bool, which: Option<&dyn Fn(&ImageConfig) -> bool>) -> Result<Option<Removed>, Error> {
        if self.alone.is_none() {
            return Ok(None);
        }
        let catalog = self.inner.catalog()?;
        let mut removed = Removed::default();
        let mut digests = HashSet::new();
        for entry in &catalog.index.manifests {
            let name = entry.name();
            let record = self.inner.record(entry);
            let id = record.as_ref().map(|record| record.id);
            // An image that can't even be read is of no use to any container.
            let used = id.as_ref().is_ok_and(|id| self.in_use.contains(id));
            let meant = which.is_none_or(|which| record.as_ref().is_ok_and(|record| which(&record.config)));
            if !used && meant && (all || name.is_none()) {
                digests.insert(entry.digest);
                removed.untagged.extend(name);
                removed.images.extend(id);
            }
        }
        self.inner.update(|index| {
            index.manifests.retain(|entry| !digests.contains(&entry.digest) || (!all && entry.name().is_some()));
        })?;
        removed.images.sort_unstable();
        removed.images.dedup();
        removed.freed = self.sweep(which.is_none())?;
        Ok(Some(removed))
    }

    /// Removes blobs and layers that the index doesn't lead to; the bytes of blobs freed, with `partial` also of what
    /// interrupted pulls left. While anybody holds a lease nothing is removed: the next sweep will.
    fn sweep(&self, partial: bool) -> Result<u64, Error> {
        if self.alone.is_none() {
            return Ok(0);
        }
        let inner = self.inner;
        let mut blobs = HashSet::new();
        let mut layers = HashSet::from([".lock".to_owned(), ".empty".to_owned(), host::tree_name()]);
        for entry in &inner.catalog()?.index.manifests {
            inner.mark(entry, &mut blobs, &mut layers);
        }
        let mut freed = inner.blobs.sweep_aside(partial)?;
        for (digest, size) in inner.blobs.all()? {
            if !blobs.contains(&digest) {
                inner.blobs.remove(&digest)?;
                freed += size;
            }
        }
        let sweeping = || "clearing layers".to_owned();
        let all = snapshot::open(&inner.layers)?;
        for entry in fs::read_dir(&inner.layers).doing(sweeping)? {
            let name = entry.doing(sweeping)?.file_name();
            let text = name.to_string_lossy();
            // An older tree of stack/host may be below a running container.
            let kept = layers.contains(text.as_ref()) || (host::is_tree(&text) && !self.in_use.is_empty());
            if !kept {
                tree::remove(all.as_fd(), name.as_encoded_bytes()).doing(sweeping)?;
            }
        }
        Ok(freed)
    }
}

impl Inner {
    /// Notes all that an entry leads to. What can't be read leads nowhere.
    fn mark(&self, entry: &Descriptor, blobs: &mut HashSet<Digest>, layers: &mut HashSet<String>) {
        blobs.insert(entry.digest);
        if entry.is_index() {
            let index: Index = self.json(&entry.digest, "image index").unwrap_or_default();
            for manifest in index.manifests.iter().filter(|manifest| self.blobs.has(&manifest.digest)) {
                self.mark(manifest, blobs, layers);
            }
            return;
        }
        if let Ok(record) = self.record(entry) {
            blobs.extend([record.id, record.digest]);
            blobs.extend(record.layers.iter().map(|layer| layer.digest));
            layers.extend(chain(&record.config.rootfs.diff_ids).iter().map(Digest::hex));
        }
    }
}
