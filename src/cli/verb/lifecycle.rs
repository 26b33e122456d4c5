//! `start`, `stop`, `restart`, `kill`, `pause`, `unpause` and `rm`: one request to the supervisor each.

use std::io::Write;

use clap::Args;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::{Context, Target};
use crate::cli::select::{is_up, of_services};
use crate::cli::session::carry_out;
use crate::cli::terminal::agreed;
use crate::engine::control::Request;
use crate::engine::state::Container;

/// Start existing containers.
#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Services to start (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Wait until they run, or are healthy
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most
    #[arg(long, value_name = "SECONDS")]
    wait_timeout: Option<u64>,
}

/// Stop containers, dependents first.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Services to stop (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Seconds before containers are killed
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

/// Stop and start containers.
#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Services to restart (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Seconds before containers are killed
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Leave services alone that depend on them
    #[arg(long)]
    no_deps: bool,
}

/// Send a signal to containers.
#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Services to signal (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Signal by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "SIGKILL")]
    signal: String,
    /// Also containers of services that the file does not have
    #[arg(long)]
    remove_orphans: bool,
}

/// Freeze the processes of services.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// Services to freeze (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Let frozen processes go on.
#[derive(Debug, Args)]
pub(crate) struct Unpause {
    /// Services to thaw (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Remove stopped containers.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Services to remove (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
    /// Stop them first
    #[arg(short, long)]
    stop: bool,
    /// Remove their anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
}

/// The project and its containers; the services must exist.
fn find(context: &Context, services: &[String]) -> Result<(Target, Vec<Container>), Error> {
    let target = context.target()?;
    let containers = context.containers(&target.name)?;
    target.check_services(services, &containers)?;
    Ok((target, containers))
}

impl Start {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let (target, containers) = find(context, &self.services)?;
        if let Some(service) = self.services.iter().find(|name| !containers.iter().any(|c| c.record.service == **name))
        {
            return Err(Error::new(format!("service `{service}` has no container to start"))
                .hint(format!("make one with `stack up -d {service}` or `stack create {service}`")));
        }
        if containers.is_empty() {
            return Err(Error::new(format!("project `{}` has no container to start", target.name))
                .hint("make them with `stack up -d` or `stack create`"));
        }
        let request = Request::Start {
            services: self.services.clone(),
            wait: self.wait || self.wait_timeout.is_some(),
            wait_timeout: self.wait_timeout,
        };
        carry_out(context, &target.name, &request, "start").await.map(|_| 0)
    }
}

impl Stop {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let (target, containers) = find(context, &self.services)?;
        if containers.is_empty() {
            return Ok(0);
        }
        let request = Request::Stop { services: self.services.clone(), timeout: self.timeout };
        carry_out(context, &target.name, &request, "stop").await.map(|_| 0)
    }
}

impl Restart {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let (target, containers) = find(context, &self.services)?;
        if of_services(&containers, &self.services).next().is_none() {
            return Err(Error::new(format!("project `{}` has no container to restart", target.name))
                .hint("make them with `stack up -d`"));
        }
        let (services, no_deps) = (self.services.clone(), self.no_deps);
        let request = Request::Restart { services, timeout: self.timeout, no_deps };
        carry_out(context, &target.name, &request, "restart").await.map(|_| 0)
    }
}

impl Kill {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let (target, containers) = find(context, &self.services)?;
        if containers.is_empty() {
            return Ok(0);
        }
        let services = match &target.loaded {
            Some(loaded) if self.services.is_empty() && !self.remove_orphans => {
                loaded.all_services.iter().cloned().collect()
            }
            _ => self.services.clone(),
        };
        let request = Request::Kill { services, signal: self.signal.clone() };
        carry_out(context, &target.name, &request, "kill").await.map(|_| 0)
    }
}

impl Pause {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        set_frozen(context, &self.services, false).await
    }
}

impl Unpause {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        set_frozen(context, &self.services, true).await
    }
}

async fn set_frozen(context: &Context, services: &[String], thaw: bool) -> Outcome {
    let (target, containers) = find(context, services)?;
    if containers.is_empty() {
        return Ok(0);
    }
    let request = Request::Pause { services: services.to_vec(), thaw };
    carry_out(context, &target.name, &request, if thaw { "unpause" } else { "pause" }).await.map(|_| 0)
}

impl Rm {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let (target, containers) = find(context, &self.services)?;
        let going: Vec<&Container> =
            of_services(&containers, &self.services).filter(|container| self.stop || !is_up(container)).collect();
        if going.is_empty() {
            writeln!(context.ui.err(), "No stopped containers")?;
            return Ok(0);
        }
        let names: Vec<&str> = going.iter().map(|container| container.record.name.as_str()).collect();
        if !self.force
            && !context.global.dry_run
            && !agreed(&format!("Going to remove {}. Are you sure?", names.join(", ")))?
        {
            return Ok(0);
        }
        let (services, stop, volumes) = (self.services.clone(), self.stop, self.volumes);
        let request = Request::Remove { services, stop, volumes, containers: Vec::new() };
        carry_out(context, &target.name, &request, "rm").await.map(|_| 0)
    }
}
