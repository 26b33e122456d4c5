//! The layers of one image, side by side.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, RANGE};
use hyper::{Method, StatusCode};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::super::error::{Doing as _, Error};
use super::super::partial::Partial;
use super::super::store::Inner;
use super::super::{Digest, Layer, unsynced};
use super::client::{Ask, Client, Patience};
use super::gate::{Gate, Unfinished};
use super::receive::{Ended, Full, Receiving, Wanted, receive, unpack_stored};
use super::{Failure, LayerState, PullEvent, answer};

/// A transfer that breaks after at least so many bytes may break again.
const PROGRESS: u64 = 1 << 20;
/// Between two reports of how much came.
const REPORT: u64 = 256 << 10;

/// What all layers of a pull share.
pub(super) struct Fetch<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) client: &'a Client<'a>,
    pub(super) layers: &'a [Layer],
    pub(super) chain: &'a [Digest],
    pub(super) paths: &'a [PathBuf],
    pub(super) gate: Arc<Gate>,
    /// Layers at a time, from the first byte to the last file: that is what bounds memory.
    pub(super) turns: &'a Semaphore,
    pub(super) progress: &'a dyn Fn(PullEvent),
    /// Lives as long as any thread that works on a layer.
    pub(super) alive: mpsc::Sender<Infallible>,
}

/// One blob, and the layers that are made of it: mostly one.
#[derive(Debug)]
pub(super) struct Job {
    layers: Vec<usize>,
    /// What to receive it into; none when the store has it.
    partial: Option<Partial>,
}

