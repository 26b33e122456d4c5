//! How registries are reached and whose rights are used: the caller's environment and configuration files, read once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use ipnet::IpNet;
use serde::Deserialize;

use super::super::Error;
use super::Failure;

/// What pulls and pushes depend on beside their arguments.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Docker client's folder: `config.json` with logins, `certs.d`.
    pub docker: Option<PathBuf>,
    /// Logins as a text: `DOCKER_AUTH_CONFIG`.
    pub logins: Option<String>,
    /// Folders with certificates by host, in docker's layout: `HOST:PORT/{ca.crt,client.cert,client.key}`.
    pub certificates: Vec<PathBuf>,
    /// Registries to ask first, by the domain that they stand in for.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts and networks that may speak plain HTTP or have any certificate.
    pub insecure: Vec<String>,
    /// Proxies for `http` and `https`, and hosts that need none.
    pub proxies: Proxies,
    /// How long a registry may be silent.
    pub stall: Duration,
}

/// The usual proxy variables.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// `HTTP_PROXY`.
    pub http: String,
    /// `HTTPS_PROXY`.
    pub https: String,
    /// `NO_PROXY`.
    pub none: String,
}

/// Our own file, `registries.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    #[serde(default)]
    mirrors: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    insecure: Vec<String>,
}

/// What concerns us in the Docker daemon's file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Daemon {
    #[serde(default)]
    registry_mirrors: Vec<String>,
    #[serde(default)]
    insecure_registries: Vec<String>,
}

const OWN_FILE: &str = "/etc/stack/registries.json";
const DAEMON_FILE: &str = "/etc/docker/daemon.json";
const CERTIFICATES: [&str; 2] = ["/etc/stack/certs.d", "/etc/docker/certs.d"];

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            docker: None,
            logins: None,
            certificates: Vec::new(),
            mirrors: BTreeMap::new(),
            insecure: Vec::new(),
            proxies: Proxies::default(),
            stall: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// The settings that an environment asks for: `DOCKER_CONFIG`, `DOCKER_AUTH_CONFIG`, `STACK_REGISTRIES` (our file
    /// instead of /etc/stack/registries.json), `HOME`, and the proxy variables in either case.
    pub fn from_environment(environment: &BTreeMap<String, String>) -> Result<Settings, Error> {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty()).cloned();
        let either = |name: &str| get(name).or_else(|| get(&name.to_lowercase())).unwrap_or_default();
        let docker = get("DOCKER_CONFIG").map(PathBuf::from);
        let docker = docker.or_else(|| get("HOME").map(|home| Path::new(&home).join(".docker")));
        let own: Own = match get("STACK_REGISTRIES") {
            Some(path) => read(Path::new(&path))?.ok_or_else(|| bad(&path, "the file does not exist"))?,
            None => read(Path::new(OWN_FILE))?.unwrap_or_default(),
        };
        let daemon: Daemon = read(Path::new(DAEMON_FILE))?.unwrap_or_default();
        let mut mirrors = own.mirrors;
        mirrors.entry("docker.io".to_owned()).or_default().extend(daemon.registry_mirrors);
        let own_certificates = docker.iter().map(|docker| docker.join("certs.d"));
        Ok(Settings {
            certificates: own_certificates.chain(CERTIFICATES.map(PathBuf::from)).collect(),
            logins: get("DOCKER_AUTH_CONFIG"),
            mirrors,
            insecure: own.insecure.into_iter().chain(daemon.insecure_registries).collect(),
            proxies: Proxies { http: either("HTTP_PROXY"), https: either("HTTPS_PROXY"), none: either("NO_PROXY") },
            docker,
            ..Settings::default()
        })
    }

    /// Whether `host[:port]` may have a certificate that nobody vouches for.
    pub(super) fn is_insecure(&self, authority: &str) -> bool {
        let host = host_of(authority);
        let address: Option<IpAddr> = host.parse().ok();
        self.insecure.iter().any(|entry| {
            let within = |net: IpNet| address.is_some_and(|address| net.contains(&address));
            entry == authority || entry == host || entry.parse().is_ok_and(within)
        })
    }

    /// Whether it may speak plain HTTP: as insecure, and everything on loopback.
    pub(super) fn may_be_plain(&self, authority: &str) -> bool {
        is_loopback(host_of(authority)) || self.is_insecure(authority)
    }
}

/// The host of `host[:port]`, an IPv6 address without its brackets.
pub(super) fn host_of(authority: &str) -> &str {
    let v6 = authority.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(host, _)| host);
    v6.unwrap_or_else(|| authority.rsplit_once(':').map_or(authority, |(host, _)| host))
}

/// Whether a host is this machine by its name or address alone.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|e| bad(&path.display().to_string(), &e.to_string()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(bad(&path.display().to_string(), &e.to_string())),
    }
}

fn bad(path: &str, why: &str) -> Error {
    Failure::Configuration { path: path.to_owned(), why: why.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_networks_are_insecure_by_choice_only() {
        let insecure = ["a.example:5000", "b.example", "10.1.0.0/16"].map(str::to_owned).to_vec();
        let settings = Settings { insecure, ..Settings::default() };
        for yes in ["a.example:5000", "b.example", "b.example:1", "10.1.2.3:5000"] {
            assert!(settings.is_insecure(yes) && settings.may_be_plain(yes), "{yes}");
        }
        for no in ["a.example", "a.example:1", "10.2.2.3", "xb.example", "docker.io"] {
            assert!(!settings.is_insecure(no) && !settings.may_be_plain(no), "{no}");
        }
        for loopback in ["localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(settings.may_be_plain(loopback) && !settings.is_insecure(loopback), "{loopback}");
        }
        assert!(!settings.may_be_plain("localhost.example"));
    }
}
