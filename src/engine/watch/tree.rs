//! Which files changed: all folders that may have something of interest in them are watched, and those above each
//! rule's path, so that the path itself may come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rustix::fs::inotify::ReadFlags;
use tokio::time::{Instant, timeout_at};

use super::error::Error;
use super::rule::Rule;
use super::source::{Event, Source};

/// How long nothing more must come before a change is acted on.
const ALONE: Duration = Duration::from_millis(2);
/// The same once more did come: an editor's save, a checkout.
const QUIET: Duration = Duration::from_millis(20);
/// Who never stops writing is not waited for.
const LONGEST: Duration = Duration::from_millis(500);

/// What changed since the last time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files and folders that were made, written, renamed or removed, and what of that happened.
    pub paths: BTreeMap<PathBuf, ReadFlags>,
    /// Those among them that containers changed themselves.
    pub own: BTreeSet<PathBuf>,
    /// Events were lost: anything may have changed.
    pub everything: bool,
}

impl Changes {
    /// True if nothing changed.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && !self.everything
    }

    fn add(&mut self, path: PathBuf, flags: ReadFlags) {
        *self.paths.entry(path).or_insert(ReadFlags::empty()) |= flags;
    }

    /// Adds later changes.
    pub fn merge(&mut self, other: Self) {
        for (path, flags) in other.paths {
            self.add(path, flags);
        }
        self.own.extend(other.own);
        self.everything |= other.everything;
    }
}

/// Watches what rules are about.
#[derive(Debug)]
pub struct Tree {
    source: Source,
    rules: Vec<Rule>,
    /// Files that were made and not closed yet: whoever made them will.
    unfinished: BTreeSet<PathBuf>,
    /// Why watches don't do, where they don't.
    lack: Option<Error>,
    /// What is there at the beginning is no change.
    begun: bool,
    changes: Changes,
}

impl Tree {
    /// Begins to watch. Needs a running tokio runtime.
    pub fn new(rules: &[Rule]) -> Result<Self, Error> {
        Self::with(Source::new()?, rules)
    }

    fn with(source: Source, rules: &[Rule]) -> Result<Self, Error> {
        let (unfinished, changes) = (BTreeSet::new(), Changes::default());
        let mut tree = Self { source, rules: rules.to_vec(), unfinished, lack: None, begun: false, changes };
        tree.plant(|_| true)?;
        tree.begun = true;
        Ok(tree)
    }

    /// Number of folders watched.
    pub fn folders(&self) -> usize {
        self.source.count()
    }

    /// Why every write on the disk wakes this process, since it was last asked and does.
    pub fn lack(&mut self) -> Option<Error> {
        self.lack.take()
    }

    /// Waits for changes. A single one is given back at once; while more keep coming, they are gathered. Nothing is
    /// lost where this is dropped.
    pub async fn next(&mut self) -> Result<Changes, Error> {
        while self.changes.is_empty() {
            self.source.readable().await?;
            self.drain()?;
        }
        let end = Instant::now() + LONGEST;
        let mut pause = ALONE;
        loop {
            let until = (Instant::now() + pause).min(end);
            match timeout_at(until, self.source.readable()).await {
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

    /// Takes in all events that are there.
    fn drain(&mut self) -> Result<(), Error> {
        self.source.drain()?.into_iter().try_for_each(|event| self.event(event))
    }

    fn event(&mut self, event: Event) -> Result<(), Error> {
        let (folder, name, flags) = match event {
            Event::Named(folder, name, flags) => (folder, name, flags),
            Event::Ended(watch) => return Ok(self.source.ended(watch)),
            Event::Lost => {
                self.changes.everything = true;
                for folder in self.source.gone() {
                    self.source.forget_below(&folder);
                    self.note(folder, ReadFlags::DELETE);
                }
                return self.plant(|_| true);
            }
        };
        let Some(folder) = self.source.path(&folder) else { return Ok(()) };
        let path = folder.join(name);
        if self.rules.iter().any(|rule| rule.path != path && rule.path.starts_with(&path)) {
            // Something on the way to a rule's path came or went.
            self.source.forget_below(&path);
            return self.plant(|rule| rule.starts_with(&path));
        }
        let goes = flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM);
        if flags.contains(ReadFlags::ISDIR) {
            if goes {
                self.source.forget_below(&path);
            }
            if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                self.grow(path.clone())?;
            } else if !goes {
                return Ok(());
            }
        } else if flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
            self.unfinished.remove(&path);
        } else if goes {
            // What came and went unfinished never was anything.
            if self.unfinished.remove(&path) {
                return Ok(());
            }
        } else if flags.contains(ReadFlags::CREATE) && !is_finished(&path) {
            if self.concerns(&path) {
                self.unfinished.insert(path);
            }
            return Ok(());
        }
        self.note(path, flags);
        Ok(())
    }

    fn concerns(&self, path: &Path) -> bool {
        self.rules.iter().any(|rule| rule.matches(path).is_some())
    }

    /// Notes a change, if a rule is about it.
    fn note(&mut self, path: PathBuf, flags: ReadFlags) {
        if self.begun && self.concerns(&path) {
            self.changes.add(path, flags);
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
                self.note(root, ReadFlags::CREATE);
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
                        self.note(entry.path(), ReadFlags::CREATE);
                        waiting.push(entry.path());
                    }
                    Ok(_) if self.begun => self.note(entry.path(), ReadFlags::CREATE),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Watches one folder; false if it is gone, no folder, or not to be read. Where watches run out, the whole file
    /// system is watched from now on.
    fn watch(&mut self, folder: &Path) -> Result<bool, Error> {
        let lack = match self.source.watch(folder) {
            Err(error @ Error::Watches { .. }) => error,
            other => return other,
        };
        let Ok(disks) = Source::of_disks() else { return Err(lack) };
        let folders = std::mem::replace(&mut self.source, disks).folders();
        for folder in folders.iter().map(PathBuf::as_path).chain([folder]) {
            if self.source.watch(folder).is_err() {
                return Err(lack);
            }
        }
        self.lack = Some(lack);
        Ok(true)
    }
}

/// Whether a name that was just made is complete: a link, or a second name of a file.
fn is_finished(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file() || metadata.nlink() > 1)
}
