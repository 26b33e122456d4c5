//! Brings one file's tree into canonical shape: types checked and cast, short forms made long, paths absolute.
//! Every complaint names its place; the walk goes on after one, so that all are found at once.

use std::path::Path;

use super::diagnostic::Kind;
use super::merge;
use super::node::{Entry, Map, Node, Trail, Value};
use super::schema::{Merge, Missing, Object, Shape};
use super::session::Session;
use super::source::Span;
use super::units::{ByteSize, Span as Time, UnitError, go_float};
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
            Shape::Object(object) => self.object(node, object, trail),
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
                    self.unknown_key(&name, key, object, trail);
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

    fn unknown_key(&mut self, name: &str, key: Span, object: &'static Object, trail: &Trail<'_>) {
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
        if let (true, Some(text)) = (wanted == "a string", node.scalar_text()) {
            diagnostic = diagnostic.hint(format!("quote it: \"{text}\""));
        }
        self.session.report(diagnostic);
        None
    }

    /// Reports an impossible value.
    pub(crate) fn bad<T>(&mut self, span: Span, trail: &Trail<'_>, problem: impl std::fmt::Display) -> Option<T> {
        self.session.error(Kind::Value, span, format!("{trail}: {problem}"));
        None
    }

    pub(crate) fn string(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        if node.as_str().is_some() { Some(node) } else { self.mismatch(&node, trail, "a string") }
    }

    pub(crate) fn text(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        match node.scalar_text() {
            Some(text) => Some(Node { value: Value::Str(text), ..node }),
            None => self.mismatch(&node, trail, "a string"),
        }
    }

    fn boolean(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let value = match &node.value {
            Value::Bool(value) => *value,
            Value::Str(text) => match text.to_ascii_lowercase().as_str() {
                "true" => true,
                "false" => false,
                "y" | "yes" | "on" => self.old_boolean(&node, true),
                "n" | "no" | "off" => self.old_boolean(&node, false),
                _ => return self.mismatch(&node, trail, "a boolean (true or false)"),
            },
            _ => return self.mismatch(&node, trail, "a boolean (true or false)"),
        };
        Some(Node { value: Value::Bool(value), ..node })
    }

    fn old_boolean(&mut self, node: &Node, value: bool) -> bool {
        let text = node.as_str().unwrap_or_default();
        let message = format!("`{text}` is an old spelling of a boolean");
        let diagnostic = self.session.warning_at(Kind::Value, node.span, message).hint(format!("write `{value}`"));
        self.session.report(diagnostic);
        value
    }

    /// Reports a value that can be printed, because docker compose prints it, but that nothing can be started with.
    pub(crate) fn refuse(&mut self, span: Span, trail: &Trail<'_>, problem: impl std::fmt::Display) {
        let message = format!("{trail}: {problem}");
        self.session.refuse(Kind::Value, span, &message, "a container cannot be started with it");
    }

    /// A number without its fraction.
    fn whole(&mut self, node: Node, trail: &Trail<'_>) -> Node {
        let Value::Float(value, text) = &node.value else { return node };
        if value.fract() == 0.0 {
            return node;
        }
        self.refuse(node.span, trail, format!("`{text}` is no whole number"));
        #[allow(clippy::cast_possible_truncation, reason = "it is meant, and nothing is started with it")]
        Node::int(*value as i64, node.span)
    }

    pub(crate) fn integer(&mut self, node: Node, least: i64, most: i64, trail: &Trail<'_>) -> Option<Node> {
        let value = match &node.value {
            Value::Int(value, _) => Some(*value),
            Value::Float(value, text) if value.fract() == 0.0 => {
                if value.abs() >= 9e15 {
                    self.refuse(node.span, trail, format!("`{text}` is too large"));
                }
                #[allow(clippy::cast_possible_truncation, reason = "nothing is started with what does not fit")]
                Some(*value as i64)
            }
            Value::Str(text) => text.parse().ok(),
            _ => None,
        };
        let Some(value) = value else {
            if let (Some(text), true) = (node.scalar_text(), matches!(node.value, Value::Str(_) | Value::Float(..))) {
                let digits = text.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
                let why = if digits && !text.is_empty() { "does not fit 64 bits" } else { "is no whole number" };
                return self.bad(node.span, trail, format!("`{text}` {why}"));
            }
            return self.mismatch(&node, trail, "a whole number");
        };
        if value < least || value > most {
            let bound = if value < least { format!("below {least}") } else { format!("above {most}") };
            return self.bad(node.span, trail, format!("{value} is {bound}"));
        }
        Some(Node { value: Value::Int(value, value.to_string().into()), ..node })
    }

    fn float(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        #[allow(clippy::cast_precision_loss, reason = "a share of processors needs no 53 bits")]
        let value = match &node.value {
            Value::Int(value, _) => Some(*value as f64),
            Value::Float(value, _) => Some(*value),
            Value::Str(text) => go_float(text),
            _ => return self.mismatch(&node, trail, "a number"),
        };
        match value {
            Some(value) if value.is_finite() => {
                if value < 0.0 {
                    self.refuse(node.span, trail, format!("`{value}` is negative"));
                }
                Some(Node { value: Value::Float(value, value.to_string().into()), ..node })
            }
            _ => {
                let text = node.scalar_text().unwrap_or_default();
                self.bad(node.span, trail, format!("`{text}` is no number that can be used here"))
            }
        }
    }

    fn duration(&mut self, node: Node, trail: &Trail<'_>) -> Option<Node> {
        let Some(text) = node.as_str() else {
            let hint = node.scalar_text().map_or_else(String::new, |text| format!("; write `{text}s` for seconds"));
            let message = format!("{trail} must be a duration such as `1m30s`, not {}{hint}", node.kind());
            self.session.error(Kind::Shape, node.span, message);
            return None;
        };
        let lax = match Time::lax(text) {
            Ok(time) => Node::str(time.to_string(), node.span),
            Err(error) => return self.bad(node.span, trail, error),
        };
        if let Err(error) = text.parse::<Time>() {
            self.refuse(node.span, trail, error);
        }
        Some(lax)
    }

    pub(crate) fn size(&mut self, node: Node, text_only: bool, trail: &Trail<'_>) -> Option<Node> {
        // Attributes of a service whose fraction of a byte docker compose lets pass.
        let fraction = matches!(
            trail,
            Trail::Key(Trail::Key(Trail::Key(Trail::Root, "services"), _), "mem_limit" | "memswap_limit" | "shm_size")
        );
        let text = match &node.value {
            Value::Int(value, _) if !text_only => value.to_string(),
            Value::Str(text) => text.clone(),
            Value::Float(value, text) if !text_only && value.fract() == 0.0 => text.to_string(),
            Value::Float(value, text) if fraction && !text_only => {
                self.refuse(node.span, trail, format!("`{text}` is no whole number of bytes"));
                format!("{:.0}", value.trunc())
            }
            Value::Float(_, text) if !text_only => {
                return self.bad(node.span, trail, format!("`{text}` is no whole number of bytes"));
            }
            _ if text_only => return self.mismatch(&node, trail, "a string"),
            _ => return self.mismatch(&node, trail, "a size such as `64m`"),
        };
        let lax = match ByteSize::lax(&text) {
            Ok(size) => Node::str(size.to_string(), node.span),
            Err(error) => return self.bad(node.span, trail, error),
        };
        match text.parse::<ByteSize>() {
            Ok(ByteSize(-1)) | Err(UnitError::Negative(_))
                if matches!(trail, Trail::Key(Trail::Key(_, "tmpfs"), _)) =>
            {
                return self.bad(node.span, trail, format!("`{text}` is negative"));
            }
            Ok(ByteSize(-1)) if !matches!(trail, Trail::Key(_, "memswap_limit")) => {
                self.refuse(node.span, trail, "-1 (unlimited) is only possible for memswap_limit");
            }
            Ok(_) => {}
            Err(error) => self.refuse(node.span, trail, error),
        }
        Some(lax)
    }

    /// Permissions: a number as it is, text as octal digits.
    fn mode(&mut self, node: Node, as_text: bool, trail: &Trail<'_>) -> Option<Node> {
        let value = match &node.value {
            Value::Int(value, _) => Some(*value),
            Value::Str(text) if as_text => i64::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
            _ => return self.mismatch(&node, trail, "file permissions such as `0440`"),
        };
        let Some(value) = value.filter(|value| (0..=0o7777).contains(value)) else {
            let text = node.scalar_text().unwrap_or_default();
            return self.bad(
                node.span,
                trail,
                format!("`{text}` are no file permissions; write octal digits such as `0440`"),
            );
        };
        Some(if as_text { Node::str(format!("{value:04o}"), node.span) } else { Node::int(value, node.span) })
    }

    fn word(&mut self, node: Node, words: &'static [&'static str], trail: &Trail<'_>) -> Option<Node> {
        let node = self.string(node, trail)?;
        let text = node.as_str().unwrap_or_default();
        if words.contains(&text) {
            return Some(node);
        }
        let message = format!("{trail} cannot be `{text}`");
        let hint =
            words::suggest(text, words.iter().copied()).unwrap_or_else(|| format!("possible: {}", words.join(", ")));
        self.session.error_hint(Kind::Value, node.span, message, hint);
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
