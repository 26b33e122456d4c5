//! `stack export`, `commit` and `diff`: what a container's processes made of their image.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use crate::cli::error::{Error, Outcome};
use crate::cli::invoker::OutputFile;
use crate::cli::progress::{Progress, Stage};
use crate::cli::project::Context;
use crate::cli::select;
use crate::cli::session::{open, reply, root_of};
use crate::engine::control::{Reply, Request};
use crate::engine::state::{Container, Record};
use crate::images::{self, Change, Changed, History, Image, ImageConfig, Reference, Store};

/// Write a container's files as a tar archive.
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The service's container of this number
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// File to write instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Service
    service: String,
}

/// Make an image of a container.
#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Author, such as "Ada <ada@example.org>"
    #[arg(short, long)]
    author: Option<String>,
    /// Change the image by a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, …; repeatable
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// The service's container of this number
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Message
    #[arg(short, long)]
    message: Option<String>,
    /// Freeze the container meanwhile
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value = "true",
          default_missing_value = "true", value_name = "BOOL", hide_possible_values = true)]
    pause: bool,
    /// Service
    service: String,
    /// Name of the image, REPOSITORY[:TAG]
    #[arg(value_name = "IMAGE")]
    name: Option<String>,
}

/// List what a container's processes changed: A added, C changed, D deleted.
#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The service's container of this number
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// Form of the output: table or json
    #[arg(long, value_name = "FORM")]
    format: Option<String>,
    /// Service
    service: String,
}

impl Export {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let container = find(context, &self.service, self.index)?;
        if self.output.is_none() && io::stdout().is_terminal() {
            return Err(Error::new("an archive cannot go to a terminal").hint("name a file with `-o`"));
        }
        let root = root_of(context, &container, true).await?;
        let Some(path) = &self.output else {
            images::pack(root.as_fd(), None, root.ids(), io::stdout().lock())?;
            return Ok(0);
        };
        let id = format!("Container {}", container.record.name);
        let mut progress = Progress::new(context.ui, "export");
        progress.step(&id, Stage::Working, "Exporting")?;
        let mut file = OutputFile::create(path)?;
        images::pack(root.as_fd(), None, root.ids(), &mut file)?;
        file.finish()?;
        progress.step(&id, Stage::Done, "Exported")?;
        progress.finish()?;
        Ok(0)
    }
}

impl Commit {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        let container = find(context, &self.service, self.index)?;
        let record = &container.record;
        let tag = self.name.as_deref().map(Reference::parse).transpose()?;
        let store = Store::open(&context.paths.lib)?;
        let image = image_of(&store, record)?;
        let mut config = config_of(record, &image);
        if let Some(author) = &self.author {
            config.author.clone_from(author);
        }
        config.created = Some(Timestamp::now());
        config.history.push(History {
            created: config.created,
            created_by: record.process.args.join(" "),
            author: config.author.clone(),
            comment: self.message.clone().unwrap_or_default(),
            empty_layer: false,
        });
        let id = format!("Container {}", record.name);
        let mut progress = Progress::new(context.ui, "commit");
        progress.step(&id, Stage::Working, "Committing")?;
        let upper = context.paths.container(&record.id).join("upper");
        let frozen = if self.pause && select::is_up(&container) { Some(freeze(context, record).await?) } else { None };
        let made = store.commit(&image, &upper, config, &self.change, tag.as_slice());
        drop(frozen);
        let made = made?;
        progress.step(&id, Stage::Done, &format!("Committed as {}", made.id))?;
        progress.finish()?;
        Ok(0)
    }
}

/// Freezes a container for as long as the connection that is returned.
async fn freeze(context: &Context, record: &Record) -> Result<crate::engine::client::Client, Error> {
    let request = Request::Hold { container: record.id.clone() };
    let client = open(context, &record.project, &request, &[]).await?;
    match reply(&client).await?.0 {
        Reply::Failed(failure) => Err(failure.into()),
        _ => Ok(client),
    }
}

