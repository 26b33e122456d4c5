//! `stack version`.

use std::io::Write;

use clap::{Args, ValueEnum};

use crate::cli::error::Outcome;
use crate::cli::project::Context;

/// Print the version.
#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Print the number alone
    #[arg(long)]
    short: bool,
    /// Form of the output: pretty or json
    #[arg(short, long, value_enum, default_value_t, hide_possible_values = true)]
    format: Form,
}

/// How what is short is printed.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum Form {
    /// Lines of text
    #[default]
    Pretty,
    /// JSON
    Json,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Version {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let mut out = context.ui.out();
        match self.format {
            _ if self.short => writeln!(out, "{VERSION}")?,
            Form::Pretty => writeln!(out, "stack version v{VERSION}")?,
            Form::Json => writeln!(out, "{}", serde_json::json!({ "version": format!("v{VERSION}") }))?,
        }
        Ok(0)
    }
}
