//! Loading images from one archive: an OCI image layout, or what `docker save` of any age or `podman save` writes.
//!
//! The archive is read once, from any stream: every file goes into the store as a blob while it passes, and only then is it
//! known from the tables of contents which are what. Nothing counts before its digest is right.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::add::scan;
use super::compression::{self, Compression};
use super::error::{Doing as _, Error, is_full, printable};
use super::index::Index;
use super::store::set_name;
use super::tar::{Kind, Reader};
use super::{Digest, Image, ImageConfig, Layer, Reference, Store, host, pipeline};

/// Most files in an archive: far more than any image has layers.
const MAX_FILES: usize = 100_000;

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// What an archive held.
#[derive(Debug, Default)]
struct Content {
    /// Digest and size of each file, by its path.
    files: HashMap<PathBuf, (Digest, u64)>,
    /// Old archives hold a layer that is there twice as a link.
    links: HashMap<PathBuf, PathBuf>,
}

impl Store {
    /// Loads all images of an archive (plain, gzip or zstd), with their names.
    pub fn load(&self, archive: impl Read + Send) -> Result<Vec<Image>, Error> {
        let _lease = self.lease()?;
        let (_, plain) = compression::decode(BufReader::new(archive)).doing(|| "reading the archive".to_owned())?;
        let content = self.take_in(&mut Reader::new(BufReader::with_capacity(256 << 10, plain)))?;
        if content.get("index.json").is_some() && content.get("oci-layout").is_some() {
            return self.load_layout(&content);
        }
        let Some((table, _)) = content.get("manifest.json") else {
            return Err(Error::Unsupported {
                what: "the archive".to_owned(),
                why: "it holds no image: neither index.json nor manifest.json (a root file system is taken by `stack image import`)".to_owned(),
            });
        };
        let table: Vec<Listed> = self.inner.json(&table, "manifest.json")?;
        table.iter().map(|listed| self.load_listed(&content, listed)).collect()
    }

    /// Stores every file of the archive.
    fn take_in(&self, archive: &mut Reader<impl std::io::BufRead>) -> Result<Content, Error> {
        let mut content = Content::default();
        while let Some(entry) = archive.next()? {
            let Some(path) = plain_path(&entry.name) else {
                return Err(archive.error("its path leads out of the archive"));
            };
            if content.files.len() + content.links.len() > MAX_FILES {
                return Err(Error::TooLarge(format!("the archive has more than {MAX_FILES} files")));
            }
            match entry.kind {
                Kind::File if entry.sparse.is_some() => return Err(archive.error("it is sparse")),
                Kind::File if path.ends_with("VERSION") || path.ends_with("json") => {}
                Kind::File => {
                    let mut blob = self.inner.blobs.create()?;
                    let mut left = entry.size;
                    loop {
                        let bytes = archive.data()?;
                        if bytes.is_empty() {
                            break;
                        }
                        match blob.write(bytes) {
                            Err(e) if is_full(&e) => return Err(self.inner.blobs.no_space(left)),
                            other => other.doing(|| format!("storing `{}`", printable(&entry.name)))?,
                        }
                        let n = bytes.len();
                        left -= n as u64;
                        archive.consume(n);
                    }
                    let stored = blob.store()?;
                    if let Ok(hex) = path.strip_prefix("blobs/sha256")
                        && hex.to_str().and_then(Digest::from_hex) != Some(stored.0)
                    {
                        return Err(archive.error(format!("its digest is {}", stored.0)));
                    }
                    content.files.insert(path, stored);
                }
                Kind::Symlink(target) => {
                    let beside = path.parent().unwrap_or(Path::new(""));
                    if let Some(target) =
                        std::str::from_utf8(&target).ok().and_then(|target| inside(&beside.join(target)))
                    {
                        content.links.insert(path, target);
                    }
                }
                Kind::Hardlink(target) => {
                    if let Some(target) = plain_path(&target) {
                        content.links.insert(path, target);
                    }
                }
                _ => {}
            }
        }
        Ok(content)
    }

