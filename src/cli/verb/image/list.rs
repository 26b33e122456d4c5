//! `stack image ls`.

use std::io::Write as _;

use jiff::Timestamp;
use serde_json::Value;

use super::{find, short, size};
use crate::build::Glob;
use crate::cli::error::{Error, Outcome};
use crate::cli::filter::Filters;
use crate::cli::project::Context;
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::cli::time;
use crate::images::{Listed, Reference, Store};

/// How to list images.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only images of this name; `*` stands for any part of it
    #[arg(value_name = "REPOSITORY[:TAG]")]
    repository: Option<String>,
    /// Accepted as docker does: no image is hidden
    #[arg(short, long)]
    all: bool,
    /// Show what each name means at its registry
    #[arg(long)]
    digests: bool,
    /// Only those for which it holds: dangling=BOOL, reference=PATTERN, label=NAME[=VALUE], before=IMAGE, since=IMAGE, until=TIME
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Form of the output: table, json or a template
    #[arg(long, value_name = "FORM")]
    format: Option<String>,
    /// Don't cut ids
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
}

impl List {
    pub(super) fn run(&self, context: &Context, store: &Store) -> Outcome {
        let mut out = context.ui.out();
        let now = Timestamp::now();
        let query = Query::parse(self, store, now)?;
        let mut images = store.list()?;
        for index in (0..images.len()).rev() {
            if !query.takes(&images[index], store)? {
                images.remove(index);
            }
        }
        if self.quiet {
            let mut ids: Vec<String> = images.iter().map(|image| self.id(image)).collect();
            ids.dedup();
            ids.iter().try_for_each(|id| writeln!(out, "{id}"))?;
            return Ok(0);
        }
        match Format::parse(self.format.as_deref())? {
            Format::Table => {
                let digest = if self.digests { &["DIGEST"][..] } else { &[] };
                let mut table = Table::bare();
                let titles = [&["REPOSITORY", "TAG"], digest, &["IMAGE ID", "CREATED", "SIZE"]].concat();
                table.row(titles.into_iter().map(str::to_owned));
                for image in &images {
                    let created = image.created.map_or_else(|| "N/A".into(), |then| time::ago(then, now));
                    let digest = self.digests.then(|| digest_of(image));
                    let names = [repository(image), tag(image)].into_iter().chain(digest);
                    table.row(names.chain([self.id(image), created, size(image.size)]));
                }
                write!(out, "{}", table.render())?;
            }
            Format::Json => {
                images.iter().try_for_each(|image| writeln!(out, "{}", Value::Object(self.row(image, now))))?;
            }
            Format::Template { parts, header } => {
                let rows: Vec<Row> = images.iter().map(|image| self.row(image, now)).collect();
                write!(out, "{}", template::render(&parts, header, &rows)?)?;
            }
        }
        Ok(0)
    }

    fn id(&self, image: &Listed) -> String {
        if self.no_trunc { image.id.to_string() } else { short(image.id) }
    }

    fn row(&self, image: &Listed, now: Timestamp) -> Row {
        let fields = [
            ("Containers", "N/A".to_owned()),
            ("ID", self.id(image)),
            ("Repository", repository(image)),
            ("Tag", tag(image)),
            ("Digest", digest_of(image)),
            ("CreatedAt", image.created.map(time::created_at).unwrap_or_default()),
            ("CreatedSince", image.created.map(|then| time::ago(then, now)).unwrap_or_default()),
            ("Size", size(image.size)),
            ("SharedSize", "N/A".to_owned()),
            ("UniqueSize", "N/A".to_owned()),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
    }
}

fn repository(image: &Listed) -> String {
    image.name.as_ref().map_or_else(|| "<none>".into(), Reference::familiar_repository)
}

fn tag(image: &Listed) -> String {
    image.name.as_ref().and_then(Reference::tag).unwrap_or("<none>").to_owned()
}

fn digest_of(image: &Listed) -> String {
    image.at_registry.map_or_else(|| "<none>".into(), |digest| digest.to_string())
}

/// Which images are asked for.
struct Query {
    /// One of them must match.
    names: Vec<Glob>,
    nameless: Option<bool>,
    before: Option<Timestamp>,
    since: Option<Timestamp>,
    common: Filters,
}

impl Query {
    fn parse(list: &List, store: &Store, now: Timestamp) -> Result<Query, Error> {
        let pattern = |text: &str| Glob::new(text).map_err(Error::new);
        let made = |text: &str| find(store, text).map(|image| image.created);
        let names = list.repository.iter().map(|text| pattern(text)).collect::<Result<_, _>>()?;
        let mut query = Query { names, nameless: None, before: None, since: None, common: Filters::default() };
        let mut common = Vec::new();
        for filter in &list.filter {
            match filter.split_once('=') {
                Some(("dangling", value)) => query.nameless = Some(matches!(value, "true" | "1")),
                Some(("reference", value)) => query.names.push(pattern(value)?),
                Some(("before", value)) => query.before = made(value)?,
                Some(("since", value)) => query.since = made(value)?,
                Some(("label" | "label!" | "until", _)) => common.push(filter.clone()),
                _ => {
                    return Err(Error::new(format!("unsupported filter `{filter}`"))
                        .hint("the filters are dangling=, reference=, label=, label!=, before=, since= and until="));
                }
            }
        }
        query.common = Filters::parse(&common, now)?;
        Ok(query)
    }

    fn takes(&self, image: &Listed, store: &Store) -> Result<bool, Error> {
        let named = |name: &Reference| {
            let forms = [name.familiar(), name.familiar_repository()];
            self.names.iter().any(|pattern| forms.iter().any(|form| pattern.matches(form)))
        };
        let meant = (self.names.is_empty() || image.name.as_ref().is_some_and(named))
            && self.nameless.is_none_or(|nameless| image.name.is_none() == nameless)
            && self.before.is_none_or(|before| image.created.is_some_and(|created| created < before))
            && self.since.is_none_or(|since| image.created.is_some_and(|created| created > since));
        if !meant || self.common.is_empty() {
            return Ok(meant);
        }
        let Some(found) = store.find(&image.id.to_string())? else { return Ok(false) };
        Ok(self.common.take(image.created, |label| found.config.config.labels.get(label)))
    }
}
