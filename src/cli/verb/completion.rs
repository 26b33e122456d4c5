//! `stack completion`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use clap_complete::Shell;

use crate::cli::args;
use crate::cli::error::Outcome;
use crate::cli::project::Context;

/// Print a script that completes command lines.
#[derive(Debug, Args)]
#[command(after_help = "For this shell only:  source <(stack completion bash)\n\
For good:  stack completion bash >/etc/bash_completion.d/stack")]
pub(crate) struct Completion {
    /// Shell: bash, zsh, fish, elvish or powershell; or man for the manual page
    #[arg(value_enum, hide_possible_values = true)]
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
    /// The manual page, for packages
    #[value(hide = true)]
    Man,
}

impl Completion {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let mut command = args::command();
        let mut text = Vec::new();
        let shell = match self.form {
            Form::Bash => Shell::Bash,
            Form::Zsh => Shell::Zsh,
            Form::Fish => Shell::Fish,
            Form::Elvish => Shell::Elvish,
            Form::Powershell => Shell::PowerShell,
            Form::Man => {
                manual(command, &mut text)?;
                context.ui.out().write_all(&text)?;
                return Ok(0);
            }
        };
        clap_complete::generate(shell, &mut command, "stack", &mut text);
        context.ui.out().write_all(&text)?;
        Ok(0)
    }
}

/// The page of `stack` with a section for each verb's options.
fn manual(command: clap::Command, out: &mut Vec<u8>) -> io::Result<()> {
    let mut command = command.help_template("{about}");
    command.build();
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(out)?;
    page.render_name_section(out)?;
    page.render_synopsis_section(out)?;
    page.render_description_section(out)?;
    page.render_options_section(out)?;
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let page = clap_mangen::Man::new(verb.clone());
        let name = verb.get_name().to_uppercase();
        writeln!(out, ".SH STACK {name}")?;
        let mut section = Vec::new();
        page.render_synopsis_section(&mut section)?;
        page.render_description_section(&mut section)?;
        page.render_options_section(&mut section)?;
        // Its sections are parts of the verb's.
        out.extend(String::from_utf8_lossy(&section).replace(".SH ", ".SS ").into_bytes());
    }
    Ok(())
}