    fn load_layout(&self, content: &Content) -> Result<Vec<Image>, Error> {
        let (index, _) = content.get("index.json").ok_or_else(|| missing("index.json"))?;
        let index: Index = self.inner.json(&index, "index.json")?;
        let mut images: Vec<Image> = Vec::new();
        for entry in &index.manifests {
            let name = entry.name();
            let record = match self.inner.record(entry) {
                // An attestation beside the image: an index lists it like one.
                Err(Error::Unsupported { .. }) if index.manifests.len() > 1 && name.is_none() => continue,
                other => other?,
            };
            for layer in &record.layers {
                self.check_layer(layer)?;
            }
            let mut entry = entry.named(None);
            entry.note(record.id, record.config.created, record.size());
            self.inner.update(|index| match &name {
                Some(name) if *name != host::name() => set_name(index, &entry, name),
                _ if index.manifests.iter().any(|other| other.digest == entry.digest) => {}
                _ => index.manifests.push(entry.clone()),
            })?;
            images.retain(|image| image.id != record.id);
            images.push(self.inner.image(&*self.inner.catalog()?, &entry)?);
        }
        Ok(images)
    }

    fn load_listed(&self, content: &Content, listed: &Listed) -> Result<Image, Error> {
        let (id, _) = content.get(&listed.config).ok_or_else(|| missing(&listed.config))?;
        let document = self.inner.blobs.document(&id)?;
        let config: ImageConfig = serde_json::from_slice(&document)
            .map_err(|source| Error::Json { what: format!("image configuration {id}"), source })?;
        if config.rootfs.diff_ids.len() != listed.layers.len() {
            return Err(Error::Unsupported {
                what: format!("image {id}"),
                why: "manifest.json and its configuration differ in the number of layers".to_owned(),
            });
        }
        let mut layers = Vec::new();
        for (path, diff_id) in listed.layers.iter().zip(&config.rootfs.diff_ids) {
            let (digest, size) = content.get(path).ok_or_else(|| missing(path))?;
            let blob = BufReader::new(self.inner.blobs.open_blob(&digest)?);
            let (compression, _) = compression::decode(blob).doing(|| format!("reading layer {digest}"))?;
            let layer = Layer { digest, diff_id: *diff_id, size, media_type: compression.media_type().to_owned() };
            self.check_layer(&layer)?;
            layers.push(layer);
        }
        let names: Vec<Reference> =
            listed.repo_tags.iter().flatten().map(|text| Reference::parse(text)).collect::<Result<_, _>>()?;
        self.put_config(&document, &layers, &names)
    }

    /// Checks that a layer's archive is the one that the configuration means.
    fn check_layer(&self, layer: &Layer) -> Result<(), Error> {
        if layer.digest == layer.diff_id && layer.media_type == Compression::None.media_type() {
            return if self.inner.blobs.has(&layer.digest) { Ok(()) } else { Err(Error::MissingBlob(layer.digest)) };
        }
        let read = pipeline::read(self.inner.blobs.open_blob(&layer.digest)?, Some(layer.digest), |_| Ok(()), scan)?;
        if read.diff_id == layer.diff_id {
            return Ok(());
        }
        let what = format!("the archive in layer {}", layer.digest);
        Err(Error::Mismatch { what, wanted: layer.diff_id, found: read.diff_id })
    }
}

impl Content {
    /// Digest and size of a file, through one link.
    fn get(&self, path: &str) -> Option<(Digest, u64)> {
        let path = plain_path(path.as_bytes())?;
        self.files.get(self.links.get(&path).unwrap_or(&path)).copied()
    }
}

fn missing(path: &str) -> Error {
    Error::Unsupported {
        what: "the archive".to_owned(),
        why: format!("`{}` is missing in it", printable(path.as_bytes())),
    }
}

/// A path as the key that it is looked up by; none where it would lead out.
fn plain_path(name: &[u8]) -> Option<PathBuf> {
    inside(Path::new(std::str::from_utf8(name).ok()?))
}

