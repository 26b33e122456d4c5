//! The JSON Schema of stack files, for editors: read off the declared table in `schema`, so that there is one truth.

use serde_json::{Map, Value, json};

use super::schema::{self, Object, Shape};

/// The schema as JSON value (draft 2020-12): what `stack config --schema` prints.
pub fn json_schema() -> Value {
    let mut root = object(&schema::ROOT);
    let mut head = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Stack file",
        "description": "A Compose file as `stack` reads it, with its own settings under `x-stack`.",
    });
    if let (Some(head), Some(root)) = (head.as_object_mut(), root.as_object_mut()) {
        head.append(root);
    }
    head
}

fn object(object: &Object) -> Value {
    let properties: Map<String, Value> = object
        .fields
        .iter()
        .map(|field| {
            let shape = shape(&field.shape);
            (field.name.to_owned(), if field.nullable { any_of(vec![shape, json!({ "type": "null" })]) } else { shape })
        })
        .collect();
    let required: Vec<&str> = object.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if object.extensible {
        schema["patternProperties"] = json!({ "^x-": {} });
    }
    schema
}

/// A value that may also be given as text with a variable in it.
fn number(kind: &str, least: i64, most: i64) -> Value {
    let mut schema = json!({ "type": [kind, "string"] });
    if least != i64::MIN {
        schema["minimum"] = least.into();
    }
    if most != i64::MAX {
        schema["maximum"] = most.into();
    }
    schema
}

