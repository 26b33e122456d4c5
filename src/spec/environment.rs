//! What services read from files and from outside: `env_file`, `label_file`, and entries without a value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::assemble::Environment;
use super::diagnostic::Kind;
use super::dotenv::{self, Variables};
use super::limits;
use super::model::{Project, Service};
use super::node::Node;
use super::session::Session;
use super::source::Span;

/// Files that one service names.
#[derive(Debug, Default)]
pub(crate) struct FilesOf {
    pub(crate) env: Vec<EnvFile>,
    pub(crate) label: Vec<String>,
}

/// One `env_file`.
#[derive(Debug, Deserialize)]
pub(crate) struct EnvFile {
    path: String,
    #[serde(default = "yes")]
    required: bool,
    #[serde(default)]
    format: String,
}

fn yes() -> bool {
    true
}

/// Reads the files of all services into `environment` and `labels`, and fills entries without a value.
pub(crate) fn resolve(
    session: &mut Session<'_>,
    tree: &Node,
    project: &mut Project,
    files: &BTreeMap<String, FilesOf>,
    environment: &Environment,
) {
    for (name, service) in &mut project.services {
        for (key, value) in &mut service.environment {
            if value.is_none() {
                *value = environment.get(key).cloned();
            }
        }
        let Some(files) = files.get(name) else { continue };
        env_files(session, tree, name, service, &files.env, environment);
        label_files(session, tree, name, service, &files.label);
    }
}

fn env_files(
    session: &mut Session<'_>,
    tree: &Node,
    name: &str,
    service: &mut Service,
    files: &[EnvFile],
    environment: &Environment,
) {
    let mut known = Variables::new();
    for (index, file) in files.iter().enumerate() {
        let place = tree.locate(&["services", name, "env_file", &index.to_string(), "path"]);
        let path = Path::new(&file.path);
        if !file.required && !session.loader.is_file(path) {
            continue;
        }
        if file.path.is_empty() {
            session.error(Kind::Value, place, format!("env_file of service {name}: the path is empty"));
            continue;
        }
        let why = format!("env_file of service {name}");
        let Some((number, text)) = session.read(path, limits::ENV_FILE_BYTES, &why, Some(place)) else { continue };
        let own = service.environment.clone();
        let lookup = |name: &str| environment.get(name).cloned().or_else(|| own.get(name).cloned().flatten());
        let mut unset = BTreeSet::new();
        let outcome = match file.format.as_str() {
            "" => dotenv::parse(&text, &lookup, &mut known, &mut unset),
            "raw" => dotenv::parse_raw(&text, &lookup, &mut known),
            other => {
                let at = tree.locate(&["services", name, "env_file", &index.to_string(), "format"]);
                session.error_hint(
                    Kind::Value,
                    at,
                    format!("unknown env_file format `{other}`"),
                    "the only one is `raw`",
                );
                continue;
            }
        };
        report(session, number, outcome, &unset);
        remember(session, name, number, &text, |key| own.contains_key(key));
    }
    for (key, value) in known {
        service.environment.entry(key).or_insert(Some(value));
    }
}

fn label_files(session: &mut Session<'_>, tree: &Node, name: &str, service: &mut Service, files: &[String]) {
    let mut known = Variables::new();
    for (index, path) in files.iter().enumerate() {
        let place: Span = tree.locate(&["services", name, "label_file", &index.to_string()]);
        let why = format!("label_file of service {name}");
        let Some((number, text)) = session.read(Path::new(path), limits::ENV_FILE_BYTES, &why, Some(place)) else {
            continue;
        };
        let mut unset = BTreeSet::new();
        let outcome = dotenv::parse(&text, &|_| None, &mut known, &mut unset);
        report(session, number, outcome, &unset);
        remember(session, name, number, &text, |key| service.labels.contains_key(key));
    }
    for (key, value) in known {
        service.labels.entry(key).or_insert(value);
    }
}

/// Notes which line of a file gives an entry that the service itself does not.
fn remember(session: &mut Session<'_>, service: &str, file: u32, text: &str, own: impl Fn(&str) -> bool) {
    if !session.options.explain {
        return;
    }
    for (name, line) in dotenv::lines(text).filter(|(name, _)| !own(name)) {
        let span = session.sources.whole_line(file, line);
        session.filled.insert((service.to_owned(), name.to_owned()), span);
    }
}

/// Reports what came of reading a file of variables.
pub(crate) fn report(
    session: &mut Session<'_>,
    file: u32,
    outcome: Result<(), dotenv::DotenvError>,
    unset: &BTreeSet<String>,
) {
    if let Err(error) = outcome {
        let place = session.sources.whole_line(file, error.line);
        session.error(Kind::Syntax, place, error.to_string());
    }
    for name in unset.iter().take(limits::WARNINGS) {
        let place = session.sources.variable(file, name);
        let message = format!("the variable {name} is not set; a blank string is used");
        let hint = session.unset_hint(name);
        let warning = session.warning_at(Kind::Interpolation, place, message).hint(hint);
        session.report(warning);
    }
}
