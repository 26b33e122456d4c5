//! `stack events`.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::session::{open, reply};
use crate::cli::time::parse_point;
use crate::engine::control::{Action, Event, Kind, Reply, Request};
use crate::engine::history::{self, Entry};

/// Follow what happens to the stack's containers.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Services to follow (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
    /// Begin with what happened after this time, or within a duration such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End with what happened before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

impl Events {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        target.check_services(&self.services, &context.containers(&target.name)?)?;
        let now = Timestamp::now();
        let point = |text: &Option<String>| text.as_deref().map(|text| parse_point(text, now)).transpose();
        let (since, until) = (point(&self.since)?, point(&self.until)?);
        let past = until.is_some_and(|until| until <= now);
        // Heard from before the past is read: nothing is missed in between, and what is in both is shown once.
        let client = if past { None } else { Some(open(context, &target.name, &Request::Events, &[]).await?) };
        let mut seen = None;
        if since.is_some() || past {
            let holds = |time| since.is_none_or(|since| time >= since) && until.is_none_or(|until| time <= until);
            for entry in history::read(&context.paths, &target.name)? {
                if let Entry::Event(event) = entry
                    && holds(event.time)
                {
                    seen = Some(event.time);
                    self.show(context, &event)?;
                }
            }
        }
        let Some(client) = client else { return Ok(0) };
        let follow = async {
            loop {
                if let Reply::Event(event) = reply(&client).await?.0
                    && seen.is_none_or(|seen| event.time > seen)
                {
                    self.show(context, &event)?;
                }
            }
        };
        match until.map(|until| Duration::try_from(until.duration_since(now)).unwrap_or_default()) {
            Some(left) => tokio::time::timeout(left, follow).await.unwrap_or(Ok(0)),
            None => follow.await,
        }
    }

    fn show(&self, context: &Context, event: &Event) -> Result<(), Error> {
        if event.kind == Kind::Container && (self.services.is_empty() || self.services.contains(&event.service)) {
            for action in actions(&event.action) {
                self.print(context, event, action)?;
            }
        }
        Ok(())
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
