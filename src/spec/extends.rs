//! `extends`: a service laid over another one, of the same file or of a foreign one.

use std::path::{Path, PathBuf};

use super::assemble::{Assembler, Scope};
use super::diagnostic::{Diagnostic, Kind};
use super::include::{parent, services_of};
use super::limits;
use super::merge;
use super::node::{Map, Node, Value};
use super::schema;
use super::session::Budget;
use super::source::Span;
use super::words;

/// A step of a chain: file, service, place of the `extends`.
type Step = (PathBuf, String, Span);

impl Assembler<'_, '_> {
    /// Resolves the `extends` of every service of `tree`.
    pub(crate) fn extend(&mut self, mut tree: Node, path: &Path, scope: &Scope) -> Node {
        let Some(services) = tree.as_map_mut().and_then(|map| map.get_mut("services")) else { return tree };
        let Some(map) = services.node.as_map_mut() else { return tree };
        let names: Vec<String> = map.keys().cloned().collect();
        for name in names {
            self.resolve(map, &name, path, scope, &mut Vec::new());
        }
        tree
    }

    fn resolve(&mut self, services: &mut Map, name: &str, path: &Path, scope: &Scope, chain: &mut Vec<Step>) {
        let Some(service) = services.get_mut(name) else { return };
        let Some(extends) = service.node.as_map_mut().and_then(|map| map.shift_remove("extends")) else { return };
        let span = extends.node.span;
        let Some(wanted) = extends.node.get_str("service").map(str::to_owned) else {
            let message = format!("services.{name}.extends lacks `service`");
            return self.session.error(Kind::Shape, extends.key, message);
        };
        chain.push((path.to_owned(), name.to_owned(), span));
        let base = match extends.node.get_str("file") {
            Some(file) => self.foreign_service(file, &wanted, extends.node.locate(&["file"]), scope, chain),
            None if chain.iter().any(|(file, service, _)| file == path && *service == wanted) => {
                self.extends_cycle(chain, &wanted);
                None
            }
            None if chain.len() > limits::EXTENDS => {
                self.session.error(
                    Kind::Limit,
                    span,
                    format!("a chain of more than {} services extend each other", limits::EXTENDS),
                );
                None
            }
            None => {
                self.resolve(services, &wanted, path, scope, chain);
                self.found(services, &wanted, extends.node.locate(&["service"]), path)
            }
        };
        chain.pop();
        if let (Some(mut base), Some(service)) = (base, services.get_mut(name)) {
            merge::settle(&mut base);
            let own = std::mem::take(&mut service.node);
            service.node = merge::merge(self.session, base, own, &schema::SERVICE_SHAPE);
        }
    }

    /// A service of another file, its own `extends` resolved there.
    fn foreign_service(
        &mut self,
        file: &str,
        wanted: &str,
        span: Span,
        scope: &Scope,
        chain: &mut Vec<Step>,
    ) -> Option<Node> {
        let file = self.local_file(file, &scope.base, span, "extends")?;
        if chain.iter().any(|(path, service, _)| *path == file && service == wanted) {
            self.extends_cycle(chain, wanted);
            return None;
        }
        let scope = Scope { base: parent(&file), ..scope.clone() };
        let mut services = self.foreign_services(&file, span, &scope)?;
        self.resolve(&mut services, wanted, &file, &scope, chain);
        self.found(&services, wanted, span, &file)
    }

    fn foreign_services(&mut self, file: &Path, span: Span, scope: &Scope) -> Option<Map> {
        if let Some(services) = self.foreign.get(file) {
            return services.clone();
        }
        let services = self.parse(file, Some(span)).and_then(|parsed| {
            let mut model = Node::new(Value::Map(Map::new()), span);
            for document in parsed.documents {
                let tree = self.document(document, scope)?;
                model = merge::merge(self.session, model, tree, &schema::ROOT_SHAPE);
            }
            services_of(model)
        });
        self.foreign.insert(file.to_owned(), services.clone());
        services
    }

    fn found(&mut self, services: &Map, wanted: &str, span: Span, path: &Path) -> Option<Node> {
        if let Some(entry) = services.get(wanted) {
            if !self.session.spend(Budget::Nodes, entry.node.size(), span) {
                return None;
            }
            return Some(entry.node.clone());
        }
        let message = format!("there is no service `{wanted}` to extend in {}", path.display());
        let hint = words::suggest(wanted, services.keys().map(String::as_str));
        let diagnostic = self.session.error_at(Kind::Reference, span, message).maybe_hint(hint);
        self.session.report(diagnostic);
        None
    }

    fn extends_cycle(&mut self, chain: &[Step], wanted: &str) {
        let names: Vec<&str> = chain.iter().map(|(_, name, _)| name.as_str()).chain([wanted]).collect();
        let mut diagnostic = Diagnostic::error(Kind::Cycle, format!("circular extends: {}", names.join(" -> ")));
        for (_, name, span) in chain {
            diagnostic = diagnostic.at(self.session.sources.place(*span, &format!("{name} extends here")));
        }
        self.session.report(diagnostic);
    }
}