fn inside(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::CurDir => {}
            Component::ParentDir if plain.pop() => {}
            _ => return None,
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::images::tar::{Entry, Time, Writer};

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    fn archive(members: &[(&str, Kind, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        for (name, kind, content) in members {
            let entry = Entry {
                name: name.as_bytes().to_vec(),
                kind: kind.clone(),
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: Time::default(),
                xattrs: Vec::new(),
                size: content.len() as u64,
                sparse: None,
            };
            writer.entry(&entry).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_saved_is_loaded_elsewhere() {
        let (_one, first) = store();
        let tar = zstd::encode_all(archive(&[("f", Kind::File, b"x")]).as_slice(), 1).unwrap();
        let name = Reference::parse("app:1").unwrap();
        let image = first.import(tar.as_slice(), Some(&name), &["CMD [\"a\"]".to_owned()]).unwrap();
        first.tag(&image, &Reference::parse("ghcr.io/x/y:2").unwrap()).unwrap();
        let nameless = first.import(archive(&[("g", Kind::File, b"y")]).as_slice(), None, &[]).unwrap();
        let mut saved = Vec::new();
        first.save(&[image.clone(), nameless.clone()], &mut saved).unwrap();

        let (_two, second) = store();
        let loaded = second.load(saved.as_slice()).unwrap();
        assert_eq!(loaded.iter().map(|image| image.id).collect::<Vec<_>>(), [image.id, nameless.id]);
        assert_eq!(second.find("app:1").unwrap(), first.find("app:1").unwrap());
        assert_eq!(second.find("ghcr.io/x/y:2").unwrap().unwrap().id, image.id);
        assert!(second.rootfs(&loaded[0], None).is_ok());
        // A second time changes nothing.
        assert_eq!(second.load(saved.as_slice()).unwrap(), second.load(saved.as_slice()).unwrap());
        assert_eq!(second.list().unwrap().len(), 3);
    }

    #[test]
    fn old_archives_are_loaded() {
        let layer = archive(&[("f", Kind::File, b"x")]);
        let diff_id = Digest::of(&layer);
        let config = format!(
            r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#
        );
        let table = br#"[{"Config":"c.json","RepoTags":["old:1"],"Layers":["a/layer.tar","b/layer.tar"]}]"#;
        let old = archive(&[
            ("a/VERSION", Kind::File, b"1.0"),
            ("a/layer.tar", Kind::File, &layer),
            ("b/layer.tar", Kind::Symlink(b"../a/layer.tar".to_vec()), b""),
            ("c.json", Kind::File, config.as_bytes()),
            ("manifest.json", Kind::File, table),
        ]);
        let (_directory, store) = store();
        let images = store.load(old.as_slice()).unwrap();
        assert_eq!(images[0].id, Digest::of(config.as_bytes()));
        assert_eq!(store.find("old:1").unwrap().unwrap().layers.len(), 2);
        assert!(store.rootfs(&images[0], None).is_ok());
    }

    #[test]
    fn forged_and_foreign_archives_are_refused() {
        let (_directory, store) = store();
        let blob = format!("blobs/sha256/{}", Digest::of(b"other").hex());
        let layer = archive(&[("f", Kind::File, b"x")]);
        let lie = format!(r#"{{"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#, Digest::of(b"lie"));
        let table: &[u8] = br#"[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]"#;
        for bad in [
            archive(&[(&blob, Kind::File, b"content")]),
            archive(&[("etc/passwd", Kind::File, b"root")]),
            archive(&[("../x", Kind::File, b"x")]),
            archive(&[("manifest.json", Kind::File, table)]),
            archive(&[
                ("manifest.json", Kind::File, table),
                ("c.json", Kind::File, lie.as_bytes()),
                ("l.tar", Kind::File, &layer),
            ]),
            archive(&[("manifest.json", Kind::File, b"{")]),
        ] {
            assert!(store.load(bad.as_slice()).is_err());
        }
        assert!(store.list().unwrap().is_empty());
        assert!(store.collector(|| Ok(Vec::new())).unwrap().prune(false, None).is_ok());
    }
}
