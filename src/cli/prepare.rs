//! What must be there before a supervisor can bring a project up: images, and secrets out of the caller's environment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fs_err as fs;

use super::builder::{self, Flags};
use super::error::Error;
use super::invoker::Invoker;
use super::policy::{self, Policy, Wants};
use super::project::Context;
use super::registry;
use crate::engine::{control, modes};
use crate::images::Store;
use crate::planner::image_name;
use crate::spec::model::{FileObject, MountKind, Service};
use crate::spec::{Diagnostic, Diagnostics, Kind, Loaded, select};

/// Flags of `up`, `create` and `run` about images.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ImageFlags {
    /// Build images first
    #[arg(long)]
    pub(crate) build: bool,
    /// Don't build images, even if they are missing
    #[arg(long, conflicts_with = "build")]
    pub(crate) no_build: bool,
    /// When to pull images: always, missing, never or build
    #[arg(long, value_enum, value_name = "WHEN", hide_possible_values = true)]
    pub(crate) pull: Option<Pull>,
    /// Don't show what builds print
    #[arg(long)]
    pub(crate) quiet_build: bool,
    /// Don't show the progress of pulls
    #[arg(long)]
    pub(crate) quiet_pull: bool,
    /// Use exactly the images that `stack.lock` names (in CI: by itself, where the file is there)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) locked: Option<bool>,
}

/// When to pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Pull {
    /// Always
    Always,
    /// If the store lacks it
    Missing,
    /// Never
    Never,
    /// Build instead
    Build,
    /// As each service says
    Policy,
}

/// The services that a command is about.
pub(crate) fn selected(loaded: &Loaded, services: &[String], no_deps: bool) -> Result<BTreeSet<String>, Error> {
    Ok(select::select(&loaded.project, services, !no_deps)?)
}

/// Makes sure that the images of `services` are in the store: pulls what is to be pulled, builds what is to be built.
/// With `--dry-run` the plan says what is missing.
pub(crate) async fn images(
    context: &Context,
    loaded: &Loaded,
    services: &BTreeSet<String>,
    flags: &ImageFlags,
) -> Result<(), Error> {
    if context.global.dry_run {
        return Ok(());
    }
    bind_sources(loaded, services)?;
    let store = Store::open(&context.paths.lib)?;
    let project = &loaded.project;
    let mut to_build = BTreeSet::new();
    let mut to_pull = Wants::new();
    for (name, service) in project.services.iter().filter(|(name, _)| services.contains(*name)) {
        let image = image_name(project, name, service);
        let policy = flags.policy(service)?;
        let buildable = service.build.is_some() && !flags.no_build;
        if buildable && (flags.build || policy == Policy::Build) {
            to_build.insert(name.clone());
        } else if service.image.is_some()
            && image != "stack/host"
            && !(buildable && policy == Policy::Default)
            && policy.pulls(&store, &image)?
        {
            to_pull.entry((image, service.platform.clone())).or_default().push((name, service));
        } else if store.find(&image)?.is_none() {
            if !buildable {
                return Err(missing(loaded, name, &image, policy, flags));
            }
            to_build.insert(name.clone());
        }
    }
    of_hooks(loaded, services, flags, &store, &mut to_pull)?;
    to_build.extend(pull(context, &store, &to_pull, flags).await?);
    if to_build.is_empty() {
        return Ok(());
    }
    let build_flags = Flags { quiet: flags.quiet_build, ..Flags::default() };
    builder::build(context, loaded, &to_build, &build_flags, &store).await
}

/// Adds the images of init containers that are neither the service's own nor built by another service.
fn of_hooks<'l>(
    loaded: &'l Loaded,
    services: &BTreeSet<String>,
    flags: &ImageFlags,
    store: &Store,
    to_pull: &mut Wants<'l>,
) -> Result<(), Error> {
    let project = &loaded.project;
    let built = project.services.iter().filter(|(_, service)| service.build.is_some());
    let built: BTreeSet<String> = built.map(|(name, service)| image_name(project, name, service)).collect();
    for (name, service) in project.services.iter().filter(|(name, _)| services.contains(*name)) {
        let policy = flags.policy(service)?;
        for image in service.pre_start.iter().filter_map(|hook| hook.image.as_ref()) {
            if image == "stack/host" || service.image.as_ref() == Some(image) || built.contains(image) {
                continue;
            }
            if policy.pulls(store, image)? {
                to_pull.entry((image.clone(), None)).or_default().push((name, service));
            } else if store.find(image)?.is_none() {
                return Err(missing(loaded, name, image, policy, flags));
            }
        }
    }
    Ok(())
}

