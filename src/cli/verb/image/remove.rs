//! `stack image rm` and `prune`.

use std::io::Write as _;

use jiff::Timestamp;

use super::size;
use crate::cli::error::{Error, Outcome};
use crate::cli::filter::Filters;
use crate::cli::project::Context;
use crate::cli::terminal;
use crate::engine::state;
use crate::images::{ImageConfig, Removed, Store};

pub(super) fn remove(context: &Context, store: &Store, images: &[String], force: bool) -> Outcome {
    let collector = store.collector(|| state::images_in_use(&context.paths))?;
    let mut code = 0;
    for image in images {
        match collector.remove(image, force) {
            Ok(removed) => show(context, &removed)?,
            Err(error) => code = Error::from(error).report(context.ui),
        }
    }
    Ok(code)
}

pub(super) fn prune(context: &Context, store: &Store, all: bool, filters: &[String], force: bool) -> Outcome {
    let filters = Filters::parse(filters, Timestamp::now())?;
    let which = if all { "without at least one container" } else { "that have no name and no container" };
    let question = format!("This removes all images {which}, and what interrupted pulls left.\nGo on?");
    if !force && !terminal::agreed(&question)? {
        return Err(Error::new("nothing was changed"));
    }
    let removed = collect(context, store, all, &filters, || Ok(()))?;
    writeln!(context.ui.out(), "Total reclaimed space: {}", size(removed.freed))?;
    Ok(0)
}

/// Removes those of the images that no container uses which the filters take, and content that nothing refers to; does `more` while nobody builds or pulls.
pub(crate) fn collect(
    context: &Context,
    store: &Store,
    all: bool,
    filters: &Filters,
    more: impl FnOnce() -> Result<(), Error>,
) -> Result<Removed, Error> {
    let collector = store.collector(|| state::images_in_use(&context.paths))?;
    let taken = |config: &ImageConfig| filters.take(config.created, |label: &str| config.config.labels.get(label));
    let which: Option<&dyn Fn(&ImageConfig) -> bool> = if filters.is_empty() { None } else { Some(&taken) };
    let removed = collector.prune(all, which)?.ok_or_else(|| {
        Error::new("images are being pulled, built or started, so none are removed now").hint("run it again afterwards")
    })?;
    show(context, &removed)?;
    more()?;
    Ok(removed)
}

fn show(context: &Context, removed: &Removed) -> Result<(), Error> {
    let mut out = context.ui.out();
    for name in &removed.untagged {
        writeln!(out, "Untagged: {}", name.familiar())?;
    }
    for id in &removed.images {
        writeln!(out, "Deleted: {id}")?;
    }
    Ok(())
}
