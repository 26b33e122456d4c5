//! The last look at the merged tree: nothing required is missing, nothing is null that must not be, and values that
//! mean the same as none are gone.

use std::collections::HashMap;

use super::diagnostic::Kind;
use super::node::{Entry, Map, Node, Trail, Value};
use super::schema::{self, Field, Object, Shape};
use super::session::Session;
use super::source::Span;

/// Checks and trims the tree.
pub(crate) fn finish(session: &mut Session<'_>, tree: &mut Node) {
    walk(session, tree, &schema::ROOT_SHAPE, &Trail::Root, Span::default());
}

fn walk(session: &mut Session<'_>, node: &mut Node, shape: &'static Shape, trail: &Trail<'_>, key: Span) {
    match shape {
        Shape::Object(object) | Shape::Short(_, object) | Shape::Resource(object) => {
            self::object(session, node, object, trail, key);
        }
        Shape::Optional(Shape::Resource(_)) if node.is_null() => node.value = Value::Map(Map::new()),
        Shape::Optional(_) if node.is_null() => {}
        Shape::Optional(item) => walk(session, node, item, trail, key),
        Shape::Unique(_) => distinct(session, node, trail),
        Shape::Hosts => {
            if let Value::List(hosts) = &mut node.value {
                hosts.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            }
        }
        Shape::Options => {
            for Entry { node, .. } in node.as_map_mut().into_iter().flat_map(Map::values_mut) {
                if node.as_list().is_none() {
                    node.value = Value::List(vec![node.clone()]);
                }
            }
        }
        Shape::MapOf(item) | Shape::Names(item) => entries(session, node, item, trail),
        Shape::DependsOn => entries(session, node, &schema::DEPENDENCY_SHAPE, trail),
        Shape::Ulimits => entries(session, node, &schema::ULIMIT_SHAPE, trail),
        Shape::List(item) => items(session, node, item, trail),
        Shape::Ports => items(session, node, &schema::PORT_SHAPE, trail),
        Shape::Volumes => items(session, node, &schema::MOUNT_SHAPE, trail),
        Shape::Devices => items(session, node, &schema::DEVICE_SHAPE, trail),
        Shape::FileMounts => items(session, node, &schema::FILE_MOUNT_SHAPE, trail),
        Shape::EnvFiles => items(session, node, &schema::ENV_FILE_SHAPE, trail),
        Shape::Gpus => items(session, node, &schema::GPU_SHAPE, trail),
        _ => {}
    }
}

fn entries(session: &mut Session<'_>, node: &mut Node, item: &'static Shape, trail: &Trail<'_>) {
    let Value::Map(map) = &mut node.value else { return };
    for (name, Entry { key, node }) in map {
        let trail = Trail::Key(trail, name);
        if node.is_null() && !matches!(item, Shape::Optional(_)) {
            let message = format!("{trail} is empty; it must be a mapping");
            session.error_hint(Kind::Shape, *key, message, "indent its lines below it, or remove it");
            continue;
        }
        walk(session, node, item, &trail, *key);
    }
}

fn items(session: &mut Session<'_>, node: &mut Node, item: &'static Shape, trail: &Trail<'_>) {
    let Value::List(list) = &mut node.value else { return };
    for (index, node) in list.iter_mut().enumerate() {
        let span = node.span;
        walk(session, node, item, &Trail::Index(trail, index), span);
    }
}

/// Complains about an item that a list has twice.
fn distinct(session: &mut Session<'_>, node: &Node, trail: &Trail<'_>) {
    let mut seen: HashMap<String, Span> = HashMap::new();
    for item in node.as_list().unwrap_or_default() {
        let Some(text) = item.scalar_text() else { continue };
        let message = format!("{trail} has `{text}` twice");
        if let Some(first) = seen.insert(text, item.span) {
            let diagnostic = session.error_at(Kind::Value, item.span, message);
            let first = session.sources.place(first, "first here");
            session.report(diagnostic.at(first).hint("keep one of the two"));
        }
    }
}

fn object(session: &mut Session<'_>, node: &mut Node, object: &'static Object, trail: &Trail<'_>, key: Span) {
    let Value::Map(map) = &mut node.value else { return };
    for field in object.fields {
        let missing = map.get(field.name).is_none_or(|entry| entry.node.is_null());
        if field.required && missing {
            session.error(Kind::Shape, key, format!("{trail} lacks `{}`", field.name));
        }
    }
    for (name, Entry { key, node }) in map.iter_mut() {
        let Some(field) = object.field(name) else { continue };
        let trail = Trail::Key(trail, name);
        if node.is_null() && !field.nullable && !field.required {
            let message = format!("{trail} is empty");
            session.error_hint(Kind::Shape, *key, message, "give it a value or remove the line");
        }
        walk(session, node, &field.shape, &trail, *key);
    }
    trim(map, object);
}

/// Drops what means the same as none.
fn trim(map: &mut Map, object: &'static Object) {
    let empty = |field: &Field, node: &Node| match &node.value {
        Value::Null => true,
        Value::Bool(value) => field.empty_is_none && !value,
        Value::Int(value, _) => field.empty_is_none && *value == 0,
        Value::Float(value, _) => field.empty_is_none && *value == 0.0,
        Value::Str(text) => {
            field.empty_is_none
                && (text.is_empty() || matches!(field.shape, Shape::Bytes | Shape::SizeText) && text == "0")
        }
        _ => false,
    };
    map.retain(|name, entry| !object.field(name).is_some_and(|field| empty(field, &entry.node)));
}
