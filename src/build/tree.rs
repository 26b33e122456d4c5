//! What COPY reads from: the context, an additional one, or the root of a stage or image.
//!
//! Everything is opened by descriptors below the tree's root, so that no link leads out of it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use super::error::{Error, Problem};
use super::glob::Glob;
use super::ignore::{Ignore, clean};
use crate::images::Digest;
use crate::sys::path::{open_beneath, open_in_root};

/// Deepest folder that is copied.
const MAX_DEPTH: usize = 512;

/// A tree to read.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
    /// For messages: `the context`, `stage build`.
    name: String,
    ignore: Ignore,
    /// Whether owners mean something (in images) or not (in a context).
    pub(crate) owned: bool,
}

/// A file or folder that a source of COPY names.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Path from the tree's root, clean; empty for the root itself.
    pub(crate) path: String,
    /// Links followed.
    handle: OwnedFd,
    pub(crate) stat: Stat,
}

/// Something inside a selected folder, or the selected file itself (then with an empty path).
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
    /// Target of a symbolic link.
    pub(crate) link: Option<OsString>,
}

impl Node {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl Selected {
    pub(crate) fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }

    /// Last name of the path.
    pub(crate) fn base(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Opens a node of [`Tree::list`] for reading.
    pub(crate) fn open(&self, node: &Path) -> io::Result<OwnedFd> {
        if node.as_os_str().is_empty() {
            return reopen(&self.handle, OFlags::RDONLY);
        }
        open_beneath(self.handle.as_fd(), node, OFlags::RDONLY | OFlags::NOFOLLOW)
    }

    /// A handle of a node that need not be readable.
    pub(crate) fn handle(&self, node: &Path) -> io::Result<OwnedFd> {
        if node.as_os_str().is_empty() {
            return self.handle.try_clone();
        }
        open_beneath(self.handle.as_fd(), node, OFlags::PATH | OFlags::NOFOLLOW)
    }
}

/// Opens the file behind an `O_PATH` descriptor.
fn reopen(handle: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

impl Tree {
    /// A directory of the host.
    pub(crate) fn directory(path: &Path, name: String, ignore: Ignore) -> Result<Self, Error> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(io::Error::from).map_err(Error::io("open the build context", path))?;
        Ok(Self { root, name, ignore, owned: false })
    }

    /// The root of an image, mounted.
    pub(crate) fn mounted(root: OwnedFd, name: String) -> Self {
        Self { root, name, ignore: Ignore::default(), owned: true }
    }

    /// The files and folders that a source names, sorted; an error if there are none.
    pub(crate) fn select(&self, source: &str) -> Result<Vec<Selected>, Error> {
        let clean = self.inside(source)?;
        let glob = Glob::new(&clean).map_err(Problem::new)?;
        let found = match glob.literal() {
            Some(path) => self.open(path)?.into_iter().collect(),
            None => self.matching(&glob)?,
        };
        if found.is_empty() {
            return Err(self.missing(source, &clean).into());
        }
        Ok(found)
    }

    /// The same for a path in which nothing is a pattern.
    pub(crate) fn at(&self, path: &str) -> Result<Selected, Error> {
        let clean = self.inside(path)?;
        self.open(clean.clone())?.ok_or_else(|| self.missing(path, &clean).into())
    }

    fn inside(&self, source: &str) -> Result<String, Error> {
        let outside = !self.owned && clean(source.trim_start_matches('/')).split('/').next() == Some("..");
        if outside {
            let hint = "only files below the context can be copied; see additional contexts for others";
            return Err(Problem::new(format!("`{source}` leads out of {}", self.name)).hint(hint).into());
        }
        Ok(clean(&format!("/{source}")).trim_start_matches('/').to_owned())
    }

    fn missing(&self, source: &str, path: &str) -> Problem {
        let problem = Problem::new(format!("there is no `{source}` in {}", self.name));
        if self.ignore.excludes(path) {
            return problem.hint(".dockerignore leaves it out");
        }
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let Ok(folder) = open_in_root(self.root.as_fd(), Path::new(parent), OFlags::RDONLY | OFlags::DIRECTORY) else {
            return problem.hint("paths are relative to the root of the context");
        };
        let names = names(&folder).unwrap_or_default();
        let shown: Vec<String> = names.iter().take(8).map(|name| name.to_string_lossy().into_owned()).collect();
        if shown.is_empty() {
            return problem.hint("the folder is empty");
        }
        problem.hint(format!("it has {}{}", shown.join(", "), if names.len() > 8 { ", …" } else { "" }))
    }

    fn open(&self, path: String) -> Result<Option<Selected>, Error> {
        if !path.is_empty() && self.ignore.excludes(&path) && !self.ignore.reaches_below(&path) {
            return Ok(None);
        }
        let handle = match open_in_root(self.root.as_fd(), Path::new(&path), OFlags::PATH) {
            Ok(handle) => handle,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Err(e) => return Err(Error::io("open", path)(e)),
        };
        let stat = rustix::fs::fstat(&handle).map_err(io::Error::from).map_err(Error::io("look at", &path))?;
        Ok(Some(Selected { path, handle, stat }))
    }

    fn matching(&self, glob: &Glob) -> Result<Vec<Selected>, Error> {
        let mut found = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            let opened = open_in_root(self.root.as_fd(), Path::new(&folder), OFlags::RDONLY | OFlags::DIRECTORY);
            let opened = opened.map_err(Error::io("open", &folder))?;
            for name in names(&opened).map_err(Error::io("list", &folder))? {
                let Some(name) = name.to_str() else { continue };
                let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                if glob.reaches_below(&path) && folders.len() < 100_000 && is_folder(&opened, name) {
                    folders.push(path.clone());
                }
                if glob.matches(&path) {
                    found.extend(self.open(path)?);
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Everything in a selected folder, parents first, names sorted; a selected file alone.
    pub(crate) fn list(&self, selected: &Selected, exclude: &Ignore) -> Result<Vec<Node>, Error> {
        let mut nodes = Vec::new();
        if !selected.is_dir() {
            if !exclude.excludes(selected.base()) {
                nodes.push(Node { path: PathBuf::new(), stat: selected.stat, link: None });
            }
            return Ok(nodes);
        }
        let folder = reopen(&selected.handle, OFlags::RDONLY | OFlags::DIRECTORY);
        let folder = folder.map_err(Error::io("open", &selected.path))?;
        Walk { tree: self, selected, exclude, nodes: &mut nodes }
            .folder(&folder, Path::new(""), 0)
            .map_err(Error::io("read", &selected.path))?;
        Ok(nodes)
    }
}

struct Walk<'a> {
    tree: &'a Tree,
    selected: &'a Selected,
    exclude: &'a Ignore,
    nodes: &'a mut Vec<Node>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("{} is nested too deeply", path.display())));
        }
        for name in names(folder)? {
            let stat = statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let path = path.join(&name);
            let (left_out, looked_into) = self.left_out(&path);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if !left_out || looked_into => {
                    let count = self.nodes.len();
                    self.nodes.push(Node { path: path.clone(), stat, link: None });
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    self.folder(&openat(folder, &name, flags, Mode::empty())?, &path, depth + 1)?;
                    if left_out && self.nodes.len() == count + 1 {
                        self.nodes.pop();
                    }
                }
                FileType::Directory | FileType::Socket => {}
                _ if left_out => {}
                FileType::Symlink => {
                    let target = OsString::from_vec(readlinkat(folder, &name, Vec::new())?.into_bytes());
                    self.nodes.push(Node { path, stat, link: Some(target) });
                }
                _ => self.nodes.push(Node { path, stat, link: None }),
            }
        }
        Ok(())
    }

