//! `stack events`.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use serde_json::json;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::session::{open, reply};
use crate::engine::control::{Action, Event, Kind, Reply, Request};

/// Follow what happens to the stack's containers.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Services to follow (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        target.check_services(&self.services, &context.containers(&target.name)?)?;
        let client = open(context, &target.name, &Request::Events, &[]).await?;
        loop {
            if let Reply::Event(event) = reply(&client).await?.0
                && event.kind == Kind::Container
                && (self.services.is_empty() || self.services.contains(&event.service))
            {
                for action in actions(&event.action) {
                    self.print(context, &event, action)?;
                }
            }
        }
    }

    fn print(&self, context: &Context, event: &Event, action: &str) -> Result<(), Error> {
        let mut attributes = BTreeMap::from([("name", event.name.clone())]);
        if let Action::Died { code, .. } = event.action {
            attributes.insert("exitCode", code.to_string());
        }
        let mut out = context.ui.out();
        if self.json {
            let line = json!({
                "time": format!("{:.9}", event.time),
                "type": "container",
                "service": event.service,
                "id": event.id,
                "action": action,
                "attributes": attributes,
            });
            writeln!(out, "{line}")?;
        } else {
            let attributes: Vec<String> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            writeln!(out, "{:.6} container {action} {} ({})", event.time, event.id, attributes.join(", "))?;
        }
        Ok(out.flush()?)
    }
}

/// Docker's words for what happened; none for what is only under way.
fn actions(action: &Action) -> &'static [&'static str] {
    match action {
        Action::Created => &["create"],
        Action::Started => &["start"],
        Action::Restarted => &["restart"],
        Action::Died { .. } => &["die"],
        Action::Stopped => &["stop"],
        Action::Killed => &["kill"],
        Action::Paused => &["pause"],
        Action::Unpaused => &["unpause"],
        Action::Removed => &["destroy"],
        Action::Healthy => &["health_status: healthy"],
        Action::Unhealthy => &["health_status: unhealthy"],
        _ => &[],
    }
}
