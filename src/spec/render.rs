//! The canonical form as text: what `stack config` prints.

use std::cell::RefCell;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Map, Value, json};

use super::model::{Project, Service};
use super::yaml::is_underscored_number;

/// The project as JSON value with the fields that docker compose always prints (`command: null`, `ipam: {}`) and
/// `$` doubled, so that it loads again to the same project. `x-` keys below the top level are left out, as there.
pub fn canonical(project: &Project) -> Value {
    let mut top = frame(project, false);
    let services = project.services.iter().map(|(name, service)| (name.clone(), one(service, false)));
    top.insert("services".into(), Value::Object(services.collect()));
    Value::Object(top)
}

/// Everything but the services, whose place is kept; with or without the `x-` keys below the top.
fn frame(project: &Project, extensions: bool) -> Map<String, Value> {
    let frame = Project {
        name: project.name.clone(),
        networks: project.networks.clone(),
        volumes: project.volumes.clone(),
        configs: project.configs.clone(),
        secrets: project.secrets.clone(),
        models: project.models.clone(),
        extensions: project.extensions.clone(),
        ..Project::default()
    };
    let mut value = serde_json::to_value(frame).unwrap_or_default();
    if let Some(top) = value.as_object_mut() {
        for section in ["networks", "volumes", "configs", "secrets"] {
            entries(top, section)
                .filter(|_| !extensions)
                .for_each(|entry| entry.retain(|key, _| !key.starts_with("x-")));
        }
        for network in entries(top, "networks") {
            network.entry("ipam").or_insert_with(|| json!({}));
        }
    }
    escape(&mut value);
    let Value::Object(mut top) = value else { return Map::new() };
    top.shift_insert(usize::from(top.contains_key("name")), "services".into(), Value::Null);
    top
}

/// A service.
fn one(service: &Service, extensions: bool) -> Value {
    let mut value = serde_json::to_value(service).unwrap_or_default();
    if let Some(service) = value.as_object_mut() {
        tidy_service(service, extensions);
        service.retain(|key, _| extensions || !key.starts_with("x-"));
        always_printed(service);
    }
    escape(&mut value);
    value
}

/// Brings the sections that the model keeps as written to what docker compose prints of them.
fn tidy_service(service: &mut Map<String, Value>, extensions: bool) {
    const SECTIONS: [&str; 8] =
        ["blkio_config", "credential_spec", "deploy", "develop", "gpus", "models", "pre_start", "provider"];
    for section in SECTIONS {
        let Some(value) = service.get_mut(section) else { continue };
        tidy(value, extensions);
        if nothing(value) && (value.is_array() || section == "models") {
            service.remove(section);
        }
    }
    if let Some(Value::Object(build)) = service.get_mut("build") {
        build.retain(|key, value| {
            (extensions || !key.starts_with("x-")) && !(key.starts_with("dockerfile") && *value == "")
        });
    }
    let health = service.get_mut("healthcheck").and_then(Value::as_object_mut);
    if let Some(health) = health {
        health.retain(|_, value| !value.as_array().is_some_and(Vec::is_empty));
    }
    for mount in service.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(bind) = mount.get_mut("bind").and_then(Value::as_object_mut) {
            bind.retain(|key, value| key != "create_host_path" || *value != true);
        }
    }
    for hooks in ["post_start", "pre_stop"] {
        for hook in service.get_mut(hooks).and_then(Value::as_array_mut).into_iter().flatten() {
            hook.as_object_mut().into_iter().for_each(|hook| {
                hook.entry("command").or_insert_with(|| json!([]));
            });
        }
    }
}

/// Drops what says nothing, and `x-` keys if so wanted, but never the entries of a mapping that its author names.
fn tidy(value: &mut Value, extensions: bool) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|item| tidy(item, extensions)),
        Value::Object(map) => {
            map.retain(|key, value| {
                let named = matches!(key.as_str(), "environment" | "options" | "labels");
                if !named {
                    tidy(value, extensions);
                }
                let zero = matches!(key.as_str(), "count" | "context_size") && *value == 0;
                let none = !value.is_null() && nothing(value) && (named || !value.is_object());
                (extensions || !key.starts_with("x-")) && (!none || key == "command" && value.is_array()) && !zero
            });
        }
        _ => {}
    }
}

/// Whether a value is the same as none.
fn nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Adds what docker compose prints even where it is empty.
fn always_printed(service: &mut Map<String, Value>) {
    for key in ["command", "entrypoint"] {
        service.entry(key).or_insert(Value::Null);
    }
    let watches = service.get_mut("develop").and_then(|develop| develop.get_mut("watch")?.as_array_mut());
    for watch in watches.into_iter().flatten().filter_map(Value::as_object_mut) {
        watch.entry("exec").or_insert_with(|| json!({ "command": null }));
    }
    for hook in service.get_mut("pre_start").and_then(Value::as_array_mut).into_iter().flatten() {
        hook.as_object_mut().into_iter().for_each(|hook| {
            hook.entry("command").or_insert(Value::Null);
        });
    }
    if let Some(deploy) = service.get_mut("deploy").and_then(Value::as_object_mut) {
        deploy.entry("resources").or_insert_with(|| json!({}));
        deploy.entry("placement").or_insert_with(|| json!({}));
        let kinds = deploy["resources"].pointer_mut("/reservations/generic_resources").and_then(Value::as_array_mut);
        let kinds =
            kinds.into_iter().flatten().filter_map(|kind| kind.get_mut("discrete_resource_spec")?.as_object_mut());
        for kind in kinds {
            kind.entry("kind").or_insert_with(|| json!(""));
            kind.entry("value").or_insert_with(|| json!(0));
        }
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

/// A project while it is printed: its services take their form one by one, so that all of it is never held twice.
struct Printed<'p> {
    project: &'p Project,
    frame: Map<String, Value>,
    extensions: bool,
    /// What is done to a service, and to its name, before it is printed.
    last: &'p dyn Fn(&mut Value),
}

impl Serialize for Printed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.frame.len()))?;
        for (key, value) in &self.frame {
            match key.as_str() {
                "services" => map.serialize_entry(key, &Services(self))?,
                _ => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

struct Services<'p>(&'p Printed<'p>);

impl Serialize for Services<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.project.services.iter().map(|(name, service)| {
            let (mut name, mut service) = (Value::from(name.as_str()), one(service, self.0.extensions));
            (self.0.last)(&mut name);
            (self.0.last)(&mut service);
            (name, service)
        }))
    }
}

