//! What a batch of changes asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::rule::{Act, Rule};
use super::tree::Changes;
use crate::spec::model::Hook;

/// A name to make the same in the container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The rule's target in the container.
    pub target: PathBuf,
    /// Path below the target, as below the rule's path; empty for that itself.
    pub below: PathBuf,
    /// On the host.
    pub from: PathBuf,
}

/// What there is to do for one service: rebuild, or copy and then the rest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Work {
    /// Paths that changed, for the user.
    pub paths: BTreeSet<PathBuf>,
    /// Build and replace; everything else is done by that.
    pub rebuild: bool,
    /// Names to copy or delete.
    pub changes: BTreeSet<Change>,
    /// Restart in any case.
    pub restart: bool,
    /// Restart if the copying changed anything.
    pub restart_if_changed: bool,
    /// Commands to run in the containers if the copying changed anything.
    pub execs: Vec<Hook>,
}

/// What `changes` ask for, by service.
pub fn plan(rules: &[Rule], changes: &Changes) -> BTreeMap<String, Work> {
    let mut works: BTreeMap<String, Work> = BTreeMap::new();
    for rule in rules {
        let mut hits: Vec<(PathBuf, PathBuf)> =
            changes.paths.keys().filter_map(|path| Some((path.clone(), rule.matches(path)?))).collect();
        if rule.auto {
            hits.retain(|(path, _)| changes.others.contains(path));
        } else if changes.everything {
            hits.extend(listed(rule));
        }
        if hits.is_empty() && (rule.auto || !changes.everything) {
            continue;
        }
        let work = works.entry(rule.service.clone()).or_default();
        work.paths.extend(hits.iter().map(|(path, _)| path.clone()));
        if let Some(target) = &rule.target {
            work.changes.extend(hits.into_iter().map(|hit| change(target, hit)));
        }
        match &rule.act {
            Act::Rebuild => work.rebuild = true,
            Act::Restart if rule.target.is_some() => work.restart_if_changed = true,
            Act::Restart => work.restart = true,
            Act::Exec(hook) if !work.execs.contains(hook) => work.execs.push(hook.clone()),
            Act::Sync | Act::Exec(_) => {}
        }
    }
    works
}

/// What the rules with `initial_sync` of a service copy at the beginning.
pub fn initial(rules: &[Rule], service: &str) -> BTreeSet<Change> {
    let rules = rules.iter().filter(|rule| rule.initial_sync && rule.service == service);
    let changes = rules.flat_map(|rule| {
        let target = rule.target.clone().unwrap_or_default();
        listed(rule).into_iter().map(move |hit| change(&target, hit))
    });
    changes.collect()
}

/// Every file and folder that a rule is about, with its path below the rule's.
pub(super) fn listed(rule: &Rule) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    let mut waiting = vec![rule.path.clone()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = fs_err::symlink_metadata(&path) else { continue };
        if let Some(below) = rule.matches(&path) {
            found.push((path.clone(), below));
        }
        if metadata.is_dir() && rule.enters(&path) {
            // A folder that cannot be read has nothing to give.
            let entries = fs_err::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.map(|entry| entry.path()));
        }
    }
    found
}

fn change(target: &Path, (from, below): (PathBuf, PathBuf)) -> Change {
    Change { target: target.to_owned(), below, from }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::model::Service;
    use rustix::fs::inotify::ReadFlags;
    use serde_json::json;

    fn rules(watch: serde_json::Value) -> Vec<Rule> {
        let service = json!({"build": {"context": "/p"}, "develop": {"watch": watch}});
        let service: Service = serde_json::from_value(service).unwrap();
        Rule::of("api", &service, &[]).unwrap().0
    }

    fn changed(paths: &[&str]) -> Changes {
        Changes {
            paths: paths.iter().map(|path| (path.into(), ReadFlags::CLOSE_WRITE)).collect(),
            ..Changes::default()
        }
    }

    #[test]
    fn several_rules_may_be_about_one_file() {
        let rules = rules(json!([
            {"path": "/p/src", "action": "sync+restart", "target": "/app"},
            {"path": "/p/src/deps", "action": "rebuild"},
            {"path": "/p/conf", "action": "restart"},
        ]));
        let works = plan(&rules, &changed(&["/p/src/a/b", "/p/other"]));
        let work = &works["api"];
        let change = Change { from: "/p/src/a/b".into(), target: "/app".into(), below: "a/b".into() };
        assert_eq!(work.changes, BTreeSet::from([change]));
        assert!(work.restart_if_changed && !work.restart && !work.rebuild);
        assert!(plan(&rules, &changed(&["/p/src/deps"]))["api"].rebuild);
        assert!(plan(&rules, &changed(&["/p/conf"]))["api"].restart);
        assert!(plan(&rules, &changed(&["/p/other"])).is_empty());
    }

    #[test]
    fn after_an_overflow_everything_counts() {
        let folder = tempfile::tempdir().unwrap();
        fs_err::create_dir_all(folder.path().join("a")).unwrap();
        fs_err::write(folder.path().join("a/b"), "").unwrap();
        let rules = rules(json!([{"path": folder.path(), "action": "sync", "target": "/app", "initial_sync": true}]));
        let works = plan(&rules, &Changes { everything: true, ..Changes::default() });
        let below: Vec<&Path> = works["api"].changes.iter().map(|change| change.below.as_path()).collect();
        assert_eq!(below, [Path::new(""), Path::new("a"), Path::new("a/b")]);
        assert_eq!(initial(&rules, "api"), works["api"].changes);
        assert!(initial(&rules, "other").is_empty());
    }
}
