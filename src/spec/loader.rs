//! The only door through which this layer sees files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Reads files on behalf of the loader.
pub trait Loader {
    /// The bytes of `path`; `-` stands for standard input. Implementations refuse what is no regular file (devices,
    /// FIFOs, procfs) and what is larger than `limit` bytes ([`io::ErrorKind::FileTooLarge`]).
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>>;

    /// Whether `path` is an existing file (not a directory).
    fn is_file(&self, path: &Path) -> bool;

    /// `path` with its symbolic links followed; the path itself where it does not exist.
    fn resolve(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

/// Files in memory, for tests and tools.
#[derive(Debug, Clone, Default)]
pub struct MapLoader(pub BTreeMap<PathBuf, Vec<u8>>);

impl MapLoader {
    /// A loader over `(path, text)` pairs.
    pub fn new<P: Into<PathBuf>, T: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, T)>) -> Self {
        Self(files.into_iter().map(|(path, text)| (path.into(), text.into())).collect())
    }
}

impl Loader for MapLoader {
    fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let bytes = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.clone())
    }

    fn is_file(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }
}
