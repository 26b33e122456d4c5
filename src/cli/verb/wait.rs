//! `stack wait`.

use std::io::Write;

use clap::Args;

use crate::cli::error::Outcome;
use crate::cli::project::Context;
use crate::cli::session::carry_out;
use crate::engine::control::{Down, Request};

/// Wait until services end; return the last one's exit code.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Services
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<String>,
    /// Take the stack down as soon as the first has ended
    #[arg(long)]
    down_project: bool,
}

impl Wait {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let request = Request::Wait { services: self.services.clone() };
        let code = carry_out(context, &target.name, &request, "wait").await?;
        writeln!(context.ui.out(), "{code}")?;
        if self.down_project {
            let project = target.loaded.map(|loaded| Box::new(loaded.project));
            let request = Request::Down(Down { project, ..Down::default() });
            carry_out(context, &target.name, &request, "down").await?;
        }
        Ok(u8::try_from(code).unwrap_or(1))
    }
}
