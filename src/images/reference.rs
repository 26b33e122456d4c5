//! Image references as Docker reads them: `nginx`, `ghcr.io/a/b:1.2`, `localhost:5000/x@sha256:…`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Digest, Error};

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A name of an image: registry domain, repository path, and a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Reads a reference; without a tag and a digest the tag is `latest`.
    pub fn parse(text: &str) -> Result<Reference, Error> {
        read(text).map_err(|why| Error::Reference { text: text.to_owned(), why })
    }

    /// The registry: `docker.io`, `ghcr.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; none only where a digest was given without one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The manifest's digest, where given.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Domain and path: `docker.io/library/nginx`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The repository as people write it: `nginx`, `ghcr.io/a/b`.
    pub fn familiar_repository(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.repository();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// As people write it: `nginx:latest`, `ghcr.io/a/b@sha256:…`.
    pub fn familiar(&self) -> String {
        self.familiar_repository() + &self.suffix()
    }

    /// The same repository by digest alone: what a pulled image stays known by when its tag moves on.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The same without a digest; the tag is `latest` where there was none.
    #[must_use]
    pub fn without_digest(&self) -> Reference {
        let tag = self.tag.clone().or_else(|| Some("latest".to_owned()));
        Reference { tag, digest: None, ..self.clone() }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map_or_else(String::new, |tag| format!(":{tag}"));
        let digest = self.digest.map_or_else(String::new, |digest| format!("@{digest}"));
        tag + &digest
    }
}

/// The canonical form: `docker.io/library/nginx:latest`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        let text = String::deserialize(deserializer)?;
        Reference::parse(&text).map_err(serde::de::Error::custom)
    }
}

fn read(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() == 64 && Digest::from_hex(text).is_some() {
        return Err("64 hexadecimal digits are an image id");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|_| "what follows `@` must be `sha256:` and 64 hexadecimal digits")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let (domain, path) = match name.split_once('/') {
        Some((first, path)) if is_domain(first) => (first, path),
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    let path =
        if domain == DEFAULT_DOMAIN && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path.to_owned() };

    check_domain(domain)?;
    check_path(&path)?;
    if domain.len() + 1 + path.len() > MAX_NAME {
        return Err("its name is longer than 255 characters");
    }
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest".to_owned()),
        (tag, _) => tag.map(str::to_owned),
    };
    Ok(Reference { domain: domain.to_owned(), path, tag, digest })
}

/// Whether a first component is a registry rather than a part of the path.
fn is_domain(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':', '[']) || first.chars().any(|c| c.is_ascii_uppercase())
}

fn check_domain(domain: &str) -> Result<(), &'static str> {
    const WHY: &str = "the registry must be a host name or address, with a port or without";
    let (host, port) = if let Some(v6) = domain.strip_prefix('[') {
        let (address, rest) = v6.split_once(']').ok_or(WHY)?;
        if address.is_empty() || !address.chars().all(|c| c.is_ascii_hexdigit() || c == ':') {
            return Err(WHY);
        }
        ("v6", rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
    } else {
        domain.split_once(':').map_or((domain, None), |(host, port)| (host, Some(port)))
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let good_port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()));
    if host.split('.').all(label) && good_port { Ok(()) } else { Err(WHY) }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("repository names must be lower-case");
    }
    if path.split('/').all(component) {
        Ok(())
    } else {
        Err(
            "a repository name is made of a-z and 0-9, with single `.`, `_`, `__` or dashes between, and parts joined by `/`",
        )
    }
}

/// Lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn component(part: &str) -> bool {
    let mut separator = String::new();
    let mut any = false;
    for c in part.chars() {
        match c {
            'a'..='z' | '0'..='9' => {
                let joined =
                    matches!(separator.as_str(), "" | "." | "_" | "__") || separator.bytes().all(|c| c == b'-');
                if !joined || (!any && !separator.is_empty()) {
                    return false;
                }
                any = true;
                separator.clear();
            }
            '.' | '_' | '-' => separator.push(c),
            _ => return false,
        }
    }
    any && separator.is_empty()
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = tag.starts_with(word) && tag.chars().all(|c| word(c) || c == '.' || c == '-') && tag.len() <= MAX_TAG;
    if good {
        Ok(())
    } else {
        Err("a tag is up to 128 letters, digits, `_`, `.` and `-`, and starts with no `.` or `-`")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn forms_that_docker_takes() {
        let by_digest = format!("docker.io/library/nginx@{D}");
        let both = format!("localhost:5000/x:1@{D}");
        let table = [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1.25-alpine", "docker.io/library/nginx:1.25-alpine", "nginx:1.25-alpine"),
            ("library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("stack/host", "docker.io/stack/host:latest", "stack/host:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("a__b--c.d_e", "docker.io/library/a__b--c.d_e:latest", "a__b--c.d_e:latest"),
            ("MyHost/x", "MyHost/x:latest", "MyHost/x:latest"),
            ("x:_T.-9", "docker.io/library/x:_T.-9", "x:_T.-9"),
            (&format!("nginx@{D}"), &by_digest, &format!("nginx@{D}")),
            (&both, &both, &both),
        ];
        for (text, canonical, familiar) in table {
            let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), canonical, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
            assert_eq!(Reference::parse(canonical).unwrap(), reference, "{text}");
            assert_eq!(Reference::parse(familiar).unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn forms_that_docker_refuses() {
        let long = "a".repeat(256);
        let tag = format!("x:{}", "t".repeat(129));
        let table = [
            "",
            ":tag",
            "x:",
            "x@",
            "x@sha256:12",
            "UPPER",
            "a/UPPER",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a.-b",
            "a___b",
            "a b",
            "x:.t",
            "x:-t",
            "x:a b",
            "host.:5000/x",
            "host:port/x",
            "-host.io/x",
            "[::1/x",
            "[]/x",
            "[::1]x/y",
            "ä",
            "x\n",
            &long,
            &tag,
            &D[7..],
            "../x",
            "a:b:c",
        ];
        for text in table {
            assert!(Reference::parse(text).is_err(), "{text}: {:?}", Reference::parse(text));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_round_trips(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference.clone());
                prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }
    }
}
