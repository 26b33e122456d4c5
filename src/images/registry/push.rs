//! Bringing an image to a registry.

use std::collections::BTreeMap;

use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use jiff::Timestamp;

use super::super::blobs::Pending;
use super::super::compression::Compression;
use super::super::error::{Doing as _, Error};
use super::super::index::{CONFIG_TYPE, Catalog, Descriptor, MANIFEST_TYPE, Manifest};
use super::super::{Digest, Layer, Reference, Store};
use super::client::{Ask, Client};
use super::join::try_join;
use super::upload::{Content, Upload, begin, exists};
use super::{LayerState, PullEvent, Registries};

/// How well layers are compressed: fast, for the network is seldom slower.
const LEVEL: u32 = 4;

impl Store {
    /// Brings the image of that name to the name's registry: the digest of its manifest there.
    ///
    /// Blobs that the registry has, there or in another repository that the image came from, are not sent. Layers stored
    /// uncompressed, as builds make them, are sent as gzip.
    pub async fn push(
        &self,
        registries: &Registries,
        name: &Reference,
        progress: &dyn Fn(PullEvent),
    ) -> Result<Digest, Error> {
        let _lease = self.lease()?;
        let catalog = self.inner.catalog()?;
        let image = self.find(&name.to_string())?.ok_or_else(|| Error::NotFound(name.familiar()))?;
        if image.host {
            return Err(Error::BuiltIn("pushed, nor can what is built from it"));
        }
        let entry = catalog.get(name).cloned().ok_or_else(|| Error::NotFound(name.familiar()))?;
        let mut client = registries.client(name)?;
        client.scopes = vec![format!("repository:{}:pull,push", client.path)];
        let origins = self.origins(name, &image.layers)?;
        let mut others: Vec<&String> = origins.values().collect();
        others.sort_unstable();
        others.dedup();
        client.scopes.extend(others.into_iter().map(|path| format!("repository:{path}:pull")));

        let packed = try_join(unique(&image.layers).into_iter().map(async |layer| {
            let _turn = registries.turns.acquire().await;
            self.send_layer(&client, layer, &catalog, origins.get(&layer.digest), progress).await
        }));
        let packed: BTreeMap<Digest, Layer> = packed.await?.into_iter().collect();
        let config = self.inner.blobs.open_blob(&image.id)?;
        let size = config.metadata().doing(|| format!("looking at blob {}", image.id))?.len();
        let content = Content { digest: image.id, size, file: config };
        Upload { client: &client, content: &content, from: None, progress: &|_| () }.run().await?;

        let layers: Vec<&Layer> = image.layers.iter().map(|layer| packed.get(&layer.digest).unwrap_or(layer)).collect();
        let (bytes, media_type) = if layers.iter().zip(&image.layers).all(|(sent, own)| sent.digest == own.digest) {
            (self.inner.blobs.document(&image.digest)?, entry.media_type.clone())
        } else {
            let describe = |layer: &&Layer| Descriptor::new(&layer.media_type, layer.digest, layer.size);
            let manifest = Manifest {
                schema_version: 2,
                media_type: MANIFEST_TYPE.to_owned(),
                config: Descriptor::new(CONFIG_TYPE, image.id, size),
                layers: layers.iter().map(describe).collect(),
            };
            let json = |source| Error::Json { what: "the manifest".to_owned(), source };
            (serde_json::to_vec(&manifest).map_err(json)?, MANIFEST_TYPE.to_owned())
        };
        let digest = put_manifest(&client, name, bytes, &media_type).await?;
        let source = name.with_digest(digest);
        self.inner.update(|index| {
            for other in index.manifests.iter_mut().filter(|other| other.name().as_ref() == Some(name)) {
                *other = other.at_registry(&source, Timestamp::now());
                for (own, sent) in &packed {
                    other.note_packed(own, &sent.digest, sent.size);
                }
            }
        })?;
        Ok(digest)
    }

