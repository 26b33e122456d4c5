//! `stack image inspect` and `history`.

use std::io::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{find, short, size};
use crate::cli::error::{Error, Outcome};
use crate::cli::project::Context;
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::cli::time;
use crate::images::{Image, Reference, Store};

pub(super) fn inspect(context: &Context, store: &Store, images: &[String], format: Option<&str>) -> Outcome {
    let format = format.map(|format| Format::parse(Some(format))).transpose()?;
    let documents = images.iter().map(|text| find(store, text).and_then(|image| document(&image)));
    let all: Vec<Row> = documents.collect::<Result<_, _>>()?;
    let mut out = context.ui.out();
    match format {
        None | Some(Format::Table) => writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?,
        Some(Format::Json) => all.into_iter().try_for_each(|row| writeln!(out, "{}", Value::Object(row)))?,
        Some(Format::Template { parts, header }) => write!(out, "{}", template::render(&parts, header, &all)?)?,
    }
    Ok(0)
}

/// Docker's form of `image inspect`.
fn document(image: &Image) -> Result<Row, Error> {
    let tagged = image.names.iter().filter(|name| name.digest().is_none());
    let names: Vec<String> = tagged.map(Reference::familiar).collect();
    let digests: Vec<String> = image.sources.iter().map(Reference::familiar).collect();
    let comment = image.config.history.last().map_or("", |step| step.comment.as_str());
    let fields = json!({
        "Id": image.id.to_string(),
        "RepoTags": names,
        "RepoDigests": digests,
        "Comment": comment,
        "Created": image.created.map(|time| time.to_string()),
        "Author": image.config.author,
        "Architecture": image.config.architecture,
        "Variant": image.config.variant,
        "Os": image.config.os,
        "Size": image.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "Config": config(image)?,
        "RootFS": {
            "Type": "layers",
            "Layers": image.layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>(),
        },
    });
    Ok(if let Value::Object(row) = fields { row } else { Row::new() })
}

/// What a container of it starts with: what the image says nothing of is there, too, as docker has it.
fn config(image: &Image) -> Result<Value, Error> {
    let mut all = json!({
        "User": "", "Env": null, "Cmd": null, "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null,
        "Labels": null,
    });
    if let (Some(all), Value::Object(own)) = (all.as_object_mut(), serde_json::to_value(&image.config.config)?) {
        all.extend(own);
    }
    Ok(all)
}

/// How to show a history.
#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// Name or id
    image: String,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Don't cut long instructions
    #[arg(long)]
    no_trunc: bool,
    /// Whether sizes and times are written for people
    #[arg(short = 'H', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set, hide_possible_values = true)]
    human: bool,
    /// Form of the output: table, json or a template
    #[arg(long, value_name = "FORM")]
    format: Option<String>,
}

impl History {
    /// The steps that made an image, the last first.
    pub(super) fn show(&self, context: &Context, store: &Store) -> Outcome {
        let image = find(store, &self.image)?;
        let rows = self.rows(&image, Timestamp::now());
        let mut out = context.ui.out();
        match Format::parse(self.format.as_deref())? {
            _ if self.quiet => rows.iter().try_for_each(|row| writeln!(out, "{}", text(row, "ID")))?,
            Format::Table => {
                let mut table = Table::new(&["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
                for row in &rows {
                    table.row(["ID", "CreatedSince", "CreatedBy", "Size", "Comment"].map(|field| text(row, field)));
                }
                write!(out, "{}", table.render())?;
            }
            Format::Json => rows.into_iter().try_for_each(|row| writeln!(out, "{}", Value::Object(row)))?,
            Format::Template { parts, header } => write!(out, "{}", template::render(&parts, header, &rows)?)?,
        }
        Ok(0)
    }

    fn rows(&self, image: &Image, now: Timestamp) -> Vec<Row> {
        let mut layers = image.layers.iter();
        let mut rows = Vec::new();
        for step in &image.config.history {
            let layer = if step.empty_layer { None } else { layers.next() };
            let by: String = if self.no_trunc { step.created_by.clone() } else { shortened(&step.created_by) };
            let bytes = layer.map_or(0, |layer| layer.size);
            let at = step.created.map(|time| time.to_string()).unwrap_or_default();
            let since = step.created.map_or_else(|| "N/A".into(), |then| time::ago(then, now));
            let fields = [
                ("ID", "<missing>".to_owned()),
                ("CreatedSince", if self.human { since } else { at.clone() }),
                ("CreatedAt", at),
                ("CreatedBy", by),
                ("Size", if self.human { size(bytes) } else { bytes.to_string() }),
                ("Comment", step.comment.clone()),
            ];
            rows.push(fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect());
        }
        if let Some(Value::String(id)) = rows.last_mut().and_then(|row: &mut Row| row.get_mut("ID")) {
            *id = if self.no_trunc { image.id.to_string() } else { short(image.id) };
        }
        rows.reverse();
        rows
    }
}

/// The beginning of an instruction.
fn shortened(text: &str) -> String {
    const CUT: usize = 45;
    let mut short: String = text.chars().take(CUT).collect();
    if short.len() < text.len() {
        short.pop();
        short.push('…');
    }
    short
}

fn text(row: &Row, field: &str) -> String {
    row.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}
