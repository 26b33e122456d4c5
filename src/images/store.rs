//! The store: an OCI image layout in `lib/images`, unpacked layers in `lib/layers`.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fs_err as fs;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::blobs::Blobs;
use super::error::{Doing as _, Error};
use super::host;
use super::index::{Catalog, Descriptor, Index, Manifest};
use super::{DiffIds, Digest, Image, ImageConfig, Layer, Listed, Platform, Reference};
use crate::sys::file::{Lock, write_atomic};

/// What tells that a directory is an OCI image layout.
const MARKER: &str = "oci-layout";

/// The image store below a state directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    layout: PathBuf,
    pub(super) layers: PathBuf,
    pub(super) blobs: Blobs,
    cache: Mutex<Cache>,
}

/// What was read before and still holds.
#[derive(Debug, Default)]
struct Cache {
    /// Inode, time (ns) and size of the index that was read.
    stamp: Option<(u64, i128, u64)>,
    catalog: Arc<Catalog>,
    /// By the manifest's digest: content by digest never changes.
    records: HashMap<Digest, Arc<Record>>,
}

/// An image without its names.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) id: Digest,
    pub(super) digest: Digest,
    pub(super) config: ImageConfig,
    pub(super) layers: Vec<Layer>,
}

/// While it lives, nothing that no image refers to is collected. Ends with the process, however that ends.
#[derive(Debug)]
pub struct Lease {
    _file: OwnedFd,
}

impl Store {
    /// Opens the store in `lib/images` and `lib/layers`, making it where missing.
    pub fn open(lib: &Path) -> Result<Store, Error> {
        let (layout, layers) = (lib.join("images"), lib.join("layers"));
        let making = || "making the image store".to_owned();
        let blobs = Blobs::open(&layout)?;
        if !layers.is_dir() {
            // Layers hold set-user-id files: nobody else may reach them.
            match rustix::fs::mkdir(&layers, Mode::RWXU) {
                Err(Errno::EXIST) => {}
                other => other.doing(making)?,
            }
        }
        let store = Store { inner: Arc::new(Inner { layout, layers, blobs, cache: Mutex::default() }) };
        if !store.inner.index_path().exists() || !store.inner.layout.join(MARKER).exists() {
            store.inner.update(|_| ())?;
        }
        Ok(store)
    }

    /// Finds an image by `name[:tag][@digest]`, by its id or the beginning of it. `stack/host` is always there.
    pub fn find(&self, text: &str) -> Result<Option<Image>, Error> {
        let name = Reference::parse(text);
        if let Ok(name) = &name
            && *name == host::name()
        {
            return Ok(Some(host::image()));
        }
        let catalog = self.inner.catalog()?;
        if let Some(entry) = name.as_ref().ok().and_then(|name| catalog.get(name)) {
            return self.inner.image(&catalog, entry).map(Some);
        }
        match self.inner.by_id(&catalog, text)? {
            Some(entry) => self.inner.image(&catalog, &entry).map(Some),
            None if is_id(text) => Ok(Some(host::image()).filter(|host| has_id(host.id, text))),
            None => name.map(|_| None),
        }
    }

