//! Checks across services and resources: references, exclusive attributes, doubled mounts, cycles.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{Diagnostic, Kind};
use super::graph;
use super::limits;
use super::model::{Build, Project, Service};
use super::node::Node;
use super::normalize::volume_key;
use super::ready;
use super::resources;
use super::session::Session;
use super::values;
use super::words;

/// One service under check, and where its attributes stand.
pub(crate) struct Check<'c, 's, 'a> {
    pub(crate) session: &'c mut Session<'a>,
    pub(crate) tree: &'s Node,
    pub(crate) project: &'s Project,
    pub(crate) name: &'s str,
    pub(crate) service: &'s Service,
}

/// Checks everything that concerns more than one attribute.
pub(crate) fn validate(
    session: &mut Session<'_>,
    tree: &Node,
    project: &Project,
    disabled: &BTreeMap<String, Service>,
) {
    for (name, service) in &project.services {
        let mut check = Check { session, tree, project, name, service };
        check.source();
        check.networks();
        check.dependencies(disabled);
        check.references();
        check.amounts();
        check.mounts();
        ready::check(&mut check);
        values::check(&mut check);
    }
    container_names(session, tree, project);
    resources::check(session, tree, project);
    if !session.has_errors()
        && let Some(cycle) = graph::cycle(project)
    {
        report_cycle(session, tree, &cycle);
    }
}

