//! `include`: other projects' resources, each loaded with its own directory and variables.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::assemble::{Assembler, Environment, Scope};
use super::diagnostic::{Diagnostic, Kind};
use super::dotenv;
use super::limits;
use super::merge;
use super::node::{Map, Node, Value};
use super::origin::Set;
use super::schema;
use super::source::Span;

/// What an included project gives to the including one.
const IMPORTED: [&str; 6] = ["services", "networks", "volumes", "configs", "secrets", "models"];

impl Assembler<'_, '_> {
    /// Lays `tree` over everything that its `include` names.
    pub(crate) fn include(&mut self, mut tree: Node, path: &Path, scope: &Scope) -> Node {
        let Some(include) = tree.as_map_mut().and_then(|map| map.shift_remove("include")) else { return tree };
        let Value::List(entries) = include.node.value else { return tree };
        for entry in entries {
            let Some(mut included) = self.included(&entry, path, scope) else { continue };
            let Some(map) = included.as_map_mut() else { continue };
            map.retain(|name, _| IMPORTED.contains(&name.as_str()));
            merge::settle(&mut included);
            tree = merge::merge(self.session, included, tree, &schema::ROOT_SHAPE);
        }
        tree
    }

    /// The canonical tree of one entry of `include`.
    fn included(&mut self, entry: &Node, path: &Path, scope: &Scope) -> Option<Node> {
        let paths = texts(entry.get("path"));
        let directory = |first: &str| match entry.get_str("project_directory") {
            Some(directory) => self.session.absolute(&scope.base, directory),
            None => parent(&self.session.absolute(&scope.base, first)),
        };
        let Some((first, _)) = paths.first() else {
            let message = "an entry of include without a `path` includes nothing";
            let warning = self.session.warning_at(Kind::Shape, entry.span, message);
            self.session.report(warning.hint("name the file to include, or remove the entry"));
            return None;
        };
        let base = directory(first);
        let mut chain = scope.chain.clone();
        if chain.is_empty() {
            chain.push(path.to_owned());
        }
        let mut files = Vec::with_capacity(paths.len());
        for (index, (text, span)) in paths.iter().enumerate() {
            let file = self.local_file(text, &scope.base, *span, "include")?;
            if chain.contains(&file) {
                return self.cycle(&chain, &file, *span);
            }
            if index == 0 {
                chain.push(file.clone());
            }
            files.push(self.parse(&file, Some(*span))?);
        }
        let environment = Rc::new(self.environment_of(entry, &base, scope)?);
        Some(self.model(files, &Scope { base, environment, chain }))
    }

    /// The absolute path of a file that a stack file names; remote ones are refused, too many too.
    pub(crate) fn local_file(&mut self, text: &str, base: &Path, span: Span, what: &str) -> Option<PathBuf> {
        if text.contains("://") || text.starts_with("git@") || text.starts_with("github.com/") {
            let message = format!("{what} of the remote file `{text}` is not supported");
            self.session.error_hint(Kind::Unsupported, span, message, "fetch it and name the local copy");
            return None;
        }
        self.session.pulled += 1;
        if self.session.pulled > limits::FILES {
            let message = format!("more than {} files are included or extended", limits::FILES);
            self.session.report(Diagnostic::error(Kind::Limit, message));
            return None;
        }
        Some(self.session.absolute(base, text))
    }

    fn cycle(&mut self, chain: &[PathBuf], file: &Path, span: Span) -> Option<Node> {
        let start = chain.iter().position(|path| path == file).unwrap_or(0);
        let shown: Vec<String> = chain[start..].iter().map(PathBuf::as_path).chain([file]).map(name_of).collect();
        self.session.error(Kind::Cycle, span, format!("include cycle: {}", shown.join(" -> ")));
        None
    }

    /// Variables of an included project: the including one's win over its own `.env` or `env_file`.
    fn environment_of(&mut self, entry: &Node, base: &Path, scope: &Scope) -> Option<Environment> {
        let mut files: Vec<(PathBuf, Span)> = Vec::new();
        if entry.get("env_file").is_some() {
            for (text, span) in texts(entry.get("env_file")).into_iter().filter(|(text, _)| text != "/dev/null") {
                files.push((self.session.absolute(&scope.base, &text), span));
            }
        } else {
            let own = base.join(".env");
            files.extend(self.session.loader.is_file(&own).then_some((own, entry.span)));
        }
        let mut known = dotenv::Variables::new();
        for (path, span) in files {
            let (file, text) = self.session.read(&path, limits::ENV_FILE_BYTES, "env_file of include", Some(span))?;
            let lookup = |name: &str| scope.environment.get(name).cloned();
            for (name, line) in dotenv::lines(&text).filter(|(name, _)| !scope.environment.contains_key(*name)) {
                self.session.set.insert(name.to_owned(), Set { value: String::new(), file: path.clone(), line });
            }
            let outcome = dotenv::parse(&text, &lookup, &mut known, &mut std::collections::BTreeSet::new());
            if let Err(error) = outcome {
                let place = self.session.sources.whole_line(file, error.line);
                self.session.error(Kind::Syntax, place, error.to_string());
                return None;
            }
        }
        let mut environment = (*scope.environment).clone();
        for (name, value) in known {
            if let Some(set) = self.session.set.get_mut(&name).filter(|_| !environment.contains_key(&name)) {
                set.value.clone_from(&value);
            }
            environment.entry(name).or_insert(value);
        }
        Some(environment)
    }
}

/// The strings of a string list and their places.
fn texts(node: Option<&Node>) -> Vec<(String, Span)> {
    let list = node.and_then(Node::as_list).unwrap_or_default();
    list.iter().filter_map(|item| Some((item.as_str()?.to_owned(), item.span))).collect()
}

pub(crate) fn parent(path: &Path) -> PathBuf {
    path.parent().map_or_else(|| path.to_owned(), Path::to_owned)
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// The services of a tree.
pub(crate) fn services_of(tree: Node) -> Option<Map> {
    let Value::Map(mut map) = tree.value else { return None };
    match map.shift_remove("services")?.node.value {
        Value::Map(services) => Some(services),
        _ => None,
    }
}