    /// Whether a path is left out, and whether something below it may not be.
    fn left_out(&self, path: &Path) -> (bool, bool) {
        if self.tree.ignore.is_empty() && self.exclude.is_empty() {
            return (false, false);
        }
        let below = path.to_string_lossy();
        let prefix = if self.selected.path.is_empty() { String::new() } else { format!("{}/", self.selected.path) };
        let whole = format!("{prefix}{below}");
        let (ignored, excluded) = (self.tree.ignore.excludes(&whole), self.exclude.excludes(&below));
        let entered =
            (!ignored || self.tree.ignore.reaches_below(&whole)) && (!excluded || self.exclude.reaches_below(&below));
        (ignored || excluded, entered)
    }
}

fn is_folder(parent: &OwnedFd, name: &str) -> bool {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn names(folder: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Digest of what would be copied: paths, kinds, modes, owners where they count, contents, link targets; never times.
pub(crate) fn digest(tree: &Tree, selected: &Selected, nodes: &[Node]) -> Result<Digest, Error> {
    let mut key = super::cache::Key::new("content");
    key.add(&[u8::from(selected.is_dir())]);
    let own = Node { path: PathBuf::new(), stat: selected.stat, link: None };
    let top = selected.is_dir().then_some(&own);
    for node in top.into_iter().chain(nodes) {
        let stat = &node.stat;
        key.add(node.path.as_os_str().as_bytes());
        key.number(u64::from(stat.st_mode));
        if tree.owned {
            key.number(u64::from(stat.st_uid));
            key.number(u64::from(stat.st_gid));
        }
        match node.kind() {
            FileType::RegularFile => {
                let action = Error::io("read", Path::new(&selected.path).join(&node.path));
                key.add(content(selected, node).map_err(action)?.as_bytes());
            }
            FileType::CharacterDevice | FileType::BlockDevice => key.number(stat.st_rdev),
            _ => key.add(node.link.as_ref().map_or(&[][..], |link| link.as_bytes())),
        }
    }
    Ok(key.finish())
}

fn content(selected: &Selected, node: &Node) -> io::Result<Digest> {
    use sha2::Digest as _;
    let mut file = std::fs::File::from(selected.open(&node.path)?);
    let mut sha = sha2::Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            n => sha.update(&buffer[..n]),
        }
    }
    Ok(Digest::of(&sha.finalize()))
}