/// `config --format json`: indented, with a newline at the end. It is there to be compared with docker compose's, so it has
/// that one's oddities: capitals below `blkio_config`, no `models` at the top. What is to be loaded again is the YAML form.
pub fn json(project: &Project) -> String {
    let mut frame = frame(project, false);
    frame.shift_remove("models");
    pretty(&Printed { project, frame, extensions: false, last: &capitals })
}

/// Capitals below `blkio_config`, where docker compose prints them and what is empty too.
fn capitals(service: &mut Value) {
    let limits = service.get_mut("blkio_config").and_then(Value::as_object_mut);
    for (limit, devices) in limits.into_iter().flatten() {
        let (key, capital, zero) = match limit.as_str() {
            "weight_device" => ("weight", "Weight", json!(0)),
            _ => ("rate", "Rate", json!("0")),
        };
        for device in devices.as_array_mut().into_iter().flatten() {
            let field = |key: &str, none: &Value| device.get(key).unwrap_or(none).clone();
            *device = json!({ "Path": field("path", &json!("")), capital: field(key, &zero) });
        }
    }
}

/// Something as JSON, indented, with a newline at the end.
pub fn pretty(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text
}

/// `config`: block style YAML, `x-` keys included.
pub fn yaml(project: &Project) -> String {
    let quoted = RefCell::new(Vec::new());
    let last = |value: &mut Value| mark(value, &mut quoted.borrow_mut());
    let mut top = Value::Object(frame(project, true));
    last(&mut top);
    let Value::Object(frame) = top else { return String::new() };
    let printed = serde_yaml::to_string(&Printed { project, frame, extensions: true, last: &last });
    unmark(printed.unwrap_or_default(), &quoted.take())
}

/// A JSON value as block style YAML: for [`Loaded::tree`](super::Loaded::tree).
pub fn tree_yaml(tree: &Value) -> String {
    let (mut tree, mut quoted) = (tree.clone(), Vec::new());
    mark(&mut tree, &mut quoted);
    unmark(serde_yaml::to_string(&tree).unwrap_or_default(), &quoted)
}

/// Puts the texts that were marked into their places.
fn unmark(printed: String, quoted: &[String]) -> String {
    if quoted.is_empty() {
        return printed;
    }
    let pieces = printed.split(MARK).enumerate();
    pieces
        .map(|(index, piece)| match piece.parse::<usize>() {
            Ok(number) if index % 2 == 1 => quoted.get(number).map_or(piece, String::as_str),
            _ => piece,
        })
        .collect()
}

/// Stands on both sides of a number in the place of a text that the printer does not print as it has to be read.
const MARK: char = '\u{f8ff}';

/// Characters that the printer takes for the end of a line.
const SEPARATORS: [char; 2] = ['\u{2028}', '\u{2029}'];

/// Whether the printer gets a text wrong: it takes `1_000` for no number and leaves it plain, and folds at separators.
fn is_delicate(text: &str) -> bool {
    is_underscored_number(text) || text.contains(SEPARATORS) || text.contains(MARK)
}

fn has_delicate(value: &Value) -> bool {
    match value {
        Value::String(text) => is_delicate(text),
        Value::Array(list) => list.iter().any(has_delicate),
        Value::Object(map) => map.iter().any(|(key, value)| is_delicate(key) || has_delicate(value)),
        _ => false,
    }
}

/// Puts marks in the place of delicate texts, which go to `quoted` as they are to be printed: in double quotes, as JSON has it.
fn mark(value: &mut Value, quoted: &mut Vec<String>) {
    let marked = |text: &mut String, quoted: &mut Vec<String>| {
        if is_delicate(text) {
            let json = Value::from(std::mem::take(text)).to_string();
            *text = format!("{MARK}{}{MARK}", quoted.len());
            quoted.push(json.replace(SEPARATORS[0], "\\u2028").replace(SEPARATORS[1], "\\u2029"));
        }
    };
    match value {
        _ if !has_delicate(value) => {}
        Value::String(text) => marked(text, quoted),
        Value::Array(list) => list.iter_mut().for_each(|item| mark(item, quoted)),
        Value::Object(map) => {
            for (mut key, mut value) in std::mem::take(map) {
                marked(&mut key, quoted);
                mark(&mut value, quoted);
                map.insert(key, value);
            }
        }
        _ => {}
    }
}
