//! From a [`LoadRequest`] to a complete, validated [`Project`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use super::assemble::{Assembler, Environment, Parsed, Scope};
use super::diagnostic::{Diagnostic, Diagnostics, Kind};
use super::environment::{self, FilesOf};
use super::finish;
use super::interpolate;
use super::loader::Loader;
use super::merge;
use super::model::{Project, Service};
use super::name;
use super::node::{Map, Node};
use super::normalize;
use super::origin::{History, Origin, Set};
use super::profiles;
use super::session::Session;
use super::unsupported;
use super::validate;
use super::variables::{self, Variable};

/// What to load and how. `discover` fills it from flags and environment.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// Stack files, the first the base, the others merged over it; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Project directory (absolute): relative paths of all files resolve against it.
    pub working_dir: PathBuf,
    /// Name from `-p` or `COMPOSE_PROJECT_NAME`; otherwise the files' `name` or the directory decides.
    pub project_name: Option<String>,
    /// Active profiles; `*` means all.
    pub profiles: Vec<String>,
    /// Variables for interpolation: the caller's environment over the `.env` files.
    pub environment: BTreeMap<String, String>,
    /// The `.env` files behind `environment`, for messages and labels.
    pub env_files: Vec<PathBuf>,
    /// Where those files set the variables that nothing stronger sets.
    pub set: BTreeMap<String, Set>,
    /// Services named by arguments: they are enabled whatever their profiles, their dependencies too.
    pub services: Vec<String>,
    /// What to leave out.
    pub options: Options,
    /// Warnings of the search for files; [`load`] hands them on.
    pub warnings: Vec<Diagnostic>,
}

/// Switches of `stack config`; all off for everyone else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Leave `${…}` alone. Only [`Loaded::tree`] is meaningful then.
    pub no_interpolate: bool,
    /// Add no defaults (networks, names, implicit dependencies).
    pub no_normalize: bool,
    /// Leave relative paths alone.
    pub no_path_resolution: bool,
    /// Leave `env_file` and unset environment entries alone.
    pub no_env_resolution: bool,
    /// Skip the checks across services and resources.
    pub no_consistency: bool,
    /// Keep networks, volumes, configs and secrets that nothing uses.
    pub all_resources: bool,
    /// Keep what is needed to say where each value comes from.
    pub explain: bool,
}

/// A loaded stack.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// The canonical model, services of inactive profiles left out.
    pub project: Project,
    /// Services that inactive profiles leave out. Their `env_file` was not read.
    pub disabled: BTreeMap<String, Service>,
    /// Names of all services, disabled ones too.
    pub all_services: BTreeSet<String>,
    /// All profiles that some service names.
    pub all_profiles: BTreeSet<String>,
    /// The variables that the files given ask for.
    pub variables: BTreeMap<String, Variable>,
    /// With `no_interpolate`: the merged tree before normalisation.
    pub tree: Json,
    /// Warnings, in the order of their places.
    pub warnings: Vec<Diagnostic>,
    /// Errors that hold for starting the stack, not for printing it: attributes that are not honoured yet and whose
    /// absence would weaken isolation, limits or data, and values that no container can have.
    pub refusals: Vec<Diagnostic>,
    /// Where it came from.
    pub source: Source,
    /// Where its parts stand.
    pub origin: Origin,
    /// The variables used for interpolation, `COMPOSE_PROJECT_NAME` included: secrets and configs with an
    /// `environment:` source are taken from here.
    pub environment: BTreeMap<String, String>,
}

/// Where a stack came from: labels and messages name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Project directory.
    pub working_dir: PathBuf,
    /// The stack files given or found, absolute (`-` for standard input).
    pub files: Vec<PathBuf>,
    /// The `.env` files read.
    pub env_files: Vec<PathBuf>,
}

