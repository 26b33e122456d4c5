//! `stack why`: what state services are in, and how they came there.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::cli::error::Outcome;
use crate::cli::project::Context;
use crate::cli::select::of_services;
use crate::cli::table::Table;
use crate::cli::time;
use crate::engine::history::{self, Entry, Kind, Step};
use crate::engine::state::{Container, Health, Probe, Status};

/// Explain the state of services: why they run, wait, ended or were made anew.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// Services to explain (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

impl Why {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let past = Past::new(history::read(&context.paths, &target.name)?);
        let mut out = context.ui.out();
        let mut table = Table::bare();
        for container in of_services(&containers, &self.services) {
            let name = &container.record.name;
            let mut sentences = past.explain(container, &containers);
            // The same for most services: for those who ask for one.
            sentences.extend(host_access(container).filter(|_| !self.services.is_empty()));
            if self.json {
                let state = container.state.status.to_string();
                writeln!(
                    out,
                    "{}",
                    json!({"name": name, "service": container.record.service, "state": state, "because": sentences})
                )?;
                continue;
            }
            for (number, sentence) in sentences.into_iter().enumerate() {
                table.row([if number == 0 { name.clone() } else { String::new() }, sentence]);
            }
        }
        write!(out, "{}", table.render())?;
        for name in &self.services {
            if of_services(&containers, std::slice::from_ref(name)).next().is_none() {
                writeln!(context.ui.err(), "{name} has no container: `stack plan {name}` shows what `up` would do")?;
            }
        }
        Ok(0)
    }
}

/// What is remembered.
struct Past {
    entries: Vec<Entry>,
    now: Timestamp,
}

/// A step of the last command, and how it went.
struct Taken<'a> {
    step: &'a Step,
    begun: bool,
    ended: bool,
    error: Option<&'a str>,
}

impl Past {
    fn new(entries: Vec<Entry>) -> Self {
        Self { entries, now: Timestamp::now() }
    }

    /// What there is to say of a container, the most important first.
    fn explain(&self, container: &Container, all: &[Container]) -> Vec<String> {
        let state = &container.state;
        let ago =
            |time: Option<Timestamp>| time.map_or_else(String::new, |time| format!(", {}", within(time, self.now)));
        let mut said = match state.status {
            Status::Created => vec![self.not_started(container, all)],
            Status::Running => vec![format!("runs{}{}", healthy(state.health), ago(state.started))],
            Status::Paused => vec!["is frozen: `stack unpause` lets it go on".to_owned()],
            Status::Restarting => vec![format!(
                "ended with {} and will be started again by its policy `{}` (restart {})",
                code(container),
                policy(container),
                state.restarts
            )],
            Status::Exited => vec![format!("{}{}", ended(container), ago(state.finished))],
            Status::Dead => vec!["is broken: `stack up` makes it anew".to_owned()],
        };
        if let Some(probe) = state.probe.as_ref().filter(|_| state.health != Health::Healthy) {
            said.push(format!("its last health check {}", failed(probe)));
        }
        if let Some(what) = state.waits_for.as_ref().filter(|_| state.status == Status::Running) {
            said.push(format!("it is ready only after {what}"));
        }
        if state.status == Status::Running && state.restarts > 0 {
            said.push(format!("its policy `{}` has started it again {} times", policy(container), state.restarts));
        }
        if let Some(error) = &state.error {
            said.push(format!("it could not be started: {error}"));
        }
        said.extend(self.made(container));
        said
    }

    /// Why it was made, as far as that is remembered.
    fn made(&self, container: &Container) -> Option<String> {
        let (verb, step) = self.entries.iter().rev().find_map(|entry| {
            let Entry::Begin { verb, steps, .. } = entry else { return None };
            let made = |step: &&Step| step.kind == Kind::Create && step.container == container.record.name;
            steps.iter().find(made).map(|step| (verb, step))
        })?;
        let what = if step.text.starts_with('~') { "was recreated" } else { "was made" };
        let when = within(container.record.created, self.now);
        let because = if step.cause.is_empty() { String::new() } else { format!(" because: {}", step.cause) };
        Some(format!("it {what} by `{verb}` {when}{because}"))
    }

