//! Brings one file's tree into canonical shape: types checked and cast, short forms made long, paths absolute.
//! Every complaint names its place; the walk goes on after one, so that all are found at once.

use std::path::Path;

use super::diagnostic::Kind;
use super::merge;
use super::node::{Entry, Map, Node, Trail, Value};
use super::schema::{Merge, Missing, Object, Shape};
use super::session::Session;
use super::source::Span;
use super::words;

/// One walk over one file's tree.
pub(crate) struct Canon<'s, 'a> {
    pub(crate) session: &'s mut Session<'a>,
    /// Directory that relative paths are resolved against.
    pub(crate) base: &'s Path,
}

impl Canon<'_, '_> {
    /// The canonical form of `node`, or `None` after a complaint.
    pub(crate) fn walk(&mut self, node: Node, shape: &'static Shape, trail: &Trail<'_>) -> Option<Node> {
        if node.is_reset() {
            return Some(Node { value: Value::Null, ..node });
        }
        if node.is_null() {
            return Some(node);
        }
        let tag = node.tag;
        let node = self.value(node, shape, trail)?;
        Some(Node { tag, ..node })
    }

    fn value(&mut self, node: Node, shape: &'static Shape, trail: &Trail<'_>) -> Option<Node> {
        let span = node.span;
        if self.is_template(&node) && !matches!(shape, Shape::Command | Shape::Mapping(..)) {
            return Some(node);
        }
        match shape {
            Shape::Any => Some(node),
            Shape::Str => self.string(node, trail),
            Shape::NumberText if matches!(node.value, Value::Bool(_)) => self.mismatch(&node, trail, "a string"),
            Shape::WholeText if matches!(node.value, Value::Bool(_) | Value::Float(..)) => {
                self.mismatch(&node, trail, "a string or a whole number")
            }
            Shape::Attestation if matches!(node.value, Value::Int(..) | Value::Float(..)) => {
                self.mismatch(&node, trail, "a boolean or a string")
            }
            Shape::Text | Shape::NumberText | Shape::WholeText | Shape::Attestation => self.text(node, trail),
            Shape::Bool => self.boolean(node, trail),
            Shape::StrictBool if matches!(node.value, Value::Bool(_)) => Some(node),
            Shape::StrictBool => self.mismatch(&node, trail, "a boolean (true or false)"),
            Shape::StrictInt(..) if node.as_str().is_some() => self.mismatch(&node, trail, "a whole number"),
            Shape::Int(least, most) => self.integer(node, *least, *most, trail),
            Shape::StrictInt(least, most) => {
                let node = self.integer(node, *least, i64::MAX, trail)?;
                if let Value::Int(value, text) = &node.value
                    && value > most
                {
                    self.refuse(span, trail, format!("{text} is above {most}"));
                }
                Some(node)
            }
            Shape::Number(least) => {
                let node = self.whole(node, trail);
                self.integer(node, *least, i64::MAX, trail)
            }
            Shape::Float => self.float(node, trail),
            Shape::Duration => self.duration(node, trail),
            Shape::Bytes | Shape::SizeText => self.size(node, matches!(shape, Shape::SizeText), trail),
            Shape::FileMode | Shape::ModeNumber => self.mode(node, matches!(shape, Shape::FileMode), trail),
            Shape::Enum(words) => self.word(node, words, trail),
            Shape::Path => {
                let node = self.string(node, trail)?;
                Some(self.path(node))
            }
            Shape::WatchPath => {
                let node = self.string(node, trail)?;
                if node.as_str() == Some("") {
                    return self.bad(span, trail, "the path is empty");
                }
                Some(self.linked_path(node))
            }
            Shape::Context => {
                let node = self.string(node, trail)?;
                Some(self.context(node))
            }
            Shape::StrList => self.list(node, &Shape::Str, trail),
            Shape::Unique(list) => self.value(node, list, trail),
            Shape::Addresses => self.addresses(node, trail),
            Shape::StrOrList(item) => {
                let node = if node.as_list().is_some() { node } else { Node::new(Value::List(vec![node]), span) };
                self.list(node, item, trail)
            }
            Shape::Command => self.command(node, trail),
            Shape::Test => self.health_test(node, trail),
            Shape::Mapping(missing, item) => self.mapping(node, *missing, item, trail),
            Shape::TextMap => self.text_map(node, Missing::Empty, trail),
            Shape::OptionMap => self.text_map(node, Missing::Refused, trail),
            Shape::Hosts => self.hosts(node, trail),
            Shape::List(item) => self.list(node, item, trail),
            Shape::MapOf(item) => self.map_of(node, item, trail),
            Shape::Optional(item) => self.value(node, item, trail),
            Shape::Names(item) => {
                let node = self.names(node, trail);
                self.map_of(node, item, trail)
            }
            Shape::DependsOn => self.depends_on(node, trail),
            Shape::WordOr(words, _) if node.as_str().is_some() => self.word(node, words, trail),
            Shape::Object(object) | Shape::WordOr(_, object) => self.object(node, object, trail),
            Shape::Short(key, object) => {
                let node = if node.as_str().is_some() { Node::map([(*key, node)], span) } else { node };
                self.object(node, object, trail)
            }
            Shape::Resource(object) => self.resource(node, object, trail),
            Shape::Ports => self.ports(node, trail),
            Shape::Volumes => self.volumes(node, trail),
            Shape::Devices => self.devices(node, trail),
            Shape::FileMounts => self.file_mounts(node, trail),
            Shape::EnvFiles => self.env_files(node, trail),
            Shape::Gpus => self.gpus(node, trail),
            Shape::Count => self.count(node, trail),
            Shape::Ssh => self.ssh(node, trail),
            Shape::Ulimits => self.ulimits(node, trail),
            Shape::Options => self.provider_options(node, trail),
        }
    }

