//! Verbs of docker compose that have no counterpart here.

use clap::Args;

use crate::cli::error::{Error, Outcome};

/// Not there.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Absent {
    /// What docker compose would take
    #[arg(num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Absent {
    /// Says that there is no such verb, and what to do instead.
    pub(crate) fn run(&self, verb: &str, instead: &str) -> Outcome {
        let given: String = self.arguments.iter().flat_map(|argument| [" ", argument]).collect();
        Err(Error::new(format!("`stack {verb}{given}`: stack has no `{verb}`")).hint(instead))
    }
}
