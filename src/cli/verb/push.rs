//! `stack push`.

use std::collections::BTreeSet;

use clap::Args;

use crate::cli::error::Outcome;
use crate::cli::project::Context;
use crate::cli::registry::{self, Chosen};
use crate::images::{Reference, Store};
use crate::spec::Loaded;

/// Bring the images of services to their registries.
#[derive(Debug, Args)]
pub(crate) struct Push {
    #[command(flatten)]
    chosen: Chosen,
    /// Push what can be pushed; a failure is a warning
    #[arg(long)]
    ignore_push_failures: bool,
}

impl Push {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let (loaded, chosen) = self.chosen.load(context)?;
        let flags = Flags { quiet: self.chosen.quiet, ignore_failures: self.ignore_push_failures };
        push(context, &loaded, &chosen, flags).await
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