    /// Sends one layer: its stored digest, and what it is at the registry.
    async fn send_layer(
        &self,
        client: &Client<'_>,
        layer: &Layer,
        catalog: &Catalog,
        from: Option<&String>,
        progress: &dyn Fn(PullEvent),
    ) -> Result<(Digest, Layer), Error> {
        let tell = |state| progress(PullEvent::Layer { digest: layer.digest, state });
        if layer.media_type != Compression::None.media_type() {
            let content =
                Content { digest: layer.digest, size: layer.size, file: self.inner.blobs.open_blob(&layer.digest)? };
            let sent = Upload { client, content: &content, from, progress: &tell }.run().await?;
            tell(if sent { LayerState::Done } else { LayerState::Exists });
            return Ok((layer.digest, layer.clone()));
        }
        let packed = |digest, size| {
            let media_type = Compression::Gzip.media_type().to_owned();
            Layer { digest, size, media_type, diff_id: layer.diff_id }
        };
        if let Some((digest, size)) = catalog.index.manifests.iter().find_map(|entry| entry.packed(&layer.digest))
            && (exists(client, &digest).await? || from.is_some() && begin(client, &digest, from).await?.is_none())
        {
            tell(LayerState::Exists);
            return Ok((layer.digest, packed(digest, size)));
        }
        tell(LayerState::Packing);
        let content = self.pack(layer).await?;
        let sent = Upload { client, content: &content, from: None, progress: &tell }.run().await?;
        tell(if sent { LayerState::Done } else { LayerState::Exists });
        Ok((layer.digest, packed(content.digest, content.size)))
    }

    /// Compresses a layer, on a thread of its own, into a file without a name.
    async fn pack(&self, layer: &Layer) -> Result<Content, Error> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let (store, digest) = (self.clone(), layer.digest);
        let thread = std::thread::Builder::new().name("pack".to_owned()).spawn(move || {
            let packing = || format!("compressing layer {}", digest.short());
            let pack = || {
                let mut blob = store.inner.blobs.open_blob(&digest)?;
                let pending = store.inner.blobs.create()?;
                let mut encoder = flate2::write::GzEncoder::new(pending, flate2::Compression::new(LEVEL));
                std::io::copy(&mut blob, &mut encoder).doing(packing)?;
                let pending: Pending<'_> = encoder.finish().doing(packing)?;
                let (file, digest, size) = pending.unnamed();
                Ok(Content { digest, size, file })
            };
            // Nobody waits any more when the command was interrupted.
            let _ = tell.send(pack());
        });
        thread.doing(|| "starting a thread".to_owned())?;
        told.await.unwrap_or_else(|_| {
            Err(Error::Io { what: "compressing a layer".to_owned(), source: std::io::ErrorKind::Interrupted.into() })
        })
    }

    /// Other repositories of the same registry that have a layer already, as far as the store knows.
    fn origins(&self, name: &Reference, layers: &[Layer]) -> Result<BTreeMap<Digest, String>, Error> {
        let mut origins = BTreeMap::new();
        for entry in &self.inner.catalog()?.index.manifests {
            let elsewhere =
                entry.source().filter(|source| source.domain() == name.domain() && source.path() != name.path());
            let (Some(source), Ok(record)) = (elsewhere, self.inner.record(entry)) else { continue };
            for layer in record.layers.iter().filter(|layer| layers.iter().any(|own| own.digest == layer.digest)) {
                origins.insert(layer.digest, source.path().to_owned());
            }
        }
        Ok(origins)
    }
}

/// Each layer once.
pub(super) fn unique(layers: &[Layer]) -> Vec<&Layer> {
    let mut seen = std::collections::BTreeSet::new();
    layers.iter().filter(|layer| seen.insert(layer.digest)).collect()
}

async fn put_manifest(
    client: &Client<'_>,
    name: &Reference,
    bytes: Vec<u8>,
    media_type: &str,
) -> Result<Digest, Error> {
    let doing = format!("pushing the manifest of {}", name.familiar());
    let digest = Digest::of(&bytes);
    let tag = name.tag().map_or_else(|| digest.to_string(), str::to_owned);
    let mut ask = Ask::new(Method::PUT, format!("{}/manifests/{tag}", client.path), &doing);
    let media_type = HeaderValue::from_str(media_type);
    ask.headers.extend(media_type.into_iter().map(|media_type| (CONTENT_TYPE, media_type)));
    ask.body = Some(bytes.into());
    let response = client.send(&ask).await?;
    match response.status() {
        StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => Ok(digest),
        _ => Err(client.refused(response, &doing).await),
    }
}
