//! `stack system prune`.

use std::io::Write as _;
use std::path::Path;

use clap::Args;
use fs_err as fs;
use jiff::Timestamp;

use super::bytes;
use crate::cli::error::{Error, Outcome};
use crate::cli::filter::Filters;
use crate::cli::project::Context;
use crate::cli::session;
use crate::cli::terminal;
use crate::cli::verb::image::{collect, size};
use crate::cli::verb::network;
use crate::engine::control::Request;
use crate::engine::state::{self, Container, Status};
use crate::engine::volumes;
use crate::images::Store;

/// What to remove.
#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Remove all images without a container
    #[arg(short, long)]
    all: bool,
    /// Also remove anonymous volumes without a container
    #[arg(long)]
    volumes: bool,
    /// Only what it holds for: until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

impl Prune {
    pub(super) async fn run(&self, context: &Context, store: &Store) -> Outcome {
        let filters = Filters::parse(&self.filter, Timestamp::now())?;
        if self.volumes && filters.has_until() {
            return Err(Error::new("`--filter until` doesn't go with `--volumes`: volumes have no age")
                .hint("run `stack system prune` twice, once with each"));
        }
        if !self.force && !terminal::agreed(&self.question())? {
            return Err(Error::new("nothing was changed"));
        }
        let lib = &context.paths.lib;
        let before = bytes(lib)?;
        let gone = remove_stopped(context, &filters).await?;
        let mut out = context.ui.out();
        gone.iter().try_for_each(|name| writeln!(out, "Deleted container: {name}"))?;
        drop(out);
        collect(context, store, self.all, &filters, || {
            let mut out = context.ui.out();
            // Nobody is about to attach a container: whoever makes one holds the lease that `collect` waits for.
            for network in network::remove_unused(context, &filters)? {
                writeln!(out, "Deleted network: {network}")?;
            }
            for volume in if self.volumes { volumes::orphans(&context.paths)? } else { Vec::new() } {
                if filters.take(None, |label| volume.labels.get(label)) {
                    volumes::remove(&context.paths, &volume.name)?;
                    writeln!(out, "Deleted volume: {}", volume.name)?;
                }
            }
            clear_build(&lib.join("build"), &filters)
        })?;
        writeln!(context.ui.out(), "Total reclaimed space: {}", size(before.saturating_sub(bytes(lib)?)))?;
        Ok(0)
    }

    fn question(&self) -> String {
        let images = if self.all { "images without a container" } else { "images without a name and a container" };
        let volumes = if self.volumes { "  - all anonymous volumes without a container\n" } else { "" };
        let only = if self.filter.is_empty() {
            String::new()
        } else {
            format!("  - of all these, only what the filters take: {}\n", self.filter.join(", "))
        };
        format!(
            "This removes:\n  - all stopped containers\n  - all networks without a container\n{volumes}  - all {images}\n  \
             - the build cache, and what interrupted pulls left\n{only}Go on?"
        )
    }
}

/// Removes the containers of all projects that don't run and that the filters take: their names.
async fn remove_stopped(context: &Context, filters: &Filters) -> Result<Vec<String>, Error> {
    let stopped = |container: &Container| {
        let rests = matches!(container.state.status, Status::Created | Status::Exited | Status::Dead);
        rests && filters.take(Some(container.record.created), |label| container.record.labels.get(label))
    };
    let mut gone = Vec::new();
    for project in state::projects(&context.paths)?.into_iter().filter(|project| !project.is_empty()) {
        let mut going = state::read_containers(&context.paths, &project)?;
        going.retain(stopped);
        if going.is_empty() {
            continue;
        }
        let containers = going.iter().map(|container| container.record.id.clone()).collect();
        let request = Request::Remove { services: Vec::new(), stop: false, volumes: false, containers };
        session::carry_out(context, &project, &request, "prune").await?;
        gone.extend(going.iter().map(|container| container.record.name.clone()));
    }
    Ok(gone)
}

/// Removes the build cache; with filters only steps that they take, which have an age and no labels.
fn clear_build(build: &Path, filters: &Filters) -> Result<(), Error> {
    let missing = |e: &std::io::Error| e.kind() == std::io::ErrorKind::NotFound;
    if filters.is_empty() {
        return match fs::remove_dir_all(build) {
            Err(e) if !missing(&e) => Err(e.into()),
            _ => Ok(()),
        };
    }
    let steps = match fs::read_dir(build.join("steps")) {
        Err(e) if missing(&e) => return Ok(()),
        other => other?,
    };
    for step in steps {
        let step = step?;
        let made = Timestamp::try_from(step.metadata()?.modified()?).ok();
        if filters.take(made, |_| None) {
            fs::remove_file(step.path())?;
        }
    }
    Ok(())
}
