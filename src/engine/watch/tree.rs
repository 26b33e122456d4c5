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
    /// Those among them that others than containers changed, as far as a rule asks who did.
    pub others: BTreeSet<PathBuf>,
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
        self.others.extend(other.others);
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

    /// The changes that are there already.
    pub fn more(&mut self) -> Result<Changes, Error> {
        self.drain()?;
        Ok(std::mem::take(&mut self.changes))
    }

    /// Takes in all events that are there.
    fn drain(&mut self) -> Result<(), Error> {
        self.source.drain()?.into_iter().try_for_each(|event| self.event(event))
    }

    fn event(&mut self, event: Event) -> Result<(), Error> {
        let (folder, name, flags) = match event {
            Event::Named(folder, name, flags) => (folder, name, flags),
            Event::Ended(watch) => {
                self.source.ended(watch);
                return Ok(());
            }
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::spec::model::Service;
    use serde_json::json;

    fn rules(folder: &Path) -> Vec<Rule> {
        let rule = json!({"path": folder, "action": "restart", "ignore": ["**/node_modules"]});
        let service: Service = serde_json::from_value(json!({"develop": {"watch": [rule]}})).unwrap();
        Rule::of("api", &service, &[]).unwrap().0
    }

    fn git(folder: &Path, words: &str) {
        let mut command = Command::new("git");
        command.current_dir(folder).args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=one"]);
        assert!(command.args(words.split(' ')).output().unwrap().status.success(), "git {words}");
    }

    /// Names below the folder that changed, until `last` is among them.
    async fn until(tree: &mut Tree, folder: &Path, last: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        while !names.contains(last) {
            let changes = tokio::time::timeout(Duration::from_secs(20), tree.next()).await;
            let changes = changes.unwrap_or_else(|_| panic!("{last} after {names:?}")).unwrap();
            assert!(!changes.everything);
            let below = changes.paths.into_keys().map(|path| path.strip_prefix(folder).unwrap().to_owned());
            names.extend(below.map(|path| path.display().to_string()));
        }
        names
    }

    fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.into_iter().map(str::to_owned).collect()
    }

    /// What editors, shells and git do to files.
    async fn follows(source: Source) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let write = |name: &str| fs::write(folder.join(name), "text").unwrap();
        fs::create_dir_all(folder.join("deep/node_modules/x")).unwrap();
        write("kept");
        let mut tree = Tree::with(source, &rules(folder)).unwrap();
        assert_eq!(tree.folders(), 3, "the one above, its own and one below; an ignored one is never watched");

        write("kept");
        assert_eq!(until(&mut tree, folder, "kept").await, set(["kept"]));
        write("deep/node_modules/x/y");
        write(".kept.swp");
        write("aside");
        fs::rename(folder.join("aside"), folder.join("kept")).unwrap();
        assert_eq!(until(&mut tree, folder, "kept").await, set(["aside", "kept"]));

        fs::create_dir_all(folder.join("new/er")).unwrap();
        write("new/er/a");
        let names = until(&mut tree, folder, "new/er/a").await;
        assert!(names.is_subset(&set(["new", "new/er", "new/er/a"])), "{names:?}");
        fs::rename(folder.join("new"), folder.join("old")).unwrap();
        assert!(until(&mut tree, folder, "old").await.contains("new"));
        write("old/er/a");
        until(&mut tree, folder, "old/er/a").await;
        fs::remove_dir_all(folder.join("old")).unwrap();
        until(&mut tree, folder, "old").await;
        fs::remove_file(folder.join("kept")).unwrap();
        until(&mut tree, folder, "kept").await;

        git(folder, "init -q");
        write("both");
        write("one");
        git(folder, "add both one");
        git(folder, "commit -qm one");
        git(folder, "checkout -qb two");
        fs::write(folder.join("both"), "other").unwrap();
        fs::create_dir(folder.join("sub")).unwrap();
        write("sub/two");
        git(folder, "rm -q one");
        git(folder, "add both sub/two");
        git(folder, "commit -qm two");
        write("end");
        until(&mut tree, folder, "end").await;
        git(folder, "checkout -q one");
        write("end");
        let names = until(&mut tree, folder, "end").await;
        // A folder that is gone tells of all that was in it.
        assert!(set(["both", "one", "sub"]).is_subset(&names), "{names:?}");
        assert!(!names.iter().any(|name| name.starts_with(".git")), "{names:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn watches_follow_what_editors_and_git_do() {
        follows(Source::new().unwrap()).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn marks_on_a_disk_follow_the_same() {
        follows(Source::of_disks().unwrap()).await;
    }

    #[tokio::test(flavor = "current_thread")]
    async fn lost_events_make_everything_count() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        let mut tree = Tree::new(&rules(folder.path())).unwrap();
        let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
        let names = [folder.path().join("a"), folder.path().join("b")];
        for name in names.iter().cycle().take(most + 2) {
            fs::File::create(name).unwrap();
        }
        fs::remove_dir(folder.path().join("sub")).unwrap();
        fs::create_dir(folder.path().join("late")).unwrap();
        let changes = tree.next().await.unwrap();
        assert!(changes.everything && changes.paths.contains_key(&folder.path().join("sub")));
        fs::write(folder.path().join("late/a"), "").unwrap();
        until(&mut tree, folder.path(), "late/a").await;
    }
}
