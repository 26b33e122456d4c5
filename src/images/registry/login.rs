//! Logging in and out.

use hyper::{Method, StatusCode};

use super::super::Error;
use super::client::{Ask, Client};
use super::{Credentials, HUB, Registries};

impl Registries {
    /// Asks a registry whether it takes the credentials, and keeps them if so; where they are kept.
    pub async fn login(&self, domain: &str, credentials: &Credentials) -> Result<String, Error> {
        let place = if domain == HUB.0 { HUB.1 } else { domain };
        let mut client = Client::new(&self.transport, domain, place, domain, Some(credentials.clone()));
        client.scopes.clear();
        let doing = "logging in";
        let response = client.send(&Ask::new(Method::GET, String::new(), doing)).await?;
        match response.status() {
            StatusCode::OK => self.logins.store(domain, credentials),
            _ => Err(client.refused(response, doing).await),
        }
    }

    /// The credentials kept for a registry.
    pub fn credentials(&self, domain: &str) -> Result<Option<Credentials>, Error> {
        self.logins.get(domain)
    }

    /// Forgets the credentials for a registry; whether there were any.
    pub fn logout(&self, domain: &str) -> Result<bool, Error> {
        self.logins.erase(domain)
    }
}