impl Check<'_, '_, '_> {
    /// Reports an error about an attribute of the service.
    pub(crate) fn error(&mut self, kind: Kind, path: &[&str], message: impl AsRef<str>) {
        let diagnostic = self.error_at(kind, path, message);
        self.session.report(diagnostic);
    }

    /// Reports that two attributes of the service contradict each other.
    fn conflict(&mut self, message: impl AsRef<str>, path: &[&str], other: &[&str]) {
        let full: Vec<&str> = ["services", self.name].into_iter().chain(other.iter().copied()).collect();
        let place = self.session.sources.place(self.tree.locate_key(&full), "the other");
        let diagnostic = self.error_at(Kind::Conflict, path, message).at(place).hint("keep one of the two");
        self.session.report(diagnostic);
    }

    /// Keeps the stack from being started because of an attribute of the service; it can be printed.
    pub(crate) fn refuse(&mut self, kind: Kind, path: &[&str], message: impl AsRef<str>) {
        let mut diagnostic = self.error_at(kind, path, message);
        if diagnostic.hint.is_none() {
            diagnostic = diagnostic.hint("the stack cannot be started with it");
        }
        self.session.refusal(diagnostic);
    }

    /// An error about an attribute of the service, not reported yet.
    pub(crate) fn error_at(&mut self, kind: Kind, path: &[&str], message: impl AsRef<str>) -> Diagnostic {
        let full: Vec<&str> = ["services", self.name].into_iter().chain(path.iter().copied()).collect();
        let span = self.tree.locate(&full);
        let message = format!("service `{}`: {}", self.name, message.as_ref());
        self.session.error_at(kind, span, message)
    }

    /// Whether the file itself says something at `path`.
    fn says(&self, path: &[&str]) -> bool {
        let start = self.tree.get("services").and_then(|services| services.get(self.name));
        path.iter()
            .try_fold(start, |node, key| node.map(|node| node.get(key)).filter(Option::is_some))
            .is_some_and(|node| node.is_some())
    }

    fn source(&mut self) {
        let service = self.service;
        if service.build.is_none() && service.image.is_none() && service.provider.is_none() {
            let diagnostic = self.error_at(Kind::Shape, &[], "has neither `image` nor `build`");
            self.session.report(diagnostic.hint("say which image it runs"));
        }
        if let Some(build) = &service.build {
            self.build(build);
        }
    }

    fn build(&mut self, build: &Build) {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if given(&build.dockerfile_inline) && given(&build.dockerfile) {
            self.error(
                Kind::Conflict,
                &["build", "dockerfile"],
                "`dockerfile` and `dockerfile_inline` exclude each other",
            );
        }
        for (context, source) in &build.additional_contexts {
            let Some(other) = source.strip_prefix("service:") else { continue };
            let path = ["build", "additional_contexts", context.as_str()];
            match self.project.services.get(other) {
                None => self.unknown("service", other, &path, self.project.services.keys()),
                Some(other_service) if other_service.build.is_none() => {
                    self.error(
                        Kind::Reference,
                        &path,
                        format!("service `{other}` is not built, so it cannot be a context"),
                    );
                }
                Some(_) => {}
            }
        }
        if let Some(platform) = self.service.platform.as_ref().filter(|_| !build.platforms.is_empty())
            && !build.platforms.contains(platform)
        {
            self.error(Kind::Conflict, &["platform"], format!("`{platform}` is not among build.platforms"));
        }
    }

    /// Reports a name that nothing defines.
    fn unknown<'n>(&mut self, what: &str, name: &str, path: &[&str], known: impl Iterator<Item = &'n String>) {
        let hint = words::suggest(name, known.map(String::as_str));
        let diagnostic = self.error_at(Kind::Reference, path, format!("{what} `{name}` is not defined"));
        self.session.report(diagnostic.maybe_hint(hint.or_else(|| match what {
            "service" => None,
            _ => Some(format!("define it under the top-level `{what}s`")),
        })));
    }

    fn networks(&mut self) {
        let service = self.service;
        if service.network_mode.is_some() && !service.networks.is_empty() {
            self.conflict("`network_mode` and `networks` exclude each other", &["network_mode"], &["networks"]);
        }
        for name in service.networks.keys().filter(|name| !self.project.networks.contains_key(*name)) {
            self.unknown("network", name, &["networks", name], self.project.networks.keys());
        }
    }

    fn dependencies(&mut self, disabled: &BTreeMap<String, Service>) {
        for (name, dependency) in &self.service.depends_on {
            if self.project.services.contains_key(name) {
                continue;
            }
            let attributes = ["network_mode", "ipc", "pid", "uts", "cgroup", "links", "volumes_from"];
            let explicit = self.says(&["depends_on", name]);
            let implied = attributes.into_iter().find(|attribute| !explicit && self.names_service(attribute, name));
            let path = implied.map_or_else(|| vec!["depends_on", name.as_str()], |attribute| vec![attribute]);
            match disabled.get(name) {
                Some(_) if !dependency.required => {}
                Some(other) => {
                    let message = format!("depends on service `{name}`, which no active profile switches on");
                    let hint = format!("use --profile {}, or `required: false`", other.profiles.join(" or --profile "));
                    let diagnostic = self.error_at(Kind::Reference, &path, message).hint(hint);
                    self.session.report(diagnostic);
                }
                None => self.unknown("service", name, &path, self.project.services.keys()),
            }
        }
    }

    /// Whether `attribute` of the service refers to the service `name`.
    fn names_service(&self, attribute: &str, name: &str) -> bool {
        let node =
            self.tree.get("services").and_then(|services| services.get(self.name)).and_then(|own| own.get(attribute));
        let refers = |text: &str| text.strip_prefix("service:").unwrap_or(text).split(':').next() == Some(name);
        match node {
            Some(node) => {
                node.as_str().is_some_and(refers)
                    || node.as_list().unwrap_or_default().iter().filter_map(Node::as_str).any(refers)
            }
            None => false,
        }
    }

    fn references(&mut self) {
        let (service, project) = (self.service, self.project);
        for (index, mount) in service.volumes.iter().enumerate() {
            if let Some(key) = volume_key(mount).filter(|key| !project.volumes.contains_key(*key)) {
                self.unknown("volume", key, &["volumes", &index.to_string(), "source"], project.volumes.keys());
            }
        }
        for (index, file) in service.configs.iter().enumerate() {
            if !project.configs.contains_key(&file.source) {
                self.unknown(
                    "config",
                    &file.source,
                    &["configs", &index.to_string(), "source"],
                    project.configs.keys(),
                );
            }
        }
        for (index, file) in service.secrets.iter().enumerate() {
            if !project.secrets.contains_key(&file.source) {
                self.unknown(
                    "secret",
                    &file.source,
                    &["secrets", &index.to_string(), "source"],
                    project.secrets.keys(),
                );
            }
        }
        let built = service.build.as_ref().map(|build| build.secrets.as_slice()).unwrap_or_default();
        for (index, file) in built.iter().enumerate() {
            if !project.secrets.contains_key(&file.source) {
                let path = ["build", "secrets", &index.to_string(), "source"];
                self.unknown("secret", &file.source, &path, project.secrets.keys());
            }
        }
        let models = service.models.as_ref().and_then(serde_json::Value::as_object);
        for model in models.into_iter().flat_map(serde_json::Map::keys) {
            if !project.models.contains_key(model) {
                self.unknown("model", model, &["models", model], project.models.keys());
            }
        }
    }

    /// The same amount said in two places, and how many containers.
    fn amounts(&mut self) {
        let service = self.service;
        let Some(deploy) = &service.deploy else { return self.replicas("scale", service.scale) };
        if let (Some(scale), Some(replicas)) = (service.scale, deploy.replicas)
            && scale != replicas
        {
            let message = format!("`scale` is {scale}, but `deploy.replicas` is {replicas}");
            self.conflict(message, &["scale"], &["deploy", "replicas"]);
        }
        self.replicas(if service.scale.is_some() { "scale" } else { "deploy" }, service.scale.or(deploy.replicas));
        let resources = deploy.resources.clone().unwrap_or_default();
        if let Some(limits) = &resources.limits {
            let differ = [
                (
                    "cpus",
                    "cpus",
                    service.cpus.is_some_and(|cpus| limits.cpus.unwrap_or_default().to_bits() != cpus.to_bits()),
                ),
                (
                    "mem_limit",
                    "memory",
                    service.mem_limit.is_some_and(|size| limits.memory.unwrap_or_default() != size),
                ),
                ("pids_limit", "pids", service.pids_limit.is_some_and(|pids| limits.pids.unwrap_or_default() != pids)),
            ];
            for (own, other, _) in differ.into_iter().filter(|(_, _, differs)| *differs) {
                let message = format!("`{own}` and `deploy.resources.limits.{other}` differ");
                self.conflict(message, &[own], &["deploy", "resources", "limits", other]);
            }
        }
        if let Some(reservations) = &resources.reservations
            && service.mem_reservation.is_some_and(|size| reservations.memory.unwrap_or_default() != size)
        {
            let message = "`mem_reservation` and `deploy.resources.reservations.memory` differ";
            self.error(Kind::Conflict, &["mem_reservation"], message);
        }
    }

    fn replicas(&mut self, attribute: &str, count: Option<i64>) {
        let count = count.unwrap_or(1);
        if count > limits::REPLICAS {
            let message = format!("{count} containers of one service; at most {} are possible", limits::REPLICAS);
            self.error(Kind::Limit, &[attribute], message);
        }
        if count > 1 && self.service.container_name.is_some() {
            let message = format!("{count} containers cannot share one `container_name`");
            self.conflict(message, &["container_name"], &[attribute]);
        }
    }

    /// Two mounts at one place.
    fn mounts(&mut self) {
        let service = self.service;
        let mut taken: BTreeMap<&str, String> = BTreeMap::new();
        let tmpfs = service.tmpfs.iter().map(|text| text.split(':').next().unwrap_or_default());
        let tmpfs = tmpfs.enumerate().map(|(index, target)| ("tmpfs", index, target));
        let volumes =
            service.volumes.iter().enumerate().map(|(index, mount)| ("volumes", index, mount.target.as_str()));
        for (attribute, index, target) in tmpfs.chain(volumes) {
            let here = format!("{attribute}[{index}]");
            if let Some(first) = taken.insert(target, here.clone()) {
                let message = format!("{here}: `{target}` is already mounted by {first}");
                self.error(Kind::Conflict, &[attribute, &index.to_string()], message);
            }
        }
    }
}