fn shape(shape: &Shape) -> Value {
    match shape {
        Shape::Any => json!({}),
        Shape::Str | Shape::Path | Shape::WatchPath | Shape::Context | Shape::Duration | Shape::SizeText => text(),
        Shape::Text => json!({ "type": ["string", "number", "boolean"] }),
        Shape::NumberText => json!({ "type": ["string", "number"] }),
        Shape::WholeText | Shape::Bytes | Shape::FileMode | Shape::ModeNumber | Shape::Count => {
            json!({ "type": ["string", "integer"] })
        }
        Shape::Attestation | Shape::Bool => json!({ "type": ["boolean", "string"] }),
        Shape::StrictBool => json!({ "type": "boolean" }),
        Shape::Number(least) => number("integer", *least, i64::MAX),
        Shape::Int(least, most) => number("integer", *least, *most),
        Shape::StrictInt(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Float => number("number", 0, i64::MAX),
        Shape::Enum(words) => any_of(vec![json!({ "enum": words }), json!({ "type": "string", "pattern": "\\$" })]),
        Shape::StrList => list(text()),
        Shape::Unique(inner) => {
            let mut schema = self::shape(inner);
            unique(&mut schema);
            schema
        }
        Shape::Addresses => string_or(list(text())),
        Shape::StrOrList(item) => any_of(vec![self::shape(item), list(self::shape(item))]),
        Shape::Command => json!({ "type": ["string", "array", "null"], "items": { "type": "string" } }),
        Shape::Test => json!({ "type": ["string", "array"], "items": { "type": "string" } }),
        Shape::Mapping(_, item) => mapping(self::shape(item)),
        Shape::Ssh => mapping(json!({ "type": ["string", "number", "boolean"] })),
        Shape::TextMap => map(json!({ "type": ["string", "number", "null"] })),
        Shape::OptionMap => map(json!({ "type": ["string", "number"] })),
        Shape::Hosts => any_of(vec![map(string_or(list(text()))), list(text())]),
        Shape::List(item) => list(self::shape(item)),
        Shape::MapOf(item) => named(self::shape(item)),
        Shape::Names(item) => any_of(vec![list(text()), named(self::shape(item))]),
        Shape::DependsOn => any_of(vec![list(text()), named(self::shape(&schema::DEPENDENCY_SHAPE))]),
        Shape::Object(inner) | Shape::Resource(inner) => object(inner),
        Shape::Short(_, inner) => string_or(object(inner)),
        Shape::WordOr(words, inner) => any_of(vec![self::shape(&Shape::Enum(words)), object(inner)]),
        Shape::Optional(inner) => any_of(vec![self::shape(inner), json!({ "type": "null" })]),
        Shape::Ports => list(any_of(vec![json!({ "type": ["string", "integer"] }), self::shape(&schema::PORT_SHAPE)])),
        Shape::Volumes => list(string_or(self::shape(&schema::MOUNT_SHAPE))),
        Shape::Devices => list(string_or(self::shape(&schema::DEVICE_SHAPE))),
        Shape::FileMounts => list(self::shape(&schema::FILE_MOUNT_SHAPE)),
        Shape::EnvFiles => string_or(list(self::shape(&schema::ENV_FILE_SHAPE))),
        Shape::Gpus => any_of(vec![json!({ "const": "all" }), list(self::shape(&schema::GPU_SHAPE))]),
        Shape::Ulimits => {
            map(any_of(vec![json!({ "type": ["integer", "string"] }), self::shape(&schema::ULIMIT_SHAPE)]))
        }
        Shape::Options => {
            let scalar = json!({ "type": ["string", "number", "boolean"] });
            map(any_of(vec![scalar.clone(), list(scalar)]))
        }
    }
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn any_of(schemas: Vec<Value>) -> Value {
    json!({ "anyOf": schemas })
}

fn string_or(schema: Value) -> Value {
    any_of(vec![text(), schema])
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn map(values: Value) -> Value {
    json!({ "type": "object", "additionalProperties": values })
}

/// A mapping from names of services, networks and the like.
fn named(values: Value) -> Value {
    json!({ "type": "object", "additionalProperties": values, "propertyNames": { "pattern": "^[a-zA-Z0-9._-]+$" } })
}

/// A mapping whose values may be left out, or a list of `key=value`.
fn mapping(values: Value) -> Value {
    any_of(vec![map(any_of(vec![values, json!({ "type": "null" })])), list(text())])
}

/// Forbids doubled items in the lists of `schema`.
fn unique(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    if map.get("type").is_some_and(|kind| kind == "array") {
        map.insert("uniqueItems".into(), true.into());
    }
    map.get_mut("anyOf").and_then(Value::as_array_mut).into_iter().flatten().for_each(unique);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jsonschema::Validator;

    use super::*;
    use crate::spec::{LoadRequest, load, loader::MapLoader, render};

    fn validator() -> Validator {
        jsonschema::validator_for(&json_schema()).unwrap()
    }

    fn parsed(text: &str) -> Option<Value> {
        let mut tree: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
        tree.apply_merge().ok()?;
        serde_json::to_value(tree).ok()
    }

    #[test]
    fn the_file_in_the_repository_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/stack.schema.json");
        let stored = fs_err::read_to_string(path).unwrap_or_default();
        assert!(stored == render::pretty(&json_schema()), "run `stack config --schema -o schemas/stack.schema.json`");
    }

    #[test]
    fn our_own_key_is_described() {
        let validator = validator();
        let file = |inner: &str| parsed(&format!("services: {{a: {{image: x, x-stack: {inner}}}}}")).unwrap();
        assert!(validator.is_valid(&file("{}")));
        assert!(validator.is_valid(&file("{ready: port}")));
        assert!(validator.is_valid(&file("{ready: {log: started}}")));
        assert!(!validator.is_valid(&file("{ready: {logs: started}}")));
        assert!(!validator.is_valid(&file("{ready: soon}")));
        assert!(!validator.is_valid(&file("{nonsense: 1}")));
        assert!(!validator.is_valid(&file("[]")));
    }

    #[test]
    fn what_editors_shall_mark_is_marked() {
        let validator = validator();
        for bad in [
            "services: {a: {imagee: x}}",
            "services: {a: {image: 5}}",
            "services: {a: {image: x, ports: 80}}",
            "services: {a: {image: x, depends_on: {b: {condition: never}}}}",
            "services: {a: {image: x, security_opt: [a, a]}}",
            "services: [a]",
            "foo: 1",
        ] {
            assert!(!validator.is_valid(&parsed(bad).unwrap()), "{bad}");
        }
    }

    /// Every valid stack file of the suite of facts is valid for editors, and what it prints is, too.
    #[test]
    fn valid_files_are_valid_for_editors() {
        let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/compose-facts/facts");
        let Ok(groups) = fs_err::read_dir(&facts) else {
            eprintln!("skipped: no suite of facts at {}", facts.display());
            return;
        };
        let validator = validator();
        let (mut seen, mut marked) = (0, Vec::new());
        for group in groups {
            let cases: Value = serde_json::from_slice(&fs_err::read(group.unwrap().path()).unwrap()).unwrap();
            // `up` refuses a network name with a space, which docker compose only finds out when it makes the network.
            // A tag that nobody knows is dropped.
            let excepted = ["bad-network-name", "unknown-tag"];
            let valid = |case: &&Value| case["ok"] == true && !excepted.iter().any(|id| case["id"] == *id);
            for case in cases.as_array().into_iter().flatten().filter(valid) {
                for (name, text) in case["inputs"].as_object().into_iter().flatten() {
                    let text = text.as_str().unwrap_or_default();
                    let stack = ["yml", "yaml"].iter().any(|end| name.ends_with(end));
                    // These tags and several documents are beyond a schema.
                    if !stack || ["!reset", "!override", "\n---"].iter().any(|beyond| text.contains(beyond)) {
                        continue;
                    }
                    let Some(file) = parsed(text).filter(Value::is_object) else { continue };
                    let errors: Vec<String> = validator.iter_errors(&file).map(|error| error.to_string()).collect();
                    if !errors.is_empty() {
                        marked.push(format!("{}: {errors:?}", case["id"]));
                    }
                    seen += 1;
                }
            }
        }
        assert!(marked.is_empty(), "{marked:#?}");
        assert!(seen > 250, "only {seen} files were looked at");
    }

    #[test]
    fn what_is_printed_is_valid_for_editors() {
        let text =
            "services: {a: {build: ., ports: ['80:80'], volumes: [v:/v], deploy: {replicas: 1}}}\nvolumes: {v: }\n";
        let loader = MapLoader::new([("/p/stack.yaml", text)]);
        let request =
            LoadRequest { files: vec!["/p/stack.yaml".into()], working_dir: "/p".into(), ..LoadRequest::default() };
        let printed = render::canonical(&load(&request, &loader).unwrap().project);
        let errors: Vec<String> = validator().iter_errors(&printed).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}
