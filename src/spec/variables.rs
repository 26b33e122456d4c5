//! Which variables a stack file asks for: what `stack config --variables` lists.

use std::collections::BTreeMap;

use serde::Serialize;

use super::node::{Node, Value};

/// One variable, as the file uses it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Some use is `${NAME:?…}` or `${NAME?…}`.
    pub required: bool,
    /// The default of `${NAME:-…}` or `${NAME-…}`.
    pub default: String,
    /// The alternate of `${NAME:+…}` or `${NAME+…}`.
    pub alternate: String,
}

/// Adds the variables of a tree.
pub(crate) fn collect(node: &Node, found: &mut BTreeMap<String, Variable>) {
    match &node.value {
        Value::Str(text) if text.contains('$') => scan(text, found),
        Value::List(list) => list.iter().for_each(|node| collect(node, found)),
        Value::Map(map) => map.values().for_each(|entry| collect(&entry.node, found)),
        _ => {}
    }
}

/// Walks all dollar signs of a text; words of expressions are walked as the text goes on.
fn scan(text: &str, found: &mut BTreeMap<String, Variable>) {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let tail = &rest[at + 1..];
        rest = tail;
        if let Some(after) = tail.strip_prefix('$') {
            rest = after;
            continue;
        }
        let (braced, body) = tail.strip_prefix('{').map_or((false, tail), |body| (true, body));
        let length = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
        if length == 0 || body.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        let variable = found.entry(body[..length].to_owned()).or_default();
        if braced {
            note(variable, &body[length..]);
        }
    }
}

/// Notes what the operator after the name says.
fn note(variable: &mut Variable, rest: &str) {
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let word = |rest: &str| rest[1..].find('}').map_or(String::new(), |end| rest[1..=end].to_owned());
    match rest.as_bytes().first() {
        Some(b'?') => variable.required = true,
        Some(b'-') => variable.default = word(rest),
        Some(b'+') => variable.alternate = word(rest),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Span;
    use super::*;

    #[test]
    fn lists_every_use() {
        let mut found = BTreeMap::new();
        collect(&Node::str("${A:-x}/$B/${C:?why} $$D ${A:+y} ${E:-${F}}", Span::default()), &mut found);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["A", "B", "C", "E", "F"]);
        assert_eq!(found["A"], Variable { required: false, default: "x".into(), alternate: "y".into() });
        assert!(found["C"].required);
    }
}
