//! `stack create` and `stack scale`: `up` without its start, or with other numbers.

use clap::Args;

use crate::cli::error::Outcome;
use crate::cli::lock;
use crate::cli::prepare::{self, ImageFlags};
use crate::cli::project::{Context, require_kernel, require_root};
use crate::cli::session::{carry_out, with_consent};
use crate::engine::control::{self, Request};

/// Create containers without starting them.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Services to create, with what they depend on (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    images: ImageFlags,
    #[command(flatten)]
    changes: super::up::Changes,
    /// Agree to changes that lose data
    #[arg(short, long)]
    yes: bool,
}

/// Set how many containers services have.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// Services and their numbers
    #[arg(required = true, value_name = "SERVICE=N")]
    numbers: Vec<String>,
    /// Leave what the services depend on alone
    #[arg(long)]
    no_deps: bool,
    /// Agree to changes that lose data
    #[arg(short, long)]
    yes: bool,
}

impl Create {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let mut loaded = context.load(&self.services)?;
        require_root()?;
        require_kernel()?;
        lock::pin(context, &mut loaded, self.images.locked)?;
        let no_deps = self.changes.no_deps;
        let mut up = prepare::up(&loaded, &self.services, no_deps)?;
        self.changes.apply(&mut up, &loaded)?;
        let chosen = prepare::selected(&loaded, &self.services, no_deps)?;
        prepare::images(context, &loaded, &chosen, &self.images).await?;
        up.no_start = true;
        up.yes = self.yes;
        bring_up(context, &loaded.project.name, up, "create").await
    }
}

impl Scale {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let names: Vec<String> =
            self.numbers.iter().map(|pair| pair.split('=').next().unwrap_or_default().to_owned()).collect();
        let mut loaded = context.load(&names)?;
        let scale = prepare::scale(&loaded, &self.numbers)?;
        require_root()?;
        require_kernel()?;
        lock::pin(context, &mut loaded, None)?;
        let mut up = prepare::up(&loaded, &names, self.no_deps)?;
        up.scale = scale;
        let chosen = prepare::selected(&loaded, &names, self.no_deps)?;
        prepare::images(context, &loaded, &chosen, &ImageFlags::default()).await?;
        up.yes = self.yes;
        bring_up(context, &loaded.project.name, up, "scale").await
    }
}

async fn bring_up(context: &Context, project: &str, up: control::Up, verb: &'static str) -> Outcome {
    let carried = async |up| carry_out(context, project, &Request::Up(Box::new(up)), verb).await;
    with_consent(up, carried).await.map(|_| 0)
}
