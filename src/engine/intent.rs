//! What a request asks for, in the planner's words: what shall be, and how to get there.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::control::{self, Failure, Outlook, Request, Source};
use super::state::Container;
use super::supervisor::Supervisor;
use crate::planner::{self, Down, Line, PlanOptions, Problem, Recreate, Up, Verb};
use crate::spec::model::{self, Project};

/// What shall be: the project, where it comes from, and the contents of its secrets and configs.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    pub(crate) project: Project,
    pub(crate) source: Source,
    /// When the user asked for it.
    pub(crate) asked: Option<Timestamp>,
    /// By `secret:<key>` and `config:<key>`.
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
}

impl Desired {
    /// What an `up` asks for.
    pub(crate) fn from_up(up: &control::Up) -> Self {
        let objects = up.objects.iter().map(|(key, content)| (key.clone(), content.clone())).collect();
        Self { project: up.project.clone(), source: up.source.clone(), asked: up.asked, objects }
    }

    /// What the containers that exist were made from; for commands that have no file.
    fn from_containers(name: &str, containers: &[Container]) -> Self {
        let mut project = Project { name: name.to_owned(), ..Project::default() };
        for container in containers {
            let record = &container.record;
            if !record.oneoff {
                project.services.entry(record.service.clone()).or_insert_with(|| record.config.clone());
            }
            for endpoint in &record.endpoints {
                let network = model::Network { name: endpoint.network.clone(), ..model::Network::default() };
                project.networks.entry(endpoint.key.clone()).or_insert(network);
            }
        }
        Self { project, ..Self::default() }
    }
}

impl Supervisor {
    /// What a request asks for; none if it changes nothing.
    pub(crate) fn intent(&self, request: &Request) -> Result<Option<(Desired, PlanOptions)>, Failure> {
        Ok(Some(match request {
            Request::Up(up) => (Desired::from_up(up), up_options(up)),
            Request::Down(down) => self.down_intent(down)?,
            Request::Start { services, .. } => self.verb(Verb::Start, services, None),
            Request::Stop { services, timeout } => self.verb(Verb::Stop, services, *timeout),
            Request::Restart { services, timeout, no_deps } => {
                self.verb(Verb::Restart { no_deps: *no_deps }, services, *timeout)
            }
            Request::Kill { services, signal } => self.verb(Verb::Kill { signal: signal.clone() }, services, None),
            Request::Remove { services, stop, volumes, containers } => {
                let containers = containers.iter().cloned().collect();
                self.verb(Verb::Remove { stop: *stop, volumes: *volumes, containers }, services, None)
            }
            Request::Pause { services, thaw } => {
                self.verb(if *thaw { Verb::Unpause } else { Verb::Pause }, services, None)
            }
            _ => return Ok(None),
        }))
    }

    /// What a request would do.
    pub(crate) fn explain(&self, request: &Request) -> Result<Outlook, Failure> {
        let Some((desired, options)) = self.intent(request)? else { return Ok(Outlook::default()) };
        let observed = self.observe(&desired, matches!(options.verb, Verb::Up(_)))?;
        let plan = planner::plan(&desired.project, &observed, &options);
        let (missing, problems): (Vec<&Problem>, Vec<&Problem>) =
            plan.problems.iter().partition(|problem| matches!(problem, Problem::MissingImage { .. }));
        let first = missing.into_iter().filter_map(|problem| fetch(&desired.project, problem));
        let lines: Vec<Line> = first.chain(planner::render(&self.project, &plan)).collect();
        Ok(Outlook {
            steps: serde_json::to_value(&plan).map_err(|e| Failure::new(e.to_string()))?,
            changes: plan.changes(),
            lines,
            warnings: plan.warnings.iter().map(ToString::to_string).collect(),
            problems: problems.into_iter().map(ToString::to_string).collect(),
        })
    }

    /// What `down` asks for.
    pub(crate) fn down_intent(&self, down: &control::Down) -> Result<(Desired, PlanOptions), Failure> {
        let mut desired = Desired::from_containers(&self.project, &self.containers());
        if let Some(project) = &down.project {
            let known = std::mem::replace(&mut desired.project, Project::clone(project));
            for (key, network) in known.networks {
                desired.project.networks.entry(key).or_insert(network);
            }
        } else {
            self.add_recorded_resources(&mut desired.project)?;
        }
        let verb = Verb::Down(Down { volumes: down.volumes, remove_orphans: down.remove_orphans, images: None });
        let timeout = down.timeout.map(Duration::from_secs);
        let services = down.services.iter().cloned().collect();
        Ok((desired, PlanOptions { verb, services, timeout, ..PlanOptions::default() }))
    }

    /// What a verb about existing containers asks for.
    pub(crate) fn verb(&self, verb: Verb, services: &[String], timeout: Option<u64>) -> (Desired, PlanOptions) {
        let desired = Desired::from_containers(&self.project, &self.containers());
        let timeout = timeout.map(Duration::from_secs);
        (desired, PlanOptions { verb, services: services.iter().cloned().collect(), timeout, ..PlanOptions::default() })
    }

    /// Without a file, what this project made is known from the records.
    fn add_recorded_resources(&self, project: &mut Project) -> Result<(), Failure> {
        let failed = |e: std::io::Error| Failure::new(e.to_string());
        for network in super::networks::list(&self.paths).map_err(failed)? {
            if network.project == self.project {
                let model = model::Network { name: network.name, ..model::Network::default() };
                project.networks.entry(network.key).or_insert(model);
            }
        }
        for volume in super::volumes::list(&self.paths).map_err(failed)? {
            if volume.project == self.project && !volume.key.is_empty() {
                let model = model::Volume { name: volume.name, ..model::Volume::default() };
                project.volumes.entry(volume.key).or_insert(model);
            }
        }
        Ok(())
    }
}

/// An image that has to be brought before the plan begins.
fn fetch(project: &Project, problem: &Problem) -> Option<Line> {
    let Problem::MissingImage { service, image } = problem else { return None };
    let built = project.services.get(service).is_some_and(|service| service.build.is_some());
    Some(Line {
        text: format!("+ {} image {image}", if built { "build" } else { "fetch" }),
        cause: format!("{service} needs it"),
        destructive: false,
    })
}

/// How an `up` goes about it.
pub(super) fn up_options(up: &control::Up) -> PlanOptions {
    let recreate = match (up.force_recreate, up.no_recreate) {
        (true, _) => Recreate::Force,
        (_, true) => Recreate::Never,
        _ => Recreate::Diverged,
    };
    let verb = Verb::Up(Up {
        recreate,
        recreate_dependencies: if up.always_recreate_deps {
            Recreate::Force
        } else if up.no_recreate {
            Recreate::Never
        } else {
            Recreate::Diverged
        },
        no_deps: up.no_deps,
        renew_anonymous_volumes: up.renew_anon_volumes,
        no_start: up.no_start,
        remove_orphans: up.remove_orphans,
        ignore_orphans: up.ignore_orphans,
        scale: up.scale.clone(),
        keep_volumes: false,
        wait: up.wait,
    });
    PlanOptions {
        verb,
        services: up.services.iter().cloned().collect(),
        disabled: up.disabled.iter().cloned().collect(),
        timeout: up.timeout.map(Duration::from_secs),
    }
}