    /// All images, one row per name, sorted by name; nameless ones last.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let catalog = self.inner.catalog()?;
        let mut rows = Vec::with_capacity(catalog.index.manifests.len());
        for entry in &catalog.index.manifests {
            let name = entry.name();
            let (id, created, size) = if let Some(noted) = entry.noted() {
                noted
            } else {
                let record = self.inner.record(entry)?;
                (record.id, record.config.created, record.size())
            };
            let at_registry = entry.source().and_then(|source| source.digest());
            rows.push(Listed { name, id, digest: entry.digest, at_registry, created, size });
        }
        rows.sort_by(|a, b| (a.name.is_none(), &a.name, a.id).cmp(&(b.name.is_none(), &b.name, b.id)));
        Ok(rows)
    }

    /// When a name was last known to mean at its registry what it means here; none if it never came from there.
    pub fn checked(&self, name: &Reference) -> Result<Option<jiff::Timestamp>, Error> {
        Ok(self.inner.catalog()?.get(name).and_then(Descriptor::checked))
    }

    /// Gives an image another name, taking it from the image that had it.
    pub fn tag(&self, image: &Image, to: &Reference) -> Result<(), Error> {
        if image.digest == host::image().digest {
            return Err(Error::BuiltIn("given another name"));
        }
        if *to == host::name() {
            return Err(Error::BuiltIn("replaced"));
        }
        self.inner.update(|index| {
            let entry = index.manifests.iter().find(|entry| entry.digest == image.digest).cloned();
            entry
                .map(|entry| set_name(index, &entry, &to.without_digest()))
                .ok_or_else(|| Error::NotFound(image.id.to_string()))
        })?
    }

    /// Stores an image of layers that are in the store. Its diff ids are set from `layers`. Names move from other images.
    pub fn put_image(&self, config: &ImageConfig, layers: &[Layer], tags: &[Reference]) -> Result<Image, Error> {
        let _lease = self.lease()?;
        let diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
        let config = ImageConfig { rootfs: DiffIds { diff_ids, ..DiffIds::default() }, ..config.clone() };
        let document = serde_json::to_vec(&config);
        self.put_config(
            &document.map_err(|source| Error::Json { what: "the configuration".to_owned(), source })?,
            layers,
            tags,
        )
    }

    /// Stores an image by its configuration's very bytes, which its id depends on.
    pub(super) fn put_config(&self, config: &[u8], layers: &[Layer], tags: &[Reference]) -> Result<Image, Error> {
        if tags.contains(&host::name()) {
            return Err(Error::BuiltIn("replaced"));
        }
        let blobs = &self.inner.blobs;
        for layer in layers {
            if layer.digest == host::layer().digest {
                blobs.put(&host::layer_blob())?;
            } else if !blobs.has(&layer.digest) {
                return Err(Error::MissingBlob(layer.digest));
            }
        }
        let id = blobs.put(config)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: super::index::MANIFEST_TYPE.to_owned(),
            config: Descriptor::new(super::index::CONFIG_TYPE, id, config.len() as u64),
            layers: layers.iter().map(|layer| Descriptor::new(&layer.media_type, layer.digest, layer.size)).collect(),
        };
        let document =
            serde_json::to_vec(&manifest).map_err(|source| Error::Json { what: "the manifest".to_owned(), source })?;
        let digest = blobs.put(&document)?;
        let mut entry = Descriptor::new(super::index::MANIFEST_TYPE, digest, document.len() as u64);
        let record = self.inner.record(&entry)?;
        entry.note(id, record.config.created, record.size());
        self.inner.update(|index| {
            for name in tags {
                set_name(index, &entry, &name.without_digest());
            }
            if !index.manifests.iter().any(|other| other.digest == digest) {
                index.manifests.push(entry.clone());
            }
        })?;
        self.inner.image(&*self.inner.catalog()?, &entry)
    }

    /// Keeps content from being collected while something is made of it, over several calls: hold it from the moment an
    /// image is found until a container's record names it.
    pub fn lease(&self) -> Result<Lease, Error> {
        self.inner.lease(FlockOperation::LockShared).map(|file| Lease { _file: file })
    }
}

impl Inner {
    fn index_path(&self) -> PathBuf {
        self.layout.join("index.json")
    }

    /// The index as it is now.
    pub(super) fn catalog(&self) -> Result<Arc<Catalog>, Error> {
        let path = self.index_path();
        let metadata = fs::metadata(&path).doing(|| "looking at the image index".to_owned())?;
        let nanos = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        let stamp = (metadata.ino(), nanos, metadata.len());
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.stamp != Some(stamp) {
            cache.catalog = Arc::new(Catalog::new(read_index(&path)?));
            cache.stamp = Some(stamp);
        }
        Ok(Arc::clone(&cache.catalog))
    }

