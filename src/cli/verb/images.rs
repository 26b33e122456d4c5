//! `stack images`.

use std::collections::BTreeSet;
use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::image::size;
use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::cli::time;
use crate::engine::state::Container;
use crate::images::{Reference, Store};

/// List the images that the stack's containers were made from.
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Services to list (default: all)
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Form of the output: table, json or a template
    #[arg(long, value_name = "FORM")]
    format: Option<String>,
}

impl Images {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let format = Format::parse(self.format.as_deref())?;
        let target = context.target()?;
        let containers = context.containers(&target.name)?;
        target.check_services(&self.services, &containers)?;
        let chosen: Vec<&Container> = containers
            .iter()
            .filter(|container| self.services.is_empty() || self.services.contains(&container.record.service))
            .collect();
        let mut out = context.ui.out();
        if self.quiet {
            let ids: BTreeSet<&str> =
                chosen.iter().map(|container| container.record.image_id.trim_start_matches("sha256:")).collect();
            ids.iter().try_for_each(|id| writeln!(out, "{id}"))?;
            return Ok(0);
        }
        let rows = rows(context, &chosen)?;
        match format {
            Format::Table => {
                let mut table =
                    Table::new(&["CONTAINER", "REPOSITORY", "TAG", "PLATFORM", "IMAGE ID", "SIZE", "CREATED"]);
                let now = Timestamp::now();
                for row in &rows {
                    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
                    let created = text("Created").parse().map_or_else(|_| "N/A".into(), |then| time::ago(then, now));
                    let bytes = row["Size"].as_u64().unwrap_or(0);
                    let id = text("ID").trim_start_matches("sha256:").chars().take(12).collect();
                    let [container, repository, tag, platform] =
                        ["ContainerName", "Repository", "Tag", "Platform"].map(text);
                    table.row([container, repository, tag, platform, id, size(bytes), created]);
                }
                write!(out, "{}", table.render())?;
            }
            Format::Json => writeln!(out, "{}", json!(rows))?,
            Format::Template { parts, header } => write!(out, "{}", template::render(&parts, header, &rows)?)?,
        }
        Ok(0)
    }
}

fn rows(context: &Context, containers: &[&Container]) -> Result<Vec<Row>, Error> {
    let store = Store::open(&context.paths.lib)?;
    containers
        .iter()
        .map(|container| {
            let record = &container.record;
            let image = store.find(&record.image_id)?;
            let reference = Reference::parse(&record.image).ok();
            let repository = reference.as_ref().map_or_else(|| record.image.clone(), Reference::familiar_repository);
            let tag = reference.as_ref().and_then(Reference::tag).unwrap_or("<none>");
            let config = image.as_ref().map(|image| &image.config);
            let platform = config.map_or_else(String::new, |config| format!("{}/{}", config.os, config.architecture));
            let bytes: u64 = image.iter().flat_map(|image| &image.layers).map(|layer| layer.size).sum();
            let created = image.as_ref().and_then(|image| image.created).map(|time| time.to_string());
            let fields = [
                ("ID", json!(record.image_id)),
                ("ContainerName", json!(record.name)),
                ("Repository", json!(repository)),
                ("Tag", json!(tag)),
                ("Platform", json!(platform)),
                ("Size", json!(bytes)),
                ("Created", json!(created)),
                ("LastTagTime", json!(created)),
            ];
            Ok(fields.into_iter().map(|(name, value): (&str, Value)| (name.to_owned(), value)).collect())
        })
        .collect()
}
