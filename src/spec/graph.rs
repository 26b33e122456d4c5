//! Cycles among services.

use std::collections::BTreeSet;

use super::model::Project;

/// The first cycle of dependencies, if there is one: `[a, b, a]`.
pub(crate) fn cycle(project: &Project) -> Option<Vec<&str>> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in project.services.keys() {
        let mut path: Path<'_> = Vec::new();
        let mut open: BTreeSet<&str> = BTreeSet::new();
        enter(project, start, &mut path, &mut open);
        while let Some((name, dependencies)) = path.last_mut() {
            let name = *name;
            let Some(next) = dependencies.next() else {
                path.pop();
                open.remove(name);
                done.insert(name);
                continue;
            };
            if open.contains(next.as_str()) {
                let from = path.iter().position(|(name, _)| name == next).unwrap_or(0);
                let names = path[from..].iter().map(|(name, _)| *name);
                return Some(names.chain([next.as_str()]).collect());
            }
            if !done.contains(next.as_str()) {
                enter(project, next, &mut path, &mut open);
            }
        }
    }
    None
}

type Path<'p> = Vec<(&'p str, std::collections::btree_map::Keys<'p, String, super::model::Dependency>)>;

fn enter<'p>(project: &'p Project, name: &'p str, path: &mut Path<'p>, open: &mut BTreeSet<&'p str>) {
    if let Some(service) = project.services.get(name) {
        path.push((name, service.depends_on.keys()));
        open.insert(name);
    }
}