/// Pulls images; the services to be built since theirs could not be pulled.
async fn pull(context: &Context, store: &Store, wanted: &Wants<'_>, flags: &ImageFlags) -> Result<Vec<String>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let images = wanted.keys().map(|(image, platform)| policy::wanted(image, platform.as_deref()));
    let images = images.collect::<Result<_, _>>()?;
    let pulled = registry::pull(context.ui, flags.quiet_pull, store, images).await?;
    let (mut to_build, mut failed) = (Vec::new(), Vec::new());
    for (((image, _), services), result) in wanted.iter().zip(pulled) {
        let Err(error) = result else { continue };
        if services.iter().all(|(_, service)| service.build.is_some()) && !flags.no_build {
            to_build.extend(services.iter().map(|(name, _)| (*name).to_owned()));
        } else {
            failed.push(Error::from(error).context(format!("cannot pull `{image}` for {}", policy::list(services))));
        }
    }
    let Some(last) = failed.pop() else { return Ok(to_build) };
    for error in failed {
        error.report(context.ui);
    }
    Err(last)
}

/// The error for an image that is not there and may not be brought.
fn missing(loaded: &Loaded, name: &str, image: &str, policy: Policy, flags: &ImageFlags) -> Error {
    let message = format!("no image `{image}` in the store, which service `{name}` needs");
    let hint = if flags.no_build && loaded.project.services[name].build.is_some() {
        "leave out `--no-build`, or run `stack build` before".to_owned()
    } else if policy == Policy::Never {
        format!(
            "it may not be pulled (`pull_policy: never` or `--pull never`): bring it with `stack image pull {image}`"
        )
    } else {
        "bring it with `docker save IMAGE | stack image load`, `stack image import` or `stack build`".to_owned()
    };
    let place = loaded.origin.place(&["services", name, "image"]);
    Diagnostic::error(Kind::Reference, message).at(place).hint(hint).into()
}

impl ImageFlags {
    /// When the image of a service is pulled: the flag, else as the file says.
    fn policy(&self, service: &Service) -> Result<Policy, Error> {
        Ok(match self.pull {
            Some(Pull::Always) => Policy::Always,
            Some(Pull::Missing) => Policy::Missing,
            Some(Pull::Never) => Policy::Never,
            Some(Pull::Build) => Policy::Build,
            Some(Pull::Policy) | None => Policy::of(service.pull_policy.as_deref())?,
        })
    }
}

/// Contents of the secrets and configs that `services` use, by `secret:<key>` or `config:<key>`.
fn objects(loaded: &Loaded, services: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let mut objects = BTreeMap::new();
    let project = &loaded.project;
    for service in project.services.iter().filter(|(name, _)| services.contains(*name)).map(|(_, service)| service) {
        let secrets = service.secrets.iter().map(|mount| ("secret", &mount.source, project.secrets.get(&mount.source)));
        let configs = service.configs.iter().map(|mount| ("config", &mount.source, project.configs.get(&mount.source)));
        for (kind, key, object) in secrets.chain(configs) {
            if let Some(object) = object {
                objects.insert(format!("{kind}:{key}"), file_object(loaded, kind, key, object)?);
            }
        }
    }
    Ok(objects)
}

/// The content of a secret or config.
pub(crate) fn file_object(loaded: &Loaded, kind: &str, key: &str, object: &FileObject) -> Result<Vec<u8>, Error> {
    if let Some(name) = &object.environment {
        return loaded.environment.get(name).map(|value| value.clone().into_bytes()).ok_or_else(|| {
            Error::new(format!("{kind} `{key}` is taken from the variable {name}, which is not set"))
                .hint(format!("set it in the environment or in .env: {name}=…"))
        });
    }
    if let Some(content) = &object.content {
        return Ok(content.clone().into_bytes());
    }
    match &object.file {
        Some(path) => fs::read(path).map_err(|e| Error::from(e).context(format!("cannot read {kind} `{key}`"))),
        None => Err(Error::new(format!("{kind} `{key}` has no content: it names no file, content or environment"))),
    }
}

