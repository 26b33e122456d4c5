//! `stack logs`.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;

use crate::cli::error::{Error, Outcome};
use crate::cli::prefix::{Look, Printer, short_name};
use crate::cli::project::Context;
use crate::cli::select;
use crate::cli::time;
use crate::engine::changes::Changes;
use crate::engine::logs::{LogLine, Logs as Files, Start};
use crate::engine::state::{Container, Status};

/// Show what containers wrote.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Services to show (default: all)
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
    /// Go on with what comes, until the containers end
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the service's container of this number
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Only lines after this time, or newer than a duration such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only so many lines from the end of each log; `all` means all
    #[arg(short = 'n', long, value_name = "N")]
    tail: Option<String>,
    /// Say when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// No colours
    #[arg(long)]
    no_color: bool,
    /// No container names
    #[arg(long)]
    no_log_prefix: bool,
}

/// Which lines to show.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: Start,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Window {
    fn holds(&self, line: &LogLine) -> bool {
        self.since.is_none_or(|since| line.time >= since) && self.until.is_none_or(|until| line.time <= until)
    }
}

impl Logs {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let window = self.window()?;
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let chosen: Vec<&Container> = containers.iter().filter(|container| self.wants(container)).collect();
        let look = Look { colour: !self.no_color, prefix: !self.no_log_prefix, timestamps: self.timestamps };
        let names: Vec<String> = chosen.iter().map(|container| short_name(&container.record)).collect();
        let printer = Printer::new(context.ui, look, names.iter().cloned());
        let mut files = Files::new()?;
        for (key, container) in chosen.iter().enumerate() {
            files.add(key, &context.paths.log(&container.record.id), window.start)?;
        }
        let mut view = View { window, names, printer, files };
        view.catch_up()?;
        if self.follow {
            self.follow(context, &target.name, &chosen, &mut view).await?;
        } else {
            for key in 0..view.names.len() {
                view.finish(key)?;
            }
        }
        view.printer.flush()?;
        Ok(0)
    }

    /// Shows what comes until every container has ended.
    async fn follow(
        &self,
        context: &Context,
        project: &str,
        chosen: &[&Container],
        view: &mut View,
    ) -> Result<(), Error> {
        let states = context.paths.run_states(project);
        let changes = Changes::new()?;
        if states.is_dir() {
            changes.watch(&states)?;
        }
        let mut open: BTreeMap<&str, usize> =
            chosen.iter().enumerate().map(|(key, container)| (container.record.id.as_str(), key)).collect();
        loop {
            // The states are read before the logs: what was written before an end is then seen to its last line.
            let now = context.containers(project)?;
            view.catch_up()?;
            // A container that is not started yet may have a step of `pre_start` that writes.
            let ended = |id: &str| now.iter().filter(|container| container.record.log_id() == id).all(has_ended);
            for key in open.extract_if(.., |id, _| ended(id)).map(|(_, key)| key).collect::<Vec<_>>() {
                view.finish(key)?;
            }
            view.printer.flush()?;
            if open.is_empty() {
                return Ok(());
            }
            loop {
                tokio::select! {
                    changed = view.files.changed() => changed?,
                    changed = changes.next() => break changed?,
                }
                view.catch_up()?;
                view.printer.flush()?;
            }
        }
    }

    fn wants(&self, container: &Container) -> bool {
        let record = &container.record;
        (self.services.is_empty() || self.services.contains(&record.service))
            && record.prepares.is_none()
            && self.index.is_none_or(|number| record.number == number && !record.oneoff)
    }

    fn window(&self) -> Result<Window, Error> {
        let now = Timestamp::now();
        let start = match self.tail.as_deref() {
            None | Some("all" | "-1") => Start::Oldest,
            Some(text) => Start::Tail(text.parse().map_err(|_| {
                Error::new(format!("invalid number of lines `{text}`")).hint("write a number, or `all`")
            })?),
        };
        let point = |text: &Option<String>| text.as_deref().map(|text| time::parse_point(text, now)).transpose();
        Ok(Window { start, since: point(&self.since)?, until: point(&self.until)? })
    }
}

fn has_ended(container: &Container) -> bool {
    !select::is_up(container) && container.state.status != Status::Restarting
}

/// The log files and how they are printed.
struct View {
    window: Window,
    names: Vec<String>,
    printer: Printer,
    files: Files,
}

impl View {
    /// Prints all lines written so far.
    fn catch_up(&mut self) -> Result<(), Error> {
        while let Some((key, line)) = self.files.next_line()? {
            self.print(key, &line)?;
        }
        Ok(())
    }

    /// Prints what is left of a log that will not grow.
    fn finish(&mut self, key: usize) -> Result<(), Error> {
        self.files.rest(key).iter().try_for_each(|line| self.print(key, line))
    }

    fn print(&mut self, key: usize, line: &LogLine) -> Result<(), Error> {
        if self.window.holds(line) {
            self.printer.line(&self.names[key], line)?;
        }
        Ok(())
    }
}
