//! Results of earlier steps, found by everything that went into them.
//!
//! A key covers the layers below (by content, so that no two images can be confused), the instruction with its
//! variables expanded, and the content of its inputs. A record is a small file named after the key; it is believed only
//! if the store still has the layer.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::Error;
use crate::images::{Digest, Layer};

/// Changed whenever keys or records mean something else.
const VERSION: u64 = 1;

/// A key in the making. Every part is preceded by its length, so that parts can't run into each other.
#[derive(Debug)]
pub(crate) struct Key(Sha256);

impl Key {
    /// A key of some kind of step.
    pub(crate) fn new(kind: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.number(VERSION);
        key.text(kind);
        key
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.add(&number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.add(text.as_bytes());
    }

    pub(crate) fn list<T: AsRef<[u8]>>(&mut self, list: &[T]) {
        self.number(list.len() as u64);
        for part in list {
            self.add(part.as_ref());
        }
    }

    /// The layers that a step starts from.
    pub(crate) fn layers(&mut self, layers: &[Layer]) {
        let ids: Vec<&[u8; 32]> = layers.iter().map(|layer| layer.diff_id.as_bytes()).collect();
        self.list(&ids);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::of(&self.0.finalize())
    }
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u64,
    /// When it was made.
    pub(crate) created: Timestamp,
    digest: Option<Digest>,
    diff_id: Option<Digest>,
    size: u64,
    media_type: String,
}

impl Record {
    pub(crate) fn new(layer: Option<&Layer>) -> Self {
        Self {
            version: VERSION,
            created: Timestamp::now(),
            digest: layer.map(|layer| layer.digest),
            diff_id: layer.map(|layer| layer.diff_id),
            size: layer.map_or(0, |layer| layer.size),
            media_type: layer.map(|layer| layer.media_type.clone()).unwrap_or_default(),
        }
    }

    /// The layer; None if the step changed nothing.
    pub(crate) fn layer(&self) -> Option<Layer> {
        Some(Layer {
            digest: self.digest?,
            diff_id: self.diff_id?,
            size: self.size,
            media_type: self.media_type.clone(),
        })
    }
}

/// The records of one store.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    blobs: PathBuf,
}

impl Cache {
    /// The cache below a store's directory.
    pub(crate) fn open(lib: &Path) -> Result<Self, Error> {
        let folder = lib.join("build/steps");
        fs_err::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
        Ok(Self { folder, blobs: lib.join("images/blobs/sha256") })
    }

    /// An earlier result whose layer is still there.
    pub(crate) fn get(&self, key: &Digest) -> Option<Record> {
        let text = fs_err::read(self.folder.join(key.hex())).ok()?;
        let record: Record = serde_json::from_slice(&text).ok()?;
        let usable =
            record.version == VERSION && record.digest.is_none_or(|digest| self.blobs.join(digest.hex()).exists());
        usable.then_some(record)
    }

    /// Remembers a result.
    pub(crate) fn put(&self, key: &Digest, record: &Record) -> Result<(), Error> {
        let path = self.folder.join(key.hex());
        let text = serde_json::to_vec(record).map_err(|e| Error::io("write", &path)(e.into()))?;
        crate::sys::file::write_atomic(&path, &text, false).map_err(Error::io("write", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        let key = |parts: &[&str]| {
            let mut key = Key::new("test");
            key.list(parts);
            key.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a"]), key(&["a"]));
    }

    #[test]
    fn a_record_needs_its_layer() {
        let lib = tempfile::tempdir().unwrap();
        let cache = Cache::open(lib.path()).unwrap();
        let (key, digest) = (Digest::of(b"key"), Digest::of(b"layer"));
        let layer = Layer { digest, diff_id: digest, size: 1, media_type: "x".to_owned() };
        let record = Record::new(Some(&layer));
        cache.put(&key, &record).unwrap();
        assert_eq!(cache.get(&key), None);
        fs_err::create_dir_all(&cache.blobs).unwrap();
        fs_err::write(cache.blobs.join(digest.hex()), "l").unwrap();
        assert_eq!(cache.get(&key).unwrap().layer(), Some(layer));
    }
}
