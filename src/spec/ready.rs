//! When a service is ready: `x-stack.ready`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use regex_lite::Regex;
use serde_json::Value;

use super::diagnostic::Kind;
use super::model::Service;
use super::validate::Check;

/// Bytes that a compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;

/// What tells that a service is ready.
#[derive(Debug, Clone)]
pub enum Ready {
    /// Others reach all ports that it publishes, or any where it publishes none.
    Port,
    /// A line of its log matches.
    Log(Regex),
    /// A file in the container was made or written since its start.
    File(PathBuf),
    /// A page, asked for in the container's network, is there.
    Http(Url),
}

/// An `http` URL whose host is an address, or the container itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// Host and port as the URL has them, for the `Host` header.
    pub authority: String,
    /// Where to ask, one after the other.
    pub addresses: Vec<SocketAddr>,
    /// What to ask for.
    pub path: String,
}

impl Ready {
    /// What a service says, if anything.
    pub fn of(service: &Service) -> Result<Option<Self>, String> {
        let ready = service.extensions.get("x-stack").and_then(|own| own.get("ready"));
        ready.map(Self::read).transpose()
    }

    fn read(value: &Value) -> Result<Self, String> {
        if value == "port" {
            return Ok(Self::Port);
        }
        let entries: Vec<(&str, &str)> = value.as_object().into_iter().flatten().filter_map(text).collect();
        match entries[..] {
            [("log", pattern)] => {
                let regex = regex_lite::RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build();
                regex.map(Self::Log).map_err(|e| format!("`{pattern}` is no regular expression: {e}"))
            }
            [("file", path)] if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            [("file", path)] => Err(format!("`{path}` must be an absolute path in the container")),
            [("http", url)] => Url::read(url).map(Self::Http),
            _ => Err("needs one of `log`, `file`, `http`".to_owned()),
        }
    }
}

fn text<'a>((key, value): (&'a String, &'a Value)) -> Option<(&'a str, &'a str)> {
    Some((key.as_str(), value.as_str()?))
}

/// What is waited for, as part of a sentence.
impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port => f.write_str("a port to be listened on"),
            Self::Log(pattern) => write!(f, "a line of its log that matches `{pattern}`"),
            Self::File(path) => write!(f, "the file {} in the container", path.display()),
            Self::Http(url) => write!(f, "an answer of {}", url.text),
        }
    }
}

impl Url {
    fn read(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or_else(|| format!("`{text}` must begin with http://"))?;
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().map_err(|_| format!("`{port}` is no port"))?),
            None => (authority, 80),
        };
        let hosts: Vec<IpAddr> = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host) {
            "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            host => vec![host.parse().map_err(|_| {
                format!("`{host}` must be localhost or an address: it is asked in the container's own network")
            })?],
        };
        if path.contains(|letter: char| letter.is_whitespace() || letter.is_control()) || port == 0 {
            return Err(format!("`{text}` is no URL"));
        }
        Ok(Self {
            text: text.to_owned(),
            authority: authority.to_owned(),
            addresses: hosts.into_iter().map(|host| SocketAddr::new(host, port)).collect(),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Checks what a service says.
pub(crate) fn check(check: &mut Check<'_, '_, '_>) {
    let path = ["x-stack", "ready"];
    match Ready::of(check.service) {
        Err(problem) => check.error(Kind::Value, &path, format!("x-stack.ready: {problem}")),
        Ok(Some(Ready::Log(_))) if logs_nothing(check.service) => {
            check.error(Kind::Conflict, &path, "x-stack.ready: no line of a log comes while logging.driver is none");
        }
        Ok(_) => {}
    }
}

fn logs_nothing(service: &Service) -> bool {
    service.logging.as_ref().is_some_and(|logging| logging.driver.as_deref() == Some("none"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn urls_name_the_container_or_an_address() {
        let url = Url::read("http://localhost:8000/health?full=1").unwrap();
        assert_eq!(url.addresses, ["127.0.0.1:8000".parse().unwrap(), "[::1]:8000".parse().unwrap()]);
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("localhost:8000", "/health?full=1"));
        let url = Url::read("http://[fd00::1]").unwrap();
        assert_eq!((url.addresses[0], url.path.as_str()), ("[fd00::1]:80".parse().unwrap(), "/"));
        for bad in [
            "https://localhost",
            "http://db:80/",
            "http://localhost:x/",
            "http://localhost:0",
            "http:///",
            "http://127.0.0.1/a b",
        ] {
            assert!(Url::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_thing_tells_that_a_service_is_ready() {
        assert!(matches!(Ready::read(&json!({"log": "ready in \\d+ ms"})), Ok(Ready::Log(_))));
        assert!(matches!(Ready::read(&json!({"file": "/run/ready"})), Ok(Ready::File(_))));
        for bad in [json!({}), json!({"log": "("}), json!({"file": "run"}), json!({"log": "a", "file": "/b"})] {
            assert!(Ready::read(&bad).is_err(), "{bad}");
        }
    }
}