/// The request that brings `services` of a loaded project up, with no option of the command line yet.
pub(crate) fn up(loaded: &Loaded, services: &[String], no_deps: bool) -> Result<control::Up, Error> {
    if !loaded.refusals.is_empty() {
        return Err(Diagnostics(loaded.refusals.clone()).into());
    }
    let chosen = selected(loaded, services, no_deps)?;
    let source = &loaded.source;
    let mut project = loaded.project.clone();
    modes::settle(&mut project);
    if choice("STACK_PUBLISH", "where to publish ports", ["all", "loopback"])? == Some("loopback") {
        modes::publish_on_loopback(&mut project);
    }
    if let Some(mode) = choice("STACK_USERNS", "user namespaces", ["private", "host"])? {
        modes::user_namespaces(&mut project, mode);
    }
    Ok(control::Up {
        project,
        source: control::Source {
            working_dir: source.working_dir.clone(),
            files: source.files.clone(),
            env_files: source.env_files.clone(),
        },
        objects: objects(loaded, &chosen)?,
        disabled: loaded.disabled.keys().cloned().collect(),
        ignore_orphans: super::flag_from_env("COMPOSE_IGNORE_ORPHANS"),
        services: services.to_vec(),
        no_deps,
        ..control::Up::default()
    })
}

/// What a variable of the environment chooses for this machine; none if it is not set.
fn choice(name: &str, about: &str, known: [&'static str; 2]) -> Result<Option<&'static str>, Error> {
    let chosen = std::env::var(name).unwrap_or_default();
    match known.into_iter().find(|word| *word == chosen) {
        None if chosen.is_empty() => Ok(None),
        None => {
            let error = Error::new(format!("{name} is `{chosen}`, which says nothing about {about}"));
            Err(error.hint(format!("set it to `{}` or `{}`", known[0], known[1])))
        }
        found => Ok(found),
    }
}

/// Under sudo, makes the missing sources of bind mounts as the caller's own; else the engine makes them.
fn bind_sources(loaded: &Loaded, services: &BTreeSet<String>) -> Result<(), Error> {
    let invoker = Invoker::new();
    if !invoker.sudo {
        return Ok(());
    }
    let chosen = loaded.project.services.iter().filter(|(name, _)| services.contains(*name));
    for mount in chosen.flat_map(|(_, service)| &service.volumes).filter(|mount| mount.kind == MountKind::Bind) {
        let refused = mount.bind.as_ref().is_some_and(|bind| bind.create_host_path == Some(false));
        if let Some(source) = mount.source.as_deref().map(Path::new).filter(|source| !refused && !source.exists()) {
            invoker
                .create_folders(source)
                .map_err(|e| Error::from(e).context(format!("cannot make the bind source `{}`", source.display())))?;
        }
    }
    Ok(())
}

/// Reads `SERVICE=N` pairs; each service must be in the file and may have that many containers.
pub(crate) fn scale(loaded: &Loaded, pairs: &[String]) -> Result<BTreeMap<String, u32>, Error> {
    let mut scale = BTreeMap::new();
    for pair in pairs {
        let bad = || Error::new(format!("invalid scale `{pair}`")).hint("write SERVICE=NUMBER, such as web=3");
        let (name, number) = pair.split_once('=').ok_or_else(bad)?;
        let number = number.parse().map_err(|_| bad())?;
        let service = loaded.project.services.get(name).ok_or_else(|| {
            let known: Vec<&str> = loaded.project.services.keys().map(String::as_str).collect();
            Error::new(format!("no such service: {name}")).hint(format!("the services are {}", known.join(", ")))
        })?;
        if number > 1 && service.container_name.is_some() {
            return Err(Error::new(format!(
                "service `{name}` has a container_name, so it cannot have {number} containers"
            ))
            .hint("remove `container_name` from the file to scale it"));
        }
        scale.insert(name.to_owned(), number);
    }
    Ok(scale)
}
