//! `stack network`: networks of all stacks, and those that belong to none.

mod create;
mod show;

use std::io::Write;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use self::create::Create;
use self::show::{details, summary};
use super::resources::Look;
use crate::cli::error::{Error, Outcome};
use crate::cli::filter::{Filters, Label};
use crate::cli::project::{Context, require_root};
use crate::cli::select::is_up;
use crate::cli::session;
use crate::cli::template::{self, Format, Row};
use crate::cli::terminal;
use crate::engine::control::Request;
use crate::engine::networks::{self, Network as Made};
use crate::engine::state::{self, Container, Record};
use crate::net::Host;
use crate::spec::model::Attachment;

/// Work with networks of all stacks.
#[derive(Debug, Args)]
pub(crate) struct Network {
    #[command(subcommand)]
    verb: NetworkVerb,
}

#[derive(Debug, Subcommand)]
enum NetworkVerb {
    /// List networks
    #[command(alias = "list")]
    Ls {
        /// Only those for which it holds: name=, id=, driver=, label=NAME[=VALUE], dangling=true
        #[arg(short, long, value_name = "FILTER")]
        filter: Vec<String>,
        #[command(flatten)]
        look: Look,
    },
    /// Show all that is known of networks
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
        /// Form of the output: json or a template
        #[arg(short, long, value_name = "FORM")]
        format: Option<String>,
    },
    /// Make a network that stacks can use as `external`
    Create(Box<Create>),
    /// Remove networks
    #[command(alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        networks: Vec<String>,
        /// Missing ones are no error
        #[arg(short, long)]
        force: bool,
    },
    /// Attach a container to one more network
    Connect(Connect),
    /// Take a container off a network
    Disconnect {
        /// Name or id of the network
        network: String,
        /// Name or id of the container
        container: String,
        /// Accepted as docker does
        #[arg(short, long)]
        force: bool,
    },
    /// Remove all networks that no container is on
    Prune {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// Only those for which it holds: until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE]
        #[arg(long, value_name = "FILTER")]
        filter: Vec<String>,
    },
}

/// How to attach a container.
#[derive(Debug, Args)]
struct Connect {
    /// Name or id of the network
    network: String,
    /// Name or id of the container
    container: String,
    /// Further name on the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// Link-local address
    #[arg(long, value_name = "ADDRESS")]
    link_local_ip: Vec<String>,
}

impl Network {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        require_root()?;
        match &self.verb {
            NetworkVerb::Ls { filter, look } => ls(context, filter, look),
            NetworkVerb::Inspect { networks, format } => inspect(context, networks, format.as_deref()),
            NetworkVerb::Create(create) => create.run(context),
            NetworkVerb::Rm { networks, force } => rm(context, networks, *force),
            NetworkVerb::Connect(connect) => connect.run(context).await,
            NetworkVerb::Disconnect { network, container, .. } => {
                let (network, record) = (find(context, network)?, container_of(context, container)?);
                change(context, &record, Request::Disconnect { container: record.id.clone(), network: network.name })
                    .await
            }
            NetworkVerb::Prune { force, filter } => prune(context, *force, filter),
        }
    }
}

fn ls(context: &Context, filters: &[String], look: &Look) -> Outcome {
    let records = state::all_records(&context.paths)?;
    let mut rows: Vec<Row> = Vec::new();
    for network in networks::list(&context.paths)? {
        if matches(&network, filters, &records)? {
            rows.push(summary(&network));
        }
    }
    look.show(context, &["ID", "Name", "Driver", "Project", "Subnets"], &rows)
}

