//! `stack watch`.

use clap::Args;

use crate::cli::error::Outcome;
use crate::cli::interrupt::{INTERRUPTED, Interrupts};
use crate::cli::lock;
use crate::cli::prepare::{self, ImageFlags};
use crate::cli::project::{Context, require_kernel, require_root};
use crate::cli::session::carry_out;
use crate::cli::watching::{How, Watching};
use crate::engine::control::Request;

/// Bring services up, and keep them up to date with the files that their `develop.watch` names.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Services to watch (default: all that have rules)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Don't build and bring up first
    #[arg(long)]
    no_up: bool,
    /// Remove images that a rebuild leaves without a name
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    prune: bool,
    /// Don't show what builds print
    #[arg(long)]
    quiet: bool,
}

impl Watch {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let mut loaded = context.load(&self.services)?;
        let chosen = prepare::selected(&loaded, &self.services, false)?;
        require_root()?;
        require_kernel()?;
        lock::pin(context, &mut loaded, None)?;
        // Before anything is built: what changes from now on is acted on.
        let how = How { prune: self.prune, quiet: self.quiet, logs: false };
        let mut watching = Watching::new(context, &loaded, &self.services, how).await?;
        if !self.no_up {
            let up = prepare::up(&loaded, &self.services, false)?;
            let flags = ImageFlags { build: true, quiet_build: self.quiet, ..ImageFlags::default() };
            prepare::images(context, &loaded, &chosen, &flags).await?;
            let done = carry_out(context, &loaded.project.name, &Request::Up(Box::new(up)), "up").await;
            done.map_err(|error| error.located(&loaded.origin))?;
        }
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            _ = interrupts.next() => Ok(INTERRUPTED),
            failed = watching.run() => failed.map(|()| 0),
        }
    }
}
