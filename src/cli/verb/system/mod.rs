//! `stack system df` and `prune`: what `lib` holds, and what of it nothing needs.

mod prune;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use fs_err as fs;
use serde_json::Value;

use super::image::size;
use crate::cli::error::{Error, Outcome};
use crate::cli::project::{Context, require_root};
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::engine::state::{self, Status};
use crate::engine::volumes;
use crate::images::Store;
use crate::sys::usage::usage;

/// See and free the space that images, containers, volumes and build caches take.
#[derive(Debug, Args)]
pub(crate) struct System {
    #[command(subcommand)]
    verb: SystemVerb,
}

#[derive(Debug, Subcommand)]
enum SystemVerb {
    /// Show the space that everything takes on disk
    Df {
        /// Form of the output: table, json or a template
        #[arg(long, value_name = "FORM")]
        format: Option<String>,
    },
    /// Remove stopped containers, networks without containers, nameless images, build caches and what interrupted pulls left
    Prune(prune::Prune),
}

impl System {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        require_root()?;
        let store = Store::open(&context.paths.lib)?;
        match &self.verb {
            SystemVerb::Df { format } => show(context, &store, format.as_deref()),
            SystemVerb::Prune(prune) => prune.run(context, &store).await,
        }
    }
}

/// One kind of thing: how many, how many of them are needed, and bytes on disk.
#[derive(Debug, Default)]
struct Kind {
    total: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

impl Kind {
    /// Counts one more thing.
    fn add(&mut self, folder: &Path, active: bool) -> Result<(), Error> {
        let bytes = bytes(folder)?;
        self.total += 1;
        self.active += usize::from(active);
        self.size += bytes;
        self.reclaimable += if active { 0 } else { bytes };
        Ok(())
    }

    fn row(&self, name: &str) -> Row {
        let share = (self.reclaimable * 100).checked_div(self.size);
        let share = share.map_or_else(String::new, |share| format!(" ({share}%)"));
        let fields = [
            ("Type", name.to_owned()),
            ("TotalCount", self.total.to_string()),
            ("Active", self.active.to_string()),
            ("Size", size(self.size)),
            ("Reclaimable", size(self.reclaimable) + &share),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
    }
}

fn bytes(folder: &Path) -> Result<u64, Error> {
    usage(folder).map_err(|e| Error::from(e).context(format!("cannot look through {}", folder.display())))
}

fn show(context: &Context, store: &Store, format: Option<&str>) -> Outcome {
    let paths = &context.paths;
    let format = Format::parse(format)?;
    let content = store.content(&state::images_in_use(paths)?)?;
    let on_disk = bytes(&paths.lib.join("images"))? + bytes(&paths.lib.join("layers"))?;
    let needed: u64 = content.needed.iter().map(|path| bytes(path)).sum::<Result<_, _>>()?;
    let images = Kind {
        total: content.images,
        active: content.used,
        size: on_disk,
        reclaimable: on_disk.saturating_sub(needed),
    };
    let mut containers = Kind::default();
    let mut mounted = BTreeSet::new();
    let all = state::projects(paths)?.into_iter().map(|project| state::read_containers(paths, &project));
    for container in all.collect::<Result<Vec<_>, _>>()?.iter().flatten() {
        let runs = matches!(container.state.status, Status::Running | Status::Paused);
        containers.add(&paths.container(&container.record.id), runs)?;
        let of_volumes = container.record.mounts.iter().filter(|mount| mount.kind == "volume");
        mounted.extend(of_volumes.map(|mount| mount.source.clone()));
    }
    let mut kept = Kind::default();
    for volume in volumes::list(paths)? {
        kept.add(&paths.volume(&volume.name), mounted.contains(&volume.name))?;
    }
    let build = paths.lib.join("build");
    let cached = bytes(&build)?;
    let steps = fs::read_dir(build.join("steps")).map_or(0, Iterator::count);
    let cache = Kind { total: steps, active: 0, size: cached, reclaimable: cached };
    let kinds = [("Images", images), ("Containers", containers), ("Local Volumes", kept), ("Build Cache", cache)];
    let rows: Vec<Row> = kinds.iter().map(|(name, kind)| kind.row(name)).collect();
    let mut out = context.ui.out();
    match format {
        Format::Table => {
            let mut table = Table::new(&["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
            for row in &rows {
                let columns = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
                table.row(columns.map(|name| row[name].as_str().unwrap_or_default().to_owned()));
            }
            write!(out, "{}", table.render())?;
        }
        Format::Json => rows.into_iter().try_for_each(|row| writeln!(out, "{}", Value::Object(row)))?,
        Format::Template { parts, header } => write!(out, "{}", template::render(&parts, header, &rows)?)?,
    }
    Ok(0)
}
