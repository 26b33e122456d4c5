//! `stack image`: the image store by hand.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fs_err as fs;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::error::{Error, Outcome};
use crate::cli::policy;
use crate::cli::project::{Context, require_root};
use crate::cli::registry::{self, Wanted};
use crate::cli::table::Table;
use crate::cli::template::{self, Format, Row};
use crate::cli::time;
use crate::engine::state;
use crate::images::{Digest, Image as Found, Listed, Reference, Removal, Store};

/// Work with images.
#[derive(Debug, Args)]
pub(crate) struct Image {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
enum ImageVerb {
    /// List images
    #[command(alias = "list")]
    Ls {
        /// Print ids only
        #[arg(short, long)]
        quiet: bool,
        /// Form of the output: table, json or a template
        #[arg(long, value_name = "FORM")]
        format: Option<String>,
    },
    /// Fetch an image from its registry
    Pull {
        /// Name, with a tag or a digest (default: `latest`)
        #[arg(value_name = "IMAGE")]
        reference: String,
        /// Pull for another machine, such as linux/arm64
        #[arg(long, value_name = "PLATFORM")]
        platform: Option<String>,
        /// Show nothing but the name
        #[arg(short, long)]
        quiet: bool,
    },
    /// Bring an image to its registry
    Push {
        /// Name, with the registry and the tag to push to
        #[arg(value_name = "IMAGE")]
        reference: String,
        /// Show nothing but the digest
        #[arg(short, long)]
        quiet: bool,
    },
    /// Make an image of a root file system in a tar archive
    Import {
        /// The archive, plain or compressed with gzip or zstd; `-` reads standard input
        #[arg(id = "archive", value_name = "ARCHIVE")]
        file: PathBuf,
        /// The image's name
        reference: Option<String>,
        /// Apply a Dockerfile instruction, such as `CMD ["sh"]`; repeatable
        #[arg(short, long, value_name = "INSTRUCTION")]
        change: Vec<String>,
    },
    /// Load the images of an archive that `docker save` or `stack image save` wrote
    Load {
        /// The archive, plain or compressed with gzip or zstd (default: standard input)
        #[arg(short, long, value_name = "ARCHIVE")]
        input: Option<PathBuf>,
    },
    /// Write images to an archive that `docker load` and `stack image load` read
    Save {
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// The archive (default: standard output)
        #[arg(short, long, value_name = "ARCHIVE")]
        output: Option<PathBuf>,
    },
    /// Remove images
    #[command(alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// Untag an image although containers use it
        #[arg(short, long)]
        force: bool,
    },
    /// Print everything about images as JSON
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Give an image one more name
    Tag {
        /// Name or id
        image: String,
        /// The new name
        reference: String,
    },
}

impl Image {
    pub(crate) async fn run(&self, context: &Context) -> Outcome {
        require_root()?;
        let store = Store::open(&context.paths.lib)?;
        match &self.verb {
            ImageVerb::Ls { quiet, format } => list(context, &store, *quiet, format.as_deref()),
            ImageVerb::Pull { reference, platform, quiet } => {
                pull(context, &store, policy::wanted(reference, platform.as_deref())?, *quiet).await
            }
            ImageVerb::Push { reference, quiet } => {
                let name = Reference::parse(reference)?;
                let digest = registry::push(context.ui, *quiet, &store, &name).await?;
                writeln!(context.ui.out(), "{}", name.with_digest(digest).familiar())?;
                Ok(0)
            }
            ImageVerb::Import { file, reference, change } => {
                import(context, &store, file, reference.as_deref(), change)
            }
            ImageVerb::Load { input } => load(context, &store, input.as_deref()),
            ImageVerb::Save { images, output } => save(&store, images, output.as_deref()),
            ImageVerb::Rm { images, force } => remove(context, &store, images, *force),
            ImageVerb::Inspect { images } => inspect(context, &store, images),
            ImageVerb::Tag { image, reference } => {
                store.tag(&find(&store, image)?, &Reference::parse(reference)?)?;
                Ok(0)
            }
        }
    }
}

async fn pull(context: &Context, store: &Store, wanted: Wanted, quiet: bool) -> Outcome {
    let name = wanted.name.familiar();
    for pulled in registry::pull(context.ui, quiet, store, vec![wanted]).await? {
        pulled.map_err(|error| Error::from(error).context(format!("cannot pull `{name}`")))?;
    }
    writeln!(context.ui.out(), "{name}")?;
    Ok(0)
}

