//! What can go wrong with images, in words that name the thing and the remedy.

use std::io;
use std::path::Path;

use super::Digest;

/// An error of the image layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A text is no image reference.
    #[error("`{text}` isn't an image reference: {why}")]
    Reference {
        /// As given.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A text is no digest.
    #[error("`{0}` isn't a digest: it must be `sha256:` and 64 lower-case hexadecimal digits")]
    Digest(String),
    /// No such image.
    #[error("no image `{0}` in the store; `stack image ls` shows what is there")]
    NotFound(String),
    /// A short id fits several images.
    #[error("`{0}` fits more than one image; give more digits of the id")]
    Ambiguous(String),
    /// An image is needed by containers.
    #[error("image `{0}` is used by a container; remove the container first, or untag with force")]
    InUse(String),
    /// An image is to be removed by its id but has several names.
    #[error("image `{0}` has several names; remove them one by one, or use force")]
    ManyNames(String),
    /// Something about the built-in image that can't be done.
    #[error("`stack/host` is built in and follows this machine: it can't be {0}")]
    BuiltIn(&'static str),
    /// Content doesn't have the digest that it is stored or announced under.
    #[error("{what} has the digest {found}, not {wanted}: the content is damaged or forged")]
    Mismatch {
        /// The blob or layer meant.
        what: String,
        /// What it must be.
        wanted: Digest,
        /// What it is.
        found: Digest,
    },
    /// A blob that something refers to is missing.
    #[error("blob {0} is missing from the image store; pull or load the image again")]
    MissingBlob(Digest),
    /// A JSON document of the store or of an archive can't be read.
    #[error("{what} is malformed: {source}")]
    Json {
        /// The document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// An archive or document has a form that isn't supported.
    #[error("{what}: {why}")]
    Unsupported {
        /// The thing read.
        what: String,
        /// What about it.
        why: String,
    },
    /// A layer archive is malformed or hostile.
    #[error("bad layer archive: entry `{entry}`: {why}")]
    Entry {
        /// Name of the entry, control characters escaped.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// A layer is larger than the limits or the disk allow.
    #[error("layer too large: {0}")]
    TooLarge(String),
    /// An import's `--change` line is wrong.
    #[error("change `{line}`: {why}")]
    Change {
        /// As given.
        line: String,
        /// What is wrong with it.
        why: String,
    },
    /// A registry did not give or take what was asked.
    #[error(transparent)]
    Registry(Box<super::registry::Failure>),
    /// The disk is too small for what is to come.
    #[error("not enough space in {place}: at least {needed} bytes more are needed, {free} are free")]
    NoSpace {
        /// The directory.
        place: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, on which path.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it, where the message doesn't say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Registry(failure) => failure.hint(),
            Error::NoSpace { .. } => Some(ROOM.to_owned()),
            Error::Io { source, .. } if is_full(source) => Some(ROOM.to_owned()),
            _ => None,
        }
    }

    /// The same, where it is about space, with the directory that users know.
    pub(super) fn in_place(self, directory: &Path) -> Error {
        match self {
            Error::NoSpace { needed, free, .. } => {
                Error::NoSpace { place: directory.display().to_string(), needed, free }
            }
            other => other,
        }
    }
}

/// What to do where the disk is full.
const ROOM: &str = "make room (`stack system prune -a` removes images that no container uses, and build caches) and run the same \
                    command again; what is in the store stays intact";

/// Whether a system call failed since the disk, or the user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl From<super::registry::Failure> for Error {
    fn from(failure: super::registry::Failure) -> Error {
        Error::Registry(Box::new(failure))
    }
}

/// Adds what was being done to a system call's error.
pub(crate) trait Doing<T> {
    /// Names the act and its object.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { what: what(), source: source.into() })
    }
}

/// Bytes of a name with control characters, quotes and non-UTF-8 escaped: safe to print.
pub(crate) fn printable(name: &[u8]) -> String {
    let mut out: String = String::from_utf8_lossy(name)
        .chars()
        .flat_map(|c| {
            let control = c.is_control();
            c.escape_default().filter(move |_| control).chain((!control).then_some(c))
        })
        .collect();
    if let Some((cut, _)) = out.char_indices().nth(200) {
        out.truncate(cut);
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_escapes_control_characters_and_bounds_length() {
        assert_eq!(printable(b"a\nb\x1b[2Jc"), "a\\nb\\u{1b}[2Jc");
        assert_eq!(printable("größe".as_bytes()), "größe");
        assert!(printable(&[b'x'; 5000]).len() < 210);
    }
}
