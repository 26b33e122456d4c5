//! Who changed a file: a container itself, or somebody else.
//!
//! What is written through a container's own mounts arrives in a fanotify queue, before any inotify queue hears of the
//! same write. Names that come and go carry no such sign: a file that comes is its container's if it wrote it last, one
//! that goes if it came so.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::fs::inotify::ReadFlags;
use rustix::fs::{FileType, Stat};

use super::batch::listed;
use super::rule::Rule;
use super::tree::Changes;
use crate::sys::fanotify::Fanotify;

/// Files remembered as a container's own; beyond, all are forgotten.
const MOST: usize = 1 << 16;

/// How long after a container's write was heard of the change may be seen.
const LATE: Duration = Duration::from_millis(20);

/// Names a file among all.
type Id = (u64, u64);

/// Knows what containers wrote.
#[derive(Debug)]
pub struct Authors {
    queue: Fanotify,
    /// Files that containers wrote just now.
    recent: BTreeMap<Id, Instant>,
    /// Files that a container wrote last.
    files: BTreeSet<Id>,
    /// Where such files were.
    paths: BTreeSet<PathBuf>,
    /// When it was last asked.
    asked: Timestamp,
}

impl Authors {
    /// Knows of nothing yet: somebody must put marks on mounts into its queue.
    pub fn new() -> io::Result<Self> {
        let (recent, files, paths) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Ok(Self { queue: Fanotify::of_files()?, recent, files, paths, asked: Timestamp::now() })
    }

    /// Takes in what containers have written by now. Changes seen afterwards have their author known.
    pub fn listen(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.recent.retain(|_, written| now.duration_since(*written) < LATE);
        for file in self.queue.files()? {
            let id = id(rustix::fs::fstat(file)?);
            self.recent.insert(id, now);
            self.files.insert(id);
        }
        Ok(())
    }

    /// Notes which of the changes others than containers made, for rules that count only those.
    pub fn attribute(&mut self, rules: &[Rule], changes: &mut Changes) {
        let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.auto).collect();
        if changes.everything {
            self.look_for(&rules, changes);
        }
        for (path, flags) in &changes.paths {
            if rules.iter().any(|rule| rule.matches(path).is_some()) && self.is_others(path, *flags) {
                changes.others.insert(path.clone());
            }
        }
        if self.files.len() > MOST {
            self.files.clear();
        }
        if self.paths.len() > MOST {
            self.paths.clear();
        }
        self.asked = Timestamp::now();
    }

    /// Whether others than containers changed what is in a file, or took it away.
    fn is_others(&mut self, path: &Path, flags: ReadFlags) -> bool {
        let comes = flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
        let Ok(stat) = rustix::fs::lstat(path) else {
            if comes || flags.contains(ReadFlags::CLOSE_WRITE) {
                // It came and went; that it went may be told once more.
                self.paths.insert(path.to_owned());
                return false;
            }
            return !self.paths.remove(path);
        };
        // What is in a folder counts; nobody can tell who made a link or a socket.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return false;
        }
        let id = id(stat);
        let others = if flags.contains(ReadFlags::CLOSE_WRITE) {
            !self.recent.contains_key(&id)
        } else {
            // Without either, only its mode or times changed.
            comes && !self.files.contains(&id)
        };
        if others {
            self.files.remove(&id);
            self.paths.remove(path);
        } else if self.files.contains(&id) {
            self.paths.insert(path.to_owned());
        }
        others
    }

    /// Events were lost: finds what was changed since the last look.
    fn look_for(&self, rules: &[&Rule], changes: &mut Changes) {
        for path in rules.iter().flat_map(|rule| listed(rule)).map(|(path, _)| path) {
            let Ok(stat) = rustix::fs::lstat(&path) else { continue };
            let nanos = i32::try_from(stat.st_ctime_nsec).unwrap_or_default();
            let changed = Timestamp::new(stat.st_ctime, nanos).is_ok_and(|changed| changed >= self.asked);
            if changed && !self.files.contains(&id(stat)) {
                changes.paths.insert(path, ReadFlags::CLOSE_WRITE);
            }
        }
    }
}

fn id(stat: Stat) -> Id {
    (stat.st_dev, stat.st_ino)
}

impl AsFd for Authors {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }
}

/// The folder up to which files count as a project's own: the repository that it is in, or its own folder.
pub(super) fn home(folder: &Path) -> &Path {
    folder.ancestors().find(|folder| folder.join(".git").exists()).unwrap_or(folder)
}
