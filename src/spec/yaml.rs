//! YAML text to [`Node`] trees: anchors, aliases and `<<` expanded within a budget, duplicate keys refused, scalars
//! resolved as docker compose does (YAML 1.2 core, with `0755` and `1_000` still numbers).

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span as YamlSpan};

use super::diagnostic::{Diagnostic, Kind};
use super::limits;
use super::node::{Entry, Map, Node, Tag, Value};
use super::session::Session;
use super::source::Span;

/// The documents of a file. Problems are reported to the session; `None` where the file is unusable.
pub(crate) fn parse(session: &mut Session<'_>, file: u32, text: &str) -> Option<Vec<Node>> {
    let mut builder =
        Builder { session, file, open: Vec::new(), anchors: HashMap::new(), nodes: 0, documents: Vec::new() };
    match builder.run(text) {
        Ok(()) => Some(builder.documents),
        Err(diagnostic) => {
            session.report(*diagnostic);
            None
        }
    }
}

type Outcome<T> = Result<T, Box<Diagnostic>>;

struct Builder<'s, 'a> {
    session: &'s mut Session<'a>,
    file: u32,
    open: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    documents: Vec<Node>,
}

/// A container that is not closed yet.
struct Frame {
    node: Node,
    anchor: usize,
    /// Key that waits for its value.
    key: Option<(String, Span)>,
    /// Mappings named by `<<`.
    merges: Vec<Node>,
}

