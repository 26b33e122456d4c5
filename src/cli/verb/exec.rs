//! `stack exec`.

use clap::Args;

use crate::cli::error::{Error, Outcome};
use crate::cli::process::{self, Front};
use crate::cli::project::Context;
use crate::cli::select;
use crate::cli::session::{open, reply};
use crate::cli::terminal;
use crate::engine::control::{self, Reply, Request};
use crate::engine::state::Status;

/// Run a command in a running container.
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Don't wait for it
    #[arg(short, long)]
    detach: bool,
    /// Set a variable, NAME=VALUE; repeatable
    #[arg(short, long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// The service's container of this number
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// No terminal; by default there is one if the command is run from one
    #[arg(short = 'T', long = "no-tty", alias = "no-TTY")]
    no_tty: bool,
    /// Keep standard input open; accepted for compatibility, it always is
    #[arg(short, long, hide = true)]
    interactive: bool,
    /// Take a terminal; accepted for compatibility
    #[arg(short, long, hide = true)]
    tty: bool,
    /// With all capabilities
    #[arg(long)]
    privileged: bool,
    /// As this user, name or number
    #[arg(short, long)]
    user: Option<String>,
    /// In this folder
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Service, and the command to run in it
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_names = ["SERVICE", "COMMAND"])]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let Some((service, args)) = self.command.split_first().filter(|(_, args)| !args.is_empty()) else {
            return Err(Error::new("`stack exec` needs a service and a command"));
        };
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        let container = select::running(&target, &containers, service, self.index)?;
        if container.state.status == Status::Paused {
            return Err(Error::new(format!("container `{}` is paused", container.record.name))
                .hint(format!("let it go on with `stack unpause {service}`")));
        }
        let front = Front::new(self.no_tty || self.detach, true);
        let request = Request::Exec(control::Exec {
            container: container.record.id.clone(),
            args: args.to_vec(),
            env: process::environment(&self.env)?,
            user: self.user.clone(),
            cwd: self.workdir.clone(),
            tty: front.tty,
            size: terminal::size_of_screen(),
            privileged: self.privileged,
            detach: self.detach,
        });
        if !self.detach {
            return front.run(context, &target.name, &request, |_, _| {}).await;
        }
        let client = open(context, &target.name, &request, &[]).await?;
        match reply(&client).await?.0 {
            Reply::Failed(failure) => Err(failure.into()),
            _ => Ok(0),
        }
    }
}
