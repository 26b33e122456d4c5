//! What changed between two resolved services, attribute by attribute.

use serde::Serialize;
use serde_json::Value;

use super::hash::IGNORED;
use crate::spec::model::Service;

/// One attribute that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Attribute and the way into it, e.g. `environment LOG_LEVEL`.
    pub path: String,
    /// Old value; `None` = it wasn't set.
    pub from: Option<String>,
    /// New value; `None` = it isn't set any more.
    pub to: Option<String>,
}

/// Compares two resolved services, leaving out what containers don't depend on.
pub(super) fn changes(old: &Service, new: &Service) -> Vec<Change> {
    let value = |service: &Service| serde_json::to_value(service).unwrap_or_default();
    between(&value(old), &value(new))
}

/// Compares two definitions.
pub(super) fn between(old: &Value, new: &Value) -> Vec<Change> {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return Vec::new() };
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut found = Vec::new();
    for key in keys {
        if IGNORED.contains(&key.as_str()) {
            continue;
        }
        compare(key, old.get(key), new.get(key), &mut found);
    }
    found.retain(|change| change.path != "deploy replicas");
    found
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Change>) {
    if old == new {
        return;
    }
    // Lists of one length differ in their items; of others nobody can tell which item went.
    if let (Some(Value::Array(old)), Some(Value::Array(new))) = (old, new)
        && old.len() == new.len()
    {
        for (index, (old, new)) in old.iter().zip(new).enumerate() {
            compare(&format!("{path}[{index}]"), Some(old), Some(new), found);
        }
        return;
    }
    let empty = serde_json::Map::new();
    let maps = match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => Some((old, new)),
        (Some(Value::Object(old)), None) => Some((old, &empty)),
        (None, Some(Value::Object(new))) => Some((&empty, new)),
        _ => None,
    };
    let Some((old_map, new_map)) = maps.filter(|(old, new)| !(old.is_empty() && new.is_empty())) else {
        found.push(Change { path: path.to_owned(), from: old.map(text), to: new.map(text) });
        return;
    };
    let mut keys: Vec<&String> = old_map.keys().chain(new_map.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        compare(&format!("{path} {key}"), old_map.get(key), new_map.get(key), found);
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_each_attribute_that_changed() {
        let old = json!({"image": "a", "environment": {"LOG_LEVEL": "info", "GONE": "1"}, "scale": 1});
        let new = json!({"image": "a", "environment": {"LOG_LEVEL": "debug"}, "scale": 5, "init": true});
        let found: Vec<(String, Option<String>, Option<String>)> =
            between(&old, &new).into_iter().map(|change| (change.path, change.from, change.to)).collect();
        assert_eq!(
            found,
            vec![
                ("environment GONE".into(), Some("1".into()), None),
                ("environment LOG_LEVEL".into(), Some("info".into()), Some("debug".into())),
                ("init".into(), None, Some("true".into())),
            ]
        );
    }

    #[test]
    fn names_the_item_of_a_list_that_changed() {
        let old = json!({"ports": [{"target": 80}, {"target": 81, "published": "8080"}], "command": ["a"]});
        let new = json!({"ports": [{"target": 80}, {"target": 81, "published": "8081"}], "command": ["a", "b"]});
        let found: Vec<String> = between(&old, &new)
            .into_iter()
            .map(|change| format!("{} {} {}", change.path, change.from.unwrap(), change.to.unwrap()))
            .collect();
        assert_eq!(found, [r#"command ["a"] ["a","b"]"#, "ports[1] published 8080 8081"]);
    }

    #[test]
    fn the_number_of_replicas_is_no_change() {
        let old = json!({"deploy": {"replicas": 1}});
        assert_eq!(between(&old, &json!({"deploy": {"replicas": 3}})), vec![]);
        assert_eq!(between(&old, &json!({})), vec![]);
    }
}