fn matches(network: &Made, filters: &[String], records: &[Record]) -> Result<bool, Error> {
    for filter in filters {
        let (name, value) = filter.split_once('=').unwrap_or((filter, ""));
        let held = match name {
            "name" => network.name.contains(value),
            "id" => network.id.starts_with(value),
            "driver" => value == "bridge",
            "scope" => value == "local",
            "type" => value == "custom",
            "label" => Label::parse(value, true).holds(|label| network.labels.get(label)),
            "dangling" => is_unused(network, records) == matches!(value, "true" | "1"),
            _ => {
                return Err(Error::new(format!("unsupported filter `{filter}`"))
                    .hint("the filters are name=, id=, driver=, label= and dangling="));
            }
        };
        if !held {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_unused(network: &Made, records: &[Record]) -> bool {
    !records.iter().flat_map(|record| &record.endpoints).any(|endpoint| endpoint.network == network.name)
}

/// A network by its name or the beginning of its id.
fn find(context: &Context, name: &str) -> Result<Made, Error> {
    if let Some(network) = networks::list(&context.paths)?.into_iter().find(|network| network.name == name) {
        return Ok(network);
    }
    let by_id = networks::list(&context.paths)?.into_iter().filter(|network| network.id.starts_with(name));
    let mut by_id: Vec<Made> = by_id.filter(|_| name.len() >= 3).collect();
    match (by_id.pop(), by_id.is_empty()) {
        (Some(network), true) => Ok(network),
        (Some(_), false) => Err(Error::new(format!("several networks have an id that begins with {name}"))),
        (None, _) => Err(networks::missing(name).into()),
    }
}

/// A container of any stack by its name or the beginning of its id.
fn container_of(context: &Context, name: &str) -> Result<Record, Error> {
    let records = state::all_records(&context.paths)?;
    let by_id = |record: &&Record| name.len() >= 3 && record.id.starts_with(name);
    let found = records.iter().find(|record| record.name == name).or_else(|| records.iter().find(by_id));
    found.cloned().ok_or_else(|| {
        Error::new(format!("no such container: {name}")).hint("`stack ls` shows the stacks, `stack -p STACK ps` theirs")
    })
}

/// Containers on the network, with what they are doing.
fn users(context: &Context, network: &Made) -> Result<Vec<Container>, Error> {
    let mut projects = state::projects(&context.paths)?;
    projects.retain(|project| !project.is_empty());
    let mut users = Vec::new();
    for project in projects {
        let all = state::read_containers(&context.paths, &project)?;
        let on = |container: &Container| container.record.endpoints.iter().any(|e| e.network == network.name);
        users.extend(all.into_iter().filter(on));
    }
    Ok(users)
}

fn inspect(context: &Context, names: &[String], format: Option<&str>) -> Outcome {
    let mut rows: Vec<Row> = Vec::new();
    for name in names {
        let network = find(context, name)?;
        rows.push(details(&network, &users(context, &network)?));
    }
    let mut out = context.ui.out();
    match Format::parse(format)? {
        Format::Table | Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&rows).unwrap_or_default())?,
        Format::Template { parts, header } => write!(out, "{}", template::render(&parts, header, &rows)?)?,
    }
    Ok(0)
}

fn rm(context: &Context, names: &[String], force: bool) -> Outcome {
    let mut code = 0;
    for name in names {
        let result = find(context, name).and_then(|network| {
            let active: Vec<String> = users(context, &network)?
                .iter()
                .filter(|container| is_up(container))
                .map(|container| container.record.name.clone())
                .collect();
            if !active.is_empty() {
                return Err(Error::new(format!("network {name} is used by {}", active.join(", ")))
                    .hint("stop them, or `stack network disconnect` them"));
            }
            Ok(networks::remove(&context.paths, &Host::current(), &network.name)?)
        });
        match result {
            Ok(()) => writeln!(context.ui.out(), "{name}")?,
            Err(_) if force && find(context, name).is_err() => {}
            Err(error) if names.len() == 1 => return Err(error),
            Err(error) => {
                writeln!(context.ui.err(), "{}", error.message())?;
                code = 1;
            }
        }
    }
    Ok(code)
}

/// Removes the networks that no container is on and that the filters take: their names.
pub(super) fn remove_unused(context: &Context, filters: &Filters) -> Result<Vec<String>, Error> {
    let records = state::all_records(&context.paths)?;
    let mut removed = Vec::new();
    for network in networks::list(&context.paths)? {
        let taken = filters.take(Some(network.created), |label| network.labels.get(label));
        if taken && is_unused(&network, &records) {
            networks::remove(&context.paths, &Host::current(), &network.name)?;
            removed.push(network.name);
        }
    }
    Ok(removed)
}

fn prune(context: &Context, force: bool, filters: &[String]) -> Outcome {
    let filters = Filters::parse(filters, Timestamp::now())?;
    let question = "This removes all networks that no container is on.\nGo on?";
    if !force && !terminal::agreed(question)? {
        return Err(Error::new("nothing was removed"));
    }
    let removed = remove_unused(context, &filters)?;
    let mut out = context.ui.out();
    if !removed.is_empty() {
        writeln!(out, "Deleted Networks:")?;
    }
    removed.iter().try_for_each(|name| writeln!(out, "{name}"))?;
    Ok(0)
}

impl Connect {
    async fn run(&self, context: &Context) -> Outcome {
        let (network, record) = (find(context, &self.network)?, container_of(context, &self.container)?);
        let attachment = Attachment {
            aliases: self.alias.clone(),
            ipv4_address: self.ip.clone(),
            ipv6_address: self.ip6.clone(),
            link_local_ips: self.link_local_ip.clone(),
            ..Attachment::default()
        };
        let request =
            Request::Connect { container: record.id.clone(), network: network.name, attachment: Box::new(attachment) };
        change(context, &record, request).await
    }
}

/// Asks the container's supervisor.
async fn change(context: &Context, record: &Record, request: Request) -> Outcome {
    session::carry_out(context, &record.project, &request, "network").await.map(|_| 0)
}
