//! `stack image ls`.

use std::io::Write as _;

use jiff::Timestamp;
use serde_json::Value;

use super::{short, size};
use crate::cli::error::Outcome;
use crate::cli::project::Context;
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::cli::time;
use crate::images::{Listed, Reference, Store};

pub(super) fn list(context: &Context, store: &Store, quiet: bool, format: Option<&str>) -> Outcome {
    let mut out = context.ui.out();
    let images = store.list()?;
    if quiet {
        let mut ids: Vec<String> = images.iter().map(|image| image.id.to_string()).collect();
        ids.dedup();
        for id in ids {
            writeln!(out, "{id}")?;
        }
        return Ok(0);
    }
    let now = Timestamp::now();
    match Format::parse(format)? {
        Format::Table => {
            let mut table = Table::new(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
            for image in &images {
                let created = image.created.map_or_else(|| "N/A".into(), |then| time::ago(then, now));
                table.row([repository(image), tag(image), short(image.id), created, size(image.size)]);
            }
            write!(out, "{}", table.render())?;
        }
        Format::Json => {
            for image in &images {
                writeln!(out, "{}", Value::Object(row(image, now)))?;
            }
        }
        Format::Template { parts, header } => {
            let rows: Vec<Row> = images.iter().map(|image| row(image, now)).collect();
            write!(out, "{}", template::render(&parts, header, &rows)?)?;
        }
    }
    Ok(0)
}

fn row(image: &Listed, now: Timestamp) -> Row {
    let fields = [
        ("ID", short(image.id)),
        ("Repository", repository(image)),
        ("Tag", tag(image)),
        ("Digest", image.digest.to_string()),
        ("CreatedAt", image.created.map(time::created_at).unwrap_or_default()),
        ("CreatedSince", image.created.map(|then| time::ago(then, now)).unwrap_or_default()),
        ("Size", size(image.size)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

fn repository(image: &Listed) -> String {
    image.name.as_ref().map_or_else(|| "<none>".into(), Reference::familiar_repository)
}

fn tag(image: &Listed) -> String {
    image.name.as_ref().and_then(Reference::tag).unwrap_or("<none>").to_owned()
}
