//! `stack down`.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};

use crate::cli::error::{Error, Outcome};
use crate::cli::project::{Context, Target};
use crate::cli::session::carry_out;
use crate::engine::control::{self, Request};
use crate::engine::state::{self, Container};
use crate::images::Store;
use crate::planner::image_name;

/// Stop and remove containers and networks.
#[derive(Debug, Args)]
pub(crate) struct Down {
    /// Services to remove (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Remove named volumes of the file and anonymous volumes, too
    #[arg(short, long)]
    volumes: bool,
    /// Remove images, too: `all`, or `local` for those that were built without a name of their own
    #[arg(long, value_enum, value_name = "WHICH", hide_possible_values = true)]
    rmi: Option<Rmi>,
    /// Remove containers of services that the file does not have, too
    #[arg(long)]
    remove_orphans: bool,
    /// Seconds before containers are killed
    #[arg(short, long, value_name = "SECONDS")]
    timeout: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rmi {
    /// All
    All,
    /// Those without a name of their own
    Local,
}

impl Down {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let request = Request::Down(control::Down {
            project: target.loaded.as_ref().map(|loaded| Box::new(loaded.project.clone())),
            services: self.services.clone(),
            volumes: self.volumes,
            remove_orphans: self.remove_orphans || crate::cli::flag_from_env("COMPOSE_REMOVE_ORPHANS"),
            timeout: self.timeout,
        });
        carry_out(context, &target.name, &request, "down").await?;
        if let Some(which) = self.rmi.filter(|_| !context.global.dry_run) {
            self.remove_images(context, &target, &containers, which)?;
        }
        Ok(0)
    }

    fn remove_images(&self, context: &Context, target: &Target, before: &[Container], which: Rmi) -> Result<(), Error> {
        let store = Store::open(&context.paths.lib)?;
        let wanted = |service: &str| self.services.is_empty() || self.services.iter().any(|name| name == service);
        let mut names: BTreeSet<String> = BTreeSet::new();
        let project = target.loaded.as_ref().map(|loaded| &loaded.project);
        let services = project.into_iter().flat_map(|project| project.services.iter().map(move |it| (project, it)));
        for (project, (name, service)) in services.filter(|(_, (name, _))| wanted(name)) {
            if which == Rmi::All || service.image.is_none() {
                names.insert(image_name(project, name, service));
            }
            if which == Rmi::All {
                names.extend(service.build.iter().flat_map(|build| build.tags.iter().cloned()));
            }
        }
        for container in before.iter().filter(|container| wanted(&container.record.service)) {
            let record = &container.record;
            if which == Rmi::All || record.config.image.is_none() {
                names.insert(record.image.clone());
            }
        }
        let collector = store.collector(|| state::images_in_use(&context.paths))?;
        for name in names {
            let found = store.find(&name)?;
            if found.is_none_or(|image| image.names.is_empty()) {
                continue;
            }
            // An image that another project's container uses stays, as with docker compose.
            match collector.remove(&name, false) {
                Ok(_) => {}
                Err(error) => context.ui.warn(error)?,
            }
        }
        Ok(())
    }
}
