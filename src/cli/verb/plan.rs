//! `stack plan`, and what `--dry-run` shows of other verbs: what would be done and why.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};

use super::up::Changes;
use crate::cli::error::{Error, Outcome};
use crate::cli::lock;
use crate::cli::prepare;
use crate::cli::project::{Context, require_kernel, require_root};
use crate::cli::session::{open, reply};
use crate::cli::table::Table;
use crate::cli::ui::{ERROR, ProgressMode, WARNING};
use crate::engine::control::{Outlook, Reply, Request};
use crate::planner::Line;

/// Show what `up` would do, and why; change nothing.
#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// Services to bring up, with what they depend on (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    changes: Changes,
    /// Create, but don't start
    #[arg(long)]
    no_start: bool,
    /// Use exactly the images that `stack.lock` names (in CI: by itself, where the file is there)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    locked: Option<bool>,
    /// How to print: text or json
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, hide_possible_values = true)]
    format: Format,
    /// Return 2 if there is something to do, 0 if not
    #[arg(long)]
    detailed_exitcode: bool,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line per thing that happens
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// Exit code of a plan that has something to do.
const CHANGES: u8 = 2;

impl Plan {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let mut loaded = context.load(&self.services)?;
        require_root()?;
        require_kernel()?;
        lock::pin(context, &mut loaded, self.locked)?;
        let mut up = prepare::up(&loaded, &self.services, self.changes.no_deps)?;
        self.changes.apply(&mut up, &loaded)?;
        up.no_start = self.no_start;
        let outlook = outlook(context, &loaded.project.name, &Request::Up(Box::new(up))).await?;
        print(context, &outlook, self.format)?;
        Ok(if self.detailed_exitcode && outlook.changes { CHANGES } else { 0 })
    }
}

/// Prints what a request would do.
pub(crate) async fn dry_run(context: &Context, project: &str, request: &Request) -> Result<(), Error> {
    let format = if context.ui.progress == ProgressMode::Json { Format::Json } else { Format::Text };
    print(context, &outlook(context, project, request).await?, format)
}

async fn outlook(context: &Context, project: &str, request: &Request) -> Result<Outlook, Error> {
    let client = open(context, project, &Request::Plan(Box::new(request.clone())), &[]).await?;
    loop {
        match reply(&client).await?.0 {
            Reply::Plan(outlook) => return Ok(*outlook),
            Reply::Failed(failure) => return Err(failure.into()),
            _ => {}
        }
    }
}

fn print(context: &Context, outlook: &Outlook, format: Format) -> Result<(), Error> {
    let ui = context.ui;
    if format == Format::Json {
        let (warnings, problems) = (&outlook.warnings, &outlook.problems);
        let object = serde_json::json!({"steps": outlook.steps, "warnings": warnings, "problems": problems});
        writeln!(ui.out(), "{object}")?;
    } else {
        for warning in &outlook.warnings {
            ui.warn(warning)?;
        }
        ui.out().write_all(text(&outlook.lines, ui.out_colour).as_bytes())?;
        if outlook.lines.is_empty() && outlook.problems.is_empty() {
            writeln!(ui.err(), "Nothing to do: what runs is what the file says")?;
        }
    }
    if outlook.problems.is_empty() { Ok(()) } else { Err(Error::new(outlook.problems.join("\n"))) }
}

/// The lines as a table, each in the colour of its sign.
fn text(lines: &[Line], colour: bool) -> String {
    let mut table = Table::bare();
    for line in lines {
        table.row([line.text.clone(), line.cause.clone()]);
    }
    let text = table.render();
    if !colour {
        return text;
    }
    let painted = text.lines().zip(lines).map(|(text, line)| {
        let style = style(line);
        format!("{style}{text}{style:#}\n")
    });
    painted.collect()
}

fn style(line: &Line) -> Style {
    match line.text.as_bytes().first() {
        _ if line.destructive => ERROR,
        Some(b'+' | b'>') => AnsiColor::Green.on_default(),
        Some(b'~') => WARNING,
        Some(b'-') => AnsiColor::Red.on_default(),
        _ => Style::new(),
    }
}
