//! Registries: images fetched from them and brought there.
//!
//! * [`Settings`] and `credentials` say how registries are reached and with whose rights.
//! * `dial`, `tls` and `transport` carry one request; `client` asks one repository, with `auth`, redirections and retries;
//!   `answer` reads what comes back, bounded in size and time.
//! * `manifest` reads what an image is; `pull` fetches one, each layer by `receive`: download, both digests, decompression and
//!   unpacking are one stream. `push` brings one there; `resolve` only asks what a name means.
//!
//! A registry is not trusted: nothing that it sends counts before its digest is right, no address that it names is asked
//! with our rights or on this machine's own networks, and everything it sends is bounded.

mod answer;
mod auth;
mod body;
mod client;
mod credentials;
mod dial;
mod event;
mod failure;
mod fetch;
mod gate;
mod join;
mod login;
mod manifest;
mod pull;
mod push;
mod receive;
mod resolve;
mod settings;
mod tls;
mod transport;
mod upload;

pub use credentials::Credentials;
pub use event::{LayerState, PullEvent};
pub use failure::Failure;
pub use pull::{PullOptions, Pulled};
pub use settings::Settings;

use super::{Error, Reference};
use client::Client;
use credentials::Logins;
use tokio::sync::Semaphore;
use transport::Transport;

/// Where the images of Docker's own registry are.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// The registries as one user reaches them. Connections are kept for the next request.
#[derive(Debug)]
pub struct Registries {
    transport: Transport,
    logins: Logins,
    /// One for each layer that may be on its way.
    turns: Semaphore,
}

/// With the windows that zstd's levels ask for, this many take less than 64 MiB together.
const AT_A_TIME: usize = 3;

impl Registries {
    /// Reads the user's logins.
    pub fn new(settings: Settings) -> Result<Registries, Error> {
        Ok(Registries {
            logins: Logins::read(&settings)?,
            transport: Transport::new(settings),
            turns: Semaphore::new(AT_A_TIME),
        })
    }

    /// The repository of a reference at its registry.
    fn client(&self, reference: &Reference) -> Result<Client<'_>, Error> {
        let domain = reference.domain();
        let place = if domain == HUB.0 { HUB.1 } else { domain };
        let credentials = self.logins.get(domain)?;
        Ok(Client::new(&self.transport, domain, place, reference.path(), credentials))
    }

    /// The mirrors to ask first.
    fn mirrors(&self, reference: &Reference) -> Result<Vec<Client<'_>>, Error> {
        let mirrors = self.transport.settings.mirrors.get(reference.domain());
        let client = |place: &String| {
            let host = place.split_once("://").map_or(place.as_str(), |(_, rest)| rest);
            let host = host.split('/').next().unwrap_or(host);
            let credentials = self.logins.get(host)?;
            Ok(Client::new(&self.transport, host, place, reference.path(), credentials))
        };
        mirrors.into_iter().flatten().map(client).collect()
    }
}
