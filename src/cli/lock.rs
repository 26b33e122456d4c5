//! `stack.lock`: the digest of every image that a project doesn't build, so that everybody runs the same.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::flag_from_env;
use super::invoker::OutputFile;
use super::project::Context;
use crate::images::{Digest, Reference, Store};
use crate::spec::model::Service;
use crate::spec::{Diagnostic, Kind, Loaded};

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lock {
    version: u32,
    /// What each image's full name means: the digest of an index or a manifest.
    pub(crate) images: BTreeMap<String, Digest>,
}

const VERSION: u32 = 1;

impl Lock {
    pub(crate) fn new(images: BTreeMap<String, Digest>) -> Lock {
        Lock { version: VERSION, images }
    }

    /// Reads the file; none where there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Lock>, Error> {
        let bad = |why: &dyn std::fmt::Display| {
            Error::new(format!("cannot read {}: {why}", path.display())).hint("`stack lock` writes it anew")
        };
        let text = match fs::read(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let lock: Lock = serde_json::from_slice(&text).map_err(|e| bad(&e))?;
        if lock.version == VERSION { Ok(Some(lock)) } else { Err(bad(&format!("its version is {}", lock.version))) }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        let mut file = OutputFile::create(path)?;
        writeln!(file, "{}", serde_json::to_string_pretty(self)?)?;
        file.finish()
    }
}

/// Where a project's file is.
pub(crate) fn path(loaded: &Loaded) -> PathBuf {
    loaded.source.working_dir.join("stack.lock")
}

/// The image of a service that a lock is about: one that isn't built, built in, or given by its digest already.
pub(crate) fn lockable(service: &Service) -> Result<Option<Reference>, Error> {
    let Some(image) = service.image.as_ref().filter(|image| service.build.is_none() && *image != "stack/host") else {
        return Ok(None);
    };
    let reference = Reference::parse(image)?;
    Ok(Some(reference).filter(|reference| reference.digest().is_none()))
}

/// Makes services use the images that `stack.lock` names: where `asked`, and in CI where the file is there. Says which images
/// mean something else in the store by now.
pub(crate) fn pin(context: &Context, loaded: &mut Loaded, asked: Option<bool>) -> Result<(), Error> {
    let path = path(loaded);
    if !asked.unwrap_or_else(|| flag_from_env("CI") && path.exists()) {
        return Ok(());
    }
    let lock = Lock::read(&path)?.ok_or_else(|| {
        Error::new(format!("there is no {}", path.display()))
            .hint("`stack lock` writes it; keep it with the stack file")
    })?;
    let store = Store::open(&context.paths.lib)?;
    let mut moved = BTreeMap::new();
    for (name, service) in &mut loaded.project.services {
        let Some(reference) = lockable(service)? else { continue };
        let familiar = reference.familiar();
        let Some(digest) = lock.images.get(&reference.to_string()) else {
            let message = format!("service `{name}` uses `{familiar}`, which stack.lock doesn't name");
            let place = loaded.origin.place(&["services", name, "image"]);
            return Err(Diagnostic::error(Kind::Reference, message).at(place).hint("run `stack lock`").into());
        };
        if let Some(found) = store.find(&familiar)? {
            let known = found.sources.iter().filter_map(Reference::digest).chain([found.digest]);
            let known: Vec<Digest> = known.collect();
            if !known.contains(digest) {
                moved.insert(familiar.clone(), (*digest, known[0]));
            }
        }
        service.image = Some(format!("{familiar}@{digest}"));
    }
    for (image, (locked, now)) in moved {
        let (locked, now) = (locked.short(), now.short());
        context.ui.warn(format!("`{image}` has moved to {now}; {locked} is used, as stack.lock says"))?;
    }
    Ok(())
}
