//! What this machine can do for stacks: every feature tried, not guessed from a version.
//!
//! [`examine`] asks in the order of a start: who runs it and where state is kept (`machine`), file systems and processes
//! (`kernel`), control groups (`groups`), the network. Nothing stays changed.

mod groups;
mod kernel;
mod machine;
mod network;

use std::fmt::Display;

use serde::Serialize;

use super::paths::Paths;

/// How a feature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is there.
    Ok,
    /// Stacks run without it; what is lost is said.
    Fallback,
    /// No stack, or none that asks for it, can start.
    Missing,
}

/// One feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is part of.
    pub area: &'static str,
    /// The feature.
    pub name: String,
    /// How it stands.
    pub state: Verdict,
    /// What was found; with a fallback what is lost.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn new(area: &'static str, name: impl Into<String>, state: Verdict, detail: impl Into<String>) -> Self {
        Self { area, name: name.into(), state, detail: detail.into(), remedy: None }
    }

    fn ok(area: &'static str, name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(area, name, Verdict::Ok, detail)
    }

    /// Ok, or a fallback with this loss.
    fn or_loss(self, there: bool, loss: impl Into<String>) -> Self {
        if there { self } else { Self { state: Verdict::Fallback, detail: loss.into(), ..self } }
    }

    /// Ok, or missing for this reason.
    fn required<T, E: Display>(self, result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => self,
            Err(e) => Self { state: Verdict::Missing, detail: e.to_string(), ..self },
        }
    }

    /// What to do unless it is ok.
    fn remedy(self, remedy: impl Into<String>) -> Self {
        let remedy = (self.state != Verdict::Ok).then(|| remedy.into());
        Self { remedy, ..self }
    }
}

/// Tries everything. The caller must have one thread only, since processes are cloned.
pub fn examine(paths: &Paths) -> Vec<Finding> {
    let mut findings = machine::examine(paths);
    findings.extend(kernel::examine(paths));
    findings.extend(groups::examine());
    findings.extend(network::examine());
    findings
}
