//! `stack timeline`, and `up --timeline`: where the time of the last `up` went.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::{Context, require_root};
use crate::cli::table::Table;
use crate::engine::control::Event;
use crate::engine::history::{self, Entry, Kind, Step};

/// Show where the time of the last `up` went, and which steps it waited for.
#[derive(Debug, Args)]
pub(crate) struct Timeline {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Timeline {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        require_root()?;
        show(context, &target.name, self.json)?;
        Ok(0)
    }
}

/// Prints the timeline of the last `up` of a project.
pub(crate) fn show(context: &Context, project: &str, json: bool) -> Result<(), Error> {
    let entries = history::read(&context.paths, project)?;
    let Some(run) = Run::last(&entries) else {
        return Err(Error::new(format!("no `up` of project `{project}` is remembered")).hint(
            "the history begins with the first `stack up` that has something to do, and ends with `stack down`",
        ));
    };
    let mut out = context.ui.out();
    let text = if json { serde_json::to_string(&run.report())? + "\n" } else { run.text() };
    out.write_all(text.as_bytes())?;
    Ok(())
}

/// One `up`.
struct Run<'a> {
    asked: Timestamp,
    begin: Timestamp,
    end: Option<Timestamp>,
    steps: &'a [Step],
    /// Begin and end of steps.
    spans: BTreeMap<usize, (Timestamp, Option<Timestamp>)>,
    /// When containers got healthy, by name.
    healthy: BTreeMap<&'a str, Timestamp>,
}

/// A container's way to being ready, in milliseconds.
#[derive(Debug, Serialize)]
struct Row<'a> {
    container: &'a str,
    service: &'a str,
    /// From the command to the beginning of its creation or start.
    begins: f64,
    create: Option<f64>,
    start: Option<f64>,
    /// From its start to its first successful health check.
    ready: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Link<'a> {
    step: &'a str,
    milliseconds: f64,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Before the stack's own work: reading the file, images.
    preparation: f64,
    total: f64,
    finished: bool,
    containers: Vec<Row<'a>>,
    critical_path: Vec<Link<'a>>,
}

impl<'a> Run<'a> {
    fn last(entries: &'a [Entry]) -> Option<Self> {
        let first = entries.iter().rposition(|entry| matches!(entry, Entry::Begin { verb, .. } if verb == "up"))?;
        let Entry::Begin { time, asked, steps, .. } = &entries[first] else { return None };
        let mut run = Self {
            asked: asked.unwrap_or(*time),
            begin: *time,
            end: None,
            steps,
            spans: BTreeMap::new(),
            healthy: BTreeMap::new(),
        };
        for entry in &entries[first + 1..] {
            match entry {
                Entry::Start { time, step } if run.end.is_none() => {
                    run.spans.insert(*step, (*time, None));
                }
                Entry::Finish { time, step, .. } if run.end.is_none() => {
                    if let Some(span) = run.spans.get_mut(step) {
                        span.1 = Some(*time);
                    }
                }
                Entry::End { time, .. } => run.end = run.end.or(Some(*time)),
                Entry::Begin { .. } => break,
                Entry::Event(Event { time, name, action: crate::engine::control::Action::Healthy, .. }) => {
                    run.healthy.entry(name).or_insert(*time);
                }
                _ => {}
            }
        }
        Some(run)
    }