impl Diff {
    pub(crate) fn run(&self, context: &Context) -> Outcome {
        let container = find(context, &self.service, self.index)?;
        let store = Store::open(&context.paths.lib)?;
        let image = image_of(&store, &container.record)?;
        let upper = context.paths.container(&container.record.id).join("upper");
        let changes = without_mounts(store.diff(&image, &upper)?, &container.record);
        let letter = |change: Change| match change {
            Change::Added => "A",
            Change::Changed => "C",
            Change::Deleted => "D",
        };
        let mut out = context.ui.out();
        match self.format.as_deref() {
            Some("json") => {
                for change in &changes {
                    let path = String::from_utf8_lossy(&change.path);
                    writeln!(out, "{}", json!({"Kind": letter(change.change), "Path": path}))?;
                }
            }
            None | Some("table") => {
                for change in &changes {
                    let path = String::from_utf8_lossy(&change.path).replace(char::is_control, "?");
                    writeln!(out, "{} {path}", letter(change.change))?;
                }
            }
            Some(other) => {
                return Err(Error::new(format!("unsupported format `{other}`")).hint("use `table` or `json`"));
            }
        }
        Ok(0)
    }
}

/// The service's container, running or not.
fn find(context: &Context, service: &str, index: Option<u32>) -> Result<Container, Error> {
    let target = context.target()?;
    let containers = context.containers(&target.name)?;
    target.check_services(&[service.to_owned()], &containers)?;
    let mut found: Vec<Container> = containers
        .into_iter()
        .filter(|container| container.record.service == service && !container.record.oneoff)
        .filter(|container| index.is_none_or(|index| container.record.number == index))
        .collect();
    found.sort_by_key(|container| container.record.number);
    let number = index.map_or_else(String::new, |index| format!(" with index {index}"));
    found.into_iter().next().ok_or_else(|| {
        Error::new(format!("service `{service}` has no container{number}"))
            .hint(format!("make one with `stack up -d {service}` or `stack create {service}`"))
    })
}

fn image_of(store: &Store, record: &Record) -> Result<Image, Error> {
    store.find(&record.image_id)?.ok_or_else(|| {
        Error::new(format!("the image of container `{}` is gone from the store", record.name))
            .hint("make the container anew with `stack up`")
    })
}

/// The image's configuration with what the service says otherwise.
fn config_of(record: &Record, image: &Image) -> ImageConfig {
    let mut config = image.config.clone();
    let run = &mut config.config;
    let service = &record.config;
    let hostname = format!("HOSTNAME={}", record.hostname);
    run.env = record.process.env.iter().filter(|variable| **variable != hostname).cloned().collect();
    run.user.clone_from(&record.process.user);
    run.working_dir.clone_from(&record.process.cwd);
    if service.entrypoint.is_some() {
        run.entrypoint.clone_from(&service.entrypoint);
        run.cmd = None;
    }
    if service.command.is_some() {
        run.cmd.clone_from(&service.command);
    }
    if let Some(signal) = &service.stop_signal {
        run.stop_signal.clone_from(signal);
    }
    run.labels.extend(service.labels.iter().map(|(key, value)| (key.clone(), value.clone())));
    config
}

/// Leaves out what only stands there to be mounted on.
fn without_mounts(changes: Vec<Changed>, record: &Record) -> Vec<Changed> {
    let service = &record.config;
    let objects = service
        .secrets
        .iter()
        .map(|mount| (mount, "/run/secrets"))
        .chain(service.configs.iter().map(|mount| (mount, "")));
    let objects = objects.map(|(mount, home)| match mount.target.as_deref() {
        Some(target) if target.starts_with('/') => target.to_owned(),
        Some(target) => format!("{home}/{target}"),
        None => format!("{home}/{}", mount.source),
    });
    let own = ["/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].map(str::to_owned);
    let targets: Vec<String> = record
        .mounts
        .iter()
        .map(|mount| mount.target.trim_end_matches('/').to_owned())
        .chain(objects)
        .chain(own)
        .collect();
    let is_mount = |path: &[u8]| targets.iter().any(|target| target.as_bytes() == path);
    let above_mount = |path: &[u8]| targets.iter().any(|target| Path::new(target).starts_with(as_path(path)));
    let (noise, mut kept): (Vec<Changed>, Vec<Changed>) =
        changes.into_iter().partition(|changed| is_mount(&changed.path));
    // A folder counts as changed only for what else changed in it, if something was put there to be mounted on.
    for index in (0..kept.len()).rev() {
        let path = kept[index].path.clone();
        let inside =
            |changed: &Changed| changed.path.len() > path.len() && as_path(&changed.path).starts_with(as_path(&path));
        if above_mount(&path) && noise.iter().any(inside) && !kept.iter().any(inside) {
            kept.remove(index);
        }
    }
    kept
}

fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}
