//! Where file events come from: an inotify instance with a watch on each folder; once the kernel gives no more watches,
//! a mark on the whole file system, which costs a wake-up for every write on it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::Error;
use crate::sys::fanotify::{Fanotify, Named, Scope};
use crate::sys::ready;

/// What is of interest; the bits are the same for both kinds of queue.
const WANTED: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB);

/// An event.
#[derive(Debug)]
pub(super) enum Event {
    /// Events were lost.
    Lost,
    /// A folder is no longer watched.
    Ended(i32),
    /// Something happened to a name.
    Named(Folder, PathBuf, ReadFlags),
}

/// The folder that an event happened in.
#[derive(Debug)]
pub(super) enum Folder {
    Watch(i32),
    Handle(Vec<u8>),
}

/// A queue of events.
#[derive(Debug)]
pub(super) struct Source {
    queue: AsyncFd<OwnedFd>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Watched folders by watch descriptor, and the other way round.
    Folders { folders: HashMap<i32, PathBuf>, watches: BTreeMap<PathBuf, i32> },
    /// A folder of each file system that is marked, by device.
    Disks { queue: Fanotify, roots: BTreeMap<u64, fs::File>, seen: BTreeSet<PathBuf> },
}

impl Source {
    /// Watches nothing yet. Needs a running tokio runtime.
    pub(super) fn new() -> Result<Self, Error> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| match e {
            Errno::MFILE => Error::Instances(limit("max_user_instances")),
            e => failed(e.into()),
        })?;
        let kind = Kind::Folders { folders: HashMap::new(), watches: BTreeMap::new() };
        Ok(Self { queue: ready::register(inotify).map_err(failed)?, kind })
    }

    /// The same by marks on whole file systems.
    pub(super) fn of_disks() -> io::Result<Self> {
        let queue = Fanotify::of_names()?;
        let readable = ready::register(queue.as_fd().try_clone_to_owned()?)?;
        Ok(Self { queue: readable, kind: Kind::Disks { queue, roots: BTreeMap::new(), seen: BTreeSet::new() } })
    }

    /// All folders watched.
    pub(super) fn folders(self) -> Vec<PathBuf> {
        match self.kind {
            Kind::Folders { folders, .. } => folders.into_values().collect(),
            Kind::Disks { seen, .. } => seen.into_iter().collect(),
        }
    }

    /// Number of folders watched.
    pub(super) fn count(&self) -> usize {
        match &self.kind {
            Kind::Folders { folders, .. } => folders.len(),
            Kind::Disks { seen, .. } => seen.len(),
        }
    }

    /// Watches one folder; false if it is gone, no folder, or not to be read.
    pub(super) fn watch(&mut self, folder: &Path) -> Result<bool, Error> {
        let (folders, watches) = match &mut self.kind {
            Kind::Disks { queue, roots, seen } => {
                let device = match rustix::fs::lstat(folder) {
                    Ok(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => stat.st_dev,
                    _ => return Ok(false),
                };
                if let Entry::Vacant(entry) = roots.entry(device) {
                    let Ok(root) = fs::File::open(folder) else { return Ok(false) };
                    let mask = u64::from(WANTED.bits()) | libc::FAN_ONDIR;
                    let marked = queue.mark(Scope::FileSystem, mask, folder);
                    marked.map_err(|source| Error::Watch { path: folder.to_owned(), source })?;
                    entry.insert(root);
                }
                seen.insert(folder.to_owned());
                return Ok(true);
            }
            Kind::Folders { folders, watches } => (folders, watches),
        };
        let flags = WANTED | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW | WatchFlags::EXCL_UNLINK;
        match inotify::add_watch(self.queue.get_ref(), folder, flags) {
            Ok(watch) => {
                if let Some(old) = folders.insert(watch, folder.to_owned()) {
                    watches.remove(&old);
                }
                watches.insert(folder.to_owned(), watch);
                Ok(true)
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => Ok(false),
            Err(Errno::NOSPC) => Err(Error::Watches { at: folder.to_owned(), limit: limit("max_user_watches") }),
            Err(e) => Err(Error::Watch { path: folder.to_owned(), source: e.into() }),
        }
    }

    /// Lets go of a folder that was moved away or removed, and of all below it.
    pub(super) fn forget_below(&mut self, folder: &Path) {
        let (folders, watches) = match &mut self.kind {
            Kind::Disks { seen, .. } => return seen.retain(|path| !path.starts_with(folder)),
            Kind::Folders { folders, watches } => (folders, watches),
        };
        let below = watches.range(folder.to_owned()..).take_while(|(path, _)| path.starts_with(folder));
        for path in below.map(|(path, _)| path.clone()).collect::<Vec<_>>() {
            if let Some(watch) = watches.remove(&path) {
                folders.remove(&watch);
                // It may have gone by itself.
                let _ = inotify::remove_watch(self.queue.get_ref(), watch);
            }
        }
    }

    /// Forgets a folder that the kernel no longer watches.
    pub(super) fn ended(&mut self, watch: i32) {
        if let Kind::Folders { folders, watches } = &mut self.kind
            && let Some(folder) = folders.remove(&watch)
        {
            watches.remove(&folder);
        }
    }

    /// Watched folders that are gone.
    pub(super) fn gone(&self) -> Vec<PathBuf> {
        let is_gone = |folder: &&PathBuf| fs::symlink_metadata(folder).is_err();
        match &self.kind {
            Kind::Folders { watches, .. } => watches.keys().filter(is_gone).cloned().collect(),
            Kind::Disks { seen, .. } => seen.iter().filter(is_gone).cloned().collect(),
        }
    }

    /// Where a folder is now; none if it isn't watched or is gone.
    pub(super) fn path(&self, folder: &Folder) -> Option<PathBuf> {
        match (&self.kind, folder) {
            (Kind::Folders { folders, .. }, Folder::Watch(watch)) => folders.get(watch).cloned(),
            (Kind::Disks { roots, .. }, Folder::Handle(handle)) => {
                roots.values().find_map(|root| Fanotify::folder(root.as_fd(), handle).ok())
            }
            _ => None,
        }
    }

    /// Waits for an event.
    pub(super) async fn readable(&self) -> Result<(), Error> {
        let ready = self.queue.readable().await;
        ready.map(|mut guard| guard.retain_ready()).map_err(failed)
    }

    /// Takes the events that are there.
    pub(super) fn drain(&self) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        let drained = self.queue.try_io(Interest::READABLE, |fd| {
            match &self.kind {
                Kind::Folders { .. } => read(fd, &mut events)?,
                Kind::Disks { queue, .. } => events.extend(queue.names()?.into_iter().map(Event::from)),
            }
            // There is no more: ready again only by what comes from now on.
            Err::<(), _>(io::ErrorKind::WouldBlock.into())
        });
        match drained {
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => Err(failed(e)),
            _ => Ok(events),
        }
    }
}

impl From<Named> for Event {
    fn from(named: Named) -> Self {
        // The lower half has the same bits as inotify's.
        let flags = ReadFlags::from_bits_retain(u32::try_from(named.mask & u64::from(u32::MAX)).unwrap_or_default());
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return Self::Lost;
        }
        Self::Named(Folder::Handle(named.folder), named.name, flags)
    }
}

/// Reads an inotify queue to its end.
fn read(inotify: &OwnedFd, events: &mut Vec<Event>) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 1 << 14];
    let mut reader = inotify::Reader::new(inotify.as_fd(), &mut buffer);
    loop {
        let event = match reader.next() {
            Ok(event) => event,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let flags = event.events();
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            events.push(Event::Lost);
        } else if flags.contains(ReadFlags::IGNORED) {
            events.push(Event::Ended(event.wd()));
        } else if let Some(name) = event.file_name() {
            let name = PathBuf::from(OsStr::from_bytes(name.to_bytes()));
            events.push(Event::Named(Folder::Watch(event.wd()), name, flags));
        }
    }
}

fn failed(source: io::Error) -> Error {
    Error::Watch { path: "files".into(), source }
}

fn limit(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).map_or("unknown".into(), |text| text.trim().to_owned())
}
