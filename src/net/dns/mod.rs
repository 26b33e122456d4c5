//! The resolver of containers: names of their networks from a table, everything else from the host's servers.

use std::net::IpAddr;

use super::attach::DnsSockets;
use super::error::Error;

mod names;

pub use names::{Names, Record};

/// A container that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The container's id.
    pub id: String,
    /// Networks whose names it may see.
    pub networks: Vec<String>,
    /// Servers for names that no network knows, in order; empty = none (only internal networks): such names don't exist
    /// for it, and its questions never leave the host.
    pub upstream: Vec<IpAddr>,
}

/// The resolver of one stack. Cheap to clone; needs a tokio runtime with IO and time.
#[derive(Debug, Clone, Default)]
pub struct Server {}

impl Server {
    /// A resolver that knows no names yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces all names at once.
    pub fn set_names(&self, names: Names) {
        drop(names);
    }

    /// Answers a container's questions until [`Server::remove`]. A client of the same id is replaced.
    pub fn serve(&self, client: Client, sockets: DnsSockets) -> Result<(), Error> {
        drop(sockets);
        Err(Error::system(format!("serve {client:?}"))(std::io::ErrorKind::Unsupported.into()))
    }

    /// Changes what a client may see, keeping its sockets; `false` if there is no such client.
    pub fn update(&self, client: Client) -> bool {
        drop(client);
        false
    }

    /// Stops answering a container.
    pub fn remove(&self, id: &str) {
        let _ = id;
    }
}
