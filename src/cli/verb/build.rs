//! `stack build`.

use std::collections::BTreeSet;

use clap::Args;

use crate::cli::builder::{self, Flags};
use crate::cli::error::Outcome;
use crate::cli::prepare;
use crate::cli::project::{Context, require_kernel, require_root};
use crate::images::Store;

/// Build the images of services.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Services to build (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Set a build argument, NAME=VALUE; repeatable
    #[arg(long = "build-arg", value_name = "ARGUMENT")]
    args: Vec<String>,
    /// Take no earlier results
    #[arg(long)]
    no_cache: bool,
    /// Fetch base images anew
    #[arg(long)]
    pull: bool,
    /// Show nothing
    #[arg(short, long)]
    quiet: bool,
    /// Also build what the services depend on
    #[arg(long)]
    with_dependencies: bool,
}

impl Build {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let loaded = context.load(&self.services)?;
        let chosen = prepare::selected(&loaded, &self.services, !self.with_dependencies)?;
        let chosen: BTreeSet<String> =
            chosen.into_iter().filter(|name| loaded.project.services[name].build.is_some()).collect();
        if chosen.is_empty() {
            context.ui.warn("no service to build: none of them has a `build`")?;
            return Ok(0);
        }
        require_root()?;
        require_kernel()?;
        let flags = Flags { args: self.args.clone(), no_cache: self.no_cache, pull: self.pull, quiet: self.quiet };
        builder::build(context, &loaded, &chosen, &flags, &Store::open(&context.paths.lib)?).await?;
        Ok(0)
    }
}