/// The image of that name or id.
fn find(store: &Store, text: &str) -> Result<Found, Error> {
    store.find(text)?.ok_or_else(|| missing(text))
}

/// The error for an image that the store lacks.
pub(crate) fn missing(text: &str) -> Error {
    Error::new(format!("no such image: {text}"))
        .hint("`stack image ls` shows what is there; `stack image pull`, `docker save X | stack image load` and `stack build` bring images")
}

fn list(context: &Context, store: &Store, quiet: bool, format: Option<&str>) -> Outcome {
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

/// The first 12 digits of an id.
pub(crate) fn short(id: Digest) -> String {
    id.to_string().trim_start_matches("sha256:").chars().take(12).collect()
}

/// Bytes in docker's form: four digits and a decimal unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    let number = format!("{value:.digits$}");
    let number = if digits > 0 { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", UNITS[unit])
}

fn import(context: &Context, store: &Store, file: &Path, reference: Option<&str>, change: &[String]) -> Outcome {
    let reference = reference.map(Reference::parse).transpose()?;
    let image = store.import(archive(file)?, reference.as_ref(), change)?;
    writeln!(context.ui.out(), "{}", image.id)?;
    Ok(0)
}

/// The archive at a path; `-` is standard input.
fn archive(file: &Path) -> Result<Box<dyn Read + Send>, Error> {
    if file == Path::new("-") {
        if io::stdin().is_terminal() {
            return Err(Error::new("there is no archive on standard input").hint("name a file, or pipe an archive in"));
        }
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(fs::File::open(file)?))
}

fn load(context: &Context, store: &Store, input: Option<&Path>) -> Outcome {
    let mut out = context.ui.out();
    for image in store.load(archive(input.unwrap_or(Path::new("-")))?)? {
        if image.names.is_empty() {
            writeln!(out, "Loaded image ID: {}", image.id)?;
        }
        for name in &image.names {
            writeln!(out, "Loaded image: {}", name.familiar())?;
        }
    }
    Ok(0)
}

fn save(store: &Store, images: &[String], output: Option<&Path>) -> Outcome {
    let images = images.iter().map(|text| find(store, text)).collect::<Result<Vec<_>, _>>()?;
    match output {
        Some(path) => store.save(&images, fs::File::create(path)?)?,
        None if io::stdout().is_terminal() => {
            return Err(Error::new("an archive is not for the terminal").hint("name a file with `-o`, or use a pipe"));
        }
        None => store.save(&images, io::stdout().lock())?,
    }
    Ok(0)
}

fn remove(context: &Context, store: &Store, images: &[String], force: bool) -> Outcome {
    let records = state::all_records(&context.paths)?;
    let in_use: Vec<Digest> = records.iter().filter_map(|record| record.image_id.parse().ok()).collect();
    let mut out = context.ui.out();
    let mut code = 0;
    for image in images {
        match store.remove(image, &Removal { in_use: &in_use, force }) {
            Ok(removed) => {
                for name in removed.untagged {
                    writeln!(out, "Untagged: {}", name.familiar())?;
                }
                for id in removed.images {
                    writeln!(out, "Deleted: {id}")?;
                }
            }
            Err(error) => code = Error::from(error).report(context.ui),
        }
    }
    Ok(code)
}

fn inspect(context: &Context, store: &Store, images: &[String]) -> Outcome {
    let all = images
        .iter()
        .map(|text| find(store, text).and_then(|image| document(&image)))
        .collect::<Result<Vec<_>, _>>()?;
    writeln!(context.ui.out(), "{}", serde_json::to_string_pretty(&all)?)?;
    Ok(0)
}

/// Docker's form of `image inspect`.
fn document(image: &Found) -> Result<Value, Error> {
    let tagged = image.names.iter().filter(|name| name.digest().is_none());
    let names: Vec<String> = tagged.map(Reference::familiar).collect();
    let digests: Vec<String> = image.sources.iter().map(Reference::familiar).collect();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": names,
        "RepoDigests": digests,
        "Created": image.created.map(|time| time.to_string()),
        "Author": image.config.author,
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "Config": serde_json::to_value(&image.config.config)?,
        "RootFS": {
            "Type": "layers",
            "Layers": image.layers.iter().map(|layer| layer.diff_id.to_string()).collect::<Vec<_>>(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let shown: Vec<String> =
            [0, 999, 1000, 1_234, 4_430_000, 123_456_789, 999_900_000].into_iter().map(size).collect();
        assert_eq!(shown, ["0B", "999B", "1kB", "1.23kB", "4.43MB", "123MB", "1GB"]);
    }
}
