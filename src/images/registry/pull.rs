//! Fetching an image.

use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use hyper::http::response::Parts;
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};

use super::super::config::Platform;
use super::super::error::Error;
use super::super::index::{Descriptor, Manifest};
use super::super::snapshot::chain;
use super::super::store::{Inner, set_name};
use super::super::{Digest, Image, ImageConfig, Layer, Reference, Store, host, partial};
use super::client::{Ask, Client, Patience};
use super::fetch::{Fetch, range_from, range_start};
use super::gate::{Closing, Gate};
use super::join::try_join;
use super::manifest::{self, Document};
use super::push::unique;
use super::{Failure, PullEvent, Registries, answer};

/// Largest manifest or index, as the distribution specification has it.
const MAX_DOCUMENT: usize = 4 << 20;
/// How deep indexes may lie in each other.
const MAX_INDEXES: usize = 4;

/// How to pull.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// What machine the image shall be for; this one's if none.
    pub platform: Option<Platform>,
}

/// A pulled image.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// Digest of what the name means at the registry: a manifest, or an index for several machines.
    pub digest: Digest,
    /// Whether the store had it already.
    pub up_to_date: bool,
}

/// What a name means at a registry.
#[derive(Debug)]
struct Found {
    /// Digest of the document that the name leads to.
    top: Digest,
    manifest: Manifest,
    /// The manifest as it came, with its media type.
    bytes: Vec<u8>,
    media_type: String,
    config: ImageConfig,
    config_bytes: Vec<u8>,
    layers: Vec<Layer>,
}

impl Store {
    /// Fetches the image that a name means now and gives it the name. What the store has already isn't fetched again;
    /// what an interrupted pull left is gone on with.
    ///
    /// Runs within one task; dropped, it stops, and keeps what came. `progress` hears of the layers.
    pub async fn pull(
        &self,
        registries: &Registries,
        name: &Reference,
        options: &PullOptions,
        progress: &dyn Fn(PullEvent),
    ) -> Result<Pulled, Error> {
        if *name == host::name() {
            return Err(Error::BuiltIn("pulled"));
        }
        let _lease = self.lease()?;
        for client in registries.mirrors(name)? {
            match self.pull_from(&client, name, options, &registries.turns, progress).await {
                Err(error @ (Error::Registry(_) | Error::Mismatch { .. })) => {
                    progress(PullEvent::Warning(format!("mirror {}: {error}", client.host())));
                }
                other => return other,
            }
        }
        self.pull_from(&registries.client(name)?, name, options, &registries.turns, progress).await
    }

    /// Pulls several images side by side; `progress` hears which of them it is about.
    pub async fn pull_all(
        &self,
        registries: &Registries,
        images: &[(Reference, PullOptions)],
        progress: &dyn Fn(usize, PullEvent),
    ) -> Vec<Result<Pulled, Error>> {
        let pulls = images.iter().enumerate().map(async |(at, (name, options))| {
            let pulled = self.pull(registries, name, options, &|event| progress(at, event)).await;
            progress(
                at,
                match &pulled {
                    Ok(pulled) => PullEvent::Pulled { up_to_date: pulled.up_to_date },
                    Err(_) => PullEvent::Failed,
                },
            );
            Ok::<_, std::convert::Infallible>(pulled)
        });
        match try_join(pulls).await {
            Ok(pulled) => pulled,
            Err(never) => match never {},
        }
    }

    async fn pull_from(
        &self,
        client: &Client<'_>,
        name: &Reference,
        options: &PullOptions,
        turns: &Semaphore,
        progress: &dyn Fn(PullEvent),
    ) -> Result<Pulled, Error> {
        if let Some(pulled) = self.unchanged(client, name, options).await? {
            return Ok(pulled);
        }
        let found = find(client, name, options).await?;
        let expected = options.platform.clone().unwrap_or_else(Platform::here);
        let config = &found.config;
        if !config.architecture.is_empty() && config.architecture != expected.architecture {
            let what = format!("{} is for {}/{}, not {expected}", name.familiar(), config.os, config.architecture);
            progress(PullEvent::Warning(what));
        }
        self.fetch_layers(client, &found, turns, progress).await?;
        let image = self.inner.keep(name, &found)?;
        Ok(Pulled { image, digest: found.top, up_to_date: false })
    }