impl Builder<'_, '_> {
    fn run(&mut self, text: &str) -> Outcome<()> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| Box::new(self.syntax(error.info(), *error.marker())))?;
            self.event(event, span)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>, at: YamlSpan) -> Outcome<()> {
        let span = self.span(at);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let (tag, core) = self.tag(tag.as_deref(), span)?;
                if text.contains('\0') {
                    return self.fail(Kind::Value, span, "a NUL character cannot be part of any value");
                }
                let value = scalar(&text, style, core.as_deref());
                let Some(value) = value else {
                    let message = format!("`{text}` is no {}", core.unwrap_or_default());
                    return self.fail(Kind::Value, span, &message);
                };
                self.place(Node { value, span, tag }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.push(Value::List(Vec::new()), span, anchor, tag.as_deref()),
            Event::MappingStart(anchor, tag) => self.push(Value::Map(Map::new()), span, anchor, tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => self.pop(),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::DocumentStart(_) => {
                self.anchors.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn push(&mut self, value: Value, span: Span, anchor: usize, tag: Option<&saphyr_parser::Tag>) -> Outcome<()> {
        if self.open.len() >= limits::DEPTH {
            let message = format!("nested deeper than {} levels", limits::DEPTH);
            return self.fail(Kind::Limit, span, &message);
        }
        let (tag, _) = self.tag(tag, span)?;
        self.open.push(Frame { node: Node { value, span, tag }, anchor, key: None, merges: Vec::new() });
        Ok(())
    }

    fn pop(&mut self) -> Outcome<()> {
        let Some(mut frame) = self.open.pop() else { return Ok(()) };
        if let Value::Map(map) = &mut frame.node.value {
            for merged in frame
                .merges
                .into_iter()
                .filter_map(|node| if let Value::Map(map) = node.value { Some(map) } else { None })
            {
                for (name, entry) in merged {
                    map.entry(name).or_insert(entry);
                }
            }
        }
        self.place(frame.node, frame.anchor)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Outcome<()> {
        if self.open.iter().any(|frame| frame.anchor == anchor) {
            return self.fail(Kind::Cycle, span, "this alias stands inside the very value it refers to");
        }
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return self.fail(Kind::Reference, span, "unknown alias");
        };
        self.nodes += size;
        if self.nodes > limits::NODES {
            return self.too_many(span);
        }
        let node = node.clone();
        self.place(node, 0)
    }

    /// Puts a finished node where it belongs: a key, a value, an item or a document.
    fn place(&mut self, node: Node, anchor: usize) -> Outcome<()> {
        self.nodes += 1;
        if self.nodes > limits::NODES {
            return self.too_many(node.span);
        }
        if anchor > 0 {
            let size = node.size();
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(frame) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match (&mut frame.node.value, frame.key.take()) {
            (Value::List(list), _) => {
                list.push(node);
                Ok(())
            }
            (Value::Map(map), None) => {
                let first = node.as_str().and_then(|key| map.get(key)).map(|entry| entry.key);
                self.key(node, first)
            }
            (Value::Map(_), Some((key, _))) if key == "<<" => self.merge_key(node),
            (Value::Map(map), Some((key, at))) => {
                map.insert(key, Entry { key: at, node });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Takes `node` as the key of the value to come; `first` is where the mapping has this key already.
    fn key(&mut self, node: Node, first: Option<Span>) -> Outcome<()> {
        let Value::Str(key) = node.value else {
            let Some(text) = node.scalar_text().or_else(|| node.is_null().then(|| "null".into())) else {
                return self.fail(Kind::Shape, node.span, "a key must be a string");
            };
            let message = format!("key `{text}` is {}, not a string; quote it: \"{text}\"", node.kind());
            return self.fail(Kind::Shape, node.span, &message);
        };
        if let Some(first) = first {
            let sources = &self.session.sources;
            let (first, again) = (sources.place(first, "first here"), sources.place(node.span, "again here"));
            let diagnostic = Diagnostic::error(Kind::Syntax, format!("key `{key}` is given twice"));
            return Err(Box::new(diagnostic.at(again).at(first).hint("keep one of the two")));
        }
        if let Some(frame) = self.open.last_mut() {
            frame.key = Some((key, node.span));
        }
        Ok(())
    }

    fn merge_key(&mut self, node: Node) -> Outcome<()> {
        let span = node.span;
        let sources = match node.value {
            Value::Map(_) => vec![node],
            Value::List(list) => list,
            _ => Vec::new(),
        };
        if sources.is_empty() || sources.iter().any(|source| source.as_map().is_none()) {
            return self.fail(Kind::Shape, span, "`<<` takes a mapping or a list of mappings");
        }
        if let Some(frame) = self.open.last_mut() {
            frame.merges.extend(sources);
        }
        Ok(())
    }

    /// Our own tags, and the core type that a `!!tag` asks for.
    fn tag(&self, tag: Option<&saphyr_parser::Tag>, span: Span) -> Outcome<(Option<Tag>, Option<String>)> {
        let Some(tag) = tag else { return Ok((None, None)) };
        match (tag.handle.as_str(), tag.suffix.as_str()) {
            ("!", "reset") => Ok((Some(Tag::Reset), None)),
            ("!", "override") => Ok((Some(Tag::Override), None)),
            ("tag:yaml.org,2002:", core @ ("str" | "int" | "float" | "bool" | "null" | "map" | "seq" | "merge")) => {
                Ok((None, Some(core.to_owned())))
            }
            ("tag:yaml.org,2002:", other) => {
                self.fail(Kind::Syntax, span, &format!("tag `!!{other}` is not supported"))
            }
            _ => Ok((None, None)),
        }
    }

    fn too_many<T>(&self, span: Span) -> Outcome<T> {
        let message = format!("more than {} values in one file, aliases expanded", limits::NODES);
        self.fail(Kind::Limit, span, &message)
    }

    fn fail<T>(&self, kind: Kind, span: Span, message: &str) -> Outcome<T> {
        Err(Box::new(self.session.error_at(kind, span, message)))
    }

    fn syntax(&self, info: &str, at: Marker) -> Diagnostic {
        let span = self.span(YamlSpan::empty(at));
        let mut diagnostic = self.session.error_at(Kind::Syntax, span, format!("not valid YAML: {info}"));
        let line = self.session.sources.text_of_line(self.file, at.line());
        let above = self.session.sources.text_of_line(self.file, at.line().saturating_sub(1));
        if let Some(hint) = remedy(info, line, above) {
            diagnostic = diagnostic.hint(hint);
        }
        diagnostic
    }

    fn span(&self, at: YamlSpan) -> Span {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            file: self.file,
            line: count(at.start.line()),
            column: count(at.start.col() + 1),
            width: count(at.end.index().saturating_sub(at.start.index()).max(1)),
        }
    }
}

/// What to do about the most frequent slips, from the parser's words, the line and the one above it.
fn remedy(info: &str, line: &str, above: &str) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let key = above.trim();
    let said = |words: &str| info.contains(words);
    Some(if line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') {
        "YAML does not allow tabs as indentation; use spaces".into()
    } else if said("mapping values are not allowed") && line.matches(": ").count() > 1 {
        "quote the value: a colon and a space in it begin a new key".into()
    } else if said("mapping values are not allowed") && !key.is_empty() && !key.contains(':') {
        format!("write `{key}:`; a key ends with a colon")
    } else if said("mapping values are not allowed") && indent(line) > indent(above) {
        "the line above has a value already: indent this one like it, or give that key no value".into()
    } else if said("did not find expected key") {
        "the indentation is that of no line above: align it with the keys beside it".into()
    } else if said("quoted scalar") && said("escape") {
        "in double quotes a backslash begins an escape: use single quotes, or write `\\\\`".into()
    } else if said("quoted scalar") {
        "the quote that opens here is not closed".into()
    } else if said("unknown anchor") {
        "an anchor stands above its first use, in the same file: `key: &name …`".into()
    } else if said("invalid indentation") || said("illegal placement of ':'") {
        "a `[` or `{` above may not be closed".into()
    } else {
        return None;
    })
}

/// Resolves a scalar; `None` where it is not what its tag says.
fn scalar(text: &str, style: ScalarStyle, core: Option<&str>) -> Option<Value> {
    let plain = style == ScalarStyle::Plain;
    match core {
        Some("null") => Some(Value::Null),
        Some("int") => integer(text).map(|value| Value::Int(value, text.into())),
        Some("float") => float(text).map(|value| Value::Float(value, text.into())),
        Some("bool") => boolean(text).map(Value::Bool),
        None if plain => Some(resolve(text)),
        _ => Some(Value::Str(text.to_owned())),
    }
}

/// Whether a plain `text` is a number only because of the underscores that are allowed in one.
pub(crate) fn is_underscored_number(text: &str) -> bool {
    text.contains('_') && !matches!(resolve(text), Value::Str(_))
}

fn resolve(text: &str) -> Value {
    if matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    if let Some(value) = boolean(text) {
        return Value::Bool(value);
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Str(text.to_owned());
    }
    if let Some(value) = integer(text) {
        return Value::Int(value, text.into());
    }
    float(text).map_or_else(|| Value::Str(text.to_owned()), |value| Value::Float(value, text.into()))
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn integer(text: &str) -> Option<i64> {
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let based = |digits: &str, radix| {
        let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_alphanumeric());
        valid.then(|| i64::from_str_radix(digits, radix).ok()).flatten()
    };
    let value = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => based(&digits[2..], 16),
        Some("0o") => based(&digits[2..], 8),
        Some("0b") => based(&digits[2..], 2),
        _ if digits.len() > 1 && digits.starts_with('0') => based(digits, 8),
        _ => based(digits, 10),
    }?;
    Some(if negative { -value } else { value })
}

fn float(text: &str) -> Option<f64> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Some(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Some(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Some(f64::NAN),
        _ => {}
    }
    let plain = text.replace('_', "");
    let shaped = plain.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let digits = plain.bytes().any(|b| b.is_ascii_digit());
    if shaped && digits { plain.parse().ok().filter(|value: &f64| value.is_finite()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::load::Options;
    use super::super::loader::MapLoader;
    use super::*;

    fn json(text: &str) -> Result<String, String> {
        let loader = MapLoader::default();
        let mut session = Session::new(&loader, Options::default(), None);
        let file = session.sources.add("f.yaml".into(), text.into());
        let documents = parse(&mut session, file, text);
        session.finish().map_err(|errors| errors.to_string())?;
        Ok(documents.unwrap_or_default().iter().map(|node| node.to_json().to_string()).collect::<Vec<_>>().join("|"))
    }

    #[test]
    fn scalars_resolve_as_compose_does() {
        let text = "[1, 0755, 0o755, 1_000, 0x1F, 1.5, true, yes, ~, '1', 2024-01-02, 12:30, 1e3, 08, .5, 5e3666]";
        let expected = r#"[1,493,493,1000,31,1.5,true,"yes",null,"1","2024-01-02","12:30",1000.0,8.0,0.5,"5e3666"]"#;
        assert_eq!(json(text).unwrap(), expected);
    }

    #[test]
    fn anchors_merge_keys_and_documents() {
        let text = "a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b], z: 4}\n---\nd: *a\n";
        assert!(json(text).unwrap_err().contains("f.yaml:5:4"));
        let text = "a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b], z: 4}\n---\nd: 1\n";
        assert_eq!(json(text).unwrap(), r#"{"a":{"x":1},"b":{"x":2,"y":3},"c":{"z":4,"x":1,"y":3}}|{"d":1}"#);
    }

    #[test]
    fn slips_are_told_what_to_write() {
        for (text, words) in [
            ("a:\n  b\n    c: d\n", "write `b:`"),
            ("a: b: c\n", "quote the value"),
            ("a:\n  b: c\n    d: e\n", "has a value already"),
            ("a:\n   b: c\n  d: e\n", "align it"),
            ("a: \"b\nc: d\n", "is not closed"),
            ("a: \"C:\\data\"\n", "single quotes"),
            ("a: *b\n", "&name"),
            ("a:\n  b: [1, 2\n  c: d\n", "may not be closed"),
        ] {
            let error = json(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn refusals_name_their_place() {
        for (text, place, words) in [
            ("a: 1\na: 2\n", "f.yaml:2:1", "given twice"),
            ("a: &a [*a]\n", "f.yaml:1:8", "inside the very value"),
            ("1: x\n", "f.yaml:1:1", "quote it"),
            ("a:\n\tb: 1\n", "f.yaml:2:", "tabs"),
            ("a: !!binary aGk=\n", "f.yaml:1:", "!!binary"),
            ("a: \"b\\0c\"\n", "f.yaml:1:4", "NUL"),
        ] {
            let error = json(text).unwrap_err();
            assert!(error.contains(place) && error.contains(words), "{text:?}: {error}");
        }
        let deep = "[".repeat(50_000) + &"]".repeat(50_000);
        assert!(json(&deep).is_err());
    }
}
