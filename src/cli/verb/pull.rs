//! `stack pull`.

use clap::Args;

use crate::cli::error::{Error, Outcome};
use crate::cli::policy::{self, Policy, Wants};
use crate::cli::project::Context;
use crate::cli::registry::{self, Chosen, Wanted};
use crate::images::Store;

/// Fetch the images of services.
#[derive(Debug, Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    chosen: Chosen,
    /// Leave out services that are built
    #[arg(long)]
    ignore_buildable: bool,
    /// Pull what can be pulled; a failure is a warning
    #[arg(long)]
    ignore_pull_failures: bool,
    /// When to pull: always or missing
    #[arg(long, value_name = "WHEN", value_parser = ["always", "missing"])]
    policy: Option<String>,
    /// Pull for this platform, such as linux/arm64, instead of each service's
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Accepted for compatibility: images are pulled side by side
    #[arg(long, hide = true)]
    no_parallel: bool,
}

impl Pull {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let (loaded, chosen) = self.chosen.load(context)?;
        let store = Store::open(&context.paths.lib)?;
        let mut wanted = Wants::new();
        for (name, service) in loaded.project.services.iter().filter(|(name, _)| chosen.contains(*name)) {
            let Some(image) = &service.image else { continue };
            let policy = Policy::of(self.policy.as_deref().or(service.pull_policy.as_deref()))?;
            let buildable = service.build.is_some() && self.ignore_buildable;
            if buildable || image == "stack/host" || !policy.pulls_on_demand(&store, image)? {
                continue;
            }
            let platform = self.platform.clone().or_else(|| service.platform.clone());
            wanted.entry((image.clone(), platform)).or_default().push((name, service));
        }
        let images = wanted.keys().map(|(image, platform)| policy::wanted(image, platform.as_deref()));
        let images: Vec<Wanted> = images.collect::<Result<_, _>>()?;
        let pulled = registry::pull(context.ui, self.chosen.quiet, &store, images).await?;
        let (mut to_build, mut code) = (Vec::new(), 0);
        for (((image, _), services), result) in wanted.iter().zip(pulled) {
            let Err(error) = result else { continue };
            let error = Error::from(error).context(format!("cannot pull `{image}` for {}", policy::list(services)));
            if services.iter().all(|(_, service)| service.build.is_some()) {
                to_build.extend(services.iter().map(|(name, _)| *name));
            } else if self.ignore_pull_failures {
                context.ui.warn(error.message())?;
            } else {
                code = error.report(context.ui).max(code);
            }
        }
        if !to_build.is_empty() {
            context.ui.warn(format!("not found, but can be built: stack build {}", to_build.join(" ")))?;
        }
        Ok(code)
    }
}