/// Loads, merges, interpolates, normalises and validates the stack of `request`.
///
/// All errors of all files are reported at once.
pub fn load(request: &LoadRequest, loader: &dyn Loader) -> Result<Loaded, Diagnostics> {
    let home = request.environment.get("HOME").filter(|home| home.starts_with('/')).map(PathBuf::from);
    let mut session = Session::new(loader, request.options, home);
    session.env_files.clone_from(&request.env_files);
    session.sudo = request.environment.contains_key("SUDO_UID");
    session.set.clone_from(&request.set);
    let loaded = run(request, &mut session);
    let history = History {
        layers: std::mem::take(&mut session.layers),
        set: std::mem::take(&mut session.set),
        filled: std::mem::take(&mut session.filled),
    };
    let refusals = std::mem::take(&mut session.refusals);
    let sources = std::mem::take(&mut session.sources);
    let warnings = session.finish()?;
    let mut loaded = loaded.unwrap_or_default();
    loaded.refusals = refusals;
    loaded.origin.sources = Arc::new(sources);
    loaded.origin.history = Arc::new(history);
    loaded.warnings = request.warnings.iter().cloned().chain(warnings).collect();
    Ok(loaded)
}

/// The stages; `None` where a stage's errors make the next one pointless.
fn run(request: &LoadRequest, session: &mut Session<'_>) -> Option<Loaded> {
    let mut files = Vec::with_capacity(request.files.len());
    let mut assembler = Assembler::new(session);
    for path in &request.files {
        files.extend(assembler.parse(path, None));
    }
    let mut variables = BTreeMap::new();
    files.iter().flat_map(|file| &file.documents).for_each(|document| variables::collect(document, &mut variables));
    let complete = files.len() == request.files.len();
    let (name, environment) = name_and_environment(request, &files, assembler.session)?;
    let environment = Rc::new(environment);
    let scope = Scope { base: request.working_dir.clone(), environment: environment.clone(), chain: Vec::new() };
    let mut tree = assembler.model(files, &scope);
    merge::settle(&mut tree);
    if !complete || session.has_errors() {
        return None;
    }
    finish::finish(session, &mut tree);
    if session.has_errors() {
        return None;
    }
    unsupported::check(session, &tree);
    let source = Source {
        working_dir: request.working_dir.clone(),
        files: request.files.clone(),
        env_files: request.env_files.clone(),
    };
    let mut loaded = Loaded { source, variables, environment: (*environment).clone(), ..Loaded::default() };
    if request.options.no_interpolate {
        let services = tree.get("services").and_then(Node::as_map);
        let known = |name: &String| services.is_some_and(|services| services.contains_key(name));
        for name in request.services.iter().filter(|name| !known(name)) {
            session.report(profiles::unknown(services.into_iter().flat_map(Map::keys), name));
        }
        loaded.tree = named(tree.to_json(), &name);
        return Some(loaded);
    }
    let (project, files) = typed(session, &tree, &name)?;
    loaded.project = project;
    complete_project(request, session, &tree, &files, &mut loaded);
    loaded.origin.tree = Arc::new(tree);
    Some(loaded)
}

/// Everything that needs the typed model.
fn complete_project(
    request: &LoadRequest,
    session: &mut Session<'_>,
    tree: &Node,
    files: &BTreeMap<String, FilesOf>,
    loaded: &mut Loaded,
) {
    let project = &mut loaded.project;
    loaded.all_services = project.services.keys().cloned().collect();
    loaded.all_profiles = project.services.values().flat_map(|service| service.profiles.iter().cloned()).collect();
    if !request.options.no_normalize {
        normalize::normalize(project, &loaded.environment);
    }
    match profiles::disable(project, &request.profiles, &request.services) {
        Ok(disabled) => loaded.disabled = disabled,
        Err(unknown) => session.report(*unknown),
    }
    if !request.options.no_consistency {
        validate::validate(session, tree, project, &loaded.disabled);
    }
    if !request.options.no_env_resolution {
        environment::resolve(session, tree, project, files, &loaded.environment);
    }
    if !request.options.all_resources {
        normalize::drop_unused(project);
    }
}