    fn report(&self) -> Report<'a> {
        let last = self.spans.values().filter_map(|span| span.1).max().unwrap_or(self.begin);
        Report {
            preparation: milliseconds(self.begin.duration_since(self.asked)),
            total: milliseconds(self.end.unwrap_or(last).duration_since(self.asked)),
            finished: self.end.is_some(),
            containers: self.rows(),
            critical_path: self.critical_path(),
        }
    }

    fn length(&self, step: &Step) -> Option<f64> {
        let (begin, end) = self.spans.get(&step.step)?;
        Some(milliseconds((*end)?.duration_since(*begin)))
    }

    fn rows(&self) -> Vec<Row<'a>> {
        let mut rows: BTreeMap<&str, Row<'a>> = BTreeMap::new();
        for step in self.steps.iter().filter(|step| matches!(step.kind, Kind::Create | Kind::Start)) {
            let Some((begin, end)) = self.spans.get(&step.step) else { continue };
            let begins = milliseconds(begin.duration_since(self.asked));
            let row = rows.entry(&step.container).or_insert_with(|| Row {
                container: &step.container,
                service: &step.service,
                begins,
                create: None,
                start: None,
                ready: None,
            });
            row.begins = row.begins.min(begins);
            if step.kind == Kind::Create {
                row.create = self.length(step);
            } else {
                row.start = self.length(step);
                let healthy = self.healthy.get(step.container.as_str());
                row.ready = healthy.zip(*end).map(|(healthy, end)| milliseconds(healthy.duration_since(end)).max(0.0));
            }
        }
        let mut rows: Vec<Row<'a>> = rows.into_values().collect();
        rows.sort_by(|a, b| a.begins.total_cmp(&b.begins));
        rows
    }

    /// From the step that ended last back to the one that began first: of what each waited for, what ended last.
    fn critical_path(&self) -> Vec<Link<'a>> {
        let ended = |step: &Step| self.spans.get(&step.step).and_then(|span| span.1);
        let mut path = Vec::new();
        let mut next = self.steps.iter().filter(|step| ended(step).is_some()).max_by_key(|step| ended(step));
        while let Some(step) = next {
            path.push(Link { step: &step.text, milliseconds: self.length(step).unwrap_or(0.0) });
            let before = self.steps.iter().filter(|other| step.after.contains(&other.step));
            next = before.max_by_key(|other| ended(other));
        }
        path.reverse();
        path
    }

    fn text(&self) -> String {
        let report = self.report();
        let mut table = Table::new(&["CONTAINER", "BEGINS", "CREATE", "START", "READY", ""]);
        let scale = report.containers.iter().map(finish).fold(report.total, f64::max).max(0.001);
        for row in &report.containers {
            table.row([
                row.container.to_owned(),
                words(Some(row.begins)),
                words(row.create),
                words(row.start),
                words(row.ready),
                bar(row, scale),
            ]);
        }
        let state = if report.finished { "took" } else { "has been under way for" };
        let (total, before) = (words(Some(report.total)), words(Some(report.preparation)));
        let path = words(Some(report.critical_path.iter().map(|link| link.milliseconds).sum()));
        let text = format!(
            "up {state} {total}, {before} of it before the first step (file, images)\n\n{}\n\
             Nothing could be shorter than these steps, one after another ({path}):\n",
            table.render()
        );
        let mut table = Table::bare();
        for link in &report.critical_path {
            table.row([format!("  {}", link.step), words(Some(link.milliseconds))]);
        }
        text + &table.render()
    }
}

/// When a container was ready, in milliseconds after the command.
fn finish(row: &Row<'_>) -> f64 {
    row.begins + row.create.unwrap_or(0.0) + row.start.unwrap_or(0.0) + row.ready.unwrap_or(0.0)
}

/// Width of the whole time in characters.
const WIDTH: f64 = 40.0;

/// A container's time within the whole: made `░`, started `█`, until ready `▒`.
fn bar(row: &Row<'_>, whole: f64) -> String {
    let cells = |time: Option<f64>| {
        let cells = time.map_or(0.0, |time| (time / whole * WIDTH).round().max(1.0));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the width")]
        let cells = cells as usize;
        cells
    };
    let before = cells(Some(row.begins)).saturating_sub(1);
    [(" ", before), ("░", cells(row.create)), ("█", cells(row.start)), ("▒", cells(row.ready))]
        .map(|(sign, count)| sign.repeat(count))
        .concat()
}

fn milliseconds(span: SignedDuration) -> f64 {
    (span.as_secs_f64() * 100_000.0).round() / 100.0
}

fn words(time: Option<f64>) -> String {
    match time {
        None => "-".to_owned(),
        Some(time) if time < 10.0 => format!("{time:.1} ms"),
        Some(time) if time < 1000.0 => format!("{time:.0} ms"),
        Some(time) => format!("{:.2} s", time / 1000.0),
    }
}
