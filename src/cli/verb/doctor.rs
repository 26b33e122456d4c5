//! `stack doctor`.

use std::io::Write;

use anstyle::Style;
use clap::Args;
use unicode_width::UnicodeWidthStr;

use super::version::Form;
use crate::cli::error::Outcome;
use crate::cli::project::Context;
use crate::cli::ui;
use crate::engine::doctor::{self, Finding, Verdict};

/// Try out what stacks need of this machine: what works, what works with a loss, what is missing.
///
/// Every feature is tried and not guessed from a version; nothing stays changed. Ends with 1 if something that stacks
/// need is missing.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Show only what is not as it should be
    #[arg(short, long)]
    quiet: bool,
    /// Form of the output: pretty or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    format: Form,
}

impl Doctor {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let mut findings = doctor::examine(&context.paths);
        let count = |state| findings.iter().filter(|finding| finding.state == state).count();
        let (fine, losses, missing) = (count(Verdict::Ok), count(Verdict::Fallback), count(Verdict::Missing));
        if self.quiet {
            findings.retain(|finding| finding.state != Verdict::Ok);
        }
        let mut out = context.ui.out();
        match self.format {
            Form::Json => {
                let all = serde_json::json!({ "ok": missing == 0, "findings": findings });
                writeln!(out, "{all:#}")?;
            }
            Form::Pretty => {
                let width = findings.iter().map(|finding| finding.name.width()).max().unwrap_or(0);
                let mut area = "";
                for finding in &findings {
                    if finding.area != area {
                        area = finding.area;
                        writeln!(out, "{area}")?;
                    }
                    line(&mut out, context, finding, width)?;
                }
                if !self.quiet {
                    writeln!(out, "{fine} fine, {losses} with a loss, {missing} missing")?;
                }
            }
        }
        Ok(u8::from(missing > 0))
    }
}

fn line(out: &mut impl Write, context: &Context, finding: &Finding, width: usize) -> std::io::Result<()> {
    let (sign, style) = match finding.state {
        Verdict::Ok => ("✔", ui::GOOD),
        Verdict::Fallback => ("!", ui::WARNING),
        Verdict::Missing => ("✘", ui::ERROR),
    };
    let paint = |style: Style, text: &str| context.ui.styled_out(style, text);
    let blanks = " ".repeat(width - finding.name.width());
    writeln!(out, "  {} {}{blanks}   {}", paint(style, sign), finding.name, finding.detail)?;
    if let Some(remedy) = &finding.remedy {
        writeln!(out, "    {:width$}   {} {remedy}", "", paint(ui::HELP, "help:"))?;
    }
    Ok(())
}