    /// The image as it is in the store, when its name means the same at the registry as at the last pull.
    async fn unchanged(
        &self,
        client: &Client<'_>,
        name: &Reference,
        options: &PullOptions,
    ) -> Result<Option<Pulled>, Error> {
        let catalog = self.inner.catalog()?;
        let Some(entry) = catalog.get(name).cloned() else { return Ok(None) };
        let Some(known) = entry.source().filter(|known| known.repository() == name.repository()) else {
            return Ok(None);
        };
        let (Ok(record), Some(digest)) = (self.inner.record(&entry), known.digest()) else { return Ok(None) };
        let own =
            Platform { architecture: record.config.architecture.clone(), os: record.config.os.clone(), variant: None };
        let fits = options.platform.clone().unwrap_or_else(Platform::here).fits(&own);
        if !fits || !record.layers.iter().all(|layer| self.inner.blobs.has(&layer.digest)) {
            return Ok(None);
        }
        if name.digest() != Some(digest) {
            let doing = format!("looking for {}", name.familiar());
            let target = format!("{}/manifests/{}", client.path, name.tag().unwrap_or("latest"));
            let mut ask = Ask::new(Method::HEAD, target, &doing);
            ask.headers.push((ACCEPT, HeaderValue::from_static(manifest::ACCEPT)));
            let response = client.send(&ask).await?;
            if response.status() != StatusCode::OK || announced(response.headers()) != Some(digest) {
                return Ok(None);
            }
            self.inner.checked(name, &entry)?;
        }
        let image = self.inner.image(&*self.inner.catalog()?, &entry)?;
        Ok(Some(Pulled { image, digest, up_to_date: true }))
    }

    async fn fetch_layers(
        &self,
        client: &Client<'_>,
        found: &Found,
        turns: &Semaphore,
        progress: &dyn Fn(PullEvent),
    ) -> Result<(), Error> {
        let gate = Arc::new(Gate::new(found.layers.len()));
        let closing = Closing(Arc::clone(&gate));
        let (alive, mut ended) = mpsc::channel(1);
        let chain = chain(&found.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>());
        let paths = found.layers.iter().zip(&chain).map(|(layer, id)| self.inner.layer_directory(&layer.diff_id, id));
        let paths: Vec<PathBuf> = paths.collect::<Result<_, _>>()?;
        self.inner.clear_aside()?;
        self.inner.check_space(&found.layers)?;
        let fetch = Fetch {
            inner: &self.inner,
            client,
            layers: &found.layers,
            chain: &chain,
            paths: &paths,
            gate,
            turns,
            progress,
            alive,
        };
        let jobs = fetch.jobs().await?;
        let fetched = try_join(jobs.into_iter().map(|job| fetch.run(job))).await;
        drop((closing, fetch));
        // Threads whose layers won't come take away what they have unpacked.
        while ended.recv().await.is_some() {}
        fetched.map(drop)
    }
}

/// Finds out what a name means: its manifest for the platform, and its configuration.
async fn find(client: &Client<'_>, name: &Reference, options: &PullOptions) -> Result<Found, Error> {
    let platform = options.platform.clone().unwrap_or_else(Platform::here);
    let doing = format!("fetching the manifest of {}", name.familiar());
    let mut at = match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let (mut wanted, mut top) = (name.digest(), None);
    for _ in 0..MAX_INDEXES {
        let (digest, bytes, content_type) = document(client, name, &at, wanted, &doing).await?;
        let top = *top.get_or_insert(digest);
        let wrong = |why| client.protocol(&doing, why);
        let (media_type, document) = manifest::read(&bytes, content_type.as_deref()).map_err(wrong)?;
        match document {
            Document::Index(index) => {
                let chosen = manifest::choose(&index, &platform).map_err(|found| Failure::Platform {
                    name: name.familiar(),
                    wanted: platform.to_string(),
                    found,
                })?;
                at = chosen.digest.to_string();
                wanted = Some(chosen.digest);
            }
            Document::Manifest(manifest) => {
                manifest::check(&manifest).map_err(wrong)?;
                let config_bytes = configuration(client, &manifest.config).await?;
                let config: ImageConfig = serde_json::from_slice(&config_bytes)
                    .map_err(|e| wrong(format!("the image's configuration cannot be read: {e}")))?;
                let layers = manifest::layers(&manifest, &config).map_err(wrong)?;
                return Ok(Found { top, manifest, bytes, media_type, config, config_bytes, layers });
            }
        }
    }
    Err(client.protocol(&doing, format!("it leads from index to index, more than {MAX_INDEXES} times")))
}