fn container_names(session: &mut Session<'_>, tree: &Node, project: &Project) {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, service) in &project.services {
        let Some(container) = &service.container_name else { continue };
        if let Some(first) = taken.insert(container, name) {
            let place = |service: &str| tree.locate(&["services", service, "container_name"]);
            let message = format!("services `{first}` and `{name}` both have the container name `{container}`");
            let other = session.sources.place(place(first), "the same name");
            session.report(session.error_at(Kind::Conflict, place(name), message).at(other));
        }
    }
}

fn report_cycle(session: &mut Session<'_>, tree: &Node, cycle: &[&str]) {
    let message = match cycle {
        [name, _] => format!("service `{name}` depends on itself (dependency cycle)"),
        _ => format!("dependency cycle: {}", cycle.join(" -> ")),
    };
    let mut diagnostic = Diagnostic::error(Kind::Cycle, message);
    let mut seen = BTreeSet::new();
    for pair in cycle.windows(2).take(10) {
        let span = tree.locate_key(&["services", pair[0], "depends_on", pair[1]]);
        let label = format!("`{}` needs `{}`", pair[0], pair[1]);
        if seen.insert((span.file, span.line, span.column)) {
            diagnostic = diagnostic.at(session.sources.place(span, &label));
        }
    }
    session.report(diagnostic);
}
