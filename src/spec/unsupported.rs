//! What the Compose Specification knows and `stack` does not do yet: one list, shrinking.

use super::diagnostic::Kind;
use super::node::{Map, Node, Value};
use super::session::Session;

/// What ignoring an attribute costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// A convenience; the stack runs without it.
    Convenience,
    /// Isolation, a limit or data: the stack must not start without it.
    Safety,
}

use Cost::{Convenience, Safety};

/// Attributes by path, `*` for any name or list item.
const UNSUPPORTED: &[(&str, Cost)] = &[
    ("services.*.cpu_count", Convenience),
    ("services.*.cpu_percent", Convenience),
    ("services.*.credential_spec", Convenience),
    ("services.*.gpus", Convenience),
    ("services.*.isolation", Convenience),
    ("services.*.models", Convenience),
    ("services.*.provider", Safety),
    ("services.*.storage_opt", Safety),
    ("services.*.use_api_socket", Convenience),
    ("services.*.deploy.endpoint_mode", Convenience),
    ("services.*.deploy.placement", Convenience),
    ("services.*.deploy.rollback_config", Convenience),
    ("services.*.deploy.update_config", Convenience),
    ("services.*.deploy.resources.reservations.devices", Convenience),
    ("services.*.deploy.resources.reservations.generic_resources", Convenience),
    ("services.*.build.cache_from", Convenience),
    ("services.*.build.cache_to", Convenience),
    ("services.*.build.isolation", Convenience),
    ("services.*.build.provenance", Convenience),
    ("services.*.build.sbom", Convenience),
    ("services.*.userns_mode", Safety),
    ("services.*.logging.driver", Convenience),
    ("networks.*.driver", Safety),
    ("volumes.*.driver", Safety),
];

/// Values of listed attributes that are honoured, or ask for nothing.
const HONOURED: &[(&str, &[&str])] = &[
    ("userns_mode", &["host", "private"]),
    ("driver", &["", "bridge", "default", "host", "none", "local", "json-file"]),
];

/// Warns about every attribute that is not honoured; those whose absence costs safety keep the stack from being started.
pub(crate) fn check(session: &mut Session<'_>, tree: &Node) {
    for (path, cost) in UNSUPPORTED {
        let parts: Vec<&str> = path.split('.').collect();
        visit(tree, &parts, &mut Vec::new(), &mut |at, node| {
            let text = node.as_str();
            let honoured = |(name, values): &(&str, &[&str])| {
                at.last() == Some(name) && text.is_some_and(|text| values.contains(&text))
            };
            let harmless = HONOURED.iter().any(honoured);
            let empty = node.as_map().is_some_and(Map::is_empty) || node.as_list().is_some_and(<[Node]>::is_empty);
            if harmless || empty {
                return;
            }
            let (place, name) = (tree.locate_key(at), at.join("."));
            match cost {
                Cost::Convenience => {
                    let message = format!("{name} is not supported yet and has no effect");
                    let warning = session.warning_at(Kind::Unsupported, place, message);
                    session.report(warning);
                }
                Cost::Safety => {
                    let message = format!("{name} is not supported yet, and the stack cannot start without its effect");
                    session.refuse(Kind::Unsupported, place, &message, "remove it if the stack can do without");
                }
            }
        });
    }
}

/// Calls `found` with the path of everything that matches `pattern`.
fn visit<'n>(node: &'n Node, pattern: &[&'n str], at: &mut Vec<&'n str>, found: &mut dyn FnMut(&[&str], &'n Node)) {
    let Some((first, rest)) = pattern.split_first() else { return found(at, node) };
    let Value::Map(map) = &node.value else { return };
    for (name, entry) in map.iter().filter(|(name, _)| *first == "*" || name == first) {
        at.push(name);
        visit(&entry.node, rest, at, found);
        at.pop();
    }
}
