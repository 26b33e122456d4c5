//! From a service's `build:` to a request for the builder, its events shown as progress.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fs_err as fs;

use super::agents::Agents;
use super::error::Error;
use super::prepare::file_object;
use super::progress::{Progress, Stage};
use super::project::Context;
use super::registry;
use super::session::frame;
use super::ui::{ProgressMode, Ui};
use crate::build::{self, BuildEvent, BuildRequest, ContextSource, Network, Pull, Secret};
use crate::engine::rlimits;
use crate::images::{Platform, Store};
use crate::planner::image_name;
use crate::spec::Loaded;
use crate::spec::model::{Build, Service};

/// Where distributions keep the certificate authorities that they trust.
const HOST_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What flags add to every build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// `K=V`, or `K` for the value in the environment.
    pub(crate) args: Vec<String>,
    /// Take no earlier results.
    pub(crate) no_cache: bool,
    /// Fetch base images although the store has them.
    pub(crate) pull: bool,
    /// Show nothing.
    pub(crate) quiet: bool,
    /// Agents for RUN steps: `ID` or `ID=PATH[,PATH]`.
    pub(crate) ssh: Vec<String>,
    /// Bytes of memory that a RUN step may have.
    pub(crate) memory: Option<u64>,
}

/// What the builder's events change.
struct View {
    progress: Progress,
    warnings: Vec<String>,
    /// The image under way.
    id: String,
}

/// Builds the images of `services`, those first that others take as a context.
pub(crate) async fn build(
    context: &Context,
    loaded: &Loaded,
    services: &BTreeSet<String>,
    flags: &Flags,
    store: &Store,
) -> Result<(), Error> {
    let mode = if flags.quiet { ProgressMode::Quiet } else { context.ui.progress };
    let progress = Progress::new(Ui { progress: mode, ..context.ui }, "build");
    let view = RefCell::new(View { progress, warnings: Vec::new(), id: String::new() });
    let mut result = Ok(());
    for name in in_order(loaded, services)? {
        result = build_one(context, loaded, &name, flags, store, &view).await;
        if result.is_err() {
            break;
        }
    }
    let mut view = view.into_inner();
    view.progress.finish()?;
    view.warnings.iter().try_for_each(|warning| context.ui.warn(warning))?;
    result
}

async fn build_one(
    context: &Context,
    loaded: &Loaded,
    name: &str,
    flags: &Flags,
    store: &Store,
    view: &RefCell<View>,
) -> Result<(), Error> {
    let Some((service, build)) = service_build(loaded, name) else { return Ok(()) };
    let image = image_name(&loaded.project, name, service);
    let mut request = request(context, loaded, name, &image, build, flags)?;
    let agents = Agents::new(build.ssh.iter().chain(&flags.ssh), &context.paths.run)?;
    request.agents = agents.sockets().clone();
    let step = |stage, text: &str| {
        let View { progress, id, .. } = &mut *view.borrow_mut();
        progress.step(id, stage, text)
    };
    view.borrow_mut().id = format!("Image {image}");
    step(Stage::Working, "Building")?;
    let show = |event| view.borrow_mut().show(event);
    let running = build::build(&request, store, &show);
    tokio::pin!(running);
    let built = loop {
        let live = view.borrow().progress.is_live();
        tokio::select! {
            built = &mut running => break built,
            () = frame(live) => view.borrow_mut().progress.tick()?,
        }
    };
    match built {
        Ok(_) => Ok(step(Stage::Done, "Built")?),
        Err(error) => {
            step(Stage::Failed, "Failed")?;
            Err(Error::from(error).context(format!("cannot build service `{name}`")))
        }
    }
}

/// Looks over the build of a service and builds nothing: what works but should be changed.
pub(crate) fn check(context: &Context, loaded: &Loaded, name: &str, flags: &Flags) -> Result<Vec<String>, Error> {
    let Some((service, build)) = service_build(loaded, name) else { return Ok(Vec::new()) };
    let image = image_name(&loaded.project, name, service);
    let request = request(context, loaded, name, &image, build, flags)?;
    build::check(&request).map_err(|error| Error::from(error).context(format!("the build of service `{name}`")))
}

impl View {
    /// Shows one event. A standard error that is closed takes nothing away from the build.
    fn show(&mut self, event: BuildEvent) {
        let _ = match event {
            BuildEvent::Warning { message } => {
                self.warnings.push(message);
                Ok(())
            }
            BuildEvent::Started { step, total, stage, text } => {
                let text = format!("[{stage} {step}/{total}] {text}");
                self.progress.step(&self.id, Stage::Working, &text)
            }
            BuildEvent::Output { step, line, .. } => self.progress.detail(&self.id, &format!("#{step} {line}")),
            BuildEvent::Finished { step, cached: true, .. } => {
                self.progress.detail(&self.id, &format!("#{step} CACHED"))
            }
            BuildEvent::Finished { step, elapsed, .. } => {
                self.progress.detail(&self.id, &format!("#{step} DONE {:.1}s", elapsed.as_secs_f64()))
            }
            BuildEvent::Exported { .. } => Ok(()),
        };
    }
}

