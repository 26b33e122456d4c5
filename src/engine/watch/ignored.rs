//! What dev mode never looks at: a rule's own patterns, the build's `.dockerignore`, and what editors and git leave.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use crate::build::Ignore;

/// The patterns that keep files from a rule.
#[derive(Debug, Clone, Default)]
pub(super) struct Ignored {
    /// Relative to the rule's path.
    own: Ignore,
    /// The build's, relative to its context.
    build: Option<(PathBuf, Ignore)>,
}

impl Ignored {
    /// `own` are a rule's patterns; `build` is the context of the service's build.
    pub(super) fn new(own: &[String], build: Option<(PathBuf, Ignore)>) -> Result<Self, String> {
        Ok(Self { own: Ignore::patterns(own).map_err(|e| e.to_string())?, build })
    }

    /// Whether a file or folder is left out; `path` is absolute, `relative` the same below the rule's path.
    pub(super) fn excludes(&self, path: &Path, relative: &str) -> bool {
        self.find(path, relative, Ignore::excludes)
    }

    /// Whether nothing below a folder can be of interest. The folders above it are.
    pub(super) fn prunes(&self, folder: &Path, relative: &str) -> bool {
        self.find(folder, relative, |ignore, path| ignore.excludes(path) && !ignore.reaches_below(path))
    }

    fn find(&self, path: &Path, relative: &str, hits: impl Fn(&Ignore, &str) -> bool) -> bool {
        if relative.is_empty() {
            return false;
        }
        let by_build = |(context, ignore): &(PathBuf, Ignore)| {
            !ignore.is_empty() && path.strip_prefix(context).is_ok_and(|path| hits(ignore, &path.to_string_lossy()))
        };
        relative.split('/').any(is_dropping)
            || !self.own.is_empty() && hits(&self.own, relative)
            || self.build.as_ref().is_some_and(by_build)
    }
}

/// The ignore file of a build; that of its Dockerfile wins.
pub(super) fn of_build(context: &Path, dockerfile: Option<&str>) -> Result<Ignore, String> {
    let own = context.join(format!("{}.dockerignore", dockerfile.unwrap_or("Dockerfile")));
    for path in [own, context.join(".dockerignore")] {
        match fs::read_to_string(&path) {
            Ok(text) => return Ignore::parse(&path.display().to_string(), &text).map_err(|e| e.to_string()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    Ok(Ignore::default())
}

/// Whether a name is one that git, an editor or a compiler makes on the way to the file that counts.
fn is_dropping(name: &str) -> bool {
    let swap = |name: &str| {
        name.starts_with('.') && [".swp", ".swx", ".swo", ".swn", ".kate-swp"].iter().any(|end| name.ends_with(end))
    };
    matches!(name, ".git" | ".idea" | "4913")
        || name.ends_with('~')
        || name.starts_with(".#")
        || name.len() > 1 && name.starts_with('#') && name.ends_with('#')
        || name.ends_with("___jb_old___")
        || name.ends_with("___jb_tmp___")
        || name.ends_with("-go-tmp-umask")
        || swap(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn droppings_are_known() {
        for name in [".git", "a.c~", ".a.c.swp", "4913", ".#a", "#a#", "x___jb_tmp___", ".idea", "a-go-tmp-umask"] {
            assert!(is_dropping(name), "{name}");
        }
        for name in ["git", ".gitignore", "a.swp", "#", "49130", "a.c", "~a"] {
            assert!(!is_dropping(name), "{name}");
        }
    }

    #[test]
    fn a_dockerignore_with_exceptions_lets_them_through() {
        let build = Ignore::parse("x", "*\n!src\n").unwrap();
        let ignored = Ignored::new(&[], Some(("/p".into(), build))).unwrap();
        assert!(!ignored.excludes(Path::new("/p/src/a"), "a"));
        assert!(ignored.excludes(Path::new("/p/other"), "other") && ignored.prunes(Path::new("/p/other"), "other"));
        assert!(!ignored.excludes(Path::new("/elsewhere/other"), "other"));
    }

    #[test]
    fn patterns_reach_nested_names_and_prune_folders() {
        let ignored = Ignored::new(&["**/node_modules".to_owned(), "*.tmp".to_owned()], None).unwrap();
        let at = |name: &str| (PathBuf::from("/p").join(name), name.to_owned());
        let (path, name) = at("a/node_modules");
        assert!(ignored.prunes(&path, &name));
        let (path, name) = at("a/node_modules/x/y.js");
        assert!(ignored.excludes(&path, &name));
        let (path, name) = at("x.tmp");
        assert!(ignored.excludes(&path, &name));
        let (path, name) = at("a/x.tmp");
        assert!(!ignored.excludes(&path, &name), "relative to the rule's path, as docker compose has it");
    }
}
