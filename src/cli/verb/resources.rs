//! `stack volumes` and `stack volume`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::error::{Error, Outcome};
use crate::cli::project::{Context, require_root};
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::engine::{docker, volumes};
use crate::planner::volume_name;

/// List the stack's volumes.
#[derive(Debug, Args)]
pub(crate) struct Volumes {
    /// Services whose volumes to list (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    look: Look,
}

/// Work with volumes of all stacks.
#[derive(Debug, Args)]
pub(crate) struct Volume {
    #[command(subcommand)]
    verb: VolumeVerb,
}

#[derive(Debug, Subcommand)]
enum VolumeVerb {
    /// List volumes
    #[command(alias = "list")]
    Ls(Look),
    /// Take over a volume of Docker: a copy with all owners and attributes
    Import {
        /// Docker's name of the volume, which it keeps
        #[arg(long, value_name = "NAME")]
        from_docker: String,
        /// Where Docker keeps its data
        #[arg(long, value_name = "DIR", default_value = "/var/lib/docker")]
        docker_root: PathBuf,
        /// Copy although a running container uses the volume
        #[arg(long)]
        force: bool,
    },
}

/// How to list.
#[derive(Debug, Args)]
pub(super) struct Look {
    /// Print names only
    #[arg(short, long)]
    quiet: bool,
    /// Form of the output: table, json or a template
    #[arg(long, value_name = "FORM")]
    format: Option<String>,
}

impl Volumes {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let mounted = |name: &String| {
            containers.iter().any(|container| {
                self.services.contains(&container.record.service)
                    && container.record.mounts.iter().any(|mount| mount.kind == "volume" && mount.source == *name)
            })
        };
        let mut all = volumes::list(&context.paths)?;
        all.retain(|volume| volume.project == target.name && (self.services.is_empty() || mounted(&volume.name)));
        self.look.show(context, &["Driver", "Name"], &all.iter().map(|one| volume(context, one)).collect::<Vec<_>>())
    }
}

impl Volume {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        require_root()?;
        match &self.verb {
            VolumeVerb::Ls(look) => {
                let all = volumes::list(&context.paths)?;
                let rows: Vec<Row> = all.iter().map(|one| volume(context, one)).collect();
                look.show(context, &["Driver", "Name"], &rows)
            }
            VolumeVerb::Import { from_docker, docker_root, force } => import(context, from_docker, docker_root, *force),
        }
    }
}

/// The copy belongs to the stack in whose folder it is made, if that has such a volume.
fn import(context: &Context, name: &str, docker_root: &Path, force: bool) -> Outcome {
    let project = context.load(&[]).ok().map(|loaded| loaded.project);
    let owned = project.as_ref().and_then(|project| {
        let (key, wanted) = project.volumes.iter().find(|(key, _)| volume_name(project, key) == name)?;
        (!wanted.external).then(|| volumes::described(project, key, wanted))
    });
    let volume = owned.unwrap_or_else(|| volumes::unowned(name));
    docker::import(&context.paths, docker_root, name, &volume, force).map_err(|error| {
        let hint = match &error {
            docker::Error::Missing { .. } => "`docker volume ls` shows its volumes; --docker-root says where they are",
            docker::Error::InUse { .. } => "stop the container first, or use --force and have what a crash would leave",
            docker::Error::Exists(_) => "`stack volumes` shows whose it is; `stack down -v` there removes it",
            _ => return Error::from(error),
        };
        Error::from(error).hint(hint)
    })?;
    match volume.project.as_str() {
        "" => context.ui.warn(
            "no stack file here names this volume: it belongs to no stack and stays until it is removed by hand",
        )?,
        project => writeln!(context.ui.err(), "Volume {name} now belongs to stack {project}, as `{}`", volume.key)?,
    }
    writeln!(context.ui.out(), "{name}")?;
    Ok(0)
}

/// Docker's fields of a volume.
fn volume(context: &Context, volume: &volumes::Volume) -> Row {
    let labels: Vec<String> = volume.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields = [
        ("Availability", "N/A".to_owned()),
        ("Driver", "local".to_owned()),
        ("Group", "N/A".to_owned()),
        ("Labels", labels.join(",")),
        ("Links", "N/A".to_owned()),
        ("Mountpoint", context.paths.volume(&volume.name).join("_data").display().to_string()),
        ("Name", volume.name.clone()),
        ("Scope", "local".to_owned()),
        ("Size", "N/A".to_owned()),
        ("Status", "N/A".to_owned()),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

impl Look {
    pub(super) fn show(&self, context: &Context, columns: &[&str], rows: &[Row]) -> Outcome {
        let text = |row: &Row, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let mut out = context.ui.out();
        if self.quiet {
            rows.iter().try_for_each(|row| writeln!(out, "{}", text(row, "Name")))?;
            return Ok(0);
        }
        match Format::parse(self.format.as_deref())? {
            Format::Table => {
                let header = columns.iter().map(|column| match *column {
                    "Name" if columns[0] == "Driver" => "VOLUME NAME".to_owned(),
                    "ID" => "NETWORK ID".to_owned(),
                    column => column.to_uppercase(),
                });
                let mut table = Table::bare();
                table.row(header);
                for row in rows {
                    table.row(columns.iter().map(|column| text(row, column)));
                }
                write!(out, "{}", table.render())?;
            }
            Format::Json => {
                rows.iter().try_for_each(|row| writeln!(out, "{}", json!(row))).map_err(Error::from)?;
            }
            Format::Template { parts, header } => write!(out, "{}", template::render(&parts, header, rows)?)?,
        }
        Ok(0)
    }
}
