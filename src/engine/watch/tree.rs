//! Which files changed: one inotify instance for all rules, a watch on each folder that may have something of
//! interest in it, and on the folder above each rule's path, so that the path itself may come and go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::rule::Rule;
use crate::sys::ready;

/// How long nothing more must come before a change is acted on.
const ALONE: Duration = Duration::from_millis(2);
/// The same once more did come: an editor's save, a checkout.
const QUIET: Duration = Duration::from_millis(20);
/// Who never stops writing is not waited for.
const LONGEST: Duration = Duration::from_millis(500);

/// What changed since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files and folders that were made, written, renamed or removed.
    pub paths: BTreeSet<PathBuf>,
    /// Events were lost: anything may have changed.
    pub everything: bool,
}

impl Changes {
    /// True if nothing changed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.everything
    }

    /// Adds later changes.
    pub fn merge(&mut self, other: Self) {
        self.paths.extend(other.paths);
        self.everything |= other.everything;
    }
}

/// Watches what rules are about.
#[derive(Debug)]
pub struct Tree {
    inotify: AsyncFd<OwnedFd>,
    rules: Vec<Rule>,
    /// Watched folders by watch descriptor, and the other way round.
    folders: HashMap<i32, PathBuf>,
    watches: BTreeMap<PathBuf, i32>,
    changes: Changes,
}