    /// Whether the value is a template that `--no-interpolate` leaves alone.
    pub(crate) fn is_template(&self, node: &Node) -> bool {
        self.session.options.no_interpolate && node.as_str().is_some_and(|text| text.contains('$'))
    }

    /// A mapping with known keys.
    pub(crate) fn object(&mut self, node: Node, object: &'static Object, trail: &Trail<'_>) -> Option<Node> {
        let Value::Map(map) = node.value else { return self.mismatch(&node, trail, "a mapping") };
        let mut out = Map::with_capacity(map.len());
        for (name, Entry { key, node }) in map {
            let Some(field) = object.field(&name) else {
                if object.extensible && name.starts_with("x-") {
                    out.insert(name, Entry { key, node });
                } else {
                    let service =
                        matches!(trail, Trail::Root) && (node.get("image").is_some() || node.get("build").is_some());
                    self.unknown_key(&name, key, service, object, trail);
                }
                continue;
            };
            let Some(mut node) = self.walk(node, &field.shape, &Trail::Key(trail, field.name)) else { continue };
            if let Merge::Unique(identity) = field.merge {
                merge::deduplicate(&mut node, identity);
            }
            out.insert(name, Entry { key, node });
        }
        Some(Node { value: Value::Map(out), ..node })
    }

    fn unknown_key(&mut self, name: &str, key: Span, service: bool, object: &'static Object, trail: &Trail<'_>) {
        let place = match trail {
            Trail::Root => "at the top of a stack file".to_owned(),
            _ => format!("in {trail}"),
        };
        let known = object.fields.iter().map(|field| field.name);
        let hint = words::suggest(name, known.clone()).unwrap_or_else(|| match object.fields.len() {
            0 => "there are no settings here yet".to_owned(),
            1..=12 => format!("known here: {}", known.collect::<Vec<_>>().join(", ")),
            _ => "keys of your own begin with `x-`".to_owned(),
        });
        let hint =
            if service { format!("a service stands below `services:`, with its lines indented; {hint}") } else { hint };
        let message = format!("unknown attribute `{name}` {place}");
        self.session.error_hint(Kind::UnknownKey, key, message, hint);
    }

    /// A list whose items have one shape.
    pub(crate) fn list(&mut self, node: Node, item: &'static Shape, trail: &Trail<'_>) -> Option<Node> {
        let Value::List(list) = node.value else { return self.mismatch(&node, trail, "a list") };
        let mut out = Vec::with_capacity(list.len());
        for (index, node) in list.into_iter().enumerate().filter(|(_, node)| !node.is_reset()) {
            let trail = Trail::Index(trail, index);
            if node.is_null() {
                self.session.error(Kind::Shape, node.span, format!("{trail} is empty"));
                continue;
            }
            out.extend(self.walk(node, item, &trail));
        }
        Some(Node { value: Value::List(out), ..node })
    }