impl Fetch<'_> {
    /// One job per blob, lowest layer first. Waits while other processes receive the same blobs.
    ///
    /// The locks of all blobs are taken here, in the order of their digests, and before anything else: so two pulls that
    /// want the same blobs in another order never wait for each other.
    pub(super) async fn jobs(&self) -> Result<Vec<Job>, Error> {
        let mut by_digest: BTreeMap<Digest, Vec<usize>> = BTreeMap::new();
        for (at, layer) in self.layers.iter().enumerate() {
            by_digest.entry(layer.digest).or_default().push(at);
        }
        let mut jobs = Vec::new();
        for (digest, layers) in by_digest {
            jobs.push(Job { layers, partial: self.lock(digest).await? });
        }
        jobs.sort_by_key(|job| job.layers[0]);
        for job in jobs.iter().filter(|job| job.partial.is_some()) {
            self.tell(job.layers[0], LayerState::Waiting);
        }
        Ok(jobs)
    }

    async fn lock(&self, digest: Digest) -> Result<Option<Partial>, Error> {
        let locking = || format!("locking blob {digest}");
        match Partial::open(&self.inner.blobs, digest, false) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => return other.doing(locking),
        }
        (self.progress)(PullEvent::Layer { digest, state: LayerState::Elsewhere });
        let (tell, told) = oneshot::channel();
        let inner = Arc::clone(self.inner);
        let thread = std::thread::Builder::new().name("lock".to_owned()).spawn(move || {
            let _ = tell.send(Partial::open(&inner.blobs, digest, true));
        });
        thread.doing(locking)?;
        told.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into())).doing(locking)
    }

    /// Receives a blob and unpacks its layers.
    ///
    /// Turns are given in the order of asking, to the lowest layer of each blob, and the others need none. So whoever waits for
    /// a lower layer in its turn knows that this one has had its own.
    pub(super) async fn run(&self, job: Job) -> Result<(), Error> {
        let mut turn = self.turns.acquire().await.ok();
        let mut layers = job.layers.into_iter();
        if let (Some(partial), Some(first)) = (job.partial, layers.as_slice().first().copied()) {
            layers.next();
            self.transfer(first, partial).await?;
            self.gate.done(first);
            self.tell(first, LayerState::Done);
            turn = None;
        }
        for at in layers {
            let there = unsynced::is_whole(&self.paths[at]);
            if !there {
                self.tell(at, LayerState::Unpacking);
                unpack_stored(self.wanted(at))?.await.map_err(|_| gone())??;
            }
            self.gate.done(at);
            self.tell(at, if there { LayerState::Exists } else { LayerState::Done });
            turn = None;
        }
        drop(turn);
        Ok(())
    }

    fn wanted(&self, at: usize) -> Wanted {
        Wanted {
            inner: Arc::clone(self.inner),
            layer: self.layers[at].clone(),
            chain_id: self.chain[at],
            below: Unfinished::new(Arc::clone(&self.gate), at, self.paths[..at].to_vec()),
            _alive: self.alive.clone(),
        }
    }

    fn tell(&self, at: usize, state: LayerState) {
        (self.progress)(PullEvent::Layer { digest: self.layers[at].digest, state });
    }

    /// Receives one blob, once more from the start where what came was wrong.
    async fn transfer(&self, at: usize, mut partial: Partial) -> Result<(), Error> {
        let layer = &self.layers[at];
        let keeping = || format!("keeping layer {}", layer.digest);
        let mut wanted = self.wanted(at);
        let mut again = true;
        loop {
            let mut begin = partial.len().doing(keeping)?;
            if begin > layer.size {
                partial.clear().doing(keeping)?;
                begin = 0;
            }
            let Receiving { feed, end } = receive(wanted, partial)?;
            let transferred = self.download(at, begin, &feed).await;
            drop(feed);
            if transferred.is_ok() {
                self.tell(at, LayerState::Unpacking);
            }
            let Ended { wanted: back, rest, result } = end.await.map_err(|_| gone())?;
            let Err(error) = result else { return Ok(()) };
            let Some(rest) = rest else { return Err(self.explain(error, layer)) };
            // Where the network failed, that is the reason, and what came is kept.
            if let Err(error) = transferred {
                if rest.len().is_ok_and(|len| len == 0) {
                    rest.discard();
                }
                return Err(error);
            }
            let wrong = matches!(error, Error::Mismatch { wanted, .. } if wanted == layer.digest);
            if !(again && wrong) {
                let error = self.explain(error, layer);
                if !matches!(error, Error::NoSpace { .. }) {
                    rest.discard();
                }
                return Err(error);
            }
            self.tell(at, LayerState::Retrying(error.to_string()));
            rest.clear().doing(keeping)?;
            again = false;
            (wanted, partial) = (back, rest);
        }
    }

    /// Says which layer it was, and how much space it takes.
    fn explain(&self, error: Error, layer: &Layer) -> Error {
        match error {
            Error::Mismatch { wanted, found, .. } if wanted == layer.digest => Error::Mismatch {
                what: format!("layer {} from {}", layer.digest.short(), self.client.host()),
                wanted,
                found,
            },
            Error::Io { source, what } => match source.get_ref().and_then(|full| full.downcast_ref::<Full>()) {
                Some(&Full { needed, free }) => {
                    Error::NoSpace { place: self.inner.blobs.aside().display().to_string(), needed, free }
                }
                None => Error::Io { what, source },
            },
            other => other,
        }
    }

    /// Downloads a blob from `begin` on into `feed`, going on where the connection breaks.
    async fn download(&self, at: usize, begin: u64, feed: &mpsc::Sender<bytes::Bytes>) -> Result<(), Error> {
        let (layer, client) = (&self.layers[at], self.client);
        let doing = format!("fetching layer {}", layer.digest.short());
        let (mut done, mut told) = (begin, begin);
        self.tell(at, LayerState::Transferring { done, total: layer.size });
        let mut patience = Patience::new();
        let mut since = begin;
        while done < layer.size {
            let mut ask = Ask::new(Method::GET, format!("{}/blobs/{}", client.path, layer.digest), &doing);
            if done > 0 {
                ask.headers.extend(range_from(done));
            }
            let response = client.send(&ask).await?;
            // A registry that knows no ranges sends all of it again.
            let mut skip = match response.status() {
                StatusCode::OK => done,
                StatusCode::PARTIAL_CONTENT => {
                    let from = range_start(response.headers()).unwrap_or(done);
                    done.checked_sub(from).ok_or_else(|| {
                        client.protocol(&doing, format!("asked for byte {done} on, it sent byte {from} on"))
                    })?
                }
                _ => return Err(client.refused(response, &doing).await),
            };
            if let Some(length) = length(response.headers())
                && length != layer.size - done + skip
            {
                let why = format!(
                    "the manifest says {} bytes, but it sends {}",
                    layer.size,
                    done + length - skip.min(length)
                );
                return Err(client.protocol(&doing, why));
            }
            let mut body = response.into_body();
            let broken = loop {
                match answer::piece(&mut body, &client.host(), &doing, client.net.settings.stall).await {
                    Ok(Some(mut piece)) => {
                        let over = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
                        skip -= over as u64;
                        let piece = piece.split_off(over);
                        if piece.len() as u64 > layer.size - done {
                            let why = format!("it is longer than the {} bytes that the manifest says", layer.size);
                            return Err(client.protocol(&doing, why));
                        }
                        done += piece.len() as u64;
                        if !piece.is_empty() && feed.send(piece).await.is_err() {
                            // The other end failed, and says why.
                            return Ok(());
                        }
                        if done - told >= REPORT {
                            told = done;
                            self.tell(at, LayerState::Transferring { done, total: layer.size });
                        }
                    }
                    Ok(None) if done == layer.size => return Ok(()),
                    Ok(None) => {
                        let why = format!("{done} of {} bytes came", layer.size);
                        break Failure::Broken { host: client.host(), doing: doing.clone(), why };
                    }
                    Err(failure) => break failure,
                }
            };
            if done == layer.size {
                return Ok(());
            }
            if done - since >= PROGRESS {
                (patience, since) = (Patience::new(), done);
            }
            let Some(wait) = patience.next(None) else { return Err(broken.into()) };
            self.tell(at, LayerState::Retrying(broken.to_string()));
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }
}

/// The thread that receives a layer is gone without a word: it panicked.
fn gone() -> Error {
    Error::Io { what: "receiving a layer".to_owned(), source: io::ErrorKind::Interrupted.into() }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Asks for what begins at a byte.
pub(super) fn range_from(begin: u64) -> Option<(HeaderName, HeaderValue)> {
    HeaderValue::from_str(&format!("bytes={begin}-")).ok().map(|range| (RANGE, range))
}

/// Where `Content-Range: bytes 5-9/10` begins.
pub(super) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
