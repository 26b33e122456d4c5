//! What names mean at their registries, without fetching anything.

use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Method, StatusCode};

use super::client::{Ask, Client};
use super::join::try_join;
use super::pull::{announced, document};
use super::{Registries, manifest};
use crate::images::{Digest, Error, Reference};

impl Registries {
    /// The digest that each name means at its registry now, of a manifest or of an index for several machines; asked side
    /// by side.
    pub async fn resolve(&self, names: &[Reference]) -> Result<Vec<Digest>, Error> {
        try_join(names.iter().map(|name| self.digest(name))).await
    }

    async fn digest(&self, name: &Reference) -> Result<Digest, Error> {
        if let Some(digest) = name.digest() {
            return Ok(digest);
        }
        for client in self.mirrors(name)? {
            if let Ok(digest) = meant(&client, name).await {
                return Ok(digest);
            }
        }
        meant(&self.client(name)?, name).await
    }
}

async fn meant(client: &Client<'_>, name: &Reference) -> Result<Digest, Error> {
    let doing = format!("looking for {}", name.familiar());
    let tag = name.tag().unwrap_or("latest");
    let mut ask = Ask::new(Method::HEAD, format!("{}/manifests/{tag}", client.path), &doing);
    ask.headers.push((ACCEPT, HeaderValue::from_static(manifest::ACCEPT)));
    let response = client.send(&ask).await?;
    match announced(response.headers()).filter(|_| response.status() == StatusCode::OK) {
        Some(digest) => Ok(digest),
        None => document(client, name, tag, None, &doing).await.map(|(digest, ..)| digest),
    }
}