impl Tree {
    /// Begins to watch. Needs a running tokio runtime.
    pub fn new(rules: &[Rule]) -> Result<Self, Error> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| match e {
            Errno::MFILE => Error::Instances(limit("max_user_instances")),
            e => Error::Watch { path: "files".into(), source: e.into() },
        })?;
        let registered = ready::register(inotify).map_err(|source| Error::Watch { path: "files".into(), source })?;
        let mut tree = Self {
            inotify: registered,
            rules: rules.to_vec(),
            folders: HashMap::new(),
            watches: BTreeMap::new(),
            changes: Changes::default(),
        };
        tree.plant(|_| true)?;
        tree.changes = Changes::default();
        Ok(tree)
    }

    /// Number of folders watched.
    pub fn folders(&self) -> usize {
        self.folders.len()
    }

    /// Waits for changes. A single one is given back at once; while more keep coming, they are gathered. Nothing is
    /// lost where this is dropped.
    pub async fn next(&mut self) -> Result<Changes, Error> {
        while self.changes.is_empty() {
            self.readable().await?;
            self.drain()?;
        }
        let end = Instant::now() + LONGEST;
        let mut pause = ALONE;
        loop {
            let until = (Instant::now() + pause).min(end);
            match timeout_at(until, self.readable()).await {
                Err(_) => return Ok(std::mem::take(&mut self.changes)),
                Ok(ready) => ready?,
            }
            let before = self.changes.paths.len();
            self.drain()?;
            if self.changes.paths.len() != before {
                pause = QUIET;
            }
        }
    }

    async fn readable(&self) -> Result<(), Error> {
        let ready = self.inotify.readable().await;
        ready.map(|mut guard| guard.retain_ready()).map_err(failed)
    }

    /// Takes in all events that are there.
    fn drain(&mut self) -> Result<(), Error> {
        let mut buffer = [MaybeUninit::uninit(); 1 << 14];
        let mut events = Vec::new();
        loop {
            match self.inotify.try_io(Interest::READABLE, |fd| read(fd, &mut buffer, &mut events)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(failed(e)),
            }
            for (watch, flags, name) in events.drain(..) {
                self.event(watch, flags, name)?;
            }
        }
    }

    fn event(&mut self, watch: i32, flags: ReadFlags, name: Option<PathBuf>) -> Result<(), Error> {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.changes.everything = true;
            return self.plant(|_| true);
        }
        if flags.contains(ReadFlags::IGNORED) {
            if let Some(folder) = self.folders.remove(&watch) {
                self.watches.remove(&folder);
            }
            return Ok(());
        }
        let (Some(folder), Some(name)) = (self.folders.get(&watch), name) else { return Ok(()) };
        let path = folder.join(name);
        let appears = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        if self.rules.iter().any(|rule| rule.path != path && rule.path.starts_with(&path)) {
            // Something on the way to a rule's path came or went.
            self.forget_below(&path);
            return self.plant(|rule| rule.starts_with(&path));
        }
        if flags.contains(ReadFlags::ISDIR) {
            if appears {
                self.grow(path.clone())?;
            } else if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                self.forget_below(&path);
            } else {
                return Ok(());
            }
        } else if flags.contains(ReadFlags::CREATE) && !is_finished(&path) {
            // Whoever made it will close it.
            return Ok(());
        }
        self.note(path);
        Ok(())
    }

    /// Notes a change, if a rule is about it.
    fn note(&mut self, path: PathBuf) {
        if self.rules.iter().any(|rule| rule.matches(&path).is_some()) {
            self.changes.paths.insert(path);
        }
    }

    /// Watches the paths of some rules, or where they will come to be.
    fn plant(&mut self, which: impl Fn(&Path) -> bool) -> Result<(), Error> {
        let roots: BTreeSet<PathBuf> =
            self.rules.iter().map(|rule| rule.path.clone()).filter(|path| which(path)).collect();
        for root in roots {
            for above in root.ancestors().skip(1) {
                if self.watch(above)? {
                    break;
                }
            }
            if fs::symlink_metadata(&root).is_ok_and(|metadata| metadata.is_dir()) {
                self.grow(root)?;
            } else if root.exists() {
                self.note(root);
            }
        }
        Ok(())
    }

    /// Watches a folder and all below it that a rule enters; what is there counts as changed.
    fn grow(&mut self, folder: PathBuf) -> Result<(), Error> {
        let mut waiting = vec![folder];
        while let Some(folder) = waiting.pop() {
            if !self.rules.iter().any(|rule| rule.enters(&folder)) || !self.watch(&folder)? {
                continue;
            }
            // Watched first, so that nothing is missed in between. A folder that cannot be read has nothing to tell.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        self.note(entry.path());
                        waiting.push(entry.path());
                    }
                    Ok(_) => self.note(entry.path()),
                    Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Watches one folder; false if it is gone, no folder, or not to be read.
    fn watch(&mut self, folder: &Path) -> Result<bool, Error> {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::EXCL_UNLINK;
        match inotify::add_watch(self.inotify.get_ref(), folder, flags) {
            Ok(watch) => {
                if let Some(old) = self.folders.insert(watch, folder.to_owned()) {
                    self.watches.remove(&old);
                }
                self.watches.insert(folder.to_owned(), watch);
                Ok(true)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(false),
            Err(Errno::NOSPC) => Err(Error::Watches { at: folder.to_owned(), limit: limit("max_user_watches") }),
            Err(e) => Err(Error::Watch { path: folder.to_owned(), source: e.into() }),
        }
    }

    /// Lets go of a folder that was moved away or removed, and of all below it.
    fn forget_below(&mut self, folder: &Path) {
        let gone: Vec<PathBuf> = self
            .watches
            .range(folder.to_owned()..)
            .take_while(|(path, _)| path.starts_with(folder))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            if let Some(watch) = self.watches.remove(&path) {
                self.folders.remove(&watch);
                // It may have gone by itself.
                let _ = inotify::remove_watch(self.inotify.get_ref(), watch);
            }
        }
    }
}

type Event = (i32, ReadFlags, Option<PathBuf>);

/// Reads what one system call gives.
fn read(inotify: &OwnedFd, buffer: &mut [MaybeUninit<u8>], events: &mut Vec<Event>) -> io::Result<()> {
    let mut reader = inotify::Reader::new(inotify.as_fd(), buffer);
    loop {
        let event = match reader.next() {
            Ok(event) => event,
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        let name = event.file_name().map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())));
        events.push((event.wd(), event.events(), name));
        if reader.is_buffer_empty() {
            return Ok(());
        }
    }
}

/// Whether a name that was just made is complete: a link, or a second name of a file.
fn is_finished(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file() || metadata.nlink() > 1)
}

fn failed(source: io::Error) -> Error {
    Error::Watch { path: "files".into(), source }
}

fn limit(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).map_or("unknown".into(), |text| text.trim().to_owned())
}
