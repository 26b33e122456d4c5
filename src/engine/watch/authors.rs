//! Who changed a file: a container itself, or somebody else.
//!
//! What is written through a container's own mounts arrives in a fanotify queue, before any inotify queue hears of the
//! same write. Names that come and go carry no such sign: a file that comes is its container's if it wrote it last, one
//! that goes if it came so.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::inotify::ReadFlags;
use rustix::fs::{FileType, Stat};

use super::batch::listed;
use super::rule::Rule;
use super::tree::Changes;
use crate::sys::fanotify::Fanotify;

/// Files remembered as a container's own; beyond, all are forgotten.
const MOST: usize = 1 << 16;

/// Names a file among all.
type Id = (u64, u64);

/// Knows what containers wrote.
#[derive(Debug)]
pub struct Authors {
    queue: Fanotify,
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
        let queue = Fanotify::of_files()?;
        Ok(Self { queue, files: BTreeSet::new(), paths: BTreeSet::new(), asked: Timestamp::now() })
    }

    /// Notes which of the changes are the containers' own, for rules that only count what others change.
    pub fn attribute(&mut self, rules: &[Rule], changes: &mut Changes) -> io::Result<()> {
        let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.auto).collect();
        let now: BTreeSet<Id> =
            self.queue.files()?.iter().filter_map(|file| rustix::fs::fstat(file).ok()).map(id).collect();
        if changes.everything {
            self.look_for(&rules, &now, changes);
        }
        for (path, flags) in &changes.paths {
            if !rules.iter().any(|rule| rule.matches(path).is_some()) {
                continue;
            }
            let stat = rustix::fs::lstat(path).ok();
            let own = match stat.map(|stat| (id(stat), FileType::from_raw_mode(stat.st_mode))) {
                // What is in it counts.
                Some((_, FileType::Directory)) => true,
                Some((id, _)) if flags.contains(ReadFlags::CLOSE_WRITE) => {
                    let own = now.contains(&id);
                    if !own {
                        self.files.remove(&id);
                    }
                    own
                }
                Some((id, _)) if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) => {
                    now.contains(&id) || self.files.contains(&id)
                }
                // The same content under another mode or time.
                Some(_) => true,
                // It came and went, or is gone.
                None => {
                    flags.intersects(ReadFlags::CREATE | ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO)
                        || self.paths.contains(path)
                }
            };
            if own {
                changes.own.insert(path.clone());
            }
            if own && stat.is_some() {
                self.paths.insert(path.clone());
            } else {
                self.paths.remove(path);
            }
        }
        self.files.extend(now);
        if self.files.len() > MOST {
            self.files.clear();
        }
        if self.paths.len() > MOST {
            self.paths.clear();
        }
        self.asked = Timestamp::now();
        Ok(())
    }

    /// Events were lost: finds what was changed since the last look.
    fn look_for(&self, rules: &[&Rule], now: &BTreeSet<Id>, changes: &mut Changes) {
        for path in rules.iter().flat_map(|rule| listed(rule)).map(|(path, _)| path) {
            let Ok(stat) = rustix::fs::lstat(&path) else { continue };
            let id = id(stat);
            let nanos = i32::try_from(stat.st_ctime_nsec).unwrap_or_default();
            let changed = Timestamp::new(stat.st_ctime, nanos).is_ok_and(|changed| changed >= self.asked);
            if changed && !now.contains(&id) && !self.files.contains(&id) {
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