    /// A mapping from names to one shape.
    pub(crate) fn map_of(&mut self, node: Node, item: &'static Shape, trail: &Trail<'_>) -> Option<Node> {
        let Value::Map(map) = node.value else { return self.mismatch(&node, trail, "a mapping") };
        let named = !matches!(item, Shape::Str);
        let mut out = Map::with_capacity(map.len());
        for (name, Entry { key, node }) in map {
            if named {
                self.check_name(&name, key, trail);
            }
            if let Some(node) = self.walk(node, item, &Trail::Key(trail, &name)) {
                out.insert(name, Entry { key, node });
            }
        }
        Some(Node { value: Value::Map(out), ..node })
    }

    fn check_name(&mut self, name: &str, key: Span, trail: &Trail<'_>) {
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || !name.chars().all(valid) {
            let message = format!("`{name}` cannot be a name in {trail}");
            self.session.error_hint(Kind::Value, key, message, "names consist of letters, digits, `.`, `_` and `-`");
        }
    }

    /// A list of names made a mapping without values.
    pub(crate) fn names(&mut self, node: Node, trail: &Trail<'_>) -> Node {
        let Value::List(list) = node.value else { return node };
        let mut map = Map::with_capacity(list.len());
        for (index, node) in list.into_iter().enumerate().filter(|(_, node)| !node.is_reset()) {
            let span = node.span;
            if let Some((name, _)) = node.as_map().and_then(Map::first) {
                let message = format!("{} must be a string, not a mapping", Trail::Index(trail, index));
                let hint = format!("settings of `{name}` need the form without a dash: `{name}: …`");
                self.session.error_hint(Kind::Shape, span, message, hint);
                continue;
            }
            let Some(node) = self.string(node, &Trail::Index(trail, index)) else { continue };
            if let Some(name) = node.as_str() {
                map.insert(name.to_owned(), Entry { key: span, node: Node::new(Value::Null, span) });
            }
        }
        Node { value: Value::Map(map), ..node }
    }

    /// Reports that a value has the wrong type.
    pub(crate) fn mismatch<T>(&mut self, node: &Node, trail: &Trail<'_>, wanted: &str) -> Option<T> {
        let message = format!("{trail} must be {wanted}, not {}", node.kind());
        let mut diagnostic = self.session.error_at(Kind::Shape, node.span, message);
        let hint = match node.scalar_text() {
            Some(text) if wanted == "a string" => Some(format!("quote it: \"{text}\"")),
            Some(text) if wanted == "a list" => Some(format!("write it as an item: `- {text}`")),
            Some(text) if wanted.starts_with("a mapping") => text
                .split_once(':')
                .map(|(key, value)| format!("a blank belongs after the colon: `{key}: {}`", value.trim_start())),
            _ => None,
        };
        diagnostic = diagnostic.maybe_hint(hint);
        self.session.report(diagnostic);
        None
    }

    /// Reports an impossible value.
    pub(crate) fn bad<T>(&mut self, span: Span, trail: &Trail<'_>, problem: impl std::fmt::Display) -> Option<T> {
        self.session.error(Kind::Value, span, format!("{trail}: {problem}"));
        None
    }

    /// Makes a path absolute.
    pub(crate) fn path(&mut self, node: Node) -> Node {
        match node.as_str() {
            Some(path) if !path.is_empty() && !self.session.options.no_path_resolution && !self.is_template(&node) => {
                let path = self.session.absolute(self.base, path);
                Node { value: Value::Str(path.display().to_string()), ..node }
            }
            _ => node,
        }
    }

    /// Makes a path absolute and follows its symbolic links.
    fn linked_path(&mut self, node: Node) -> Node {
        let node = self.path(node);
        match node.as_str() {
            Some(path) if path.starts_with('/') && !self.session.options.no_path_resolution => {
                let path = self.session.loader.resolve(Path::new(path));
                Node { value: Value::Str(path.display().to_string()), ..node }
            }
            _ => node,
        }
    }

    fn context(&mut self, node: Node) -> Node {
        const REMOTE: [&str; 5] = ["service:", "github.com/", "git@", "ssh:", "-"];
        let text = node.as_str().unwrap_or_default();
        let remote =
            text.contains("://") || REMOTE[..4].iter().any(|prefix| text.starts_with(prefix)) || text == REMOTE[4];
        if remote { node } else { self.path(node) }
    }
}
