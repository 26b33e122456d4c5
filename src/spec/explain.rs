//! Where a value comes from: `stack config --explain services.web.environment.LOG_LEVEL`.
//!
//! Needs a load with [`Options::explain`](super::Options): only that keeps what lies below the merged tree.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value as Json;

use super::diagnostic::{Diagnostic, Kind, Place};
use super::load::Loaded;
use super::node::{Node, Value};
use super::origin::Layer;
use super::render;
use super::source::Span;
use super::variables;
use super::words;

/// Longest chain of `extends` that is followed.
const CHAIN: usize = 20;

/// One value and all that went into it.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// `services.web.ports[0].target`.
    pub path: String,
    /// The value in the end.
    pub value: Json,
    /// What gives it.
    pub from: From,
    /// Where; none for a default.
    pub place: Option<Place>,
    /// What is written there, where variables make the value of it.
    pub written: Option<String>,
    /// The variables in it.
    pub variables: Vec<Used>,
    /// What else was said about it and lost, weakest first.
    pub overridden: Vec<Place>,
}

/// What gives a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// A stack file.
    File,
    /// An `env_file` or `label_file`.
    VariablesFile,
    /// Nobody said anything.
    Default,
}

/// A variable that a value is made of.
#[derive(Debug, Clone, Serialize)]
pub struct Used {
    /// Its name.
    pub name: String,
    /// Its value; none if it is not set.
    pub value: Option<String>,
    /// Who sets it.
    pub from: Setter,
    /// The file, if one sets it.
    pub file: Option<String>,
    /// The line of that file.
    pub line: Option<usize>,
}

/// Who sets a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setter {
    /// The caller's environment.
    Shell,
    /// `.env` or another file of variables.
    File,
    /// The project itself: `COMPOSE_PROJECT_NAME`.
    Project,
    /// Nobody.
    Unset,
}

/// Explains the value at `path`, or all values below it.
pub fn explain(loaded: &Loaded, path: &str) -> Result<Vec<Explanation>, Diagnostic> {
    let model = render::canonical(&loaded.project);
    let (keys, value) = resolve(&model, path)?;
    let mut all = Vec::new();
    leaves(loaded, keys, value, &mut all);
    Ok(all)
}

/// The keys of `path` and what stands there. Keys may hold dots themselves.
fn resolve<'m>(model: &'m Json, path: &str) -> Result<(Vec<String>, &'m Json), Diagnostic> {
    let (mut keys, mut here, mut rest) = (Vec::new(), model, path.trim_start_matches('.'));
    while !rest.is_empty() {
        let next = match here {
            Json::Object(map) => {
                let fits = |key: &&String| {
                    rest.strip_prefix(key.as_str()).is_some_and(|tail| tail.is_empty() || tail.starts_with(['.', '[']))
                };
                map.keys().filter(fits).max_by_key(|key| key.len()).map(|key| (key.clone(), &map[key], key.len()))
            }
            Json::Array(list) => {
                let digits = rest.trim_start_matches('[');
                let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                let index = digits[..end].parse::<usize>().ok();
                let length = rest.len() - digits.len() + end + usize::from(digits[end..].starts_with(']'));
                index.and_then(|index| Some((index.to_string(), list.get(index)?, length)))
            }
            _ => None,
        };
        let Some((key, value, length)) = next else { return Err(nothing_at(&keys, here, rest)) };
        keys.push(key);
        here = value;
        rest = rest[length..].trim_start_matches('.');
    }
    Ok((keys, here))
}

fn nothing_at(keys: &[String], here: &Json, rest: &str) -> Diagnostic {
    let above = if keys.is_empty() { "the stack".to_owned() } else { keys.join(".") };
    let wanted = rest.split(['.', '[']).next().unwrap_or_default();
    let diagnostic = Diagnostic::error(Kind::Reference, format!("there is no `{wanted}` in {above}"));
    let hint = match here {
        Json::Object(map) => words::suggest(wanted, map.keys().map(String::as_str)).or_else(|| {
            let known: Vec<&str> = map.keys().take(20).map(String::as_str).collect();
            Some(format!("there are: {}", known.join(", ")))
        }),
        Json::Array(list) => Some(format!("it has {} entries, counted from 0", list.len())),
        _ => Some("it is a single value".to_owned()),
    };
    diagnostic.maybe_hint(hint)
}