/// The project's name and the variables that include it.
fn name_and_environment(
    request: &LoadRequest,
    files: &[Parsed],
    session: &mut Session<'_>,
) -> Option<(String, Environment)> {
    let mut environment = request.environment.clone();
    let name = if let Some(name) = &request.project_name {
        if let Err(diagnostic) = name::check(name, "given with -p or COMPOSE_PROJECT_NAME") {
            session.report(diagnostic);
            return None;
        }
        name.clone()
    } else {
        let directory = request.working_dir.file_name().map(|name| name.to_string_lossy().into_owned());
        own_name(request, files, session)?.unwrap_or_else(|| name::normalize(&directory.unwrap_or_default()))
    };
    if name.is_empty() {
        let message = format!("project name cannot be taken from directory {}", request.working_dir.display());
        session.report(Diagnostic::error(Kind::Value, message).hint("give one with -p or the top-level `name`"));
        return None;
    }
    environment.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
    Some((name, environment))
}

/// The last `name` that the files give, if one does; `None` alone after a complaint about it.
#[allow(clippy::option_option, reason = "no name and a bad name are different outcomes")]
fn own_name(request: &LoadRequest, files: &[Parsed], session: &mut Session<'_>) -> Option<Option<String>> {
    let documents = files.iter().flat_map(|file| &file.documents);
    let named = |node: &&Node| node.as_str().is_some_and(|name| !name.is_empty());
    let Some(node) = documents.filter_map(|document| document.get("name")).rfind(named) else {
        return Some(None);
    };
    let raw = node.as_str().unwrap_or_default();
    let lookup = |name: &str| request.environment.get(name).cloned();
    let Ok(text) = interpolate::substitute(raw, &lookup, &mut BTreeSet::new()) else { return Some(None) };
    let name = name::normalize(&text);
    if name.is_empty() || text.len() > 128 {
        let message = format!("`{text}` cannot be a project name");
        session.error_hint(Kind::Value, node.span, message, "use lower-case letters, digits, `-` and `_`");
        return None;
    }
    Some(Some(name))
}

/// The typed project, and apart from it the files that services name. Service by service, so that the untyped form of all
/// of them is never held.
fn typed(session: &mut Session<'_>, tree: &Node, name: &str) -> Option<(Project, BTreeMap<String, FilesOf>)> {
    let mut files = BTreeMap::new();
    let mut services = BTreeMap::new();
    let sections = tree.as_map()?.iter().filter(|(section, _)| *section != "services");
    let rest = Json::Object(sections.map(|(section, entry)| (section.clone(), entry.node.to_json())).collect());
    let outcome = serde_json::from_value::<Project>(named(rest, name)).and_then(|project| {
        for (name, entry) in tree.get("services").and_then(Node::as_map).into_iter().flatten() {
            let mut service = entry.node.to_json();
            let mut take = |key: &str| {
                let given = service.as_object_mut().and_then(|service| service.shift_remove(key));
                given.unwrap_or(Json::Array(Vec::new()))
            };
            let (env, label) = (take("env_file"), take("label_file"));
            let files_of = FilesOf { env: serde_json::from_value(env)?, label: serde_json::from_value(label)? };
            files.insert(name.clone(), files_of);
            services.insert(name.clone(), serde_json::from_value(service)?);
        }
        Ok(Project { services, ..project })
    });
    match outcome {
        Ok(project) => Some((project, files)),
        Err(error) => {
            session.report(Diagnostic::error(Kind::Shape, format!("the stack does not fit the model: {error}")));
            None
        }
    }
}

fn named(mut json: Json, name: &str) -> Json {
    if let Some(map) = json.as_object_mut() {
        map.shift_remove("name");
        map.shift_insert(0, "name".into(), name.into());
    }
    json
}