    /// The steps of the last command that had a plan.
    fn last(&self) -> Vec<Taken<'_>> {
        let Some(first) = self.entries.iter().rposition(|entry| matches!(entry, Entry::Begin { .. })) else {
            return Vec::new();
        };
        let Entry::Begin { steps, .. } = &self.entries[first] else { return Vec::new() };
        let mut taken: Vec<Taken<'_>> =
            steps.iter().map(|step| Taken { step, begun: false, ended: false, error: None }).collect();
        for entry in &self.entries[first + 1..] {
            let (number, ended, error) = match entry {
                Entry::Start { step, .. } => (*step, false, None),
                Entry::Finish { step, error, .. } => (*step, true, error.as_deref()),
                _ => continue,
            };
            if let Some(taken) = taken.iter_mut().find(|taken| taken.step.step == number) {
                taken.begun = true;
                taken.ended = ended;
                taken.error = error;
            }
        }
        taken
    }

    /// Why a container that exists was never started.
    fn not_started(&self, container: &Container, all: &[Container]) -> String {
        let taken = self.last();
        let start =
            taken.iter().find(|taken| taken.step.kind == Kind::Start && taken.step.container == container.record.name);
        let Some(start) = start else { return "was made and never started: `stack start` does".to_owned() };
        let waits = || {
            taken.iter().filter(|taken| start.step.after.contains(&taken.step.step) && taken.step.kind == Kind::Wait)
        };
        if let Some(failed) = waits().find(|wait| wait.error.is_some()) {
            return format!("was not started: {}", failed.error.unwrap_or_default());
        }
        let waiting: Vec<String> = waits()
            .filter(|wait| !wait.ended)
            .map(|wait| format!("{} ({})", wait.step.service, condition(&wait.step.service, all)))
            .collect();
        if !waiting.is_empty() {
            return format!("is waiting for {}", waiting.join(", "));
        }
        let before = taken.iter().filter(|taken| start.step.after.contains(&taken.step.step));
        match before.into_iter().find(|taken| taken.error.is_some() || !taken.ended) {
            Some(Taken { step, error: Some(error), .. }) => format!("was not started: {} failed: {error}", step.text),
            Some(Taken { step, begun: true, .. }) => format!("is waiting for another step: {}", step.text),
            Some(Taken { step, .. }) => format!("was not started: it comes after another step: {}", step.text),
            None => "is about to be started".to_owned(),
        }
    }
}

/// How long ago, as a part of a sentence.
fn within(time: Timestamp, now: Timestamp) -> String {
    let ago = time::ago(time, now);
    let mut letters = ago.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// What it meets at the host's own addresses.
fn host_access(container: &Container) -> Option<String> {
    let record = &container.record;
    let asks = record.config.extra_hosts.iter().find(|entry| entry.ends_with("host-gateway"));
    let runs = matches!(container.state.status, Status::Running | Status::Paused) && !record.endpoints.is_empty();
    runs.then(|| match asks {
        Some(entry) => format!("it may reach services of the host: its `extra_hosts` have `{entry}`"),
        None => "services of the host refuse it, published ports aside, until its `extra_hosts` have \
                 `host.docker.internal:host-gateway`"
            .to_owned(),
    })
}

/// What a service is like that another one waits for.
fn condition(service: &str, all: &[Container]) -> String {
    let named = [service.to_owned()];
    let states = of_services(all, &named).map(|container| {
        let state = &container.state;
        let mut text = match state.health {
            Health::Starting => "starting".to_owned(),
            Health::Unhealthy => "unhealthy".to_owned(),
            Health::None | Health::Healthy => state.status.to_string(),
        };
        if let Some(what) = state.waits_for.as_ref().filter(|_| state.status == Status::Running) {
            text.extend([": it waits for ", what]);
        }
        if let Some(probe) = &state.probe {
            text.extend([": its last health check ", &failed(probe)]);
        }
        text
    });
    states.collect::<Vec<_>>().join("; ")
}

fn healthy(health: Health) -> &'static str {
    match health {
        Health::None => "",
        Health::Starting => ", its health is not known yet",
        Health::Healthy => " and is healthy",
        Health::Unhealthy => " and is unhealthy",
    }
}

/// How a health check failed.
fn failed(probe: &Probe) -> String {
    let how = probe.code.map_or_else(|| "took too long".to_owned(), |code| format!("ended with exit code {code}"));
    match probe.output.lines().next_back() {
        Some(last) if !last.is_empty() => format!("{how}, its last words: {last}"),
        _ => how,
    }
}

fn code(container: &Container) -> String {
    format!("exit code {}", container.state.exit_code)
}

fn policy(container: &Container) -> String {
    let config = &container.record.config;
    let deployed = || {
        let policy = config.deploy.as_ref()?.restart_policy.as_ref()?;
        Some(policy.condition.clone().unwrap_or_else(|| "any".to_owned()))
    };
    config.restart.clone().or_else(deployed).unwrap_or_else(|| "no".to_owned())
}

/// How a container ended.
fn ended(container: &Container) -> String {
    let (state, config) = (&container.state, &container.record.config);
    if state.oom_killed {
        let deployed = || config.deploy.as_ref()?.resources.as_ref()?.limits.as_ref()?.memory;
        let limit = config.mem_limit.or_else(deployed).map(|limit| format!(" of {}", size(limit.0)));
        return format!(
            "{}: killed by the kernel for want of memory: it reached the limit{}",
            code(container),
            limit.unwrap_or_default()
        );
    }
    let by = if state.stopped_by_user { "a command stopped it" } else { "it ended by itself" };
    let signal = match state.exit_code - 128 {
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        6 => " (SIGABRT)",
        _ => "",
    };
    format!("{}{signal}: {by}", code(container))
}

/// A number of bytes in the largest unit that divides it.
fn size(bytes: i64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit && bytes % unit == 0) {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None => format!("{bytes} bytes"),
    }
}
