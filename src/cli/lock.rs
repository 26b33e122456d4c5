//! `stack.lock`: the digest of every image that a project doesn't build, so that everybody runs the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::flag_from_env;
use super::invoker::OutputFile;
use super::project::Context;
use crate::images::{Digest, Reference, Store};
use crate::planner::image_name;
use crate::spec::model::Project;
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

/// An image that a lock is about.
pub(crate) struct Use {
    pub(crate) reference: Reference,
    pub(crate) platform: Option<String>,
    service: String,
    /// The step of the service's `pre_start` that it is for; none for the service itself.
    step: Option<usize>,
}

/// The images of services and of their `pre_start` steps that no service builds, that aren't built in, and that aren't
/// given by their digest already.
pub(crate) fn lockable(project: &Project) -> Result<Vec<Use>, Error> {
    let built = project.services.iter().filter(|(_, service)| service.build.is_some());
    let built: BTreeSet<String> = built.map(|(name, service)| image_name(project, name, service)).collect();
    let mut uses = Vec::new();
    for (name, service) in &project.services {
        let own = service.image.iter().filter(|_| service.build.is_none()).map(|image| (None, image));
        let steps = service.pre_start.iter().enumerate();
        let steps = steps.filter_map(|(step, hook)| Some((Some(step), hook.image.as_ref()?)));
        let steps = steps.filter(|(_, image)| !built.contains(*image));
        for (step, image) in own.chain(steps).filter(|(_, image)| *image != "stack/host") {
            let reference = Reference::parse(image)?;
            if reference.digest().is_none() {
                let platform =
                    service.platform.clone().filter(|_| step.is_none() || service.image.as_ref() == Some(image));
                uses.push(Use { reference, platform, service: name.clone(), step });
            }
        }
    }
    Ok(uses)
}

impl Use {
    /// Where the file names it.
    fn path(&self) -> Vec<String> {
        let step = self.step.map(|step| ["pre_start".to_owned(), step.to_string()]);
        let service = ["services".to_owned(), self.service.clone()];
        service.into_iter().chain(step.into_iter().flatten()).chain(["image".to_owned()]).collect()
    }

    /// Names another image in its place.
    fn replace(&self, project: &mut Project, image: String) {
        let Some(service) = project.services.get_mut(&self.service) else { return };
        match self.step {
            None => service.image = Some(image),
            Some(step) => service.pre_start[step].image = Some(image),
        }
    }
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
    for used in lockable(&loaded.project)? {
        let familiar = used.reference.familiar();
        let Some(digest) = lock.images.get(&used.reference.to_string()) else {
            let message = format!("service `{}` uses `{familiar}`, which stack.lock doesn't name", used.service);
            let path = used.path();
            let place = loaded.origin.place(&path.iter().map(String::as_str).collect::<Vec<_>>());
            return Err(Diagnostic::error(Kind::Reference, message).at(place).hint("run `stack lock`").into());
        };
        if let Some(found) = store.find(&familiar)? {
            let known = found.sources.iter().filter_map(Reference::digest).chain([found.digest]);
            let known: Vec<Digest> = known.collect();
            if !known.contains(digest) {
                moved.insert(familiar.clone(), (*digest, known[0]));
            }
        }
        used.replace(&mut loaded.project, format!("{familiar}@{digest}"));
    }
    for (image, (locked, now)) in moved {
        let (locked, now) = (locked.short(), now.short());
        context.ui.warn(format!("`{image}` has moved to {now}; {locked} is used, as stack.lock says"))?;
    }
    Ok(())
}
