//! The canonical form as text: what `stack config` prints.

use serde_json::{Map, Value, json};

use super::model::Project;

/// The project as JSON value with the fields that docker compose always prints (`command: null`, `ipam: {}`) and
/// `$` doubled, so that it loads again to the same project. `x-` keys below the top level are left out, as there.
pub fn canonical(project: &Project) -> Value {
    let mut project = project.clone();
    for service in project.services.values_mut() {
        service.extensions.clear();
        if let Some(build) = &mut service.build {
            build.extensions.clear();
        }
        if let Some(deploy) = &mut service.deploy {
            deploy.extensions.clear();
        }
    }
    project.networks.values_mut().for_each(|network| network.extensions.clear());
    project.volumes.values_mut().for_each(|volume| volume.extensions.clear());
    project.configs.values_mut().chain(project.secrets.values_mut()).for_each(|object| object.extensions.clear());
    value(&project)
}

/// The project with every `x-` key.
fn value(project: &Project) -> Value {
    let mut value = serde_json::to_value(project).unwrap_or_default();
    always_printed(&mut value);
    escape(&mut value);
    value
}

/// Adds what docker compose prints even where it is empty.
fn always_printed(value: &mut Value) {
    let Some(top) = value.as_object_mut() else { return };
    top.entry("services").or_insert_with(|| json!({}));
    for service in entries(top, "services") {
        for key in ["command", "entrypoint"] {
            service.entry(key).or_insert(Value::Null);
        }
        let watches = service.get_mut("develop").and_then(|develop| develop.get_mut("watch")?.as_array_mut());
        for watch in watches.into_iter().flatten().filter_map(Value::as_object_mut) {
            watch.entry("exec").or_insert_with(|| json!({ "command": null }));
        }
        if let Some(deploy) = service.get_mut("deploy").and_then(Value::as_object_mut) {
            deploy.entry("resources").or_insert_with(|| json!({}));
            deploy.entry("placement").or_insert_with(|| json!({}));
        }
    }
    for network in entries(top, "networks") {
        network.entry("ipam").or_insert_with(|| json!({}));
    }
}

fn entries<'v>(top: &'v mut Map<String, Value>, key: &str) -> impl Iterator<Item = &'v mut Map<String, Value>> {
    let map = top.get_mut(key).and_then(Value::as_object_mut);
    map.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut)
}

/// Doubles dollar signs, in keys too, and prints whole numbers without a fraction.
fn escape(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::Array(list) => list.iter_mut().for_each(escape),
        Value::Object(map) => {
            if map.keys().any(|key| key.contains('$')) {
                *map = std::mem::take(map).into_iter().map(|(key, value)| (key.replace('$', "$$"), value)).collect();
            }
            map.values_mut().for_each(escape);
        }
        Value::Number(number) => {
            #[allow(clippy::cast_possible_truncation, reason = "the value is whole and small")]
            if let Some(whole) = number.as_f64().filter(|n| number.is_f64() && n.fract() == 0.0 && n.abs() < 9e15) {
                *value = Value::from(whole as i64);
            }
        }
        _ => {}
    }
}

/// `config --format json`: indented, with a newline at the end.
pub fn json(project: &Project) -> String {
    pretty(&canonical(project))
}

/// A JSON value, indented, with a newline at the end.
pub fn pretty(value: &Value) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// `config`: block style YAML, `x-` keys included.
pub fn yaml(project: &Project) -> String {
    tree_yaml(&value(project))
}

/// A JSON value as block style YAML: for [`Loaded::tree`](super::Loaded::tree).
pub fn tree_yaml(tree: &Value) -> String {
    serde_yaml::to_string(tree).unwrap_or_default()
}
