//! Saving images into one archive: an OCI image layout that is a `docker save` archive at the same time.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write};

use serde::Serialize;

use super::error::{Doing as _, Error};
use super::index::{Descriptor, Index};
use super::tar::{Entry, Kind, Time, Writer};
use super::{Digest, Image, Store, host};

/// An entry of `manifest.json`, Docker's own table of contents.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

impl Store {
    /// Writes images with all their names and content. Docker, podman, skopeo and [`Store::load`] read it.
    pub fn save(&self, images: &[Image], into: impl Write) -> Result<(), Error> {
        let _lease = self.lease()?;
        let mut index = Index::default();
        let mut listed = Vec::new();
        let mut blobs = BTreeSet::new();
        let catalog = self.inner.catalog()?;
        for image in images {
            if image.digest == host::image().digest {
                return Err(Error::BuiltIn("saved"));
            }
            let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
            let size = self
                .inner
                .blobs
                .open_blob(&image.digest)?
                .metadata()
                .doing(|| "looking at a manifest".to_owned())?
                .len();
            let entry = Descriptor::new(super::index::MANIFEST_TYPE, image.digest, size);
            let names = catalog.names(&image.digest);
            let tagged: Vec<_> = names.iter().filter(|name| name.digest().is_none()).collect();
            index.manifests.extend(tagged.iter().map(|name| entry.named_for_all(name)));
            if tagged.is_empty() {
                index.manifests.push(entry);
            }
            listed.push(Listed {
                config: path(&image.id),
                repo_tags: tagged.iter().map(|name| name.familiar()).collect(),
                layers: image.layers.iter().map(|layer| path(&layer.digest)).collect(),
            });
            blobs.extend([image.id, image.digest]);
            blobs.extend(image.layers.iter().map(|layer| layer.digest));
        }
        let mut out = Writer::new(into);
        let writing = || "writing the archive".to_owned();
        let json = |what: &str, source| Error::Json { what: what.to_owned(), source };
        document(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).doing(writing)?;
        for digest in blobs {
            let blob = self.inner.blobs.open_blob(&digest)?;
            let size = blob.metadata().doing(writing)?.len();
            out.entry(&member(&format!("blobs/sha256/{}", digest.hex()), size)).doing(writing)?;
            io::copy(&mut blob.take(size), &mut out).doing(|| format!("writing blob {digest} into the archive"))?;
        }
        let index = serde_json::to_vec(&index).map_err(|e| json("index.json", e))?;
        let listed = serde_json::to_vec(&listed).map_err(|e| json("manifest.json", e))?;
        document(&mut out, "index.json", &index).doing(writing)?;
        document(&mut out, "manifest.json", &listed).doing(writing)?;
        out.finish().map(|_| ()).doing(writing)
    }
}

fn document(out: &mut Writer<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    out.entry(&member(name, content.len() as u64))?;
    out.write_all(content)
}

fn member(name: &str, size: u64) -> Entry {
    Entry {
        name: name.into(),
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        xattrs: Vec::new(),
        size,
        sparse: None,
    }
}