/// The service of that name, enabled or not, if it is built.
pub(super) fn service_build<'a>(loaded: &'a Loaded, name: &str) -> Option<(&'a Service, &'a Build)> {
    let service = loaded.project.services.get(name).or_else(|| loaded.disabled.get(name))?;
    service.build.as_ref().map(|build| (service, build))
}

/// `services` and those whose images they take as contexts, the latter first.
fn in_order(loaded: &Loaded, services: &BTreeSet<String>) -> Result<Vec<String>, Error> {
    fn visit(loaded: &Loaded, name: &str, path: &mut Vec<String>, order: &mut Vec<String>) -> Result<(), Error> {
        if order.iter().any(|done| done == name) {
            return Ok(());
        }
        if path.iter().any(|above| above == name) {
            return Err(Error::new(format!(
                "the build of service `{name}` needs itself: {} → {name}",
                path.join(" → ")
            )));
        }
        let Some((_, build)) = service_build(loaded, name) else { return Ok(()) };
        path.push(name.to_owned());
        for other in build.additional_contexts.values().filter_map(|source| source.strip_prefix("service:")) {
            visit(loaded, other, path, order)?;
        }
        path.pop();
        order.push(name.to_owned());
        Ok(())
    }
    let mut order = Vec::new();
    for name in services {
        visit(loaded, name, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

fn request(
    context: &Context,
    loaded: &Loaded,
    name: &str,
    image: &str,
    build: &Build,
    flags: &Flags,
) -> Result<BuildRequest, Error> {
    let directory = Path::new(&build.context);
    if !directory.is_absolute() {
        return Err(Error::new(format!("service `{name}`: build context `{}` is not a folder", build.context))
            .hint("clone or unpack it first, and give the folder"));
    }
    if !directory.is_dir() {
        return Err(Error::new(format!("service `{name}`: build context {} is not a folder", directory.display())));
    }
    let (dockerfile_name, dockerfile) = dockerfile(directory, build).map_err(|error| {
        error
            .context(format!("cannot read the Dockerfile of service `{name}`"))
            .hint("`build.dockerfile` names it, relative to the build context")
    })?;
    platforms(name, build, loaded)?;
    let labels = [("project", loaded.project.name.as_str()), ("service", name)];
    let labels = labels.map(|(key, value)| (format!("com.docker.compose.{key}"), value.to_owned()));
    Ok(BuildRequest {
        context: Some(directory.to_owned()),
        dockerfile_name,
        dockerfile,
        args: arguments(loaded, build, flags),
        target: build.target.clone(),
        labels: labels.into_iter().chain(build.labels.clone()).collect(),
        tags: std::iter::once(image.to_owned()).chain(build.tags.iter().cloned()).collect(),
        no_cache: build.no_cache || flags.no_cache,
        no_cache_filter: build.no_cache_filter.clone(),
        pull: if build.pull || flags.pull { Pull::Always } else { Pull::Missing },
        registries: Some(Rc::new(registry::registries()?)),
        additional_contexts: contexts(loaded, name, build)?,
        network: network(name, build.network.as_deref())?,
        host_network: entitled_to_host_network(name, build)?,
        secrets: secrets(loaded, build)?,
        agents: BTreeMap::new(),
        memory: flags.memory,
        extra_hosts: build.extra_hosts.iter().map(|line| host(name, line)).collect::<Result<_, _>>()?,
        shm_size: build.shm_size.and_then(|size| u64::try_from(size.0).ok()),
        rlimits: rlimits(&build.ulimits),
        certificates: certificates()?,
        lib: context.paths.lib.clone(),
        run: context.paths.run.clone(),
    })
}

/// What `STACK_BUILD_CA` offers to RUN steps: the machine's certificate authorities (`host`), or those of a file.
fn certificates() -> Result<Option<Vec<u8>>, Error> {
    let Some(wanted) = std::env::var_os("STACK_BUILD_CA").filter(|wanted| !wanted.is_empty()) else { return Ok(None) };
    let path = if wanted == "host" { HOST_BUNDLES.iter().map(Path::new).find(|path| path.exists()) } else { None };
    let path = path.unwrap_or(Path::new(&wanted));
    let read = fs::read(path).map_err(|e| {
        Error::from(e)
            .context("cannot read the certificates of STACK_BUILD_CA")
            .hint("set it to `host` or to a PEM file")
    })?;
    if !read.windows(PEM.len()).any(|part| part == PEM) {
        return Err(Error::new(format!("STACK_BUILD_CA: {} holds no certificate in PEM form", path.display())));
    }
    Ok(Some(read))
}

fn dockerfile(directory: &Path, build: &Build) -> Result<(PathBuf, String), Error> {
    if let Some(text) = build.dockerfile_inline.as_ref().filter(|text| !text.is_empty()) {
        return Ok((directory.join("Dockerfile"), text.clone()));
    }
    let path = directory.join(build.dockerfile.as_deref().filter(|path| !path.is_empty()).unwrap_or("Dockerfile"));
    let text = fs::read_to_string(&path)?;
    Ok((path, text))
}

/// The file's arguments, then the flags'; one without a value takes the environment's, or is left out.
pub(super) fn arguments(loaded: &Loaded, build: &Build, flags: &Flags) -> BTreeMap<String, String> {
    let flags = flags.args.iter().map(|arg| match arg.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (arg.clone(), None),
    });
    build
        .args
        .clone()
        .into_iter()
        .chain(flags)
        .filter_map(|(name, value)| value.or_else(|| loaded.environment.get(&name).cloned()).map(|value| (name, value)))
        .collect()
}

fn contexts(loaded: &Loaded, name: &str, build: &Build) -> Result<BTreeMap<String, ContextSource>, Error> {
    let source = |text: &String| {
        if let Some(other) = text.strip_prefix("service:") {
            let (service, _) = service_build(loaded, other).ok_or_else(|| {
                Error::new(format!("service `{name}`: additional context `{text}` names no service with a build"))
            })?;
            return Ok(ContextSource::Image(image_name(&loaded.project, other, service)));
        }
        if let Some(image) = text.strip_prefix("docker-image://") {
            return Ok(ContextSource::Image(image.to_owned()));
        }
        if Path::new(text).is_dir() {
            return Ok(ContextSource::Directory(text.into()));
        }
        Err(Error::new(format!("service `{name}`: additional context `{text}` is not a folder"))
            .hint("write a folder, `service:NAME` or `docker-image://NAME`"))
    };
    build.additional_contexts.iter().map(|(key, text)| Ok((key.clone(), source(text)?))).collect()
}

fn network(name: &str, text: Option<&str>) -> Result<Network, Error> {
    match text {
        None | Some("default" | "bridge") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => Err(Error::new(format!("service `{name}`: build network `{other}` is not supported"))
            .hint("use `default`, `none` or `host`")),
    }
}

/// As with the builder of a Docker daemon that nobody configured, a step may ask for the host's network, and for no more
/// rights than others.
fn entitled_to_host_network(name: &str, build: &Build) -> Result<bool, Error> {
    let insecure = build.privileged.then_some("security.insecure");
    let mut network = false;
    for entitlement in build.entitlements.iter().map(String::as_str).chain(insecure) {
        match entitlement {
            "network.host" => network = true,
            "security.insecure" => {
                return Err(Error::new(format!("service `{name}`: a build may not have `security.insecure`"))
                    .hint("remove `privileged` and the entitlement; no build step gets more rights than a container"));
            }
            other => {
                return Err(Error::new(format!("service `{name}`: builds know no entitlement `{other}`"))
                    .hint("`network.host` is there"));
            }
        }
    }
    Ok(network)
}

/// Only this machine's own platform can be built.
fn platforms(name: &str, build: &Build, loaded: &Loaded) -> Result<(), Error> {
    let service = loaded.project.services.get(name).or_else(|| loaded.disabled.get(name));
    let asked = service.and_then(|service| service.platform.as_ref());
    let asked: Vec<&String> = asked.map_or_else(|| build.platforms.iter().collect(), |platform| vec![platform]);
    let own = Platform::here();
    for text in &asked {
        let platform = Platform::parse(text)?;
        if (&platform.os, &platform.architecture) == (&own.os, &own.architecture) {
            return Ok(());
        }
    }
    let Some(first) = asked.first() else { return Ok(()) };
    Err(Error::new(format!("service `{name}`: an image for `{first}` can't be built here"))
        .hint(format!("images are built for {}/{}; pull one that was built elsewhere", own.os, own.architecture)))
}

fn secrets(loaded: &Loaded, build: &Build) -> Result<BTreeMap<String, Secret>, Error> {
    build
        .secrets
        .iter()
        .filter_map(|mount| loaded.project.secrets.get(&mount.source).map(|object| (mount, object)))
        .map(|(mount, object)| {
            let id = mount.target.clone().unwrap_or_else(|| mount.source.clone());
            Ok((id, Secret(file_object(loaded, "secret", &mount.source, object)?)))
        })
        .collect()
}

fn host(name: &str, line: &str) -> Result<(String, IpAddr), Error> {
    let (host, address) = line.split_once('=').or_else(|| line.split_once(':')).unwrap_or((line, ""));
    match address.trim_matches(['[', ']']).parse() {
        Ok(address) => Ok((host.to_owned(), address)),
        Err(_) => Err(Error::new(format!("service `{name}`: build.extra_hosts: `{line}` has no address"))
            .hint("write `name=address`")),
    }
}
