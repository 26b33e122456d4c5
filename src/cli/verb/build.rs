//! `stack build`.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;

use crate::cli::builder::{self, Flags};
use crate::cli::error::{Error, Outcome};
use crate::cli::project::{Context, require_kernel, require_root};
use crate::cli::{bake, prepare};
use crate::images::Store;
use crate::spec::Loaded;
use crate::spec::units::ByteSize;

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
    /// Bring the images to their registries once they are built
    #[arg(long)]
    push: bool,
    /// Offer an ssh agent to RUN steps: `default`, or ID=SOCKET or ID=KEY[,KEY]; repeatable
    #[arg(long, value_name = "AGENT")]
    ssh: Vec<String>,
    /// Most memory of a RUN step, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<ByteSize>,
    /// Look over the Dockerfiles and build nothing; warnings count as failure
    #[arg(long)]
    check: bool,
    /// Print what would be built as a bake file
    #[arg(long, conflicts_with = "check")]
    print: bool,
    /// Show nothing
    #[arg(short, long)]
    quiet: bool,
    /// Also build what the services depend on
    #[arg(long)]
    with_dependencies: bool,
    /// Accepted for compatibility: there is one builder, and it is this program
    #[arg(long, value_name = "NAME", hide = true)]
    builder: Option<String>,
    /// Accepted for compatibility: images get no attestations
    #[arg(long, value_name = "KIND", hide = true)]
    provenance: Option<String>,
    /// Accepted for compatibility: images get no attestations
    #[arg(long, value_name = "KIND", hide = true)]
    sbom: Option<String>,
}

impl Build {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let loaded = context.load(&self.services)?;
        let chosen = prepare::selected(&loaded, &self.services, !self.with_dependencies)?;
        let chosen: BTreeSet<String> =
            chosen.into_iter().filter(|name| loaded.project.services[name].build.is_some()).collect();
        if self.print {
            let file = bake::file(&loaded, &chosen, &self.flags(), self.push);
            writeln!(context.ui.out(), "{file:#}")?;
            return Ok(0);
        }
        if chosen.is_empty() {
            context.ui.warn("no service to build: none of them has a `build`")?;
            return Ok(0);
        }
        if self.check {
            return self.check(context, &loaded, &chosen);
        }
        self.note(context)?;
        require_root()?;
        require_kernel()?;
        builder::build(context, &loaded, &chosen, &self.flags(), &Store::open(&context.paths.lib)?).await?;
        if self.push {
            let flags = super::push::Flags { quiet: self.quiet, ignore_failures: false };
            return super::push::push(context, &loaded, &chosen, flags).await;
        }
        Ok(0)
    }

    fn flags(&self) -> Flags {
        Flags {
            args: self.args.clone(),
            no_cache: self.no_cache,
            pull: self.pull,
            quiet: self.quiet,
            ssh: self.ssh.clone(),
            memory: self.memory.and_then(|size| u64::try_from(size.0).ok()),
        }
    }

    /// Says which flags have no effect.
    fn note(&self, context: &Context) -> Result<(), Error> {
        if let Some(name) = &self.builder {
            context.ui.warn(format!("--builder {name} has no effect: stack builds by itself"))?;
        }
        for (flag, value) in [("provenance", &self.provenance), ("sbom", &self.sbom)] {
            if value.as_ref().is_some_and(|value| value != "false") {
                context.ui.warn(format!("--{flag} has no effect: images get no attestations"))?;
            }
        }
        Ok(())
    }

    /// Looks over what would be built; the exit code says whether all is well.
    fn check(&self, context: &Context, loaded: &Loaded, services: &BTreeSet<String>) -> Outcome {
        let mut code = 0;
        for name in services {
            match builder::check(context, loaded, name, &self.flags()) {
                Ok(warnings) if warnings.is_empty() => {
                    writeln!(context.ui.out(), "{name}: Check complete, no warnings found.")?;
                }
                Ok(warnings) => {
                    let (count, plural) = (warnings.len(), if warnings.len() == 1 { "" } else { "s" });
                    writeln!(context.ui.out(), "{name}: Check complete, {count} warning{plural} found.")?;
                    warnings.iter().try_for_each(|warning| context.ui.warn(warning))?;
                    code = 1;
                }
                Err(error) => code = error.report(context.ui).max(1),
            }
        }
        Ok(code)
    }
}
