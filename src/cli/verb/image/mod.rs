//! `stack image`: the image store by hand.

mod archive;
mod inspect;
mod list;
mod remove;

pub(crate) use remove::collect;

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::error::{Error, Outcome};
use crate::cli::policy;
use crate::cli::project::{Context, require_root};
use crate::cli::registry::{self, Wanted};
use crate::images::{Digest, Image as Found, Reference, Store};

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
    Ls(list::List),
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
    /// Remove images that have neither a name nor a container
    Prune {
        /// Remove all images without a container
        #[arg(short, long)]
        all: bool,
        /// Only those for which it holds: until=TIME, label=NAME[=VALUE], label!=NAME[=VALUE]
        #[arg(long, value_name = "FILTER")]
        filter: Vec<String>,
        /// Don't ask
        #[arg(short, long)]
        force: bool,
    },
    /// Show the steps that made an image
    History(inspect::History),
    /// Print everything about images as JSON
    Inspect {
        /// Names or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
        /// Form of the output: json or a template
        #[arg(short, long, value_name = "FORM")]
        format: Option<String>,
    },
    /// Unpack a layer's archive onto a directory, as a plain tree
    #[command(hide = true)]
    Unpack {
        /// The archive, plain or compressed with gzip or zstd; `-` reads standard input
        #[arg(id = "archive", value_name = "ARCHIVE")]
        file: PathBuf,
        /// The directory
        directory: PathBuf,
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
            ImageVerb::Unpack { file, directory } => archive::unpack(file, directory),
            ImageVerb::Ls(list) => list.run(context, &store),
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
                archive::import(context, &store, file, reference.as_deref(), change)
            }
            ImageVerb::Load { input } => archive::load(context, &store, input.as_deref()),
            ImageVerb::Save { images, output } => archive::save(&store, images, output.as_deref()),
            ImageVerb::Rm { images, force } => remove::remove(context, &store, images, *force),
            ImageVerb::Inspect { images, format } => inspect::inspect(context, &store, images, format.as_deref()),
            ImageVerb::Prune { all, filter, force } => remove::prune(context, &store, *all, filter, *force),
            ImageVerb::History(history) => history.show(context, &store),
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
