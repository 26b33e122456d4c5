//! The user who called, also from behind sudo: what is written for them belongs to them.

use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, fchown};
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::error::Error;

/// User and group of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invoker {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Whether sudo stands between them and this process.
    pub(crate) sudo: bool,
}

impl Invoker {
    /// After `SUDO_UID` and `SUDO_GID`, which sudo sets and only root is believed; else this process's own.
    pub(crate) fn new() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        let variable = |name: &str| std::env::var(name).ok()?.parse().ok().filter(|id| *id != u32::MAX);
        match variable("SUDO_UID").zip(variable("SUDO_GID")).filter(|_| uid.is_root()) {
            Some((uid, gid)) => Self { uid, gid, sudo: uid != 0 },
            None => Self { uid: uid.as_raw(), gid: gid.as_raw(), sudo: false },
        }
    }

    /// Hands an open file of this process to the caller.
    fn take(self, file: &std::fs::File) -> io::Result<()> {
        if self.sudo { fchown(file, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// Makes a folder and those above it that are missing; all new ones are the caller's.
    pub(crate) fn create_folders(self, path: &Path) -> io::Result<()> {
        let mut missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
        while let Some(folder) = missing.pop() {
            match fs::create_dir(folder) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other?,
            }
            self.take(fs::File::open(folder)?.file())?;
        }
        Ok(())
    }
}

/// A file that the caller asked for. It appears under its name when it is complete.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: fs::File,
    path: PathBuf,
    /// The name until then; none where the file is written in place, as a device is.
    aside: Option<PathBuf>,
}

impl OutputFile {
    /// Begins a file at `path`.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        let there = fs::metadata(path).ok();
        if there.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(Error::new(format!("`{}` is a folder", path.display())).hint("name a file to write to"));
        }
        let special = there.is_some_and(|there| {
            let kind = there.file_type();
            kind.is_char_device() || kind.is_fifo() || kind.is_block_device()
        });
        if special {
            let file = fs::OpenOptions::new().write(true).open(path)?;
            return Ok(Self { file, path: path.to_owned(), aside: None });
        }
        // A link is kept, and what it names is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let aside = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&aside)?;
        let output = Self { file, path, aside: Some(aside) };
        Invoker::new().take(output.file.file())?;
        Ok(output)
    }

    /// Puts the complete file in its place.
    pub(crate) fn finish(mut self) -> Result<(), Error> {
        self.file.flush()?;
        if let Some(aside) = self.aside.take() {
            let moved = fs::rename(&aside, &self.path);
            if moved.is_err() {
                self.aside = Some(aside);
            }
            moved?;
        }
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(aside) = &self.aside {
            // What was not finished is of no use to anybody.
            let _ = fs::remove_file(aside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        drop(OutputFile::create(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"all").unwrap();
        assert!(!path.exists());
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all");
        assert!(OutputFile::create(folder.path()).is_err());
    }
}
