//! `stack push`.

use std::collections::BTreeSet;

use clap::Args;

use crate::cli::error::Outcome;
use crate::cli::prepare;
use crate::cli::project::{Context, require_root};
use crate::cli::registry;
use crate::images::{Reference, Store};
use crate::spec::Loaded;

/// Bring the images of services to their registries.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Services (default: all that are built and have an image name)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Push what can be pushed; a failure is a warning
    #[arg(long)]
    ignore_push_failures: bool,
    /// Also push for what the services depend on
    #[arg(long)]
    include_deps: bool,
    /// Show nothing
    #[arg(short, long)]
    quiet: bool,
}

impl Push {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let loaded = context.load(&self.services)?;
        require_root()?;
        let chosen = prepare::selected(&loaded, &self.services, !self.include_deps)?;
        push(context, &loaded, &chosen, Flags { quiet: self.quiet, ignore_failures: self.ignore_push_failures }).await
    }
}

/// How images are pushed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags {
    /// Show nothing.
    pub(super) quiet: bool,
    /// Failures are warnings.
    pub(super) ignore_failures: bool,
}

/// Pushes what the services of `chosen` that are built are called.
pub(super) async fn push(context: &Context, loaded: &Loaded, chosen: &BTreeSet<String>, flags: Flags) -> Outcome {
    let store = Store::open(&context.paths.lib)?;
    let mut names = BTreeSet::new();
    for (name, service) in loaded.project.services.iter().filter(|(name, _)| chosen.contains(*name)) {
        let Some(build) = &service.build else { continue };
        match &service.image {
            Some(image) => names.extend(std::iter::once(image).chain(&build.tags)),
            None => {
                context.ui.warn(format!("service `{name}` is not pushed: it has no `image:` to be pushed as"))?;
            }
        }
    }
    let mut code = 0;
    for name in names {
        let name = Reference::parse(name)?;
        match registry::push(context.ui, flags.quiet, &store, &name).await {
            Ok(_) => {}
            Err(error) if flags.ignore_failures => context.ui.warn(error.message())?,
            Err(error) => code = error.report(context.ui).max(code),
        }
    }
    Ok(code)
}
