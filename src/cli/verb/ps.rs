//! `stack ps`.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::select::is_up;
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::cli::time;
use crate::engine::state::{Container, Health, Published, Status};

/// List containers.
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Services to list (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Also those that have ended, and one-off containers
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Print names of services only
    #[arg(long = "services", id = "list_services")]
    names: bool,
    /// Only containers in this state: created, running, paused, restarting, exited, dead; repeatable
    #[arg(long, value_name = "STATE")]
    status: Vec<String>,
    /// Only containers that match, `status=STATE`
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Form of the output: table, json or a template such as `{{.Name}}`
    #[arg(long, value_name = "FORM")]
    format: Option<String>,
    /// Don't shorten
    #[arg(long)]
    no_trunc: bool,
    /// Include services that the file does not have
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", hide_possible_values = true)]
    orphans: bool,
}

impl Ps {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let format = Format::parse(self.format.as_deref())?;
        let states = self.states()?;
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let known =
            |service: &String| target.loaded.as_ref().is_none_or(|loaded| loaded.all_services.contains(service));
        let chosen: Vec<&Container> = containers
            .iter()
            .filter(|container| {
                let record = &container.record;
                let wanted = if states.is_empty() {
                    self.all || is_up(container) || container.state.status == Status::Restarting
                } else {
                    states.contains(&container.state.status.to_string())
                };
                wanted
                    && (self.all || !record.oneoff)
                    && (self.services.is_empty() || self.services.contains(&record.service))
                    && (self.orphans || known(&record.service))
            })
            .collect();
        let mut out = context.ui.out();
        if self.quiet {
            chosen.iter().try_for_each(|container| writeln!(out, "{}", container.record.id))?;
        } else if self.names {
            let names: BTreeSet<&str> = chosen.iter().map(|container| container.record.service.as_str()).collect();
            names.iter().try_for_each(|name| writeln!(out, "{name}"))?;
        } else {
            out.write_all(self.render(&format, &chosen)?.as_bytes())?;
        }
        Ok(0)
    }

    fn render(&self, format: &Format, containers: &[&Container]) -> Result<String, Error> {
        let now = Timestamp::now();
        let rows = || containers.iter().map(|container| row(container, now, self.no_trunc));
        Ok(match format {
            Format::Table => {
                let mut table = Table::new(&["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]);
                for container in containers {
                    let record = &container.record;
                    table.row([
                        record.name.clone(),
                        record.image.clone(),
                        command(&record.process.args, self.no_trunc),
                        record.service.clone(),
                        time::ago(record.created, now),
                        status(container, now),
                        ports(container),
                    ]);
                }
                table.render()
            }
            Format::Json => rows().map(|row| Value::Object(row).to_string() + "\n").collect(),
            Format::Template { parts, header } => template::render(parts, *header, &rows().collect::<Vec<_>>())?,
        })
    }

    /// The states of `--status` and `--filter`.
    fn states(&self) -> Result<BTreeSet<String>, Error> {
        const STATES: [&str; 6] = ["created", "running", "paused", "restarting", "exited", "dead"];
        let mut states = self.status.clone();
        for filter in &self.filter {
            let state = filter.strip_prefix("status=").ok_or_else(|| {
                Error::new(format!("unsupported filter `{filter}`")).hint("the only filter is `status=STATE`")
            })?;
            states.push(state.to_owned());
        }
        match states.iter().find(|state| !STATES.contains(&state.as_str())) {
            Some(bad) => {
                Err(Error::new(format!("invalid state `{bad}`")).hint(format!("the states are {}", STATES.join(", "))))
            }
            None => Ok(states.into_iter().collect()),
        }
    }
}

/// Docker compose's fields.
fn row(container: &Container, now: Timestamp, whole: bool) -> Row {
    let (record, state) = (&container.record, &container.state);
    let labels: Vec<String> = record.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mounts: Vec<&str> = record.mounts.iter().map(|mount| mount.source.as_str()).collect();
    let networks: Vec<&str> = record.endpoints.iter().map(|endpoint| endpoint.network.as_str()).collect();
    let volumes = record.mounts.iter().filter(|mount| mount.kind == "volume").count();
    let publishers: Vec<Value> = state
        .ports
        .iter()
        .map(|port| {
            json!({
                "URL": port.host_ip,
                "TargetPort": port.target,
                "PublishedPort": port.host_port,
                "Protocol": port.protocol,
            })
        })
        .collect();
    let id = if whole { record.id.as_str() } else { record.id.get(..12).unwrap_or(&record.id) };
    let health = match state.health {
        Health::None => "",
        Health::Starting => "starting",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
    };
    let fields = [
        ("Command", json!(command(&record.process.args, whole))),
        ("Created", json!(record.created.as_second())),
        ("CreatedAt", json!(time::created_at(record.created))),
        ("ExitCode", json!(state.exit_code)),
        ("Health", json!(health)),
        ("ID", json!(id)),
        ("Image", json!(record.image)),
        ("Labels", json!(labels.join(","))),
        ("LocalVolumes", json!(volumes.to_string())),
        ("Mounts", json!(mounts.join(","))),
        ("Name", json!(record.name)),
        ("Names", json!(record.name)),
        ("Networks", json!(networks.join(","))),
        ("Ports", json!(ports(container))),
        ("Project", json!(record.project)),
        ("Publishers", json!(publishers)),
        ("RunningFor", json!(time::ago(record.created, now))),
        ("Service", json!(record.service)),
        ("Size", json!("0B")),
        ("State", json!(state.status.to_string())),
        ("Status", json!(status(container, now))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The arguments in quotes, cut to 20 characters unless `whole`.
fn command(args: &[String], whole: bool) -> String {
    let text = args.join(" ");
    if whole || text.chars().count() <= 20 {
        return format!("\"{text}\"");
    }
    format!("\"{}…\"", text.chars().take(19).collect::<String>())
}

/// `Up 3 seconds (healthy)`, `Exited (1) 2 minutes ago`.
pub(crate) fn status(container: &Container, now: Timestamp) -> String {
    let state = &container.state;
    let since = |time: Option<Timestamp>| time::words(now.duration_since(time.unwrap_or(now)));
    let health = match state.health {
        Health::None => "",
        Health::Starting => " (health: starting)",
        Health::Healthy => " (healthy)",
        Health::Unhealthy => " (unhealthy)",
    };
    match state.status {
        Status::Created => "Created".into(),
        Status::Running => format!("Up {}{health}", since(state.started)),
        Status::Paused => format!("Up {} (Paused)", since(state.started)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished)),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished)),
        Status::Dead => "Dead".into(),
    }
}

/// `0.0.0.0:8080-8081->80-81/tcp, 82/tcp`: published ports, then those only exposed.
fn ports(container: &Container) -> String {
    let published = &container.state.ports;
    // First and last of ports that follow on each other.
    let mut ranges: Vec<(&Published, &Published)> = Vec::new();
    for port in published.iter().filter(|port| port.host_port != 0) {
        let follows = |(_, last): &&mut (&Published, &Published)| {
            let next = (last.host_port.checked_add(1), last.target.checked_add(1));
            let same = (&last.host_ip, &last.protocol) == (&port.host_ip, &port.protocol);
            same && next == (Some(port.host_port), Some(port.target))
        };
        match ranges.iter_mut().rev().find(follows) {
            Some((_, last)) => *last = port,
            None => ranges.push((port, port)),
        }
    }
    let range = |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let text = |(first, last): &(&Published, &Published)| {
        let ip = if first.host_ip.contains(':') { format!("[{}]", first.host_ip) } else { first.host_ip.clone() };
        let target = range(first.target, last.target);
        format!("{ip}:{}->{target}/{}", range(first.host_port, last.host_port), first.protocol)
    };
    let mut texts: Vec<String> = ranges.iter().map(text).collect();
    for port in published.iter().filter(|port| port.host_port == 0) {
        let own = format!("{}/{}", port.target, port.protocol);
        if !texts.contains(&own) {
            texts.push(own);
        }
    }
    if is_up(container) {
        let exposed = container
            .record
            .config
            .expose
            .iter()
            .map(|port| if port.contains('/') { port.clone() } else { format!("{port}/tcp") });
        let open: Vec<String> = published.iter().map(|port| format!("{}/{}", port.target, port.protocol)).collect();
        texts.extend(exposed.filter(|port| !open.contains(port)));
    }
    texts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_and_cut() {
        let args = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(command(&args("sleep 1000"), false), "\"sleep 1000\"");
        assert_eq!(command(&args("python3 -m http.server 80"), false), "\"python3 -m http.ser…\"");
        assert_eq!(command(&args("python3 -m http.server 80"), true), "\"python3 -m http.server 80\"");
    }
}
