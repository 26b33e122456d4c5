//! Files to one canonical tree: each document interpolated and brought into shape, its includes and extends applied,
//! then laid over the documents before it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::canonical::Canon;
use super::diagnostic::{Diagnostic, Kind};
use super::interpolate;
use super::limits;
use super::merge;
use super::node::{Map, Node, Trail, Value};
use super::origin::Layer;
use super::schema;
use super::session::{Budget, Session};
use super::source::Span;
use super::yaml;

/// Variables for interpolation.
pub(crate) type Environment = BTreeMap<String, String>;

/// What the files of one project share: the main one or an included one.
#[derive(Clone)]
pub(crate) struct Scope {
    /// Project directory.
    pub(crate) base: PathBuf,
    pub(crate) environment: Rc<Environment>,
    /// Files that included this one, outermost first, this one last.
    pub(crate) chain: Vec<PathBuf>,
}

/// A file taken apart into its documents.
pub(crate) struct Parsed {
    pub(crate) path: PathBuf,
    pub(crate) documents: Vec<Node>,
}

/// Assembles trees.
pub(crate) struct Assembler<'s, 'a> {
    pub(crate) session: &'s mut Session<'a>,
    /// Services of files that `extends` names, canonical but with their own `extends` left in.
    pub(crate) foreign: HashMap<PathBuf, Option<Map>>,
}

impl<'s, 'a> Assembler<'s, 'a> {
    pub(crate) fn new(session: &'s mut Session<'a>) -> Self {
        Self { session, foreign: HashMap::new() }
    }

    /// Reads and parses a file; `from` is the place that names it.
    pub(crate) fn parse(&mut self, path: &Path, from: Option<Span>) -> Option<Parsed> {
        let (file, text) = self.session.read(path, limits::FILE_BYTES, "stack file", from)?;
        let documents = yaml::parse(self.session, file, &text)?;
        let size = documents.iter().map(Node::size).sum();
        if !self.session.spend(Budget::Nodes, size, Span { file, line: 1, column: 1, width: 1 }) {
            return None;
        }
        let documents: Vec<Node> = documents.into_iter().filter(|document| !document.is_null()).collect();
        if documents.is_empty() {
            let message = format!("stack file {} is empty", path.display());
            let diagnostic =
                Diagnostic::error(Kind::Shape, message).hint("it needs at least `services:` with one service");
            let named = from.and_then(|span| self.session.sources.place(span, "named here"));
            self.session.report(diagnostic.at(named));
            return None;
        }
        Some(Parsed { path: path.to_owned(), documents })
    }

    /// Lays the documents of all files over each other.
    pub(crate) fn model(&mut self, files: Vec<Parsed>, scope: &Scope) -> Node {
        let mut model = Node::new(Value::Map(Map::new()), Span::default());
        for file in files {
            for document in file.documents {
                let Some(tree) = self.document(document, scope) else { continue };
                let tree = self.include(tree, &file.path, scope);
                let tree = self.extend(tree, &file.path, scope);
                model = merge::merge(self.session, model, tree, &schema::ROOT_SHAPE);
            }
        }
        self.contexts(&mut model, &scope.base);
        model
    }

    /// A service that is built and says nothing of its context is built from the project directory.
    fn contexts(&self, model: &mut Node, base: &Path) {
        let services = model.as_map_mut().and_then(|map| map.get_mut("services")?.node.as_map_mut());
        for service in services.into_iter().flat_map(|services| services.values_mut()) {
            let Some(build) = service.node.as_map_mut().and_then(|service| service.get_mut("build")) else { continue };
            let relative = self.session.options.no_path_resolution;
            let context = if relative { ".".to_owned() } else { base.display().to_string() };
            build.node.set_default("context", Node::str(context, build.key));
        }
    }

    /// One document, interpolated and in canonical shape.
    pub(crate) fn document(&mut self, mut document: Node, scope: &Scope) -> Option<Node> {
        if document.as_map().is_none() {
            let message = format!("a stack file must be a mapping, not {}", document.kind());
            self.session.error_hint(Kind::Shape, document.span, message, "it begins with a key such as `services:`");
            return None;
        }
        let raw = self.session.options.explain.then(|| document.clone());
        if !self.session.options.no_interpolate {
            interpolate_tree(self.session, &mut document, &scope.environment);
        }
        let mut canon = Canon { session: self.session, base: &scope.base };
        let mut tree = canon.object(document, &schema::ROOT, &Trail::Root)?;
        if let Some(version) = tree.as_map_mut().and_then(|map| map.shift_remove("version")) {
            if version.node.is_null() {
                self.session.error_hint(Kind::Shape, version.key, "version is empty", "remove the line");
            }
            let message = "`version` is obsolete and ignored";
            let diagnostic = self.session.warning_at(Kind::Value, version.key, message).hint("remove it");
            self.session.report(diagnostic);
        }
        if let Some(raw) = raw {
            self.session.layers.push(Layer { raw, tree: tree.clone() });
        }
        Some(tree)
    }
}

/// Interpolates every string of a tree.
pub(crate) fn interpolate_tree(session: &mut Session<'_>, node: &mut Node, environment: &Environment) {
    match &mut node.value {
        Value::Str(text) if text.contains('$') => {
            let mut unset = BTreeSet::new();
            match interpolate::substitute(text, &|name| environment.get(name).cloned(), &mut unset) {
                Ok(value) if session.spend(Budget::Interpolated, value.len(), node.span) => *text = value,
                Ok(_) => text.clear(),
                Err(error) => {
                    let span = session.sources.narrow(node.span, &error.needle());
                    let kind = if matches!(error, interpolate::InterpolateError::Limit(_)) {
                        Kind::Limit
                    } else {
                        Kind::Interpolation
                    };
                    let hint = match &error {
                        interpolate::InterpolateError::Required { name, .. } => {
                            format!("set {name} in the environment or in .env")
                        }
                        _ => "a literal dollar sign is written `$$`".to_owned(),
                    };
                    session.error_hint(kind, span, error.to_string(), hint);
                }
            }
            for name in unset {
                let span = session.sources.narrow(node.span, &format!("{{{name}"));
                let message = format!("the variable {name} is not set; a blank string is used");
                let hint = session.unset_hint(&name);
                let warning = session.warning_at(Kind::Interpolation, span, message).hint(hint);
                session.report(warning);
            }
        }
        Value::List(list) => list.iter_mut().for_each(|node| interpolate_tree(session, node, environment)),
        Value::Map(map) => {
            map.values_mut().for_each(|entry| interpolate_tree(session, &mut entry.node, environment));
        }
        _ => {}
    }
}
