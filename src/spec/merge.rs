//! Joining two canonical trees: a file over an earlier one, a service over the one it extends.

use indexmap::IndexMap;

use super::diagnostic::{Diagnostic, Kind};
use super::node::{Entry, Map, Node, Tag, Value};
use super::schema::{self, Field, Identity, Merge, Shape};
use super::session::Session;

/// `over` laid over `base`.
pub(crate) fn merge(session: &mut Session<'_>, base: Node, over: Node, shape: &'static Shape) -> Node {
    join(session, base, over, shape, Merge::Deep)
}

fn join(session: &mut Session<'_>, base: Node, over: Node, shape: &'static Shape, rule: Merge) -> Node {
    if over.tag.is_some() || base.is_reset() || rule == Merge::Replace {
        return over;
    }
    if over.is_null() {
        return base;
    }
    let (span, tag) = (over.span, over.tag);
    let value = match (base.value, over.value) {
        (Value::Map(base), Value::Map(over)) if drops_options(&base, &over, rule) => Value::Map(over),
        (Value::Map(base), Value::Map(over)) => Value::Map(join_maps(session, base, over, shape, rule)),
        (Value::List(base), Value::List(over)) if rule == Merge::Pools => Value::List(join_pools(session, base, over)),
        (Value::List(mut base), Value::List(over)) => {
            base.extend(over);
            let mut joined = Node::new(Value::List(base), span);
            if let Merge::Unique(identity) = rule {
                deduplicate(&mut joined, identity);
            }
            joined.value
        }
        (first @ (Value::Map(_) | Value::List(_)), over) => {
            return clash(session, &Node::new(first, base.span), Node { value: over, span, tag });
        }
        (_, over) => over,
    };
    Node { value, span, tag }
}

/// `logging` of another driver replaces the options too.
fn drops_options(base: &Map, over: &Map, rule: Merge) -> bool {
    let driver = |map: &Map| map.get("driver").and_then(|entry| entry.node.as_str().map(str::to_owned));
    rule == Merge::Logging && matches!((driver(base), driver(over)), (Some(base), Some(over)) if base != over)
}

fn join_maps(session: &mut Session<'_>, mut base: Map, over: Map, shape: &'static Shape, rule: Merge) -> Map {
    for (name, Entry { key, node }) in over {
        let (inner, inner_rule) = child(shape, &name);
        match base.get_mut(&name) {
            Some(entry) if rule == Merge::Keyed => *entry = Entry { key, node },
            Some(entry) => {
                let first = std::mem::take(&mut entry.node);
                entry.node = join(session, first, node, inner, inner_rule);
                entry.key = key;
            }
            None => {
                base.insert(name, Entry { key, node });
            }
        }
    }
    base
}

/// Shape and rule of what stands under `name`.
fn child(shape: &'static Shape, name: &str) -> (&'static Shape, Merge) {
    const ANY: (&Shape, Merge) = (&Shape::Any, Merge::Deep);
    let known = |field: Option<&'static Field>| field.map_or(ANY, |field| (&field.shape, field.merge));
    match shape {
        Shape::Object(object) | Shape::Short(_, object) | Shape::Resource(object) => known(object.field(name)),
        Shape::MapOf(item) | Shape::Names(item) => (item, Merge::Deep),
        Shape::Optional(item) => child(item, name),
        Shape::DependsOn => (&schema::DEPENDENCY_SHAPE, Merge::Deep),
        Shape::Ulimits => (&Shape::Any, Merge::Replace),
        _ => ANY,
    }
}

/// `ipam.config`: one pool per subnet, the later attributes win.
fn join_pools(session: &mut Session<'_>, base: Vec<Node>, over: Vec<Node>) -> Vec<Node> {
    let mut pools: IndexMap<Option<String>, Node> = IndexMap::new();
    for pool in base.into_iter().chain(over) {
        let subnet = pool.get_str("subnet").map(str::to_owned);
        let joined = match pools.swap_remove(&subnet) {
            Some(first) => join(session, first, pool, &Shape::Any, Merge::Deep),
            None => pool,
        };
        pools.insert(subnet, joined);
    }
    pools.into_values().collect()
}

fn clash(session: &mut Session<'_>, base: &Node, over: Node) -> Node {
    let message = format!("{} cannot be laid over {}", over.kind(), base.kind());
    let diagnostic = Diagnostic::error(Kind::Merge, message)
        .at(session.sources.place(over.span, "this value"))
        .at(session.sources.place(base.span, "over this one"));
    session.report(diagnostic.hint("give both the same shape, or replace the first with `!override`"));
    over
}

/// Keeps one item per identity, the later in the place of the earlier.
pub(crate) fn deduplicate(list: &mut Node, identity: Identity) {
    let Value::List(items) = &mut list.value else { return };
    let mut seen: IndexMap<String, Node> = IndexMap::with_capacity(items.len());
    for (index, item) in std::mem::take(items).into_iter().enumerate() {
        let key = key_of(&item, identity).unwrap_or_else(|| format!("\0{index}"));
        seen.insert(key, item);
    }
    *items = seen.into_values().collect();
}

fn key_of(item: &Node, identity: Identity) -> Option<String> {
    let text = |key: &str| item.get(key).and_then(Node::scalar_text);
    match identity {
        Identity::Whole => item.scalar_text(),
        Identity::BeforeEquals => item.scalar_text().map(|text| text.split('=').next().unwrap_or_default().to_owned()),
        Identity::Target => text("target"),
        Identity::FilePath => text("path"),
        Identity::Mount(directory) => {
            text("target").or_else(|| text("source").map(|source| format!("{directory}/{source}")))
        }
        Identity::Port => item.as_map().map(|_| {
            let host = text("host_ip").unwrap_or_else(|| "0.0.0.0".into());
            let part = |key: &str| text(key).unwrap_or_default();
            format!("{host}:{}:{}/{}", part("published"), part("target"), part("protocol"))
        }),
    }
}

/// Drops what `!reset` removed and forgets the tags: the merge is over.
pub(crate) fn settle(node: &mut Node) {
    node.tag = node.tag.filter(|tag| *tag == Tag::Reset);
    match &mut node.value {
        Value::List(list) => list.iter_mut().for_each(settle),
        Value::Map(map) => {
            map.retain(|_, entry| !entry.node.is_reset());
            map.values_mut().for_each(|entry| settle(&mut entry.node));
        }
        _ => {}
    }
}
