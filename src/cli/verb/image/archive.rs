//! `stack image import`, `load` and `save`.

use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::Path;

use fs_err as fs;

use super::find;
use crate::cli::error::{Error, Outcome};
use crate::cli::invoker::OutputFile;
use crate::cli::project::Context;
use crate::images::{self, Reference, Store};

pub(super) fn import(
    context: &Context,
    store: &Store,
    file: &Path,
    reference: Option<&str>,
    change: &[String],
) -> Outcome {
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

pub(super) fn load(context: &Context, store: &Store, input: Option<&Path>) -> Outcome {
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

pub(super) fn save(store: &Store, images: &[String], output: Option<&Path>) -> Outcome {
    let images = images.iter().map(|text| find(store, text)).collect::<Result<Vec<_>, _>>()?;
    match output {
        Some(path) => {
            let mut file = OutputFile::create(path)?;
            store.save(&images, &mut file)?;
            file.finish()?;
        }
        None if io::stdout().is_terminal() => {
            return Err(Error::new("an archive is not for the terminal").hint("name a file with `-o`, or use a pipe"));
        }
        None => store.save(&images, io::stdout().lock())?,
    }
    Ok(0)
}

pub(super) fn unpack(file: &Path, directory: &Path) -> Outcome {
    images::unpack_archive(archive(file)?, directory)?;
    Ok(0)
}