    /// Changes the index, under a lock that all processes share.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut Index) -> T) -> Result<T, Error> {
        let _lock = Lock::exclusive(&self.layout.join(".lock")).doing(|| "locking the image index".to_owned())?;
        self.tidy().doing(|| "tidying the image store".to_owned())?;
        let path = self.index_path();
        let mut index = if path.exists() { read_index(&path)? } else { Index::default() };
        let result = change(&mut index);
        let document =
            serde_json::to_vec(&index).map_err(|source| Error::Json { what: "the image index".to_owned(), source })?;
        write_atomic(&path, &document, true).doing(|| "writing the image index".to_owned())?;
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).stamp = None;
        Ok(result)
    }

    /// Makes the layout's marker where it is missing, and removes what those left who died while they wrote. Under the index's lock.
    fn tidy(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.layout)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "tmp") {
                fs::remove_file(path)?;
            }
        }
        let marker = self.layout.join(MARKER);
        if marker.exists() { Ok(()) } else { write_atomic(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#, true) }
    }

    /// Locks out collection, or all others (which fails with `WOULDBLOCK` when asked not to wait).
    pub(super) fn lease(&self, how: FlockOperation) -> Result<OwnedFd, Error> {
        let leasing = || "taking a lease on the image store".to_owned();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(self.layout.join(".lease"), flags, Mode::RUSR | Mode::WUSR).doing(leasing)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, how)).doing(leasing)?;
        Ok(file)
    }

    /// The entry whose image has an id, given in full or by its beginning.
    pub(super) fn by_id(&self, catalog: &Catalog, text: &str) -> Result<Option<Descriptor>, Error> {
        if !is_id(text) {
            return Ok(None);
        }
        let mut found: Option<(Digest, Descriptor)> = None;
        for entry in &catalog.index.manifests {
            let id = match entry.noted() {
                Some((id, ..)) => id,
                None => self.record(entry)?.id,
            };
            match &found {
                _ if !has_id(id, text) => {}
                Some((other, _)) if *other != id => return Err(Error::Ambiguous(text.to_owned())),
                Some(_) => {}
                None => found = Some((id, entry.clone())),
            }
        }
        Ok(found.map(|(_, entry)| entry))
    }

    /// An entry's image.
    pub(super) fn image(&self, catalog: &Catalog, entry: &Descriptor) -> Result<Image, Error> {
        let record = self.record(entry)?;
        Ok(Image {
            id: record.id,
            digest: record.digest,
            names: catalog.names(&entry.digest),
            sources: catalog.sources(&entry.digest),
            config: record.config.clone(),
            layers: record.layers.clone(),
            created: record.config.created,
            host: host::stands_below(&record.layers),
        })
    }

    /// An entry's manifest and configuration; for an index, those for this machine.
    pub(super) fn record(&self, entry: &Descriptor) -> Result<Arc<Record>, Error> {
        if let Some(record) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).records.get(&entry.digest) {
            return Ok(Arc::clone(record));
        }
        let record = Arc::new(self.read_record(entry)?);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).records.insert(entry.digest, Arc::clone(&record));
        Ok(record)
    }

    fn read_record(&self, entry: &Descriptor) -> Result<Record, Error> {
        let mut digest = entry.digest;
        if entry.is_index() {
            let index: Index = self.json(&digest, "image index")?;
            let manifest = index.select(&Platform::here()).ok_or_else(|| Error::Unsupported {
                what: format!("image {digest}"),
                why: format!("it has no variant for linux/{}", super::architecture()),
            })?;
            digest = manifest.digest;
        }
        let manifest: Manifest = self.json(&digest, "manifest")?;
        let config: ImageConfig = self.json(&manifest.config.digest, "image configuration")?;
        if config.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(Error::Unsupported {
                what: format!("image {}", manifest.config.digest),
                why: "its manifest and its configuration differ in the number of layers".to_owned(),
            });
        }
        let layer = |(at, diff_id): (&Descriptor, &Digest)| Layer {
            digest: at.digest,
            diff_id: *diff_id,
            size: at.size,
            media_type: at.media_type.clone(),
        };
        let layers = manifest.layers.iter().zip(&config.rootfs.diff_ids).map(layer).collect();
        Ok(Record { id: manifest.config.digest, digest, config, layers })
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&self, digest: &Digest, what: &str) -> Result<T, Error> {
        let document = self.blobs.document(digest)?;
        serde_json::from_slice(&document).map_err(|source| Error::Json { what: format!("{what} {digest}"), source })
    }
}

impl Record {
    /// Bytes of its layers as stored.
    pub(super) fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

fn read_index(path: &Path) -> Result<Index, Error> {
    let document = fs::read(path).doing(|| "reading the image index".to_owned())?;
    serde_json::from_slice(&document).map_err(|source| Error::Json { what: path.display().to_string(), source })
}

/// Gives a name to an entry. The one that had it stays, nameless where this was its last name; the nameless entry of the
/// one that gets it goes.
pub(super) fn set_name(index: &mut Index, entry: &Descriptor, name: &Reference) {
    let before = index.manifests.iter().position(|other| other.name().as_ref() == Some(name));
    if let Some(before) = before {
        let old = index.manifests.remove(before);
        if old.digest != entry.digest && !index.manifests.iter().any(|other| other.digest == old.digest) {
            index.manifests.push(old.named(None));
        }
    }
    index.manifests.retain(|other| other.digest != entry.digest || other.name().is_some());
    index.manifests.push(entry.named(Some(name)));
}

/// Whether a text may be an image's id or the beginning of one.
fn is_id(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    (1..=64).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn has_id(id: Digest, text: &str) -> bool {
    id.hex().starts_with(text.strip_prefix("sha256:").unwrap_or(text))
}
