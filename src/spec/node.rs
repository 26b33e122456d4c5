//! The untyped tree: every value with its place. Merging, interpolation, extends and include all work on it.

use std::fmt;

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::source::Span;

/// A value of a stack file and where it stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
    pub(crate) tag: Option<Tag>,
}

/// What the value is. Numbers keep the text they were written as.
#[derive(Debug, Clone, Default)]
pub(crate) enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64, Box<str>),
    Float(f64, Box<str>),
    Str(String),
    List(Vec<Node>),
    Map(Map),
}

/// Tags that steer merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Remove what the base says.
    Reset,
    /// Replace what the base says.
    Override,
}

/// A mapping in the order written.
pub(crate) type Map = IndexMap<String, Entry>;

/// A value of a mapping and the place of its key.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Span,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn new(value: Value, span: Span) -> Self {
        Self { value, span, tag: None }
    }

    pub(crate) fn str(text: impl Into<String>, span: Span) -> Self {
        Self::new(Value::Str(text.into()), span)
    }

    pub(crate) fn bool(value: bool, span: Span) -> Self {
        Self::new(Value::Bool(value), span)
    }

    pub(crate) fn int(value: i64, span: Span) -> Self {
        Self::new(Value::Int(value, value.to_string().into()), span)
    }

    pub(crate) fn map(entries: impl IntoIterator<Item = (&'static str, Node)>, span: Span) -> Self {
        let entries = entries.into_iter().map(|(name, node)| (name.to_owned(), Entry { key: node.span, node }));
        Self::new(Value::Map(entries.collect()), span)
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.tag == Some(Tag::Reset)
    }

    pub(crate) fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    pub(crate) fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Value::Map(map) = &mut self.value { Some(map) } else { None }
    }

    pub(crate) fn as_list(&self) -> Option<&[Node]> {
        if let Value::List(list) = &self.value { Some(list) } else { None }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Value::Str(text) = &self.value { Some(text) } else { None }
    }

    /// The value under `key`, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key).map(|entry| &entry.node)
    }

    /// The text under `key`.
    pub(crate) fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Sets `key` unless it is there.
    pub(crate) fn set_default(&mut self, key: &str, node: Node) {
        if let Some(map) = self.as_map_mut()
            && !map.contains_key(key)
        {
            map.insert(key.to_owned(), Entry { key: node.span, node });
        }
    }

    /// Text of a scalar as written; `None` for null, lists and maps.
    pub(crate) fn scalar_text(&self) -> Option<String> {
        match &self.value {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(_, text) | Value::Float(_, text) => Some(text.to_string()),
            Value::Str(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What to call this value in a message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(..) | Value::Float(..) => "a number",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// Number of nodes, this one included.
    pub(crate) fn size(&self) -> usize {
        match &self.value {
            Value::List(list) => 1 + list.iter().map(Node::size).sum::<usize>(),
            Value::Map(map) => 1 + map.values().map(|entry| entry.node.size()).sum::<usize>(),
            _ => 1,
        }
    }

    /// The tree as JSON, `!reset` entries left out.
    pub(crate) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Int(value, _) => Json::from(*value),
            Value::Float(value, text) => serde_json::Number::from_f64(*value).map_or(Json::from(&**text), Json::Number),
            Value::Str(text) => Json::from(text.as_str()),
            Value::List(list) => list.iter().filter(|node| !node.is_reset()).map(Node::to_json).collect(),
            Value::Map(map) => {
                let entries = map.iter().filter(|(_, entry)| !entry.node.is_reset());
                Json::Object(entries.map(|(name, entry)| (name.clone(), entry.node.to_json())).collect())
            }
        }
    }

    /// The place of what stands at `path` (map keys and list indices), or of the nearest thing above it.
    /// Scalars mark themselves, everything else its key.
    pub(crate) fn locate(&self, path: &[&str]) -> Span {
        let (mut node, mut span) = (self, self.span);
        for part in path {
            let next = match &node.value {
                Value::Map(map) => map.get(*part).map(|entry| (entry.key, &entry.node)),
                Value::List(list) => {
                    part.parse().ok().and_then(|index: usize| list.get(index)).map(|item| (item.span, item))
                }
                _ => None,
            };
            let Some((key, child)) = next else { break };
            span = match child.value {
                Value::Map(_) | Value::List(_) | Value::Null => key,
                _ => child.span,
            };
            node = child;
        }
        span
    }

    /// The place of the key at `path`.
    pub(crate) fn locate_key(&self, path: &[&str]) -> Span {
        let Some((last, above)) = path.split_last() else { return self.span };
        let mut node = self;
        for part in above {
            match node.get(part) {
                Some(child) => node = child,
                None => return self.locate(path),
            }
        }
        node.as_map().and_then(|map| map.get(*last)).map_or_else(|| self.locate(path), |entry| entry.key)
    }
}

/// Where in the tree something is: `services.web.ports[0]`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trail<'a> {
    Root,
    Key(&'a Trail<'a>, &'a str),
    Index(&'a Trail<'a>, usize),
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trail::Root => Ok(()),
            Trail::Key(Trail::Root, key) => f.write_str(key),
            Trail::Key(above, key) => write!(f, "{above}.{key}"),
            Trail::Index(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}
