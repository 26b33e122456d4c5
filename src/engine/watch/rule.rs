//! One entry of a service's `develop.watch`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::authors;
use super::error::Error;
use super::ignored::{self, Ignored};
use crate::build::Ignore;
use crate::spec::model::{Hook, MountKind, Service, VolumeMount};

/// What is no source, wherever it lies.
const NO_SOURCE: [&str; 9] = [
    "**/node_modules",
    "**/target",
    "**/__pycache__",
    "**/.venv",
    "**/.tox",
    "**/.cache",
    "**/.*_cache",
    "**/.gradle",
    "**/*.log",
];

/// What a change asks for, beside the copying.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Nothing more.
    Sync,
    /// Restart the service.
    Restart,
    /// Run a command in its containers.
    Exec(Hook),
    /// Build the image and replace the containers.
    Rebuild,
}

/// An entry of `develop.watch`, checked.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Service.
    pub service: String,
    /// File or folder on the host, absolute; it need not exist yet.
    pub path: PathBuf,
    /// Where its files go in the container, where they do.
    pub target: Option<PathBuf>,
    /// What else a change asks for.
    pub act: Act,
    /// Copy everything before watching.
    pub initial_sync: bool,
    /// It is `x-stack.watch: auto`: only what others than containers change counts.
    pub auto: bool,
    include: Ignore,
    ignored: Ignored,
    /// Files that describe the stack and are no part of a program: never copied.
    described_by: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    path: PathBuf,
    action: String,
    target: Option<PathBuf>,
    ignore: Vec<String>,
    include: Vec<String>,
    exec: Option<Hook>,
    initial_sync: bool,
}

impl Rule {
    /// The rules of a service, and what to warn of. `files` are the stack's own.
    pub fn of(name: &str, service: &Service, files: &[PathBuf]) -> Result<(Vec<Self>, Vec<String>), Error> {
        let entries = service.develop.as_ref().and_then(|develop| develop["watch"].as_array());
        let (mut rules, mut warnings) = (Vec::new(), Vec::new());
        for (index, entry) in entries.into_iter().flatten().enumerate() {
            let bad = |message: String| Error::Rule { service: name.to_owned(), index, message };
            let raw = Raw::deserialize(entry).map_err(|e| bad(e.to_string()))?;
            let rule = Self::new(name, service, files, raw, &bad)?;
            match rule.checked(service) {
                (Some(rule), None) => rules.push(rule),
                (rule, warning) => {
                    rules.extend(rule);
                    warnings.extend(warning.map(|text| bad(text).to_string()));
                }
            }
        }
        if is_auto(service) {
            let found = Self::auto(name, service, files)?;
            if found.is_empty() {
                warnings.push(format!(
                    "service `{name}`: x-stack.watch: there is nothing to watch: none of the project's files is mounted"
                ));
            }
            rules.extend(found);
        }
        Ok((rules, warnings))
    }

    /// A rule for each bind mount of the project's own files.
    fn auto(name: &str, service: &Service, files: &[PathBuf]) -> Result<Vec<Self>, Error> {
        let bad = |message: String| Error::Ignore { service: name.to_owned(), message };
        let project = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("/"));
        let home = authors::home(project);
        let sources = binds(service).filter_map(|mount| mount.source.as_deref().map(Path::new));
        let sources: BTreeSet<&Path> = sources.filter(|source| source.starts_with(home)).collect();
        let raw = |source: &Path| Raw {
            path: source.to_owned(),
            action: "restart".to_owned(),
            ignore: NO_SOURCE.map(str::to_owned).to_vec(),
            ..Raw::default()
        };
        let rules = sources.into_iter().map(|source| Self::new(name, service, files, raw(source), &bad));
        rules.map(|rule| Ok(Self { auto: true, ..rule? })).collect()
    }

    fn new(
        name: &str,
        service: &Service,
        files: &[PathBuf],
        raw: Raw,
        bad: &dyn Fn(String) -> Error,
    ) -> Result<Self, Error> {
        let build = service.build.as_ref().filter(|build| build.context.starts_with('/'));
        let mut described_by = files.to_vec();
        let of_build = match build {
            None => None,
            Some(build) => {
                let context = PathBuf::from(&build.context);
                let dockerfile = build.dockerfile.as_deref();
                described_by.push(context.join(dockerfile.unwrap_or("Dockerfile")));
                let ignore = ignored::of_build(&context, dockerfile);
                let ignore = ignore.map_err(|message| Error::Ignore { service: name.to_owned(), message })?;
                Some((context, ignore))
            }
        };
        let (copies, act) = match raw.action.as_str() {
            "sync" => (true, Act::Sync),
            "sync+restart" => (true, Act::Restart),
            "sync+exec" => {
                let hook = raw.exec.filter(|hook| !hook.command.is_empty());
                (true, Act::Exec(hook.ok_or_else(|| bad("action `sync+exec` needs `exec.command`".to_owned()))?))
            }
            "restart" => (false, Act::Restart),
            "rebuild" if service.build.is_none() => {
                return Err(bad(format!("action `rebuild` needs service `{name}` to have a `build`")));
            }
            "rebuild" => (false, Act::Rebuild),
            other => return Err(bad(format!("unknown action `{other}`"))),
        };
        let target = raw.target.filter(|_| copies);
        if target.as_ref().is_some_and(|target| !target.is_absolute()) {
            return Err(bad("`target` must be an absolute path in the container".to_owned()));
        }
        Ok(Self {
            service: name.to_owned(),
            path: raw.path,
            target,
            act,
            initial_sync: raw.initial_sync && copies,
            auto: false,
            include: Ignore::patterns(&raw.include).map_err(|e| bad(e.to_string()))?,
            ignored: Ignored::new(&raw.ignore, of_build).map_err(bad)?,
            described_by,
        })
    }

    /// What the container has by a bind mount needs no copying.
    fn checked(mut self, service: &Service) -> (Option<Self>, Option<String>) {
        let bound =
            binds(service).filter_map(|mount| mount.source.as_deref()).any(|source| self.path.starts_with(source));
        if self.target.is_none() || !bound {
            return (Some(self), None);
        }
        let shown = self.path.display().to_string();
        self.target = None;
        if self.act == Act::Sync {
            return (None, Some(format!("{shown} is bind-mounted into the container: there is nothing to sync")));
        }
        (Some(self), Some(format!("{shown} is bind-mounted into the container, so it is not copied")))
    }

    /// The path of a changed file below the rule's path (empty for that itself), if the rule is about it.
    pub fn matches(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(&self.path).ok()?;
        let relative = below.to_string_lossy();
        let included = relative.is_empty() || self.include.is_empty() || self.include.excludes(&relative);
        let copied_description =
            (self.target.is_some() || self.auto) && self.described_by.iter().any(|file| file == path);
        (included && !copied_description && !self.ignored.excludes(path, &relative)).then(|| below.to_owned())
    }

    /// Whether a folder may have something of interest in it; asked from the top down.
    pub fn enters(&self, folder: &Path) -> bool {
        let Ok(below) = folder.strip_prefix(&self.path) else { return false };
        !self.ignored.prunes(folder, &below.to_string_lossy())
    }
}