/// Asks for a small document until it comes whole: its head, and its body of at most `limit` bytes. With `resume` what came
/// before a connection broke isn't asked for again.
async fn whole(client: &Client<'_>, mut ask: Ask<'_>, limit: usize, resume: bool) -> Result<(Parts, Vec<u8>), Error> {
    let mut patience = Patience::new();
    let mut bytes = Vec::new();
    loop {
        let response = client.send(&ask).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if range_start(response.headers()) == Some(bytes.len() as u64) => {}
            StatusCode::OK => bytes.clear(),
            _ => return Err(client.refused(response, ask.doing).await),
        }
        let (head, body) = response.into_parts();
        match answer::read(body, &mut bytes, limit, &client.host(), ask.doing, client.net.settings.stall).await {
            Err(Error::Registry(failure)) if failure.is_passing() => match patience.next(None) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(Error::Registry(failure)),
            },
            other => return other.map(|()| (head, bytes)),
        }
        ask.headers.retain(|(name, _)| name != RANGE);
        if resume && !bytes.is_empty() {
            ask.headers.extend(range_from(bytes.len() as u64));
        }
    }
}

/// A manifest or an index: its digest, its bytes and how it came. Its digest is right.
pub(super) async fn document(
    client: &Client<'_>,
    name: &Reference,
    at: &str,
    wanted: Option<Digest>,
    doing: &str,
) -> Result<(Digest, Vec<u8>, Option<String>), Error> {
    let mut ask = Ask::new(Method::GET, format!("{}/manifests/{at}", client.path), doing);
    ask.headers.push((ACCEPT, HeaderValue::from_static(manifest::ACCEPT)));
    let (head, bytes) = whole(client, ask, MAX_DOCUMENT, false).await.map_err(|error| match error {
        Error::Registry(failure) => match *failure {
            Failure::NotFound { host, detail, .. } => Failure::NotFound { host, name: name.familiar(), detail }.into(),
            other => other.into(),
        },
        other => other,
    })?;
    let announced = announced(&head.headers);
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let found = Digest::of(&bytes);
    match wanted.or(announced) {
        Some(wanted) if wanted != found => {
            Err(Error::Mismatch { what: format!("the manifest of {}", name.familiar()), wanted, found })
        }
        _ => Ok((found, bytes, content_type)),
    }
}

pub(super) fn announced(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

async fn configuration(client: &Client<'_>, at: &Descriptor) -> Result<Vec<u8>, Error> {
    let doing = "fetching the image's configuration";
    let ask = Ask::new(Method::GET, format!("{}/blobs/{}", client.path, at.digest), doing);
    let limit = usize::try_from(at.size.min(manifest::MAX_CONFIG)).unwrap_or(usize::MAX);
    let (_, bytes) = whole(client, ask, limit, true).await?;
    let found = Digest::of(&bytes);
    if found != at.digest || bytes.len() as u64 != at.size {
        return Err(Error::Mismatch { what: "the image's configuration".to_owned(), wanted: at.digest, found });
    }
    Ok(bytes)
}

impl Inner {
    /// Enters an image whose layers are there under its name.
    fn keep(&self, name: &Reference, found: &Found) -> Result<Image, Error> {
        self.blobs.put(&found.config_bytes)?;
        let digest = self.blobs.put(&found.bytes)?;
        let mut entry = Descriptor::new(&found.media_type, digest, found.bytes.len() as u64);
        let size = found.layers.iter().map(|layer| layer.size).sum();
        entry.note(found.manifest.config.digest, found.config.created, size);
        let entry = entry.at_registry(&name.with_digest(found.top), Timestamp::now());
        // By digest alone where a digest was asked for: the tag may mean something else by now.
        let known_as = name.digest().map_or_else(|| name.clone(), |digest| name.with_digest(digest));
        self.update(|index| set_name(index, &entry, &known_as))?;
        let catalog = self.catalog()?;
        let entry = catalog.get(&known_as).cloned().unwrap_or(entry);
        self.image(&catalog, &entry)
    }

    /// Notes that a name was found to mean the same as before.
    fn checked(&self, name: &Reference, entry: &Descriptor) -> Result<(), Error> {
        let Some(source) = entry.source() else { return Ok(()) };
        let now = Timestamp::now();
        self.update(|index| {
            let entry = index.manifests.iter_mut().find(|other| other.name().as_ref() == Some(name));
            if let Some(entry) = entry {
                *entry = entry.at_registry(&source, now);
            }
        })
    }

    /// Whether the blobs that are missing fit on the disk; unpacking has its own check.
    fn check_space(&self, layers: &[Layer]) -> Result<(), Error> {
        let missing = unique(layers).into_iter().filter(|layer| !self.blobs.has(&layer.digest));
        let needed = missing.map(|layer| layer.size.saturating_sub(partial::size(&self.blobs, layer.digest))).sum();
        if needed > self.blobs.free() { Err(self.blobs.no_space(needed)) } else { Ok(()) }
    }
}
