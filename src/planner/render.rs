//! A plan for people: one line per thing that happens, with its cause.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::action::{Action, Cause, Goal, Step};
use super::observed::State;
use super::plan::Plan;

/// One thing that happens, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What, e.g. `~ recreate api-1`.
    pub text: String,
    /// Why, e.g. `environment LOG_LEVEL: info → debug`; may be empty.
    pub cause: String,
    /// Data may be lost that nothing can bring back.
    pub destructive: bool,
}

/// Longest value that is shown whole, in characters.
const LONGEST: usize = 60;

/// One line per thing that happens, e.g. `~ recreate api-1   environment LOG_LEVEL: info → debug`. Steps that are parts
/// of one recreation or restart share a line, and containers show without the project's name.
pub fn render(project: &str, plan: &Plan) -> Vec<Line> {
    let steps = plan.steps();
    let replaced: BTreeSet<&str> = steps
        .iter()
        .filter_map(|(_, step)| match &step.action {
            Action::CreateContainer { replaces: Some(replaced), .. } => Some(replaced.id.as_str()),
            _ => None,
        })
        .collect();
    let created: BTreeSet<&str> = steps
        .iter()
        .filter_map(|(_, step)| match &step.action {
            Action::CreateContainer { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let ids = |wanted: fn(&Action) -> bool| -> BTreeSet<&str> {
        let picked = steps.iter().filter(|(_, step)| wanted(&step.action));
        picked.filter_map(|(_, step)| step.action.container()?.id.as_deref()).collect()
    };
    let stopped = ids(|action| matches!(action, Action::StopContainer { .. }));
    let started = ids(|action| matches!(action, Action::StartContainer { .. }));
    let removed = ids(|action| matches!(action, Action::RemoveContainer { .. }));

    let shown = steps.iter().filter(|(_, step)| {
        let id = step.action.container().and_then(|container| container.id.as_deref());
        match &step.action {
            Action::StopContainer { .. } => !id.is_some_and(|id| removed.contains(id) || started.contains(id)),
            Action::RemoveContainer { .. } => !id.is_some_and(|id| replaced.contains(id)),
            Action::StartContainer { container } => {
                container.id.is_some() || !created.contains(container.name.as_str())
            }
            _ => true,
        }
    });
    shown
        .map(|(_, step)| {
            let id = step.action.container().and_then(|container| container.id.as_deref());
            let restarted =
                matches!(step.action, Action::StartContainer { .. }) && id.is_some_and(|id| stopped.contains(id));
            let (text, cause) = (head(project, step, restarted), cause(&step.cause));
            Line { text, cause, destructive: step.destructive }
        })
        .collect()
}

/// One step by itself, for people.
pub fn line(project: &str, step: &Step) -> Line {
    Line { text: head(project, step, false), cause: cause(&step.cause), destructive: step.destructive }
}

fn head(project: &str, step: &Step, restarted: bool) -> String {
    let short = |name: &str| {
        let rest = name.strip_prefix(project).and_then(|rest| rest.strip_prefix('-'));
        rest.unwrap_or(name).to_owned()
    };
    let text = match &step.action {
        Action::CreateNetwork { name, .. } => format!("+ create network {name}"),
        Action::RepairNetwork { name, .. } => format!("~ repair network {name}"),
        Action::RemoveNetwork { name } => format!("- remove network {name}"),
        Action::CreateVolume { name, .. } => format!("+ create volume {name}"),
        Action::RemoveVolume { name } => format!("- remove volume {name}"),
        Action::CreateContainer { name, replaces: Some(_), .. } => format!("~ recreate {}", short(name)),
        Action::CreateContainer { name, replaces: None, .. } => format!("+ create {}", short(name)),
        Action::Prepare { container, step } => format!("> run pre_start[{step}] of {}", short(&container.name)),
        Action::StartContainer { container } if restarted => format!("~ restart {}", short(&container.name)),
        Action::StartContainer { container } => format!("> start {}", short(&container.name)),
        Action::StopContainer { container, .. } => format!("- stop {}", short(&container.name)),
        Action::RemoveContainer { container, .. } => format!("- remove {}", short(&container.name)),
        Action::KillContainer { container, signal } => format!("- kill {} with {signal}", short(&container.name)),
        Action::PauseContainer { container } => format!("~ pause {}", short(&container.name)),
        Action::UnpauseContainer { container } => format!("~ unpause {}", short(&container.name)),
        Action::WaitFor { service, goal, required, .. } => {
            let goal = match goal {
                Goal::Healthy => "is healthy",
                Goal::Completed => "has completed",
                Goal::Ready => "is ready",
            };
            let optional = if *required { "" } else { " (optional)" };
            format!(". wait until {service} {goal}{optional}")
        }
        Action::RemoveImage { image, .. } => format!("- remove image {image}"),
    };
    if step.destructive { format!("{text} and its data") } else { text }
}

fn cause(cause: &Cause) -> String {
    match cause {
        Cause::Missing => "not there yet".into(),
        Cause::Requested | Cause::Needed => String::new(),
        Cause::NotRunning { state } => match state {
            State::Created => "never started".into(),
            State::Exited { code } => format!("exited ({code})"),
            State::Paused => "paused".into(),
            State::Running | State::Restarting | State::Dead => "not running".into(),
        },
        Cause::Scale { from, to } => format!("scale: {from} → {to}"),
        Cause::Config { changes } if changes.is_empty() => "definition changed".into(),
        Cause::Config { changes } => {
            let value = |value: &Option<String>| value.as_deref().map_or_else(|| "(unset)".into(), shortened);
            let each = changes.iter();
            let texts: Vec<String> = each
                .map(|change| format!("{}: {} → {}", change.path, value(&change.from), value(&change.to)))
                .collect();
            texts.join(", ")
        }
        Cause::Image { from, to } => format!("image: {} → {}", short_id(from), short_id(to)),
        Cause::File { name } => format!("content of {} changed", name.replace(':', " ")),
        Cause::Network { name, replaced } => format!("network {name} {}", anew(*replaced)),
        Cause::Volume { name, replaced } => format!("volume {name} {}", anew(*replaced)),
        Cause::Dependency { service } => format!("{service} is made anew or restarted"),
        Cause::Forced => "--force-recreate".into(),
        Cause::Dead => "it is broken".into(),
        Cause::Orphan => "the file has no such service".into(),
        Cause::Duplicate => "another container has its number".into(),
        Cause::Drift => "it vanished from the kernel".into(),
        Cause::Unconfined => "it is not in its control group any more".into(),
    }
}

fn anew(replaced: bool) -> &'static str {
    if replaced { "is made anew" } else { "is new to it" }
}

/// A value that would bury the rest of its line loses its end.
fn shortened(value: &str) -> String {
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// The twelve digits that people compare.
fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}
