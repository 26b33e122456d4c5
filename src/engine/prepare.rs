//! Init containers: each step of `pre_start` runs to its end in a container of its own before the service's container
//! starts, on the same networks and with the same volumes. One that fails stays for who asks why, until it is tried
//! again or the container it ran for is removed.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fs_err as fs;

use super::control::Failure;
use super::execute::Interrupted;
use super::intent::Desired;
use super::logs::{LogReader, Start};
use super::record::Identity;
use super::state::{Container, Record, Status, read_json};
use super::supervisor::{Supervisor, tracing_line};
use crate::spec::model::{Attachment, Healthcheck, Project, Service, StartHook};

/// Lines of a failed step's output that its message repeats.
const SHOWN: usize = 5;

impl Supervisor {
    /// Runs a step of `pre_start` for a container, unless it has succeeded for it.
    pub(crate) async fn prepare(self: &Rc<Self>, desired: &Arc<Desired>, id: &str, step: usize) -> Result<(), Failure> {
        let container = self.container(id)?;
        let record = &container.record;
        let Some(hook) = record.config.pre_start.get(step).filter(|_| !container.state.prepared.contains(&step)) else {
            return Ok(());
        };
        self.clear_preparations(id).await?;
        let desired = Arc::new(self.surroundings_of(record, desired)?);
        let identity = Identity {
            id: String::new(),
            name: format!("{}-pre_start-{step}", record.name),
            service: record.service.clone(),
            number: record.number,
            oneoff: true,
            prepares: Some(id.to_owned()),
            discoverable: false,
        };
        let mut interrupt = self.turn.interruptions();
        let init = self.create_container(&desired, identity, &service(record, hook), None).await?;
        if let Err(failure) = self.start_container(&init).await {
            self.remove_container(&init, true).await?;
            return Err(Failure { message: format!("pre_start[{step}]: {}", failure.message), ..failure });
        }
        let code = tokio::select! {
            code = self.end_of(&init) => code,
            _ = interrupt.changed() => return Err(Interrupted.into()),
        };
        if code != 0 {
            return Err(self.failed_step(record, step, &init, code));
        }
        self.change(id, |state| {
            state.prepared.insert(step);
        })?;
        self.remove_container(&init, true).await
    }

    /// Removes what ran steps of `pre_start` for a container, and what still does.
    pub(crate) async fn clear_preparations(self: &Rc<Self>, id: &str) -> Result<(), Failure> {
        let ran_for = |container: &Container| container.record.prepares.as_deref() == Some(id);
        for container in self.containers().into_iter().filter(ran_for) {
            self.stop_container(&container.record.id, Some(Duration::ZERO)).await?;
            self.remove_container(&container.record.id, true).await?;
        }
        Ok(())
    }

    /// Removes what had run steps well, or never began to, when the last supervisor died.
    pub(crate) fn drop_preparations(self: &Rc<Self>) {
        for container in self.containers().into_iter().filter(|container| container.record.prepares.is_some()) {
            let over = match container.state.status {
                Status::Exited => container.state.exit_code == 0,
                Status::Created | Status::Dead => true,
                Status::Running | Status::Paused | Status::Restarting => false,
            };
            let (this, id) = (self.clone(), container.record.id.clone());
            if over {
                tokio::task::spawn_local(async move {
                    if let Err(failure) = this.remove_container(&id, true).await {
                        tracing_line(&failure.message);
                    }
                });
            }
        }
    }

    /// The project as it was brought up, with the files that the container has: a command that only starts what exists
    /// knows neither.
    fn surroundings_of(&self, record: &Record, desired: &Desired) -> Result<Desired, Failure> {
        let failed = |e: io::Error| Failure::new(format!("container {}: {e}", record.name));
        let project: Option<Project> = read_json(&self.paths.desired(&self.project)).map_err(failed)?;
        let folder = self.paths.file_objects(&self.project, &record.id);
        let mut objects = BTreeMap::new();
        for key in record.files.keys() {
            objects.insert(key.clone(), fs::read(folder.join(key)).map_err(failed)?);
        }
        let project = project.unwrap_or_else(|| desired.project.clone());
        Ok(Desired { project, source: desired.source.clone(), asked: None, objects })
    }

    fn failed_step(&self, record: &Record, step: usize, init: &str, code: i32) -> Failure {
        let mut said = Vec::new();
        let started = self.look(init, |init| init.state.started).flatten().unwrap_or_default();
        if let Ok(mut reader) = LogReader::open(&self.paths.log(&record.id), Start::Since(started)) {
            while let Ok(Some(line)) = reader.next_line() {
                said.push(line);
            }
            said.extend(reader.rest());
        }
        let said: Vec<String> = said.into_iter().filter(|line| line.time >= started).map(|line| line.text).collect();
        let said = &said[said.len().saturating_sub(SHOWN)..];
        let said = if said.is_empty() { String::new() } else { format!(":\n  {}", said.join("\n  ")) };
        Failure::new(format!("service {}: pre_start[{step}] ended with exit code {code}{said}", record.service))
            .about(&record.service, &["pre_start", &step.to_string()])
            .hint(format!("`stack logs {}` has all of its output; the next `up` tries again", record.service))
    }
}

/// What runs a step: the hook's image, command and user among the networks, volumes and variables of the service.
fn service(record: &Record, hook: &StartHook) -> Service {
    let config = &record.config;
    let image = hook.image.clone().unwrap_or_else(|| record.image.clone());
    let mut environment = config.environment.clone();
    environment.extend(hook.environment.clone());
    // The addresses are the container's own.
    let attachment = |attachment: &Option<Attachment>| {
        attachment.clone().map(|attachment| Attachment {
            ipv4_address: None,
            ipv6_address: None,
            mac_address: None,
            link_local_ips: Vec::new(),
            aliases: Vec::new(),
            ..attachment
        })
    };
    let networks = config.networks.iter().map(|(key, of)| (key.clone(), attachment(of))).collect();
    let own_image = image == record.image;
    Service {
        command: hook.command.clone(),
        user: hook.user.clone().or_else(|| config.user.clone().filter(|_| own_image)),
        working_dir: hook.working_dir.clone().or_else(|| config.working_dir.clone()),
        privileged: Some(hook.privileged),
        environment,
        networks,
        network_mode: config.network_mode.clone(),
        volumes_from: vec![format!("container:{}", record.id)],
        secrets: config.secrets.clone(),
        configs: config.configs.clone(),
        dns: config.dns.clone(),
        dns_opt: config.dns_opt.clone(),
        dns_search: config.dns_search.clone(),
        extra_hosts: config.extra_hosts.clone(),
        platform: config.platform.clone().filter(|_| own_image),
        logging: config.logging.clone(),
        healthcheck: Some(Healthcheck { disable: true, ..Healthcheck::default() }),
        labels: BTreeMap::from([("com.docker.compose.hook".to_owned(), "pre_start".to_owned())]),
        image: Some(image),
        ..Service::default()
    }
}
