//! The canonical form as text: what `stack config` prints.

use serde_json::Value;

use super::model::Project;

/// The project as JSON value with the fields that docker compose always prints (`command: null`, `ipam: {}`) and
/// `$` doubled, so that it loads again to the same project.
pub fn canonical(project: &Project) -> Value {
    serde_json::to_value(project).unwrap_or_default()
}

/// `config --format json`: indented, with a newline at the end.
pub fn json(project: &Project) -> String {
    let mut text = serde_json::to_string_pretty(&canonical(project)).unwrap_or_default();
    text.push('\n');
    text
}

/// `config`: block style YAML.
pub fn yaml(project: &Project) -> String {
    serde_yaml::to_string(&canonical(project)).unwrap_or_default()
}