fn leaves(loaded: &Loaded, keys: Vec<String>, value: &Json, all: &mut Vec<Explanation>) {
    let below = |key: &str| keys.iter().cloned().chain([key.to_owned()]).collect();
    match value {
        Json::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, value)| leaves(loaded, below(key), value, all));
        }
        Json::Array(list) if list.iter().any(|item| item.is_object() || item.is_array()) => {
            list.iter().enumerate().for_each(|(index, value)| leaves(loaded, below(&index.to_string()), value, all));
        }
        _ => all.push(one(loaded, &keys, value)),
    }
}

fn one(loaded: &Loaded, keys: &[String], value: &Json) -> Explanation {
    let origin = &loaded.origin;
    let path: Vec<&str> = keys.iter().map(String::as_str).collect();
    let place = |span: Span| origin.sources.place(span, "");
    let mut explanation = Explanation {
        path: shown(keys),
        value: value.clone(),
        from: From::Default,
        place: None,
        written: None,
        variables: Vec::new(),
        overridden: Vec::new(),
    };
    let mut said = Vec::new();
    definitions(&origin.history.layers, &path, CHAIN, &mut said);
    if let Some(node) = find(&origin.tree, &path) {
        let span = if node.is_null() { origin.tree.locate(&path) } else { node.span };
        explanation.from = From::File;
        explanation.place = place(span);
        let raw = origin.history.layers.iter().find_map(|layer| written(&layer.raw, node.span));
        if let Some(raw) = raw {
            explanation.written = raw.as_str().filter(|text| text.contains('$')).map(str::to_owned);
            explanation.variables = used(loaded, raw, node.is_null().then(|| path.last().copied()).flatten());
        }
        said.retain(|other| *other != span && *other != node.span);
        explanation.overridden = said.into_iter().filter_map(place).collect();
    } else if let ["services", service, "environment" | "labels", name] = path.as_slice()
        && let Some(span) = origin.history.filled.get(&((*service).to_owned(), (*name).to_owned()))
    {
        explanation.from = From::VariablesFile;
        explanation.place = place(*span);
    }
    explanation
}

/// `services.web.ports[0]`.
fn shown(keys: &[String]) -> String {
    let mut text = String::new();
    for key in keys {
        match key.parse::<usize>() {
            Ok(_) if !text.is_empty() => text.extend(["[", key, "]"]),
            _ if text.is_empty() => text += key,
            _ => text.extend([".", key]),
        }
    }
    text
}

fn find<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    path.iter().try_fold(node, |node, part| match &node.value {
        Value::Map(map) => map.get(*part).map(|entry| &entry.node),
        Value::List(list) => list.get(part.parse::<usize>().ok()?),
        _ => None,
    })
}

/// Every place that says something about `path`, weakest first, the services that others extend included.
fn definitions(layers: &[Layer], path: &[&str], depth: usize, said: &mut Vec<Span>) {
    for layer in layers {
        if let ["services", service, rest @ ..] = path
            && let Some(extends) = find(&layer.tree, &["services", service, "extends"])
            && let Some(base) = extends.get_str("service").filter(|_| depth > 0)
        {
            let path: Vec<&str> = ["services", base].into_iter().chain(rest.iter().copied()).collect();
            definitions(layers, &path, depth - 1, said);
        }
        let Some(node) = find(&layer.tree, path) else { continue };
        let span = if node.is_null() { layer.tree.locate(path) } else { node.span };
        if !said.contains(&span) {
            said.push(span);
        }
    }
}

/// The scalar of a raw tree that stands at `span`.
fn written(node: &Node, span: Span) -> Option<&Node> {
    match &node.value {
        Value::List(list) => list.iter().find_map(|node| written(node, span)),
        Value::Map(map) => map.values().find_map(|entry| written(&entry.node, span)),
        _ => {
            let own = node.span;
            let covers = own.column <= span.column && span.column < own.column + own.width.max(1);
            (own.file == span.file && own.line == span.line && covers).then_some(node)
        }
    }
}

/// The variables of a raw scalar; `bare` is the name of an entry without a value, which is taken from outside.
fn used(loaded: &Loaded, raw: &Node, bare: Option<&str>) -> Vec<Used> {
    let mut names = BTreeMap::new();
    variables::collect(raw, &mut names);
    names.extend(bare.map(|name| (name.to_owned(), variables::Variable::default())));
    names.into_keys().map(|name| setter(loaded, name)).collect()
}