/// Whether a service asks to be restarted whenever its mounted source changes: `x-stack.watch: auto`.
pub fn is_auto(service: &Service) -> bool {
    service.extensions.get("x-stack").is_some_and(|own| own["watch"] == "auto")
}

/// Whether containers of a service may write to what they are watched for.
pub fn may_write(service: &Service) -> bool {
    is_auto(service) && binds(service).any(|mount| !mount.read_only)
}

fn binds(service: &Service) -> impl Iterator<Item = &VolumeMount> {
    service.volumes.iter().filter(|mount| mount.kind == MountKind::Bind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(watch: serde_json::Value) -> Result<Vec<Rule>, Error> {
        let service = Service { develop: Some(json!({ "watch": [watch] })), ..Service::default() };
        Rule::of("api", &service, &["/p/compose.yaml".into()]).map(|(rules, _)| rules)
    }

    #[test]
    fn a_rule_is_about_what_is_included_and_not_ignored() {
        let rule = json!({"path": "/p", "action": "sync", "target": "/app",
            "include": ["src", "*.toml"], "ignore": ["src/gen"]});
        let rule = rules(rule).unwrap().remove(0);
        assert_eq!(rule.matches(Path::new("/p/src/a.rs")).unwrap(), Path::new("src/a.rs"));
        assert_eq!(rule.matches(Path::new("/p")).unwrap(), Path::new(""));
        assert!(rule.matches(Path::new("/p/Cargo.toml")).is_some());
        for path in ["/p/README", "/p/src/gen/x", "/p/src/.a.swp", "/px/src/a", "/p/src/.git/HEAD", "/p/compose.yaml"] {
            assert!(rule.matches(Path::new(path)).is_none(), "{path}");
        }
        assert!(!rule.enters(Path::new("/p/src/gen")) && rule.enters(Path::new("/p/src")));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (rule, why) in [
            (json!({"path": "/p", "action": "rebuild"}), "needs service `api` to have a `build`"),
            (json!({"path": "/p", "action": "sync", "target": "app"}), "absolute"),
            (json!({"path": "/p", "action": "sync+exec", "target": "/app"}), "exec.command"),
            (json!({"path": "/p", "action": "sync", "target": "/app", "ignore": ["[a"]}), "isn't closed"),
        ] {
            let error = rules(rule).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("develop.watch[0]"), "{error}");
        }
    }

    #[test]
    fn what_is_bind_mounted_is_not_copied() {
        let volumes = json!([{"type": "bind", "source": "/p", "target": "/app"}]);
        let watch = |action: &str| json!({"watch": [{"path": "/p/src", "action": action, "target": "/app/src"}]});
        for (action, left) in [("sync", 0), ("sync+restart", 1)] {
            let service = json!({"volumes": volumes, "develop": watch(action)});
            let (rules, warnings) = Rule::of("api", &serde_json::from_value(service).unwrap(), &[]).unwrap();
            assert_eq!((rules.len(), warnings.len()), (left, 1), "{action}");
            assert!(rules.iter().all(|rule| rule.target.is_none()));
        }
    }
}