fn setter(loaded: &Loaded, name: String) -> Used {
    let value = loaded.environment.get(&name).cloned();
    let set = loaded.origin.history.set.get(&name);
    let (from, value) = match (value, set) {
        (Some(value), _) if name == "COMPOSE_PROJECT_NAME" => (Setter::Project, Some(value)),
        (value, Some(set)) => (Setter::File, value.or_else(|| Some(set.value.clone()))),
        (Some(value), None) => (Setter::Shell, Some(value)),
        (None, None) => (Setter::Unset, None),
    };
    let set = set.filter(|_| from == Setter::File);
    let file = set.map(|set| set.file.display().to_string());
    Used { name, value, from, file, line: set.map(|set| set.line) }
}

#[cfg(test)]
mod tests {
    use super::super::discover::{ProjectFlags, discover};
    use super::super::load::{Options, load};
    use super::super::loader::MapLoader;
    use super::*;

    fn explained(files: &[(&str, &str)], environment: &[(&str, &str)], path: &str) -> Vec<Explanation> {
        let loader = MapLoader::new(files.iter().copied());
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = Options { explain: true, ..Options::default() };
        let flags = ProjectFlags { cwd: "/p".into(), environment, options, ..ProjectFlags::default() };
        let loaded = load(&discover(&flags, &loader).unwrap(), &loader).unwrap();
        explain(&loaded, path).unwrap()
    }

    fn line(place: &Place) -> String {
        format!("{}:{}", place.file, place.line)
    }

    const BASE: &str = "services:\n  web:\n    image: x\n    environment:\n      LEVEL: warn\n      BARE:\n";
    const OVER: &str = "services:\n  web:\n    environment:\n      - LEVEL=${L:-info}\n    env_file: more.env\n";
    const FILES: [(&str, &str); 4] = [
        ("/p/compose.yaml", BASE),
        ("/p/compose.override.yaml", OVER),
        ("/p/.env", "# first\nL=debug\nexport BARE=b\n"),
        ("/p/more.env", "LEVEL=no\nMORE=1\n"),
    ];

    #[test]
    fn the_winner_its_variables_and_the_losers() {
        let all = explained(&FILES, &[], "services.web.environment.LEVEL");
        let [level] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((level.value.as_str(), level.from), (Some("debug"), From::File));
        assert_eq!(line(level.place.as_ref().unwrap()), "/p/compose.override.yaml:4");
        assert_eq!(level.written.as_deref(), Some("LEVEL=${L:-info}"));
        let variable = &level.variables[0];
        assert_eq!((variable.from, variable.file.as_deref(), variable.line), (Setter::File, Some("/p/.env"), Some(2)));
        assert_eq!(level.overridden.iter().map(line).collect::<Vec<_>>(), ["/p/compose.yaml:5"]);
    }

    #[test]
    fn the_shell_is_stronger_than_files() {
        let all = explained(&FILES, &[("L", "shell")], "services.web.environment.LEVEL");
        assert_eq!((all[0].value.as_str(), all[0].variables[0].from), (Some("shell"), Setter::Shell));
        let all = explained(&FILES, &[], "services.web.environment.BARE");
        assert_eq!((all[0].value.as_str(), all[0].variables[0].line), (Some("b"), Some(3)));
    }

    #[test]
    fn files_of_variables_and_defaults() {
        let all = explained(&FILES, &[], "services.web.environment.MORE");
        assert_eq!((all[0].from, line(all[0].place.as_ref().unwrap())), (From::VariablesFile, "/p/more.env:2".into()));
        let all = explained(&FILES, &[], "networks.default.name");
        assert_eq!((all[0].from, all[0].value.as_str()), (From::Default, Some("p_default")));
        assert!(explained(&FILES, &[], "services.web").len() > 4, "all values of a service");
    }

    #[test]
    fn extended_services_are_among_the_losers() {
        let text = "services:\n  a:\n    image: one\n  b:\n    extends: a\n    image: two\n";
        let all = explained(&[("/p/compose.yaml", text)], &[], "services.b.image");
        assert_eq!(line(all[0].place.as_ref().unwrap()), "/p/compose.yaml:6");
        assert_eq!(all[0].overridden.iter().map(line).collect::<Vec<_>>(), ["/p/compose.yaml:3"]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_corrected() {
        let model = serde_json::json!({"services": {"web": {"image": "x", "labels": {"a.b": "c"}, "ports": [1]}}});
        let hint = |path: &str| resolve(&model, path).unwrap_err().hint.unwrap();
        assert!(hint("services.wob.image").contains("`web`"));
        assert!(hint("services.web.ports[7]").contains("1 entries"));
        assert_eq!(resolve(&model, "services.web.labels.a.b").unwrap().1, "c");
        assert_eq!(resolve(&model, "services.web.ports[0]").unwrap().1, 1);
    }
}
